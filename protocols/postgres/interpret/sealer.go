package interpret

import (
	"encoding/binary"

	"sallyport/recorder/format"
)

const (
	// maxSealedHead is how much of a Bind or FunctionCall is kept to make what stands in for it.
	maxSealedHead = 64 << 10
	// placeholders is how many parameters the whole placeholder stands for; others have a shorter one.
	placeholders = 8
)

// Sealer tells apart what a client says: Bind, FunctionCall and CopyData, which carry values, are for stricter recipients, and what
// stands in for them has a placeholder in the place of each value. All else is as it was.
type Sealer struct {
	placeholder string

	head   [5]byte
	filled int   // of head
	left   int64 // of the frame's body
	body   []byte
	lost   bool // the bytes are no frames: all the rest is sealed

	copied, copies uint64 // of CopyData that nothing stands in for yet
}

// NewSealer makes one for a session.
func NewSealer(placeholder string) *Sealer { return &Sealer{placeholder: placeholder} }

// values reports whether messages of that type carry values.
func values(t byte) bool { return t == 'B' || t == 'F' || t == 'd' }

// Seal implements recorder.Sealer.
func (s *Sealer) Seal(e format.Event, emit func(format.Event)) {
	if e.Type != TypeClient {
		emit(e)
		return
	}
	data, from := e.Data, 0
	strict := s.filled > 0 && values(s.head[0]) || s.lost
	give := func(to int) {
		if to > from {
			piece := e
			piece.Data, piece.Strict = data[from:to], strict
			emit(piece)
			from = to
		}
	}
	copies := func() {
		if s.copies+s.copied > 0 {
			standIn := e
			standIn.Type, standIn.Data = TypeClientBulk, AppendClientBulk(nil, s.copies, s.copied, []byte(s.placeholder))
			emit(format.StandIn(standIn))
			s.copies, s.copied = 0, 0
		}
	}
	for at := 0; at < len(data) && !s.lost; {
		if s.filled == 0 {
			if now := values(data[at]); now != strict || data[at] != 'd' && s.copies+s.copied > 0 {
				give(at)
				copies()
				strict = now
			}
			s.body = s.body[:0]
		}
		if s.filled < len(s.head) {
			n := copy(s.head[s.filled:], data[at:])
			s.filled, at = s.filled+n, at+n
			if s.filled < len(s.head) {
				break
			}
			if s.left = int64(binary.BigEndian.Uint32(s.head[1:])) - 4; s.left < 0 {
				give(at)
				s.lost, strict = true, true
				break
			}
		}
		n := int(min(s.left, int64(len(data)-at)))
		if t := s.head[0]; t == 'd' {
			s.copied += uint64(n)
		} else if values(t) {
			s.body = append(s.body, data[at:at+min(n, maxSealedHead-len(s.body))]...)
		}
		s.left, at = s.left-int64(n), at+n
		if s.left > 0 {
			break
		}
		s.filled = 0
		switch s.head[0] {
		case 'd':
			s.copies++
		case 'B', 'F':
			give(at)
			standIn := e
			standIn.Data = s.standIn(s.head[0])
			emit(format.StandIn(standIn))
		}
	}
	give(len(data))
	copies()
}

// standIn is a message that says what the one in hand did, but for the values.
func (s *Sealer) standIn(t byte) []byte {
	out := []byte{t, 0, 0, 0, 0}
	r := cursor{b: s.body}
	if t == 'F' {
		out = binary.BigEndian.AppendUint32(out, r.uint32())
	} else {
		for range 2 { // the portal's name and the statement's
			out = append(append(out, r.string()...), 0)
		}
	}
	r.take(2 * int(r.uint16())) // how the values are written
	count := r.uint16()
	if r.short { // more is before that than is kept
		count = 1
	}
	out = binary.BigEndian.AppendUint16(out, 0)
	out = binary.BigEndian.AppendUint16(out, count)
	for n := range int(count) {
		text := s.placeholder
		if n >= placeholders {
			text = "…"
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(text))), text...)
	}
	out = binary.BigEndian.AppendUint16(out, 0)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}
