package postgres

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/grant"
)

// waiting is a psql that waits for something.
type waiting struct {
	command *exec.Cmd
	lines   chan string
	end     chan struct{}
	out     strings.Builder
}

func (h *house) waitingPsql(connection string, args ...string) *waiting {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	h.t.Cleanup(cancel)
	w := &waiting{command: h.psql(ctx, connection, args...), lines: make(chan string, 1000), end: make(chan struct{})}
	w.command.Stdout = &w.out
	stderr, err := w.command.StderrPipe()
	h.must(err)
	h.must(w.command.Start())
	go func() {
		for s := bufio.NewScanner(stderr); s.Scan(); {
			w.lines <- s.Text()
		}
		close(w.lines)
		_ = w.command.Wait() // how it ended is in ProcessState
		close(w.end)
	}()
	return w
}

// said waits for a line with that in it.
func (w *waiting) said(t *testing.T, what string) string {
	t.Helper()
	for patience := time.After(time.Minute); ; {
		select {
		case line, ok := <-w.lines:
			if !ok {
				t.Fatalf("psql ended without saying %q", what)
			}
			if strings.Contains(line, what) {
				return line
			}
		case <-patience:
			t.Fatalf("psql never said %q", what)
		}
	}
}

func (w *waiting) ended(t *testing.T) (int, string) {
	t.Helper()
	select {
	case <-w.end:
	case <-time.After(time.Minute):
		t.Fatal("psql goes on")
	}
	return w.command.ProcessState.ExitCode(), w.out.String()
}

// slowHouse is a house in which Alice has to be approved.
func slowHouse(t *testing.T) *house {
	h := newHouse(t)
	config := *h.config
	config.Policies = []configs.Policy{{
		Name: "slow", Groups: []string{"engineers"}, Accounts: []string{"writer@orders"}, MaxDuration: configs.Duration(time.Hour), DefaultDuration: configs.Duration(time.Hour),
		ReasonLength: 1, Approve: configs.Approve{Groups: []string{"leads"}, Count: 1, Start: configs.Duration(time.Hour), Within: configs.Duration(time.Hour)},
	}}
	h.must(h.grants.Reload(context.Background(), &config)) // ends what she had
	return h
}

func (h *house) pending() (grant.Grant, bool) {
	list, err := h.grants.List(context.Background(), h.alice.Identity, false)
	h.must(err)
	for _, g := range list {
		if g.State == grant.Pending {
			return g, true
		}
	}
	return grant.Grant{}, false
}

// nobodyWaits states that nothing of a wait is left.
func (h *house) nobodyWaits() {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); h.grants.Waiting() > 0; time.Sleep(20 * time.Millisecond) { // looks again
		if time.Now().After(end) {
			h.t.Fatalf("%d connections still wait", h.grants.Waiting())
		}
	}
}

