package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
)

// terminals is what people do on a terminal, driven by a script.
var terminals = []scenario{
	{name: "terminal/shell", run: func(ctx context.Context, s *side) (string, error) {
		return script(ctx, s, nil,
			step{send: "PS1='$ '; echo ready-$((1+1))\n", want: "ready-2"},
			step{send: "echo size $(stty size)\n", want: "size 24 80"},
			step{rows: 33, columns: 111},
			step{send: "echo size $(stty size)\n", want: "size 33 111", again: true},
			step{send: "sleep 1000\n", want: "sleep 1000"},
			step{send: "\x03echo inter''rupted\n", want: "interrupted", again: true},
			step{send: "cat\n", want: "cat"},
			step{send: "to the end\n", want: "to the end\r\nto the end"},
			step{send: "\x04echo e''of\n", want: "eof", again: true},
			step{send: "exit 9\n"},
		)
	}},
	{name: "terminal/command", run: func(ctx context.Context, s *side) (string, error) {
		return script(ctx, s, []string{"tty | sed 's/[0-9]*$//'; stty size; echo $TERM; exit 4"})
	}},
	{name: "terminal/interrupted", run: func(ctx context.Context, s *side) (string, error) {
		return script(ctx, s, []string{"trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"},
			step{want: "ready"}, step{send: "\x03", want: "caught"})
	}},
	{name: "terminal/flood-interrupted", run: func(ctx context.Context, s *side) (string, error) {
		return script(ctx, s, []string{"trap 'sleep 0.2; echo; echo caught; exit 5' INT; echo ready; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done"},
			step{want: "ready"}, step{send: "\x03", want: "caught"})
	}},
	{name: "terminal/escape", run: func(ctx context.Context, s *side) (string, error) {
		return script(ctx, s, nil, step{send: "PS1='$ '; echo ready-$((1+1))\n", want: "ready-2"}, step{send: "\n~."})
	}},
	{name: "terminal/vim", run: func(ctx context.Context, s *side) (string, error) {
		file := s.path("edited")
		text, err := script(ctx, s, []string{"vim -u NONE -N " + file},
			step{want: "~"},
			step{send: "iHello from vim\x1b", want: "Hello from vim"},
			step{rows: 40, columns: 100},
			step{send: "yyp:s/Hello/Goodbye/\n", want: "Goodbye"},
			step{send: ":wq\n"})
		if err != nil {
			return text, err
		}
		edited, err := os.ReadFile(file)
		return text + string(edited), err
	}},
	{name: "terminal/tmux", run: func(ctx context.Context, s *side) (string, error) {
		socket := fmt.Sprintf("sp-%d-%s", os.Getpid(), s.name)
		defer s.command(context.WithoutCancel(ctx), "tmux", "-L", socket, "kill-server").Run() //nolint:errcheck // it may have ended
		return script(ctx, s, []string{"exec tmux -L " + socket + " -f /dev/null new-session 'PS1=\"$ \" sh'"},
			step{want: "[0]"},
			step{send: "echo in-tmux-$((40+2))\n", want: "in-tmux-42"},
			step{send: "\x02%", want: "│"},
			step{send: "echo second-$((40+3))\n", want: "second-43", again: true},
			step{send: "\x02d", want: "detached"})
	}},
	{name: "terminal/resize-storm", run: func(ctx context.Context, s *side) (string, error) {
		steps := []step{{send: "PS1='$ '; echo ready-$((1+1))\n", want: "ready-2"}}
		for i := range 500 {
			steps = append(steps, step{rows: uint16(20 + i%50), columns: uint16(60 + i%70)})
		}
		steps = append(steps, step{rows: 50, columns: 132}, step{send: "echo size $(stty size)\n", want: "size 50 132", again: true}, step{send: "exit\n"})
		return script(ctx, s, nil, steps...)
	}},
}

// step is one thing on a terminal: change its size, type something, wait until something is shown. again: typed again
// until it is shown, as what came before may still be on its way.
type step struct {
	rows, columns uint16
	send, want    string
	again         bool
}

// script runs ssh on a terminal of 24 lines and 80 columns. What is shown depends on timing, so what is compared is that all
// was shown that was waited for, and the status.
func script(ctx context.Context, s *side, command []string, steps ...step) (string, error) {
	cmd := s.command(ctx, "ssh", append([]string{"-F", s.config, "-tt", "web-1"}, command...)...)
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		return "", err
	}
	defer terminal.Close()
	t := &screen{}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 32<<10)
		for {
			n, err := terminal.Read(buf)
			t.add(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for _, st := range steps {
		if st.rows > 0 {
			if err := pty.Setsize(terminal, &pty.Winsize{Rows: st.rows, Cols: st.columns}); err != nil {
				return "", err
			}
			continue
		}
		from := t.length()
		if _, err := terminal.WriteString(st.send); err != nil {
			return "", err
		}
		tick, last := time.NewTicker(20*time.Millisecond), time.Now()
		for st.want != "" && !strings.Contains(t.since(from), st.want) {
			select {
			case <-ctx.Done():
				tick.Stop()
				_ = cmd.Process.Kill()
				return "", fmt.Errorf("%q is not shown after %q; shown is %q", st.want, st.send, tailOf(t.since(0)))
			case err := <-ended:
				ended <- err
				<-read
				if !strings.Contains(t.since(from), st.want) {
					tick.Stop()
					return "", fmt.Errorf("ended (%v) before %q was shown; shown is %q", err, st.want, tailOf(t.since(0)))
				}
			case <-tick.C:
			}
			if st.again && time.Since(last) > 500*time.Millisecond {
				last = time.Now()
				if _, err := terminal.WriteString(st.send); err != nil {
					tick.Stop()
					return "", err
				}
			}
		}
		tick.Stop()
	}
	err = <-ended
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		return "", errors.Join(err, fmt.Errorf("shown is %q", tailOf(t.since(0))))
	}
	terminal.Close()
	<-read
	return fmt.Sprintf("%d steps, status %d\n", len(steps), cmd.ProcessState.ExitCode()), nil
}

func tailOf(s string) string { return s[max(0, len(s)-600):] }

// screen keeps what a terminal showed, the last of it.
type screen struct {
	mu      sync.Mutex
	text    []byte
	dropped int
}

func (t *screen) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - 4<<20; over > 0 {
		t.text, t.dropped = t.text[over:], t.dropped+over
	}
}

func (t *screen) length() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropped + len(t.text)
}

func (t *screen) since(from int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text[max(0, min(from-t.dropped, len(t.text))):])
}
