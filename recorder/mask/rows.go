package mask

import (
	"bytes"
	"strings"

	"sallyport/recorder/terminal"
)

// rows are what a Screen gives whoever wants lines: what comes in lines as it comes, edited as it is; and of a terminal that paints in other
// rows than its cursor's, the rows that are new on its screen, masked there, once the cursor has left them. The zero value is ready.
type rows struct {
	pending int                // bytes of the line under way that were given
	told    [2]map[string]bool // the rows that stand on the screen, and on the other, and were given
	given   int                // bytes of rows
	written int                // bytes that were output
}

// A program that changes a little of every row, again and again, is not given more than this, and so much for each byte.
const (
	mostRows    = 64 << 10
	rowsPerByte = 8
)

// Rows begins a Screen for whoever wants lines, such as terminal.Lines makes of what it gives.
func (m *Masker) Rows(columns, lines int) *Screen {
	s := m.Screen(columns, lines)
	s.rows = &rows{}
	return s
}

// leavesRow reports whether a step that paints may have the next character stand in another row than the cursor's. All else edits
// a line, which is masked when it is whole.
func leavesRow(step []byte) bool {
	if step[0] != 0x1b {
		return step[0] == '\v' || step[0] == '\f'
	}
	if len(step) < 2 {
		return true
	}
	last := step[len(step)-1]
	if step[1] == '[' {
		private := len(step) > 2 && step[2] == '?'
		return strings.IndexByte("ABEFHLMSTdefru", last) >= 0 || private && (last == 'h' || last == 'l')
	}
	return strings.IndexByte("8DEMc", step[1]) >= 0
}

// say notes what is given of the line under way.
func (r *rows) say(given []byte) {
	if end := bytes.LastIndexAny(given, "\r\n"); end >= 0 {
		r.pending, given = 0, given[end+1:]
	}
	r.pending += len(given)
}

// begin takes back the line under way, which is a row of the screen from now on. What stands on that else was given.
func (r *rows) begin(dst []byte, s *Screen) []byte {
	r.told = [2]map[string]bool{{}, {}}
	s.mask(true)
	s.groups(func(first, end int, cursor bool) {
		for y := first; y < end && !cursor; y++ {
			r.told[0][s.row(y)] = true
		}
	})
	dst = append(dst, bytes.Repeat([]byte{'\b'}, r.pending)...)
	r.pending = 0
	return dst
}

// tell gives the rows that are new. What may go on is not, unless this is the last for now.
func (r *rows) tell(dst []byte, s *Screen, last bool) []byte {
	s.mask(last)
	screen, now := 0, map[string]bool{}
	if s.real.Other() {
		screen = 1
	}
	s.groups(func(first, end int, cursor bool) {
		for y := first; y < end; y++ {
			text := s.row(y)
			switch {
			case text == "":
			case r.told[screen][text]:
				now[text] = true
			case !last && cursor, r.given > mostRows+rowsPerByte*r.written:
			default:
				now[text] = true
				r.given += len(text)
				dst = append(append(dst, text...), "\r\n"...)
			}
		}
	})
	r.told[screen] = now
	return dst
}

// row is what stands in a row, masked as mask has found it.
func (s *Screen) row(y int) string {
	columns, _ := s.real.Size()
	var b strings.Builder
	for x := range columns {
		switch cell := s.real.At(x, y); {
		case s.over[y*columns+x] != 0:
			b.WriteRune(s.over[y*columns+x])
		case cell.Char() != 0: // else it belongs to a wide one
			b.WriteString(cell.Text())
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// begins reports whether a step in a line begins a painting.
func (s *Screen) begins(kind terminal.Step, step []byte) bool {
	switch {
	case s.rows != nil:
		return kind == terminal.Painted && leavesRow(step)
	case kind == terminal.Painted:
		return true
	}
	return kind == terminal.Written && s.returned && s.begun
}
