package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"
)

// ErrNotRecording is wrapped by NewReader's error when a file's header can't be read.
var ErrNotRecording = errors.New("not a recording")

// Damage is a place in a file that is not what was written there. Reader.Next returns it and can be called again for
// what follows the damage.
type Damage struct {
	Offset int64  `json:"offset"` // in the file
	Length int64  `json:"length"` // bytes that could not be read; 0 where blocks are missing or the chain does not fit
	Block  uint64 `json:"block"`  // the number of the block that was expected there
	// Torn says that nothing good follows: this is what is left of a block that was being written when the gateway
	// died, or the end was damaged. What was acknowledged is never in it, unless it was changed later.
	Torn bool   `json:"torn"`
	What string `json:"what"`
}

func (d *Damage) Error() string {
	kind := "damaged"
	if d.Torn {
		kind = "torn off"
	}
	return fmt.Sprintf("%s at byte %d, in place of block %d: %s", kind, d.Offset, d.Block, d.What)
}

// Reader reads a recording from its start, in bounded memory, and checks all of it: sums, numbers, chain.
// It is not safe for concurrent use.
type Reader struct {
	src    io.Reader
	buf    []byte // read and not yet used
	room   int    // how much the buffer is made for
	eof    bool
	err    error // src's own failure
	header Header
	stored []byte // the header, as it stands in the file
	state  State
	hash   hash.Hash
	sealed bool
	lost   bool   // the bytes before were damage, or not read: take number and chain from the next block
	packed []byte // the blocks of the current pack that are still to come

	current block
	payload []byte // frames of the current block not yet given
	at      uint64 // µs of the last frame, in the current block
	latest  time.Duration
	open    *Event // an event that goes on in the next frame
	waiting *Damage
	follow  func(State)
	key     *Key  // opens locked blocks; nil: they are passed over
	strict  *Key  // and this one, those that are locked with the stricter of two
	origin  Chain // c_0
}

// NewReader reads the header. The error wraps ErrNotRecording if there is none, or it is damaged.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{src: src, hash: sha256.New()}
	if err := r.readHeader(); err != nil {
		if r.err != nil {
			return nil, r.err
		}
		return nil, fmt.Errorf("%w: %w", ErrNotRecording, err)
	}
	return r, nil
}

func (r *Reader) readHeader() error {
	size, err := headerSize(r.peek(prefixSize))
	if err != nil {
		return err
	}
	stored := r.peek(size)
	if len(stored) < size {
		return errors.New("the file ends within the header")
	}
	if r.header, err = decodeHeader(stored); err != nil {
		return err
	}
	r.stored = bytes.Clone(stored)
	r.state.Chain = firstChain(stored)
	r.state.seed, r.origin = seedOf(r.state.Chain), r.state.Chain
	r.skip(size)
	return nil
}

// Header is the recording's.
func (r *Reader) Header() Header { return r.header }

// Sealed reports whether the ending has been read.
func (r *Reader) Sealed() bool { return r.sealed }

// State is where the file stands after the last good block that was read: where it can be continued.
func (r *Reader) State() State { return r.state }

// Follow has f told of the state after each block that Next reads, from now on. What is damaged is told of as the file claims
// it; Next says that it is.
func (r *Reader) Follow(f func(State)) { r.follow = f }

// Latest is the At of the last frame that was read.
func (r *Reader) Latest() time.Duration { return r.latest }

// Next returns the next event, whose Data belong to the caller. The error is io.EOF at the end, *Damage where the file
// is not what was written, after which Next can be called again, or what the source said. An event of which the file
// has only the beginning is given as far as it goes.
func (r *Reader) Next() (Event, error) {
	for {
		if r.waiting != nil && r.open == nil {
			damage := r.waiting
			r.waiting = nil
			return Event{}, damage
		}
		if len(r.payload) == 0 {
			if r.waiting == nil {
				before := r.state.Number
				err := r.nextBlock()
				if r.follow != nil && r.state.Number != before {
					r.follow(r.state)
				}
				if damage, ok := errors.AsType[*Damage](err); ok {
					r.waiting = damage
				} else if err != nil && (r.open == nil || !errors.Is(err, io.EOF)) {
					return Event{}, err
				} else if err == nil {
					continue
				}
			}
			if r.open != nil {
				return r.take(), nil
			}
			continue
		}
		if e, ok := r.eventHere(); ok {
			return e, nil
		}
	}
}

