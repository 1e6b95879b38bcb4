package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"

	"sallyport/configs"
)

// TestLostClientsAreNoticed: a client that is gone without a word (its machine, or the way to it) is noticed, as the system asks now and
// then whether it is there, and gives up in less than two minutes.
func TestLostClientsAreNoticed(t *testing.T) {
	conns := make(chan *net.TCPConn, 1)
	p := New(configs.Limits{Connections: 100, Unauthenticated: 40}, func(string, net.Addr) {}, slog.New(slog.DiscardHandler))
	address, err := p.Listen(t.Context(), "test", "127.0.0.1:0", handlerFunc(func(_ context.Context, conn net.Conn) {
		conns <- conn.(*Conn).Conn.(*net.TCPConn)
		io.Copy(io.Discard, conn)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dial(t, address)
	raw, err := (<-conns).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		get := func(level, option int) int {
			n, err := syscall.GetsockoptInt(int(fd), level, option)
			if err != nil {
				t.Error(err)
			}
			return n
		}
		on, idle := get(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE), get(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		every, count := get(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL), get(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
		if on != 1 || idle <= 0 || idle+every*count >= 120 {
			t.Errorf("on %d, after %d s, every %d s, %d times", on, idle, every, count)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
