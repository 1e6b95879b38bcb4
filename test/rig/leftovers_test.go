//go:build unix

package rig

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// TestNothingIsLeft: a test process that is killed, or runs into its time-out, leaves neither processes nor files. What is told to the
// keeper is ended in order.
func TestNothingIsLeft(t *testing.T) {
	for name, flags := range map[string][]string{"killed": nil, "at its time-out": {"-test.timeout=1s"}} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			ended := filepath.Join(tmp, "ended-in-order")
			cmd := exec.CommandContext(t.Context(), os.Args[0], append(flags, "-test.run=^TestVictim$")...)
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "SALLYPORT_TEST_VICTIM="+ended)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var told, alone int
			said := ""
			for lines := bufio.NewScanner(out); alone == 0 && lines.Scan(); {
				said += lines.Text() + "\n"
				_, _ = fmt.Sscanf(lines.Text(), "victim's children: %d %d", &told, &alone) // other lines come before
			}
			if alone == 0 {
				t.Fatalf("the victim does not say what it started:\n%s", said)
			}
			if flags == nil {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the victim ended well")
			}
			Until(t, time.Minute, "nothing is left", func() error {
				for _, pid := range []int{told, alone} {
					if runs(pid) {
						return fmt.Errorf("process %d runs", pid)
					}
				}
				left, err := filepath.Glob(filepath.Join(tmp, "sallyport-test-*"))
				if err == nil && len(left) > 0 {
					err = errors.New(strings.Join(left, ", "))
				}
				return err
			})
			if _, err := os.Stat(ended); err != nil {
				t.Errorf("what the keeper was told of was not asked to end: %v", err)
			}
		})
	}
}

// runs tells whether a process runs. One that nobody has waited for is no more.
func runs(pid int) bool {
	state, err := exec.Command("ps", "-o", "state=", "-p", fmt.Sprint(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}

// TestVictim starts processes and makes files, and does not end by itself.
func TestVictim(t *testing.T) {
	ended := os.Getenv("SALLYPORT_TEST_VICTIM")
	if ended == "" {
		t.Skip("TestNothingIsLeft runs it")
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.MkdirTemp("", "victims-"); err != nil {
		t.Fatal(err)
	}
	told := exec.Command("sh", "-c", `trap ': >"$0"; exit' TERM; echo ready; while :; do sleep 0.1; done`, ended)
	ready, err := told.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	alone := exec.Command("sleep", "1000")
	alone.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, cmd := range []*exec.Cmd{told, alone} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ready.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	tellKeeper("began", told.Process.Pid)
	fmt.Printf("victim's children: %d %d\n", told.Process.Pid, alone.Process.Pid)
	select {}
}
