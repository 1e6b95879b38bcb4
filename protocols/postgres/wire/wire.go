// Package wire is the PostgreSQL protocol (versions 3.0 to 3.2) as bytes: framing, start-up packets, `options`.
//
// It promises never to allocate for a length before that length was found within its cap, never to panic on any bytes,
// and to say the same about where a message ends as the server does: no length is ever recomputed. It knows nothing of
// connections, identities or recordings. Source of the formats: PostgreSQL 18 documentation, chapter 54.
package wire

import (
	"encoding/binary"
	"fmt"
)

// HeaderSize is the size of a frame's header: a type byte and a length that counts itself.
const HeaderSize = 5

// Caps on a frame's length field, as PostgreSQL itself has them (PQ_SMALL_MESSAGE_LIMIT, PQ_LARGE_MESSAGE_LIMIT and
// PG_MAX_AUTH_TOKEN_LENGTH).
const (
	SmallLimit = 10_000
	LargeLimit = 1<<30 - 2
	AuthLimit  = 65_535
)

// Limits says how large the length field of a frame of each type may be; 0 means that the type does not exist.
type Limits [256]uint32

// ClientLimits are the frames that a client may send once it is authenticated.
var ClientLimits = Limits{
	'Q': LargeLimit, 'P': LargeLimit, 'B': LargeLimit, 'F': LargeLimit, 'd': LargeLimit,
	'E': SmallLimit, 'D': SmallLimit, 'C': SmallLimit, 'H': SmallLimit, 'S': SmallLimit, 'X': SmallLimit,
	'c': SmallLimit, 'f': SmallLimit,
}

// TargetLimits are the frames that a server may send: any type, as a newer server may know more of them than we do.
var TargetLimits = func() (l Limits) {
	for i := range l {
		l[i] = 1<<31 - 1
	}
	return l
}()

// FrameError is the offence of a peer that broke the framing. What follows it can't be understood.
type FrameError struct {
	Type   byte
	Length uint32
	Limit  uint32 // 0: no such type
}

func (e *FrameError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("invalid frontend message type %d", e.Type)
	}
	return fmt.Sprintf("invalid message length %d of a message of type %q", int32(e.Length), e.Type)
}

// Piece is a frame, or a part of one that is too large to be held.
type Piece struct {
	Type byte
	// First and Last are both true of a whole frame. The first piece begins with the header.
	First, Last bool
	// Length is the whole frame's, header included; Data is this piece of it, and part of the buffer that was walked.
	Length int
	Data   []byte
}

// Walker finds the frames of a stream in place. A frame of up to Hold bytes comes out whole; of a larger one every part
// comes out as it arrives. The zero Walker with Limits and Hold set is ready.
type Walker struct {
	Limits *Limits
	Hold   int

	rest   int // bytes still to come of the frame that is passing in pieces
	length int
	typ    byte
}

// Next returns the piece at the start of b. An empty Data means that b holds no piece yet and more must be read.
func (w *Walker) Next(b []byte) (Piece, error) {
	if w.rest > 0 {
		n := min(w.rest, len(b))
		w.rest -= n
		return Piece{Type: w.typ, Last: w.rest == 0, Length: w.length, Data: b[:n]}, nil
	}
	if len(b) < HeaderSize {
		return Piece{}, nil
	}
	t, length := b[0], binary.BigEndian.Uint32(b[1:])
	if limit := w.Limits[t]; length < 4 || length > limit {
		return Piece{}, &FrameError{Type: t, Length: length, Limit: limit}
	}
	total := int(length) + 1
	if total <= len(b) {
		return Piece{Type: t, First: true, Last: true, Length: total, Data: b[:total]}, nil
	}
	if total <= w.Hold {
		return Piece{}, nil
	}
	w.typ, w.length, w.rest = t, total, total-len(b)
	return Piece{Type: t, First: true, Length: total, Data: b}, nil
}

// Inside reports whether the stream stands in the middle of a frame.
func (w *Walker) Inside() bool { return w.rest > 0 }
