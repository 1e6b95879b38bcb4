package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	xssh "golang.org/x/crypto/ssh"

	"sallyport/recorder"
	"sallyport/session"
)

func TestExec(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			to := form.to("me", "web-1")
			for _, status := range []int{0, 1, 2, 5, 127, 254, 255} {
				out, errs, got := r.ssh("", to, fmt.Sprintf("echo out; echo err >&2; exit %d", status))
				if out != "out\n" || errs != "err\n" || got != status {
					t.Errorf("stdout %q, stderr %q, status %d, want %d", out, errs, got, status)
				}
			}
			if out, _, _ := r.ssh("abc", to, "cat; echo after"); out != "abcafter\n" {
				t.Errorf("after the end of input: %q", out)
			}
			if _, errs, status := r.ssh("", to, "exec >&- 2>&-; sleep 0.3; exit 7"); status != 7 {
				t.Errorf("output that ends before the command: status %d, %q", status, errs)
			}
			if _, errs, status := r.ssh("", to, "kill -TERM $$"); status != 255 {
				t.Errorf("killed by a signal: status %d, %q", status, errs)
			}
			if out, _, _ := r.ssh("", to, `echo "$LANG,$LD_PRELOAD_TEST"`); out != "C.UTF-8,\n" {
				t.Errorf("environment: %q", out)
			}
		})
	}
}

// TestLongOutput: nothing of the output is lost, and the exit status comes with it, again and again.
func TestLongOutput(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	const size = 3_000_000
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			for range 6 {
				out, errs, status := r.ssh("", form.to("me", "web-1"), fmt.Sprintf("head -c %d /dev/zero; exit 5", size))
				if len(out) != size || status != 5 {
					t.Fatalf("%d bytes, status %d, %s", len(out), status, errs)
				}
			}
			_, errs, status := r.ssh("", form.to("me", "web-1"), fmt.Sprintf("exec >&-; head -c %d /dev/zero >&2; exit 6", size))
			if len(errs) != size || status != 6 {
				t.Fatalf("on stderr: %d bytes, status %d", len(errs), status)
			}
		})
	}
}

// TestShortCommands: OpenSSH says that no more sessions will come right after it has asked for one.
func TestShortCommands(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	for i := range 25 {
		if out, errs, status := r.ssh("", "me@web-1@gw", fmt.Sprintf("echo %d; exit %d", i, i)); out != fmt.Sprintf("%d\n", i) || status != i {
			t.Fatalf("%d: %q, status %d, %s", i, out, status, errs)
		}
	}
}

// TestExitStatusDoesNotWaitForTheEndOfOutput: a background process keeps the output open.
func TestExitStatusDoesNotWaitForTheEndOfOutput(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	channel, requests, err := r.client("me@web-1").OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := channel.SendRequest("exec", true, xssh.Marshal(struct{ C string }{"sleep 300 & echo $!; exit 7"})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	timeout := time.After(deadline)
	for {
		select {
		case q, ok := <-requests:
			if !ok {
				t.Fatal("closed without an exit status")
			}
			if q.Type != "exit-status" {
				continue
			}
			var status struct{ Code uint32 }
			if err := xssh.Unmarshal(q.Payload, &status); err != nil || status.Code != 7 {
				t.Fatalf("%v, status %d", err, status.Code)
			}
			pid := make([]byte, 20)
			n, _ := channel.Read(pid) // what came before the status is here
			if n == 0 {
				t.Fatal("the exit status came before the output")
			}
			if out, err := exec.Command("kill", strings.TrimSpace(string(pid[:n]))).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v", out, err)
			}
			return
		case <-timeout:
			t.Fatal("the exit status waits for a background process")
		}
	}
}

func TestReaderThatLeavesEndsTheWriter(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			out, err := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("ssh -F %s/config %s yes | head -1", r.dir, form.to("me", "web-1"))).Output()
			if err != nil || string(out) != "y\n" {
				t.Fatalf("%q, %v", out, err)
			}
		})
	}
}

// terminal runs a stock client on a terminal and collects what is shown.
type terminal struct {
	t    *testing.T
	file *os.File
	cmd  *exec.Cmd
	done chan error

	mu   sync.Mutex
	text strings.Builder
}

