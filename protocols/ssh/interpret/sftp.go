package interpret

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"sallyport/recorder"
	"sallyport/recorder/format"
)

// The packets of sftp version 3 as OpenSSH speaks it (draft-ietf-secsh-filexfer-02; OpenSSH's PROTOCOL, section 4).
const (
	sftpOpen     = 3
	sftpClose    = 4
	sftpRead     = 5
	sftpSetstat  = 9
	sftpFsetstat = 10
	sftpOpendir  = 11
	sftpRemove   = 13
	sftpMkdir    = 14
	sftpRmdir    = 15
	sftpRename   = 18
	sftpSymlink  = 20
	sftpStatus   = 101
	sftpHandle   = 102
	sftpName     = 104
	sftpAttrs    = 105
	sftpExtended = 200
	sftpReply    = 201 // to sftpExtended
)

// Bounds on what a hostile peer can make the interpreter remember.
const (
	sftpMaxPending = 4096
	sftpMaxHandles = 1024
	sftpMaxNames   = 8 << 20 // bytes of all paths and handles together
)

var sftpStatusNames = map[uint32]string{
	1: "end of file", 2: "no such file", 3: "permission denied", 4: "failure", 5: "bad message",
	6: "no connection", 7: "connection lost", 8: "operation unsupported",
}

// sftpRequest is a request without an answer yet.
type sftpRequest struct {
	item   recorder.Item
	emit   bool   // the answer completes an item
	handle string // of read, write and close
	length int64  // of write
	open   bool   // the answer brings a handle
}

// sftpFile is an open handle.
type sftpFile struct {
	path          string
	directory     bool
	opened        time.Duration
	read, written int64
	failed        string         // the first thing that went wrong with it
	whole         [2]format.Bulk // the hash of what was written, and of what was read
}

// notWhole stands at a file of which there is no hash.
const notWhole = "none: it was not moved from its beginning on, in order and without a failure"

// whole is the hash of what passed of one file.
func (s *sftpSession) whole(b format.Bulk) {
	handle, err := hex.DecodeString(b.Stream)
	file := s.handles[string(handle)]
	if err != nil || file == nil {
		return
	}
	direction := read
	if b.FromClient {
		direction = written
	}
	file.whole[direction] = b
}

// hashed sets the item's hash, if there is one of as many bytes.
func (f *sftpFile) hashed(item *recorder.Item, direction int) {
	switch b := f.whole[direction]; {
	case b.Why == "": // of a recording in which files are not hashed, or not closed
	case b.SHA256 != "" && b.Bytes == item.Bytes && f.failed == "":
		item.SHA256 = b.SHA256
	default:
		item.Fields = map[string]string{"sha256": notWhole}
	}
}

// sftpSession follows one sftp subsystem: one item a file at its close, one a change of names or attributes.
type sftpSession struct {
	client, server sftpPackets
	pending        map[uint32]sftpRequest
	handles        map[string]*sftpFile
	names          int    // bytes of paths and handles in both
	lost           string // why it follows no more
}

func newSFTPSession() *sftpSession {
	return &sftpSession{
		client: sftpPackets{content: sftpWrite}, server: sftpPackets{content: sftpData},
		pending: map[uint32]sftpRequest{}, handles: map[string]*sftpFile{},
	}
}

// sftpPackets puts the packets of one direction together again, without the contents that a Filter took out.
type sftpPackets struct {
	content byte
	buffer  []byte
}

// add calls each with the packets that are complete now: type, and what follows it. It returns false when the stream is
// no sftp.
func (p *sftpPackets) add(data []byte, each func(kind byte, body sftpBody)) bool {
	p.buffer = append(p.buffer, data...)
	rest := p.buffer
	for {
		keep, whole, known := extent(rest[:min(len(rest), headLength)], p.content)
		if known && whole == 0 {
			p.buffer = nil
			return false
		}
		if !known || uint64(len(rest)) < keep {
			break
		}
		each(rest[4], sftpBody(rest[5:keep]))
		rest = rest[keep:]
	}
	p.buffer = append(p.buffer[:0], rest...)
	return true
}

