package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// rig is a `sallyport demo --env` that this run started.
type rig struct {
	env     string
	process *exec.Cmd
	ended   chan error
	log     *os.File
}

// startRig starts it and returns when it has written its variables, which it does when everything in it answers.
func startRig(ctx context.Context, binary string, b *bench) (*rig, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(b.out, "rig.log"))
	if err != nil {
		return nil, err
	}
	r := &rig{env: filepath.Join(b.out, "rig.env"), ended: make(chan error, 1), log: log}
	r.process = exec.Command(binary, "demo", "--env", r.env)
	r.process.Stdout, r.process.Stderr = log, log
	// The rig takes the server that pg_config tells of, which stands beside it.
	r.process.Env = append(os.Environ(), "PATH="+b.bindir+":"+os.Getenv("PATH"))
	// A Ctrl-C at the terminal is for us: we end the suite first and the rig after it.
	r.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	b.say("the rig: %s demo --env %s", binary, r.env)
	if err := r.process.Start(); err != nil {
		return nil, fmt.Errorf("start the rig: %w; build it with `make build`", err)
	}
	go func() { r.ended <- r.process.Wait() }()
	deadline := time.After(3 * time.Minute)
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-r.ended:
			r.ended <- err
			return nil, fmt.Errorf("the rig ended before it was ready: %w; see %s", err, log.Name())
		case <-deadline:
			return nil, errors.Join(fmt.Errorf("the rig was not ready after 3 minutes; see %s", log.Name()), r.stop())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), r.stop())
		case <-look.C:
			if _, err := os.Stat(r.env); err == nil {
				return r, nil
			}
		}
	}
}

// stop asks the rig to end, as Ctrl-C would, and waits until it has cleaned up.
func (r *rig) stop() error {
	defer r.log.Close()
	select {
	case err := <-r.ended:
		return fmt.Errorf("the rig ended by itself: %w; see %s", err, r.log.Name())
	default:
	}
	if err := r.process.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("stop the rig: %w", err)
	}
	select {
	case <-r.ended:
		return nil
	case <-time.After(time.Minute):
		return errors.Join(fmt.Errorf("the rig did not end within a minute; see %s", r.log.Name()), r.process.Process.Kill())
	}
}

// verify asks the gateway whether its log of all this is whole, as the person who may, where the rig says how.
func (b *bench) verify(ctx context.Context) error {
	if b.exports["SALLYPORT_BIN"] == "" || b.exports["SALLYPORT_HOME_CAROL"] == "" {
		b.say("the log is not verified: the rig names no binary and no home for it")
		return nil
	}
	run := exec.CommandContext(ctx, b.exports["SALLYPORT_BIN"], "verify")
	run.Env = append(os.Environ(), "SALLYPORT_HOME="+b.exports["SALLYPORT_HOME_CAROL"])
	if out, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("sallyport verify finds the log not whole: %w: %s", err, tail(string(out)))
	}
	return nil
}

// forget removes the state of a rig that this run started, which is kept only after a fault.
func (b *bench) forget() error {
	state := b.exports["SALLYPORT_STATE"]
	if state == "" {
		return errors.New("the rig named no state directory to remove")
	}
	return os.RemoveAll(state)
}

// readExports gives the variables that a file of shell exports sets. A shell reads it, because the quoting is a shell's.
func readExports(ctx context.Context, file string) (map[string]string, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	shell := exec.CommandContext(ctx, "sh", "-c", `. "$1" && exec env -0`, "sh", absolute)
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := shell.Output()
	if err != nil {
		return nil, fmt.Errorf("read the rig's variables from %s: %w", file, err)
	}
	exports := map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		if name, value, found := strings.Cut(entry, "="); found {
			exports[name] = value
		}
	}
	return exports, nil
}