// eventHere returns the next event that ends in the current block. What is left of the block then is the beginning of an
// event that goes on.
func (r *Reader) eventHere() (Event, bool) {
	for len(r.payload) > 0 {
		f, rest, _ := parseFrame(r.payload) // was checked when the block was read
		if r.open != nil && (r.open.Type != f.kind || r.open.Channel != f.channel || len(r.open.Data)+len(f.data) > MaxEvent) {
			return r.take(), true
		}
		r.payload = rest
		r.at += f.delta
		r.latest = time.Duration(r.at) * time.Microsecond
		if r.open == nil {
			r.open = &Event{Type: f.kind, At: r.latest, Channel: f.channel, Data: f.data}
		} else {
			r.open.Data = append(r.open.Data, f.data...)
		}
		if !f.more {
			return r.take(), true
		}
	}
	return Event{}, false
}

func (r *Reader) take() Event {
	e := *r.open
	r.open = nil
	return e
}

// nextBlock makes the next block the current one, or returns io.EOF or a *Damage. Where the damage is one of order and
// not of bytes, it makes the block the current one as well.
func (r *Reader) nextBlock() error {
	if r.err == ErrMore { //nolint:errorlint // as it was set
		r.err = nil
	}
	for len(r.packed) == 0 && string(r.peek(len(sectionMark))) == sectionMark {
		if err := r.nextSection(); err != nil {
			return err
		}
	}
	if len(r.packed) > 0 {
		return r.nextPacked()
	}
	next, what := r.blockHere()
	if r.err != nil {
		return r.err
	}
	if what != "" {
		if len(r.peek(1)) == 0 {
			return io.EOF
		}
		return r.resync(what)
	}
	if r.sealed {
		what = "a block follows the ending"
	}
	switch want := r.state.Number + 1; {
	case r.lost: // was reported with the damage before
	case next.number != want:
		what = fmt.Sprintf("block %d stands where block %d should", next.number, want)
	case next.first != r.state.Sequence+1:
		what = fmt.Sprintf("event %d stands where event %d should", next.first, r.state.Sequence+1)
	default:
		var summed [summedSize]byte
		next.putSummed(summed[:])
		if r.state.Chain.advance(r.hash, summed[:], next.payload); r.state.Chain != next.chain {
			what = "the block does not follow from what stands before it (chain)"
		}
	}
	damage := &Damage{Offset: r.state.Offset, Block: r.state.Number + 1, What: what}
	r.lost = false
	next.payload = bytes.Clone(next.payload)
	r.current, r.payload, r.at = next, next.payload, 0
	r.skip(blockSize + len(next.payload))
	r.state.Number, r.state.Chain = next.number, next.chain
	r.state.Sequence = next.first + uint64(next.frames) - 1
	r.sealed = r.sealed || next.flags&flagSealed != 0
	wrong, err := r.openCurrent()
	if err != nil {
		return err
	}
	if what == "" {
		what = wrong
	}
	if damage.What = what; what != "" {
		return damage
	}
	return nil
}

