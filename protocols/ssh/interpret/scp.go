package interpret

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/recorder"
	"sallyport/recorder/format"
)

// The old protocol of scp, as its sources speak it: lines "Tmtime 0 atime 0", "Cmode size name", "Dmode 0 name" and "E"; after a
// C line the contents and a zero byte. Who receives answers each with a zero byte, or with 1 or 2 and a line that says what
// went wrong.

// scpMaxLine is the longest line that is taken for one.
const scpMaxLine = 8 << 10

// scpDepth is how many directories one in another are followed.
const scpDepth = 256

// scpMaxWhole is how many hashes of files wait to be told.
const scpMaxWhole = 4096

// SCPFilter tells the contents of files apart from the rest of one direction of an scp stream, however the stream is cut into
// pieces. What is not certainly content counts as said. It hashes each file.
//
// A file that the other side does not take has no contents on the wire, so the two directions' filters know each other. Each is for one
// goroutine.
type SCPFilter struct {
	both  *sync.Mutex // of this filter and other; nil: it stands alone
	other *SCPFilter

	line    []byte
	content uint64 // bytes of it still to come
	opaque  bool

	stream hash.Hash // of all contents, written by who is given them; nil: none
	began  bool      // there was content

	size  uint64 // of the file whose contents come
	sum   hash.Hash
	whole []format.Bulk
}

// NewSCPFilters are filters for the two directions of one scp stream. sums are as for NewFilters.
func NewSCPFilters(sums ...hash.Hash) (client, server *SCPFilter) {
	both := new(sync.Mutex)
	client, server = &SCPFilter{both: both}, &SCPFilter{both: both}
	client.other, server.other = server, client
	if len(sums) == 2 {
		client.stream, server.stream = sums[0], sums[1]
	}
	return client, server
}

// refused is called when the other side takes none of the file of which nothing has come yet.
func (f *SCPFilter) refused() {
	if f.sum != nil && f.content == f.size {
		f.content, f.sum = 0, nil
	}
}

// Whole are the hashes of the files that are complete since the last call, in order.
func (f *SCPFilter) Whole() []format.Bulk {
	whole := f.whole
	f.whole = nil
	return whole
}

// file begins one.
func (f *SCPFilter) file(size uint64) {
	f.size, f.content, f.sum = size, size, f.stream
	if f.began || f.sum == nil {
		f.sum = sha256.New()
	}
	f.done()
}

// done keeps the hash of a file that is complete.
func (f *SCPFilter) done() {
	if f.content == 0 {
		f.whole = append(f.whole, format.Bulk{Bytes: int64(f.size), SHA256: hex.EncodeToString(f.sum.Sum(nil)), Why: WhyWhole})
		f.sum = nil
	}
}

// Split calls said and content with the pieces of chunk, in order. The pieces are parts of chunk.
func (f *SCPFilter) Split(chunk []byte, said, content func([]byte)) {
	if f.both != nil {
		f.both.Lock()
		defer f.both.Unlock()
	}
	for len(chunk) > 0 {
		if f.opaque {
			said(chunk)
			return
		}
		if f.content > 0 {
			n := min(f.content, uint64(len(chunk)))
			content(chunk[:n])
			if f.began = true; f.sum != f.stream { // else it is written already
				f.sum.Write(chunk[:n])
			}
			f.content -= n
			f.done()
			chunk = chunk[n:]
			continue
		}
		n := f.word(chunk)
		said(chunk[:n])
		chunk = chunk[n:]
	}
}

// word takes bytes up to the end of a line, or one that stands alone.
func (f *SCPFilter) word(chunk []byte) int {
	if len(f.line) == 0 && chunk[0] == 0 {
		return 1
	}
	n := bytes.IndexByte(chunk, '\n') + 1
	if n == 0 {
		n = len(chunk)
	}
	f.line = append(f.line, chunk[:n]...)
	switch {
	case !strings.ContainsRune("CDET\x01\x02", rune(f.line[0])) || len(f.line) > scpMaxLine:
		f.opaque, f.line = true, nil
	case f.line[len(f.line)-1] == '\n':
		if f.line[0] == 'C' {
			_, size, _, ok := scpFile(f.line)
			if f.opaque = !ok; ok {
				f.file(size)
			}
		}
		if f.other != nil && (f.line[0] == 1 || f.line[0] == 2) {
			f.other.refused()
		}
		f.line = f.line[:0]
	}
	return n
}

