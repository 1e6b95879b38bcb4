//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/test/rig"
)

// outsidePort is where the gateway stands while it signs people in at an outside provider, for a redirect URI that can be
// registered there: https://localhost:18443/oauth/callback.
const outsidePort = "18443"

// signing is a gateway and the provider at which people sign in: the demo's, or the one that SALLYPORT_TEST_ISSUER names.
type signing struct {
	*rig.Rig
	t              *testing.T
	url, issuer    string
	name, password string
	authorities    []byte
	outside        bool
}

// signingIn starts it. docs/sign-in.md says what the variables are.
func signingIn(t *testing.T) *signing {
	t.Helper()
	outside := map[string]string{}
	for _, name := range []string{"ISSUER", "CLIENT_ID", "CLIENT_SECRET", "USER", "PASSWORD", "CA", "PORT"} {
		key := "SALLYPORT_TEST_" + name
		if name == "CA" || name == "PORT" {
			key = "SALLYPORT_TEST_ISSUER_" + name
		}
		outside[name] = os.Getenv(key)
	}
	s := &signing{Rig: rig.Start(t, rig.Checked(t)), t: t, name: "alice"}
	s.url, s.issuer = s.Env["SALLYPORT_URL"], s.Env["SALLYPORT_ISSUER"]
	var err error
	if s.authorities, err = os.ReadFile(s.Env["SALLYPORT_CA"]); err != nil {
		t.Fatal(err)
	}
	if outside["ISSUER"] == "" {
		s.password = s.Browser("alice").Password
		allowPrompt(t, s.Rig)
		return s
	}
	s.outside, s.issuer, s.name, s.password = true, outside["ISSUER"], outside["USER"], outside["PASSWORD"]
	for _, name := range []string{"CLIENT_ID", "USER", "PASSWORD"} {
		if outside[name] == "" {
			t.Fatalf("SALLYPORT_TEST_ISSUER is set, and SALLYPORT_TEST_%s is not", name)
		}
	}
	s.signInAt(outside)
	return s
}

