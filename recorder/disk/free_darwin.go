package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Free is how many bytes an unprivileged process can still write below dir.
func Free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// IsVolatile reports whether dir is on a file system in memory, of which this system has none by itself.
func IsVolatile(string) (bool, error) { return false, nil }

// SyncData waits until the file is on stable storage; Sync is F_FULLFSYNC here.
func SyncData(f *os.File) error { return f.Sync() }
