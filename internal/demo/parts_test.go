//go:build unix

package demo

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// partial is a demo of which nothing has been started yet.
func partial(t *testing.T) *Demo {
	t.Helper()
	t.Setenv("TMPDIR", shortDir(t))
	d := &Demo{options: Options{Out: t.Output()}, steps: &steps{out: t.Output()}}
	var err error
	if d.register, err = newRegister(ports); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.prepare(false); err != nil {
		t.Fatal(err)
	}
	return d
}

// shortDir is a directory that another user may pass through, unlike t.TempDir's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "demo-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPostgres(t *testing.T) {
	d := partial(t)
	p, err := startPostgres(t.Context(), d, filepath.Join(d.dir, "postgres"), d.port(portPostgres))
	if err != nil {
		t.Fatal(err)
	}
	d.postgres = p
	app, err := p.connect(t.Context(), d, pgAccount, pgDatabase)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(t.Context())
	var n int
	if err := app.QueryRow(t.Context(), "SELECT count(*) FROM orders").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d orders, %v", n, err)
	}
	if _, err := app.Exec(t.Context(), "CREATE ROLE other"); err == nil {
		t.Error("the account may make roles: it is not limited")
	}
	p.passwords[pgAccount] = "wrong"
	if _, err := p.connect(t.Context(), d, pgAccount, pgDatabase); err == nil {
		t.Error("any password is good")
	}
	var refused *pgconn.PgError
	plain, err := pgconn.ParseConfig("host=127.0.0.1 sslmode=disable user=app dbname=orders password=x")
	if err != nil {
		t.Fatal(err)
	}
	plain.Port = uint16(p.port)
	if _, err := pgconn.ConnectConfig(t.Context(), plain); !errors.As(err, &refused) || refused.Code != "28000" {
		t.Errorf("without TLS: %v", err)
	}
	log, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "SELECT count(*) FROM orders") {
		t.Errorf("the statement is not in the target's log:\n%s", log)
	}
	if strings.Contains(string(log), "CREATE ROLE "+pgAccount) {
		t.Error("a password is in the target's log")
	}
}

func TestSSHD(t *testing.T) {
	d := partial(t)
	dir, err := d.subdirectory("sshd")
	if err != nil {
		t.Fatal(err)
	}
	s, err := startSSHD(t.Context(), d, dir, d.port(portSSHD))
	if err != nil {
		t.Fatal(err)
	}
	d.sshd = s
	config := filepath.Join(dir, "ssh_config")
	if err := os.WriteFile(config, []byte(s.clientConfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t.Context(), plainEnvironment(), "ssh", "-F", config, "-o", "BatchMode=yes", sshTarget, "echo here; exit 5")
	if err != nil || out.stdout != "here\n" || out.code != 5 {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestLeftovers kills a demo that could clean up nothing, and has the next one do it.
func TestLeftovers(t *testing.T) {
	t.Setenv("TMPDIR", shortDir(t))
	left, err := newRegister(1)
	if err != nil {
		t.Fatal(err)
	}
	ours, foreign := filepath.Join(os.TempDir(), "ours"), filepath.Join(os.TempDir(), "foreign")
	for _, dir := range []string{ours, foreign} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := left.removeLater(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := mark(ours); err != nil {
		t.Fatal(err)
	}
	child, err := left.start("child", exec.Command("sh", "-c", "trap '' INT TERM; while :; do sleep 1; done"), syscall.SIGTERM)
	if err != nil {
		t.Fatal(err)
	}
	bystander := exec.Command("sleep", "600")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { bystander.Process.Kill(); bystander.Wait() }()
	// A process that has the number of a child now, but is not it.
	left.Children = append(left.Children, identity{Name: "gone", PID: bystander.Process.Pid, Started: "1"})
	// The owner's number with another start: a process that is gone.
	left.Owner.Started += "0"
	if err := left.save(); err != nil {
		t.Fatal(err)
	}

	next, err := newRegister(1)
	if err != nil {
		t.Fatal(err)
	}
	defer next.close()
	select {
	case <-child.done:
	case <-time.After(10 * time.Second):
		t.Error("a process that a killed demo left still runs")
	}
	if !identify("", bystander.Process.Pid).alive() {
		t.Error("a process that only has the number of a child was ended")
	}
	if _, err := os.Stat(ours); err == nil {
		t.Error("the directory is still there")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("a directory that does not bear the demo's mark was removed")
	}
	if _, err := os.Stat(left.path); err == nil {
		t.Error("the entry of the killed demo is still there")
	}
}

// TestLiveDemoIsLeftAlone runs two at once.
func TestLiveDemoIsLeftAlone(t *testing.T) {
	t.Setenv("TMPDIR", shortDir(t))
	first, err := newRegister(5)
	if err != nil {
		t.Fatal(err)
	}
	defer first.close()
	second, err := newRegister(5)
	if err != nil {
		t.Fatal(err)
	}
	defer second.close()
	if _, err := os.Stat(first.path); err != nil {
		t.Error("a running demo's entry was removed")
	}
	for _, port := range second.Ports {
		for _, taken := range first.Ports {
			if port == taken {
				t.Errorf("both have port %d", port)
			}
		}
	}
}

// TestPortsAreClaimed: a demo that has another register, as another user's has, takes none of the ports of one that lives.
func TestPortsAreClaimed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has names for it that go with the process")
	}
	d := partial(t)
	t.Setenv("TMPDIR", t.TempDir())
	for _, port := range d.register.Ports {
		if claim, err := claimPort(port); err == nil {
			claim.Close()
			t.Errorf("port %d can be had a second time", port)
		}
	}
	other, err := newRegister(ports)
	if err != nil {
		t.Fatal(err)
	}
	freed := other.Ports[0]
	if err := other.close(); err != nil {
		t.Fatal(err)
	}
	claim, err := claimPort(freed)
	if err != nil {
		t.Fatalf("the ports of a demo that has ended are still claimed: %v", err)
	}
	claim.Close()
}

// TestOnlyOwnDirectories: a directory with somebody's files in it is not taken.
func TestOnlyOwnDirectories(t *testing.T) {
	t.Setenv("TMPDIR", shortDir(t))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &Demo{options: Options{Dir: dir}}
	if err := d.makeDirectory(true); err == nil {
		t.Error("it was taken")
	}
}

func TestShellQuote(t *testing.T) {
	awkward := `it's $HOME "and" \n`
	out, err := run(t.Context(), plainEnvironment(), "sh", "-c", "x="+shellQuote(awkward)+"; printf %s \"$x\"")
	if err != nil || out.stdout != awkward {
		t.Errorf("%q, %v", out.stdout, err)
	}
}
