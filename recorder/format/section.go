package format

import (
	"encoding/binary"
	"hash"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	marked         = 2 // bytes that a block's sync and a section's mark share
	sectionMark    = "\xf5SP\x01"
	sectionSummed  = 76 // of a section: from mark to chain
	sectionTop     = sectionSummed + 4
	sectionSizeEnd = 4 // the size behind the body
)

// The kinds of section.
const (
	kindPack  = 1
	kindKey   = 2
	kindIndex = 3
)

// section is the fixed part of a section.
type section struct {
	length  uint32
	kind    uint16
	blocks  uint32
	number  uint64
	first   uint64
	content uint64
	sum     uint32
	chain   Chain
}

// bodyOf returns the body as it is stored from the whole section, and whether its sum and size hold.
func (s *section) bodyOf(all []byte) ([]byte, bool) {
	body, end := all[sectionTop:sectionTop+s.length], all[sectionTop+s.length:]
	return body, crc32.Checksum(body, castagnoli) == s.sum && binary.BigEndian.Uint32(end) == uint32(s.size())
}

// size is how long the section is in the file.
func (s *section) size() int64 { return sectionTop + int64(s.length) + sectionSizeEnd }

// append appends the section with its body, as it is stored.
func (s section) append(to, body []byte, seed uint32) []byte {
	s.length, s.sum = uint32(len(body)), crc32.Checksum(body, castagnoli)
	start := len(to)
	to = append(to, sectionMark...)
	to = binary.BigEndian.AppendUint32(to, s.length)
	to = binary.BigEndian.AppendUint16(to, s.kind)
	to = binary.BigEndian.AppendUint16(to, 0)
	to = binary.BigEndian.AppendUint32(to, s.blocks)
	to = binary.BigEndian.AppendUint64(to, s.number)
	to = binary.BigEndian.AppendUint64(to, s.first)
	to = binary.BigEndian.AppendUint64(to, s.content)
	to = binary.BigEndian.AppendUint32(to, s.sum)
	to = append(to, s.chain[:]...)
	to = binary.BigEndian.AppendUint32(to, crc32.Update(seed, castagnoli, to[start:]))
	to = append(to, body...)
	return binary.BigEndian.AppendUint32(to, uint32(s.size()))
}

// parseSection reads a section's fixed part from the beginning of from and reports whether its checksum holds.
func parseSection(from []byte, seed uint32) (s section, ok bool) {
	if len(from) < sectionTop || string(from[:len(sectionMark)]) != sectionMark {
		return s, false
	}
	s = section{
		length:  binary.BigEndian.Uint32(from[4:]),
		kind:    binary.BigEndian.Uint16(from[8:]),
		blocks:  binary.BigEndian.Uint32(from[12:]),
		number:  binary.BigEndian.Uint64(from[16:]),
		first:   binary.BigEndian.Uint64(from[24:]),
		content: binary.BigEndian.Uint64(from[32:]),
		sum:     binary.BigEndian.Uint32(from[40:]),
	}
	copy(s.chain[:], from[44:])
	flags, sum := binary.BigEndian.Uint16(from[10:]), binary.BigEndian.Uint32(from[sectionSummed:])
	return s, sum == crc32.Update(seed, castagnoli, from[:sectionSummed]) && s.length <= maxBody && flags == 0 && s.number > 0 && s.first > 0
}

// unpack is shared: DecodeAll may be called by any number at once. It refuses what would unpack to more than maxBody.
var unpack = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderMaxWindow(maxBody), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // the options above are wrong
	}
	return d
})

// newPacker returns what makes bodies.
func newPacker() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(packSize), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
}

// brief is a block in a pack.
type brief struct {
	frames  uint64
	flags   uint64
	payload []byte
}

// block is the block whole, as it was written after s.
func (b *brief) block(s State) block {
	return block{
		length: uint32(len(b.payload)), number: s.Number + 1, first: s.Sequence + 1, frames: uint16(b.frames), flags: uint16(b.flags),
		sum: crc32.Checksum(b.payload, castagnoli), payload: b.payload,
	}
}

// take makes s the state after b, but for Offset.
func (s *State) take(b *block, h hash.Hash) {
	var summed [summedSize]byte
	b.putSummed(summed[:])
	s.Chain.advance(h, summed[:], b.payload)
	s.Number++
	s.Sequence += uint64(b.frames)
}

func appendBrief(to []byte, b *block) []byte {
	to = binary.AppendUvarint(to, uint64(b.frames))
	to = binary.AppendUvarint(to, uint64(b.flags))
	to = binary.AppendUvarint(to, uint64(len(b.payload)))
	return append(to, b.payload...)
}

// parseBrief takes one block from the front of an unpacked body.
func parseBrief(body []byte) (b brief, rest []byte, ok bool) {
	var n [3]uint64
	for i := range n {
		value, size := binary.Uvarint(body)
		if size <= 0 {
			return b, nil, false
		}
		n[i], body = value, body[size:]
	}
	if n[0] > maxFrames || n[1] > 1<<16-1 || n[2] > MaxPayload || n[2] > uint64(len(body)) {
		return b, nil, false
	}
	return brief{frames: n[0], flags: n[1], payload: body[:n[2]:n[2]]}, body[n[2]:], true
}
