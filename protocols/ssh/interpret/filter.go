package interpret

import (
	"encoding/binary"
	"hash"
)

// sftp's packet types of the parts that carry the contents of files (draft-ietf-secsh-filexfer-02, section 3).
const (
	sftpWrite = 6
	sftpData  = 103
)

// sftpMaxPacket is the longest sftp packet that is taken for one. OpenSSH's own limit is 256 KiB; the rest is room for
// others. A stream that claims a longer one is not sftp as known here.
const sftpMaxPacket = 1 << 20

// headLength is how much of a packet must be seen to know where its content begins: length, type, id, one more length.
const headLength = 4 + 1 + 4 + 4

// Filter tells the contents of files apart from the rest of one direction of an sftp stream, however the stream is cut
// into pieces. Everything that is not certainly content counts as said. It holds no more than the head of a packet, and
// allocates nothing, unless it is one of NewFilters.
type Filter struct {
	content byte // the type whose payload is file content: sftpWrite or sftpData
	head    [headLength]byte
	seen    int    // bytes of the current packet so far
	keep    uint64 // bytes of it that count as said, once known
	whole   uint64 // all its bytes, once known
	opaque  bool   // the stream is not sftp: all of it counts as said

	files  *files    // nil: no file is hashed
	packet []byte    // what is not content of the current packet so far, as much of it as is followed
	of     *contents // where the content of the current packet belongs; nil: nowhere
	stream hash.Hash // of all contents, written by who is given them; nil: none
	began  bool      // there was content
	sharer *contents // whose hash stream is so far; nil: nobody's
}

// NewFilter is a filter for what the client sends (fromClient) or for what the server sends.
func NewFilter(fromClient bool) *Filter {
	if fromClient {
		return &Filter{content: sftpWrite}
	}
	return &Filter{content: sftpData}
}

// Split calls said and content with the pieces of chunk, in order. The pieces are parts of chunk.
func (f *Filter) Split(chunk []byte, said, content func([]byte)) {
	for len(chunk) > 0 {
		if f.opaque {
			said(chunk)
			return
		}
		n := f.step(chunk)
		if f.seen > 0 && f.keep > 0 && uint64(f.seen) >= f.keep {
			f.pass(chunk[:n], content)
			f.advance(chunk[:n])
		} else {
			said(chunk[:n])
			f.advance(chunk[:n])
		}
		chunk = chunk[n:]
	}
}

// step is how many bytes of chunk have the same fate.
func (f *Filter) step(chunk []byte) int {
	want := uint64(1)
	switch seen := uint64(f.seen); {
	case f.keep == 0: // one byte at a time until the head is known
	case seen < f.keep:
		want = f.keep - seen
	default:
		want = f.whole - seen
	}
	return int(min(want, uint64(len(chunk))))
}

// advance takes bytes of one fate into the packet.
func (f *Filter) advance(piece []byte) {
	if f.seen < len(f.head) {
		copy(f.head[f.seen:], piece)
	}
	f.seen += len(piece)
	if f.keep == 0 {
		f.decide()
	}
	if f.keep == 0 || uint64(f.seen) <= f.keep {
		f.follow(piece, f.keep > 0 && uint64(f.seen) == f.keep)
	}
	if f.keep > 0 && uint64(f.seen) == f.whole {
		f.seen, f.keep, f.whole = 0, 0, 0
	}
}

// decide works out keep and whole as soon as enough of the head is there.
func (f *Filter) decide() {
	keep, whole, known := extent(f.head[:min(f.seen, len(f.head))], f.content)
	switch {
	case !known:
	case whole == 0:
		f.opaque = true
	default:
		f.keep, f.whole = keep, whole
	}
}

// extent is how long the packet that begins with head is, and how much of it is not content. A whole of 0 means that it
// is none that is known here. known is false while head is too short to say.
func extent(head []byte, content byte) (keep, whole uint64, known bool) {
	if len(head) < 5 {
		return 0, 0, false
	}
	length := binary.BigEndian.Uint32(head[:4])
	if length == 0 || length > sftpMaxPacket {
		return 0, 0, true
	}
	whole = 4 + uint64(length)
	if head[4] != content || whole < headLength {
		return whole, whole, true
	}
	if len(head) < headLength {
		return 0, 0, false
	}
	keep = headLength // length, type, id, length of the data
	if content == sftpWrite {
		// length, type, id, handle, offset, length of the data
		keep += uint64(binary.BigEndian.Uint32(head[9:13])) + 8 + 4
	}
	return min(keep, whole), whole, true
}
