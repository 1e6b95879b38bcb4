package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// acknowledger is what has the kernel acknowledge at once what came on a connection; nil where it can't.
func acknowledger(conn net.Conn) func() {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return func() {
		_ = raw.Control(func(fd uintptr) { // without it the peer waits a little longer
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		})
	}
}
