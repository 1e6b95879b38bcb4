package postgres

import (
	"context"

	"sallyport/protocols/postgres/interpret"
	"sallyport/protocols/postgres/wire"
	"sallyport/recorder"
	"sallyport/session"
)

// down passes on what the target answers: one read, one record, one write. It decides the session's ending unless somebody
// else ended it.
func (r *relay) down(context.Context) (why *ending) {
	b := r.target.Load()
	chunk := targetChunk{walker: wire.Walker{Limits: &wire.TargetLimits, Hold: hold}, settings: len(r.limits.settings) > 0}
	in := intake{from: b}
	var event [1]recorder.Event
	// Not held: a cut closes the target's end at once, also while this waits for a client that does not read.
	if in.each(false, func(arrived []byte) (int, error) {
		end, err := chunk.take(arrived)
		if err != nil {
			why = r.targetBroke(err)
			return 0, errEnough
		}
		if end == 0 {
			return 0, nil
		}
		r.due.Add(-chunk.ready)
		if data := chunk.log.Take(); len(data) > 0 {
			event[0] = recorder.Event{Type: interpret.TypeServer, Data: data}
			if r.session.Observe(event[:]...) != nil {
				why = undecided // the session is cut, and knows why
				return 0, errEnough
			}
		}
		r.fatal.Store(chunk.fatal)
		for _, changed := range chunk.changed {
			if err := r.limits.suits(map[string]string{changed[0]: changed[1]}); err != nil {
				why = r.limited(err)
				return 0, errEnough
			}
		}
		// Who said goodbye need not stay for the answers: what was sent is finished, and the session with it, so that it can
		// still be cut.
		if r.out.write(arrived[:end], chunk.boundary()) != nil && !r.terminated.Load() {
			why = r.clientEnded()
			return 0, errEnough
		}
		return end, nil
	}) != nil {
		return r.targetEnded(chunk.fatal || chunk.walker.Inside())
	}
	return why
}

// targetEnded is the ending where the target closed the connection. A client that does not know yet why is told.
func (r *relay) targetEnded(knows bool) *ending {
	select {
	case <-r.session.Done(): // it may have been the cut that closed it
	default:
		r.targetGone.Store(true)
	}
	if r.terminated.Load() {
		return clientClosed
	}
	var last []byte
	if !knows {
		last = appendFatal(nil, stateConnectionFailure, "the target closed the connection unexpectedly", "", "")
	}
	return &ending{session.Ending{Reason: session.EndTargetClosed, Sentence: "the target closed the connection"}, last}
}

// targetBroke is the ending where the target broke the framing.
func (r *relay) targetBroke(err error) *ending {
	last := appendFatal(nil, stateProtocolViolation, "the target broke the protocol", err.Error(), "")
	return &ending{session.Ending{Reason: session.EndTargetFailed, Sentence: "the target broke the protocol: " + err.Error()}, last}
}

// targetChunk walks what the target sent. After it has grown it allocates nothing, whatever comes.
type targetChunk struct {
	walker wire.Walker
	log    interpret.ServerLog
	ready  int64 // ReadyForQuery messages in the last take
	fatal  bool  // the last message was an error that ends the session
	last   byte  // the type of the last frame
	status byte  // of the last ReadyForQuery

	settings bool        // that the target tells of are looked at
	changed  [][2]string // the names and values in the last take
}

// boundary is where the last take ends.
func (c *targetChunk) boundary() boundary {
	inside := c.walker.Inside()
	return boundary{inside: inside, ready: c.last == 'Z' && !inside, status: c.status, passed: c.ready}
}

// take finds the whole frames, and parts of large ones, at the start of buf. They end at end; what is behind it must come
// again, with more.
func (c *targetChunk) take(buf []byte) (end int, err error) {
	c.ready, c.changed = 0, c.changed[:0]
	for end < len(buf) {
		p, err := c.walker.Next(buf[end:])
		if err != nil {
			return 0, err
		}
		if len(p.Data) == 0 {
			break
		}
		c.last = p.Type
		c.log.Add(p.Type, p.First, p.Length, p.Data)
		if p.First {
			c.fatal = p.Type == 'E' && isFatal(p.Data[wire.HeaderSize:])
		}
		if p.Type == 'Z' {
			c.ready++
			if p.First && len(p.Data) > wire.HeaderSize {
				c.status = p.Data[wire.HeaderSize]
			}
		}
		if p.Type == 'S' && c.settings && p.First && p.Last {
			if name, value, err := wire.DecodeParameterStatus(p.Data[wire.HeaderSize:]); err == nil {
				c.changed = append(c.changed, [2]string{name, value})
			}
		}
		end += len(p.Data)
	}
	return end, nil
}

// isFatal looks at the severity of an ErrorResponse, in the field that is not translated (PostgreSQL 9.6 and later).
func isFatal(body []byte) bool {
	for len(body) > 1 {
		field := body[0]
		value, rest, ok := wire.String(body[1:])
		if !ok || field == 0 {
			return false
		}
		if field == 'V' {
			return string(value) == "FATAL" || string(value) == "PANIC"
		}
		body = rest
	}
	return false
}
