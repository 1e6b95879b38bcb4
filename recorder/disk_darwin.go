package recorder

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData waits until the file is on stable storage; on this system Sync is F_FULLFSYNC.
func syncData(f *os.File) error { return f.Sync() }

// syncDirectory waits until the names in a directory are on stable storage.
func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// freeSpace is how many bytes an unprivileged process can still write below dir.
func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// isVolatile reports whether dir is on a file system in memory, of which this system has none by itself.
func isVolatile(string) (bool, error) { return false, nil }
