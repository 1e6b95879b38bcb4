package mask

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"time"
	"unicode/utf8"

	"sallyport/recorder/terminal"
)

// Screen masks what a terminal shows. Lines that follow each other are masked as a Stream does. As soon as a program paints (moves the
// cursor, erases, overwrites), what it painted is worked out by a terminal in memory, its screen is masked as it stands there, row
// by row and across rows that go on in the next, and what is given makes another terminal show that: so nothing comes through that
// could be put together on the screen to something which is to be hidden, in whatever order and pieces it was painted. With the next
// newline that leaves the painting behind, lines are masked as such again.
//
// What stands where the cursor has just written may go on: it is given once the cursor has left it. Where the screen can't be worked
// out, nothing more is given but that. Sequences that do not paint (see terminal.Filter) are left out.
type Screen struct {
	masker *Masker
	filter terminal.Filter
	scan   terminal.Scanner
	clean  []byte // what the filter let through

	lines    *Stream
	rows     *rows // of whoever wants lines; nil: pictures are wanted
	returned bool  // a carriage return came last, in lines
	begun    bool  // something stands in the line under way

	real, shown *terminal.Picture // what the program has, and what whoever is given the rest has
	painting    bool
	again       bool // all is to be painted, whatever is shown
	hidden      bool // the cursor was

	// MayPaint is asked before the first painting; false: it is not shown. nil: it may.
	MayPaint func() bool
	asked    bool
	lost     bool
	spent    time.Duration
	left     time.Duration

	over []rune // of each cell, what stands there instead; 0: what is there
	keep []bool // of each cell: it is left as it is shown
}

// notShown stands for what a terminal shows that can't be worked out.
const notShown = "\x1b[0m\r\n[masked: what this terminal shows]\r\n"

// Output that is made to be slow to mask is not shown any more: it may take this, and so much for each byte.
const (
	screenPatience = time.Minute
	screenPerByte  = 4 * time.Microsecond
)

// Screen begins one of a terminal of that size.
func (m *Masker) Screen(columns, rows int) *Screen {
	return &Screen{masker: m, lines: m.Stream(), real: terminal.NewPicture(columns, rows), shown: terminal.NewPicture(columns, rows)}
}

// Resize changes the terminal's size, on both sides.
func (s *Screen) Resize(columns, rows int) {
	s.real.Resize(columns, rows)
	s.shown.Resize(columns, rows)
	s.again = true
}

// Picture appends what makes a terminal show a whole picture, of which nothing came before; see terminal.Picture.Paint.
func (s *Screen) Picture(dst, paint []byte) []byte {
	return s.guarded(dst, func(dst []byte) []byte {
		s.real.Write(paint)
		if !s.paints() {
			s.lost = true
			return append(dst, notShown...)
		}
		s.again = true
		dst = append(dst, "\x1bc"...)
		return s.frame(dst, false)
	})
}

// Write appends to dst what can be given now.
func (s *Screen) Write(dst, data []byte) []byte {
	s.left += time.Duration(len(data)) * screenPerByte
	if s.rows != nil {
		s.rows.written += len(data)
	}
	return s.guarded(dst, func(dst []byte) []byte { return s.write(dst, data) })
}

// Flush appends what was held back.
func (s *Screen) Flush(dst []byte) []byte {
	return s.guarded(dst, func(dst []byte) []byte {
		if s.painting {
			return s.frame(dst, true)
		}
		return s.lines.Flush(dst)
	})
}

// guarded does something, unless the screen is lost; it is, when that takes too long or goes wrong.
func (s *Screen) guarded(dst []byte, do func([]byte) []byte) (out []byte) {
	if s.lost {
		return dst
	}
	began, before := time.Now(), len(dst)
	defer func() {
		s.spent += time.Since(began)
		if recover() != nil { // the terminal in memory is somebody else's program, and its input is a stranger's
			s.lost, out = true, append(dst[:before], notShown...)
			return
		}
		if !s.lost && (s.spent > s.left+screenPatience || s.painting && (s.real.Lost() || s.shown.Lost())) {
			s.lost, out = true, append(dst[:before], notShown...)
		}
	}()
	return do(dst)
}

