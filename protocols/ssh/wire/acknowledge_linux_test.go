package wire

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/protocols/ssh/sshtest"
)

// TestFirstReadsAreAcknowledgedAtOnce: in the first exchanges the kernel keeps no acknowledgement back for an answer, which is what
// it would come to otherwise; later it is left to itself.
func TestFirstReadsAreAcknowledgedAtOnce(t *testing.T) {
	l := sshtest.Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	peer := sshtest.Must(net.Dial("tcp", l.Addr().String()))(t)
	defer peer.Close()
	conn := sshtest.Must(l.Accept())(t)
	defer conn.Close()
	w := New(conn, nil).Promptly(conn)
	at := func() (at int) {
		t.Helper()
		raw := sshtest.Must(conn.(*net.TCPConn).SyscallConn())(t)
		var err error
		if e := raw.Control(func(fd uintptr) { at, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		return at
	}
	exchange := func() {
		t.Helper()
		b := make([]byte, 4)
		if _, err := peer.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(w, b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range promptReads {
		exchange()
		if at() == 0 {
			t.Fatalf("read %d is acknowledged some time", i)
		}
		if _, err := w.Write([]byte("pong")); err != nil {
			t.Fatal(err)
		}
	}
	if w.ack != nil {
		t.Error("it costs a system call for each read for ever")
	}
}

// TestFirstReadsHaveNoBuffer: whoever is not known yet has no more of the gateway's memory than what the library gives them.
func TestFirstReadsHaveNoBuffer(t *testing.T) {
	a, b := loopback(t)
	w := New(b, nil).Promptly(b)
	piece := make([]byte, libraryBuffer)
	for i := range promptReads + 1 {
		if _, err := a.Write(append(piece, piece...)); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 2*libraryBuffer; {
			k := sshtest.Must(w.Read(piece))(t)
			if n += k; i < promptReads/2 && w.ahead != nil {
				t.Fatalf("message %d is read ahead", i)
			}
		}
	}
	if w.ack != nil {
		t.Error("it never comes to an end")
	}
}
