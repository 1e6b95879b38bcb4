package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"sallyport/authn/federation"
	"sallyport/internal/refusal"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logout are the claims of a good logout token about alice.
func (c *company) logout() map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": c.URL, "sub": "alice", "aud": "gateway", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": rand.Text(),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
}

// signed is a token of that type with those claims, by the company's key.
func (c *company) signed(typ jose.ContentType, claims map[string]any) string {
	c.t.Helper()
	return signedBy(c.t, c.key, "1", typ, claims)
}

func signedBy(t *testing.T, key any, id string, typ jose.ContentType, claims map[string]any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if typ != "" {
		options.WithType(typ)
	}
	algorithm := jose.ES256
	if _, symmetric := key.([]byte); symmetric {
		algorithm = jose.HS256
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: id}}, options))(t)
	return must(jwt.Signed(signer).Claims(claims).Serialize())(t)
}

// tell posts a logout token as the provider does.
func (r *rig) tell(token string) (int, map[string]any) {
	r.t.Helper()
	return r.form(pathLogout, url.Values{"logout_token": {token}})
}

// TestBackChannelLogout: what the provider ends there ends here, with everything that hung on it, and nothing else does.
func TestBackChannelLogout(t *testing.T) {
	r := newRig(t)
	_, alices := r.signedIn("alice")
	_, bobs := r.signedIn("bob")
	who := must(r.Bearer(t.Context(), alices.AccessToken))(t)
	if status, body := r.tell(r.company.signed("logout+jwt", r.company.logout())); status != http.StatusOK {
		t.Fatalf("%d %v", status, body)
	}
	_, err := r.Bearer(t.Context(), alices.AccessToken)
	refused(t, err, refusal.NotAuthenticated)
	refused(t, r.Standing(t.Context(), who), refusal.NotAuthenticated) // and so do her sessions
	if status, _ := r.form(pathToken, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {alices.RefreshToken}, "client_id": {cliClient}}); status == http.StatusOK {
		t.Error("the refresh token is still good")
	}
	if _, err := r.Bearer(t.Context(), bobs.AccessToken); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if e := r.events("logout"); len(e) != 1 || e[0].Actor != who.Key() || e[0].Fields["sign_ins"] != "1" || !strings.Contains(e[0].Reason, "provider") {
		t.Errorf("%+v", e)
	}
	// Signing in again is a matter of the provider's.
	_, again := r.signedIn("alice")
	if _, err := r.Bearer(t.Context(), again.AccessToken); err != nil {
		t.Errorf("after signing in again: %v", err)
	}
	// Somebody who never signed in here has nothing to end: that is no error, and makes nobody known.
	stranger := r.company.logout()
	stranger["sub"] = "mallory"
	if status, body := r.tell(r.company.signed("logout+jwt", stranger)); status != http.StatusOK {
		t.Errorf("somebody who was never here: %d %v", status, body)
	}
	if e := r.events("logout"); len(e) != 1 {
		t.Errorf("%+v", e)
	}
}

// TestBackChannelLogoutOfOneSession: a token that names the provider's session (sid) ends what was signed in during that one.
func TestBackChannelLogoutOfOneSession(t *testing.T) {
	r := newRig(t)
	in := func(session string) Identity {
		r.company.set(func(c *company) { c.claims["alice"]["sid"] = session })
		_, token := r.signedIn("alice")
		return must(r.Bearer(t.Context(), token.AccessToken))(t)
	}
	one, two := in("one"), in("two")
	for _, withSubject := range []bool{true, false} {
		claims := r.company.logout()
		claims["sid"] = "one"
		if !withSubject {
			claims["sid"] = "two"
			delete(claims, "sub")
		}
		if status, body := r.tell(r.company.signed("", claims)); status != http.StatusOK {
			t.Fatalf("%d %v", status, body)
		}
		refused(t, r.Standing(t.Context(), one), refusal.NotAuthenticated)
		if err := r.Standing(t.Context(), two); withSubject && err != nil {
			t.Errorf("the other session: %v", err)
		} else if !withSubject {
			refused(t, err, refusal.NotAuthenticated)
		}
	}
	// Of a sign-in whose session is not known it can't be said that it is another one.
	unnamed := in("")
	three := r.company.logout()
	three["sid"] = "three"
	if status, body := r.tell(r.company.signed("logout+jwt", three)); status != http.StatusOK {
		t.Fatalf("%d %v", status, body)
	}
	refused(t, r.Standing(t.Context(), unnamed), refusal.NotAuthenticated)
}

