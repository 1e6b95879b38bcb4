// Package terminal handles bytes that a hostile peer may have written for a terminal.
//
// Whoever shows a recording shows what an attacker could put into it. So everything that is shown as text goes through
// Text or Lines, which leave nothing that a terminal would obey; and what is replayed on a real terminal goes through a
// Filter, which lets painting through (characters, colours, cursor movement, modes) and keeps back what reaches beyond
// the picture: the clipboard, window titles, questions that the terminal would answer as if typed, and device strings.
//
// The states are those of ECMA-48 and of the VT500 parser (vt100.net/emu/dec_ansi_parser).
package terminal

import (
	"strings"
	"unicode/utf8"
)

// state is where in an escape sequence a byte stands.
type state uint8

const (
	ground     state = iota
	escape           // after ESC
	escapeMore       // after ESC and an intermediate byte
	csi              // after ESC [
	text             // in an operating system command, or another string that ends with ST
	textEscape       // after ESC within such a string
)

// most is how long a sequence may be that a Filter keeps to judge it; longer ones are left out.
const most = 256

// parser follows escape sequences through bytes cut anywhere. The zero value is ready.
type parser struct {
	state state
	seq   []byte // the sequence so far, bounded by most
	long  bool
	rest  int // bytes of a UTF-8 character that are still to come
}

// kind is what a byte turned out to be.
type kind uint8

const (
	inside    kind = iota // of a sequence that goes on
	printable             // a character's byte
	control               // a C0 control
	complete              // the last byte of a sequence, all of which is in parser.seq
)

func (p *parser) keep(c byte) {
	if len(p.seq) < most {
		p.seq = append(p.seq, c)
	} else {
		p.long = true
	}
}

func (p *parser) begin(s state, c byte) kind {
	p.state, p.seq, p.long, p.rest = s, append(p.seq[:0], c), false, 0
	return inside
}

func (p *parser) next(c byte) kind {
	switch {
	case p.state == text || p.state == textEscape:
		p.keep(c)
		switch {
		case c == 0x07 && p.seq[1] == ']', p.state == textEscape && c == '\\', c == 0x18, c == 0x1a, c == '\n':
			// A newline is in no string that means well; one left open must not hide all that follows.
			p.state = ground
			return complete
		case p.state == textEscape:
			// Some other sequence begins and ends the string.
			again := c
			p.begin(escape, 0x1b)
			return p.next(again)
		case c == 0x1b:
			p.state = textEscape
		}
		return inside
	case c == 0x1b:
		return p.begin(escape, c)
	case c == 0x18 || c == 0x1a: // CAN and SUB end any sequence
		p.state, p.rest = ground, 0
		return control
	case p.state == ground:
		return p.ground(c)
	case c < 0x20 || c == 0x7f: // controls act within sequences too
		return control
	}
	p.keep(c)
	switch p.state {
	case escape:
		switch {
		case c == '[':
			p.state = csi
		case strings.IndexByte("]PX^_", c) >= 0:
			p.state = text
		case c >= 0x20 && c <= 0x2f:
			p.state = escapeMore
		default:
			p.state = ground
			return complete
		}
	case escapeMore:
		if c < 0x20 || c > 0x2f {
			p.state = ground
			return complete
		}
	case csi:
		if c >= 0x40 {
			p.state = ground
			return complete
		}
	}
	return inside
}

// plain is how many bytes at the beginning of data are characters of ASCII, outside of sequences: most are, and are taken together.
func (p *parser) plain(data []byte) int {
	if p.state != ground || p.rest != 0 {
		return 0
	}
	for i, c := range data {
		if c < 0x20 || c >= 0x7f {
			return i
		}
	}
	return len(data)
}

// ground takes a byte outside of sequences. C1 controls (0x80 to 0x9f) count as sequences only where they are no part of
// a UTF-8 character, and in UTF-8 (C2 80 to C2 9f) they are handled by Text and Filter.
func (p *parser) ground(c byte) kind {
	if p.rest > 0 && c >= 0x80 && c <= 0xbf {
		p.rest--
		return printable
	}
	p.rest = 0
	switch {
	case c < 0x20 || c == 0x7f:
		return control
	case c >= 0xc2 && c <= 0xdf:
		p.rest = 1
	case c >= 0xe0 && c <= 0xef:
		p.rest = 2
	case c >= 0xf0 && c <= 0xf4:
		p.rest = 3
	case c >= 0x80 && c <= 0x9f: // a bare C1 control: never let through
		return control
	}
	return printable
}

// Text makes text harmless to print: escapes and controls other than tab are shown as \x1b and the like, invalid UTF-8
// as U+FFFD. Newlines are kept if lines is set, else shown as \n.
func Text(s string, lines bool) string {
	clean := true
	for _, c := range s {
		if !harmless(c) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		switch {
		case harmless(c):
			b.WriteRune(c)
		case c == '\n' && lines:
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c < 0x100:
			const digits = "0123456789abcdef"
			b.WriteString(`\x`)
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		default:
			b.WriteRune(utf8.RuneError)
		}
	}
	return b.String()
}

// harmless reports whether a terminal shows the character and does nothing else. Characters that turn the direction of
// text around are not: they make a line read as something it is not.
func harmless(c rune) bool {
	switch {
	case c == '\t':
		return true
	case c < 0x20, c >= 0x7f && c <= 0x9f, c == utf8.RuneError:
		return false
	case c == 0x061c, c == 0x200e, c == 0x200f, c >= 0x202a && c <= 0x202e, c >= 0x2066 && c <= 0x2069:
		return false
	}
	return true
}