// blockHere returns the block at the current place without passing it, or says what is wrong with it.
func (r *Reader) blockHere() (block, string) {
	head := r.peek(blockSize)
	if len(head) < blockSize {
		return block{}, "the file ends within a block's header"
	}
	b, ok := parseBlock(head, r.state.seed)
	if !ok {
		return b, "no block's header stands here"
	}
	all := r.peek(blockSize + int(b.length))
	if len(all) < blockSize+int(b.length) {
		return b, "the file ends within a block"
	}
	b.payload = all[blockSize:]
	if crc32.Checksum(b.payload, castagnoli) != b.sum {
		return b, "the block's checksum is wrong"
	}
	makesSense := b.number > 0 && b.first > 0
	if r.header.Lock != nil && b.isLocked() {
		makesSense = makesSense && b.frames > 0 && len(b.payload) > lockedRoom && b.flags&flagSealed == 0 && (!b.isStrict() || r.header.Lock.Input != nil)
	} else {
		makesSense = makesSense && !b.isLocked() && !b.isStrict() && hasFrames(b.payload, uint64(b.frames))
	}
	if !makesSense {
		return b, "the block's content makes no sense"
	}
	return b, ""
}

// hasFrames reports whether a payload is so many frames, and at least one.
func hasFrames(payload []byte, want uint64) bool {
	frames := uint64(0)
	for len(payload) > 0 {
		var ok bool
		if _, payload, ok = parseFrame(payload); !ok {
			return false
		}
		frames++
	}
	return frames == want && frames > 0
}

// nextSection passes a section; the blocks of a pack are the next ones then. It returns a *Damage, also where only the
// order is wrong and what the section has can be read.
func (r *Reader) nextSection() error {
	s, body, what := r.sectionHere()
	if r.err != nil {
		return r.err
	}
	if what == "" && r.header.Lock != nil {
		what = "a section stands in a locked recording, which is never packed"
	}
	if what != "" {
		return r.resync(what)
	}
	switch {
	case r.sealed:
		what = "a section follows the ending"
	case r.lost:
	case s.number != r.state.Number+1:
		what = fmt.Sprintf("block %d stands where block %d should", s.number, r.state.Number+1)
	case s.first != r.state.Sequence+1:
		what = fmt.Sprintf("event %d stands where event %d should", s.first, r.state.Sequence+1)
	case s.chain != r.state.Chain:
		what = "the section does not follow from what stands before it (chain)"
	}
	damage := &Damage{Offset: r.state.Offset, Block: r.state.Number + 1, What: what}
	r.state.Number, r.state.Sequence, r.state.Chain = s.number-1, s.first-1, s.chain
	r.packed, r.lost = body, false
	r.skip(int(s.size()))
	if what != "" {
		return damage
	}
	return nil
}

// sectionHere returns the section at the current place without passing it, and a pack's body, or says what is wrong with
// it.
func (r *Reader) sectionHere() (s section, blocks []byte, what string) {
	head := r.peek(sectionTop)
	if len(head) < sectionTop {
		return s, nil, "the file ends within a section's header"
	}
	s, ok := parseSection(head, r.state.seed)
	if !ok {
		return s, nil, "no section's header stands here"
	}
	all := r.peek(int(s.size()))
	if len(all) < int(s.size()) {
		return s, nil, "the file ends within a section"
	}
	body, ok := s.bodyOf(all)
	switch {
	case !ok:
		return s, nil, "the section's checksum is wrong"
	case s.kind != kindPack:
		return s, nil, ""
	}
	unpacked, err := unpack().DecodeAll(body, nil)
	if err != nil || !hasBlocks(unpacked, s.blocks) {
		return s, nil, "the pack's content makes no sense"
	}
	return s, unpacked, ""
}

// hasBlocks reports whether a pack's body is so many blocks, and at least one.
func hasBlocks(body []byte, want uint32) bool {
	blocks := uint32(0)
	for len(body) > 0 {
		b, rest, ok := parseBrief(body)
		if !ok || !hasFrames(b.payload, b.frames) {
			return false
		}
		body = rest
		blocks++
	}
	return blocks == want && blocks > 0
}

