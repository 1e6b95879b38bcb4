package verify

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"
)

// Visible is text as it is shown to people, on one line: control characters, and what reorders or breaks lines, as escapes. What stands in
// a recording, a bundle or a target's log was written by those whom the auditor looks at, and must not write his report.
func Visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// say writes a line for people, or a piece of one, with everything but numbers made visible.
func say(b *strings.Builder, format string, args ...any) {
	shown := make([]any, len(args))
	for i, a := range args {
		if v := reflect.ValueOf(a); v.CanInt() || v.CanUint() {
			shown[i] = a
		} else {
			shown[i] = Visible(fmt.Sprint(a))
		}
	}
	fmt.Fprintf(b, format, shown...)
}
