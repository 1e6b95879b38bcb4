package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

func TestSignInThroughTheCompanysProvider(t *testing.T) {
	r := newRig(t)
	_, token := r.signedIn("alice")
	who := must(r.Bearer(t.Context(), token.AccessToken))(t)
	if who.Issuer != r.company.URL || who.Subject != "alice" || who.Kind != Human || who.Name != "Alice Engineer" || who.Email != "alice@example.com" ||
		!slices.Equal(who.Groups, []string{"engineers", "oncall"}) || who.Method != "access token" || who.Credential == "" {
		t.Fatalf("got %+v", who)
	}
	if d := who.Expires.Sub(who.SignedIn); d != 12*time.Hour {
		t.Fatalf("the sign-in lasts %s", d)
	}
	if err := r.Standing(t.Context(), who); err != nil {
		t.Fatal(err)
	}

	// The gateway's ID token is one that any OpenID client accepts.
	ctx := oidc.ClientContext(t.Context(), r.server.Client())
	provider := must(oidc.NewProvider(ctx, r.server.URL))(t)
	raw, _ := token.Extra("id_token").(string)
	proven := must(provider.Verifier(&oidc.Config{ClientID: "sallyport-cli", SupportedSigningAlgs: []string{"ES256"}}).Verify(ctx, raw))(t)
	info := must(provider.UserInfo(ctx, oauth2.StaticTokenSource(token)))(t)
	if info.Subject != proven.Subject || info.Email != "alice@example.com" {
		t.Fatalf("userinfo %+v, ID token of %s", info, proven.Subject)
	}

	if e := r.events("login.succeeded"); len(e) != 1 || e[0].Actor != who.Key() || e[0].Client != "127.0.0.1" {
		t.Fatalf("events %+v", e)
	}
	for _, e := range r.events("credential.issued") {
		for _, secret := range []string{token.AccessToken, token.RefreshToken} {
			if text := string(must(json.Marshal(e))(t)); strings.Contains(text, secret) {
				t.Fatal("an audit event holds a token")
			}
		}
	}
}

func TestGroupsFollowTheLatestSignIn(t *testing.T) {
	r := newRig(t)
	_, token := r.signedIn("alice")
	r.company.set(func(c *company) { c.claims["alice"]["groups"] = []string{"leavers"} })
	r.signedIn("alice")
	if who := must(r.Bearer(t.Context(), token.AccessToken))(t); !slices.Equal(who.Groups, []string{"leavers"}) {
		t.Fatalf("an older token still has groups %v", who.Groups)
	}
}

func TestUserinfoFillsWhatTheIDTokenLacks(t *testing.T) {
	r := newRig(t)
	r.company.set(func(c *company) {
		c.spoil = func(claims map[string]any) { delete(claims, "groups") }
		c.userinfo = func(info map[string]any) { info["groups"] = []string{"from-userinfo"}; info["name"] = "Mallory" }
	})
	_, token := r.signedIn("alice")
	if who := must(r.Bearer(t.Context(), token.AccessToken))(t); !slices.Equal(who.Groups, []string{"from-userinfo"}) || who.Name != "Alice Engineer" {
		t.Fatalf("got %+v", who)
	}
}

