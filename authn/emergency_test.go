package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sallyport/authn/passkey/passkeytest"
	"sallyport/authn/throttle"
	"sallyport/configs"
	"sallyport/internal/refusal"
)

// newKeyRig is a rig whose gateway has a name and takes enrolled keys.
func newKeyRig(t *testing.T, change ...func(*configs.Config)) *rig {
	r := newRig(t, append([]func(*configs.Config){func(c *configs.Config) {
		c.URL = "https://gateway.example.com"
		c.Credentials.SSHKey = configs.Duration(8 * time.Hour)
		c.Provider.Claims = []string{"unit"}
		c.Credentials.EnrolledKeys = &configs.EnrolledKeys{SignIn: configs.SignIn{MaxAge: configs.Duration(15 * time.Minute)}, Known: configs.Duration(7 * 24 * time.Hour)}
	}}, change...)...)
	r.stand()
	r.company.set(func(c *company) {
		c.refresh, c.closed = true, map[string]bool{}
		c.claims["alice"]["unit"] = "payments"
	})
	return r
}

// enrol signs a person in and enrols a key of theirs.
func (r *rig) enrol(person string, change ...func(*passkeytest.Key)) (Identity, *passkeytest.Key) {
	r.t.Helper()
	_, token := r.signedIn(person)
	who := must(r.Bearer(r.t.Context(), token.AccessToken))(r.t)
	key, answer := r.made(must(r.EnrolKey(r.t.Context(), who))(r.t), change...)
	if k := must(r.KeyEnrolled(r.t.Context(), who, "ring", answer, "192.0.2.1"))(r.t); k.Name != "ring" || k.From != "192.0.2.1" {
		r.t.Fatalf("%+v", k)
	}
	return who, key
}

func (r *rig) made(options []byte, change ...func(*passkeytest.Key)) (*passkeytest.Key, []byte) {
	r.t.Helper()
	key, answer, err := passkeytest.Make(options, r.server.URL, change...)
	if err != nil {
		r.t.Fatal(err)
	}
	return key, answer
}

// down stops the provider, or lets it go on, long enough ago that the gateway asks it anew.
func (r *rig) down(down bool) {
	r.company.set(func(c *company) { c.down = down })
	r.advance(5 * time.Second)
}

var optionsOf = regexp.MustCompile(`data-options="([^"]*)"`)

// challenge is what a page has the browser ask its authenticator; nil where it offers no key.
func challenge(p page) []byte {
	if found := optionsOf.FindStringSubmatch(p.text); found != nil {
		return []byte(html.UnescapeString(found[1]))
	}
	return nil
}

// answerKey sends what a key says.
func (b *browser) answerKey(answer []byte) page {
	b.r.t.Helper()
	return b.post(b.r.server.URL+"/oauth/key", url.Values{"answer": {string(answer)}})
}

var nextOf = regexp.MustCompile(`<a class="go" href="([^"]+)"`)

// byKey goes the whole way with a key while the provider is down.
func (r *rig) byKey(key *passkeytest.Key) *oauth2.Token {
	r.t.Helper()
	b, f := r.browser(), r.flow()
	p := b.goOn(b.get(f.address()))
	if p.StatusCode != http.StatusServiceUnavailable || challenge(p) == nil {
		r.t.Fatalf("no key is asked for: %s\n%s", p.Status, p.text)
	}
	p = b.answerKey(must(key.Sign(challenge(p)))(r.t))
	next := nextOf.FindStringSubmatch(p.text)
	if p.StatusCode != http.StatusOK || next == nil || !strings.Contains(p.text, "for an emergency") {
		r.t.Fatalf("not signed in: %s\n%s", p.Status, p.text)
	}
	code := r.code(b.get(r.server.URL + html.UnescapeString(next[1])))
	return must(f.config.Exchange(r.oauthContext(), code, oauth2.VerifierOption(f.verifier)))(r.t)
}