// nextPacked makes the next block of the current pack the current one.
func (r *Reader) nextPacked() error {
	b, rest, _ := parseBrief(r.packed) // was checked when the pack was read
	r.packed = rest
	damage := &Damage{Offset: r.state.Offset, Block: r.state.Number + 1, What: "a block follows the ending"}
	next := b.block(r.state)
	r.state.take(&next, r.hash)
	next.payload = bytes.Clone(next.payload)
	r.current, r.payload, r.at = next, next.payload, 0
	if r.sealed {
		return damage
	}
	r.sealed = next.flags&flagSealed != 0
	return nil
}

// resync passes bytes that are no block, up to the next good one or the end.
func (r *Reader) resync(what string) error {
	damage := &Damage{Offset: r.state.Offset, Block: r.state.Number + 1, What: what}
	for {
		r.skip(1)
		chunk := r.peek(64 << 10)
		if r.err != nil {
			return r.err
		}
		at := bytes.Index(chunk, []byte(blockMark[:marked])) // which sections share
		switch {
		case at >= 0:
			r.skip(at)
			if r.goodHere() {
				r.lost = true
				damage.Length = r.state.Offset - damage.Offset
				if r.sealed {
					damage.What = "bytes follow the ending"
				}
				return damage
			}
		case len(chunk) < 64<<10: // the end
			r.skip(len(chunk))
			damage.Length = r.state.Offset - damage.Offset
			damage.Torn = !r.sealed
			if r.sealed {
				damage.What = "bytes follow the ending"
			}
			r.state.Offset = damage.Offset // a file is continued where its last good block ends
			r.buf, r.eof = nil, true
			return damage
		default:
			r.skip(len(chunk) - len(blockMark))
		}
	}
}

// goodHere reports whether something that can come next stands at the current place.
func (r *Reader) goodHere() bool {
	if string(r.peek(len(sectionMark))) == sectionMark {
		s, _, wrong := r.sectionHere()
		return wrong == "" && s.number > r.state.Number
	}
	next, wrong := r.blockHere()
	return wrong == "" && next.number > r.state.Number
}

// ErrMore is what a source says that has nothing more now and may have later. Next says so, too, and can be called again: it
// goes on where it was, and holds no buffer meanwhile if it stands between two blocks.
var ErrMore = errors.New("there is no more yet")

// Room for what is read ahead: little for who follows a session that says little, more while there is more.
const (
	roomLeast = 2 << 10
	roomMost  = 64 << 10
)

// peek returns the next n bytes without passing them; fewer only at the end or after a failure (r.err). They are valid
// until the next peek.
func (r *Reader) peek(n int) []byte {
	for len(r.buf) < n && !r.eof {
		if cap(r.buf)-len(r.buf) < 512 {
			r.room = max(r.room, roomLeast)
			grown := make([]byte, len(r.buf), max(2*len(r.buf), n, r.room))
			copy(grown, r.buf)
			r.buf = grown
		}
		read, err := r.src.Read(r.buf[len(r.buf):cap(r.buf)])
		r.buf = r.buf[:len(r.buf)+read]
		if len(r.buf) == cap(r.buf) {
			r.room = min(2*r.room, roomMost) // there is more
		}
		switch {
		case err == ErrMore: //nolint:errorlint // of a source that is made for it
			if r.err = err; len(r.buf) == 0 {
				r.buf = nil
			}
			return r.buf
		case err != nil:
			r.eof = true
			if err != io.EOF {
				r.err = err
			}
		}
	}
	return r.buf[:min(n, len(r.buf))]
}

func (r *Reader) skip(n int) {
	n = min(n, len(r.buf))
	r.buf = r.buf[n:]
	r.state.Offset += int64(n)
}

// EndOf returns the ending that an event of TypeEnd holds.
func EndOf(e Event) (End, error) {
	var end End
	if e.Type != TypeEnd {
		return end, fmt.Errorf("event of type %d is no ending", e.Type)
	}
	if err := json.Unmarshal(e.Data, &end); err != nil {
		return end, fmt.Errorf("ending: %w", err)
	}
	return end, nil
}