func (r *rig) terminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	cmd := r.command("ssh", args...)
	f := must(pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80}))(t)
	term := &terminal{t: t, file: f, cmd: cmd, done: make(chan error, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			term.mu.Lock()
			term.text.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		err := cmd.Wait()
		<-read
		term.done <- err
	}()
	t.Cleanup(func() { cmd.Process.Kill(); f.Close() })
	return term
}

func (term *terminal) shown() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.text.String()
}

func (term *terminal) send(s string) {
	term.t.Helper()
	if _, err := term.file.WriteString(s); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) expect(s string) {
	term.t.Helper()
	for end := time.Now().Add(deadline); !strings.Contains(term.shown(), s); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			term.t.Fatalf("%q is not shown; shown is %q", s, term.shown())
		}
	}
}

// status waits for the client's end.
func (term *terminal) status() int {
	term.t.Helper()
	select {
	case <-term.done:
		return term.cmd.ProcessState.ExitCode()
	case <-time.After(deadline):
		term.t.Fatalf("the client does not end; shown is %q", term.shown())
		return 0
	}
}

func TestShellOnATerminal(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			term := r.terminal(t, "-tt", form.to("me", "web-1"))
			term.send("echo size=$(stty size) term=$TERM.\n")
			term.expect("size=24 80 term=")
			if err := pty.Setsize(term.file, &pty.Winsize{Rows: 33, Cols: 111}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the terminal's size changes", func() bool {
				term.send("echo size=$(stty size).\n")
				return strings.Contains(term.shown(), "size=33 111.")
			})
			term.send("stty -echo; echo sec''ret; read x; stty echo; echo length=${#x}\n")
			term.expect("secret\r\n")
			term.send("opensesame\n")
			term.expect("length=10")
			term.send("sh -c \"echo slee''ping; exec sleep 100\"\n")
			term.expect("sleeping")
			term.send("\x03") // once: it throws away what was typed before and is not read yet
			eventually(t, "interrupting", func() bool {
				term.send("echo inter''rupted\n")
				return strings.Contains(term.shown(), "interrupted")
			})
			term.send("exit 9\n")
			if status := term.status(); status != 9 {
				t.Errorf("status %d", status)
			}
			info := r.ended()
			if info.EndReason != session.EndClientClosed {
				t.Errorf("ended %s", info.EndReason)
			}
			var shell, resized, exited bool
			for _, item := range r.items(info.ID) {
				switch item.Kind {
				case recorder.ItemCommand:
					shell = shell || item.Via == "shell" && item.Columns == 80 && item.Lines == 24 && item.Terminal != ""
				case recorder.ItemResize:
					resized = item.Columns == 111 && item.Lines == 33
				case recorder.ItemExit:
					exited = item.ExitStatus != nil && *item.ExitStatus == 9
				}
				if bytes.Contains(item.Data, []byte("opensesame")) {
					t.Errorf("a password that was not echoed is recorded: %+v", item)
				}
			}
			if !shell || !resized || !exited {
				t.Errorf("recorded: shell %v, resize %v, exit %v", shell, resized, exited)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	c := r.client("me@web-1")
	var exit *xssh.ExitError
	if err := must(c.NewSession())(t).Run("kill -TERM $$"); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("a command killed by a signal ended with %v", err)
	}
	s := must(c.NewSession())(t)
	out := must(s.StdoutPipe())(t)
	must(s.StdinPipe())(t) // never written to: the command waits, and ends with its connection
	if err := s.Start("echo ready; exec cat"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(xssh.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // root's sessions get no signals from sshd, which says so when it is asked
		eventually(t, "sshd gets the signal", func() bool {
			log, err := os.ReadFile(r.sshd.log)
			return err == nil && bytes.Contains(log, []byte("signalling requires privilege separation"))
		})
		return
	}
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("a command that was sent a signal ended with %v", err)
	}
}

