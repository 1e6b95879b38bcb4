//go:build unix

package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
)

// terminal is a program in a terminal, used by a program: what is shown is kept, what is typed is waited for.
type terminal struct {
	cmd    *exec.Cmd
	screen *os.File // our side of the terminal
	done   chan struct{}

	mu    sync.Mutex
	shown strings.Builder
	more  chan struct{} // closed and replaced when more was shown
}

func openTerminal(cmd *exec.Cmd, lines, columns uint16) (*terminal, error) {
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: lines, Cols: columns})
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	t := &terminal{cmd: cmd, screen: screen, done: make(chan struct{}), more: make(chan struct{})}
	go t.read()
	return t, nil
}

// read keeps what is shown until the program has ended and its last words are read.
func (t *terminal) read() {
	defer close(t.done)
	buffer := make([]byte, 4096)
	for {
		n, err := t.screen.Read(buffer)
		t.mu.Lock()
		t.shown.Write(buffer[:n])
		close(t.more)
		t.more = make(chan struct{})
		t.mu.Unlock()
		if err != nil { // EIO once the program has closed the terminal
			_ = t.cmd.Wait() // how it ended is in ProcessState
			return
		}
	}
}

// text is everything shown so far.
func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.String()
}

// enter types text and waits until each of the answers has been shown since.
func (t *terminal) enter(text string, answers ...string) error {
	before := len(t.text())
	if _, err := t.screen.WriteString(text); err != nil {
		return fmt.Errorf("type %q: %w", text, err)
	}
	deadline := time.After(20 * time.Second)
	for _, answer := range answers {
		for {
			t.mu.Lock()
			shown, more := t.shown.String(), t.more
			t.mu.Unlock()
			if strings.Contains(shown[before:], answer) {
				break
			}
			select {
			case <-more:
			case <-t.done:
				return fmt.Errorf("the program ended before it showed %q:\n%s", answer, t.text())
			case <-deadline:
				return fmt.Errorf("%q was not shown:\n%s", answer, t.text())
			}
		}
	}
	return nil
}

func (t *terminal) resize(lines, columns uint16) error {
	return pty.Setsize(t.screen, &pty.Winsize{Rows: lines, Cols: columns})
}

// wait waits for the program's end and returns its exit code.
func (t *terminal) wait(ctx context.Context, patience time.Duration) (int, error) {
	select {
	case <-t.done:
		return t.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return -1, fmt.Errorf("the program in the terminal still runs after %s:\n%s", patience, t.text())
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// close ends the program if it still runs.
func (t *terminal) close() {
	_ = t.cmd.Process.Kill() // it may be gone
	<-t.done
	t.screen.Close()
}
