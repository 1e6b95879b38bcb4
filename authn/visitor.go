package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
)

// browserCookie ties a sign-in to the browser that began it. Without it somebody could begin one, have a victim finish
// it, and take the code that the victim's identity led to. The prefix makes browsers insist on Secure, on this host, for
// all paths.
const browserCookie = "__Host-sallyport-browser"

// hashed is how secrets stand in the tables. They are random and long, so that a plain hash is enough.
func hashed(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// visitor is who sends a request to the issuer, as far as it is known.
type visitor struct {
	source  string // what the rate is counted by
	address string
	agent   string
	browser []byte // hash of the cookie; nil for none
}

type visitorKey struct{}

// visitorOf is the sender of the request that ctx belongs to.
func visitorOf(ctx context.Context) *visitor {
	v, _ := ctx.Value(visitorKey{}).(*visitor)
	if v == nil {
		return &visitor{}
	}
	return v
}

func newVisitor(r *http.Request) *visitor {
	v := &visitor{source: r.RemoteAddr, address: r.RemoteAddr, agent: printable(r.UserAgent(), 128)}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		a := at.Addr().Unmap().WithZone("")
		v.address, v.source = a.String(), a.String()
		if network, err := a.Prefix(64); err == nil && a.Is6() { // what one customer has
			v.source = network.String()
		}
	}
	if c, err := r.Cookie(browserCookie); err == nil && len(c.Value) >= 26 && len(c.Value) <= 128 {
		v.browser = hashed(c.Value)
	}
	return v
}

// remember gives the browser its cookie if it has none.
func (v *visitor) remember(w http.ResponseWriter) {
	if v.browser != nil {
		return
	}
	value := rand.Text()
	v.browser = hashed(value)
	http.SetCookie(w, &http.Cookie{
		Name: browserCookie, Value: value, Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, // sent when the provider sends the browser back, not when another site posts a form
	})
}

// is tells whether that is the browser whose cookie was hashed.
func (v *visitor) is(browser []byte) bool {
	return v.browser != nil && subtle.ConstantTimeCompare(v.browser, browser) == 1
}

// What one source may ask of the issuer: a sign-in is about ten requests, a waiting device one every two seconds.
const (
	sourceRate  = 20 // a second
	sourceBurst = 100

	// What one source may begin: sign-ins on their way are kept for minutes, and at a higher rate one source could take
	// all the room there is for them (maxPending).
	beginRate  = 2
	beginBurst = 100

	// The company's provider tells of everybody's logouts from one address.
	logoutRate  = 200
	logoutBurst = 2000
)
