package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/recorder"
)

// company is an OpenID provider that signs alice in at once, gives refresh tokens that are good once, and can be down or have
// closed her account.
type company struct {
	*httptest.Server
	key *ecdsa.PrivateKey

	// The next question is not answered where it hangs.
	hanging atomic.Bool
	asked   chan struct{}

	mu           sync.Mutex
	down, closed bool
	nonces       map[string]string // by code
	refresh      string            // the only good one
}

func newCompany(t *testing.T) *company {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &company{key: key, nonces: map[string]string{}, asked: make(chan struct{})}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.Close)
	return c
}

func (c *company) set(down, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down, c.closed = down, closed
}

func (c *company) serve(w http.ResponseWriter, r *http.Request) {
	if c.hanging.CompareAndSwap(true, false) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that whoever asked has given it up
		c.asked <- struct{}{}
		<-r.Context().Done()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // whoever asked may be gone
	}
	switch {
	case c.down:
		http.Error(w, "down", http.StatusBadGateway)
	case r.URL.Path == "/.well-known/openid-configuration":
		reply(http.StatusOK, map[string]any{
			"issuer": c.URL, "authorization_endpoint": c.URL + "/authorize", "token_endpoint": c.URL + "/token", "jwks_uri": c.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	case r.URL.Path == "/keys":
		reply(http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: c.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	case r.URL.Path == "/authorize":
		code := rand.Text()
		c.nonces[code] = r.FormValue("nonce")
		http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+url.Values{"state": {r.FormValue("state")}, "code": {code}}.Encode(), http.StatusFound)
	case r.FormValue("grant_type") == "refresh_token" && (c.closed || r.FormValue("refresh_token") != c.refresh):
		reply(http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
	default:
		c.refresh = rand.Text()
		answer := map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 300, "refresh_token": c.refresh}
		if nonce, ok := c.nonces[r.FormValue("code")]; ok {
			answer["id_token"] = c.sign(map[string]any{
				"iss": c.URL, "sub": "1", "aud": "x", "nonce": nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
				"name": "Alice", "email": "alice@example.com", "groups": []string{"engineers"},
			})
		}
		reply(http.StatusOK, answer)
	}
}

func (c *company) sign(claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: c.key, KeyID: "1"}}, nil)
	if err != nil {
		panic(err) // a P-256 key signs
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		panic(err)
	}
	return token
}

// newEmergencyHouse is a house whose people come from a company, in which alice is signed in and may break the glass.
func newEmergencyHouse(t *testing.T) (*house, *company) {
	t.Helper()
	c := newCompany(t)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var h *house
	gateway := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.authn.Handler().ServeHTTP(w, r) }))
	gateway.StartTLS()
	t.Cleanup(gateway.Close)
	h = newHouse(t, func(config *configs.Config) {
		config.URL = gateway.URL
		config.Provider = configs.Provider{Issuer: c.URL, ClientID: "x", CA: authority, Scopes: []string{"openid"}}
		config.Credentials.StandingGrace = configs.Duration(10 * time.Minute)
		config.Policies = append(config.Policies, configs.Policy{
			Name: "glass", Groups: []string{"engineers"}, Accounts: []string{"owner@*"}, MaxDuration: configs.Duration(time.Hour), DefaultDuration: configs.Duration(time.Hour),
			ReasonLength: 1, BreakGlass: true, Review: configs.Review{Groups: []string{"security"}, Within: configs.Duration(time.Hour)}, Approve: configs.Approve{Auto: true},
		})
	})
	h.sessions.standing = 10 * time.Millisecond
	h.alice = h.throughTheBrowser(t, gateway, c)
	return h, c
}