// TestEnrolledKeySignsInWhileTheProviderIsDown: who enrolled a key when the provider could be asked is who they were then, for an hour
// and for emergencies alone, whatever else they have.
func TestEnrolledKeySignsInWhileTheProviderIsDown(t *testing.T) {
	r := newKeyRig(t)
	ordinary, key := r.enrol("alice")
	if e := r.events("key.enrolled"); len(e) != 1 || e[0].Actor != ordinary.Key() || e[0].Client != "192.0.2.1" || e[0].Fields["name"] != "ring" {
		t.Errorf("%+v", e)
	}
	proved := r.clock()
	r.advance(time.Hour)
	r.down(true)
	token := r.byKey(key)
	who := must(r.EmergencyBearer(t.Context(), token.AccessToken))(t)
	if who.Key() != ordinary.Key() || who.Name != "Alice Engineer" || !slices.Equal(who.Groups, []string{"engineers", "oncall"}) || who.Emergency == "" || who.Claims["unit"] != "payments" || len(who.AMR) > 0 || !who.AuthTime.IsZero() {
		t.Fatalf("%+v", who)
	}
	if d := who.Expires.Sub(who.SignedIn); d != time.Hour || who.Known.After(proved) || proved.Sub(who.Known) > time.Minute {
		t.Errorf("it lasts %s, and the provider spoke last at %s, not %s", d, who.Known, proved)
	}
	if e := r.events("login.emergency"); len(e) != 1 || e[0].Actor != who.Key() || e[0].Fields["key"] != who.Emergency || e[0].Client != "127.0.0.1" {
		t.Errorf("%+v", e)
	}
	if k := must(r.EnrolledKeys(t.Context(), who))(t); len(k) != 1 || k[0].ID != who.Emergency || k[0].Used.IsZero() || !k[0].Suspended.IsZero() {
		t.Errorf("%+v", k)
	}

	// Nothing else is to be had for it, though an ordinary sign-in of hers lasts longer.
	_, err := r.Bearer(t.Context(), token.AccessToken)
	refused(t, err, refusal.NotPermitted)
	_, _, err = r.IssuePassword(t.Context(), who, "orders", "app", 0)
	refused(t, err, refusal.NotPermitted)
	_, err = r.EnrolKey(t.Context(), who)
	refused(t, err, refusal.NotPermitted)
	if e := r.events("key.refused"); len(e) != 3 || e[0].Actor != who.Key() {
		t.Errorf("%+v", e)
	}
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	issued := must(r.Certify(t.Context(), who, Keys{TLS: private.Public()}))(t)
	if issued.Expires.After(who.Expires) {
		t.Errorf("the certificate lasts until %s, the sign-in until %s", issued.Expires, who.Expires)
	}
	if cert := must(r.ClientCertificate(t.Context(), chainOf(t, issued.TLS)))(t); cert.Emergency != who.Emergency {
		t.Errorf("the certificate stands for %+v", cert)
	}
	if cert := must(r.ClientCertificate(t.Context(), chainOf(t, must(r.Certify(t.Context(), ordinary, Keys{TLS: private.Public()}))(t).TLS)))(t); cert.Emergency != "" {
		t.Errorf("the ordinary certificate stands for %+v", cert)
	}
	// It can't be asked whether she may: only an emergency is an exception to that.
	if err := r.Standing(t.Context(), who); !errors.Is(err, ErrUnvouched) {
		t.Errorf("her standing is %v", err)
	}
	// A new access token is no better than the old one.
	r.advance(time.Minute)
	config := r.flow().config
	fresh := must(config.TokenSource(r.oauthContext(), &oauth2.Token{RefreshToken: token.RefreshToken}).Token())(t)
	if again := must(r.EmergencyBearer(t.Context(), fresh.AccessToken))(t); again.Emergency != who.Emergency || !again.Expires.Equal(who.Expires) {
		t.Errorf("%+v", again)
	}
	// Nobody else speaks for her by it.
	if err := r.Revoke(t.Context(), ordinary); err != nil {
		t.Fatal(err)
	}
	r.advance(5 * time.Second)
	token = r.byKey(key)
	who = must(r.EmergencyBearer(t.Context(), token.AccessToken))(t)
	_, err = r.SignedIn(t.Context(), who.Issuer, who.Subject, "slack")
	refused(t, err, refusal.NotAuthenticated)
	r.advance(time.Hour)
	_, err = r.EmergencyBearer(t.Context(), token.AccessToken)
	refused(t, err, refusal.CredentialExpired)
}

