package postgres

import (
	"context"
	"crypto/sha256"
	"hash"
	"math"

	"sallyport/protocols/postgres/interpret"
	"sallyport/protocols/postgres/wire"
	"sallyport/recorder"
	"sallyport/session"
)

// keepCopy is how many bytes of the client's data are kept of one COPY, unless the target says otherwise; of the rest,
// length and hash.
const keepCopy = 64 << 10

// up passes on what the client says: one read, one record, one write. It decides the session's ending unless the client
// said goodbye, or somebody else ended it.
func (r *relay) up(ctx context.Context) (why *ending) {
	chunk := clientChunk{walker: wire.Walker{Limits: &wire.ClientLimits, Hold: hold}, sum: sha256.New(), whole: keepCopy}
	if bulk := r.session.Opening().Target.Bulk; bulk > 0 {
		chunk.whole = int(min(int64(bulk), math.MaxInt32))
	}
	if r.limits.guard != nil {
		chunk.walker.Hold, chunk.check = guardedHold, r.limits.guard.Check
	}
	in := intake{from: r.client}
	// The client's end is not closed before this has returned, so it may be held.
	if in.each(true, func(arrived []byte) (taken int, err error) {
		for {
			var end int
			if chunk.dropping != 0 {
				end, why = r.drop(&chunk, arrived[taken:])
			} else {
				end, why, err = r.passUp(ctx, &chunk, arrived[taken:])
			}
			if err != nil || why != nil {
				return 0, errEnough
			}
			taken += end
			// A refused statement ends what is looked at in one go, and so does the end of what is dropped with it.
			if !chunk.again || taken == len(arrived) {
				return taken, nil
			}
		}
	}) != nil {
		return r.clientEnded()
	}
	return why
}

// passUp passes on what it can of what has arrived and says how much that was. An ending ends the session; errEnough
// leaves that to the other direction.
func (r *relay) passUp(ctx context.Context, chunk *clientChunk, arrived []byte) (end int, why *ending, err error) {
	end, err = chunk.take(arrived)
	if err != nil {
		return 0, r.violated(err), nil
	}
	if end > 0 {
		r.due.Add(chunk.ready)
		r.asked += chunk.ready
		r.unsynced.Store(chunk.unsynced)
		pass, err := r.session.Admit(ctx, chunk.events...)
		if err != nil {
			return 0, nil, errEnough // the session is cut, and knows why
		}
		if chunk.goodbye {
			r.terminated.Store(true) // before the target can act on it
		}
		if r.target.Load().PassOn(&pass, arrived[:end]) != nil || chunk.goodbye {
			return 0, nil, errEnough // the other direction learns what became of the target
		}
	}
	if chunk.refused != nil {
		return end, r.refuse(chunk), nil //nolint:nilerr // the refusal is what the client is told
	}
	return end, nil, nil
}

// clientEnded is the ending where the client closed the connection. It does so, too, on hearing that the target's session is
// over, and is often faster than the target.
func (r *relay) clientEnded() *ending {
	if r.fatal.Load() {
		return r.targetEnded(true)
	}
	return clientClosed
}

// violated is the ending where the client broke the framing.
func (r *relay) violated(err error) *ending {
	last := appendFatal(nil, stateProtocolViolation, err.Error(), "What follows can't be understood, so nothing of it was passed on.", "")
	return &ending{session.Ending{Reason: session.EndProtocolViolation, Sentence: "the client broke the protocol: " + err.Error()}, last}
}

// clientChunk walks what the client sent and makes the events that must be safe before it may pass. After it has grown it
// allocates nothing, whatever comes.
type clientChunk struct {
	walker wire.Walker
	events []recorder.Event // of the last take; they point into its buffer
	bulk   []byte           // data of the events about what is left out

	ready    int64 // how many messages of the last take have a ReadyForQuery as answer
	unsynced bool  // extended messages were sent, and no Sync after them
	goodbye  bool  // a Terminate is in it; nothing after it is taken

	check    func(sql []byte) error // nil: every statement may pass
	refused  error                  // why the frame at the end of the last take may not
	text     []byte                 // its statement, as far as it is there
	kind     byte                   // its type
	dropping byte                   // what is dropped: 'Q' that frame, 'S' everything up to a Sync; 0 nothing
	again    bool                   // what is left can be looked at now

	whole   int       // is kept of one COPY
	kept    int       // of the COPY under way
	leaving bool      // the frame that is passing is left out
	sum     hash.Hash // of all that was left out
	digest  [sha256.Size]byte
}

// take finds the whole frames, and parts of large ones, at the start of buf. They end at end; what is behind it must come
// again, with more.
func (c *clientChunk) take(buf []byte) (end int, err error) {
	c.events, c.bulk, c.ready = c.events[:0], c.bulk[:0], 0
	c.refused, c.again = nil, false
	rawStart, leaving := 0, false // of the run of frames that are kept or left out
	var frames, bytes uint64
	for end < len(buf) && !c.goodbye {
		before := c.walker
		p, err := c.walker.Next(buf[end:])
		if err != nil {
			return 0, err
		}
		if len(p.Data) == 0 {
			break
		}
		if c.check != nil && p.First && !c.mayPass(p) {
			c.walker = before
			break
		}
		if p.First {
			c.begin(p)
		}
		if c.leaving != leaving {
			if c.leaving {
				c.keep(buf[rawStart:end])
			} else {
				c.leave(frames, bytes)
				rawStart, frames, bytes = end, 0, 0
			}
			leaving = c.leaving
		}
		if leaving {
			payload := p.Data
			if p.First {
				payload = payload[wire.HeaderSize:]
				frames++
			}
			bytes += uint64(len(payload))
			c.sum.Write(payload)
		}
		end += len(p.Data)
	}
	if leaving {
		c.leave(frames, bytes)
	} else {
		c.keep(buf[rawStart:end])
	}
	return end, nil
}

// begin looks at a frame that begins.
func (c *clientChunk) begin(p wire.Piece) {
	c.leaving = false
	switch p.Type {
	case 'd':
		if c.leaving = c.kept+p.Length > c.whole; !c.leaving {
			c.kept += p.Length
		}
		return
	case 'S':
		c.ready++
		c.unsynced = false
	case 'Q', 'F':
		c.ready++
		c.unsynced = false
	case 'P', 'B', 'D', 'E', 'C':
		c.unsynced = true
	case 'X':
		c.goodbye = true
	}
	if p.Type != 'S' && p.Type != 'H' { // both may stand between CopyData
		c.kept = 0
	}
}

func (c *clientChunk) keep(data []byte) {
	if len(data) > 0 {
		c.events = append(c.events, recorder.Event{Type: interpret.TypeClient, Data: data})
	}
}

func (c *clientChunk) leave(frames, bytes uint64) {
	start := len(c.bulk)
	c.bulk = interpret.AppendClientBulk(c.bulk, frames, bytes, c.sum.Sum(c.digest[:0]))
	c.events = append(c.events, recorder.Event{Type: interpret.TypeClientBulk, Data: c.bulk[start:]})
}