// Whatever the provider says that is not a proof for this sign-in ends without one, and the waiting program is told.
func TestWhatIsNoProof(t *testing.T) {
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	cases := map[string]func(*company){
		"another issuer":   func(c *company) { c.spoil = func(m map[string]any) { m["iss"] = "https://evil.example" } },
		"another audience": func(c *company) { c.spoil = func(m map[string]any) { m["aud"] = "somebody" } },
		"made for another client": func(c *company) {
			c.spoil = func(m map[string]any) { m["aud"] = []string{"gateway", "x"}; m["azp"] = "x" }
		},
		"several audiences, no azp": func(c *company) { c.spoil = func(m map[string]any) { m["aud"] = []string{"gateway", "x"} } },
		"expired":                   func(c *company) { c.spoil = func(m map[string]any) { m["exp"] = time.Now().Add(-time.Minute).Unix() } },
		"another nonce":             func(c *company) { c.spoil = func(m map[string]any) { m["nonce"] = "x" } },
		"no nonce":                  func(c *company) { c.spoil = func(m map[string]any) { delete(m, "nonce") } },
		"another access token":      func(c *company) { c.spoil = func(m map[string]any) { m["at_hash"] = "AAAAAAAAAAAAAAAAAAAAAA" } },
		"no subject":                func(c *company) { c.spoil = func(m map[string]any) { m["sub"] = "" } },
		"subject with control":      func(c *company) { c.spoil = func(m map[string]any) { m["sub"] = "ali\nce" } },
		"groups of another form":    func(c *company) { c.spoil = func(m map[string]any) { m["groups"] = map[string]any{"a": 1} } },
		"too many groups": func(c *company) {
			c.spoil = func(m map[string]any) { m["groups"] = slices.Repeat([]string{"g"}, 1001) }
		},
		"a group with a newline": func(c *company) { c.spoil = func(m map[string]any) { m["groups"] = []string{"a\nb"} } },
		"another key":            func(c *company) { c.sign = func(m map[string]any) string { return signES256(c.t, other, m) } },
		"unsigned": func(c *company) {
			c.sign = func(m map[string]any) string {
				body, _ := json.Marshal(m)
				return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(body) + "."
			}
		},
		"userinfo about somebody else": func(c *company) {
			c.spoil = func(m map[string]any) { delete(m, "groups") }
			c.userinfo = func(m map[string]any) { m["sub"] = "bob" }
		},
		"another secret": func(c *company) { c.secret = "changed" },
		"refused by it":  func(c *company) { delete(c.claims, "alice") },
	}
	r := newRig(t)
	right := r.company.secret
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			r.company.set(func(c *company) {
				c.spoil, c.sign, c.userinfo, c.secret = nil, nil, nil, right
				c.claims["alice"] = map[string]any{"name": "Alice", "email": "a@example.com", "groups": []string{"g"}}
				spoil(c)
			})
			b, f := r.browser(), r.flow()
			p := b.fill(b.get(f.address()), "alice")
			back, err := p.Location()
			if err != nil || back.Query().Get("error") != "access_denied" || back.Query().Get("code") != "" || back.Query().Get("error_description") == "" {
				t.Fatalf("ended with %s at %v: %s", p.Status, back, p.text)
			}
		})
	}
	if e := r.events("login.succeeded"); len(e) != 0 {
		t.Fatalf("somebody was signed in: %+v", e)
	}
	if err := r.flushCounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := r.events("unauthenticated.refused"); len(e) != 1 || e[0].Fields[strangeProof] == "" {
		t.Fatalf("not counted: %+v", e)
	}
}

func TestProviderDownThenUp(t *testing.T) {
	r := newRig(t)
	r.company.set(func(c *company) { c.down = true })
	b, f := r.browser(), r.flow()
	for range 5 {
		if p := b.goOn(b.get(f.address())); p.StatusCode != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" || !strings.Contains(p.text, "does not answer") {
			t.Fatalf("%s: %s", p.Status, p.text)
		}
	}
	link := goOnLink.FindStringSubmatch(b.get(f.address()).text)
	request := must(http.NewRequest(http.MethodGet, r.server.URL+link[1], nil))(t)
	request.Header.Set("Accept", "application/json")
	var no refusal.Refusal
	if p := b.do(request); p.StatusCode != http.StatusServiceUnavailable || json.Unmarshal([]byte(p.text), &no) != nil || no.Hint == "" {
		t.Fatalf("%s: %s", p.Status, p.text)
	}
	r.company.set(func(c *company) {
		if c.asked != 1 {
			t.Errorf("a provider that is down was asked %d times within two seconds", c.asked)
		}
		c.down = false
	})
	r.advance(3 * time.Second)
	r.code(b.fill(b.get(f.address()), "alice"))
}

