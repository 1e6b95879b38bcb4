package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"sallyport/protocols/ssh/sshtest"
)

// loopback is a real connection.
func loopback(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l := sshtest.Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	a = sshtest.Must(net.Dial("tcp", l.Addr().String()))(t)
	b = sshtest.Must(l.Accept())(t)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestWireLosesNothing: whatever the sizes of writes and reads, what comes out is what went in, and nothing is held for good.
func TestWireLosesNothing(t *testing.T) {
	a, b := loopback(t)
	from, to := New(a, nil), New(b, nil)
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20) // made once: with the race detector a byte costs more to make up than to send
	rand.NewChaCha8([32]byte{1}).Read(noise)
	sizes := []int{1, 16, libraryBuffer, libraryBuffer - 1, libraryBuffer + 1, 28000, 32768, 100000}
	var want bytes.Buffer
	wrote := make(chan error, 1)
	go func() {
		for range 3000 {
			p := noise[random.IntN(len(noise)/2):]
			p = p[:sizes[random.IntN(len(sizes))]]
			want.Write(p)
			if _, err := from.Write(p); err != nil {
				wrote <- err
				return
			}
		}
		_, err := from.Write(make([]byte, libraryBuffer)) // and nothing after it
		want.Write(make([]byte, libraryBuffer))
		wrote <- err
		wrote <- from.Close()
	}()
	var got bytes.Buffer
	b.SetReadDeadline(time.Now().Add(sshtest.Deadline))
	buf := make([]byte, 60000)
	reads := []int{4096, 4096, 30000, 60000, 1}
	for i := 0; ; i++ {
		n, err := to.Read(buf[:reads[i%len(reads)]])
		got.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes came, %d were sent, or others", got.Len(), want.Len())
	}
	if to.ahead != nil {
		t.Error("a quiet connection keeps its buffer")
	}
}

func TestWireSendsAPartWithoutARest(t *testing.T) {
	a, b := loopback(t)
	if _, err := New(a, nil).Write(make([]byte, libraryBuffer)); err != nil {
		t.Fatal(err)
	}
	b.SetReadDeadline(time.Now().Add(sshtest.Deadline))
	if _, err := io.ReadFull(b, make([]byte, libraryBuffer)); err != nil {
		t.Errorf("it is held for good: %v", err)
	}
}
