//go:build unix

package rig

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// Main runs the tests of a package. All that they put into the system's directory for temporary files goes into one directory of the
// test process, and however that process ends, by itself, at a time-out or killed, a keeper sees to it that nothing is left: it ends
// the rigs in order, ends what else the tests started, and removes the directory.
func Main(m *testing.M) {
	if dir := os.Getenv(keeperVariable); dir != "" {
		keep(dir, os.Stdin)
		os.Exit(0)
	}
	// A program with the race detector in it waits a second before it ends, in case another thread still does something wrong;
	// the tests run hundreds.
	if os.Getenv("GORACE") == "" {
		if err := os.Setenv("GORACE", "atexit_sleep_ms=50"); err != nil {
			panic(err)
		}
	}
	finish, err := startKeeper()
	if err != nil {
		fmt.Fprintln(os.Stderr, "keep the tests' directory:", err)
		os.Exit(1)
	}
	code := m.Run()
	finish()
	os.Exit(code)
}

// keeperVariable has the name of the directory, in the keeper's environment alone.
const keeperVariable = "SALLYPORT_TEST_KEEPER"

// toKeeper takes lines: "began PID" for a rig that is to be ended in order, and "ended PID". It is nil where the tests do not run
// in Main.
var toKeeper io.Writer

func tellKeeper(what string, pid int) {
	if toKeeper != nil {
		fmt.Fprintln(toKeeper, what, pid) // a keeper that is gone keeps nothing
	}
}

// startKeeper makes the directory and starts the test's own program a second time, as its keeper, which learns from the end of a pipe
// that the test process is no more.
func startKeeper() (finish func(), err error) {
	dir, err := os.MkdirTemp("", "sallyport-test-*")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // a database server that runs as another user passes through
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), keeperVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what ends the tests by a key is not for the keeper
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	toKeeper = in
	return func() {
		in.Close()
		_ = cmd.Wait()
	}, os.Setenv("TMPDIR", dir)
}

// keep is the keeper.
func keep(dir string, in io.Reader) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	rigs := map[int]bool{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var what string
		var pid int
		if _, err := fmt.Sscan(lines.Text(), &what, &pid); err != nil || pid <= 0 {
			continue
		}
		rigs[pid] = what == "began"
		if what == "ended" {
			delete(rigs, pid)
		}
	}
	for pid := range rigs {
		_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && len(rigs) > 0; time.Sleep(20 * time.Millisecond) {
		for pid := range rigs {
			if syscall.Kill(pid, 0) != nil {
				delete(rigs, pid)
			}
		}
	}
	// What still runs with this directory as its own is of no use to anybody. It may make files until it has ended.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := startedIn(dir)
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		unmountIn(dir)
		err := os.RemoveAll(dir) //nolint:gosec // the name is Main's own
		if err == nil && len(left) == 0 || time.Now().After(end) {
			return
		}
	}
}