// TestBackChannelLogoutOnTheWay: a sign-in that was proven, and that waits for the person's word, does not outlive a logout.
func TestBackChannelLogoutOnTheWay(t *testing.T) {
	r := newHoldRig(t)
	h := must(r.Hold(purpose, somewhere))(t)
	got := r.wait(h)
	b := r.browser()
	_, token := b.confirming(h, "alice")
	other := must(r.Hold(purpose, somewhere))(t)
	others := r.wait(other)
	bobs := r.browser()
	_, bobsToken := bobs.confirming(other, "bob")
	if status, body := r.tell(r.company.signed("logout+jwt", r.company.logout())); status != http.StatusOK {
		t.Fatalf("%d %v", status, body)
	}
	if p := b.post(r.server.URL+pathHoldConfirm, answer(token, h.Code(), "approve")); p.StatusCode != http.StatusForbidden {
		t.Errorf("a proof from before the logout was taken: %s %s", p.Status, p.text)
	}
	select {
	case w := <-got:
		t.Errorf("the connection went on: %+v", w)
	default: // it waits for somebody who is signed in, until its time is over
	}
	if p := bobs.post(r.server.URL+pathHoldConfirm, answer(bobsToken, other.Code(), "approve")); p.StatusCode != http.StatusOK {
		t.Errorf("somebody else: %s %s", p.Status, p.text)
	}
	if w := r.came(others); w.err != nil || w.who.Subject != "bob" {
		t.Errorf("%+v", w)
	}
	// The same connection, by a proof of after it.
	_, token = b.confirming(h, "alice")
	if p := b.post(r.server.URL+pathHoldConfirm, answer(token, h.Code(), "approve")); p.StatusCode != http.StatusOK {
		t.Errorf("after signing in again: %s %s", p.Status, p.text)
	}
	if w := r.came(got); w.err != nil || w.who.Subject != "alice" {
		t.Errorf("%+v", w)
	}
}

