package terminal

import (
	"unicode/utf8"

	uv "github.com/charmbracelet/ultraviolet"
)

// Cell is what stands at one place of a picture. It is good until the picture is written to.
type Cell struct{ cell *uv.Cell }

// Char is the character, without marks that are put on it: a space where nothing stands. It is 0 in the place behind a wide one, which belongs
// to that.
func (c Cell) Char() rune {
	if c.cell == nil {
		return ' '
	}
	if c.cell.Content == "" {
		if c.cell.Width == 0 && *c.cell != (uv.Cell{}) {
			return 0
		}
		return ' '
	}
	char, _ := utf8.DecodeRuneInString(c.cell.Content)
	return char
}

// Text is all of what stands there.
func (c Cell) Text() string {
	if c.cell == nil || c.cell.Content == "" {
		return " "
	}
	return c.cell.Content
}

// Columns is how many places it takes.
func (c Cell) Columns() int {
	if c.cell == nil {
		return 1
	}
	return max(1, c.cell.Width)
}

// Colours is the sequence after which it is painted.
func (c Cell) Colours() string {
	if c.cell == nil {
		return "\x1b[0m"
	}
	return "\x1b[0m" + c.cell.Style.String()
}

// Same reports whether both look the same.
func (c Cell) Same(o Cell) bool {
	if c.cell == nil || o.cell == nil {
		return c.cell == nil && o.blank() || o.cell == nil && c.blank()
	}
	return c.Text() == o.Text() && c.cell.Width == o.cell.Width && c.cell.Style.Equal(&o.cell.Style)
}

func (c Cell) blank() bool { return c.cell == nil || c.Text() == " " && c.cell.Style.IsZero() }

// At is a cell, counted from the upper left, which is 0, 0.
func (p *Picture) At(column, row int) Cell {
	p.show()
	return Cell{p.emulator().CellAt(column, row)}
}

// Cursor is where the next character goes, and whether a terminal would show that.
func (p *Picture) Cursor() (column, row int, shown bool) {
	p.show()
	screen := p.emulator()
	at := screen.CursorPosition()
	return at.X, at.Y, !screen.CursorHidden()
}

// Other reports whether the other screen is shown, that of full-screen programs.
func (p *Picture) Other() bool { return p.other == 1 }

// Colours is the sequence that brings about the colours of the next character.
func (p *Picture) Colours() string { return p.pen.sequence() }

// Open reports whether the lines that follow a newline come to stand by themselves: nothing is below the cursor, and nothing holds
// output within a part of the screen.
func (p *Picture) Open() bool {
	p.show()
	if p.other == 1 || p.margins != "" {
		return false
	}
	screen := p.emulator()
	for y := screen.CursorPosition().Y + 1; y < p.rows; y++ {
		for x := range p.columns {
			if (Cell{screen.CellAt(x, y)}).Text() != " " {
				return false
			}
		}
	}
	return true
}

// Step is what a Scanner found.
type Step uint8

// The kinds of step.
const (
	Written Step = iota // a byte of a character, a colour, or what neither changes a character nor where the next one goes
	Newline             // a line feed
	Return              // a carriage return
	Painted             // all else: a cursor movement, erasing, a mode
)

// Scanner cuts what a Filter has let through in steps: each row of characters of ASCII, each other byte outside of sequences, and each
// sequence is one. The zero value is ready.
type Scanner struct{ parser parser }

// Scan gives each step that ends in data, with where it begins (of one that began earlier: 0) and ends.
func (s *Scanner) Scan(data []byte, step func(kind Step, from, to int)) {
	from := 0
	for i := 0; i < len(data); i++ {
		if n := s.parser.plain(data[i:]); n > 0 {
			step(Written, i, i+n)
			i += n - 1
			from = i + 1
			continue
		}
		c, kind := data[i], Written
		switch s.parser.next(c) {
		case inside:
			continue
		case control:
			switch c {
			case '\n':
				kind = Newline
			case '\r':
				kind = Return
			case '\a', '\t':
			default:
				kind = Painted
			}
		case complete:
			if !quiet(s.parser.seq) {
				kind = Painted
			}
		}
		step(kind, from, i+1)
		from = i + 1
	}
}

// quiet reports whether a sequence changes neither what stands there nor where the next character goes, but to the right of that.
func quiet(seq []byte) bool {
	switch string(seq) {
	case "\x1b[K", "\x1b[0K", "\x1b(B", "\x1b)B", "\x1b=", "\x1b>", "\x1b[?25h", "\x1b[?25l", "\x1b[?1h", "\x1b[?1l", "\x1b[?12h", "\x1b[?12l", "\x1b[?12;25h", "\x1b[?2026h", "\x1b[?2026l":
		return true
	}
	return len(seq) > 2 && seq[1] == '[' && seq[len(seq)-1] == 'm'
}
