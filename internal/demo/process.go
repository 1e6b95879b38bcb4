//go:build unix

package demo

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child of the demo. On Linux the kernel ends it when the demo dies, however it dies.
type process struct {
	name string
	cmd  *exec.Cmd
	stop syscall.Signal // asks it to end
	done chan struct{}  // closed when it has ended
	err  error          // of Wait, after done
}

// start starts a child whose death follows ours. The signal stop asks it to end. The kernel ties the child's life to the
// thread that started it, so that thread does nothing else until the child is gone.
func (r *register) start(name string, cmd *exec.Cmd, stop syscall.Signal) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C is for the demo, which then ends its children in order
	dieWithParent(cmd.SysProcAttr, stop)
	p := &process{name: name, cmd: cmd, stop: stop, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := r.add(name, cmd.Process.Pid); err != nil {
		p.end(time.Second)
		return nil, err
	}
	return p, nil
}

// end asks the process to stop, waits, and after patience makes it and what it left behind stop.
func (p *process) end(patience time.Duration) {
	family := descendants(p.cmd.Process.Pid)
	_ = p.cmd.Process.Signal(p.stop) // it may be gone already
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	for _, c := range family {
		if c.alive() {
			_ = syscall.Kill(c.PID, syscall.SIGKILL)
		}
	}
}

// identity tells one process from another that has its number later.
type identity struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Started string `json:"started"` // as the system says it; compared, not read
}

func identify(name string, pid int) identity {
	return identity{Name: name, PID: pid, Started: startTime(pid)}
}

// alive reports whether exactly this process still runs.
func (i identity) alive() bool {
	return i.PID > 0 && i.Started != "" && startTime(i.PID) == i.Started
}

// stopLeftover ends a process that an earlier demo left: it asks, waits, and then does not ask any more.
func (i identity) stopLeftover(patience time.Duration) {
	family := append(descendants(i.PID), i)
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		for _, c := range family {
			if c.alive() {
				_ = syscall.Kill(c.PID, signal.(syscall.Signal))
			}
		}
		deadline := time.Now().Add(patience)
		for time.Now().Before(deadline) && anyAlive(family) {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func anyAlive(family []identity) bool {
	for _, c := range family {
		if c.alive() {
			return true
		}
	}
	return false
}
