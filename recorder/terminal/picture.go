package terminal

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/vt"
)

// Picture is what a terminal shows. It follows output and can paint at any time what a terminal that had shown all of it
// would show, so that a replay can begin there. What is beyond the screen, scrolled away or under a full-screen program, is
// not in it.
type Picture struct {
	columns, rows int
	screen        *vt.Emulator // nil before it is looked at, or something is shown: one that only gets lines costs little

	filter Filter
	parser parser
	buf    []byte
	piece  []byte // what the emulator is given next
	lines  []line // that end in piece, while nothing in it does more than write lines
	simple bool   // that is so
	cut    bool   // and more of them came before, which have scrolled away
	spent  time.Duration
	left   time.Duration
	lost   bool

	// What the emulator keeps to itself, as the sequences that brought it about:
	modes   []mode
	margins string
	pen     pen
	saved   [2]pen // with the cursor, of the main screen and of the other
	other   int    // 1 while that is shown
	under   pen    // of the main screen meanwhile
	sets    [2]string
}

// line is where one ends.
type line struct {
	end int // in piece, behind its newline
	pen pen // from there on
}

type mode struct {
	name string
	on   bool
}

// Bounds on a picture, whatever the client says its terminal is.
const (
	maxColumns = 500
	maxRows    = 200
	maxModes   = 32
	maxNumber  = 500 // in a sequence, but for modes and colours: as much as a screen has
	maxPiece   = 2 << 10
	maxLines   = 256 << 10 // bytes of lines that are not shown yet
)

// Output that is made to be slow to show is not shown: a picture may take patience, and perByte for each byte, then it is
// given up.
const (
	patience = time.Minute
	perByte  = 4 * time.Microsecond
)

// NewPicture is a terminal of that size, empty.
func NewPicture(columns, lines int) *Picture {
	return &Picture{columns: bounded(columns, 80, maxColumns), rows: bounded(lines, 24, maxRows), simple: true}
}

// emulator is the screen.
func (p *Picture) emulator() *vt.Emulator {
	if p.screen == nil {
		p.screen = vt.NewEmulator(p.columns, p.rows)
		p.screen.SetScrollbackSize(1)
		if c, ok := p.screen.InputPipe().(io.Closer); ok {
			c.Close() // nobody reads what a terminal answers, and nothing waits for that
		}
	}
	return p.screen
}

func bounded(n, without, most int) int {
	if n <= 0 {
		n = without
	}
	return min(n, most)
}

// Size is its columns and lines, which are bounded.
func (p *Picture) Size() (columns, lines int) { return p.columns, p.rows }

// Resize changes its size.
func (p *Picture) Resize(columns, lines int) {
	p.show()
	p.columns, p.rows = bounded(columns, 80, maxColumns), bounded(lines, 24, maxRows)
	if p.screen != nil {
		p.safely(func() { p.screen.Resize(p.columns, p.rows) })
	}
	p.margins = ""
}

// Write shows output, cut anywhere.
func (p *Picture) Write(output []byte) {
	p.left += time.Duration(len(output)) * perByte
	p.buf = p.filter.Append(p.buf[:0], output)
	for rest := p.buf; len(rest) > 0; {
		if n := min(p.parser.plain(rest), maxPiece); n > 0 {
			p.piece, rest = append(p.piece, rest[:n]...), rest[n:]
			if len(p.piece) >= maxPiece && !p.simple || len(p.piece) >= maxLines {
				p.show()
			}
			continue
		}
		c := rest[0]
		rest = rest[1:]
		switch p.parser.next(c) {
		case complete:
			if p.parser.seq[len(p.parser.seq)-1] != 'm' || p.parser.seq[1] != '[' {
				p.simple = false
			}
			from := len(p.piece)
			p.piece = appendModest(p.piece, p.parser.seq, p.most(p.parser.seq))
			p.remember(p.piece[from:])
		case printable:
			p.piece = append(p.piece, c)
		case control:
			p.piece = append(p.piece, c)
			p.control(c)
		}
		if len(p.piece) >= maxPiece && !p.simple || len(p.piece) >= maxLines {
			p.show()
		}
	}
}

// control notes the ends of lines. Of lines that follow each other with nothing between, only as many matter as there are
// rows: the rest is forgotten without showing it, or long outputs would take long.
func (p *Picture) control(c byte) {
	switch c {
	case '\r', '\t':
		return
	case '\n':
		if n := len(p.piece); n < 2 || p.piece[n-2] != '\r' || p.margins != "" || p.sets != [2]string{} {
			p.simple = false
		}
	default:
		p.simple = false
	}
	if !p.simple {
		return
	}
	p.lines = append(p.lines, line{len(p.piece), p.pen})
	keep := p.rows + 2
	if len(p.lines) < 2*keep {
		return
	}
	from := p.lines[len(p.lines)-keep-1]
	rest := append([]byte(from.pen.sequence()), p.piece[from.end:]...)
	shift := from.end - (len(rest) - (len(p.piece) - from.end))
	p.lines = append(p.lines[:0], p.lines[len(p.lines)-keep:]...)
	for i := range p.lines {
		p.lines[i].end -= shift
	}
	p.piece, p.cut = append(p.piece[:0], rest...), true
}

