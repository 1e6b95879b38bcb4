package wal

import (
	"os"

	"golang.org/x/sys/unix"
)

// SyncData waits until the file's data are on stable storage, with its size but without times that nobody needs.
func SyncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