// sftpBody reads a packet's fields; at its end they are zero.
type sftpBody []byte

func (b *sftpBody) uint32() uint32 {
	if len(*b) < 4 {
		*b = nil
		return 0
	}
	v := binary.BigEndian.Uint32(*b)
	*b = (*b)[4:]
	return v
}

func (b *sftpBody) uint64() uint64 { return uint64(b.uint32())<<32 | uint64(b.uint32()) }

func (b *sftpBody) string() string {
	n := b.uint32()
	if uint64(n) > uint64(len(*b)) {
		*b = nil
		return ""
	}
	s := string((*b)[:n])
	*b = (*b)[n:]
	return s
}

func (s *sftpSession) said(data []byte, at time.Duration) {
	if s.lost == "" && !s.client.add(data, func(kind byte, body sftpBody) { s.request(kind, body, at) }) {
		s.lose("the client's stream is not sftp")
	}
}

func (s *sftpSession) answered(data []byte, at time.Duration, emit func(recorder.Item)) {
	if s.lost == "" && !s.server.add(data, func(kind byte, body sftpBody) { s.answer(kind, body, at, emit) }) {
		s.lose("the server's stream is not sftp")
	}
}

func (s *sftpSession) lose(why string) {
	*s = sftpSession{lost: why, handles: s.handles, pending: s.pending, names: s.names}
}

// request remembers what the answer will complete.
func (s *sftpSession) request(kind byte, body sftpBody, at time.Duration) {
	if s.lost != "" || len(body) < 4 {
		return
	}
	id := body.uint32()
	r := sftpRequest{item: recorder.Item{Kind: recorder.ItemFile, At: at}, emit: true}
	i := &r.item
	switch kind {
	case sftpOpen:
		i.Command, i.Path = "open", printable(body.string())
		r.open, r.emit = true, false
	case sftpOpendir:
		i.Command, i.Path = "list", printable(body.string())
		r.open, r.emit = true, false
	case sftpClose:
		r.handle, r.emit = body.string(), false
		i.Command = "close"
	case sftpRead:
		r.handle, r.emit = body.string(), false
	case sftpWrite:
		r.handle, r.emit = body.string(), false
		body.uint64()
		r.length = int64(body.uint32())
	case sftpRemove:
		i.Command, i.Path = "remove", printable(body.string())
	case sftpMkdir:
		i.Command, i.Path = "mkdir", printable(body.string())
	case sftpRmdir:
		i.Command, i.Path = "rmdir", printable(body.string())
	case sftpSetstat:
		i.Command, i.Path = "setstat", printable(body.string())
		i.Fields = attributes(body)
	case sftpFsetstat:
		i.Command = "setstat"
		if f := s.handles[body.string()]; f != nil {
			i.Path = f.path
		}
		i.Fields = attributes(body)
	case sftpRename:
		s.pair(i, "rename", &body)
	case sftpSymlink: // OpenSSH has the arguments the other way round than the draft: what it points to, then the link
		to, link := printable(body.string()), printable(body.string())
		i.Command, i.Path, i.Fields = "symlink", link, map[string]string{"to": to}
	case sftpExtended:
		switch name := body.string(); name {
		case "posix-rename@openssh.com":
			s.pair(i, "rename", &body)
		case "hardlink@openssh.com":
			s.pair(i, "hardlink", &body)
		case "lsetstat@openssh.com":
			i.Command, i.Path = "setstat", printable(body.string())
			i.Fields = attributes(body)
		case "copy-data":
			i.Command = "copy"
			if f := s.handles[body.string()]; f != nil {
				i.Path = f.path
			}
		default:
			return // changes nothing
		}
	default:
		return
	}
	if len(s.pending) >= sftpMaxPending {
		s.lose("too many requests without an answer")
		return
	}
	names := s.names + r.names() - s.pending[id].names()
	if names > sftpMaxNames {
		s.lose("too long names without an answer")
		return
	}
	s.pending[id], s.names = r, names
}

// names is how many bytes of names it remembers.
func (r sftpRequest) names() int { return len(r.item.Path) + len(r.item.Fields["to"]) + len(r.handle) }

