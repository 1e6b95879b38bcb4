package wire

import (
	"net"
	"os"
)

// Sizes of the read-ahead buffer: it begins small, so that thousands of idle sessions are cheap, and grows while reads
// fill it.
const (
	aheadLeast = 4 << 10
	aheadMost  = 64 << 10
)

// Ahead is a connection that reads as much as has arrived in one system call. It stands under TLS, whose own reads are
// small, and it can tell whether bytes arrived that nobody asked for. One goroutine reads at a time.
type Ahead struct {
	net.Conn
	buf        []byte
	start, end int
	size       int
	// onlyBuffered makes Read fail with errNothing instead of waiting.
	onlyBuffered bool
}

// NewAhead wraps a connection from which nothing was read yet.
func NewAhead(c net.Conn) *Ahead { return &Ahead{Conn: c, size: aheadLeast} }

// errNothing is to crypto/tls what a passing error of a socket is: it keeps what it has of a record and goes on next
// time.
var errNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing more has arrived" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }
func (nothing) Unwrap() error   { return os.ErrDeadlineExceeded }

// Read gives what is buffered, or else waits for more.
func (a *Ahead) Read(p []byte) (int, error) {
	if a.start == a.end {
		if a.onlyBuffered {
			return 0, errNothing
		}
		if err := a.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, a.buf[a.start:a.end])
	a.start += n
	return n, nil
}

func (a *Ahead) fill() error {
	if a.end == len(a.buf) && len(a.buf) > 0 && a.size < aheadMost {
		a.size *= 2 // the last read filled it
	}
	if len(a.buf) < a.size {
		a.buf = make([]byte, a.size)
	}
	a.start, a.end = 0, 0
	n, err := a.Conn.Read(a.buf)
	if n > 0 {
		a.end = n
		return nil
	}
	return err
}

// Peek returns the next byte without taking it, waiting for it if there is none.
func (a *Ahead) Peek() (byte, error) {
	if a.start == a.end {
		if err := a.fill(); err != nil {
			return 0, err
		}
	}
	return a.buf[a.start], nil
}

// Buffered is how many bytes have arrived and were not read.
func (a *Ahead) Buffered() int { return a.end - a.start }

// ReadArrived reads through conn, which is a itself or TLS on top of a, into b: it waits for the first byte and then
// takes what has already arrived, without waiting. One TLS record holds at most 16 KiB; this is what makes one chunk of
// many records.
func (a *Ahead) ReadArrived(conn net.Conn, b []byte) (int, error) {
	n, err := conn.Read(b)
	if err != nil || n == 0 || conn == net.Conn(a) {
		return n, err
	}
	a.onlyBuffered = true
	defer func() { a.onlyBuffered = false }()
	for n < len(b) && a.Buffered() > 0 {
		more, err := conn.Read(b[n:])
		n += more
		if err != nil {
			break // nothing more, or an error that the next call meets again
		}
	}
	return n, nil
}
