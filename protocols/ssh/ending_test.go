package ssh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/recorder"
)

// another is a user of this machine other than root with a shell, if there is one.
func another(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Skip("no /etc/passwd")
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 7 && f[2] != "0" && !locked(f[0]) && (strings.HasSuffix(f[6], "/bash") || strings.HasSuffix(f[6], "/sh")) {
			return f[0]
		}
	}
	t.Skip("no user but root has a shell here")
	return ""
}

// locked says that sshd lets nobody in as the user.
func locked(name string) bool {
	text, err := os.ReadFile("/etc/shadow")
	return err == nil && (strings.Contains("\n"+string(text), "\n"+name+":!") || !strings.Contains("\n"+string(text), "\n"+name+":"))
}

// TestCutStopsWhatIgnoresItsInput: a command without a terminal that never looks at its input is told to stop when the
// session is cut. sshd delivers signals to users' processes, but not to root's.
func TestCutStopsWhatIgnoresItsInput(t *testing.T) {
	r := newRig(t)
	me := must(user.Current())(t)
	account := configs.Account{Name: "other", User: me.Username}
	if me.Uid == "0" {
		account.User = another(t)
	}
	r.config.Targets[0].Accounts = append(r.config.Targets[0].Accounts, account)
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("other", "web-1")
	s := must(r.client("other@web-1").NewSession())(t)
	out := must(s.StdoutPipe())(t)
	if err := s.Start("echo $$; exec sleep 7777 <&- >&- 2>&-"); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid := must(strconv.Atoi(strings.TrimSpace(string(line[:n]))))(t)
	running := func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && bytes.Contains(text, []byte("7777"))
	}
	eventually(t, "the command runs", running)
	if err := r.sessions.Kill(t.Context(), r.last().ID, r.alice, "test"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command is stopped", func() bool { return !running() })
}

// TestWarning: whoever is at a terminal is told before the grant ends; a command without one sees nothing. One warning a second is due
// for two minutes, so that there is one after both run, however long that takes.
func TestWarning(t *testing.T) {
	r := newRig(t)
	var before []configs.Duration
	for second := range 120 {
		before = append(before, configs.Duration(time.Hour-time.Duration(second)*time.Second))
	}
	r.config.Targets[0].WarnBefore = before
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	g := r.grant("me", "web-1")
	warning := "sallyport: your grant " + g.ID + " ends in 5"
	plain := r.command("ssh", "me@web-1@gw", "echo ready; exec cat")
	input := must(plain.StdinPipe())(t)
	said := must(plain.StdoutPipe())(t)
	var errs bytes.Buffer
	plain.Stderr = &errs
	if err := plain.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(said, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	term := r.terminal(t, "-tt", "me@web-1@gw")
	term.send("echo rea''dy\n")
	term.expect("ready")
	was := strings.Count(term.shown(), warning)
	eventually(t, "the terminal is told", func() bool { return strings.Count(term.shown(), warning) > was })
	input.Close()
	more, err := io.ReadAll(said)
	if err := errors.Join(err, plain.Wait()); err != nil || len(more)+errs.Len() > 0 {
		t.Errorf("a command without a terminal was told %q and %q, %v", more, errs.String(), err)
	}
	term.send("exit\n")
	term.status()
}

// TestWarningsThatAreDue: each once for an end, none that was due long ago, and all anew when the end is moved.
func TestWarningsThatAreDue(t *testing.T) {
	now := time.Now()
	end := now.Add(time.Hour)
	w := newWarnings([]time.Duration{time.Minute, 5 * time.Minute, 2 * time.Hour})
	for _, step := range []struct {
		what       string
		at         time.Duration // before the end
		moved      time.Duration // by how much the end is, before that
		due, again time.Duration // what is due is told: how long before the end; when to look again
	}{
		{"at the beginning", time.Hour, 0, 0, lookTime},
		{"a while before", 5*time.Minute + 3*time.Second, 0, 0, 3 * time.Second},
		{"just in time", 5 * time.Minute, 0, 5 * time.Minute, lookTime},
		{"once more", 5*time.Minute - time.Second, 0, 0, lookTime},
		{"a little late", time.Minute - time.Second, 0, time.Minute, lookTime},
		{"when it was moved", time.Hour, time.Hour, 0, lookTime},
		{"for the new end", 5 * time.Minute, 0, 5 * time.Minute, lookTime},
		{"much too late", time.Minute - settleTime - time.Second, 0, 0, lookTime},
		{"when it is over", -time.Second, 0, 0, lookTime},
	} {
		end = end.Add(step.moved)
		due, again := w.look(end, end.Add(-step.at))
		if (step.due == 0) != (len(due) == 0) || step.due != 0 && due[0] != step.due || again != step.again {
			t.Errorf("%s: %v is due, and it looks again in %s", step.what, due, again)
		}
	}
	if due, again := w.look(time.Time{}, now); len(due) > 0 || again != lookTime {
		t.Errorf("without an end: %v, %s", due, again)
	}
}

// TestTargetsBanner is shown once, on a terminal, without what a terminal would obey.
func TestTargetsBanner(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	r.grant("me", "web-1")
	config := filepath.Join(r.dir, "sshd_config")
	text := must(os.ReadFile(config))(t)
	banner := r.write("banner", "Authorized use only\n\x1b]0;title\x07second line\n")
	port := freePort(t)
	changed := strings.Replace(string(text), fmt.Sprintf("Port %d", r.sshd.port), fmt.Sprintf("Port %d\nBanner %s", port, banner), 1)
	second := r.write("sshd_config_2", changed)
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", second)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r.config.Targets = append(r.config.Targets, configs.Target{
		Name: "talks", Kind: configs.KindSSH, Address: fmt.Sprintf("127.0.0.1:%d", port), HostKeys: r.config.Targets[0].HostKeys,
		Accounts: r.config.Targets[0].Accounts,
	})
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("me", "talks")
	eventually(t, "the second sshd listens", func() bool {
		_, _, status := r.ssh("", "me@talks@gw", "true")
		return status == 0
	})
	if _, errs, _ := r.ssh("", "me@talks@gw", "true"); strings.Contains(errs, "Authorized") {
		t.Errorf("a command's errors have the banner among them: %q", errs)
	}
	term := r.terminal(t, "-tt", "me@talks@gw")
	term.expect("Authorized use only\r\n")
	term.expect("second line\r\n")
	if strings.Contains(term.shown(), "\x1b]0;title") {
		t.Errorf("the banner gives orders to the terminal: %q", term.shown())
	}
	term.send("exit\n")
	term.status()
}

