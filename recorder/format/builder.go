package format

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"strings"
	"time"
)

// Builder turns events into the bytes of a file; it does no input or output. Add events, call Finish, write Bytes to
// the file, then Take for the next block. It is not safe for concurrent use.
type Builder struct {
	state State
	hash  hash.Hash
	buf   []byte // finished blocks, then the open one, which begins at open
	open  int    // -1 if no block is open
	last  uint64 // µs of the frame before, in the open block
	count int    // frames of the open block

	key    *Key  // with which blocks are locked; nil: none are
	strict *Key  // with which those with Strict events are; nil: key
	origin Chain // c_0
	locks  bool  // the open block will be
	closes bool  // with strict
}

// State is where a file stands after some block: what the next block depends on.
type State struct {
	Offset   int64  // the length of the file so far
	Number   uint64 // of the last block, 0 before the first
	Sequence uint64 // of the last frame
	Chain    Chain  // after the last block
	seed     uint32 // CRC-32C of c_0, with which each block's header crc begins
}

// Create returns the header of a new file, and a Builder for what follows it.
func Create(h Header) ([]byte, *Builder, error) { return CreateLocked(h, nil) }

// CreateLocked is Create for a recording that is locked with a key, the one in h.Lock: all but what must be in the clear.
// Nothing may be added once the key was wiped, but the ending.
func CreateLocked(h Header, key *Key) ([]byte, *Builder, error) {
	return CreateLockedTwice(h, key, nil)
}

// CreateLockedTwice is CreateLocked with another key, the one in h.Lock.Input, for Strict events.
func CreateLockedTwice(h Header, key, strict *Key) ([]byte, *Builder, error) {
	var salt [saltSize]byte
	rand.Read(salt[:]) // never fails
	header, chain, err := encodeHeader(salt, h)
	if err != nil {
		return nil, nil, err
	}
	b := Continue(State{Offset: int64(len(header)), Chain: chain, seed: seedOf(chain)})
	b.key, b.strict, b.origin = key, strict, chain
	return header, b, nil
}

// Continue returns a Builder that goes on with a file after what it has; see Reader.State.
func Continue(s State) *Builder {
	return &Builder{state: s, hash: sha256.New(), open: -1}
}

func seedOf(chain Chain) uint32 { return crc32.Checksum(chain[:], castagnoli) }

// Add appends an event, copying its Data. Events are to be given in order of At.
func (b *Builder) Add(e Event) error {
	if len(e.Data) > MaxEvent {
		return fmt.Errorf("an event of %d bytes cannot be recorded, at most %d will do", len(e.Data), MaxEvent)
	}
	at := uint64(max(e.At, 0) / time.Microsecond)
	locks := b.key != nil && !staysClear(e)
	closes := locks && e.Strict && b.strict != nil
	if b.open >= 0 && (b.locks != locks || b.closes != closes) {
		b.Finish()
	}
	b.locks, b.closes = locks, closes
	for data := e.Data; ; {
		piece := data[:min(len(data), MaxFrame)]
		data = data[len(piece):]
		b.add(frame{kind: e.Type, more: len(data) > 0, channel: e.Channel, data: piece}, at)
		if len(data) == 0 {
			return nil
		}
	}
}

func (b *Builder) add(f frame, at uint64) {
	if b.open >= 0 && (b.count == maxFrames || len(b.buf)-b.open-blockSize+maxFrameTop+lockedRoom+len(f.data) > MaxPayload) {
		b.Finish()
	}
	if b.open < 0 {
		b.open, b.count, b.last = len(b.buf), 0, 0
		var space [blockSize]byte
		b.buf = append(b.buf, space[:]...)
		if b.locks {
			b.buf = append(b.buf, space[:clearTop]...)
		}
	}
	at = max(at, b.last)
	f.delta, b.last = at-b.last, at
	b.buf = appendFrame(b.buf, f)
	b.count++
}

// Finish closes the open block, if there is one, so that Bytes are whole blocks.
func (b *Builder) Finish() { b.finish(0) }

// Seal adds the ending in a block of its own and marks the file as finished. Nothing may be added afterwards. Reason and
// Detail are cut to maxEnding bytes, so that the block is small: there must always be room for it, and Look looks
// for it at the end of the file.
func (b *Builder) Seal(end End, at time.Duration) error {
	b.Finish()
	end.Reason = strings.ToValidUTF8(end.Reason[:min(len(end.Reason), maxEnding)], "")
	end.Detail = strings.ToValidUTF8(end.Detail[:min(len(end.Detail), maxEnding)], "")
	e := JSON(TypeEnd, 0, end)
	e.At = at
	if err := b.Add(e); err != nil {
		return err
	}
	b.finish(flagSealed)
	return nil
}

func (b *Builder) finish(flags uint16) {
	if b.open < 0 {
		return
	}
	next := block{number: b.state.Number + 1, first: b.state.Sequence + 1, frames: uint16(b.count), flags: flags}
	if b.locks {
		next.flags |= flagLocked
		key := b.key
		if b.closes {
			next.flags |= flagStrict
			key = b.strict
		}
		b.buf = append(b.buf, make([]byte, lockedEnd)...)
		content := b.buf[b.open+blockSize : len(b.buf)-lockedEnd]
		key.lock(&next, b.origin, content, b.last)
	}
	head, payload := b.buf[b.open:b.open+blockSize], b.buf[b.open+blockSize:]
	next.length, next.sum = uint32(len(payload)), crc32.Checksum(payload, castagnoli)
	next.putSummed(head)
	b.state.Chain.advance(b.hash, head[:summedSize], payload)
	copy(head[summedSize:], b.state.Chain[:])
	binary.BigEndian.PutUint32(head[blockSize-4:], crc32.Update(b.state.seed, castagnoli, head[:blockSize-4]))
	b.state.Offset += int64(blockSize + len(payload))
	b.state.Number++
	b.state.Sequence += uint64(b.count)
	b.open = -1
}

// advance makes c_i of the chain value c_(i-1).
func (c *Chain) advance(h hash.Hash, summed, payload []byte) {
	h.Reset()
	h.Write(blockTagBytes)
	h.Write(c[:])
	h.Write(summed)
	h.Write(payload)
	h.Sum(c[:0])
}

var blockTagBytes = []byte(blockTag)

// Bytes are the finished blocks and the open one as far as it is; valid until the next call.
func (b *Builder) Bytes() []byte { return b.buf }

// Len is the number of bytes waiting.
func (b *Builder) Len() int { return len(b.buf) }

// Take hands out the finished blocks and goes on with an empty buffer on spare's space. Call Finish first.
func (b *Builder) Take(spare []byte) []byte {
	taken := b.buf
	b.buf = spare[:0]
	return taken
}

// State is where the file stands once Bytes are written, if no block is open.
func (b *Builder) State() State { return b.state }

// Rewind forgets everything that was added since the file stood at s, which a failed write did not bring there.
func (b *Builder) Rewind(s State) {
	b.state, b.buf, b.open = s, b.buf[:0], -1
}