func (s *Screen) write(dst, data []byte) []byte {
	s.clean = s.filter.Append(s.clean[:0], data)
	begin := 0
	s.scan.Scan(s.clean, func(kind terminal.Step, from, to int) {
		if s.lost {
			return
		}
		if s.painting {
			if kind != terminal.Newline {
				return
			}
			s.real.Write(s.clean[begin:from])
			begin = from
			if !s.real.Open() {
				return
			}
			dst = s.frame(dst, true)
			s.painting, s.returned, s.begun, s.lines = false, false, false, s.masker.Stream()
			return
		}
		if s.begins(kind, s.clean[from:to]) {
			dst = s.say(dst, s.clean[begin:from])
			if s.rows != nil {
				dst = s.rows.begin(dst, s)
			}
			if begin = from; !s.paints() {
				dst, s.lost = append(dst, notShown...), true
			}
			return
		}
		switch kind {
		case terminal.Newline:
			s.returned, s.begun = false, false
		case terminal.Return:
			s.returned = true
		default:
			s.begun = true
		}
	})
	switch rest := s.clean[begin:]; {
	case s.lost:
	case s.painting:
		s.real.Write(rest)
		dst = s.frame(dst, false)
	default:
		dst = s.say(dst, rest)
	}
	return dst
}

// say gives lines.
func (s *Screen) say(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	s.real.Write(data)
	given := len(dst)
	dst = s.lines.Write(dst, data)
	if s.rows != nil {
		s.rows.say(dst[given:])
	} else {
		s.shown.Write(dst[given:])
	}
	return dst
}

// paints begins the painting, if that may be.
func (s *Screen) paints() bool {
	if !s.asked && s.MayPaint != nil && !s.MayPaint() {
		return false
	}
	s.asked, s.painting = true, true
	return true
}

// frame gives what makes the terminal that is shown look as the real one does, masked. What may go on is left as it is shown, unless this is
// the last for now.
func (s *Screen) frame(dst []byte, last bool) []byte {
	if s.rows != nil {
		return s.rows.tell(dst, s, last)
	}
	var b bytes.Buffer
	s.turn(&b)
	s.mask(last)
	columns, rows := s.real.Size()
	for y := range rows {
		at := -1    // where the shown cursor stands, in this row
		until := -1 // up to there all is painted, for a few cells are not worth a movement
		colours := ""
		for x := 0; x < columns; {
			now, i := s.real.At(x, y), y*columns+x
			width := min(now.Columns(), columns-x)
			char, over := now.Text(), s.over[i] != 0
			if over {
				char, width = string(s.over[i]), 1
			} else if now.Char() == 0 { // behind a wide one that is masked
				char = " "
			}
			if s.keep[i] || !s.again && x >= until && s.is(x, y, now, char, over) {
				x += width
				continue
			}
			if at >= 0 && x > at && x-at <= near && until < x && !slices.Contains(s.keep[y*columns+at:i], true) {
				x, until = at, x
				continue
			}
			if at != x {
				fmt.Fprintf(&b, "\x1b[%d;%dH", y+1, x+1)
			}
			if c := now.Colours(); c != colours {
				b.WriteString(c)
				colours = c
			}
			b.WriteString(char)
			x += width
			at = x
		}
	}
	s.again = false
	x, y, visible := s.real.Cursor()
	if visible == s.hidden {
		s.hidden = !visible
		b.WriteString(map[bool]string{true: "\x1b[?25h", false: "\x1b[?25l"}[visible])
	}
	if wasX, wasY, _ := s.shown.Cursor(); last || b.Len() > 0 || x != wasX || y != wasY {
		fmt.Fprintf(&b, "\x1b[%d;%dH%s", y+1, x+1, s.real.Colours())
	}
	s.shown.Write(b.Bytes())
	return append(dst, b.Bytes()...)
}

// near is across how many cells that are shown already painting goes on.
const near = 8

// turn changes to the screen that the real terminal shows, and back.
func (s *Screen) turn(b *bytes.Buffer) {
	n := b.Len()
	switch {
	case s.real.Other() && !s.shown.Other():
		b.WriteString("\x1b[?1049h\x1b[0m\x1b[H\x1b[2J")
	case !s.real.Other() && s.shown.Other():
		b.WriteString("\x1b[?1049l")
	}
	if s.again {
		b.WriteString("\x1b[0m\x1b[H\x1b[2J")
	}
	s.shown.Write(b.Bytes()[n:])
}

// is reports whether a cell is shown already.
func (s *Screen) is(x, y int, now terminal.Cell, char string, over bool) bool {
	there := s.shown.At(x, y)
	if over || now.Char() == 0 {
		return there.Text() == char && there.Columns() == 1
	}
	return there.Same(now)
}

