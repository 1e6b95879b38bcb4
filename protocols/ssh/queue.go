package ssh

import (
	"sync"

	xssh "golang.org/x/crypto/ssh"
)

const (
	// maxQueued is how many requests of one channel may wait for their turn.
	maxQueued = 256
	// maxQueuedBytes is how large they may be together; one alone may be as large as a packet.
	maxQueuedBytes = 512 << 10
)

// queue holds one direction's requests of one channel or connection, so that one that waits for an answer holds up neither other
// channels nor the library's reader.
type queue struct {
	mu    sync.Mutex
	ready *sync.Cond
	items []*xssh.Request
	bytes int // of the items' payloads
	ended bool
}

func newQueue() *queue {
	q := &queue{}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// feed takes requests in until there are no more. Changes of the window that wait one behind the other become one, the
// last. When too many wait, it calls flooded once, which must not wait, and refuses the rest.
func (q *queue) feed(requests <-chan *xssh.Request, flooded func()) {
	full := false
	for r := range requests {
		if !full && q.add(r) {
			continue
		}
		if !full {
			full = true
			flooded()
		}
		_ = r.Reply(false, nil) // a failed write shows in the connection's end
	}
	q.end()
}

// end says that no more come.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.ready.Broadcast()
}

// add reports whether there was room.
func (q *queue) add(r *xssh.Request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := len(q.items) - 1
	switch {
	case last >= 0 && mergeable(r) && mergeable(q.items[last]):
		q.bytes += len(r.Payload) - len(q.items[last].Payload)
		q.items[last] = r
	case len(q.items) < maxQueued && q.bytes+len(r.Payload) <= maxQueuedBytes:
		q.bytes += len(r.Payload)
		q.items = append(q.items, r)
	default:
		return false
	}
	q.ready.Signal()
	return true
}

// mergeable says that only the last of several matters.
func mergeable(r *xssh.Request) bool { return r.Type == "window-change" && !r.WantReply }

// next waits for the next request; false after the last.
func (q *queue) next() (*xssh.Request, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.ended {
		q.ready.Wait()
	}
	if len(q.items) == 0 {
		return nil, false
	}
	r := q.items[0]
	q.items = q.items[1:]
	q.bytes -= len(r.Payload)
	return r, true
}
