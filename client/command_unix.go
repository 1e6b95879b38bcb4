//go:build unix

package client

import (
	"os"
	"os/exec"
	"syscall"
)

// forwarded are the signals that would end this process.
var forwarded = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

func leadGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// forward passes a signal on. With a terminal, what is typed there has reached the command already.
func forward(process *os.Process, s os.Signal, group bool) {
	number, ok := s.(syscall.Signal)
	switch {
	case !ok:
	case group:
		_ = syscall.Kill(-process.Pid, number) // it may be gone
	case number != syscall.SIGINT && number != syscall.SIGQUIT:
		_ = process.Signal(number)
	}
}

// exitStatus is a process's as shells say it: 128 and the number of the signal that ended it.
func exitStatus(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