// scpFile reads a C or D line.
func scpFile(line []byte) (mode string, size uint64, name string, ok bool) {
	mode, rest, ok := strings.Cut(strings.TrimSuffix(string(line[1:]), "\n"), " ")
	if !ok {
		return "", 0, "", false
	}
	number, name, ok := strings.Cut(rest, " ")
	if !ok {
		return "", 0, "", false
	}
	size, err := strconv.ParseUint(number, 10, 63)
	return mode, size, name, err == nil
}

// scpSession follows one scp command: one item a file.
type scpSession struct {
	upload  bool
	at      string // the path that the command was given
	dirs    []string
	file    *recorder.Item // the one whose contents pass
	lines   [2][]byte      // of who sends, and of who receives
	whole   []format.Bulk  // hashes of files that are complete, and not told yet
	entered bool           // a directory, of which the other side has not said whether it takes it
	lost    bool
}

// follow takes what one side said.
func (s *scpSession) follow(client bool, data []byte, at time.Duration, emit func(recorder.Item)) {
	switch {
	case s.lost:
	case client == s.upload:
		s.sent(data, at, emit)
	default:
		s.received(data, at, emit)
	}
}

// sent is what the side said that sends files, without their contents.
func (s *scpSession) sent(data []byte, at time.Duration, emit func(recorder.Item)) {
	for _, b := range data {
		if len(s.lines[0]) == 0 && b == 0 { // the end of a file's contents
			s.end("", at, emit)
			continue
		}
		if s.lines[0] = append(s.lines[0], b); len(s.lines[0]) > scpMaxLine {
			s.lost = true
		}
		if s.lost || b != '\n' {
			if s.lost {
				return
			}
			continue
		}
		line := s.lines[0]
		s.lines[0], s.entered = nil, line[0] == 'D'
		switch line[0] {
		case 'C':
			mode, size, name, ok := scpFile(line)
			if !ok {
				s.lost = true
				return
			}
			s.end("no end", at, emit)
			s.file = &recorder.Item{
				Kind: recorder.ItemFile, Command: s.verb(), Path: printable(path.Join(append(append([]string{}, s.dirs...), name)...)), Bytes: int64(size), At: at,
				Fields: map[string]string{"mode": printable(mode), "via": "scp", "at": printable(s.at)},
			}
		case 'D':
			_, _, name, ok := scpFile(line)
			if s.lost = !ok || len(s.dirs) >= scpDepth; s.lost {
				return
			}
			s.dirs = append(s.dirs, name)
		case 'E':
			s.dirs = s.dirs[:max(0, len(s.dirs)-1)]
		case 1, 2:
			emit(recorder.Item{Kind: recorder.ItemFile, Command: s.verb(), Path: printable(s.at), Error: printable(strings.TrimSpace(string(line[1:]))), Fields: map[string]string{"via": "scp"}})
		case 'T':
		default:
			s.lost = true
			return
		}
	}
}

// received is what the other side said: that all is well, or not.
func (s *scpSession) received(data []byte, at time.Duration, emit func(recorder.Item)) {
	for _, b := range data {
		if len(s.lines[1]) == 0 && b == 0 {
			s.entered = false
			continue
		}
		if s.lines[1] = append(s.lines[1], b); len(s.lines[1]) > scpMaxLine {
			s.lost = true
			return
		}
		if b != '\n' {
			continue
		}
		line := s.lines[1]
		s.lines[1] = nil
		if s.entered && len(s.dirs) > 0 { // it is not gone into
			s.dirs, s.entered = s.dirs[:len(s.dirs)-1], false
		}
		if s.file == nil {
			s.file = &recorder.Item{Kind: recorder.ItemFile, Command: s.verb(), Path: printable(s.at), At: at, Fields: map[string]string{"via": "scp"}}
		}
		s.end(printable(strings.TrimSpace(strings.Trim(string(line), "\x01\x02\n"))), at, emit)
	}
}

func (s *scpSession) verb() string {
	if s.upload {
		return "upload"
	}
	return "download"
}

// end emits the file under way, if there is one.
func (s *scpSession) end(failure string, at time.Duration, emit func(recorder.Item)) {
	if s.file == nil {
		return
	}
	item := *s.file
	s.file = nil
	for len(s.whole) > 0 && item.SHA256 == "" && failure == "" {
		if b := s.whole[0]; b.Bytes == item.Bytes {
			item.SHA256 = b.SHA256
		}
		s.whole = s.whole[1:]
	}
	item.Error, item.Duration, item.At = failure, at-item.At, at
	emit(item)
}