func TestAuthorizeRefuses(t *testing.T) {
	r := newRig(t)
	challenge := oauth2.S256ChallengeFromVerifier(oauth2.GenerateVerifier())
	good := func() url.Values {
		return url.Values{"client_id": {"sallyport-cli"}, "redirect_uri": {"http://127.0.0.1:45678/callback"}, "response_type": {"code"},
			"scope": {"openid"}, "state": {"s"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"}}
	}
	ask := func(change func(url.Values)) page {
		q := good()
		change(q)
		b := r.browser()
		b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		return b.get(r.server.URL + "/oauth/authorize?" + q.Encode())
	}
	for _, redirect := range []string{"http://127.0.0.1:1/callback", "http://[::1]:65535/callback"} {
		if p := ask(func(q url.Values) { q.Set("redirect_uri", redirect) }); !strings.HasPrefix(p.Header.Get("Location"), "/oauth/login?id=") {
			t.Errorf("%s: %s %s", redirect, p.Status, p.text)
		}
	}
	for _, redirect := range []string{
		"https://evil.example/callback", "http://evil.example:80/callback", "http://localhost:45678/callback", "https://127.0.0.1:45678/callback",
		"http://127.0.0.1:45678/other", "http://127.0.0.1:45678/callback?x=1", "http://127.0.0.1:45678/callback#x", "http://a@127.0.0.1:45678/callback",
		"http://127.0.0.1/callback", "http://127.0.0.1:0/callback", "http://127.0.0.2:1/callback", "http://127.0.0.1:45678/callback/", "http://127.0.0.1.evil.example:1/callback",
		"http://0x7f.1:45678/callback", "HTTP://127.0.0.1:45678/callback", "http://[::ffff:127.0.0.1]:1/callback", "http://127.0.0.1:045678/callback",
		"sallyport://callback", "",
	} {
		if p := ask(func(q url.Values) { q.Set("redirect_uri", redirect) }); p.StatusCode != http.StatusBadRequest || p.Header.Get("Location") != "" {
			t.Errorf("redirect_uri %.60q: %s to %q", redirect, p.Status, p.Header.Get("Location"))
		}
	}
	for name, change := range map[string]func(url.Values){
		"a second redirect":             func(q url.Values) { q.Add("redirect_uri", "https://evil.example/callback") },
		"a redirect in capitals":        func(q url.Values) { q.Set("REDIRECT_URI", "https://evil.example/callback") },
		"a long state":                  func(q url.Values) { q.Set("state", strings.Repeat("s", maxParameter+1)) },
		"many parameters, all too long": func(q url.Values) { q.Set("x", strings.Repeat("x", 100_000)) },
	} {
		p := ask(change)
		if location := p.Header.Get("Location"); strings.Contains(location, "evil") || name[0] == 'm' && p.StatusCode != http.StatusRequestURITooLong {
			t.Errorf("%s: %s to %s", name, p.Status, location)
		} else if strings.HasPrefix(location, "/oauth/login?id=") {
			kept := must(r.authRequest(t.Context(), strings.TrimPrefix(location, "/oauth/login?id=")))(t)
			if !isLoopbackRedirect(kept.redirect) || len(kept.state) > maxParameter {
				t.Errorf("%s: kept %q", name, kept.redirect)
			}
		}
	}
	if p := ask(func(q url.Values) { q.Set("client_id", "other") }); p.StatusCode != http.StatusBadRequest {
		t.Errorf("another client: %s", p.Status)
	}
	for name, change := range map[string]func(url.Values){
		"no PKCE":            func(q url.Values) { q.Del("code_challenge"); q.Del("code_challenge_method") },
		"plain PKCE":         func(q url.Values) { q.Set("code_challenge_method", "plain") },
		"method left out":    func(q url.Values) { q.Del("code_challenge_method") },
		"short challenge":    func(q url.Values) { q.Set("code_challenge", "x") },
		"implicit flow":      func(q url.Values) { q.Set("response_type", "id_token token") },
		"answer by fragment": func(q url.Values) { q.Set("response_mode", "fragment") },
		"answer by form":     func(q url.Values) { q.Set("response_mode", "form_post") },
		"request object":     func(q url.Values) { q.Set("request", "e30.e30.") },
	} {
		p := ask(change)
		if strings.HasPrefix(p.Header.Get("Location"), "/oauth/login") || !strings.Contains(p.Header.Get("Location")+p.text, "error") {
			t.Errorf("%s: %s to %q: %s", name, p.Status, p.Header.Get("Location"), p.text)
		}
	}
}

func TestCodeIsGoodOnceForItsVerifier(t *testing.T) {
	r := newRig(t)
	b, f := r.browser(), r.flow()
	code := r.code(b.fill(b.get(f.address()), "alice"))
	ask := func(change func(url.Values)) (int, map[string]any) {
		q := url.Values{"grant_type": {"authorization_code"}, "client_id": {"sallyport-cli"}, "code": {code}, "redirect_uri": {f.config.RedirectURL}, "code_verifier": {f.verifier}}
		change(q)
		return r.form("/oauth/token", q)
	}
	for name, change := range map[string]func(url.Values){
		"wrong verifier":   func(q url.Values) { q.Set("code_verifier", oauth2.GenerateVerifier()) },
		"no verifier":      func(q url.Values) { q.Del("code_verifier") },
		"the challenge":    func(q url.Values) { q.Set("code_verifier", oauth2.S256ChallengeFromVerifier(f.verifier)) },
		"another redirect": func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:1/callback") },
		"another client":   func(q url.Values) { q.Set("client_id", "other") },
		"another code":     func(q url.Values) { q.Set("code", code[:len(code)-4]+"AAAA") },
		"a secret": func(q url.Values) {
			q.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
			q.Set("client_assertion", "e30.e30.")
		},
	} {
		if status, body := ask(change); status/100 != 4 {
			t.Fatalf("%s: %d %v", name, status, body)
		}
	}
	status, body := ask(func(url.Values) {})
	token, _ := body["access_token"].(string)
	if status != http.StatusOK || token == "" {
		t.Fatalf("%d %v", status, body)
	}
	must(r.Bearer(t.Context(), token))(t)
	if status, body = ask(func(url.Values) {}); status != http.StatusBadRequest || body["error"] != "invalid_grant" {
		t.Fatalf("second use: %d %v", status, body)
	}
	refused(t, err2(r.Bearer(t.Context(), token)), refusal.NotAuthenticated) // somebody else had the code
	refused(t, err2(r.Bearer(t.Context(), code)), refusal.NotAuthenticated)  // of the same make, but no access token
}

func err2[T any](_ T, err error) error { return err }

func TestCodeExpires(t *testing.T) {
	r := newRig(t)
	b, f := r.browser(), r.flow()
	code := r.code(b.fill(b.get(f.address()), "alice"))
	r.advance(codeLife)
	if _, err := f.config.Exchange(r.oauthContext(), code, oauth2.VerifierOption(f.verifier)); err == nil {
		t.Fatal("an old code was taken")
	}
}

// Of a sign-in, no step can be taken from another browser than it began in, nor with a state that is not its own, nor twice.
func TestSignInIsTiedToItsBrowser(t *testing.T) {
	r := newRig(t)
	victim, thief, f := r.browser(), r.browser(), r.flow()

	// The thief begins, and has the victim go on from the link to the provider.
	var login string
	thief.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
		if next.URL.Path == "/oauth/login" {
			login = next.URL.String()
		}
		return http.ErrUseLastResponse
	}
	thief.get(f.address())
	victim.get(r.server.URL + "/oauth/device") // has no cookie from that
	if p := victim.get(login); p.StatusCode != http.StatusForbidden {
		t.Fatalf("went on from another browser's link: %s %s", p.Status, p.text)
	}
	victim.get(r.flow().address()) // now it has a cookie, but its own
	if p := victim.get(login); p.StatusCode != http.StatusForbidden {
		t.Fatalf("went on from another browser's link: %s %s", p.Status, p.text)
	}

	// The victim signs in; the thief takes each address that the victim's browser goes through, first.
	var callback, authorized string
	victim.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
		switch next.URL.Path {
		case "/oauth/callback":
			callback = next.URL.String()
			if p := thief.get(callback); p.StatusCode != http.StatusForbidden {
				t.Errorf("callback from another browser: %s", p.Status)
			}
			tampered := strings.Replace(callback, "state=", "state=A", 1)
			if p := victim2(r, victim).get(tampered); p.StatusCode != http.StatusForbidden {
				t.Errorf("callback with another state: %s", p.Status)
			}
		case "/oauth/authorize/callback":
			authorized = next.URL.String()
			if p := thief.get(authorized); p.StatusCode != http.StatusForbidden || p.Header.Get("Location") != "" {
				t.Errorf("the code was given to another browser: %s to %s", p.Status, p.Header.Get("Location"))
			}
		case "/callback":
			return http.ErrUseLastResponse
		}
		return nil
	}
	r.code(victim.fill(victim.get(f.address()), "alice"))
	if callback == "" || authorized == "" {
		t.Fatal("did not see the way")
	}
	if p := victim.get(callback); p.StatusCode != http.StatusForbidden {
		t.Errorf("the same state twice: %s", p.Status)
	}
	if p := victim.get(authorized); p.StatusCode == http.StatusFound && strings.Contains(p.Header.Get("Location"), "code=") {
		t.Errorf("a second code for one sign-in: %s", p.Header.Get("Location"))
	}
	if e := r.events("login.succeeded"); len(e) != 1 {
		t.Fatalf("%d sign-ins", len(e))
	}
}

