//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/test/rig"
)

// allowPrompt has both targets let people sign in at the prompt.
func allowPrompt(t *testing.T, r *rig.Rig) {
	t.Helper()
	file := r.Path("sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("    kind: postgres\n", "    kind: postgres\n    sso: true\n", "    kind: ssh\n", "    kind: ssh\n    sso: true\n").Replace(string(text))
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	reload(t, r)
}

// reload has the gateway read its configuration again, and waits until it has.
func reload(t *testing.T, r *rig.Rig) {
	t.Helper()
	count := func() int { return strings.Count(r.As("carol", "audit", "--json").Stdout, `"config.reloaded"`) }
	before := count()
	pid, err := r.GatewayPID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.Until(30*time.Second, "the configuration is reloaded", func() error {
		if count() == before {
			return errors.New("no event")
		}
		return nil
	})
}

// approve goes from the link that a terminal shows to the end, typing that code.
func approve(t *testing.T, b *rig.Browser, link, code string) rig.Page {
	t.Helper()
	return b.Submit(b.SignIn(b.Go(b.Get(link))), url.Values{"code": {code}, "decision": {"approve"}})
}

// TestPsqlSignsInAtThePrompt: any stock psql, nothing installed: a notice shows link and code, and the prompt appears once
// the person has signed in.
func TestPsqlSignsInAtThePrompt(t *testing.T) {
	r := rig.Start(t, rig.Checked(t))
	refused := r.Run(nil, "psql", "-X", "-w", "-c", "select 1", own(r, "user=app+sso"))
	if refused.Code == 0 || !strings.Contains(refused.Stderr, "not possible here") || strings.Contains(refused.Stderr, "/oauth/") {
		t.Fatalf("before it is allowed: %s", refused.Text())
	}
	allowPrompt(t, r)
	p := talk(t, r, nil, "psql", "-X", "-A", "-t", "-c", "select 'in as ' || current_user", own(r, "user=app+sso", "application_name=my-own-terminal"))
	link := p.hears(t, `sign in to go on: (\S+)`)[1]
	code := p.hears(t, `Type this code there: (\S+)\.`)[1]
	b := r.Browser("alice")
	page := b.Get(link)
	for _, want := range []string{"app@orders", "PostgreSQL", "my-own-terminal"} {
		if !strings.Contains(page.Text, want) {
			t.Errorf("the page does not show %q:\n%s", want, page.Text)
		}
	}
	if strings.Contains(page.Text, code) {
		t.Error("the page shows the code, so that a link is all that it takes")
	}
	if page := approve(t, b, link, strings.ToLower(code)); page.Status != 200 || !strings.Contains(page.Text, "Signed in") {
		t.Fatalf("%d %s", page.Status, page.Text)
	}
	if status := p.ends(t); status != 0 || p.stdout.String() != "in as app\n" {
		t.Fatalf("exit %d: %q %s", status, &p.stdout, &p.stderr)
	}
	if page := b.Get(link); page.Status != 404 {
		t.Errorf("the link is good again: %d", page.Status)
	}
	var sessions []struct {
		Identity struct{ Name, Method string }
	}
	r.Ask(&sessions, "carol", "sessions", "--all")
	if len(sessions) == 0 || sessions[0].Identity.Name != "Alice" || sessions[0].Identity.Method != "sign-in at the prompt" {
		t.Fatalf("%+v", sessions)
	}

	// Bob signs in where Alice's terminal waits: he is let in as himself, and has no grant.
	p = talk(t, r, nil, "psql", "-X", "-c", "select 1", own(r, "user=app+sso"))
	link, code = p.hears(t, `sign in to go on: (\S+)`)[1], p.hears(t, `Type this code there: (\S+)\.`)[1]
	approve(t, r.Browser("bob"), link, code)
	if status := p.ends(t); status == 0 || !strings.Contains(p.stderr.String(), "no live grant") {
		t.Fatalf("exit %d: %s", status, &p.stderr)
	}
	// A program that hangs up takes its link with it.
	p = talk(t, r, nil, "psql", "-X", "-c", "select 1", own(r, "user=app+sso"))
	link = p.hears(t, `sign in to go on: (\S+)`)[1]
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.Until(30*time.Second, "the link is dead", func() error {
		if page := b.Get(link); page.Status != 404 {
			return fmt.Errorf("status %d", page.Status)
		}
		return nil
	})
}