// TestLogoutTokensOfOthers: nobody but the provider signs anybody out, and nothing else that it signs does (OpenID Connect
// Back-Channel Logout 1.0, section 2.6).
func TestLogoutTokensOfOthers(t *testing.T) {
	r := newRig(t)
	_, token := r.signedIn("alice")
	who := must(r.Bearer(t.Context(), token.AccessToken))(t)
	c := r.company
	with := func(change func(map[string]any)) map[string]any {
		claims := c.logout()
		change(claims)
		return claims
	}
	set := func(name string, value any) string {
		return c.signed("logout+jwt", with(func(m map[string]any) { m[name] = value }))
	}
	without := func(names ...string) string {
		return c.signed("logout+jwt", with(func(m map[string]any) {
			maps.DeleteFunc(m, func(k string, _ any) bool { return slices.Contains(names, k) })
		}))
	}
	mallory := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	payload := base64.RawURLEncoding.EncodeToString(must(json.Marshal(c.logout()))(t))
	public := must(json.Marshal(jose.JSONWebKey{Key: c.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}))(t)
	good := c.signed("logout+jwt", c.logout())
	parts := strings.Split(good, ".")
	used := c.signed("logout+jwt", with(func(m map[string]any) { m["sub"] = "bob" }))
	if status, body := r.tell(used); status != http.StatusOK {
		t.Fatalf("%d %v", status, body)
	}
	now := time.Now()
	for name, token := range map[string]string{
		"nothing":                       "",
		"garbage":                       "a.b.c",
		"not signed":                    base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"logout+jwt"}`)) + "." + payload + ".",
		"not signed, in capitals":       base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"NONE","kid":"1"}`)) + "." + payload + ".",
		"HMAC with the public key":      signedBy(t, public, "1", "logout+jwt", c.logout()),
		"another key of the same name":  signedBy(t, mallory, "1", "logout+jwt", c.logout()),
		"an unknown key":                signedBy(t, mallory, "2", "logout+jwt", c.logout()),
		"another payload":               parts[0] + "." + payload + "." + parts[2],
		"no signature":                  parts[0] + "." + parts[1] + ".",
		"another issuer":                set("iss", "https://login.example"),
		"no issuer":                     without("iss"),
		"another audience":              set("aud", "somebody-else"),
		"no audience":                   without("aud"),
		"a nonce":                       set("nonce", "n"),
		"an empty nonce":                set("nonce", ""),
		"no event":                      without("events"),
		"another event":                 set("events", map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}),
		"an event that is no object":    set("events", map[string]any{logoutEvent: "yes"}),
		"an event that is null":         set("events", map[string]any{logoutEvent: nil}),
		"neither sub nor sid":           without("sub"),
		"no jti":                        without("jti"),
		"an unprintable jti":            set("jti", "a\x00b"),
		"a long jti":                    set("jti", strings.Repeat("x", 256)),
		"no iat":                        without("iat"),
		"made long ago":                 set("iat", now.Add(-11*time.Minute).Unix()),
		"made in the future":            set("iat", now.Add(3*time.Minute).Unix()),
		"no exp":                        without("exp"),
		"run out":                       set("exp", now.Add(-time.Second).Unix()),
		"used before":                   used,
		"an ID token":                   c.signed("", map[string]any{"iss": c.URL, "sub": "alice", "aud": "gateway", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "nonce": "n"}),
		"an access token":               c.signed("at+jwt", c.logout()),
		"another kind of event token":   c.signed("secevent+jwt", c.logout()),
		"longer than 16 KiB":            set("more", strings.Repeat("x", federation.MaxLogout)),
		"longer than any form is taken": set("more", strings.Repeat("x", maxForm)),
	} {
		if status, body := r.tell(token); status != http.StatusBadRequest || body["error"] != "invalid_request" {
			t.Errorf("%s: %d %v", name, status, body)
		}
		if err := r.Standing(t.Context(), who); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	// Only in a form that is posted: addresses stand in logs.
	good = c.signed("logout+jwt", c.logout())
	for name, send := range map[string]func() (*http.Response, error){
		"in the address": func() (*http.Response, error) {
			return r.server.Client().PostForm(r.server.URL+pathLogout+"?logout_token="+good, nil)
		},
		"by GET": func() (*http.Response, error) {
			return r.server.Client().Get(r.server.URL + pathLogout + "?logout_token=" + good)
		},
		"twice": func() (*http.Response, error) {
			return r.server.Client().PostForm(r.server.URL+pathLogout, url.Values{"logout_token": {good, good}})
		},
	} {
		answer := must(send())(t)
		answer.Body.Close()
		if answer.StatusCode < 400 {
			t.Errorf("%s: %s", name, answer.Status)
		}
		if err := r.Standing(t.Context(), who); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := r.flushCounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := r.events("unauthenticated.refused"); len(e) != 1 || e[0].Fields[strangeLogout] == "" {
		t.Errorf("it is not counted: %+v", e)
	}
	if status, body := r.tell(good); status != http.StatusOK {
		t.Errorf("the good one, after all those: %d %v", status, body)
	}
	refused(t, r.Standing(t.Context(), who), refusal.NotAuthenticated)
	// Its number is remembered for as long as it would be taken, and not longer.
	if status, _ := r.tell(good); status != http.StatusBadRequest {
		t.Errorf("the same again: %d", status)
	}
	r.advance(time.Hour)
	if err := r.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	var kept int
	if err := r.store.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM logout_tokens`).Scan(&kept); err != nil || kept != 0 {
		t.Errorf("%d are kept: %v", kept, err)
	}
	if status, _ := r.tell(good); status != http.StatusBadRequest {
		t.Errorf("the same again, an hour later: %d", status)
	}
}

// TestBackChannelLogoutWhileTheProviderIsDown: the provider is told to try again, and nobody is signed out unproven.
func TestBackChannelLogoutWhileTheProviderIsDown(t *testing.T) {
	r := newRig(t)
	r.company.set(func(c *company) { c.down = true })
	token := r.company.signed("logout+jwt", r.company.logout())
	if status, body := r.tell(token); status != http.StatusServiceUnavailable {
		t.Fatalf("%d %v", status, body)
	}
	r.company.set(func(c *company) { c.down = false })
	r.advance(federation.Refetch + time.Second)
	if status, body := r.tell(token); status != http.StatusOK {
		t.Fatalf("once it is up: %d %v", status, body)
	}
}

// TestJobsOfOneIdentityEndOneByOne: sessions hang on the sign-in that proved them, so that a job which is over takes its own
// with it, and not those of another job that is the same identity by configuration.
func TestJobsOfOneIdentityEndOneByOne(t *testing.T) {
	r, c, _ := withRunning(t)
	_, one, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := r.watchedJobs(t.Context(), "deploy")
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%v, %v", jobs, err)
	}
	_, two, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if one.Key() != two.Key() {
		t.Fatalf("%s and %s", one.Key(), two.Key())
	}
	if err := r.endJob(t.Context(), jobs[0], "test"); err != nil {
		t.Fatal(err)
	}
	refused(t, r.Standing(t.Context(), one), refusal.NotAuthenticated)
	if err := r.Standing(t.Context(), two); err != nil {
		t.Errorf("the other: %v", err)
	}
	if err := r.Revoke(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	refused(t, r.Standing(t.Context(), two), refusal.NotAuthenticated)
}
