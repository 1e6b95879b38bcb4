package postgres

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"net"
	"slices"
	"sync"
	"time"

	"sallyport/protocols/postgres/server"
	"sallyport/protocols/postgres/wire"
	"sallyport/session"
)

// Keys under 3.0 are four bytes, as clients insist; under 3.2 they are as long as a server's own.
const (
	shortKey = 4
	longKey  = 32
)

// Four bytes can be guessed by who may guess fast. Only so many requests are looked at at a time, and one with a wrong key
// keeps its place for a while.
const (
	cancelPlaces  = 16
	cancelPenalty = 250 * time.Millisecond
)

// cancelEntry is a session that can be cancelled.
type cancelEntry struct {
	relay *relay
	given wire.Cancel // what the client was given
	real  wire.Cancel // what the target gave
}

// cancels are the open sessions by process id; two targets can have the same.
type cancels struct {
	places chan struct{}
	mu     *sync.Mutex
	byPID  map[uint32][]*cancelEntry
}

func newCancels() cancels {
	return cancels{places: make(chan struct{}, cancelPlaces), mu: &sync.Mutex{}, byPID: map[uint32][]*cancelEntry{}}
}

// add makes a session known under a key of its own.
func (c *cancels) add(r *relay, real wire.Cancel, version uint32) (*cancelEntry, error) {
	size := shortKey
	if version >= wire.Version32 {
		size = longKey
	}
	key := make([]byte, size)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	e := &cancelEntry{relay: r, given: wire.Cancel{PID: real.PID, Key: key}, real: real}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byPID[real.PID] = append(c.byPID[real.PID], e)
	return e, nil
}

func (c *cancels) remove(e *cancelEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := slices.DeleteFunc(c.byPID[e.given.PID], func(other *cancelEntry) bool { return other == e })
	if len(rest) == 0 {
		delete(c.byPID, e.given.PID)
	} else {
		c.byPID[e.given.PID] = rest
	}
}

func (c *cancels) find(asked wire.Cancel) *cancelEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found *cancelEntry
	for _, e := range c.byPID[asked.PID] {
		if subtle.ConstantTimeCompare(e.given.Key, asked.Key) == 1 {
			found = e
		}
	}
	return found
}

// cancel passes a CancelRequest on to the target of the session whose key it has. There is no answer; that the connection
// closes says that it was passed on.
func (h *Handler) cancel(ctx context.Context, c *client, packet wire.Packet) {
	ctx, stop := context.WithTimeout(ctx, h.timeout)
	defer stop()
	asked, err := packet.Cancel()
	if err != nil {
		h.authn.Unauthenticated(strangerStartup, c.raw.RemoteAddr())
		return
	}
	select {
	case h.cancels.places <- struct{}{}:
		defer func() { <-h.cancels.places }()
	case <-ctx.Done():
		return
	}
	e := h.cancels.find(asked)
	if e == nil {
		h.authn.Unauthenticated(strangerCancel, c.raw.RemoteAddr())
		select {
		case <-time.After(cancelPenalty):
		case <-ctx.Done():
		}
		return
	}
	if err := e.relay.cancelTarget(ctx, "the client asked for it, from "+c.raw.RemoteAddr().String()); err != nil {
		h.log.Warn("a cancel request could not be passed on", "session", e.relay.session.ID(), "error", err)
	}
}

// cancelTarget asks the target to stop what the session runs.
func (r *relay) cancelTarget(ctx context.Context, why string) error {
	b := r.target.Load()
	return r.session.Act(ctx, session.Act{Kind: session.ActCancel, Reason: why, Do: func(_ context.Context, conn net.Conn) (string, error) {
		return "asked", server.SendCancel(conn, r.credentials.Target, b.Key)
	}})
}