// TestProviderIsBackAfterAnEmergencySignIn: its word counts as soon as it can be had, and no key is taken then.
func TestProviderIsBackAfterAnEmergencySignIn(t *testing.T) {
	r := newKeyRig(t)
	_, key := r.enrol("alice")
	r.advance(time.Minute)
	r.down(true)
	token := r.byKey(key)
	who := must(r.EmergencyBearer(t.Context(), token.AccessToken))(t)
	r.down(false)
	if err := r.Standing(t.Context(), who); err != nil {
		t.Errorf("the provider vouches for her: %v", err)
	}
	r.company.set(func(c *company) { c.closed["alice"] = true })
	r.advance(vouchEvery)
	refused(t, r.Standing(t.Context(), who), refusal.IdentityDisabled)
	_, err := r.EmergencyBearer(t.Context(), token.AccessToken)
	refused(t, err, refusal.NotAuthenticated)

	// It has said no, so the key is no good the next time that it can't be asked, until it has said yes.
	r.down(true)
	b, f := r.browser(), r.flow()
	p := b.answerKey(must(key.Sign(challenge(b.goOn(b.get(f.address())))))(t))
	if p.StatusCode != http.StatusForbidden || !strings.Contains(p.text, "did not vouch") {
		t.Errorf("%s\n%s", p.Status, p.text)
	}
	r.company.set(func(c *company) { c.closed["alice"] = false })
	r.down(false)
	r.signedIn("alice")
	r.down(true)
	r.byKey(key)
}