func (p *Picture) show() {
	if len(p.piece) == 0 {
		return
	}
	if !p.Lost() {
		began := time.Now()
		p.safely(func() {
			if p.cut { // it has scrolled to the last row
				_, _ = p.emulator().Write([]byte("\x1b[9999;1H"))
			}
			_, _ = p.emulator().Write(p.piece) // in memory
		})
		p.spent += time.Since(began)
	}
	p.piece, p.lines, p.simple, p.cut = p.piece[:0], p.lines[:0], true, false
}

// safely does something with the emulator. Where that breaks, the picture is given up: it is somebody else's program, its input is a
// stranger's, and what a target sends must break nothing else.
func (p *Picture) safely(f func()) {
	defer func() {
		if recover() != nil {
			p.screen, p.lost = nil, true
		}
	}()
	f()
}

// most is how large a number in a sequence may be. Margins beyond the screen are what programs ask for that think it larger, and where
// the emulator would reach for lines that are not there.
func (p *Picture) most(seq []byte) int {
	switch last := seq[len(seq)-1]; {
	case last == 'r' && len(seq) > 2 && seq[2] != '?':
		return p.rows
	case last == 's':
		return p.columns
	}
	return maxNumber
}

// appendModest appends a sequence, with numbers above most made smaller.
func appendModest(to, seq []byte, most int) []byte {
	last := seq[len(seq)-1]
	if len(seq) < 3 || seq[1] != '[' || last == 'm' || last == 'h' || last == 'l' {
		return append(to, seq...)
	}
	number, digits := 0, false
	for _, c := range seq {
		if c >= '0' && c <= '9' {
			number, digits = min(10*number+int(c-'0'), most), true
			continue
		}
		if digits {
			to, number, digits = strconv.AppendInt(to, int64(number), 10), 0, false
		}
		to = append(to, c)
	}
	return to
}

// remember keeps what a sequence changes beside the characters on the screen.
func (p *Picture) remember(seq []byte) {
	last := seq[len(seq)-1]
	switch {
	case len(seq) == 3 && (seq[1] == '(' || seq[1] == ')'):
		p.sets[seq[1]-'('] = string(seq)
	case string(seq) == "\x1bc", string(seq) == "\x1b[!p":
		p.modes, p.margins, p.pen, p.saved, p.other, p.under, p.sets = nil, "", pen{}, [2]pen{}, 0, pen{}, [2]string{}
	case string(seq) == "\x1b7", string(seq) == "\x1b[s":
		p.saved[p.other] = p.pen
	case string(seq) == "\x1b8", string(seq) == "\x1b[u":
		p.pen = p.saved[p.other]
	case len(seq) < 3 || seq[1] != '[':
	case last == 'm':
		p.pen.take(seq)
	case last == 'r' && seq[2] != '?':
		p.margins = string(seq)
	case last == 'h' || last == 'l':
		for name := range strings.SplitSeq(strings.TrimPrefix(string(seq[2:len(seq)-1]), "?"), ";") {
			p.set(seq[2] == '?', name, last == 'h')
		}
	}
}

func (p *Picture) set(private bool, name string, on bool) {
	if private {
		name = "?" + name
	}
	switch name {
	case "?1048":
		if on {
			p.saved[p.other] = p.pen
		} else {
			p.pen = p.saved[p.other]
		}
	case "?47", "?1047", "?1049":
		switch {
		case on && p.other == 0:
			p.other, p.under = 1, p.pen
		case !on && p.other == 1:
			p.other, p.pen = 0, p.under
		}
	}
	p.modes = slices.DeleteFunc(p.modes, func(m mode) bool { return m.name == name })
	if len(p.modes) < maxModes {
		p.modes = append(p.modes, mode{name, on})
	}
}

// Whole reports whether what comes next can follow a Paint: no escape sequence and no character is half written, and the
// picture was not given up.
func (p *Picture) Whole() bool {
	return !p.Lost() && p.filter.parser.state == ground && p.filter.parser.rest == 0 && !p.filter.c2
}

// Lost reports whether the picture was given up, because it took too long to show or could not be: what it has from then on is not what a
// terminal shows.
func (p *Picture) Lost() bool { return p.lost || p.spent >= p.left+patience }

// Paint returns what makes a terminal of this size, whatever it showed, show the picture.
func (p *Picture) Paint() []byte {
	p.show()
	screen := p.emulator()
	var b bytes.Buffer
	b.WriteString("\x1bc") // everything as it was at the beginning
	for _, m := range p.modes {
		if m.name != "?6" { // margins come first
			b.WriteString(m.sequence())
		}
	}
	b.WriteString("\x1b[H\x1b[2J")
	var rows []string
	p.safely(func() { rows = strings.Split(screen.Render(), "\n") })
	for i, row := range rows[:min(len(rows), p.rows)] {
		fmt.Fprintf(&b, "\x1b[%d;1H\x1b[0m%s", i+1, strings.TrimSuffix(row, "\r"))
	}
	b.WriteString("\x1b[0m" + p.margins)
	at := screen.CursorPosition()
	fmt.Fprintf(&b, "\x1b[%d;%dH", at.Y+1, at.X+1)
	b.WriteString(p.pen.sequence() + p.sets[0] + p.sets[1])
	return b.Bytes()
}

func (m mode) sequence() string {
	if m.on {
		return "\x1b[" + m.name + "h"
	}
	return "\x1b[" + m.name + "l"
}