// victim2 is the same browser, following no redirects.
func victim2(r *rig, b *browser) *browser {
	client := *b.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{r: r, Client: &client}
}

func TestCookieAndPagesAreSafe(t *testing.T) {
	r := newRig(t)
	b := victim2(r, r.browser())
	p := b.get(r.flow().address())
	cookie := p.Header.Get("Set-Cookie")
	for _, want := range []string{"__Host-", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("cookie without %s: %s", want, cookie)
		}
	}
	p = b.get(r.server.URL + "/oauth/device?user_code=%3Cscript%3E")
	policy := p.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "form-action 'self'") || strings.Contains(policy, "unsafe") ||
		p.Header.Get("Cache-Control") != "no-store" || p.Header.Get("X-Frame-Options") != "DENY" || strings.Contains(p.text, "<script>") {
		t.Errorf("%v\n%s", p.Header, p.text)
	}
	for _, path := range []string{"/oauth/introspect", "/oauth/end_session", "/oauth/healthz", "/oauth/", "/.well-known/other"} {
		if p := b.get(r.server.URL + path); p.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, p.Status)
		}
	}
	if p := b.get(r.server.URL + "/.well-known/openid-configuration"); p.Header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(p.text, `"code_challenge_methods_supported":["S256"]`) {
		t.Errorf("%v %s", p.Header, p.text)
	}
}

