package recorder

import (
	"golang.org/x/sys/unix"
)

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
