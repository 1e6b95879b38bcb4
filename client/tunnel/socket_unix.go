//go:build unix

package tunnel

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// listenSocket makes a socket that only this user may open, from its first moment. One that was left behind is replaced.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	old := syscall.Umask(0o177) // of the whole process, for as long as making it takes; nothing else makes files now
	defer syscall.Umask(old)
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && leftBehind(ctx, path) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		return new(net.ListenConfig).Listen(ctx, "unix", path)
	}
	return l, err
}

// leftBehind tells whether a path is a socket behind which nobody is.
func leftBehind(ctx context.Context, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
