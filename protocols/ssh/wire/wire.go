// Package wire is what stands between the SSH library and its connections: it reads and writes in larger pieces than the library would,
// has the first packets acknowledged at once, and ends a connection whose peer begins to change keys and does not go through with it.
package wire

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// Conn is a connection under the SSH library, which reads through a buffer of 4 KiB and writes through another, so that a
// packet of 32 KiB costs two reads and two writes, and wakes the peer twice. Conn reads further ahead while much comes, and
// holds the first part of a packet until its rest is there. It has no buffers while little passes.
type Conn struct {
	net.Conn
	came func(n int) // is told of what is read; nil: nobody

	// Of the one reader.
	ahead []byte // from readAhead; nil: none
	from  int
	to    int
	ack   func() // after each of the first reads; nil: nothing
	all   bool   // the last read had all there was
	reads int    // so far, up to promptReads

	mu   sync.Mutex
	held []byte // a full buffer of the library's, of a packet that goes on; from writeTogether
	late *time.Timer
	err  error // of a late write
}

const (
	// libraryBuffer is the size of the library's buffers.
	libraryBuffer = 4096
	aheadBuffer   = 64 << 10
	packetBuffer  = 40 << 10 // a packet of the library's, with room
	// heldTime is how long a part is held for its rest. Mostly the rest is there at once; but a packet may end exactly where
	// the library's buffer does.
	heldTime = time.Millisecond
	// promptReads is how many reads are acknowledged at once.
	promptReads = 64
)

var (
	readAhead     = sync.Pool{New: func() any { b := make([]byte, aheadBuffer); return &b }}
	writeTogether = sync.Pool{New: func() any { b := make([]byte, 0, packetBuffer); return &b }}
)

// New is a connection that tells came how much it reads; nil: nobody.
func New(conn net.Conn, came func(n int)) *Conn { return &Conn{Conn: conn, came: came} }

// Read implements net.Conn for one reader.
func (w *Conn) Read(p []byte) (int, error) {
	n, err := w.read(p)
	if w.came != nil && n > 0 {
		w.came(n)
	}
	if w.ack != nil && n > 0 {
		w.ack()
		if w.reads++; w.reads == promptReads {
			w.ack = nil
		}
	}
	return n, err
}

// Promptly has the first of what comes on the socket under the connection acknowledged at once. OpenSSH, client and server, has
// TCP hold small packets back until the one before is acknowledged, up to the moment a terminal runs; and a kernel that expects an
// answer to go out soon keeps the acknowledgement for it, 40 ms. In a handshake both happen twice: who sends two packets and then
// wants an answer waits for nothing.
func (w *Conn) Promptly(socket net.Conn) *Conn {
	w.ack = acknowledger(socket)
	return w
}

func (w *Conn) read(p []byte) (int, error) {
	if w.ahead == nil {
		if w.all {
			// Nothing is there, most likely: those whom what came has woken go first, before a read that only finds that out.
			// It is a tenth of what the gateway adds to a key's echo.
			runtime.Gosched()
		}
		n, err := w.Conn.Read(p)
		w.all = n < len(p)
		// There is more. Not during the first reads: of a peer that fails before it is known the library's reader can stay for good, with
		// all that it has.
		if n == len(p) && n >= libraryBuffer && w.ack == nil {
			w.ahead = *readAhead.Get().(*[]byte)
			w.from, w.to = 0, 0
		}
		return n, err
	}
	if w.from == w.to {
		n, err := w.Conn.Read(w.ahead)
		if w.from, w.to = 0, n; err != nil && n == 0 {
			w.slow()
			return 0, err
		}
	}
	n := copy(p, w.ahead[w.from:w.to])
	if w.from += n; w.from == w.to && w.to < libraryBuffer {
		w.slow()
	}
	return n, nil
}

// slow gives the buffer back.
func (w *Conn) slow() {
	b := w.ahead
	w.ahead = nil
	readAhead.Put(&b)
}

// Write implements net.Conn.
func (w *Conn) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if w.held == nil {
		if len(p) != libraryBuffer {
			return w.Conn.Write(p)
		}
		w.held = append(*writeTogether.Get().(*[]byte), p...)
		if w.late == nil {
			w.late = time.AfterFunc(heldTime, w.flush)
		} else {
			w.late.Reset(heldTime)
		}
		return len(p), nil
	}
	w.late.Stop()
	w.held = append(w.held, p...)
	if err := w.send(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what is held when no rest has come.
func (w *Conn) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil {
		w.err = w.send()
	}
}

func (w *Conn) send() error {
	b := w.held
	w.held = nil
	_, err := w.Conn.Write(b)
	if b = b[:0]; cap(b) <= 2*packetBuffer {
		writeTogether.Put(&b)
	}
	return err
}

// Close implements net.Conn; what is held is written first, as it would have been.
func (w *Conn) Close() error {
	if w.mu.TryLock() { // else somebody is in a write, which closing ends
		if w.held != nil {
			_ = w.SetWriteDeadline(time.Now().Add(heldTime)) // where it fails, the write does
			_ = w.send()
		}
		w.mu.Unlock()
	}
	return w.Conn.Close()
}
