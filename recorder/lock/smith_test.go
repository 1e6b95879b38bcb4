package lock

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"sallyport/recorder/format"
)

// TestMain lets the test's own binary be the process that makes keys.
func TestMain(m *testing.M) {
	if os.Getenv("MAKE_KEYS") != "" {
		if err := Make(os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func newTestSmith() *Smith {
	return &Smith{Command: func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = []string{"MAKE_KEYS=1"}
		return cmd
	}}
}

// TestSmith: keys from another process are all different, each opens by its recipient's identity and by no other
// session's name, also when many ask at once for more than one process makes.
func TestSmith(t *testing.T) {
	smith := newTestSmith()
	defer smith.Close()
	one, _ := age.GenerateX25519Identity()
	recipients := []string{one.Recipient().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for i := range 3 * batch {
		wg.Go(func() {
			session := "s" + strings.Repeat("x", i)
			key, locked, err := smith.New(t.Context(), session, recipients)
			if err != nil {
				t.Error(err)
				return
			}
			key.Release()
			opened, err := Open(format.Header{Session: session, Lock: locked}, one)
			if err != nil {
				t.Error(err)
				return
			}
			opened.Release()
			mu.Lock()
			defer mu.Unlock()
			seen[string(locked.Check)+string(locked.Key)] = true
		})
	}
	wg.Wait()
	if len(seen) != 3*batch {
		t.Errorf("%d different keys", len(seen))
	}
}

// TestSmithFails: without keys there is an error that says why, and no session; it is tried again by the next.
func TestSmithFails(t *testing.T) {
	smith := newTestSmith()
	if _, _, err := smith.New(t.Context(), "s1", []string{"age1nonsense"}); err == nil || !strings.Contains(err.Error(), "no age recipient") {
		t.Errorf("%v", err)
	}
	good := smith.Command
	smith.Command = func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, "/no/such/program") }
	one, _ := age.GenerateX25519Identity()
	recipients := []string{one.Recipient().String()}
	if _, _, err := smith.New(t.Context(), "s1", recipients); err == nil {
		t.Error("a key from nowhere")
	}
	smith.Command = good
	if _, _, err := smith.New(t.Context(), "s1", recipients); err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	smith.Close()
	if _, _, err := smith.New(ended, "s2", recipients); err == nil {
		t.Error("somebody who is gone was waited for")
	}
}