// throughTheBrowser signs alice in as the command line does.
func (h *house) throughTheBrowser(t *testing.T, gateway *httptest.Server, c *company) authn.Identity {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	jar, err := cookiejar.New(nil)
	must(err)
	transport := gateway.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs.AddCert(c.Certificate())
	t.Cleanup(transport.CloseIdleConnections)
	browser := &http.Client{Transport: transport, Jar: jar, Timeout: time.Minute, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if next.URL.Path == "/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	verifier := oauth2.GenerateVerifier()
	program := oauth2.Config{
		ClientID: "sallyport-cli", RedirectURL: "http://127.0.0.1:45678/callback", Scopes: []string{"openid"},
		Endpoint: oauth2.Endpoint{AuthURL: gateway.URL + "/oauth/authorize", TokenURL: gateway.URL + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams},
	}
	answer, err := browser.Get(program.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)))
	must(err)
	page, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	must(err)
	goOn := regexp.MustCompile(`href="(/oauth/login/go[^"]+)"`).FindSubmatch(page)
	if goOn == nil {
		t.Fatalf("%s: %s", answer.Status, page)
	}
	answer, err = browser.Get(gateway.URL + strings.ReplaceAll(string(goOn[1]), "&amp;", "&"))
	must(err)
	answer.Body.Close()
	back, err := answer.Location()
	must(err)
	token, err := program.Exchange(context.WithValue(t.Context(), oauth2.HTTPClient, browser), back.Query().Get("code"), oauth2.VerifierOption(verifier))
	must(err)
	who, err := h.authn.Bearer(t.Context(), token.AccessToken)
	must(err)
	return who
}

