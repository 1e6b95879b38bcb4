package interpret

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"

	"sallyport/recorder/format"
)

// files follows what both directions of one sftp stream say of the contents of files, to hash each file's as it passes: the
// recording keeps no contents from which that could be done later. A file's hash is of what was written or read by one handle from the
// beginning on and in order, which is how clients copy whole files; of anything else there is none.
//
// Safe for use by a goroutine in each direction.
type files struct {
	mu      sync.Mutex
	handles map[string]*[2]*contents // by handle: written, read
	reads   map[uint32]asked         // by id, until the answer
	whole   []format.Bulk            // of handles that were closed
}

// asked is a read without an answer yet.
type asked struct {
	of     *contents
	offset uint64
}

// contents are what passed of one file in one direction.
type contents struct {
	mu     sync.Mutex
	sum    hash.Hash
	shared bool   // sum is the stream's own, which is written elsewhere
	next   uint64 // the offset that comes next
	astray bool   // another came
}

// maxFollowed is how much of a packet is kept to follow it; the handle in it has at most 256 bytes.
const maxFollowed = headLength + 256 + 8 + 4

const (
	written = iota
	read
)

// NewFilters are filters for the two directions of one sftp stream that also hash each file: Whole of the client's has what is known
// so far. sums, if there are any, are the hashes to which the content functions of the client's Split and of the server's write all
// contents: as long as those are one file's, nothing is hashed twice.
func NewFilters(sums ...hash.Hash) (client, server *Filter) {
	f := &files{handles: map[string]*[2]*contents{}, reads: map[uint32]asked{}}
	client, server = NewFilter(true), NewFilter(false)
	client.files, server.files = f, f
	if len(sums) == 2 {
		client.stream, server.stream = sums[0], sums[1]
	}
	return client, server
}

// pass passes a piece of content on and adds it to its file. The first file of a stream shares the stream's hash, until there is
// content of another.
func (f *Filter) pass(piece []byte, content func([]byte)) {
	first := f.stream != nil && !f.began
	f.began = true
	if f.sharer != nil && f.sharer != f.of {
		f.sharer.part()
		f.sharer = nil
	}
	if f.of == nil {
		content(piece)
		return
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if first && f.of.next == 0 {
		f.of.sum, f.of.shared, f.sharer = f.stream, true, f.of
	}
	content(piece)
	f.of.add(piece)
}

// part gives the contents a hash of their own.
func (c *contents) part() {
	c.mu.Lock()
	defer c.mu.Unlock()
	own, err := c.sum.(hash.Cloner).Clone()
	if c.astray = c.astray || err != nil; err == nil {
		c.sum = own
	}
	c.shared = false
}

// packet is told of a packet without its content, and returns where the content that follows belongs.
func (f *files) packet(fromClient bool, packet []byte) *contents {
	kind, body := packet[4], sftpBody(packet[5:])
	id := body.uint32()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case fromClient && kind == sftpWrite:
		of := f.of(body.string(), written)
		of.at(body.uint64())
		return of
	case fromClient && kind == sftpRead:
		of := f.of(body.string(), read)
		if of != nil && len(f.reads) < sftpMaxPending {
			f.reads[id] = asked{of, body.uint64()}
		}
	case fromClient && kind == sftpClose:
		f.close(body.string())
	case !fromClient:
		if a, ok := f.reads[id]; ok {
			delete(f.reads, id)
			if kind == sftpData {
				a.of.at(a.offset)
				return a.of
			}
		}
	}
	return nil
}

// of are a handle's contents in one direction; nil where there are too many.
func (f *files) of(handle string, direction int) *contents {
	both := f.handles[handle]
	if both == nil {
		if len(f.handles) >= sftpMaxHandles {
			return nil
		}
		both = new([2]*contents)
		f.handles[handle] = both
	}
	if both[direction] == nil {
		both[direction] = &contents{sum: sha256.New()}
	}
	return both[direction]
}

func (f *files) close(handle string) {
	both := f.handles[handle]
	if both == nil {
		return
	}
	delete(f.handles, handle)
	for direction, c := range both {
		if c != nil {
			f.whole = append(f.whole, c.bulk(direction == written, hex.EncodeToString([]byte(handle))))
		}
	}
}

// at says at which offset the next bytes stand.
func (c *contents) at(offset uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.astray = c.astray || offset != c.next
}

// add is for who holds mu.
func (c *contents) add(data []byte) {
	if c.next += uint64(len(data)); !c.astray && !c.shared {
		c.sum.Write(data)
	}
}

func (c *contents) bulk(fromClient bool, stream string) format.Bulk {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := format.Bulk{FromClient: fromClient, Stream: stream, Bytes: int64(c.next), Why: WhyWhole}
	if !c.astray {
		b.SHA256 = hex.EncodeToString(c.sum.Sum(nil))
	}
	return b
}

// Whole are the hashes of the files that have been closed since the last call. The stream of each is the handle in hexadecimal.
func (f *Filter) Whole() []format.Bulk {
	if f.files == nil || f.content != sftpWrite {
		return nil
	}
	f.files.mu.Lock()
	defer f.files.mu.Unlock()
	whole := f.files.whole
	f.files.whole = nil
	return whole
}

// follow is told of a piece of a packet that is not content, after it was taken in.
func (f *Filter) follow(piece []byte, complete bool) {
	if f.files == nil {
		return
	}
	f.packet = append(f.packet, piece[:min(len(piece), maxFollowed-len(f.packet))]...)
	if complete {
		f.of = f.files.packet(f.content == sftpWrite, f.packet)
		f.packet = f.packet[:0]
	}
}
