package terminal

import (
	"bytes"
	"slices"
)

// Filter lets through what paints and keeps back the rest; see the package comment. The zero value is ready.
type Filter struct {
	parser parser
	c2     bool // the byte before was C2, with which C1 controls begin in UTF-8
}

// Append appends to dst what of data may be shown. Bytes may be cut anywhere: a sequence comes out when it is whole.
func (f *Filter) Append(dst, data []byte) []byte {
	for len(data) > 0 {
		if n := f.parser.plain(data); n > 0 {
			dst, data, f.c2 = append(dst, data[:n]...), data[n:], false
			continue
		}
		c := data[0]
		data = data[1:]
		k := f.parser.next(c)
		if f.c2 {
			f.c2 = false
			if k == printable && c >= 0x80 && c <= 0x9f {
				continue
			}
			if k == printable && c >= 0xa0 && c <= 0xbf {
				dst = append(dst, 0xc2, c)
				continue
			}
		}
		switch k {
		case printable:
			if c == 0xc2 && f.parser.rest == 1 {
				f.c2 = true
			} else {
				dst = append(dst, c)
			}
		case control:
			// ENQ makes a terminal answer. XON and XOFF stop it. C1 controls begin sequences.
			if slices.Contains([]byte{'\a', '\b', '\t', '\n', '\v', '\f', '\r', 0x0e, 0x0f}, c) {
				dst = append(dst, c)
			}
		case complete:
			if !f.parser.long && paints(f.parser.seq) {
				dst = append(dst, f.parser.seq...)
			}
		}
	}
	return dst
}

// paints reports whether a whole sequence changes the picture and nothing else.
func paints(seq []byte) bool {
	if len(seq) < 2 {
		return false
	}
	last := seq[len(seq)-1]
	switch seq[1] {
	case '[':
		// Cursor, erasing, scrolling, insertion, colours, margins, repetition, modes, tabs.
		body := seq[2 : len(seq)-1]
		private := len(body) > 0 && body[0] >= '<' && body[0] <= '?'
		intermediate := bytes.ContainsFunc(body, func(c rune) bool { return c >= 0x20 && c <= 0x2f })
		switch {
		case intermediate:
			return last == 'q' && bytes.HasSuffix(body, []byte(" ")) // the cursor's shape
		case private && body[0] == '?':
			return (last == 'h' || last == 'l') && paintingModes(body[1:]) || last == 'J' || last == 'K'
		case private:
			return false
		case last == 'h' || last == 'l':
			return string(body) == "4" // insert mode; others lock the keyboard
		}
		return bytes.IndexByte([]byte("@ABCDEFGHIJKLMPSTXZ`abdefgmrsu"), last) >= 0
	case ']', 'P', 'X', '^', '_':
		return false // titles, clipboard, hyperlinks, colour questions, device strings
	case 'Z', 'c':
		return last == 'c' // a reset paints; identify is a question
	}
	return true // character sets, saving the cursor, keypad
}

// paintingModes reports whether all of these DEC private modes are about the picture. Mouse, focus and paste reports are
// not: they would make the viewer's terminal send things.
func paintingModes(list []byte) bool {
	for mode := range bytes.SplitSeq(list, []byte(";")) {
		switch string(mode) {
		case "1", "3", "5", "6", "7", "12", "25", "45", "47", "66", "69", "1047", "1048", "1049", "2026":
		default:
			return false
		}
	}
	return true
}
