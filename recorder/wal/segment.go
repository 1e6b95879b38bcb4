package wal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A segment is a file of the log, in use once or many times. All numbers are big-endian, sums are CRC-32C:
//
//	segment = header group*, each beginning at a multiple of 4096 bytes, zeros between
//	header  = "SWAL1\n" | salt (16 random bytes) | generation u64 | oldest u64 | first u64 | crc u32
//	group   = F5 53 57 01 | length u32 | number u64 | crc u32 | records (length bytes)
//	record  = name length u8 | name | offset u64 | length u32 | bytes
//
// The generation counts the uses of segments, oldest is the oldest generation that is still needed, first the number of
// the first group. A group's crc covers salt and generation of its segment, all of the group before it, and the records.
// The salt is new with every use and leaves the file nowhere: neither what an earlier use has left behind nor what a
// user of a session sends passes for a group. A group stands in blocks of its own, so what is safe is never written again.
const (
	extension  = ".wal"
	page       = 4096
	magic      = "SWAL1\n"
	saltSize   = 16
	headerSize = len(magic) + saltSize + 3*8 + 4
	groupMark  = "\xf5SW\x01"
	groupTop   = len(groupMark) + 4 + 8 + 4
	recordTop  = 1 + 8 + 4 // of a record beside its name and bytes
	maxOffset  = 1 << 48
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is how a segment begins.
type header struct {
	salt                      [saltSize]byte
	generation, oldest, first uint64
}

func (h *header) encode() []byte {
	b := make([]byte, 0, page)
	b = append(b, magic...)
	b = append(b, h.salt[:]...)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	b = binary.BigEndian.AppendUint64(b, h.oldest)
	b = binary.BigEndian.AppendUint64(b, h.first)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return b[:page]
}

// decodeHeader reports whether b begins like a segment in use.
func decodeHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) {
		return h, false
	}
	b = b[:headerSize]
	numbers := b[len(magic)+saltSize:]
	copy(h.salt[:], b[len(magic):])
	h.generation = binary.BigEndian.Uint64(numbers)
	h.oldest = binary.BigEndian.Uint64(numbers[8:])
	h.first = binary.BigEndian.Uint64(numbers[16:])
	return h, crc32.Checksum(b[:headerSize-4], castagnoli) == binary.BigEndian.Uint32(b[headerSize-4:])
}

// seed is where the sums of a segment's groups begin.
func (h *header) seed() uint32 {
	return crc32.Checksum(binary.BigEndian.AppendUint64(h.salt[:], h.generation), castagnoli)
}

// segment is one of the files of a log.
type segment struct {
	file File
	path string
	size int64
	zero bool // nothing but zeros stands in it

	// Of this use:
	generation uint64
	seed       uint32
	used       int64
	asked      bool                // for the next one
	files      map[Syncer]struct{} // that have records here and may not be synced
}

// begin makes the segment ready for its next use. The header is safe before the first group is written: else a loss of power
// could leave the header of the use before, and groups of that use overwritten, which looks like damage.
func (s *segment) begin(generation, oldest, first uint64) error {
	s.zero = false
	h := header{generation: generation, oldest: oldest, first: first}
	rand.Read(h.salt[:]) // never fails
	if _, err := s.file.WriteAt(h.encode(), 0); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	s.generation, s.seed, s.used, s.asked, s.files = generation, h.seed(), page, false, map[Syncer]struct{}{}
	return nil
}

// seal completes a group, whose records stand behind groupTop bytes of space, for its place in this segment.
func (s *segment) seal(b []byte, number uint64) []byte {
	copy(b, groupMark)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-groupTop))
	binary.BigEndian.PutUint64(b[8:], number)
	binary.BigEndian.PutUint32(b[16:], sumOf(s.seed, b))
	if rest := len(b) % page; rest > 0 {
		var zeros [page]byte
		b = append(b, zeros[rest:]...)
	}
	return b
}

// sumOf is the sum of a group that ends with b.
func sumOf(seed uint32, b []byte) uint32 {
	return crc32.Update(crc32.Update(seed, castagnoli, b[:groupTop-4]), castagnoli, b[groupTop:])
}

// parseGroup returns the number and the records of the group at the front of b, and its size in the file.
func parseGroup(b []byte, seed uint32) (number uint64, records []byte, size int, ok bool) {
	if len(b) < groupTop || string(b[:len(groupMark)]) != groupMark {
		return 0, nil, 0, false
	}
	length := binary.BigEndian.Uint32(b[4:])
	if uint64(length) > uint64(len(b)-groupTop) {
		return 0, nil, 0, false
	}
	end := groupTop + int(length)
	if sumOf(seed, b[:end]) != binary.BigEndian.Uint32(b[16:]) {
		return 0, nil, 0, false
	}
	return binary.BigEndian.Uint64(b[8:]), b[groupTop:end], min((end+page-1)/page*page, len(b)), true
}

func appendRecord(b []byte, name string, offset int64, data []byte) []byte {
	b = append(b, byte(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

var errRecord = errors.New("a group whose sum is right holds no records")

// parseRecord takes a record from the front of a group's.
func parseRecord(b []byte) (r Record, rest []byte, err error) {
	n := int(b[0])
	if len(b) < recordTop+n {
		return r, nil, errRecord
	}
	r.Name = string(b[1 : 1+n])
	b = b[1+n:]
	offset, length := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	b = b[12:]
	if offset > maxOffset || uint64(length) > uint64(len(b)) {
		return r, nil, errRecord
	}
	r.Offset, r.Data = int64(offset), b[:length:length]
	return r, b[length:], nil
}
