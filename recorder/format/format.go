// Package format is the file that a recording is: how events become bytes, and bytes events again.
//
// A file is append-only. It begins with a header that says who, what and why, and goes on with blocks. A block is what
// was made safe by one write: it is there whole or it is not there, it names its place, and it carries a running hash
// over everything before it. So a reader can always tell a file that merely stops (the gateway died) from one in which
// something was changed, and needs no key to do so.
//
// This file is the whole layout; docs/recordings.md says the same in prose. All fixed-size numbers are big-endian;
// "varint" is an unsigned LEB128 number as in encoding/binary.
//
//	file    = header block*                            while it is written
//	        | header (pack | key)* index block         packed, once it was ended: the last block has the ending
//	header  = magic "SREC1\n" | salt (16 random bytes) | length u32 | JSON of Header | crc u32
//	block   = sync F5 53 42 01 | length u32 | number u64 | first u64 | frames u16 | flags u16 | payload crc u32
//	          | chain (32 bytes) | header crc u32 | payload (length bytes)
//	payload = frame* | (last u64 | AES-256-GCM of frame*, with its tag)      the latter if the block is locked
//	frame   = kind varint | Δt varint | channel varint | length varint | bytes
//	section = F5 53 50 01 | length u32 | kind u16 | flags u16, 0 | blocks u32 | number u64 | first u64 | content u64
//	          | body crc u32 | chain (32 bytes) | header crc u32 | body (length bytes) | size u32
//
// The sums are CRC-32C (Castagnoli). The header's covers everything before it. A block's payload crc covers its payload;
// its header crc covers c_0 and everything of the block before the header crc. The chain is SHA-256:
//
//	c_0 = SHA-256("sallyport srec header\n" ‖ the file's header, with its crc)
//	c_i = SHA-256("sallyport srec block\n" ‖ c_(i-1) ‖ block i from sync to payload crc ‖ its payload)
//
// c_0 depends on the salt, which leaves the file nowhere. So no bytes of another or an older file pass for a block of
// this one, nor do bytes that a user of the session made look like a block.
//
// Blocks are numbered from 1, frames from 1 through the whole file; first is the number of the block's first frame.
// Flag 1 (Sealed) marks the block with the ending, after which nothing follows.
//
// Flag 2 (Locked) marks a block that is locked with the recording's key, which Header.Lock has for its recipients. Its nonce
// is four zero bytes and the block's number; the associated data is c_0 | number | first | frames | flags | last, where
// last is the time of its last frame in µs. Sums and chain are over what is stored, and need no key. In a locked recording
// only endings, notes and the target's connection may stand in the clear, and nothing is packed.
//
// Flag 4 (Strict), beside flag 2, marks one that is locked with another key, which Header.Lock.Input has: what was typed, and
// parameters of statements. Behind what it has comes an event of TypeStandIn, for those who have the first key alone. A reader that does not know
// the flag takes such a block for one that does not open.
//
// A frame's kind is twice the event's Type, plus 1 where the next frame goes on with the same event: Data above
// MaxFrame bytes is cut into several frames that follow each other directly. Δt is in microseconds, since the frame
// before it in the block; for a block's first frame, since Header.Started.
//
// A packed file is the same recording in less room: it has the same header, and its packs are the blocks without what can
// be computed again, so that every chain value is what it was before. Pack, key and index are sections, whose body is
// zstd (RFC 8878) of:
//
//	pack  (kind 1) = (frames varint | flags varint | length varint | payload)*, one for each block
//	key   (kind 2) = what a protocol's interpreter knew at this place, so that reading can begin here
//	index (kind 3) = (Δoffset varint | Δat varint)*, one for each key: where it stands in the file, and the time of the last
//	                 frame before it in µs, each as the difference to the key before
//
// number and first are those of the first block in or after the section, chain is the chain value before it: a pack whose
// blocks do not lead from its own chain value to the next section's was changed. blocks counts a pack's blocks; content is
// how long those were, and in the index how long the whole file was. size is that of the whole section, so that the index
// can be found from the end. The sums are as a block's. Keys and index are derived from the rest: they make reading at
// some place quick, and are no evidence.
package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// The bounds of the format. A reader refuses what is beyond them before it allocates.
const (
	MaxHeader  = 256 << 10 // bytes of the header's JSON
	MaxFrame   = 1 << 20   // bytes of one frame's data
	MaxPayload = 2 << 20   // bytes of one block's payload
	MaxEvent   = 64 << 20  // bytes of one event's Data, joined from its frames
	maxFrames  = 1<<16 - 1 // frames of one block
	maxEnding  = 4 << 10   // bytes of an ending's reason and detail, each
	maxBody    = 4 << 20   // bytes of a section's body, unpacked
	packSize   = 1 << 20   // bytes after which a pack is closed, as soon as a key can follow it,
	packMost   = 2 << 20   // and at the latest
)

const (
	magic       = "SREC1\n"
	blockMark   = "\xf5SB\x01"
	headerTag   = "sallyport srec header\n"
	blockTag    = "sallyport srec block\n"
	saltSize    = 16
	prefixSize  = len(magic) + saltSize + 4 // of the file header, before the JSON
	summedSize  = 32                        // of a block: from sync to payload crc
	blockSize   = summedSize + ChainSize + 4
	maxFrameTop = 3*binary.MaxVarintLen64 + binary.MaxVarintLen32 // of a frame, before its bytes
)

