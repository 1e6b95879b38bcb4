package wire

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
)

// ChunkSize is the size of the buffers that Borrow lends: what one read takes at most.
const ChunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { return new([ChunkSize]byte) }}

// Borrow lends a buffer for what has arrived. An idle session holds none, so thousands of them are cheap.
func Borrow() *[ChunkSize]byte { return chunks.Get().(*[ChunkSize]byte) }

// GiveBack gives a borrowed buffer back; nobody may hold on to what is in it.
func GiveBack(b *[ChunkSize]byte) { chunks.Put(b) }

// Ahead is a connection that reads as much as has arrived in one system call. It stands under TLS, whose own reads are
// small, and it can tell whether bytes arrived that nobody asked for. One goroutine reads at a time, and another may write.
type Ahead struct {
	net.Conn
	buf        []byte           // what is buffered is in here
	borrowed   *[ChunkSize]byte // the same, within Arrivals, and only while something is buffered
	start, end int
	// onlyBuffered makes Read fail with ErrNothing instead of looking for more.
	onlyBuffered bool

	socket socket // while Arrivals runs

	// Not only the writer writes: TLS answers some records while it reads.
	writing sync.Mutex
	corked  bool   // what is written is kept together
	held    []byte // of that
	out     sender // once Arrivals has run
}

// NewAhead wraps a connection from which nothing was read yet.
func NewAhead(c net.Conn) *Ahead { return &Ahead{Conn: c} }

// ErrNothing says that nothing more has arrived. It is to crypto/tls what a passing error of a socket is: it keeps what it
// has of a record and goes on next time.
var ErrNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing more has arrived" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }
func (nothing) Unwrap() error   { return os.ErrDeadlineExceeded }

// Read gives what is buffered, or else waits for more; within Arrivals it looks for more and does not wait.
func (a *Ahead) Read(p []byte) (int, error) {
	if a.Buffered() == 0 {
		if a.onlyBuffered {
			return 0, ErrNothing
		}
		if len(p) >= ChunkSize/2 { // as large as our own
			return a.take(p)
		}
		if err := a.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, a.buf[a.start:a.end])
	if a.start += n; a.start == a.end {
		a.release()
	}
	return n, nil
}

// take reads from the connection.
func (a *Ahead) take(p []byte) (int, error) {
	if a.socket.open {
		return a.socket.receive(p)
	}
	return a.Conn.Read(p)
}

// fewAtFirst is the size of the buffer before Arrivals, where a connection has proven nothing yet and may wait for long.
const fewAtFirst = 4 << 10

func (a *Ahead) fill() error {
	switch {
	case a.socket.open && a.borrowed == nil:
		a.borrowed = Borrow()
		a.buf = a.borrowed[:]
	case a.buf == nil:
		a.buf = make([]byte, fewAtFirst)
	}
	n, err := a.take(a.buf)
	if n > 0 {
		a.start, a.end = 0, n
		return nil
	}
	a.release()
	return err
}

// release lets go of a buffer in which nothing is left.
func (a *Ahead) release() {
	a.start, a.end = 0, 0
	switch {
	case a.borrowed != nil:
		GiveBack(a.borrowed)
		a.buf, a.borrowed = nil, nil
	case a.socket.open:
		a.buf = nil
	}
}

// Peek returns the next byte without taking it, waiting for it if there is none.
func (a *Ahead) Peek() (byte, error) {
	if a.Buffered() == 0 {
		if err := a.fill(); err != nil {
			return 0, err
		}
	}
	return a.buf[a.start], nil
}

// Buffered is how many bytes have arrived and were not read.
func (a *Ahead) Buffered() int { return a.end - a.start }

// ReadArrived reads through conn, which is a itself or TLS on top of a, into b: it waits for the first byte (but within
// Arrivals) and then takes what has already arrived, without waiting. One TLS record holds at most 16 KiB; this is what
// makes one chunk of many records.
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

// Arrivals calls arrived at once and then whenever something has arrived, until it wants no more or fails, or the
// connection does: by a deadline, or because it was closed. arrived reads until ErrNothing. Between the calls no buffer is
// held.
//
// With holding the connection's descriptor is held while arrived runs, and Close waits for it. That spares the try to read
// that a wait of its own begins with, and a program that waits for answers would make one for each; it is for a
// connection that nobody closes in a hurry.
func (a *Ahead) Arrivals(holding bool, arrived func() (more bool, err error)) error {
	conn, ok := a.Conn.(syscall.Conn)
	if !ok {
		return a.each(arrived)
	}
	raw, err := conn.SyscallConn()
	if errors.Is(err, errors.ErrUnsupported) {
		return a.each(arrived)
	}
	if err != nil {
		return err
	}
	return a.wait(raw, holding, arrived)
}

// each is Arrivals for a connection that is no socket: arrived waits in its reads.
func (a *Ahead) each(arrived func() (bool, error)) error {
	for {
		if more, err := arrived(); err != nil || !more {
			return err
		}
	}
}

// Write writes, or keeps what is written for WriteWhole.
func (a *Ahead) Write(p []byte) (int, error) {
	a.writing.Lock()
	defer a.writing.Unlock()
	if a.corked {
		a.held = append(a.held, p...)
		return len(p), nil
	}
	return a.write(p)
}

// write is Write that keeps nothing. The lock is held.
func (a *Ahead) write(p []byte) (int, error) {
	if a.out.ready() {
		return a.out.write(p)
	}
	return a.Conn.Write(p)
}

// WriteWhole writes p through conn, which is a itself or TLS on top of a, in one system call, however many records TLS
// makes of it.
func (a *Ahead) WriteWhole(conn net.Conn, p []byte) error {
	if conn == net.Conn(a) || len(p) <= recordMost {
		_, err := conn.Write(p)
		return err
	}
	buf := Borrow()
	defer GiveBack(buf)
	a.writing.Lock()
	a.corked, a.held = true, buf[:0]
	a.writing.Unlock()
	_, err := conn.Write(p)
	a.writing.Lock()
	defer a.writing.Unlock()
	held := a.held
	a.corked, a.held = false, nil
	if err != nil {
		return err
	}
	_, err = a.write(held)
	return err
}

// recordMost is how much one record of TLS carries.
const recordMost = 16 << 10
