package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// openssh is what the stock client does with commands.
var openssh = []scenario{
	{name: "ssh/exec", run: func(ctx context.Context, s *side) (string, error) {
		return s.all(ctx, "some input\n", "true", "cat", "echo out; echo err >&2; exit 7", "nosuchcommand-here", "exit 255", "", "printf '\\000\\001\\377\\r\\n'",
			"cat >/dev/null; echo after the end of input", "echo "+strings.Repeat("x", 60000)+" | wc -c")
	}},
	{name: "ssh/exit-statuses", run: func(ctx context.Context, s *side) (string, error) {
		var commands []string
		for i := range 20 {
			commands = append(commands, fmt.Sprintf("exit %d", i*13))
		}
		return s.all(ctx, "", commands...)
	}},
	{name: "ssh/exit-signal", run: func(ctx context.Context, s *side) (string, error) {
		return s.all(ctx, "", "kill -TERM $$", "kill -KILL $$", "kill -HUP $$")
	}},
	{name: "ssh/shell-without-terminal", run: func(ctx context.Context, s *side) (string, error) {
		h, err := s.ssh(ctx, "echo one; tty; echo two >&2\nexit 5\n", "-T", "web-1")
		return h.String(), err
	}},
	{name: "ssh/environment", run: func(ctx context.Context, s *side) (string, error) {
		return s.all(ctx, "", "echo $LANG $LC_CONFORMANCE $TERM")
	}},
	{name: "ssh/all-bytes", run: func(ctx context.Context, s *side) (string, error) {
		var all strings.Builder
		for range 40 {
			for i := range 256 {
				all.WriteByte(byte(i))
			}
		}
		h, err := s.ssh(ctx, all.String(), "web-1", "cat; cat >&2")
		if err == nil && h.out != all.String() {
			err = errors.New("bytes were changed on the way")
		}
		return h.String(), err
	}},
	{name: "ssh/stderr-alone", run: func(ctx context.Context, s *side) (string, error) {
		return s.all(ctx, "", "head -c 3000000 /dev/zero >&2; exit 3")
	}},
	{name: "ssh/stderr-after-stdout", run: func(ctx context.Context, s *side) (string, error) {
		return s.all(ctx, "", "echo out; exec >&-; sleep 0.3; echo err >&2; exit 4")
	}},
	{name: "ssh/output-closed-early", run: func(ctx context.Context, s *side) (string, error) {
		return s.all(ctx, "x", "exec >&- 2>&-; sleep 0.5; exit 3")
	}},
	{name: "ssh/background-holds-output", run: func(ctx context.Context, s *side) (string, error) {
		return s.all(ctx, "", "sleep 1 & echo hello; exit 6")
	}},
	{name: "ssh/cat-big-ends-before", run: func(ctx context.Context, s *side) (string, error) {
		// The command stops reading long before the client has sent all.
		cmd := s.command(ctx, "sh", "-c", `head -c 50000000 /dev/zero | ssh -F "$SIDE_CONFIG" web-1 'head -c 1000 >/dev/null; echo enough; exit 8'; echo "status $?"`)
		out, err := cmd.Output()
		return string(out), err
	}},
	{name: "ssh/cat-big", run: func(ctx context.Context, s *side) (string, error) {
		name, err := s.file("big", 64<<20)
		if err != nil {
			return "", err
		}
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h, err := s.run(ctx, f, "ssh", "-F", s.config, "web-1", "cat")
		return h.String(), err
	}},
	{name: "ssh/yes-head", run: func(ctx context.Context, s *side) (string, error) {
		var b strings.Builder
		for _, c := range []string{`ssh -F "$SIDE_CONFIG" web-1 yes | head -1`, `ssh -F "$SIDE_CONFIG" web-1 'yes; echo "yes ended" >&2' 2>&1 >/dev/null </dev/null | head -1 & sleep 1; kill %1; wait; echo killed`} {
			cmd := s.command(ctx, "bash", "-c", c)
			out, err := cmd.Output()
			if err != nil {
				return b.String(), err
			}
			b.Write(out)
		}
		return b.String(), nil
	}},
	{name: "ssh/yes-head-there", run: func(ctx context.Context, s *side) (string, error) { return s.all(ctx, "", "yes | head -100000") }},
	{name: "ssh/client-killed", run: clientKilled},
	{name: "ssh/rekey", run: func(ctx context.Context, s *side) (string, error) {
		name, err := s.file("big", 20<<20)
		if err != nil {
			return "", err
		}
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h, err := s.run(ctx, f, "ssh", "-F", s.config, "-o", "RekeyLimit=1M", "web-1", "cat")
		return h.String(), err
	}},
	{name: "ssh/compression", run: func(ctx context.Context, s *side) (string, error) {
		h, err := s.ssh(ctx, "", "-C", "web-1", "echo compressed or not")
		return h.String(), err
	}},
	{name: "ssh/no-command", run: func(ctx context.Context, s *side) (string, error) {
		bounded, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		cmd := s.command(bounded, "ssh", "-F", s.config, "-N", "web-1")
		out, _ := cmd.CombinedOutput() // it runs until it is killed
		return fmt.Sprintf("%q ended by itself: %v\n", out, bounded.Err() == nil), nil
	}},
	{name: "ssh/subsystem-unknown", run: func(ctx context.Context, s *side) (string, error) {
		h, err := s.ssh(ctx, "", "-s", "web-1", "nosuch")
		return h.String(), err
	}},
	{name: "ssh/control-master", run: controlMaster},
	{name: "ssh/parallel-connections", run: func(ctx context.Context, s *side) (string, error) {
		var group sync.WaitGroup
		results := make([]string, 10)
		for i := range results {
			group.Go(func() {
				h, err := s.ssh(ctx, fmt.Sprint(i), "web-1", "cat; head -c 1000000 /dev/zero | wc -c; exit 3")
				results[i] = fmt.Sprint(h, err)
			})
		}
		group.Wait()
		return strings.Join(results, ""), nil
	}},
	{name: "ssh/large-down", timeout: 20 * time.Minute, run: func(ctx context.Context, s *side) (string, error) {
		name, err := s.file("large", s.size)
		if err != nil {
			return "", err
		}
		to, err := os.Create(s.path("back"))
		if err != nil {
			return "", err
		}
		defer to.Close()
		cmd := s.command(ctx, "ssh", "-F", s.config, "web-1", "cat "+name)
		cmd.Stdout = to
		if err := cmd.Run(); err != nil {
			return "", err
		}
		return compareFiles(ctx, name, to.Name())
	}},
	{name: "ssh/large-up", timeout: 20 * time.Minute, run: func(ctx context.Context, s *side) (string, error) {
		name, err := s.file("large", s.size)
		if err != nil {
			return "", err
		}
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if h, err := s.run(ctx, f, "ssh", "-F", s.config, "web-1", "cat >"+s.path("there")); err != nil || h.status != 0 {
			return h.String(), err
		}
		return compareFiles(ctx, name, s.path("there"))
	}},
}