func TestManySessionsOnOneConnection(t *testing.T) {
	r := newRig(t)
	g := r.grant("me", "web-1")
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			control, to := filepath.Join(r.dir, "mux-"+form.name), form.to("me", "web-1")
			master := r.command("ssh", "-M", "-N", "-S", control, to)
			if err := master.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { master.Process.Kill(); master.Wait() })
			eventually(t, "the master is up", func() bool { return r.command("ssh", "-S", control, "-O", "check", to).Run() == nil })
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					out, errs, status := r.ssh(fmt.Sprint("in", i), "-S", control, to, fmt.Sprintf("cat; echo; exit %d", i))
					if out != fmt.Sprintf("in%d\n", i) || status != i {
						t.Errorf("%d: %q, status %d, %s", i, out, status, errs)
					}
				})
			}
			all.Wait()
			if n := r.sessions.Live(); n != 1 {
				t.Errorf("%d sessions for one connection", n)
			}
			commands := 0
			id := r.last().ID
			if out, err := r.command("ssh", "-S", control, "-O", "exit", to).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v", out, err)
			}
			r.ended()
			for _, item := range r.items(id) {
				if item.Kind == recorder.ItemCommand {
					commands++
				}
			}
			if commands != 8 {
				t.Errorf("%d commands recorded", commands)
			}
		})
	}
	// A connection outlives no grant.
	c := r.client("me@web-1")
	if out, err := must(c.NewSession())(t).Output("echo yes"); err != nil || string(out) != "yes\n" {
		t.Fatalf("%q, %v", out, err)
	}
	under := must(c.NewSession())(t)
	must(under.StdinPipe())(t) // never written to
	if err := under.Start("cat"); err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(r.dir, "mux-cut")
	master := r.command("ssh", "-M", "-N", "-S", control, "me@web-1@gw")
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Process.Kill() })
	eventually(t, "the master is up", func() bool { return r.command("ssh", "-S", control, "-O", "check", "me@web-1@gw").Run() == nil })
	slave := r.terminal(t, "-tt", "-S", control, "me@web-1@gw")
	slave.send("echo $((6*7)).\n")
	slave.expect("42.")
	must(r.grants.Release(t.Context(), r.alice, g.ID))(t)
	var exit *xssh.ExitError
	if err := under.Wait(); !errors.As(err, &exit) || exit.Signal() != "HUP" || !strings.Contains(exit.Msg(), g.ID) {
		t.Errorf("a command was told %v", err)
	}
	slave.expect("sallyport: ")
	if status := slave.status(); status != 255 || !strings.Contains(slave.shown(), g.ID) {
		t.Errorf("on a shared connection: status %d, shown %q", status, slave.shown())
	}
	if err := master.Wait(); err == nil {
		t.Error("the master of a shared connection was told nothing")
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case <-ended:
	case <-time.After(deadline):
		t.Fatal("the connection outlives its grant")
	}
}

func TestCopying(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	content := make([]byte, 3_000_000)
	rand.Read(content)
	local := r.write("local", string(content))
	same := func(t *testing.T, path string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			to, dir := form.to("me", "web-1"), t.TempDir()
			for name, args := range map[string][]string{"sftp": {"-q"}, "legacy": {"-q", "-O"}} {
				there, back := filepath.Join(dir, name+"-there"), filepath.Join(dir, name+"-back")
				if out, err := r.command("scp", append(args, local, to+":"+there)...).CombinedOutput(); err != nil {
					t.Fatalf("scp to: %s: %v", out, err)
				}
				same(t, there)
				if out, err := r.command("scp", append(args, to+":"+there, back)...).CombinedOutput(); err != nil {
					t.Fatalf("scp from: %s: %v", out, err)
				}
				same(t, back)
			}
			there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
			batch := fmt.Sprintf("put %s %s\nget %s %s\nmkdir %s/made\nrename %s %s.renamed\nrm %s.renamed\n-rm %s/none\n", local, there, there, back, dir, there, there, there, dir)
			sftp := r.command("sftp", "-q", "-b", "-", to)
			sftp.Stdin = strings.NewReader(batch)
			if out, err := sftp.CombinedOutput(); err != nil {
				t.Fatalf("sftp: %s: %v", out, err)
			}
			same(t, back)
			var done []string
			for _, item := range r.items(r.ended().ID) {
				if item.Kind == recorder.ItemFile {
					done = append(done, strings.TrimSpace(fmt.Sprintf("%s %s %d %s", item.Command, strings.TrimPrefix(item.Path, dir), item.Bytes, item.Error)))
					if sum := sha256.Sum256(content); item.Bytes > 0 && item.SHA256 != hex.EncodeToString(sum[:]) {
						t.Errorf("the hash of %s is %q %v", item.Path, item.SHA256, item.Fields)
					}
				}
				if len(item.Data) > 100_000 {
					t.Errorf("contents of files are recorded: %s of %d bytes", item.Kind, len(item.Data))
				}
			}
			want := "upload /there 3000000; download /there 3000000; mkdir /made 0; rename /there 0; remove /there.renamed 0; remove /none 0 no such file"
			if got := strings.Join(done, "; "); got != want {
				t.Errorf("recorded %s\nwant     %s", got, want)
			}
		})
	}
}

