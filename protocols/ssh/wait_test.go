package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
)

// slow has every grant of alice's, or those for the roles alone, need an approval by leads, and ends what she has.
func (r *rig) slow(roles ...string) authn.Identity {
	r.t.Helper()
	config := *r.config
	accounts := []string{"*@*"}
	if len(roles) > 0 {
		accounts = nil
	}
	config.Policies = []configs.Policy{{
		Name: "slow", Groups: []string{"engineers"}, Accounts: accounts, Roles: roles, MaxDuration: configs.Duration(time.Hour), DefaultDuration: configs.Duration(time.Hour), ReasonLength: 1,
		Approve: configs.Approve{Groups: []string{"leads"}, Count: 1, Within: configs.Duration(time.Hour), Start: configs.Duration(time.Hour)},
	}}
	if err := r.grants.Reload(r.t.Context(), &config); err != nil {
		r.t.Fatal(err)
	}
	return must(r.authn.SignIn(r.t.Context(), authn.Identity{Issuer: "https://login.example", Subject: "bob", Kind: authn.Human, Name: "Bob", Groups: []string{"leads"}}, "127.0.0.1"))(r.t)
}

// typist is a stock ssh with a terminal.
type typist struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.WriteCloser
	mu    sync.Mutex
	out   bytes.Buffer
	end   chan struct{}
}

func (p *typist) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *typist) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (r *rig) typist(args ...string) *typist {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	r.t.Cleanup(cancel)
	p := &typist{t: r.t, cmd: exec.CommandContext(ctx, "ssh", append([]string{"-F", filepath.Join(r.dir, "config"), "-tt"}, args...)...), end: make(chan struct{})}
	p.input = must(p.cmd.StdinPipe())(r.t)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.end)
	}()
	return p
}

func (p *typist) hears(what string) {
	p.t.Helper()
	for deadline := time.Now().Add(deadline); !strings.Contains(p.said(), what); time.Sleep(20 * time.Millisecond) {
		select {
		case <-p.end:
			if !strings.Contains(p.said(), what) {
				p.t.Fatalf("it ended without saying %q:\n%s", what, p.said())
			}
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("it never said %q:\n%s", what, p.said())
		}
	}
}

