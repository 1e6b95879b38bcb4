//go:build unix

// Package e2e has the whole product tell its story, and looks at the rig that other tests and programs stand on.
package e2e

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// TestStory is `sallyport demo --check`.
func TestStory(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), rig.Binary(t, ""), "demo", "--check")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "FAIL") || !strings.Contains(string(out), "the log is whole") {
		t.Error("it ended well without having told the whole story")
	}
}

// TestRigContract holds docs/rig.md's promises.
func TestRigContract(t *testing.T) {
	r := rig.Start(t, rig.Checked(t))

	t.Run("variables", func(t *testing.T) {
		want := []string{
			"SALLYPORT_BIN", "SALLYPORT_CA", "SALLYPORT_HOME_ALICE", "SALLYPORT_HOME_BOB", "SALLYPORT_HOME_CAROL", "SALLYPORT_ISSUER", "SALLYPORT_PASSWORDS",
			"SALLYPORT_PG", "SALLYPORT_PG_DIRECT", "SALLYPORT_PG_SUPERUSER", "SALLYPORT_PG_SUPERUSER_DIRECT", "SALLYPORT_PID_FILE",
			"SALLYPORT_SSH_CONFIG", "SALLYPORT_SSH_DIRECT_CONFIG", "SALLYPORT_STATE", "SALLYPORT_TARGET_LOG", "SALLYPORT_URL",
		}
		var got []string
		for name := range r.Env {
			got = append(got, name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("it exports\n%v\ninstead of\n%v", got, want)
		}
	})

	t.Run("the same database both ways", func(t *testing.T) {
		for through, direct := range map[string]string{"SALLYPORT_PG": "SALLYPORT_PG_DIRECT", "SALLYPORT_PG_SUPERUSER": "SALLYPORT_PG_SUPERUSER_DIRECT"} {
			const who = "SELECT current_user, current_database(), (SELECT system_identifier FROM pg_control_system())"
			a, b := r.PSQL(through, "-c", who), r.PSQL(direct, "-c", who)
			if a.Code != 0 || b.Code != 0 || a.Stdout != b.Stdout {
				t.Errorf("%s: %s\n%s: %s", through, a.Text(), direct, b.Text())
			}
		}
	})

	t.Run("databases mean what they mean straight", func(t *testing.T) {
		out := r.PSQL("SALLYPORT_PG_SUPERUSER", "-c", "CREATE DATABASE another", "-c", `\c another`, "-c", "SELECT current_database()")
		if out.Code != 0 || !strings.Contains(out.Stdout, "another") {
			t.Error(out.Text())
		}
	})

	t.Run("ssh both ways", func(t *testing.T) {
		for _, variable := range []string{"SALLYPORT_SSH_CONFIG", "SALLYPORT_SSH_DIRECT_CONFIG"} {
			out := r.Run(nil, "ssh", "-F", r.Env[variable], "-o", "BatchMode=yes", "web-1", "echo out; echo err >&2; exit 9")
			if out.Stdout != "out\n" || out.Stderr != "err\n" || out.Code != 9 {
				t.Errorf("%s: %+v", variable, out)
			}
		}
	})

	t.Run("words for programs", func(t *testing.T) { programs(t, r) })
	t.Run("the gateway comes back on its ports", func(t *testing.T) { comesBack(t, r) })
	t.Run("a drain says goodbye", func(t *testing.T) { drains(t, r) })
}

// programs checks the command line's stable words.
func programs(t *testing.T, r *rig.Rig) {
	if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT 'stable words'"); out.Code != 0 {
		t.Fatal(out.Text())
	}
	if out := r.SSH("echo stable words"); out.Code != 0 {
		t.Fatal(out.Text())
	}
	var sessions []map[string]any
	r.Until(20*time.Second, "both sessions are over", func() error {
		r.Ask(&sessions, "carol", "sessions", "--all")
		for _, s := range sessions {
			if s["ended"] == nil {
				return fmt.Errorf("session %v is open", s["id"])
			}
		}
		return nil
	})
	for _, field := range []string{"id", "identity", "target", "account", "grant", "reason", "approvers", "started", "ended", "end_reason"} {
		if _, ok := sessions[0][field]; !ok {
			t.Errorf("a session has no %q: %v", field, sessions[0])
		}
	}
	out := r.As("carol", "export", "--all", "--format", "jsonl")
	if out.Code != 0 {
		t.Fatal(out.Text())
	}
	var sql, command bool
	for line := range strings.Lines(out.Stdout) {
		var item struct{ Session, SQL, Command string }
		if err := json.Unmarshal([]byte(line), &item); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		sql = sql || item.SQL == "SELECT 'stable words'" && item.Session != ""
		command = command || item.Command == "echo stable words" && item.Session != ""
	}
	if !sql || !command {
		t.Errorf("the export lacks the statement (%v) or the command (%v):\n%s", sql, command, out.Stdout)
	}
	if out := r.As("carol", "verify"); out.Code != 0 {
		t.Errorf("verify: exit %d\n%s", out.Code, out.Text())
	}
	log, err := os.ReadFile(r.Env["SALLYPORT_TARGET_LOG"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := csv.NewReader(strings.NewReader(string(log))).ReadAll(); err != nil {
		t.Errorf("the target's log is no CSV: %v", err)
	}
	if !strings.Contains(string(log), "SELECT 'stable words'") {
		t.Error("the statement is not in the target's log")
	}
	recordings := 0
	if err := filepath.WalkDir(r.Env["SALLYPORT_STATE"], func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".srec") {
			recordings++
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if recordings < len(sessions) {
		t.Errorf("%d *.srec files for %d sessions", recordings, len(sessions))
	}
}

// comesBack kills the gateway and finds it at the same addresses, with the same grants.
func comesBack(t *testing.T, r *rig.Rig) {
	r.EndGateway(syscall.SIGKILL)
	r.Ready()
	if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT 1"); out.Code != 0 {
		t.Error(out.Text())
	}
}

// drains sends SIGTERM while a session is open: it is told why it ends, and the recording says so.
func drains(t *testing.T, r *rig.Rig) {
	conn, err := r.Connect(t.Context(), "SALLYPORT_PG")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	pid, err := r.GatewayPID()
	if err != nil {
		t.Fatal(err)
	}
	running := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT pg_sleep(300)")
		running <- err
	}()
	r.Until(20*time.Second, "the statement runs", func() error {
		if out := r.PSQL("SALLYPORT_PG_SUPERUSER_DIRECT", "-c", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(300)' AND pid <> pg_backend_pid()"); out.Stdout != "1\n" {
			return errors.New(out.Text())
		}
		return nil
	})
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-running:
		if err == nil || !strings.Contains(err.Error(), "FATAL") {
			t.Errorf("the client heard: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the session goes on after the gateway was told to end")
	}
	r.Ready()
	var sessions []map[string]any
	r.Ask(&sessions, "carol", "sessions", "--all")
	if !slices.ContainsFunc(sessions, func(s map[string]any) bool { return s["end_reason"] == "draining" }) {
		t.Errorf("no session ended because of the drain: %v", sessions)
	}
}

// TestKilledDemo kills a demo where it stands: on Linux its children die with it, and the next demo removes the rest.
func TestKilledDemo(t *testing.T) {
	tmp, err := os.MkdirTemp("", "killed-demo-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o711); err != nil {
		t.Fatal(err)
	}
	demo := func() *exec.Cmd {
		cmd := exec.Command(rig.Binary(t, ""), "demo")
		cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
		return cmd
	}
	victim := demo()
	said, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	seen, deadline := "", time.Now().Add(2*time.Minute)
	for buffer := make([]byte, 4096); !strings.Contains(seen, "Ctrl-C ends everything"); {
		n, err := said.Read(buffer)
		seen += string(buffer[:n])
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the demo did not come up: %v\n%s", err, seen)
		}
	}
	gateway := addressIn(t, seen)
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // it was killed
	if left, _ := filepath.Glob(filepath.Join(tmp, "sallyport-demo-*", "sallyport.yaml")); len(left) != 1 {
		t.Fatalf("the killed demo's directory is %v", left)
	}

	next := demo()
	next.Args = append(next.Args, "--check")
	if out, err := next.CombinedOutput(); err != nil {
		t.Fatalf("the next demo: %v\n%s", err, out)
	}
	if conn, err := net.DialTimeout("tcp", gateway, time.Second); err == nil {
		conn.Close()
		t.Error("the killed demo's gateway still listens")
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if entry.Name() != "sallyport-demo-"+strconv.Itoa(os.Getuid()) {
			t.Errorf("%s is left", entry.Name())
		}
	}
}

// addressIn finds the gateway's address in the demo's lines.
func addressIn(t *testing.T, text string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "login --gateway ")
	if !ok {
		t.Fatalf("the demo prints no gateway:\n%s", text)
	}
	u, err := url.Parse(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", u.Port())
}
