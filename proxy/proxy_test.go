package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/configs"
)

// handlerFunc adapts a function.
type handlerFunc func(ctx context.Context, conn net.Conn)

func (f handlerFunc) Serve(ctx context.Context, conn net.Conn) { f(ctx, conn) }

func dial(t *testing.T, address net.Addr) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestStrangersAreBounded states that connections which prove nothing are turned away over the limit, that a proven one
// makes room, and that a closed one does too.
func TestStrangersAreBounded(t *testing.T) {
	var refused atomic.Int32
	prove := make(chan *Conn, 10)
	p := New(configs.Limits{Connections: 100, Unauthenticated: 8}, func(string, net.Addr) { refused.Add(1) }, slog.New(slog.DiscardHandler))
	address, err := p.Listen(t.Context(), "test", "127.0.0.1:0", handlerFunc(func(_ context.Context, conn net.Conn) {
		prove <- conn.(*Conn)
		if _, err := conn.Write([]byte{1}); err != nil {
			t.Error(err)
		}
		io.Copy(io.Discard, conn)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	one := make([]byte, 1)
	served := func(conn net.Conn) bool { _, err := io.ReadFull(conn, one); return err == nil }
	first, second := dial(t, address), dial(t, address)
	if !served(first) || !served(second) {
		t.Fatal("connections below the limit were turned away")
	}
	if served(dial(t, address)) || refused.Load() != 1 { // a quarter of 8 from one address
		t.Fatal("a third stranger from the same address was served")
	}
	(<-prove).Proven()
	third := dial(t, address)
	if !served(third) {
		t.Fatal("a proven connection still counts as a stranger's")
	}
	third.Close()
	deadline := time.Now().Add(20 * time.Second)
	for !served(dial(t, address)) {
		if time.Now().After(deadline) {
			t.Fatal("a closed connection still counts")
		}
	}
}

func TestPanicTakesOnlyItsConnection(t *testing.T) {
	p := New(configs.Limits{Connections: 100, Unauthenticated: 40}, func(string, net.Addr) {}, slog.New(slog.DiscardHandler))
	address, err := p.Listen(t.Context(), "test", "127.0.0.1:0", handlerFunc(func(_ context.Context, conn net.Conn) {
		b := make([]byte, 1)
		io.ReadFull(conn, b)
		if b[0] == 'p' {
			panic("test")
		}
		conn.Write(b)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, text := range []string{"p", "x"} {
		conn := dial(t, address)
		conn.Write([]byte(text))
		got, err := io.ReadAll(conn)
		if err != nil || (text == "x") != (string(got) == "x") {
			t.Errorf("sent %s: got %q, %v", text, got, err)
		}
	}
	p.Close()
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