func TestOtherGrantsAreNotTaken(t *testing.T) {
	r := newRig(t)
	for _, grant := range []string{"password", "client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:token-exchange", ""} {
		if status, body := r.form("/oauth/token", url.Values{"grant_type": {grant}, "client_id": {"sallyport-cli"}, "assertion": {"e30.e30."}}); status/100 != 4 {
			t.Errorf("%q: %d %v", grant, status, body)
		}
	}
}

func TestDisabledIdentityCannotSignIn(t *testing.T) {
	r := newRig(t)
	_, token := r.signedIn("alice")
	who := must(r.Bearer(t.Context(), token.AccessToken))(t)
	if err := r.Disable(t.Context(), who.Key()); err != nil {
		t.Fatal(err)
	}
	refused(t, err2(r.Bearer(t.Context(), token.AccessToken)), refusal.IdentityDisabled)
	refused(t, r.Standing(t.Context(), who), refusal.IdentityDisabled)
	b, f := r.browser(), r.flow()
	p := b.fill(b.get(f.address()), "alice")
	if back, err := p.Location(); err != nil || back.Query().Get("error") != "access_denied" || !strings.Contains(back.Query().Get("error_description"), "disabled") {
		t.Fatalf("%s %v %s", p.Status, back, p.text)
	}
	if e := r.events("login.refused"); len(e) != 1 || e[0].Outcome != string(refusal.IdentityDisabled) || e[0].Actor != who.Key() {
		t.Fatalf("%+v", e)
	}
	if err := r.Enable(t.Context(), who.Key()); err != nil {
		t.Fatal(err)
	}
	refused(t, err2(r.Bearer(t.Context(), token.AccessToken)), refusal.NotAuthenticated) // that one stays ended
	_, token = r.signedIn("alice")
	must(r.Bearer(t.Context(), token.AccessToken))(t)
	refused(t, r.Disable(t.Context(), "https://nobody x"), refusal.NotFound)
}