// TestMenu: what the gateway itself understands.
func TestMenu(t *testing.T) {
	r := newRig(t)
	say := func(line string) (string, string, int) { return r.ssh("", "-T", "me@gw", line) }
	out, errs, status := say("help")
	if status != 0 || !strings.Contains(out, "request ACCOUNT@TARGET") {
		t.Errorf("%q, %q, %d", out, errs, status)
	}
	for _, bad := range []string{"request", "request nonsense", "request me@nowhere 30m why", "done", "done g-nonsense", "id", "sh -c id", "request me@web-1"} {
		if out, errs, status := say(bad); status != 1 || out != "" || !strings.HasPrefix(errs, "sallyport: ") {
			t.Errorf("%s: %q, %q, status %d", bad, out, errs, status)
		}
	}
	out, errs, status = say("request me@web-1 20m looking at logs")
	if status != 0 || !strings.Contains(out, "me@web-1 for 20m0s is yours") {
		t.Fatalf("%q, %q, status %d", out, errs, status)
	}
	if out, errs, status := r.ssh("", "me@web-1@gw", "echo works"); status != 0 || out != "works\n" {
		t.Fatalf("%q, %q, status %d", out, errs, status)
	}
	if out, errs, status = say("done"); status != 0 || !strings.Contains(out, "is given back") {
		t.Errorf("%q, %q, status %d", out, errs, status)
	}
	if _, _, status := r.ssh("", "me@web-1@gw", "true"); status != 1 {
		t.Errorf("after it was given back: status %d", status)
	}
}

