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
	screen *vt.Emulator
	filter Filter
	parser parser
	buf    []byte
	piece  []byte // what the emulator is given next
	spent  time.Duration
	left   time.Duration

	// What the emulator keeps to itself, as the sequences that brought it about:
	modes   []mode
	margins string
	colours string // since the last that took all back
	sets    [2]string
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
	maxColours = 256
	maxNumber  = 500 // in a sequence, but for modes and colours: as much as a screen has
	maxPiece   = 2 << 10
)

// Output that is made to be slow to show is not shown: a picture may take patience, and perByte for each byte, then it is
// given up.
const (
	patience = time.Minute
	perByte  = 4 * time.Microsecond
)

// NewPicture is a terminal of that size, empty.
func NewPicture(columns, lines int) *Picture {
	p := &Picture{screen: vt.NewEmulator(bounded(columns, 80, maxColumns), bounded(lines, 24, maxRows))}
	p.screen.SetScrollbackSize(1)
	if c, ok := p.screen.InputPipe().(io.Closer); ok {
		c.Close() // nobody reads what a terminal answers, and nothing waits for that
	}
	return p
}

func bounded(n, without, most int) int {
	if n <= 0 {
		n = without
	}
	return min(n, most)
}

// Resize changes its size.
func (p *Picture) Resize(columns, lines int) {
	p.screen.Resize(bounded(columns, 80, maxColumns), bounded(lines, 24, maxRows))
	p.margins = ""
}

// Write shows output, cut anywhere.
func (p *Picture) Write(output []byte) {
	p.left += time.Duration(len(output)) * perByte
	p.buf = p.filter.Append(p.buf[:0], output)
	for _, c := range p.buf {
		switch p.parser.next(c) {
		case complete:
			p.remember(p.parser.seq)
			p.piece = appendModest(p.piece, p.parser.seq)
		case printable, control:
			p.piece = append(p.piece, c)
		}
		if len(p.piece) >= maxPiece {
			p.show()
		}
	}
	p.show()
}

func (p *Picture) show() {
	if p.spent < p.left+patience {
		began := time.Now()
		p.screen.Write(p.piece)
		p.spent += time.Since(began)
	}
	p.piece = p.piece[:0]
}

// appendModest appends a sequence, with numbers that no screen is large enough for made smaller.
func appendModest(to, seq []byte) []byte {
	last := seq[len(seq)-1]
	if len(seq) < 3 || seq[1] != '[' || last == 'm' || last == 'h' || last == 'l' {
		return append(to, seq...)
	}
	number, digits := 0, false
	for _, c := range seq {
		if c >= '0' && c <= '9' {
			number, digits = min(10*number+int(c-'0'), maxNumber), true
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
		p.modes, p.margins, p.colours, p.sets = nil, "", "", [2]string{}
	case len(seq) < 3 || seq[1] != '[':
	case last == 'm':
		if string(seq) == "\x1b[m" || string(seq) == "\x1b[0m" {
			p.colours = ""
		} else if len(p.colours)+len(seq) <= maxColours {
			p.colours += string(seq)
		}
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
	p.modes = slices.DeleteFunc(p.modes, func(m mode) bool { return m.name == name })
	if len(p.modes) < maxModes {
		p.modes = append(p.modes, mode{name, on})
	}
}

// Whole reports whether what comes next can follow a Paint: no escape sequence and no character is half written, and the
// picture was not given up.
func (p *Picture) Whole() bool {
	return p.spent < p.left+patience && p.filter.parser.state == ground && p.filter.parser.rest == 0 && !p.filter.c2
}

// Paint returns what makes a terminal of this size, whatever it showed, show the picture.
func (p *Picture) Paint() []byte {
	var b bytes.Buffer
	b.WriteString("\x1bc") // everything as it was at the beginning
	for _, m := range p.modes {
		if m.name != "?6" { // margins come first
			b.WriteString(m.sequence())
		}
	}
	b.WriteString("\x1b[H\x1b[2J")
	rows := strings.Split(p.screen.Render(), "\n")
	for i, row := range rows[:min(len(rows), p.screen.Height())] {
		fmt.Fprintf(&b, "\x1b[%d;1H\x1b[0m%s", i+1, strings.TrimSuffix(row, "\r"))
	}
	b.WriteString("\x1b[0m" + p.margins)
	at := p.screen.CursorPosition()
	fmt.Fprintf(&b, "\x1b[%d;%dH", at.Y+1, at.X+1)
	b.WriteString(p.colours + p.sets[0] + p.sets[1])
	return b.Bytes()
}

func (m mode) sequence() string {
	if m.on {
		return "\x1b[" + m.name + "h"
	}
	return "\x1b[" + m.name + "l"
}