// TestRsyncIsRecorded: with its direction, its path and how much it was; its protocol says no more in the clear.
func TestRsyncIsRecorded(t *testing.T) {
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Skip("rsync is not installed")
	}
	r := newRig(t)
	r.grant("me", "web-1")
	content := make([]byte, 300_000)
	rand.Read(content)
	local, there, back := r.write("local", string(content)), filepath.Join(r.dir, "there"), filepath.Join(r.dir, "back")
	for _, test := range []struct{ from, to, verb string }{{local, "web-1:" + there, "upload"}, {"web-1:" + there, back, "download"}} {
		cmd := r.command("rsync", "-e", "ssh -F "+filepath.Join(r.dir, "config"), test.from, test.to)
		cmd.Args = append(cmd.Args[:1], cmd.Args[3:]...) // without -F
		if out, errs, status := run(t, cmd, ""); status != 0 {
			t.Fatalf("%s: %q, %q, status %d", test.verb, out, errs, status)
		}
		files := 0
		for _, item := range r.items(r.ended().ID) {
			if item.Kind == recorder.ItemFile && item.Command == test.verb && item.Path == there && item.Fields["via"] == "rsync" && item.Bytes > int64(len(content)) {
				files++
			}
		}
		if files != 1 {
			t.Errorf("%s: %d files are recorded", test.verb, files)
		}
	}
	if got := must(os.ReadFile(back))(t); !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back", len(got))
	}
}

func TestRefusalWithoutAGrant(t *testing.T) {
	r := newRig(t)
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			to := form.to("me", "web-1")
			for name, args := range map[string][]string{"exec": {to, "id"}, "shell": {"-T", to}} {
				out, errs, status := r.ssh("", args...)
				if out != "" || status != 1 || !strings.Contains(errs, "sallyport request me@web-1 ") || strings.Count(errs, "\n") != 1 {
					t.Errorf("%s: stdout %q, stderr %q, status %d", name, out, errs, status)
				}
			}
			// Somebody at a terminal is let wait, and can stop.
			term := r.terminal(t, "-tt", to)
			term.expect("no live grant for me@web-1 yet")
			term.send("\x03")
			if status := term.status(); status != 1 {
				t.Errorf("on a terminal: status %d", status)
			}
			sftp := r.command("sftp", "-q", "-b", "-", to)
			if _, errs, status := run(t, sftp, "ls\n"); status == 0 || !strings.Contains(errs, "sallyport request me@web-1 ") {
				t.Errorf("sftp: stderr %q, status %d", errs, status)
			}
		})
	}
	if n := len(must(r.sessions.List(t.Context(), true))(t)); n != 0 {
		t.Errorf("%d sessions without a grant", n)
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	r.grant("me", "changed")
	r.grant("me", "down")
	for name, test := range map[string]struct {
		args   []string
		words  string
		status int
	}{
		"no such target":         {[]string{"me@nowhere@gw", "id"}, "there is no target", 1},
		"no such account":        {[]string{"you@web-1@gw", "id"}, "has no account", 1},
		"another protocol":       {[]string{"me@orders@gw", "id"}, "orders is not an SSH target", 1},
		"command, but no target": {[]string{"me@gw", "id"}, "which target?", 1},
		"changed key":            {[]string{"me@changed@gw", "id"}, "its host key is not the one that is pinned", 255},
		"changed key, by jump":   {[]string{"me@changed", "id"}, "its host key is not the one that is pinned", 255},
		"target is down":         {[]string{"me@down@gw", "id"}, "target down can't be reached", 255},
		"jump elsewhere":         {[]string{"me@elsewhere", "id"}, "administratively prohibited", 255},
		"tunnel of a jump":       {[]string{"-W", "127.0.0.1:1", "me@gw"}, "administratively prohibited", 255},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, status := r.ssh("", test.args...)
			if out != "" || status != test.status || !strings.Contains(errs, test.words) {
				t.Errorf("stdout %q, stderr %q, status %d", out, errs, status)
			}
		})
	}
	if info := r.ended(); info.EndReason != session.EndTargetFailed {
		t.Errorf("ended %s: %s", info.EndReason, info.EndDetail)
	}
}