func TestTooManyRequestsFromOneSource(t *testing.T) {
	r := newRig(t)
	r.stand()
	limited := false
	for range sourceBurst * 3 {
		if p := r.browser().get(r.server.URL + "/oauth/device"); p.StatusCode == http.StatusTooManyRequests {
			limited = p.Header.Get("Retry-After") != ""
			break
		}
	}
	if !limited {
		t.Fatal("never limited")
	}
	if !r.rates.Allow("192.0.2.1", r.now()) {
		t.Fatal("another source is limited too")
	}
	r.advance(time.Minute)
	if p := r.browser().get(r.server.URL + "/oauth/device"); p.StatusCode != http.StatusOK {
		t.Fatalf("a minute later: %s", p.Status)
	}
}

// TestOneSourceLeavesRoom: what one source can begin in the time that it is kept must not fill the room for all.
func TestOneSourceLeavesRoom(t *testing.T) {
	if most := beginBurst + beginRate*int(max(authRequestLife, tripLife, deviceLife)/time.Second); most > maxPending/4 {
		t.Fatalf("one source can have %d sign-ins on their way, of %d that all may have", most, maxPending)
	}
	r := newRig(t)
	r.stand()
	for _, path := range []string{pathAuthorize, pathLogin, pathDeviceRequest, pathDeviceLogin} {
		r.advance(time.Hour)
		limited := false
		for range beginBurst + 20 {
			if p := r.browser().get(r.server.URL + path); p.StatusCode == http.StatusTooManyRequests {
				limited = true
				break
			}
			r.advance(60 * time.Millisecond) // below what any request may cost
		}
		if !limited {
			t.Errorf("%s: never limited", path)
		}
	}
}

func TestOpenInsistsOnDurations(t *testing.T) {
	_, err := Open(t.Context(), &configs.Config{State: t.TempDir(), URL: "https://gateway.example"}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "credentials.sign_in") {
		t.Fatal(err)
	}
}

// A link, or another site's page, can have a browser ask for a sign-in of a program on the person's machine. Nothing comes of
// it before they have said that they began it, which no link can say for them.
func TestProgramIsAskedForFirst(t *testing.T) {
	r := newRig(t)
	b, f := r.browser(), r.flow()
	p := b.get(f.address())
	if p.StatusCode != http.StatusOK || !strings.Contains(p.text, "http://127.0.0.1:45678/callback") || !strings.Contains(p.text, "started this yourself") {
		t.Fatalf("%s %s", p.Status, p.text)
	}
	link := goOnLink.FindStringSubmatch(p.text)
	if link == nil {
		t.Fatal("there is no way on")
	}
	thief := r.browser()
	thief.get(r.flow().address()) // has a cookie of its own
	if p := thief.get(r.server.URL + link[1]); p.StatusCode != http.StatusForbidden {
		t.Fatalf("another browser went on with it: %s", p.Status)
	}
	if p := b.get(r.server.URL + pathLoginGo + "?id=guessed"); p.StatusCode != http.StatusForbidden {
		t.Fatalf("%s", p.Status)
	}
	r.code(b.fill(p, "alice"))
}