// compareFiles compares two files to the byte.
func compareFiles(ctx context.Context, a, b string) (string, error) {
	if out, err := exec.CommandContext(ctx, "cmp", a, b).CombinedOutput(); err != nil {
		return "", fmt.Errorf("the copy differs: %s: %w", out, err)
	}
	return digest(a)
}

// clientKilled: what runs on a terminal gets a hangup when the client dies.
func clientKilled(ctx context.Context, s *side) (string, error) {
	mark := s.path("hung-up")
	pid := s.path("pid")
	cmd := s.command(ctx, "ssh", "-F", s.config, "-tt", "web-1", fmt.Sprintf(`trap 'echo hangup >%s; exit' HUP; echo $$ >%s; while :; do sleep 0.1; done`, mark, pid))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = blocked{ctx}, io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if err := appears(ctx, pid); err != nil {
		_ = cmd.Process.Kill()
		return "", err
	}
	if err := cmd.Process.Kill(); err != nil {
		return "", err
	}
	start := time.Now()
	if err := appears(ctx, mark); err != nil {
		return "", err
	}
	if took := time.Since(start); took > 10*time.Second {
		return "", fmt.Errorf("the hangup came after %s", took)
	}
	text, err := os.ReadFile(mark)
	return string(text), err
}

// blocked is input that never comes.
type blocked struct{ ctx context.Context }

func (b blocked) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, io.EOF
}

// appears waits for a file with something in it.
func appears(ctx context.Context, name string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if info, err := os.Stat(name); err == nil && info.Size() > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not appear: %w", filepath.Base(name), ctx.Err())
		case <-tick.C:
		}
	}
}

// controlMaster: twenty sessions at once on one connection, and one after them.
func controlMaster(ctx context.Context, s *side) (string, error) {
	socket := filepath.Join(os.TempDir(), fmt.Sprintf("sp-%d-%s", os.Getpid(), s.name)) // short: it is a socket's name
	if h, err := s.ssh(ctx, "", "-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-S", socket, "-fN", "web-1"); err != nil || h.status != 0 {
		return h.String(), fmt.Errorf("the master does not start: %w", err)
	}
	defer s.ssh(context.WithoutCancel(ctx), "", "-S", socket, "-O", "exit", "web-1") //nolint:errcheck // it may have ended
	var group sync.WaitGroup
	results := make([]string, 20)
	for i := range results {
		group.Go(func() {
			h, err := s.ssh(ctx, fmt.Sprintf("input %d\n", i), "-S", socket, "web-1", fmt.Sprintf("cat; echo err %d >&2; head -c 300000 /dev/zero; exit %d", i, i))
			results[i] = fmt.Sprint(h, err)
		})
	}
	group.Wait()
	h, err := s.ssh(ctx, "", "-S", socket, "web-1", "echo after")
	if err != nil {
		return "", err
	}
	out, err := s.ssh(ctx, "", "-S", socket, "-O", "exit", "web-1")
	return strings.Join(results, "") + h.String() + fmt.Sprint(out.status), err
}