// TestWaitsAtThePrompt: a stock psql that was told to wait files its request, is told by notices who can approve, and goes on
// when they do; or it is told why not.
func TestWaitsAtThePrompt(t *testing.T) {
	h := slowHouse(t)
	bob := h.signIn("bob", "leads")
	ctx := context.Background()
	options := `options='-c sallyport.wait=1m -c sallyport.reason=a\\ stuck\\ order -c sallyport.duration=10m -c statement_timeout=77s'`

	p := h.waitingPsql(h.connection(h.alice, options), "-c", "select current_user, current_setting('statement_timeout'), current_setting('sallyport.wait', true) is null")
	p.said(t, "waits for approval by leads")
	p.said(t, "a stuck order")
	g, ok := h.pending()
	if !ok || g.Reason != "a stuck order" || g.Duration != 10*time.Minute {
		t.Fatalf("%+v", g)
	}
	_, err := h.grants.Approve(ctx, bob.Identity, g.ID, "")
	h.must(err)
	if code, out := p.ended(t); code != 0 || out != "app|77s|t\n" {
		t.Fatalf("exit %d, %q", code, out)
	}

	_, err = h.grants.Release(ctx, h.alice.Identity, g.ID)
	h.must(err)
	p = h.waitingPsql(h.connection(h.alice, options), "-c", "select 1")
	p.said(t, "waits for approval by leads")
	g, _ = h.pending()
	_, err = h.grants.Deny(ctx, bob.Identity, g.ID, "not today")
	h.must(err)
	p.said(t, "not today")
	if code, _ := p.ended(t); code == 0 {
		t.Fatal("it got in")
	}

	// With nothing to ask with it is told where to ask.
	p = h.waitingPsql(h.connection(h.alice, "options='-c sallyport.wait=1m'"), "-c", "select 'in'")
	p.said(t, "https://gateway.test/console/ask?account=writer&target=orders")
	g, err = h.grants.Request(ctx, h.alice.Identity, grant.Ask{Target: "orders", Account: "writer", Reason: "from the page"})
	h.must(err)
	p.said(t, g.ID)
	_, err = h.grants.Approve(ctx, bob.Identity, g.ID, "")
	h.must(err)
	if code, out := p.ended(t); code != 0 || out != "in\n" {
		t.Fatalf("exit %d, %q", code, out)
	}
	_, err = h.grants.Release(ctx, h.alice.Identity, g.ID)
	h.must(err)

	// Without patience it is told at once, and nothing is filed.
	began := time.Now()
	out, err := h.runPsql(h.connection(h.alice), "-c", "select 1")
	if err == nil || !strings.Contains(out, "no live grant") || time.Since(began) > 30*time.Second {
		t.Fatalf("%v %s", err, out)
	}
	// Ctrl-C leaves the request, and nobody waits; so does who is killed.
	for _, how := range []os.Signal{os.Interrupt, os.Kill} {
		p = h.waitingPsql(h.connection(h.alice, options), "-c", "select 1")
		p.said(t, "waits for approval by leads")
		if n := h.grants.Waiting(); n != 1 {
			t.Errorf("%d wait", n)
		}
		h.must(p.command.Process.Signal(how))
		p.ended(t)
		h.nobodyWaits()
		if _, ok := h.pending(); !ok {
			t.Fatal("the request is gone")
		}
	}
	// When the time is over it is told so, and the request stands.
	p = h.waitingPsql(h.connection(h.alice, "options='-c sallyport.wait=1s'"), "-c", "select 1")
	p.said(t, "waits for approval by leads")
	p.said(t, "were not enough")
	if code, _ := p.ended(t); code == 0 {
		t.Fatal("it got in")
	}
	h.nobodyWaits()
	if promptWait != 5*time.Minute {
		t.Errorf("who signs in at the prompt waits for %s", promptWait)
	}
}

// Settings for the gateway that it does not know, or can't read, are refused by name; none reaches the target.
func TestOwnSettings(t *testing.T) {
	h := newHouse(t)
	for options, word := range map[string]string{
		"-c sallyport.wait=soon": "sallyport.wait", "-c sallyport.wait=99h": "at most 30m", "-c sallyport.patience=1m": "sallyport.patience", "-c sallyport.auth=none": "sallyport.auth",
	} {
		if out, err := h.runPsql(h.connection(h.alice, "options='"+options+"'"), "-c", "select 1"); err == nil || !strings.Contains(out, word) {
			t.Errorf("%s: %v %s", options, err, out)
		}
	}
	out, err := h.runPsql(h.connection(h.alice, "options='-c sallyport.wait=1m -c Sallyport.Reason=x'"), "-c", "select count(*) from pg_settings where name like 'sallyport%'")
	if err != nil || out != "0" {
		t.Fatalf("%v %s", err, out)
	}
}

// TestPromptIsOptIn: only a target that allows it sends anybody a link, and a stranger learns nothing of others.
func TestPromptIsOptIn(t *testing.T) {
	h := newHouse(t)
	host, port, _ := net.SplitHostPort(h.shared)
	for _, target := range []string{"orders", "web-1", "nowhere", "plain"} {
		out, err := h.runPsql("host="+host+" port="+port+" user=writer+sso dbname="+target+" sslmode=verify-full sslrootcert="+h.ca, "-c", "select 1")
		if err == nil || !strings.Contains(out, "signing in at the prompt is not possible here") || strings.Contains(out, "/oauth/wait") {
			t.Errorf("%s: %v %s", target, err, out)
		}
	}
}
