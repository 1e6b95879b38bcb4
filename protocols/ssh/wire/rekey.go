package wire

import (
	"crypto/rand"
	"net"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// Rekeyed is a client's connection that ends when the client begins a change of keys, or is asked for one, and does not go through
// with it. The library would wait for ever, and so would all that is to be written. It does not say when keys are changed, but two
// things can be seen of it:
//
//   - a change begins with the library's own offer, which it takes a cookie of 16 random bytes for (RFC 4253, section 7.1), and then
//     the padding of the packet; for every other packet it takes the padding alone, and then writes;
//   - while keys are changed nothing else is sent. So a request whose answer has come says that the change is over.
//
// A mistake in the first would cost a client one request more, that every client answers as it is what sshd asks to see whether
// somebody is there.
//
// It stands on top of the Conn.
type Rekeyed struct {
	net.Conn
	random atomic.Int32 // bytes of the last randomness that was taken and nothing written since; else 0

	mu    sync.Mutex
	ask   func() error  // asks the client for an answer, and waits for it; nil: not yet
	cut   func()        // ends the connection
	time  time.Duration // that a change may take
	timer *time.Timer   // of the change that is under way; nil: none
	again bool          // another has begun since the client was asked
}

const cookieSize = 16

// rekeyRandom is the library's randomness for the connection.
type rekeyRandom struct{ r *Rekeyed }

// Read implements io.Reader.
func (s rekeyRandom) Read(p []byte) (int, error) {
	if s.r.random.Swap(int32(len(p))) == cookieSize {
		s.r.begun()
	}
	return rand.Read(p)
}

// Write implements net.Conn.
func (r *Rekeyed) Write(p []byte) (int, error) {
	r.random.Store(0)
	return r.Conn.Write(p)
}

// Config is config for a server on the connection.
func (r *Rekeyed) Config(config *xssh.ServerConfig) *xssh.ServerConfig {
	config.Rand = rekeyRandom{r}
	return config
}

// Watch bounds changes of keys from now on; what comes before is bounded as a handshake.
func (r *Rekeyed) Watch(client xssh.Conn, limit time.Duration, cut func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.time, r.cut = limit, cut
	r.ask = func() error {
		_, _, err := client.SendRequest("keepalive@openssh.com", true, nil) // yes or no
		return err
	}
}

// begun is told that a change of keys begins. It does not wait.
func (r *Rekeyed) begun() {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ask == nil:
	case r.timer != nil:
		r.again = true
	default:
		r.timer = time.AfterFunc(r.time, r.cut)
		go r.over()
	}
}

// over waits until the change is over, or the connection.
func (r *Rekeyed) over() {
	for {
		err := r.ask()
		r.mu.Lock()
		r.timer.Stop()
		if err != nil || !r.again {
			r.timer = nil
			r.mu.Unlock()
			return
		}
		r.timer, r.again = time.AfterFunc(r.time, r.cut), false
		r.mu.Unlock()
	}
}
