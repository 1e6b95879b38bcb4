package interpret

import (
	"encoding/binary"

	"sallyport/recorder/format"
)

// The types of Postgres's events; part of the file format.
const (
	// TypeClient are bytes that the client sent, exactly and in order, before they were passed on: whole frames over any
	// number of events, only CopyData frames may be missing (TypeClientBulk stands for them).
	TypeClient = format.FirstPostgres
	// TypeServer is what the target sent, before the client saw it: its frames exactly and in order, but for those that
	// a mark stands for. A mark is framed like a message and has one of the types below.
	TypeServer = format.FirstPostgres + 1
	// TypeClientBulk stands for CopyData frames beyond what is kept of one COPY: number of frames and bytes of payload
	// (uvarints), and the running SHA-256 of all payload left out since the session began.
	TypeClientBulk = format.FirstPostgres + 2
)

// The marks in TypeServer. A server's own types are letters.
const (
	// markRows and markCopy stand for a run of DataRow and CopyData frames, or for parts of such: number of frames that
	// began in it and bytes of payload (uvarints).
	markRows = 1
	markCopy = 2
	// markCut stands for one frame that is too large to keep: its type, its length on the wire (uvarint) and the
	// beginning of its body.
	markCut = 3
)

const (
	keepServer = 8 << 10 // a server's frame up to this size is kept whole
	keepCut    = 4 << 10 // of a larger one this much
)

// ServerLog makes the Data of TypeServer events out of a target's frames. It allocates nothing once its buffer has grown.
type ServerLog struct {
	buf    []byte
	mark   byte
	frames uint64
	bytes  uint64
}

// Add takes a frame, or a piece of one that passes in pieces. length is the whole frame's; first is true of the piece
// that begins with the header.
func (l *ServerLog) Add(t byte, first bool, length int, data []byte) {
	payload := data
	if first {
		payload = data[5:]
	}
	switch {
	case t == 'D':
		l.count(markRows, first, len(payload))
	case t == 'd':
		l.count(markCopy, first, len(payload))
	case length <= keepServer && t > ' ':
		l.flush()
		l.buf = append(l.buf, data...)
	case first:
		l.flush()
		start := len(l.buf)
		l.buf = append(l.buf, markCut, 0, 0, 0, 0, t)
		l.buf = binary.AppendUvarint(l.buf, uint64(length))
		l.buf = append(l.buf, payload[:min(len(payload), keepCut)]...)
		binary.BigEndian.PutUint32(l.buf[start+1:], uint32(len(l.buf)-start-1))
	}
}

func (l *ServerLog) count(mark byte, first bool, n int) {
	if l.mark != mark {
		l.flush()
		l.mark = mark
	}
	if first {
		l.frames++
	}
	l.bytes += uint64(n)
}

func (l *ServerLog) flush() {
	if l.mark == 0 {
		return
	}
	start := len(l.buf)
	l.buf = append(l.buf, l.mark, 0, 0, 0, 0)
	l.buf = binary.AppendUvarint(l.buf, l.frames)
	l.buf = binary.AppendUvarint(l.buf, l.bytes)
	binary.BigEndian.PutUint32(l.buf[start+1:], uint32(len(l.buf)-start-1))
	l.mark, l.frames, l.bytes = 0, 0, 0
}

// Take returns what was added since the last Take; it is valid until the next Add.
func (l *ServerLog) Take() []byte {
	l.flush()
	taken := l.buf
	l.buf = l.buf[:0]
	return taken
}

// AppendClientBulk appends the Data of a TypeClientBulk event.
func AppendClientBulk(b []byte, frames, bytes uint64, sum []byte) []byte {
	b = binary.AppendUvarint(b, frames)
	b = binary.AppendUvarint(b, bytes)
	return append(b, sum...)
}

// twoNumbers reads the payload of a mark or bulk event.
func twoNumbers(b []byte) (first, second int64, rest []byte, ok bool) {
	x, n := binary.Uvarint(b)
	if n <= 0 || x > 1<<62 {
		return 0, 0, nil, false
	}
	y, m := binary.Uvarint(b[n:])
	if m <= 0 || y > 1<<62 {
		return 0, 0, nil, false
	}
	return int64(x), int64(y), b[n+m:], true
}