// mask finds what is to be hidden on the real screen, and what may be a part of it yet.
func (s *Screen) mask(last bool) {
	columns, rows := s.real.Size()
	s.over, s.keep = sized(s.over, columns*rows), sized(s.keep, columns*rows)
	s.groups(func(first, end int, cursor bool) {
		whole := s.look(first, end)
		spans := s.masker.find(whole)
		if end-first > 1 { // that they go on is a guess
			for y := first; y < end; y++ {
				spans = append(spans, s.masker.find(s.look(y, y+1))...)
			}
			spans = merge(spans)
		}
		for _, span := range spans {
			s.hide(span)
		}
		if !last && cursor {
			x, y, _ := s.real.Cursor()
			s.hold(whole, y*columns+x, x == columns-1)
		}
	})
}

// groups gives the rows of the real screen, with those in which each may go on, and says where the cursor is.
func (s *Screen) groups(do func(first, end int, cursor bool)) {
	_, rows := s.real.Size()
	_, y, _ := s.real.Cursor()
	for first := 0; first < rows; {
		end := first + 1
		for end < rows && s.goesOn(end-1) {
			end++
		}
		do(first, end, first <= y && y < end)
		first = end
	}
}

func sized[T any](slice []T, n int) []T {
	slice = slices.Grow(slice[:0], n)[:n]
	clear(slice)
	return slice
}

// goesOn reports whether a row may go on in the next.
func (s *Screen) goesOn(y int) bool {
	columns, _ := s.real.Size()
	return s.real.At(columns-1, y).Char() != ' '
}

// look is the view of some rows; its places are those of the cells.
func (s *Screen) look(first, end int) view {
	columns, rows := s.real.Size()
	v := view{size: columns * rows, place: make([]int, 0, (end-first)*columns), text: make([]byte, 0, (end-first)*columns)}
	for y := first; y < end; y++ {
		for x := range columns {
			char := s.real.At(x, y).Char()
			if char == 0 {
				continue
			}
			v.text = utf8.AppendRune(v.text, char)
			for len(v.place) < len(v.text) {
				v.place = append(v.place, y*columns+x)
			}
		}
	}
	return v
}

// firstWide is the first character that may take two places.
const firstWide = 0x1100

// hide puts over some cells what stands in their place.
func (s *Screen) hide(span span) {
	n := span.to - span.from
	label := []rune(span.label)
	if span.label == "" {
		label = append([]rune("[card "), slices.Repeat([]rune{'•'}, max(0, n-len("[card 1234]")))...)
		label = append(label, []rune(string(span.last[:])+"]")...)
	}
	columns, _ := s.real.Size()
	for i := range n {
		char := '•'
		if i < len(label) && label[i] < firstWide {
			char = label[i]
		}
		s.over[span.from+i] = char
	}
	for to := span.to; to < len(s.over) && to%columns != 0 && s.real.At(to%columns, to/columns).Char() == 0; to++ {
		s.over[to] = '•' // the rest of a wide character
	}
}

// hold leaves as it is shown what stands before the cursor and may go on: digits, and with patterns a word.
func (s *Screen) hold(v view, cursor int, atEnd bool) {
	// The cell before the cursor, or, at the end of a row, under it: there a terminal waits before it goes to the next row.
	under := sort.SearchInts(v.place, cursor)
	for _, at := range []int{under - 1, under} {
		if at < 0 || at >= len(v.text) || at == under && !atEnd {
			continue
		}
		from, to := at, at
		if !s.mayGoOn(v, at) {
			continue
		}
		for from > 0 && at-from < mostHeld && s.mayGoOn(v, from-1) {
			from--
		}
		for to+1 < len(v.text) && to-at < mostHeld && s.mayGoOn(v, to+1) {
			to++
		}
		for i := v.place[from]; i <= v.place[to]; i++ {
			s.keep[i] = true
		}
	}
}

// mayGoOn reports whether a byte may be a part of something that is to be hidden when it is whole.
func (s *Screen) mayGoOn(v view, i int) bool {
	c := v.text[i]
	switch {
	case digit(c):
		return true
	case len(s.masker.patterns) > 0 && wordly(c):
		return true
	case s.masker.cards && (c == ' ' || c == '-'):
		return i > 0 && digit(v.text[i-1])
	}
	return false
}
