package client

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"runtime"
)

// OpenBrowser opens an address in the person's browser, without waiting for it.
func OpenBrowser(address string) error {
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("%q is no web address", address)
	}
	program := []string{"xdg-open"}
	switch runtime.GOOS {
	case "windows":
		program = []string{"rundll32", "url.dll,FileProtocolHandler"}
	case "darwin":
		program = []string{"open"}
	}
	// A browser outlives whoever opened it, so no context ends it.
	command := exec.CommandContext(context.Background(), program[0], append(program[1:], address)...)
	if err := command.Start(); err != nil {
		return err
	}
	go func() { _ = command.Wait() }() // how it ends is not ours; only its remains are collected
	return nil
}
