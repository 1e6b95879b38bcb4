//go:build unix

// Package rig is the black-box tests' way to the product: it builds the binary, starts `sallyport demo --env` with it and
// gives what that exports. It knows nothing of the product's insides; docs/rig.md is all it stands on.
package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Rig is a running one.
type Rig struct {
	// Env are the exported variables.
	Env map[string]string
	t   testing.TB
	bin string
	dir string
	cmd *exec.Cmd
	out *Output
	end chan struct{} // closed when the process has ended
}

// Output keeps what a program says, for when it fails. Several may write to it and read it at a time.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Start starts a rig with the binary and those further flags, and ends it with the test. Its state directory goes with
// the test; where the test fails, the ends of its logs are shown.
func Start(t testing.TB, binary string, flags ...string) *Rig {
	t.Helper()
	// Not t.TempDir: a database server that runs as another user must be able to pass through.
	dir, err := os.MkdirTemp("", "sallyport-rig-*")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	r := &Rig{t: t, bin: binary, dir: dir, out: &Output{}, end: make(chan struct{})}
	env := filepath.Join(dir, "env")
	r.cmd = exec.Command(binary, append([]string{"demo", "--env", env, "--state", filepath.Join(dir, "state")}, flags...)...)
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tellKeeper("began", r.cmd.Process.Pid)
	go func() {
		_ = r.cmd.Wait() // how it ended is in ProcessState
		tellKeeper("ended", r.cmd.Process.Pid)
		close(r.end)
	}()
	t.Cleanup(r.stop)
	r.Until(2*time.Minute, "the rig is ready", func() error {
		select {
		case <-r.end:
			t.Fatalf("the rig ended: %v\n%s", r.cmd.ProcessState, r.out)
		default:
		}
		_, err := os.Stat(env)
		return err
	})
	r.Env = readExports(t, env)
	return r
}

// readExports has a shell read the file, because the quoting is a shell's.
func readExports(t testing.TB, file string) map[string]string {
	t.Helper()
	shell := exec.Command("sh", "-c", `. "$1" && exec env`, "sh", file)
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
	env := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && strings.HasPrefix(name, "SALLYPORT_") {
			env[name] = value
		}
	}
	return env
}

// stop ends the rig as Ctrl-C does and removes its directory.
func (r *Rig) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	select {
	case <-r.end:
	case <-time.After(time.Minute):
		r.t.Errorf("the rig does not end:\n%s", r.out)
		_ = r.cmd.Process.Kill()
		<-r.end
	}
	log, _ := os.ReadFile(r.Path("log", "gateway.log")) // there may be none
	if bytes.Contains(log, []byte("DATA RACE")) {
		r.t.Errorf("the race detector found something in the gateway:\n%s", log)
	}
	if r.t.Failed() {
		r.t.Logf("the rig said:\n%s", r.out)
		for _, name := range []string{"demo.log", "sshd.log", "gateway.log"} {
			log, _ := os.ReadFile(r.Path("log", name)) // there may be none
			r.t.Logf("%s ends:\n%s", name, log[max(0, len(log)-6000):])
		}
	}
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Error(err)
	}
}

// Path is a path in the state directory.
func (r *Rig) Path(names ...string) string {
	return filepath.Join(append([]string{r.dir, "state"}, names...)...)
}

// Until tries something until it works or patience ends, which fails the test with what the rig and the gateway said.
func (r *Rig) Until(patience time.Duration, what string, try func() error) {
	r.t.Helper()
	Until(r.t, patience, what, try)
}

// Until tries something until it works or patience ends, which fails the test.
func Until(t testing.TB, patience time.Duration, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s: %v", patience, what, err)
		}
	}
}

// Outcome is how a program ended.
type Outcome struct {
	Stdout, Stderr string
	Code           int
}

// Text is all that was said.
func (o Outcome) Text() string { return o.Stdout + o.Stderr }

// Run runs a program with the rig's variables; its failure is an outcome.
func (r *Rig) Run(env []string, name string, args ...string) Outcome {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGCONNECT_TIMEOUT=20")
	for name, value := range r.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && ctx.Err() == nil) {
		r.t.Fatalf("%s %v: %v\n%s%s", name, args, err, &stdout, &stderr)
	}
	return Outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// As runs the command line as alice, bob or carol.
func (r *Rig) As(person string, args ...string) Outcome {
	r.t.Helper()
	return r.Run([]string{"SALLYPORT_HOME=" + r.Env["SALLYPORT_HOME_"+strings.ToUpper(person)]}, r.bin, args...)
}

// Ask is As with --json, its result read into v; the command must succeed.
func (r *Rig) Ask(v any, person string, args ...string) {
	r.t.Helper()
	out := r.As(person, append(args, "--json")...)
	if out.Code != 0 {
		r.t.Fatalf("sallyport %v as %s: exit %d\n%s", args, person, out.Code, out.Text())
	}
	if err := json.Unmarshal([]byte(out.Stdout), v); err != nil {
		r.t.Fatalf("sallyport %v: %v\n%s", args, err, out.Stdout)
	}
}

// PSQL runs the stock psql with one of the exported connections.
func (r *Rig) PSQL(variable string, args ...string) Outcome {
	r.t.Helper()
	return r.Run(nil, "psql", append([]string{"-X", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1", r.Env[variable]}, args...)...)
}

// SSH runs the stock ssh to web-1 through the gateway.
func (r *Rig) SSH(args ...string) Outcome {
	r.t.Helper()
	return r.Run(nil, "ssh", append([]string{"-F", r.Env["SALLYPORT_SSH_CONFIG"], "-o", "BatchMode=yes", "web-1"}, args...)...)
}

// Connect is a connection with one of the exported connection strings.
func (r *Rig) Connect(ctx context.Context, variable string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return pgx.Connect(ctx, r.Env[variable])
}

// GatewayPID is the gateway's process as it runs now.
func (r *Rig) GatewayPID() (int, error) {
	data, err := os.ReadFile(r.Env["SALLYPORT_PID_FILE"])
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// EndGateway ends the gateway by a signal and waits until another one has been started in its place.
func (r *Rig) EndGateway(how os.Signal) {
	r.t.Helper()
	if err := r.endGateway(how); err != nil {
		r.t.Fatal(err)
	}
}

// KillGateway kills a gateway that may be about to kill itself, and waits until another one has been started in its place: one that was
// started after the call.
func (r *Rig) KillGateway() {
	r.t.Helper()
	for {
		err := r.endGateway(os.Kill)
		if err == nil {
			return
		}
		if !errors.Is(err, os.ErrProcessDone) { // then the next may have been started before
			r.t.Fatal(err)
		}
	}
}

// endGateway returns os.ErrProcessDone, wrapped, where another one has been started in the place of one that had ended by itself.
func (r *Rig) endGateway(how os.Signal) error {
	r.t.Helper()
	before, err := r.GatewayPID()
	if err != nil {
		return err
	}
	gateway, err := os.FindProcess(before)
	if err == nil {
		err = gateway.Signal(how)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the gateway, process %d: %w", before, err)
	}
	r.Until(time.Minute, "another gateway runs", func() error {
		now, err := r.GatewayPID()
		if err == nil && now == before {
			err = errors.New("the pid file names the one that was ended")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the gateway, process %d: %w", before, err)
	}
	return nil
}

// Ready waits until the gateway takes sessions.
func (r *Rig) Ready() {
	r.t.Helper()
	r.Until(time.Minute, "the gateway answers", func() error {
		out := r.As("alice", "whoami")
		if out.Code != 0 {
			return fmt.Errorf("whoami: %s", out.Text())
		}
		return nil
	})
}
