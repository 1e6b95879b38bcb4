package authn

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
)

// console signs a person in for the console and returns the code and its verifier.
func (r *rig) console(person string) (code, verifier string) {
	r.t.Helper()
	verifier = oauth2.GenerateVerifier()
	b := r.browser()
	b.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
		if next.URL.Path == pathConsole {
			return http.ErrUseLastResponse
		}
		return nil
	}
	p := b.fill(b.get(r.server.URL+r.ConsoleSignIn("the-state", oauth2.S256ChallengeFromVerifier(verifier), false)), person)
	back, err := p.Location()
	if err != nil || !strings.HasPrefix(back.String(), r.server.URL+"/console/callback?") || back.Query().Get("state") != "the-state" || back.Query().Get("code") == "" {
		r.t.Fatalf("the sign-in ended at %s with %s to %v:\n%s", p.Request.URL, p.Status, back, p.text)
	}
	return back.Query().Get("code"), verifier
}

func TestConsoleSignIn(t *testing.T) {
	r := newRig(t)
	code, verifier := r.console("alice")
	token := must(r.RedeemConsole(t.Context(), code, verifier))(t)
	who := must(r.Bearer(t.Context(), token))(t)
	if who.Subject != "alice" || who.Name != "Alice Engineer" {
		t.Fatalf("got %+v", who)
	}
	for _, e := range r.events("credential.issued") {
		if e.Fields["token"] == "refresh" {
			t.Error("the console has a refresh token, which nobody asked for")
		}
	}
	_, other := r.signedIn("alice") // the command line's
	if err := r.EndConsole(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	_, err := r.Bearer(t.Context(), token)
	refused(t, err, refusal.NotAuthenticated)
	if err := r.EndConsole(t.Context(), other.AccessToken); err != nil {
		t.Fatal(err)
	}
	must(r.Bearer(t.Context(), other.AccessToken))(t) // the console ends its own only
	for _, no := range []string{"", "x", token, strings.Repeat("x", 1<<16)} {
		if err := r.EndConsole(t.Context(), no); err != nil {
			t.Errorf("%.10q: %v", no, err)
		}
	}
}

// A code is good once, for its verifier, and for nobody outside the gateway.
func TestConsoleCodes(t *testing.T) {
	r := newRig(t)
	code, verifier := r.console("alice")
	redirect := r.server.URL + "/console/callback"
	for name, form := range map[string]url.Values{
		"without a secret": {"grant_type": {"authorization_code"}, "client_id": {"sallyport-console"}, "redirect_uri": {redirect}, "code": {code}, "code_verifier": {verifier}},
		"a wrong secret":   {"grant_type": {"authorization_code"}, "client_id": {"sallyport-console"}, "client_secret": {"x"}, "redirect_uri": {redirect}, "code": {code}, "code_verifier": {verifier}},
		"another client":   {"grant_type": {"authorization_code"}, "client_id": {"sallyport-cli"}, "redirect_uri": {redirect}, "code": {code}, "code_verifier": {verifier}},
		"by device":        {"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"sallyport-console"}, "device_code": {"x"}},
	} {
		if status, body := r.form("/oauth/token", form); status/100 == 2 || body["access_token"] != nil {
			t.Errorf("%s: %d %v", name, status, body)
		}
	}
	if status, body := r.form("/oauth/device_authorization", url.Values{"client_id": {"sallyport-console"}, "scope": {"openid"}}); status/100 == 2 {
		t.Errorf("the console begins a device's sign-in: %v", body)
	}
	for name, try := range map[string][2]string{
		"another verifier": {code, oauth2.GenerateVerifier()},
		"no verifier":      {code, ""},
		"no code":          {"", verifier},
		"another code":     {"x", verifier},
		"too long a code":  {strings.Repeat("x", 1<<16), verifier},
	} {
		_, err := r.RedeemConsole(t.Context(), try[0], try[1])
		if !refusal.Is(err, refusal.NotAuthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	token := must(r.RedeemConsole(t.Context(), code, verifier))(t)
	_, err := r.RedeemConsole(t.Context(), code, verifier)
	refused(t, err, refusal.NotAuthenticated)
	_, err = r.Bearer(t.Context(), token) // a code used twice ends what it led to
	refused(t, err, refusal.NotAuthenticated)
	if _, err := r.RedeemConsole(t.Context(), r.codeOfTheCLI(), verifier); !refusal.Is(err, refusal.NotAuthenticated) {
		t.Errorf("the command line's code: %v", err)
	}
}

func (r *rig) codeOfTheCLI() string {
	b, f := r.browser(), r.flow()
	return r.code(b.fill(b.get(f.address()), "alice"))
}

func TestConsoleRedirectIsItsOwn(t *testing.T) {
	r := newRig(t)
	good := r.ConsoleSignIn("s", oauth2.S256ChallengeFromVerifier(oauth2.GenerateVerifier()), false)
	for _, redirect := range []string{"https://evil.example/console/callback", r.server.URL + "/console/callback/x", "http://127.0.0.1:1/callback", r.server.URL + "/console/callback?x=y"} {
		to := strings.Replace(good, "redirect_uri="+r.server.URL+"/console/callback", "redirect_uri="+url.QueryEscape(redirect), 1)
		if p := r.browser().get(r.server.URL + to); p.StatusCode/100 == 2 || p.Request.URL.Path != pathAuthorize {
			t.Errorf("%s: %s at %s", redirect, p.Status, p.Request.URL)
		}
	}
	if p := r.browser().get(strings.Replace(r.flow().address(), "redirect_uri=http%3A%2F%2F127.0.0.1%3A45678%2Fcallback", "redirect_uri="+url.QueryEscape(r.server.URL+"/console/callback"), 1)); p.StatusCode/100 == 2 {
		t.Errorf("the command line's code goes to the console: %s at %s", p.Status, p.Request.URL)
	}
}