// unheardFor has the provider's last word be that old.
func (h *house) unheardFor(t *testing.T, age time.Duration) {
	t.Helper()
	err := h.store.Do(t.Context(), func(tx *store.Tx) error {
		done, err := tx.ExecContext(t.Context(), `UPDATE vouchers SET vouched = vouched - ?, asked = 0`, age.Nanoseconds())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 && age > 0 {
			t.Errorf("%d refresh tokens are kept, %v", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// open tries to begin a session.
func (h *house) open(t *testing.T, lease *grant.Lease, account int) (*Session, error) {
	t.Helper()
	s, err := h.sessions.Begin(t.Context(), Opening{
		Protocol: configs.KindPostgres, Identity: h.alice, Target: h.target, Account: h.target.Accounts[account], Lease: lease,
		Client: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
	})
	if err == nil {
		t.Cleanup(func() { s.End(Ending{Reason: EndClientClosed}) })
	}
	return s, err
}

// lease asks for a grant, if it has to, and takes a lease of it.
func (h *house) lease(t *testing.T, ask *grant.Ask, account string) *grant.Lease {
	t.Helper()
	if ask != nil {
		ask.Target, ask.Account, ask.Reason = "echo", account, "the provider is down"
		if _, err := h.grants.Request(t.Context(), h.alice, *ask); err != nil {
			t.Fatal(err)
		}
	}
	l, err := h.grants.Lease(t.Context(), h.alice, "echo", account)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestEmergencyWithoutTheProvider: while the provider can't be asked, what a grant of an emergency opens begins and goes on, and
// nothing else does; and it ends with its grant.
func TestEmergencyWithoutTheProvider(t *testing.T) {
	h, c := newEmergencyHouse(t)
	ordinary, err := h.open(t, h.lease(t, &grant.Ask{Duration: time.Hour}, "app"), 0)
	if err != nil {
		t.Fatal(err)
	}

	c.set(true, false)
	h.unheardFor(t, time.Minute)
	_, err = h.open(t, h.lease(t, nil, "app"), 0)
	if !refusal.Is(err, refusal.NotAuthenticated) {
		t.Fatalf("an ordinary session began: %v", err)
	}
	emergency, err := h.open(t, h.lease(t, &grant.Ask{Duration: time.Hour, BreakGlass: true}, "owner"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ordinary.Admit(t.Context(), said("within the grace")); err != nil {
		t.Errorf("the ordinary session ended within standing_grace: %v, %+v", err, ordinary.Ending())
	}

	h.unheardFor(t, 10*time.Minute)
	wait(t, "the end of the ordinary session", ordinary.Done())
	if why := ordinary.Ending(); why.Reason != EndIdentityDisabled || !strings.Contains(why.Sentence, "could not be asked") {
		t.Errorf("it ended with %+v", why)
	}
	if _, err = h.open(t, h.lease(t, nil, "app"), 0); !refusal.Is(err, refusal.NotAuthenticated) {
		t.Fatalf("an ordinary session began: %v", err)
	}
	second, err := h.open(t, h.lease(t, nil, "owner"), 1)
	if err != nil {
		t.Fatalf("after standing_grace an emergency finds the door shut: %v", err)
	}
	for range 5 { // what watch does
		if why := emergency.withoutStanding(t.Context()); why != nil {
			t.Fatalf("the session of an emergency is cut: %+v", *why)
		}
	}
	for _, s := range []*Session{emergency, second} {
		if _, err := s.Admit(t.Context(), said("in an emergency")); err != nil {
			t.Fatalf("%v, %+v", err, s.Ending())
		}
	}
	h.told(t, "session.unvouched", 2)

	if _, err := h.grants.Release(t.Context(), h.alice, emergency.opening.Lease.Grant.ID); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Session{emergency, second} {
		wait(t, "the end with the grant", s.Done())
		if reason := s.Ending().Reason; reason != "grant_released" {
			t.Errorf("ended as %s", reason)
		}
	}
	short, err := h.open(t, h.lease(t, &grant.Ask{Duration: 4 * time.Second, BreakGlass: true}, "owner"), 1)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the grant's time", short.Done())
	if reason := short.Ending().Reason; reason != "grant_expired" {
		t.Errorf("ended as %s", reason)
	}
}

// TestEmergencyOfSomebodyClosed: a word of the provider's counts in an emergency too, as soon as it can be had.
func TestEmergencyOfSomebodyClosed(t *testing.T) {
	h, c := newEmergencyHouse(t)
	c.set(true, false)
	h.unheardFor(t, 20*time.Minute)
	s, err := h.open(t, h.lease(t, &grant.Ask{Duration: time.Hour, BreakGlass: true}, "owner"), 1)
	if err != nil {
		t.Fatal(err)
	}
	again := h.lease(t, nil, "owner")
	c.set(false, true)
	h.unheardFor(t, 0)
	wait(t, "the end", s.Done())
	if why := s.Ending(); why.Reason != EndIdentityDisabled || !strings.Contains(why.Sentence, "does not vouch for you") {
		t.Errorf("it ended with %+v", why)
	}
	if _, err := h.open(t, again, 1); err == nil {
		t.Error("another session began")
	}
	h.told(t, "session.unvouched", 1)
}

// TestEndDoesNotWaitForTheProvider: while it is asked about an identity and does not answer, a grant that ends ends its session.
func TestEndDoesNotWaitForTheProvider(t *testing.T) {
	h, c := newEmergencyHouse(t)
	l := h.lease(t, &grant.Ask{Duration: time.Hour}, "app")
	s, err := h.open(t, l, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.hanging.Store(true)
	h.unheardFor(t, time.Minute)
	wait(t, "the question", c.asked)
	if _, err := h.grants.Release(t.Context(), h.alice, l.Grant.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(cutTime - 2*time.Second): // before the question is given up
		t.Fatal("the end of the grant waits for the provider")
	}
	if reason := s.Ending().Reason; reason != "grant_released" {
		t.Errorf("ended as %s", reason)
	}
	c.CloseClientConnections()
}

// told counts the audit events of a kind.
func (h *house) told(t *testing.T, kind string, want int) {
	t.Helper()
	got := 0
	for _, err := range h.recorder.Audit(t.Context(), recorder.AuditFilter{Kind: kind}) {
		if err != nil {
			t.Fatal(err)
		}
		got++
	}
	if got != want {
		t.Errorf("%d events %s, want %d", got, kind, want)
	}
}