// TestEnrolledKeyAbuse: what is no proof, or one of somebody who may not, signs nobody in; what is known of whom is audited.
func TestEnrolledKeyAbuse(t *testing.T) {
	type attempt struct {
		r       *rig
		b       *browser
		who     Identity
		key     *passkeytest.Key
		options []byte
	}
	sign := func(a attempt) page { return a.b.answerKey(must(a.key.Sign(a.options))(a.r.t)) }
	shared := newKeyRig(t)
	sharedWho, sharedKey := shared.enrol("alice")
	for name, test := range map[string]struct {
		try   func(a attempt) page
		says  string
		event string // of somebody who is known
		own   bool   // it changes what the others find
	}{
		"a challenge used twice": {func(a attempt) page {
			answer := must(a.key.Sign(a.options))(t)
			if p := a.b.answerKey(answer); p.StatusCode != http.StatusOK {
				t.Fatalf("the first time: %s", p.text)
			}
			return a.b.answerKey(answer)
		}, "not accepted", "", true},
		"a challenge of another browser": {func(a attempt) page {
			other := a.r.browser()
			other.get(a.r.flow().address())
			return other.answerKey(must(a.key.Sign(a.options))(t))
		}, "not accepted", "", false},
		"a browser without a cookie": {func(a attempt) page { return a.r.browser().answerKey(must(a.key.Sign(a.options))(t)) }, "never begun", "", false},
		"a challenge of its own": {func(a attempt) page {
			a.options = []byte(`{"challenge": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)
			return sign(a)
		}, "not accepted", "", false},
		"a challenge that is too old": {func(a attempt) page { a.r.advance(4 * time.Minute); return sign(a) }, "not accepted", "", false},
		"a challenge to enrol a key": {func(a attempt) page {
			a.options = must(a.r.EnrolKey(t.Context(), a.who))(t)
			return sign(a)
		}, "not accepted", "", true},
		"another origin":        {func(a attempt) page { a.key.Origin = "https://gateway.example.com.evil.example"; return sign(a) }, "not accepted", "", false},
		"a sister's origin":     {func(a attempt) page { a.key.Origin = "https://other.example.com"; return sign(a) }, "not accepted", "", false},
		"an origin without TLS": {func(a attempt) page { a.key.Origin = "http://gateway.example.com"; return sign(a) }, "not accepted", "", false},
		"another party":         {func(a attempt) page { a.key.RP = "example.com"; return sign(a) }, "not accepted", "", false},
		"only touched":          {func(a attempt) page { a.key.Unverified = true; return sign(a) }, "not accepted", "", false},
		"a key that is not enrolled": {func(a attempt) page {
			stranger, _ := a.r.made([]byte(`{"challenge":"x","rp":{"id":"gateway.example.com"},"user":{"id":"` + "dS14" + `"}}`))
			a.key = stranger
			return sign(a)
		}, "not accepted", "", false},
		"the id of somebody else's key": {func(a attempt) page {
			stranger, _ := a.r.made([]byte(`{"challenge":"x","rp":{"id":"gateway.example.com"},"user":{"id":"` + "dS14" + `"}}`))
			stranger.ID, stranger.Handle, stranger.Counter = a.key.ID, a.key.Handle, 99
			a.key = stranger
			return sign(a)
		}, "not accepted", "", false},
		"in somebody else's name": {func(a attempt) page {
			a.key.Handle = []byte(identityID(a.who.Issuer, "bob"))
			return sign(a)
		}, "not accepted", "", false},
		"no answer":       {func(a attempt) page { return a.b.answerKey(nil) }, "not accepted", "", false},
		"far too long":    {func(a attempt) page { return a.b.answerKey([]byte(strings.Repeat("A", 20<<10))) }, "not accepted", "", false},
		"too long a form": {func(a attempt) page { return a.b.answerKey([]byte(strings.Repeat("A", 64<<10))) }, "be read", "", false},
		"a signature cut short": {func(a attempt) page {
			var answer map[string]any
			if err := json.Unmarshal(must(a.key.Sign(a.options))(t), &answer); err != nil {
				t.Fatal(err)
			}
			response, _ := answer["response"].(map[string]any)
			text, _ := response["signature"].(string)
			response["signature"] = text[:len(text)/2]
			return a.b.answerKey(must(json.Marshal(answer))(t))
		}, "not accepted", "", false},
		"while the provider answers":   {func(a attempt) page { a.r.down(false); return sign(a) }, "answers again", "", false},
		"a counter that has not grown": {func(a attempt) page { a.key.Counts, a.key.Counter = false, 1; a.r.use(a.key, 1); return sign(a) }, "suspended", "key.cloned", true},
		"a counter that has fallen":    {func(a attempt) page { a.r.use(a.key, 50); return sign(a) }, "suspended", "key.cloned", true},
		"somebody who is disabled": {func(a attempt) page {
			if err := a.r.Disable(t.Context(), a.who.Key()); err != nil {
				t.Fatal(err)
			}
			return sign(a)
		}, "is disabled", "login.refused", true},
		"a key that was removed": {func(a attempt) page {
			k := must(a.r.EnrolledKeys(t.Context(), a.who))(t)
			if err := a.r.RemoveKey(t.Context(), a.who, k[0].ID, ""); err != nil {
				t.Fatal(err)
			}
			return sign(a)
		}, "not accepted", "", true},
		"somebody who signed in too long ago": {func(a attempt) page {
			a.r.advance(8 * 24 * time.Hour)
			b := a.r.browser()
			p := b.goOn(b.get(a.r.flow().address()))
			return b.answerKey(must(a.key.Sign(challenge(p)))(t))
		}, "longer than 168h", "login.refused", true},
	} {
		t.Run(name, func(t *testing.T) {
			r, who, key := shared, sharedWho, *sharedKey
			if test.own {
				r = newKeyRig(t)
				r.company.set(func(c *company) { c.refresh = name != "somebody who signed in too long ago" })
				var mine *passkeytest.Key
				who, mine = r.enrol("alice")
				key = *mine
			}
			r.advance(throttle.Window)
			r.down(true)
			b := r.browser()
			options := challenge(b.goOn(b.get(r.flow().address())))
			p := test.try(attempt{r, b, who, &key, options})
			if p.StatusCode != http.StatusForbidden || !strings.Contains(p.text, test.says) {
				t.Errorf("%s\n%s", p.Status, p.text)
			}
			signedIn := len(r.events("login.emergency"))
			if want := name == "a challenge used twice"; want != (signedIn == 1) {
				t.Errorf("%d sign-ins", signedIn)
			}
			if test.event == "" {
				if e := r.events("login.refused"); len(e) > 0 {
					t.Errorf("a stranger is in the audit log: %+v", e)
				}
				return
			}
			if e := r.events(test.event); len(e) != 1 || e[0].Actor != who.Key() || e[0].Outcome == "" || e[0].Fields["key"] == "" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// use has a key's counter be known as that.
func (r *rig) use(key *passkeytest.Key, counter int) {
	r.t.Helper()
	if n, err := r.exec(r.t.Context(), `UPDATE enrolled_keys SET counter = ? WHERE credential = ?`, counter, key.ID); err != nil || n != 1 {
		r.t.Fatal(n, err)
	}
}

// TestClonedKeyIsSuspended: once two of a key may be about, neither is good, and what it signed in ends.
func TestClonedKeyIsSuspended(t *testing.T) {
	r := newKeyRig(t)
	_, key := r.enrol("alice")
	r.advance(time.Minute)
	r.down(true)
	copied := *key
	access := r.byKey(key).AccessToken
	b, f := r.browser(), r.flow()
	p := b.answerKey(must(copied.Sign(challenge(b.goOn(b.get(f.address())))))(t))
	if p.StatusCode != http.StatusForbidden || !strings.Contains(p.text, "suspended") {
		t.Fatalf("%s\n%s", p.Status, p.text)
	}
	_, err := r.EmergencyBearer(t.Context(), access)
	refused(t, err, refusal.NotAuthenticated)
	key.Counter = 100
	p = b.answerKey(must(key.Sign(challenge(b.goOn(b.get(r.flow().address())))))(t))
	if p.StatusCode != http.StatusForbidden || !strings.Contains(p.text, "suspended") {
		t.Errorf("the first of the two: %s\n%s", p.Status, p.text)
	}
}

// TestEnrolledKeyFailuresAreCounted: who shows keys that prove nothing has to wait.
func TestEnrolledKeyFailuresAreCounted(t *testing.T) {
	r := newKeyRig(t)
	r.down(true)
	b := r.browser()
	b.get(r.flow().address())
	for range throttle.Most {
		if p := b.answerKey([]byte("{}")); p.StatusCode != http.StatusForbidden {
			t.Fatal(p.Status)
		}
	}
	if p := b.answerKey([]byte("{}")); p.StatusCode != http.StatusTooManyRequests || p.Header.Get("Retry-After") == "" {
		t.Errorf("%s", p.Status)
	}
	r.advance(throttle.Window)
	if p := b.answerKey([]byte("{}")); p.StatusCode != http.StatusForbidden {
		t.Errorf("a minute later: %s", p.Status)
	}
	if err := r.flushCounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := r.events("unauthenticated.refused"); len(e) != 1 || e[0].Fields[strangeKey] != "21" || e[0].Fields[strangeKeyWait] != "1" {
		t.Errorf("%+v", e)
	}
}

// TestKeysAreEnrolledByWhoProvedThemselves: lately, as strongly as is asked, with a key that is theirs alone.
func TestKeysAreEnrolledByWhoProvedThemselves(t *testing.T) {
	r := newKeyRig(t, func(c *configs.Config) { c.Credentials.EnrolledKeys.SignIn.AMR = []string{"hwk", "otp"} })
	signIn := func(person string, amr ...string) Identity {
		r.company.set(func(c *company) { c.claims[person]["amr"] = amr })
		_, token := r.signedIn(person)
		return must(r.Bearer(t.Context(), token.AccessToken))(t)
	}
	_, err := r.EnrolKey(t.Context(), signIn("alice", "pwd"))
	refused(t, err, refusal.StepUp)
	alice := signIn("alice", "pwd", "otp")
	_, old := r.made(must(r.EnrolKey(t.Context(), alice))(t))
	key, answer := r.made(must(r.EnrolKey(t.Context(), alice))(t))
	for name, try := range map[string]struct {
		who    Identity
		name   string
		answer []byte
		code   refusal.Code
	}{
		"what was asked before":  {alice, "ring", old, refusal.NotAuthenticated},
		"by somebody else":       {signIn("bob", "otp"), "ring", answer, refusal.NotAuthenticated},
		"of another sign-in":     {signIn("alice", "otp"), "ring", answer, refusal.NotAuthenticated},
		"without a name":         {alice, " ", answer, refusal.Invalid},
		"with a name in colours": {alice, "\x1b[31mring", answer, refusal.Invalid},
		"with too long a name":   {alice, strings.Repeat("x", 65), answer, refusal.Invalid},
		"without an answer":      {alice, "ring", nil, refusal.NotAuthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.KeyEnrolled(t.Context(), try.who, try.name, try.answer, "")
			refused(t, err, try.code)
		})
	}
	for name, change := range map[string]func(*passkeytest.Key){
		"at another origin":  func(k *passkeytest.Key) { k.Origin = "https://evil.example" },
		"for another party":  func(k *passkeytest.Key) { k.RP = "evil.example" },
		"only touched":       func(k *passkeytest.Key) { k.Unverified = true },
		"with an endless id": func(k *passkeytest.Key) { k.ID = make([]byte, 1024) },
	} {
		t.Run(name, func(t *testing.T) {
			_, spoilt := r.made(must(r.EnrolKey(t.Context(), alice))(t), change)
			_, err := r.KeyEnrolled(t.Context(), alice, "ring", spoilt, "")
			refused(t, err, refusal.NotAuthenticated)
		})
	}
	if n := len(r.events("key.enrolled")); n != 0 {
		t.Fatalf("%d keys are enrolled", n)
	}
	key, answer = r.made(must(r.EnrolKey(t.Context(), alice))(t))
	must(r.KeyEnrolled(t.Context(), alice, "ring", answer, ""))(t)
	_, err = r.KeyEnrolled(t.Context(), alice, "ring", answer, "") // again
	refused(t, err, refusal.NotAuthenticated)
	bob := signIn("bob", "otp") // who has got hold of its id
	_, answer = r.made(must(r.EnrolKey(t.Context(), bob))(t), func(k *passkeytest.Key) { k.ID = key.ID })
	_, err = r.KeyEnrolled(t.Context(), bob, "ring", answer, "")
	refused(t, err, refusal.NotAuthenticated)
	refused(t, r.RemoveKey(t.Context(), bob, must(r.EnrolledKeys(t.Context(), alice))(t)[0].ID, ""), refusal.NotFound)
	for range maxEnrolled - 1 {
		_, answer := r.made(must(r.EnrolKey(t.Context(), alice))(t))
		must(r.KeyEnrolled(t.Context(), alice, "another", answer, ""))(t)
	}
	_, err = r.EnrolKey(t.Context(), alice)
	refused(t, err, refusal.TooMany)
	r.advance(16 * time.Minute)
	_, err = r.EnrolKey(t.Context(), bob)
	refused(t, err, refusal.StepUp)
}

// TestKeyOfAConnectionThatWaits: the link that ssh and psql show leads to the same page, and what it lets in is for emergencies alone.
func TestKeyOfAConnectionThatWaits(t *testing.T) {
	r := newKeyRig(t)
	_, key := r.enrol("alice")
	r.advance(time.Minute)
	r.down(true)
	h := must(r.Hold(Purpose{Protocol: "SSH", Account: "deploy", Target: "web-1"}, somewhere))(t)
	got := r.wait(h)
	b := r.browser()
	p := b.get(h.Link())
	p = b.get(r.server.URL + html.UnescapeString(nextOf.FindStringSubmatch(p.text)[1]))
	p = b.answerKey(must(key.Sign(challenge(p)))(t))
	token := confirmField.FindStringSubmatch(p.text)
	if token == nil {
		t.Fatalf("%s\n%s", p.Status, p.text)
	}
	b.post(r.server.URL+"/oauth/wait/confirm", answer(token[1], h.Code(), "approve"))
	if who := r.came(got); who.err != nil || who.who.Emergency == "" || who.who.Subject != "alice" {
		t.Errorf("%+v", who)
	}
}

// TestKeyOfADevice: likewise for a program on another device.
func TestKeyOfADevice(t *testing.T) {
	r := newKeyRig(t)
	_, key := r.enrol("alice")
	r.advance(time.Minute)
	r.down(true)
	_, started := r.form("/oauth/device_authorization", url.Values{"client_id": {"sallyport-cli"}, "scope": {"openid offline_access"}})
	userCode, _ := started["user_code"].(string)
	code, _ := started["device_code"].(string)
	b := r.browser()
	p := b.get(r.server.URL + "/oauth/device/login?user_code=" + url.QueryEscape(userCode))
	p = b.answerKey(must(key.Sign(challenge(p)))(t))
	token := confirmField.FindStringSubmatch(p.text)
	if token == nil {
		t.Fatalf("%s\n%s", p.Status, p.text)
	}
	b.post(r.server.URL+"/oauth/device/confirm", url.Values{"confirm": {token[1]}, "decision": {"approve"}})
	status, taken := r.form("/oauth/token", url.Values{"client_id": {"sallyport-cli"}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code}})
	access, _ := taken["access_token"].(string)
	if status != http.StatusOK {
		t.Fatal(status, taken)
	}
	if who := must(r.EmergencyBearer(t.Context(), access))(t); who.Emergency == "" || who.Subject != "alice" {
		t.Errorf("%+v", who)
	}
	_, err := r.Bearer(t.Context(), access)
	refused(t, err, refusal.NotPermitted)
}

// TestNoKeyIsAskedFor: of a gateway that takes none, nor on the console's way, nor while the provider answers.
func TestNoKeyIsAskedFor(t *testing.T) {
	r := newRig(t)
	r.company.set(func(c *company) { c.down = true })
	b := r.browser()
	if p := b.goOn(b.get(r.flow().address())); challenge(p) != nil || strings.Contains(p.text, "enrolled") {
		t.Errorf("a gateway that takes none:\n%s", p.text)
	}
	if p := b.answerKey([]byte("{}")); p.StatusCode != http.StatusNotFound {
		t.Errorf("%s", p.Status)
	}
	r = newKeyRig(t)
	b = r.browser()
	if p := b.goOn(b.get(r.flow().address())); challenge(p) != nil || requestField.FindString(p.text) == "" {
		t.Errorf("while the provider answers:\n%s", p.text)
	}
	r.down(true)
	if p := b.get(r.server.URL + r.ConsoleSignIn("state", strings.Repeat("A", 43), false)); challenge(p) != nil || !strings.Contains(p.text, "break-glass") {
		t.Errorf("the console's way: %s\n%s", p.Status, p.text)
	}
}

func chainOf(t *testing.T, der []byte) []*x509.Certificate {
	t.Helper()
	return []*x509.Certificate{must(x509.ParseCertificate(der))(t)}
}

// TestKeyOfSomebodyTheDirectoryClosed: whom the provider's directory has made inactive or deleted has no key, though the provider is down;
// also where unknown people may sign in.
func TestKeyOfSomebodyTheDirectoryClosed(t *testing.T) {
	for name, test := range map[string]struct {
		lenient bool
		close   func(r *rig, person string)
		says    string
	}{
		"inactive": {false, func(r *rig, person string) {
			r.scim(directoryToken, "PATCH", "/Users/"+person, patchOp+`{"op":"replace","value":{"active":false}}]}`, 200)
		}, "is disabled"},
		"deleted":                               {false, func(r *rig, person string) { r.scim(directoryToken, "DELETE", "/Users/"+person, "", 204) }, "is disabled"},
		"deleted where the unknown may sign in": {true, func(r *rig, person string) { r.scim(directoryToken, "DELETE", "/Users/"+person, "", 204) }, "did not vouch"},
	} {
		t.Run(name, func(t *testing.T) {
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte(directoryToken), 0o600); err != nil {
				t.Fatal(err)
			}
			r := newKeyRig(t, func(c *configs.Config) {
				c.Provider.SCIM = &configs.SCIM{Token: configs.SecretRef("file:" + token), AdmitUnknown: test.lenient}
			})
			person, _ := r.entra()
			who, key := r.enrol("alice")
			r.advance(time.Minute)
			r.down(true)
			access := r.byKey(key).AccessToken
			test.close(r, person)
			if _, err := r.EmergencyBearer(t.Context(), access); refusal.Of(err) == nil {
				t.Errorf("what she had: %v", err)
			}
			b := r.browser()
			p := b.answerKey(must(key.Sign(challenge(b.goOn(b.get(r.flow().address())))))(t))
			if p.StatusCode != http.StatusForbidden || !strings.Contains(p.text, test.says) {
				t.Errorf("%s\n%s", p.Status, p.text)
			}
			if e := r.events("login.refused"); len(e) != 1 || e[0].Actor != who.Key() || e[0].Outcome != string(refusal.IdentityDisabled) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestKeyWhileTheProviderRedeemsNothing: a provider that shows its pages and signs nobody in is one that does not answer, for who tries
// again after a minute; and one that answers again as soon as it redeems anything.
func TestKeyWhileTheProviderRedeemsNothing(t *testing.T) {
	r := newKeyRig(t)
	_, key := r.enrol("alice")
	r.company.set(func(c *company) { c.mute = true })
	try := func() page {
		r.advance(5 * time.Second)
		b := r.browser()
		p := b.goOn(b.get(r.flow().address()))
		if challenge(p) != nil {
			return p
		}
		return b.fill(p, "alice")
	}
	for range 2 {
		if p := try(); challenge(p) != nil || !strings.Contains(p.Header.Get("Location"), "error=server_error") {
			t.Fatalf("%s to %s\n%s", p.Status, p.Header.Get("Location"), p.text)
		}
	}
	r.advance(time.Minute)
	r.byKey(key)
	if e := r.events("login.emergency"); len(e) != 1 {
		t.Errorf("%+v", e)
	}
	r.company.set(func(c *company) { c.mute = false })
	r.code(try())
}

// TestKeyIsTakenForItsOwnProviderOnly: that another provider is down is no reason to let somebody in whose own answers.
func TestKeyIsTakenForItsOwnProviderOnly(t *testing.T) {
	partner := newCompany(t)
	t.Setenv("AUTHN_TEST_PARTNER", partner.secret)
	r := newKeyRig(t, func(c *configs.Config) {
		c.Provider.Name = "staff"
		other := c.Provider
		other.Name, other.Issuer, other.CA, other.ClientSecret = "partner", partner.URL, partner.ca, "env:AUTHN_TEST_PARTNER"
		c.Providers = []configs.Provider{other}
	})
	partner.redirect = r.server.URL + "/oauth/callback/partner"
	who := r.in(r.company, "staff")
	key, answer := r.made(must(r.EnrolKey(t.Context(), who))(t))
	must(r.KeyEnrolled(t.Context(), who, "ring", answer, ""))(t)
	partner.set(func(c *company) { c.down = true })
	r.advance(5 * time.Second)
	b := r.browser()
	p := b.answerKey(must(key.Sign(challenge(b.choose(b.get(r.flow().address()), "partner"))))(t))
	if p.StatusCode != http.StatusForbidden || !strings.Contains(p.text, "it is not that provider") {
		t.Errorf("%s\n%s", p.Status, p.text)
	}
	if n := len(r.events("login.emergency")); n != 0 {
		t.Errorf("%d sign-ins", n)
	}
}
