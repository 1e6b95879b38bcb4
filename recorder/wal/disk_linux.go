package wal

import (
	"os"

	"golang.org/x/sys/unix"
)

// writeBack waits until a part of the file was given to the disk. It is not safe before a sync, but that has little left to
// do then, and unlike a sync it does not have the file system write its journal, for which everybody else's syncs wait.
func writeBack(f *os.File, at, length int64) error {
	const whole = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for {
		switch err := unix.SyncFileRange(int(f.Fd()), at, length, whole); err {
		case unix.EINTR:
		case unix.ENOSYS, unix.EPERM, unix.EINVAL, unix.ESPIPE, unix.EOPNOTSUPP: // not here
			return f.Sync()
		default:
			return err // also one of writing, which the kernel does not tell again
		}
	}
}
