//go:build !linux

package wire

import "syscall"

// socket is Linux's alone.
type socket struct{ open bool }

func (*socket) receive([]byte) (int, error) { panic("no socket is open") }

// sender is Linux's alone, too.
type sender struct{}

func (sender) ready() bool               { return false }
func (sender) write([]byte) (int, error) { panic("no socket is open") }

func (a *Ahead) wait(_ syscall.RawConn, _ bool, arrived func() (bool, error)) error {
	return a.each(arrived)
}

// Broken is for those who hold, and nobody does here.
func (*Ahead) Broken() bool { return false }