// TestCutIsQuick is property P2: from the end of a grant until the client's channel is closed. It prints p50 and p99.
func TestCutIsQuick(t *testing.T) {
	r := newRig(t)
	var took []time.Duration
	for range 40 {
		g := r.grant("me", "web-1")
		c := r.client("me@web-1")
		channel, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := channel.SendRequest("exec", true, xssh.Marshal(struct{ C string }{"yes"})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		go xssh.DiscardRequests(requests)
		buf := make([]byte, 64<<10)
		if _, err := channel.Read(buf); err != nil {
			t.Fatal(err)
		}
		closed := make(chan time.Time, 1)
		go func() {
			for {
				if _, err := channel.Read(buf); err != nil {
					closed <- time.Now()
					return
				}
			}
		}()
		go func() { _, _ = channel.Stderr().Read(make([]byte, 1024)) }()
		start := time.Now()
		if _, err := r.grants.Release(t.Context(), r.alice, g.ID); err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-closed:
			took = append(took, at.Sub(start))
		case <-time.After(deadline):
			t.Fatal("the channel stays open")
		}
		c.Close()
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)-1]
	t.Logf("grant ended → channel closed, %d times, output flowing: p50 %s, p99 (the longest) %s", len(took), p50, p99)
	if p99 > 5*time.Second {
		t.Errorf("p99 is %s", p99)
	}
	if info := r.ended(); info.EndReason != "grant_released" {
		t.Errorf("ended %s", info.EndReason)
	}
}

// TestWhatIsFedIsRecordedByWhatItIs: a script word for word, data by length and hash, files of the old scp and of an sftp server
// that is started by its name as files.
func TestWhatIsFedIsRecordedByWhatItIs(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	to := "me@web-1@gw"
	input := func() (whole string, counted int64) {
		for _, item := range r.items(r.ended().ID) {
			switch {
			case item.Kind == recorder.ItemInput:
				whole += string(item.Data)
			case item.Kind == recorder.ItemBulk && item.Stream == "stdin":
				counted = item.Bytes
			}
		}
		return whole, counted
	}
	script := "echo from a script\nexit 4\n"
	if out, errs, status := r.ssh(script, to, "bash", "-s"); status != 4 || out != "from a script\n" {
		t.Fatalf("%q, %q, status %d", out, errs, status)
	}
	if whole, _ := input(); whole != script {
		t.Errorf("of a script is recorded %q", whole)
	}
	if _, errs, status := r.ssh("not a script", to, "cat >/dev/null"); status != 0 {
		t.Fatalf("%q, status %d", errs, status)
	}
	if whole, counted := input(); whole != "" || counted != 12 {
		t.Errorf("of data are recorded %q and %d bytes", whole, counted)
	}
	// What looks like a copy and is more is recorded as what else it is.
	open := "C0644 9999 x\nin the open\n"
	if out, errs, status := r.ssh("echo from a script\n", to, "scp -f /nonexistent </dev/null 2>/dev/null; printf '"+strings.ReplaceAll(open, "\n", "\\n")+"'; bash"); !strings.HasSuffix(out, open+"from a script\n") {
		t.Fatalf("%q, %q, status %d", out, errs, status)
	}
	var output string
	for _, item := range r.items(r.ended().ID) {
		if item.Kind == recorder.ItemOutput {
			output += string(item.Data)
		}
	}
	if whole, _ := input(); !strings.HasSuffix(output, open+"from a script\n") || whole != "echo from a script\n" {
		t.Errorf("of more than a copy are recorded %q and %q", output, whole)
	}
	local := r.write("local", strings.Repeat("0123456789", 1000))
	sum := sha256.Sum256([]byte(strings.Repeat("0123456789", 1000)))
	for name, cmd := range map[string]*exec.Cmd{
		"scp -O":  r.command("scp", "-q", "-O", local, to+":"+filepath.Join(r.dir, "there")),
		"sftp -s": r.command("sftp", "-q", "-s", "/usr/lib/openssh/sftp-server", "-b", "-", to),
	} {
		cmd.Stdin = strings.NewReader("put " + local + " " + filepath.Join(r.dir, "there") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		files := 0
		for _, item := range r.items(r.ended().ID) {
			if item.Kind == recorder.ItemFile && item.Command == "upload" && item.Bytes == 10000 && item.Error == "" && item.SHA256 == hex.EncodeToString(sum[:]) {
				files++
			}
			if bytes.Contains(item.Data, []byte("0123456789")) {
				t.Errorf("%s: the contents are recorded: %+v", name, item)
			}
		}
		if files != 1 {
			t.Errorf("%s: %d files are recorded", name, files)
		}
	}
}
