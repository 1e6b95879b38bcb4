//go:build !unix

package client

import (
	"os"
	"os/exec"
)

// forwarded are the signals that would end this process.
var forwarded = []os.Signal{os.Interrupt}

func leadGroup(*exec.Cmd) {}

// forward does nothing: this system's console reaches the command itself.
func forward(*os.Process, os.Signal, bool) {}

func exitStatus(state *os.ProcessState) int { return state.ExitCode() }
