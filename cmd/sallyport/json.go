package main

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// newJSON writes JSON in which nothing can move a terminal's cursor or reorder what it shows: JSON itself escapes only the
// first 32 control characters, and output that was meant for programs is looked at by people all the same.
func newJSON(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(plainJSON{w})
	encoder.SetEscapeHTML(false)
	return encoder
}

// plainJSON escapes in JSON what stands there as itself and should not. Such characters are only ever in texts, where their
// escapes mean the same. Each Write must hold whole characters, as json.Encoder's do.
type plainJSON struct{ w io.Writer }

func (p plainJSON) Write(data []byte) (int, error) {
	if _, err := p.w.Write(escapeControls(data)); err != nil {
		return 0, err
	}
	return len(data), nil
}

func escapeControls(data []byte) []byte {
	var out []byte
	from := 0
	for i := 0; i < len(data); {
		if data[i] < utf8.RuneSelf && data[i] != 0x7f {
			i++
			continue
		}
		r, size := utf8.DecodeRune(data[i:])
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			out = fmt.Appendf(append(out, data[from:i]...), `\u%04x`, r)
			from = i + size
		}
		i += size
	}
	if out == nil {
		return data
	}
	return append(out, data[from:]...)
}
