package ssh

import (
	"bytes"
	"sync"
	"time"
)

// quiet watches the copying of a target's output, to know when what came before an exit status has gone out: the
// library hands over data and requests apart from each other. When the copier of a stream has been waiting for data for
// a while although the exit status is here, there was none before it. Waiting for the end of the output instead would
// hang on a background process that keeps it open.
type quiet struct {
	mu      sync.Mutex
	reads   uint64 // reads that have returned
	waiting bool   // in a read
	ended   bool
}

// quietTime is how long all streams must have been waiting.
const quietTime = 5 * time.Millisecond

// read runs one read.
func (q *quiet) read(f func([]byte) (int, error), buf []byte) (int, error) {
	q.set(func() { q.waiting = true })
	n, err := f(buf)
	q.set(func() { q.waiting, q.reads = false, q.reads+1 })
	return n, err
}

func (q *quiet) end() { q.set(func() { q.ended = true }) }

func (q *quiet) set(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

// state is how many reads have returned, and whether nothing is on its way to the client.
func (q *quiet) state() (reads uint64, idle bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reads, q.waiting || q.ended
}

// settle returns when all streams have been idle for a while, or stop is closed.
func settle(streams []*quiet, stop <-chan struct{}) {
	tick := time.NewTicker(quietTime)
	defer tick.Stop()
	for last, was := sum(streams); ; {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		reads, idle := sum(streams)
		if idle && was && reads == last {
			return
		}
		last, was = reads, idle
	}
}

func sum(streams []*quiet) (reads uint64, idle bool) {
	idle = true
	for _, q := range streams {
		n, i := q.state()
		reads += n
		idle = idle && i
	}
	return reads, idle
}

// banner finds an SSH server or client at the beginning of a tunnel's stream. Until it is sure it holds the bytes back.
type banner struct {
	held []byte
	sure bool
}

var sshBanner = []byte("SSH-")

// take returns the bytes that may go on, or found.
func (b *banner) take(data []byte) (pass []byte, found bool) {
	if b.sure {
		return data, false
	}
	b.held = append(b.held, data...)
	if n := min(len(b.held), len(sshBanner)); !bytes.Equal(b.held[:n], sshBanner[:n]) {
		b.sure = true
		return b.held, false
	}
	return nil, len(b.held) >= len(sshBanner)
}

// rest are the bytes held back, at the stream's end.
func (b *banner) rest() []byte {
	if b.sure {
		return nil
	}
	return b.held
}