// ChainSize is the length of a chain value.
const ChainSize = sha256.Size

// flagSealed marks the last block of a finished recording.
const flagSealed = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Chain is a running hash over a file up to some block.
type Chain [ChainSize]byte

// encodeHeader returns the file header and c_0.
func encodeHeader(salt [saltSize]byte, h Header) ([]byte, Chain, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, Chain{}, fmt.Errorf("recording header: %w", err)
	}
	if len(body) > MaxHeader {
		return nil, Chain{}, fmt.Errorf("recording header: %d bytes, at most %d will do", len(body), MaxHeader)
	}
	b := make([]byte, 0, prefixSize+len(body)+4)
	b = append(b, magic...)
	b = append(b, salt[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return b, firstChain(b), nil
}

// headerSize returns the size of the file header that begins with prefix, of which prefixSize bytes are needed.
func headerSize(prefix []byte) (int, error) {
	if len(prefix) < prefixSize || !bytes.HasPrefix(prefix, []byte(magic)) {
		return 0, errors.New("does not begin like a recording")
	}
	length := binary.BigEndian.Uint32(prefix[prefixSize-4:])
	if length > MaxHeader {
		return 0, fmt.Errorf("the header claims %d bytes, at most %d will do", length, MaxHeader)
	}
	return prefixSize + int(length) + 4, nil
}

// decodeHeader is the reverse of encodeHeader; b is the file header whole.
func decodeHeader(b []byte) (Header, error) {
	var h Header
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return h, errors.New("the header's checksum is wrong")
	}
	if err := json.Unmarshal(body[prefixSize:], &h); err != nil {
		return h, fmt.Errorf("the header is no JSON of a recording's header: %w", err)
	}
	return h, nil
}

func firstChain(header []byte) Chain {
	return sha256.Sum256(append([]byte(headerTag), header...))
}

// block is the fixed part of a block.
type block struct {
	length  uint32
	number  uint64
	first   uint64
	frames  uint16
	flags   uint16
	sum     uint32 // of the payload
	chain   Chain
	payload []byte
}

// putSummed writes the part of a block that the chain covers beside the payload: from sync to payload crc.
func (b *block) putSummed(to []byte) {
	copy(to, blockMark)
	binary.BigEndian.PutUint32(to[4:], b.length)
	binary.BigEndian.PutUint64(to[8:], b.number)
	binary.BigEndian.PutUint64(to[16:], b.first)
	binary.BigEndian.PutUint16(to[24:], b.frames)
	binary.BigEndian.PutUint16(to[26:], b.flags)
	binary.BigEndian.PutUint32(to[28:], b.sum)
}

// parseBlock reads a block's fixed part from the first blockSize bytes of from and reports whether its checksum holds.
func parseBlock(from []byte, seed uint32) (block, bool) {
	if len(from) < blockSize || string(from[:len(blockMark)]) != blockMark {
		return block{}, false
	}
	b := block{
		length: binary.BigEndian.Uint32(from[4:]),
		number: binary.BigEndian.Uint64(from[8:]),
		first:  binary.BigEndian.Uint64(from[16:]),
		frames: binary.BigEndian.Uint16(from[24:]),
		flags:  binary.BigEndian.Uint16(from[26:]),
		sum:    binary.BigEndian.Uint32(from[28:]),
	}
	copy(b.chain[:], from[summedSize:])
	sum := binary.BigEndian.Uint32(from[summedSize+ChainSize:])
	return b, sum == crc32.Update(seed, castagnoli, from[:summedSize+ChainSize]) && b.length <= MaxPayload
}

// frame is one frame as stored.
type frame struct {
	kind    Type
	more    bool // the next frame goes on with the same event
	delta   uint64
	channel uint32
	data    []byte
}

func appendFrame(to []byte, f frame) []byte {
	kind := uint64(f.kind) << 1
	if f.more {
		kind |= 1
	}
	to = binary.AppendUvarint(to, kind)
	to = binary.AppendUvarint(to, f.delta)
	to = binary.AppendUvarint(to, uint64(f.channel))
	to = binary.AppendUvarint(to, uint64(len(f.data)))
	return append(to, f.data...)
}

// parseFrame takes one frame from the front of a payload. The frame's data are a part of payload.
func parseFrame(payload []byte) (f frame, rest []byte, ok bool) {
	var n [4]uint64
	for i := range n {
		value, size := binary.Uvarint(payload)
		if size <= 0 {
			return f, nil, false
		}
		n[i], payload = value, payload[size:]
	}
	if n[0]>>1 > 1<<16-1 || n[2] > 1<<32-1 || n[3] > MaxFrame || n[3] > uint64(len(payload)) {
		return f, nil, false
	}
	f = frame{kind: Type(n[0] >> 1), more: n[0]&1 != 0, delta: n[1], channel: uint32(n[2]), data: payload[:n[3]:n[3]]}
	return f, payload[n[3]:], true
}
