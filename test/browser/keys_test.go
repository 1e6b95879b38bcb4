package browser

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// TestEnrolledKey: Alice enrols a key in a real browser, whose authenticator is a virtual one, and breaks the glass with it while the
// provider is down.
func TestEnrolledKey(t *testing.T) {
	d := startDemo(t)
	d.takeKeys(t)
	issuer := provider(t, d)
	d.pin(t, d.url)
	d.pin(t, issuer)
	browser, shots := newBrowser(t, d), screenshots(t)
	alice := newPerson(t, browser, d, "alice", shots, 1280, 900)
	alice.authenticator()
	alice.signIn()
	alice.open("/console/keys")
	alice.sees("You have enrolled no key.")
	alice.accessible()
	alice.do("begin", chromedp.Click("main button.primary"), chromedp.WaitVisible("#newkey"))
	alice.accessible()
	alice.shoot("new-key")
	alice.do("make it", chromedp.SendKeys("#name", "blue key on my ring"), chromedp.Click("button.primary"), chromedp.WaitVisible(".done"))
	alice.sees("The key is enrolled.", "blue key on my ring", "never", "good")
	alice.fits()
	alice.accessible()
	alice.shoot("keys")
	alice.do("look by phone", chromedp.EmulateViewport(390, 844))
	for _, path := range []string{"/console/keys", "/console/"} {
		alice.open(path)
		alice.fits()
	}
	alice.shoot("keys-phone")
	alice.do("look by desk again", chromedp.EmulateViewport(1280, 900))
	alice.open("/console/")
	alice.sees("If that was not you")

	d.outage(t, issuer, true)
	defer d.outage(t, issuer, false)
	home := filepath.Join(t.TempDir(), "home")
	login := d.as(t.Context(), "alice", d.binary, "login", "--no-browser", "--gateway", d.url, "--ca", filepath.Join(filepath.Dir(d.homes), "ca.pem"))
	login.Env = append(login.Env, "SALLYPORT_HOME="+home)
	p := start(t, login)
	address := regexp.MustCompile(`https://\S+/oauth/authorize\S+`)
	p.enter(t, "", "/oauth/authorize")
	// For some seconds the gateway still takes the provider for up, and sends her there.
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		alice.do("sign in", chromedp.Navigate(address.FindString(p.out.String())), chromedp.Click("a.go"), chromedp.WaitReady("body"))
		alice.waits("another page", `document.readyState === "complete" && !document.querySelector("a.go[href^='/oauth/login/go']")`)
		if offered, err := chromedp.Run(alice.ctx, chromedp.Evaluate[bool](`!!document.querySelector("#key button:enabled")`)); err == nil && offered {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the key is not offered:\n%s", alice.text())
		}
	}
	alice.sees("does not answer", "In an emergency")
	alice.accessible()
	alice.shoot("provider-down")
	alice.do("use the key", chromedp.Click("#key button"), chromedp.WaitVisible("a.go"))
	alice.sees("Signed in for an emergency", "Alice")
	alice.accessible()
	alice.shoot("emergency")
	alice.do("go on", chromedp.Click("a.go"))
	select {
	case err := <-p.done:
		if err != nil {
			t.Fatalf("login: %v\n%s", err, p.out)
		}
	case <-time.After(patience):
		t.Fatalf("login waits on:\n%s", p.out)
	}
	as := func(name string, args ...string) (string, error) {
		command := d.as(t.Context(), "alice", name, args...)
		command.Env = append(command.Env, "SALLYPORT_HOME="+home, "PGSERVICEFILE="+filepath.Join(home, "pg_service.conf"))
		said, err := command.CombinedOutput()
		return string(said), err
	}
	if said, err := as(d.binary, "request", "app@orders", "--duration", "10m", "--reason", "whatever I like, for I have a key"); err == nil || !strings.Contains(said, "enrolled key") {
		t.Errorf("an ordinary request: %v\n%s", err, said)
	}
	if said, err := as(d.binary, "request", "postgres@orders", "--break-glass", "--reason", "INC-43: orders is down, nobody answers"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if said, err := as("psql", "-X", "-w", "-A", "-t", "-c", "select 6*7", "service=orders"); err != nil || strings.TrimSpace(said) != "42" {
		t.Errorf("psql: %v\n%s", err, said)
	}
	alice.untroubled()
}

// authenticator gives the person's browser one that verifies them.
func (p *person) authenticator() {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
		p.t.Fatal(err)
	}
	_, err := chromedp.Call(p.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportUsb,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	if err != nil {
		p.t.Fatal(err)
	}
}

// takeKeys has the demo's gateway take enrolled keys and engineers break the glass, which takes a restart.
func (d *demo) takeKeys(t *testing.T) {
	t.Helper()
	state := filepath.Dir(d.homes)
	file := filepath.Join(state, "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "credentials:\n", "credentials:\n  enrolled_keys: {}\n", 1)
	changed = strings.Replace(changed, "policies:\n", "policies:\n  - name: glass\n    break_glass: true\n    groups: [engineers]\n    accounts: [\"postgres@orders\"]\n"+
		"    max_duration: 30m\n    approve: {auto: true}\n    review: {groups: [security], within: 24h}\n", 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := func() string {
		text, _ := os.ReadFile(filepath.Join(state, "gateway.pid")) // while it is written there is none
		return strings.TrimSpace(string(text))
	}
	old := pid()
	n, err := strconv.Atoi(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if now := pid(); now != "" && now != old && d.whoami("alice") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not come back")
		}
	}
}

func (d *demo) whoami(person string) bool {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	return d.as(ctx, person, d.binary, "whoami").Run() == nil
}

// outage stops the provider's answers, or lets them go on.
func (d *demo) outage(t *testing.T, issuer string, down bool) {
	t.Helper()
	at, err := url.Parse(issuer)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--cacert", filepath.Join(filepath.Dir(d.homes), "ca.pem"),
		"--data-urlencode", "name=alice", "--data-urlencode", "password="+d.passwords["alice"], "--data", "down="+strconv.FormatBool(down), "https://"+at.Host+"/outage").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