func TestGreeting(t *testing.T) {
	r := newRig(t)
	g := r.grant("me", "web-1")
	out, errs, status := r.ssh("", "-T", "me@gw")
	for _, word := range []string{"Alice Example", "me@web-1", g.ID, "forwarder@web-1", "sallyport request"} {
		if !strings.Contains(out, word) {
			t.Errorf("%q is missing from %q", word, out)
		}
	}
	if status != 0 || errs != "" {
		t.Errorf("status %d, stderr %q", status, errs)
	}
	term := r.terminal(t, "-tt", "me@gw")
	term.expect("Signed in as Alice Example (alice@example.com) until ")
	term.expect("\r\nConnect with:")
	if status := term.status(); status != 0 {
		t.Errorf("on a terminal: status %d", status)
	}
}

func TestPlainKeysAreToldToSignIn(t *testing.T) {
	r := newRig(t)
	key, err := os.ReadFile(filepath.Join(r.dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	plain := r.write("plain", string(key))
	cmd := r.command("ssh")
	cmd.Args = []string{"ssh", "-F", "none", "-i", plain, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "HostKeyAlias=" + gatewayHost,
		"-o", "UserKnownHostsFile=" + filepath.Join(r.dir, "known_hosts"), "-p", fmt.Sprint(r.port), "me@web-1@127.0.0.1", "id"}
	_, errs, status := run(t, cmd, "")
	if status != 255 || !strings.Contains(errs, "sallyport login") || strings.Count(errs, "sallyport login") != 1 {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}

func TestCutTellsTheUser(t *testing.T) {
	r := newRig(t)
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			g := r.grant("me", "web-1")
			to := form.to("me", "web-1")
			term := r.terminal(t, "-tt", to)
			term.send("echo $((6*7)).\n")
			term.expect("42.")
			silent := r.command("ssh", to, "echo ready; exec cat")
			must(silent.StdinPipe())(t) // never written to
			var errs bytes.Buffer
			silent.Stderr = &errs
			out := must(silent.StdoutPipe())(t)
			if err := silent.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			must(r.grants.Release(t.Context(), r.alice, g.ID))(t)
			term.expect("sallyport: ")
			if status := term.status(); status != 255 || !strings.Contains(term.shown(), g.ID) {
				t.Errorf("status %d, shown %q", status, term.shown())
			}
			if err := silent.Wait(); err == nil || silent.ProcessState.ExitCode() != 255 || !strings.Contains(errs.String(), "sallyport: ") {
				t.Errorf("without a terminal: %v, stderr %q", err, errs.String())
			}
			if info := r.ended(); info.EndReason != "grant_released" {
				t.Errorf("ended %s", info.EndReason)
			}
		})
	}
}

// TestCutDoesNotWaitForAStoppedClient: a client that reads nothing cannot hold its session open.
func TestCutDoesNotWaitForAStoppedClient(t *testing.T) {
	r := newRig(t)
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			g := r.grant("me", "web-1")
			cmd := r.command("ssh", form.to("me", "web-1"), "echo $$; exec yes")
			out := must(cmd.StdoutPipe())(t) // read once, then never again
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			must(r.grants.Release(t.Context(), r.alice, g.ID))(t)
			began := time.Now()
			r.ended()
			eventually(t, "no session is live", func() bool { return r.sessions.Live() == 0 })
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// TestClientThatDies: what it ran is told.
func TestClientThatDies(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			term := r.terminal(t, "-tt", form.to("me", "web-1"))
			hup := filepath.Join(r.dir, "hup-"+form.name)
			term.send(fmt.Sprintf("exec sh -c 'trap \"touch %s; exit\" HUP; echo tra\"\"pped; while :; do sleep 1; done'\n", hup))
			term.expect("trapped")
			term.cmd.Process.Kill()
			eventually(t, "the shell gets a HUP", func() bool { _, err := os.Stat(hup); return err == nil })
			if info := r.ended(); info.EndReason != session.EndClientClosed {
				t.Errorf("ended %s", info.EndReason)
			}
		})
	}
}