// signInAt makes that provider the gateway's, which takes a restart.
func (s *signing) signInAt(outside map[string]string) {
	s.t.Helper()
	file := s.Path("sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	if outside["PORT"] == "" {
		outside["PORT"] = outsidePort
	}
	s.url = "https://localhost:" + outside["PORT"]
	quote := func(v any) string {
		quoted, err := json.Marshal(v)
		if err != nil {
			s.t.Fatal(err)
		}
		return string(quoted)
	}
	provider := "provider:\n  issuer: " + quote(s.issuer) + "\n  client_id: " + quote(outside["CLIENT_ID"]) + "\n  scopes: [openid, profile, email]\n"
	if outside["CLIENT_SECRET"] != "" {
		secret := s.Path("secrets", "outside")
		if err := os.WriteFile(secret, []byte(outside["CLIENT_SECRET"]), 0o600); err != nil {
			s.t.Fatal(err)
		}
		provider += "  client_secret: " + quote("file:"+secret) + "\n"
	}
	if outside["CA"] != "" {
		provider += "  ca: " + quote(outside["CA"]) + "\n"
		more, err := os.ReadFile(outside["CA"])
		if err != nil {
			s.t.Fatal(err)
		}
		s.authorities = append(append(s.authorities, '\n'), more...)
	}
	changed := regexp.MustCompile(`(?m)^provider:\n(?: .*\n)+`).ReplaceAllLiteralString(string(text), provider)
	changed = regexp.MustCompile(`(?m)^url: .*$`).ReplaceAllLiteralString(changed, "url: "+quote(s.url))
	changed = regexp.MustCompile(`(?m)^  https: .*$`).ReplaceAllLiteralString(changed, "  https: "+quote("127.0.0.1:"+outside["PORT"]))
	changed = strings.Replace(changed, "    kind: postgres\n", "    kind: postgres\n    sso: true\n", 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		s.t.Fatal(err)
	}
	pid, err := s.GatewayPID()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	probe := s.browser(s.t).HTTP
	s.Until(time.Minute, "the gateway stands at "+s.url, func() error {
		answer, err := probe.Get(s.url + "/readyz")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
}

// browser is a new one of the person's.
func (s *signing) browser(t *testing.T) *rig.Browser {
	t.Helper()
	return rig.NewBrowser(t, s.url, s.authorities, s.name, s.password)
}

// login begins `sallyport login` in a home of its own.
func (s *signing) login(t *testing.T, flags ...string) (p *talking, as func(args ...string) rig.Outcome) {
	t.Helper()
	env := []string{"SALLYPORT_HOME=" + filepath.Join(t.TempDir(), "home")}
	p = talk(t, s.Rig, env, s.Env["SALLYPORT_BIN"], append([]string{"login", "--gateway", s.url, "--ca", s.Env["SALLYPORT_CA"]}, flags...)...)
	return p, func(args ...string) rig.Outcome { return s.Run(env, s.Env["SALLYPORT_BIN"], args...) }
}

// signedIn insists that the gateway knows the home's person as the provider's.
func (s *signing) signedIn(t *testing.T, p *talking, as func(args ...string) rig.Outcome) {
	t.Helper()
	if code := p.ends(t); code != 0 {
		t.Fatalf("login: exit %d: %s", code, &p.stderr)
	}
	out := as("whoami", "--json")
	var who struct{ Issuer, Subject, Kind string }
	if err := json.Unmarshal([]byte(out.Stdout), &who); err != nil || out.Code != 0 {
		t.Fatalf("%v: %s", err, out.Text())
	}
	if who.Issuer != s.issuer || who.Subject == "" || who.Kind != "human" {
		t.Fatalf("signed in as %+v at %s: %s", who, s.issuer, out.Stdout)
	}
	if !s.outside && who.Subject != "alice" {
		t.Errorf("signed in as %s", who.Subject)
	}
}

// toLogin goes from the address that the command line prints to where the browser is sent back to the command line.
func (s *signing) toLogin(t *testing.T, p *talking, b *rig.Browser) *url.URL {
	t.Helper()
	address := p.hears(t, `^\s+(https://\S+)$`)[1]
	page := b.SignIn(b.Go(b.Get(address)))
	back, err := url.Parse(page.Header.Get("Location"))
	if err != nil || back.Scheme != "http" || back.Path != "/callback" || back.Query().Get("code") == "" {
		t.Fatalf("the sign-in ended at %s (%d) with %q:\n%s", page.URL, page.Status, page.Header.Get("Location"), page.Text)
	}
	return back
}

// TestIssuer: people sign in at the provider by each way that there is: it runs against the demo's, or against any other one that
// SALLYPORT_TEST_ISSUER names, whose forms are filled in over HTTP.
func TestIssuer(t *testing.T) {
	s := signingIn(t)

	if !s.outside {
		t.Run("other groups at the provider", s.regrouped)
		t.Run("disabled at the provider", s.disabled)
		t.Run("signed out at the provider", s.signedOut)
	}

	t.Run("by browser", func(t *testing.T) {
		p, as := s.login(t, "--no-browser")
		b := s.browser(t)
		back := s.toLogin(t, p, b)
		stolen := *back
		query := stolen.Query()
		query.Set("state", "of-somebody-else")
		stolen.RawQuery = query.Encode()
		if page := b.Get(stolen.String()); page.Status < 400 {
			t.Errorf("the command line took a code with another state: %d", page.Status)
		}
		b.Get(back.String())
		s.signedIn(t, p, as)

		if out := as("logout"); out.Code != 0 {
			t.Fatal(out.Text())
		}
		if out := as("whoami"); out.Code == 0 {
			t.Errorf("still known after the logout: %s", out.Text())
		}
	})

	t.Run("on another device", func(t *testing.T) {
		p, as := s.login(t, "--device")
		address := p.hears(t, `^\s+(https://\S+)$`)[1]
		code := p.hears(t, `shows the code (\S+)`)[1]
		b := s.browser(t)
		page := b.Get(address)
		if !strings.Contains(page.Text, code) {
			t.Errorf("the page does not show the code %s:\n%s", code, page.Text)
		}
		page = b.Submit(b.SignIn(b.Go(page)), url.Values{"decision": {"approve"}})
		if page.Status != 200 || !strings.Contains(page.Text, "Signed in") {
			t.Fatalf("%d %s", page.Status, page.Text)
		}
		s.signedIn(t, p, as)
	})

	t.Run("at the prompt of psql", func(t *testing.T) {
		p := talk(t, s.Rig, nil, "psql", "-X", "-A", "-t", "-c", "select 'in as ' || current_user", own(s.Rig, "user=app+sso"))
		link := p.hears(t, `sign in to go on: (\S+)`)[1]
		code := p.hears(t, `Type this code there: (\S+)\.`)[1]
		if page := approve(t, s.browser(t), link, code); page.Status != 200 {
			t.Fatalf("%d %s", page.Status, page.Text)
		}
		status := p.ends(t)
		// Who comes from an outside provider is known now, and nobody has granted them anything.
		if in := status == 0 && p.stdout.String() == "in as app\n"; in == s.outside || s.outside && !strings.Contains(p.stderr.String(), "no live grant") {
			t.Errorf("exit %d: %q %s", status, &p.stdout, &p.stderr)
		}
	})

	t.Run("to the console", func(t *testing.T) {
		b := s.browser(t)
		page := b.SignIn(b.Get("/console/sign-in/start"))
		if page.Status != 200 || page.URL.Path != "/console/" {
			t.Fatalf("it ended at %s (%d):\n%s", page.URL, page.Status, page.Text)
		}
	})

	t.Run("not with a wrong password", func(t *testing.T) {
		p, as := s.login(t, "--no-browser")
		b := rig.NewBrowser(t, s.url, s.authorities, s.name, "not "+s.password)
		page := b.SignIn(b.Go(b.Get(p.hears(t, `^\s+(https://\S+)$`)[1])))
		if strings.Contains(page.Header.Get("Location"), "code=") {
			t.Fatalf("it was let in: %s", page.Header.Get("Location"))
		}
		if out := as("whoami"); out.Code == 0 {
			t.Errorf("somebody is signed in: %s", out.Text())
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("not in another browser than it began in", func(t *testing.T) {
		p, as := s.login(t, "--no-browser")
		page := s.browser(t).Get(p.hears(t, `^\s+(https://\S+)$`)[1])
		page = s.browser(t).Go(page) // somebody else's browser is sent on with this sign-in
		if page.Status < 400 || !strings.HasPrefix(page.URL.String(), s.url) {
			t.Errorf("it went on in another browser: %s (%d)", page.URL, page.Status)
		}
		if out := as("whoami"); out.Code == 0 {
			t.Errorf("somebody is signed in: %s", out.Text())
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	})

	if !s.outside {
		t.Run("in an emergency", s.emergency)
		t.Run("closed by the provider's directory", s.closedByDirectory)
	}
}

// signedOut: who signs out at the provider, which tells the gateway so (back-channel logout), loses everything here: credentials at
// once, open sessions within a minute. Somebody else loses nothing.
func (s *signing) signedOut(t *testing.T) {
	conn, err := s.Connect(t.Context(), "SALLYPORT_PG")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	b := s.Browser("alice")
	if page := b.Post(s.issuer+"/sign-out", url.Values{"name": {"alice"}, "password": {"not hers"}}); page.Status != http.StatusUnauthorized {
		t.Fatalf("with a wrong password: %d %s", page.Status, page.Text)
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Fatalf("before: %v", err)
	}
	if page := b.Post(s.issuer+"/sign-out", url.Values{"name": {"alice"}, "password": {b.Password}}); page.Status != http.StatusNoContent {
		t.Fatalf("%d %s", page.Status, page.Text)
	}
	began := time.Now()
	if out := s.PSQL("SALLYPORT_PG", "-c", "select 1"); out.Code == 0 || !strings.Contains(out.Stderr, "sallyport login") {
		t.Errorf("her certificate: exit %d: %s", out.Code, out.Text())
	}
	if out := s.As("alice", "whoami"); out.Code == 0 {
		t.Errorf("her tokens: %s", out.Text())
	}
	s.Until(time.Minute, "her session ends", func() error {
		if err := conn.Ping(t.Context()); err == nil {
			return errors.New("it goes on")
		}
		return nil
	})
	t.Logf("her session ended after %s", time.Since(began).Round(time.Millisecond))
	if out := s.As("bob", "whoami"); out.Code != 0 {
		t.Errorf("bob: %s", out.Text())
	}
	if events := s.As("carol", "audit", "--json").Stdout; !strings.Contains(events, "signed out at the company's provider") {
		t.Error("it is not audited")
	}
}
