//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/authn/passkey/passkeytest"
	"sallyport/test/rig"
)

// directoryToken is what the provider's directory shows to the gateway.
const directoryToken = "the token of the provider's directory"

// takeKeys has the gateway take enrolled keys, engineers break the glass, and the provider provision people, which takes a restart.
func (s *signing) takeKeys(t *testing.T) {
	t.Helper()
	file := s.Path("sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "credentials:\n", "credentials:\n  enrolled_keys: {}\n", 1)
	token := s.Path("secrets", "directory")
	if err := os.WriteFile(token, []byte(directoryToken), 0o600); err != nil {
		t.Fatal(err)
	}
	changed = strings.Replace(changed, "provider:\n", "provider:\n  scim: {token: \"file:"+token+"\", admit_unknown: true}\n", 1)
	changed = strings.Replace(changed, "policies:\n", "policies:\n  - name: glass\n    break_glass: true\n    groups: [engineers]\n    accounts: [\"postgres@orders\"]\n"+
		"    max_duration: 30m\n    approve: {auto: true}\n    review: {groups: [security], within: 24h}\n", 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	s.EndGateway(syscall.SIGTERM)
	s.Until(time.Minute, "the gateway answers", func() error {
		if out := s.As("bob", "whoami"); out.Code != 0 { // alice is signed out
			return errors.New(out.Text())
		}
		return nil
	})
}

var (
	csrfField    = regexp.MustCompile(`name="csrf" value="([^"]+)"`)
	optionsField = regexp.MustCompile(`data-options="([^"]+)"`)
)

// found is what a page has in the place of the pattern's group.
func found(t *testing.T, pattern *regexp.Regexp, page rig.Page) string {
	t.Helper()
	m := pattern.FindStringSubmatch(page.Text)
	if m == nil {
		t.Fatalf("no %s at %s (%d):\n%s", pattern, page.URL, page.Status, page.Text)
	}
	return html.UnescapeString(m[1])
}

// emergency: with a key that she has enrolled in the console, alice breaks the glass while the provider is down, works with the stock
// psql on what that gave, and has nothing else.
func (s *signing) emergency(t *testing.T) {
	s.takeKeys(t)
	b := s.browser(t)
	if page := b.SignIn(b.Get("/console/sign-in/start")); page.URL.Path != "/console/" {
		t.Fatalf("%s (%d):\n%s", page.URL, page.Status, page.Text)
	}
	csrf := found(t, csrfField, b.Get("/console/keys"))
	options := found(t, optionsField, b.Post("/console/keys/new", url.Values{"csrf": {csrf}}))
	key, made, err := passkeytest.Make([]byte(options), s.url)
	if err != nil {
		t.Fatal(err)
	}
	page := b.Post("/console/keys", url.Values{"csrf": {csrf}, "name": {"blue key on my ring"}, "answer": {string(made)}})
	if page.Status != 200 || !strings.Contains(page.Text, "The key is enrolled.") || !strings.Contains(page.Text, "blue key on my ring") {
		t.Fatalf("%d %s", page.Status, page.Text)
	}
	if page := b.Get("/console/"); !strings.Contains(page.Text, "If that was not you") {
		t.Error("her first page does not tell of the key")
	}

	outage := func(down string) {
		if page := b.Post(s.issuer+"/outage", url.Values{"name": {s.name}, "password": {s.password}, "down": {down}}); page.Status != http.StatusNoContent {
			t.Fatalf("%d %s", page.Status, page.Text)
		}
	}
	outage("true")
	defer outage("false")
	p, as := s.login(t, "--no-browser")
	var home string
	for _, entry := range p.cmd.Env {
		if value, is := strings.CutPrefix(entry, "SALLYPORT_HOME="); is {
			home = value // the last counts
		}
	}
	address := p.hears(t, `^\s+(https://\S+)$`)[1]
	b = s.browser(t)
	s.Until(time.Minute, "the page offers the key", func() error {
		if page = b.Go(b.Get(address)); !optionsField.MatchString(page.Text) {
			time.Sleep(500 * time.Millisecond) // from one address not too many sign-ins are begun
			return errors.New(page.URL.String())
		}
		return nil
	})
	answer, err := key.Sign([]byte(found(t, optionsField, page)))
	if err != nil {
		t.Fatal(err)
	}
	back := b.Go(b.Post("/oauth/key", url.Values{"answer": {string(answer)}})).Header.Get("Location")
	if !strings.HasPrefix(back, "http://127.0.0.1:") {
		t.Fatalf("it ended at %q", back)
	}
	b.Get(back)
	if code := p.ends(t); code != 0 || !strings.Contains(p.stdout.String(), "--break-glass") {
		t.Fatalf("login: exit %d: %s%s", code, &p.stdout, &p.stderr)
	}
	var who struct {
		Subject   string
		Emergency bool
	}
	if out := as("whoami", "--json"); json.Unmarshal([]byte(out.Stdout), &who) != nil || who.Subject != "alice" || !who.Emergency {
		t.Errorf("%s", out.Text())
	}

	for _, args := range [][]string{
		{"request", "app@orders", "--duration", "10m", "--reason", "in an emergency one takes what there is"},
		{"credentials", "postgres@orders"},
	} {
		if out := as(args...); out.Code == 0 || !strings.Contains(out.Text(), "enrolled key") {
			t.Errorf("%v: exit %d %s", args, out.Code, out.Text())
		}
	}
	psql := func(more string) rig.Outcome {
		return s.Run([]string{"PGSERVICEFILE=" + filepath.Join(home, "pg_service.conf")}, "psql", "-X", "-w", "-A", "-t", "-c", "select 'in as ' || current_user", "service=orders"+more)
	}
	if out := psql(""); out.Code == 0 || !strings.Contains(out.Stderr, "--break-glass") {
		t.Errorf("before she has broken the glass: exit %d: %s", out.Code, out.Text())
	}
	// What she has is hers to see and to give back.
	var have []struct{ ID, Account string }
	if out := as("grants", "--json"); json.Unmarshal([]byte(out.Stdout), &have) != nil {
		t.Fatal(out.Text())
	}
	for _, g := range have {
		if g.Account != "postgres" {
			continue
		}
		if out := as("release", g.ID); out.Code != 0 {
			t.Fatal(out.Text())
		}
	}
	if out := as("request", "postgres@orders", "--break-glass", "--reason", "INC-43: orders is down, nobody answers"); out.Code != 0 {
		t.Fatalf("exit %d: %s", out.Code, out.Text())
	}
	if out := psql(""); out.Code != 0 || out.Stdout != "in as postgres\n" {
		t.Errorf("exit %d: %s", out.Code, out.Text())
	}
	if out := psql(" user=app"); out.Code == 0 {
		t.Errorf("an ordinary account: %s", out.Text())
	}
	outage("false")
	for _, kind := range []string{"key.enrolled", "login.emergency", "key.refused", "grant.break_glass", "session.unvouched"} {
		s.audited(t, kind, func(is string, _ map[string]string) bool { return is == kind })
	}
}