// opened remembers a handle, and closed forgets it.
func (s *sftpSession) opened(handle string, f *sftpFile) {
	s.closed(handle)
	names := s.names + len(handle) + len(f.path)
	if len(s.handles) >= sftpMaxHandles || names > sftpMaxNames {
		s.lose("too many open files")
		return
	}
	s.handles[handle], s.names = f, names
}

func (s *sftpSession) closed(handle string) {
	if f := s.handles[handle]; f != nil {
		s.names -= len(handle) + len(f.path)
		delete(s.handles, handle)
	}
}

// pair is a request about two paths.
func (*sftpSession) pair(i *recorder.Item, command string, body *sftpBody) {
	i.Command, i.Path = command, printable(body.string())
	i.Fields = map[string]string{"to": printable(body.string())}
}

// attributes are the ones that a setstat sets.
func attributes(body sftpBody) map[string]string {
	fields := map[string]string{}
	flags := body.uint32()
	if flags&1 != 0 {
		fields["size"] = strconv.FormatUint(body.uint64(), 10)
	}
	if flags&2 != 0 {
		fields["uid"], fields["gid"] = strconv.FormatUint(uint64(body.uint32()), 10), strconv.FormatUint(uint64(body.uint32()), 10)
	}
	if flags&4 != 0 {
		fields["mode"] = fmt.Sprintf("%04o", body.uint32()&0o7777)
	}
	return fields
}

// answer completes a request.
func (s *sftpSession) answer(kind byte, body sftpBody, at time.Duration, emit func(recorder.Item)) {
	switch kind {
	case sftpStatus, sftpHandle, sftpData, sftpName, sftpAttrs, sftpReply:
	default:
		return // such as the version, whose number is no request's
	}
	if len(body) < 4 {
		return
	}
	id := body.uint32()
	r, ok := s.pending[id]
	if !ok {
		return
	}
	delete(s.pending, id)
	s.names -= r.names()
	failure := ""
	if kind == sftpStatus {
		if code := body.uint32(); code != 0 {
			failure = sftpStatusNames[code]
			if failure == "" {
				failure = "status " + strconv.FormatUint(uint64(code), 10)
			}
		}
	}
	file := s.handles[r.handle]
	switch {
	case r.open && kind == sftpHandle:
		s.opened(body.string(), &sftpFile{path: r.item.Path, directory: r.item.Command == "list", opened: r.item.At})
	case r.open || r.emit:
		r.item.Error, r.item.Duration, r.item.At = failure, at-r.item.At, at
		emit(r.item)
	case file == nil:
	case r.item.Command == "close":
		s.closed(r.handle)
		emit(file.item(at))
	case kind == sftpData:
		file.read += int64(body.uint32())
	default: // a write's status, or a read's failure
		if failure == "" {
			file.written += r.length
		} else if failure != sftpStatusNames[1] && file.failed == "" {
			file.failed = failure
		}
	}
}

// item is what was done with a file until it was closed.
func (f *sftpFile) item(at time.Duration) recorder.Item {
	item := recorder.Item{
		Kind: recorder.ItemFile, At: at, Path: f.path, Duration: at - f.opened, Error: f.failed, Command: "open",
	}
	switch {
	case f.directory:
		item.Command = "list"
	case f.written > 0:
		item.Command, item.Bytes = "upload", f.written
		f.hashed(&item, written)
	case f.read > 0:
		item.Command, item.Bytes = "download", f.read
		f.hashed(&item, read)
	}
	return item
}

// finish emits what was asked for and not answered, and the files that were never closed.
func (s *sftpSession) finish(at time.Duration, emit func(recorder.Item)) {
	for _, id := range slices.Sorted(maps.Keys(s.pending)) {
		if r := s.pending[id]; r.emit || r.open {
			r.item.Error = "no answer"
			emit(r.item)
		}
	}
	for _, handle := range slices.Sorted(maps.Keys(s.handles)) {
		item := s.handles[handle].item(at)
		item.Error = "not closed"
		emit(item)
	}
	s.pending, s.handles, s.names = map[uint32]sftpRequest{}, map[string]*sftpFile{}, 0
}
