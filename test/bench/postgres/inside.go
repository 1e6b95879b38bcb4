package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/test/bench/wait"
)

// calls counts the system calls that the process between makes for a query: with perf, which slows nothing down, or else
// with strace.
func (b *bench) calls(ctx context.Context) error {
	tool, count := "perf stat", perfCalls
	if _, err := perfCalls(ctx, os.Getpid(), func() error { return nil }); err != nil {
		tool, count = "strace -c", straceCalls
		if _, err := exec.LookPath("strace"); err != nil {
			b.say("\n## System calls a query\n\nNot measured: there is neither perf (linux-perf, with the right to use it) nor strace.\n")
			return nil
		}
	}
	b.say("\n## System calls a query (%s)\n\n| |", tool)
	kinds := []kind{}
	for _, clients := range []int{1, 8} {
		for _, mode := range []string{"simple", "prepared"} {
			kinds = append(kinds, b.pgbench("", "-S", "-M", mode, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2))))
			b.say(" %s, %d clients |", mode, clients)
		}
	}
	b.say("\n|---|%s\n", strings.Repeat("---|", len(kinds)))
	for _, e := range b.endpoints {
		if e.pid == 0 {
			continue
		}
		b.say("| %s |", e.name)
		for _, k := range kinds {
			var s sample
			n, err := count(ctx, e.pid, func() (err error) { s, err = k.run(ctx, e); return err })
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			b.say(" %.1f |", n/s.units)
		}
		b.say("\n")
	}
	return nil
}

// counting runs a counter of a process's system calls around what is done, and returns what it printed.
func counting(ctx context.Context, do func() error, command ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return "", fmt.Errorf("%s: %w: %s", command[0], err, &out)
	case <-time.After(300 * time.Millisecond): // neither tool says when it has begun; what it misses at the start is little
	}
	doErr := do()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		return "", errors.Join(doErr, err)
	}
	<-ended // an interrupted tool's status says nothing
	return out.String(), doErr
}

func perfCalls(ctx context.Context, pid int, do func() error) (float64, error) {
	out, err := counting(ctx, do, "perf", "stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "-p", strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		if number, rest, ok := strings.Cut(line, ";"); ok && strings.Contains(rest, "sys_enter") {
			return strconv.ParseFloat(number, 64)
		}
	}
	return 0, fmt.Errorf("perf counted nothing: %s", out)
}

func straceCalls(ctx context.Context, pid int, do func() error) (float64, error) {
	out, err := counting(ctx, do, "strace", "-f", "-c", "-p", strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 4 && f[len(f)-1] == "total" {
			return strconv.ParseFloat(f[len(f)-3], 64)
		}
	}
	return 0, fmt.Errorf("strace counted nothing: %s", out)
}

// idle looks how much memory an idle connection costs: each has done one query against a server that is none.
func (b *bench) idle(ctx context.Context) error {
	// The one that was measured before has memory to use again, so each begins afresh where it can: the gateway is killed,
	// and the rig starts another.
	b.say("\n## Memory of %d idle connections over TLS, one query done on each\n\n| | KiB each | connections/s |\n|---|---|---|\n", b.options.idle)
	for _, e := range b.endpoints {
		if e.fake == "" {
			continue
		}
		pid := e.pid
		if strings.HasPrefix(e.name, "Sallyport") {
			var err error
			if pid, err = b.freshGateway(ctx, e); err != nil {
				return err
			}
		}
		each, rate, err := idleAt(ctx, e, pid, b.options.idle)
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		b.say("| %s | %.1f | %.0f |\n", e.name, each, rate)
	}
	return nil
}

func (b *bench) freshGateway(ctx context.Context, e endpoint) (int, error) {
	old, err := b.gatewayPID()
	if err != nil {
		return 0, err
	}
	if err := syscall.Kill(old, syscall.SIGTERM); err != nil {
		return 0, err
	}
	var pid int
	err = wait.Until(ctx, time.Minute, "another gateway takes sessions", func() error {
		if pid, err = b.gatewayPID(); err != nil {
			return err
		}
		if pid == old {
			return errors.New("the old one is still there")
		}
		conn, err := idleConnection(ctx, e)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	return pid, err
}

func idleConnection(ctx context.Context, e endpoint) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, e.fake)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "select 1", pgx.QueryExecModeSimpleProtocol); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// parallel is how many connections are made at a time, and settle how long the process is left alone before its memory is
// looked at.
const (
	parallel = 16
	settle   = 3 * time.Second
)

func idleAt(ctx context.Context, e endpoint, pid, n int) (each, rate float64, err error) {
	before, err := residentKiB(pid)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	conns := make([]*pgx.Conn, n)
	errs := make([]error, n)
	places := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			conns[i], errs[i] = idleConnection(ctx, e)
			<-places
		})
	}
	all.Wait()
	rate = float64(n) / time.Since(began).Seconds()
	defer func() {
		for _, c := range slices.DeleteFunc(conns, func(c *pgx.Conn) bool { return c == nil }) {
			err = errors.Join(err, c.Close(ctx))
		}
	}()
	for _, err := range errs {
		if err != nil {
			return 0, 0, err // the others' are most likely the same
		}
	}
	time.Sleep(settle)
	after, err := residentKiB(pid)
	return (after - before) / float64(n), rate, err
}

func residentKiB(pid int) (float64, error) {
	file, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "VmRSS:" {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("%s says nothing of its memory", file.Name())
}
