package terminal

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// maxLine is how long a line may grow before it is given as it is.
const maxLine = 8 << 10

// Lines turns what was written to a terminal into lines of plain text: escape sequences are left out, a backspace takes
// back a character, a carriage return or newline ends the line. The zero value is ready.
type Lines struct {
	parser parser
	line   []byte
}

// Write takes bytes, cut anywhere, and emits the lines that are complete with them, without empty ones.
func (l *Lines) Write(data []byte, emit func(string)) {
	for len(data) > 0 {
		if n := min(l.parser.plain(data), maxLine-len(l.line)); n > 0 {
			l.line, data = append(l.line, data[:n]...), data[n:]
			if len(l.line) >= maxLine {
				l.Finish(emit)
			}
			continue
		}
		c := data[0]
		data = data[1:]
		switch l.parser.next(c) {
		case printable:
			l.line = append(l.line, c)
			if len(l.line) >= maxLine {
				l.Finish(emit)
			}
		case control:
			switch c {
			case '\n', '\r':
				l.Finish(emit)
			case '\b':
				_, size := utf8.DecodeLastRune(l.line)
				l.line = l.line[:len(l.line)-size]
			case '\t':
				l.line = append(l.line, c)
			}
		}
	}
}

// Finish emits the line that is under way.
func (l *Lines) Finish(emit func(string)) {
	line := bytes.TrimRight(l.line, " \t")
	if len(line) > 0 {
		emit(Text(strings.ToValidUTF8(string(line), "\uFFFD"), false))
	}
	l.line = l.line[:0]
}

// Clone is a copy that goes on by itself.
func (l *Lines) Clone() *Lines {
	return &Lines{parser: parser{
		state: l.parser.state, seq: bytes.Clone(l.parser.seq), long: l.parser.long, rest: l.parser.rest,
	}, line: bytes.Clone(l.line)}
}
