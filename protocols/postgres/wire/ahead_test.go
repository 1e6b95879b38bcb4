package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"testing"
	"time"
)

// sockets are two ends of a TCP connection.
func sockets(t testing.TB) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	for _, c := range []net.Conn{dialled, accepted} {
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

// secured is TLS over an Ahead, and the other end of it.
func secured(t testing.TB) (a *Ahead, ours, theirs *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server, client := sockets(t)
	a = NewAhead(server)
	ours = tls.Server(a, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, DynamicRecordSizingDisabled: true})
	theirs = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- theirs.Handshake() }()
	if err := errors.Join(ours.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return a, ours, theirs
}

// collect reads everything by Arrivals, and returns it with how the stream ended.
func collect(a *Ahead, conn net.Conn, holding bool) (got []byte, err error) {
	err = a.Arrivals(holding, func() (bool, error) {
		buf := Borrow()
		defer GiveBack(buf)
		for {
			n, err := a.ReadArrived(conn, buf[:])
			got = append(got, buf[:n]...)
			if errors.Is(err, ErrNothing) {
				return true, nil
			}
			if err != nil {
				return false, err
			}
		}
	})
	return got, err
}

// TestArrivalsMissNothing sends pieces of all sizes at all paces, the last of them together with the end of the stream: one
// arrival that is not noticed, or one end, and this does not end.
func TestArrivalsMissNothing(t *testing.T) {
	var want []byte
	var pieces [][]byte
	for i := range 400 {
		piece := bytes.Repeat([]byte{byte(i)}, 1+(i*i*37)%90_000/(1+i%17))
		pieces, want = append(pieces, piece), append(want, piece...)
	}
	send := func(t *testing.T, w io.WriteCloser) {
		for i, piece := range pieces {
			if _, err := w.Write(piece); err != nil {
				t.Error(err)
				return
			}
			if i%50 == 49 {
				time.Sleep(2 * time.Millisecond) // so that the reader comes to wait
			}
		}
		w.Close()
	}
	for _, holding := range []bool{true, false} {
		for range 20 {
			ours, theirs := sockets(t)
			go send(t, theirs)
			a := NewAhead(ours)
			got, err := collect(a, a, holding)
			if !errors.Is(err, io.EOF) || !bytes.Equal(got, want) {
				t.Fatalf("plain, holding %t: %d of %d bytes, then %v", holding, len(got), len(want), err)
			}
		}
		a, ours, theirs := secured(t)
		go send(t, theirs)
		got, err := collect(a, ours, holding)
		if !errors.Is(err, io.EOF) || !bytes.Equal(got, want) {
			t.Fatalf("TLS, holding %t: %d of %d bytes, then %v", holding, len(got), len(want), err)
		}
	}
}

// TestArrivalsEnd holds for both ways to wait: a deadline and a close from elsewhere free them.
func TestArrivalsEnd(t *testing.T) {
	for _, holding := range []bool{true, false} {
		for name, end := range map[string]func(*net.TCPConn) error{
			"deadline": func(c *net.TCPConn) error { return c.SetReadDeadline(time.Unix(1, 0)) },
			"close":    func(c *net.TCPConn) error { return c.Close() },
		} {
			ours, theirs := sockets(t)
			a := NewAhead(ours)
			ended := make(chan error, 1)
			got := make(chan struct{})
			go func() {
				first := true
				ended <- a.Arrivals(holding, func() (bool, error) {
					var b [100]byte
					n, err := a.ReadArrived(a, b[:])
					if n > 0 && first {
						first = false
						close(got)
					}
					return true, ignoreNothing(err)
				})
			}()
			if _, err := theirs.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			<-got
			if err := end(ours); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err == nil {
				t.Errorf("%s, holding %t: no error", name, holding)
			}
		}
	}
}

// TestBroken tells a reset from an end, which has bytes before it.
func TestBroken(t *testing.T) {
	for _, reset := range []bool{true, false} {
		ours, theirs := sockets(t)
		a := NewAhead(ours)
		if a.Broken() {
			t.Fatal("a connection that stands is broken")
		}
		if reset {
			if err := theirs.SetLinger(0); err != nil {
				t.Fatal(err)
			}
		}
		theirs.Close()
		if reset && runtime.GOOS == "linux" {
			for deadline := time.Now().Add(10 * time.Second); !a.Broken(); {
				if time.Now().After(deadline) {
					t.Fatal("a reset is not noticed")
				}
				time.Sleep(time.Millisecond)
			}
		} else if a.Broken() {
			t.Error("an end is taken for a reset")
		}
	}
}

func ignoreNothing(err error) error {
	if errors.Is(err, ErrNothing) {
		return nil
	}
	return err
}

// TestArrivalsOfNoSocket: what is no socket is read as it can be.
func TestArrivalsOfNoSocket(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		theirs.Write([]byte("one"))
		theirs.Write([]byte("two"))
		theirs.Close()
	}()
	a := NewAhead(ours)
	if got, err := collect(a, a, true); string(got) != "onetwo" || !errors.Is(err, io.EOF) {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestWriteWhole: records are whole and in order, and nothing that TLS itself has to say comes between.
func TestWriteWhole(t *testing.T) {
	a, ours, theirs := secured(t)
	want := bytes.Repeat([]byte("0123456789"), ChunkSize/10)
	go func() {
		for range 3 {
			if err := a.WriteWhole(ours, want); err != nil {
				t.Error(err)
			}
		}
		ours.Close()
	}()
	got, err := io.ReadAll(theirs)
	if err != nil || !bytes.Equal(got, bytes.Repeat(want, 3)) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// TestArrivalsAllocateNothing: on the way of every query nothing of ours is allocated. (crypto/tls allocates two small things a
// record that it reads.)
func TestArrivalsAllocateNothing(t *testing.T) {
	for _, holding := range []bool{true, false} {
		ours, theirs := sockets(t)
		a := NewAhead(ours)
		next := make(chan struct{}, 1)
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = collectNothing(a, a, holding, next)
		}()
		message := []byte("a query of some length")
		round := func() {
			if _, err := theirs.Write(message); err != nil {
				t.Fatal(err)
			}
			<-next
		}
		for range 10 {
			round()
		}
		if n := testing.AllocsPerRun(200, round); n > 0.5 {
			t.Errorf("holding %t: %.1f allocations an arrival", holding, n)
		}
		theirs.Close()
		<-over
	}
}

func collectNothing(a *Ahead, conn net.Conn, holding bool, next chan<- struct{}) (int, error) {
	total := 0
	return total, a.Arrivals(holding, func() (bool, error) {
		buf := Borrow()
		defer GiveBack(buf)
		for {
			n, err := a.ReadArrived(conn, buf[:])
			total += n
			if n > 0 {
				next <- struct{}{}
			}
			if errors.Is(err, ErrNothing) {
				return true, nil
			}
			if err != nil {
				return false, err
			}
		}
	})
}