// TestTargetThatIsLost: the user is told, and the recording says so.
func TestTargetThatIsLost(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			_, errs, status := r.ssh("", form.to("me", "web-1"), "kill -9 $PPID; read forever")
			if status != 255 || !strings.Contains(errs, "sallyport: the connection to web-1 was lost") {
				t.Errorf("status %d, stderr %q", status, errs)
			}
			if info := r.ended(); info.EndReason != session.EndTargetClosed {
				t.Errorf("ended %s", info.EndReason)
			}
		})
	}
}

// TestKeysAreChangedUnderWay: both ends change keys while much goes both ways, and the client asks whether the server lives.
func TestKeysAreChangedUnderWay(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	content := make([]byte, 8_000_000)
	rand.Read(content)
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			out, errs, status := r.ssh(string(content), "-o", "RekeyLimit=1M", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1",
				form.to("me", "web-1"), "cat; sleep 2.5")
			if out != string(content) || status != 0 {
				t.Errorf("%d bytes, status %d, %s", len(out), status, errs)
			}
		})
	}
}

func TestForwarding(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	r.grant("forwarder", "web-1")
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	echo(t, l)
	for name, test := range map[string]struct {
		user, address string
		allowed       bool
	}{
		"not allowed":           {"me@web-1", l.Addr().String(), false},
		"allowed":               {"forwarder@web-1", l.Addr().String(), true},
		"to a target's sshd":    {"forwarder@web-1", fmt.Sprintf("127.0.0.1:%d", r.sshd.port), false},
		"to a target by name":   {"forwarder@web-1", "web-1:22", false},
		"to the target's own":   {"forwarder@web-1", "localhost:22", false},
		"to an alias":           {"forwarder@web-1", "web.example:22", false},
		"to the gateway itself": {"forwarder@web-1", fmt.Sprintf("127.0.0.1:%d", r.port), true}, // cut at its banner
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := r.client(test.user).Dial("tcp", test.address)
			if (err == nil) != test.allowed {
				t.Fatal(err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "prohibited") {
					t.Error(err)
				}
				return
			}
			defer conn.Close()
			_, written := conn.Write([]byte("ping"))
			ended := conn.(interface{ CloseWrite() error }).CloseWrite()
			got, _ := io.ReadAll(conn)
			want := "ping"
			if name == "to the gateway itself" {
				want = ""
			} else if written != nil || ended != nil {
				t.Fatal(written, ended)
			}
			if string(got) != want {
				t.Errorf("%q came back", got)
			}
		})
	}
	c := r.client("forwarder@web-1")
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		t.Error("forwarding from the target is passed on")
	}
	s := must(c.NewSession())(t)
	for _, request := range []string{"x11-req", "auth-agent-req@openssh.com"} {
		if ok, err := s.SendRequest(request, true, nil); ok || err != nil {
			t.Errorf("%s: %v, %v", request, ok, err)
		}
	}
}

func TestChannelsAreBounded(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	c := r.client("me@web-1")
	var last xssh.Channel
	for i := range maxChannels {
		channel, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatalf("channel %d: %v", i, err)
		}
		go xssh.DiscardRequests(requests)
		last = channel
	}
	for range 5 {
		var refused *xssh.OpenChannelError
		if _, _, err := c.OpenChannel("session", nil); !errors.As(err, &refused) || refused.Reason != xssh.ResourceShortage {
			t.Fatalf("one more: %v", err)
		}
	}
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room again", func() bool {
		_, _, err := c.OpenChannel("session", nil)
		return err == nil
	})
}

func TestCommandsAreRecorded(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	command := "printf 'caf\\303\\251' # \x01 and a line\nexit 3"
	if out, _, status := r.ssh("some input that is long enough", "me@web-1", command); out != "café" || status != 3 {
		t.Fatalf("%q, %d", out, status)
	}
	info := r.ended()
	var text string
	var exit *int
	said := 0
	for _, item := range r.items(info.ID) {
		switch item.Kind {
		case recorder.ItemCommand:
			if item.Command == command && item.Via == "exec" {
				said++
			}
		case recorder.ItemOutput:
			text += item.Text
		case recorder.ItemExit:
			exit = item.ExitStatus
		}
	}
	if said != 1 || text != "café" || exit == nil || *exit != 3 {
		t.Errorf("recorded %d times, output %q, exit %v", said, text, exit)
	}
	log, err := os.ReadFile(r.sshd.log)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("alice@example.com sess=%s grant=%s", info.ID, info.Grant); !strings.Contains(string(log), want) {
		t.Errorf("the target's own log does not name %q", want)
	}
}