func (p *typist) ends() int {
	p.t.Helper()
	select {
	case <-p.end:
	case <-time.After(deadline):
		p.t.Fatalf("it goes on:\n%s", p.said())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (r *rig) pending() grant.Grant {
	r.t.Helper()
	var pending grant.Grant
	eventually(r.t, "something waits for approval", func() bool {
		for _, g := range must(r.grants.List(r.t.Context(), r.alice, false))(r.t) {
			if g.State == grant.Pending {
				pending = g
				return true
			}
		}
		return false
	})
	return pending
}

func (r *rig) released() {
	r.t.Helper()
	for _, g := range must(r.grants.List(r.t.Context(), r.alice, false))(r.t) {
		must(r.grants.Release(r.t.Context(), r.alice, g.ID))(r.t)
	}
}

// nobodyWaits states that nothing of a wait is left.
func (r *rig) nobodyWaits() {
	r.t.Helper()
	for end := time.Now().Add(deadline); r.grants.Waiting() > 0; time.Sleep(20 * time.Millisecond) { // looks again
		if time.Now().After(end) {
			r.t.Fatalf("%d connections still wait", r.grants.Waiting())
		}
	}
}

// A terminal waits for an approval: it is told who can give it, and goes on as if nothing had been, with what was typed
// meanwhile; everybody without a terminal is told at once.
func TestTerminalWaitsForApproval(t *testing.T) {
	r := newRig(t)
	bob := r.slow()
	for _, form := range []string{"web-1", "me@web-1@gw"} {
		t.Run(form, func(t *testing.T) {
			destination := []string{form}
			if user, ok := strings.CutSuffix(form, "@gw"); ok {
				destination = []string{"-l", user, "gw"}
			}
			p := r.typist(append([]string{"-o", "SetEnv=SALLYPORT_REASON=stuck SALLYPORT_DURATION=10m LANG=C"}, append(destination, "stty -echo; echo ready; read line; echo \"heard $line\"; tty; env | grep -c SALLYPORT; exit 7")...)...)
			p.hears("waits for approval by leads")
			p.hears("The reason given is: stuck")
			fmt.Fprintf(p.input, "typed ahead\n")
			g := r.pending()
			if g.Reason != "stuck" || g.Duration != 10*time.Minute {
				t.Fatalf("%+v", g)
			}
			must(r.grants.Approve(t.Context(), bob, g.ID, ""))(t)
			p.hears("ready")
			p.hears("heard typed ahead")
			p.hears("/dev/pts/")
			if code := p.ends(); code != 7 || !strings.Contains(p.said(), "\n0\r\n") {
				t.Fatalf("exit %d:\n%s", code, p.said())
			}
			r.released()
		})
	}
	t.Run("denied", func(t *testing.T) {
		p := r.typist("-o", "SetEnv=SALLYPORT_REASON=stuck", "web-1")
		p.hears("waits for approval by leads")
		must(r.grants.Deny(t.Context(), bob, r.pending().ID, "not today"))(t)
		p.hears("not today")
		if code := p.ends(); code != exitRefused {
			t.Fatalf("exit %d", code)
		}
	})
	t.Run("asked for elsewhere", func(t *testing.T) {
		p := r.typist("web-1", "echo in")
		p.hears("https://gateway.test/console/ask?account=me&target=web-1")
		g := r.grant("me", "web-1")
		p.hears(g.ID)
		must(r.grants.Approve(t.Context(), bob, g.ID, ""))(t)
		p.hears("in\r\n")
		if code := p.ends(); code != 0 {
			t.Fatalf("exit %d:\n%s", code, p.said())
		}
		r.released()
	})
	t.Run("interrupted", func(t *testing.T) {
		p := r.typist("-o", "SetEnv=SALLYPORT_REASON=stuck", "web-1")
		p.hears("waits for approval by leads")
		fmt.Fprint(p.input, "\x03")
		p.hears("stopped waiting")
		if code := p.ends(); code != exitRefused {
			t.Fatalf("exit %d", code)
		}
		r.released()
	})
	t.Run("hung up", func(t *testing.T) {
		p := r.typist("-o", "SetEnv=SALLYPORT_REASON=stuck", "web-1")
		p.hears("waits for approval by leads")
		if n := r.grants.Waiting(); n != 1 {
			t.Errorf("%d wait", n)
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		r.nobodyWaits()
		r.released()
	})
	t.Run("no terminal, no wait", func(t *testing.T) {
		began := time.Now()
		if _, said, status := r.ssh("", "-T", "-o", "SetEnv=SALLYPORT_REASON=stuck", "web-1", "true"); status != exitRefused || !strings.Contains(said, "no live grant") {
			t.Fatalf("exit %d: %s", status, said)
		}
		if time.Since(began) > deadline/2 {
			t.Fatal("it waited")
		}
		if grants := must(r.grants.List(t.Context(), r.alice, false))(t); len(grants) != 0 {
			t.Fatalf("it asked: %+v", grants)
		}
	})
	t.Run("forwarding while it waits", func(t *testing.T) { // which was a way around the recording elsewhere
		client := must(xssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port), &xssh.ClientConfig{User: "forwarder@web-1", Auth: []xssh.AuthMethod{xssh.PublicKeys(r.signer)}, HostKeyCallback: xssh.InsecureIgnoreHostKey()}))(t)
		defer client.Close()
		s := must(client.NewSession())(t)
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		go func() { started <- s.Shell() }()
		if conn, err := client.Dial("tcp", "127.0.0.1:1"); err == nil {
			conn.Close()
			t.Fatal("a tunnel was opened without a grant")
		}
		select {
		case err := <-started:
			t.Fatalf("the shell was answered: %v", err)
		default:
		}
	})
}

// TestTerminalThatWaitedForNothing: where there is no session on the target after all, whoever has waited for it hears why.
func TestTerminalThatWaitedForNothing(t *testing.T) {
	r := newRig(t)
	off := false
	user := r.role("once", configs.SSHLimits{Multiplex: &off})
	bob := r.slow("once")
	c := r.client(user)
	first := must(c.NewSession())(t)
	second := must(c.NewSession())(t)
	heard := make(chan string, 2)
	for _, s := range []*xssh.Session{first, second} {
		if err := errors.Join(s.Setenv("SALLYPORT_REASON", "stuck"), s.RequestPty("xterm", 24, 80, nil)); err != nil {
			t.Fatal(err)
		}
		go func() {
			out, _ := s.Output("echo in") // how it ended says which of them it was, and nothing more
			heard <- string(out)
		}()
	}
	eventually(t, "both wait", func() bool { return r.grants.Waiting() == 2 })
	must(r.grants.Approve(t.Context(), bob, r.pending().ID, ""))(t)
	if both := <-heard + <-heard; !strings.Contains(both, "in\r\n") || !strings.Contains(both, "allows one session a connection") {
		t.Errorf("they heard %q", both)
	}
}

// A terminal waits for five minutes, or as long as the gateway was told, and is told then that it was not enough.
func TestTerminalDoesNotWaitForEver(t *testing.T) {
	if promptWait != 5*time.Minute {
		t.Errorf("it waits for %s", promptWait)
	}
	r := newRig(t, func(o *Options) { o.PromptWait = time.Second })
	r.slow()
	p := r.typist("-o", "SetEnv=SALLYPORT_REASON=stuck", "web-1")
	p.hears("waits for approval by leads")
	p.hears("were not enough")
	if code := p.ends(); code != exitRefused {
		t.Fatalf("exit %d", code)
	}
	r.pending() // the request stands
	r.nobodyWaits()
}

// TestWhatWaitsIsBounded: of what is asked and typed before an approval no more is kept than a client has use for.
func TestWhatWaitsIsBounded(t *testing.T) {
	for size, most := range map[int]int{1: keepAsked, 10 << 10: keepAskedBytes / (10 << 10)} {
		w, requests := &waiting{}, make(chan *xssh.Request, 1000)
		for range cap(requests) - 1 {
			requests <- &xssh.Request{Type: "env", Payload: xssh.Marshal(struct{ Name, Value string }{"LC_X", strings.Repeat("x", size)})}
		}
		requests <- &xssh.Request{Type: "shell"}
		if start := w.untilStart(requests); start == nil || start.Type != "shell" || len(w.asked) == 0 || len(w.asked) > most {
			t.Errorf("%d requests of %d bytes are kept", len(w.asked), size)
		}
	}
	w := &waiting{}
	for range 100 {
		w.take(make([]byte, 1000), nil, nil)
	}
	if len(w.typed) != keepTyped {
		t.Errorf("%d bytes of what is typed are kept", len(w.typed))
	}
}
