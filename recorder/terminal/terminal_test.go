package terminal

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func filter(pieces ...string) string {
	var f Filter
	var out []byte
	for _, p := range pieces {
		out = f.Append(out, []byte(p))
	}
	return string(out)
}

func TestFilter(t *testing.T) {
	for name, c := range map[string]struct{ in, out string }{
		"text":                      {"héllo ✓\r\n\ta\b", "héllo ✓\r\n\ta\b"},
		"colours, cursor, erasing":  {"\x1b[1;38;5;9mx\x1b[0m\x1b[2J\x1b[10;20H\x1b[K\x1b7\x1b8\x1b(0", "\x1b[1;38;5;9mx\x1b[0m\x1b[2J\x1b[10;20H\x1b[K\x1b7\x1b8\x1b(0"},
		"modes of the picture":      {"\x1b[?1049h\x1b[?25l\x1b[?7;25h\x1b[4h", "\x1b[?1049h\x1b[?25l\x1b[?7;25h\x1b[4h"},
		"mouse, focus, paste":       {"\x1b[?1000h\x1b[?1004h\x1b[?2004h\x1b[?25;1003h.", "."},
		"keyboard lock":             {"\x1b[2h.", "."},
		"clipboard":                 {"a\x1b]52;c;cm0gLXJm\x07b\x1b]52;c;cm0=\x1b\\c", "abc"},
		"title":                     {"a\x1b]0;title\x07b\x1b]2;t\x1b\\c", "abc"},
		"hyperlink":                 {"\x1b]8;;http://evil\x07text\x1b]8;;\x07", "text"},
		"title reported as input":   {"\x1b[21t.", "."},
		"questions":                 {"\x1b[c\x1b[>c\x1b[=c\x1b[6n\x1b[?6n\x1bZ\x05\x1b[x\x1b[>q\x1b[?u\x1b[?2026$p.", "."},
		"device strings":            {"a\x1bP$q\"p\x1b\\b\x1bPq#0~\x1b\\c\x1b_G\x1b\\d\x1b^x\x1b\\e\x1bXx\x1b\\f", "abcdef"},
		"C1 as bytes":               {"a\x9b6n\x9d0;t\x07b", "a6n0;t\ab"},
		"C1 in UTF-8":               {"a\u009b6n\u009d0;t\u0090b", "a6n0;tb"},
		"é is C3 A9, not C1":        {"é\u00a0", "é\u00a0"},
		"broken off by another":     {"\x1b]52;c;\x1b[1mx", "\x1b[1mx"},
		"string that never ends":    {"\x1b]0;hidden\nshown", "shown"},
		"cancelled":                 {"\x1b[12\x18x\x1b]52;c;x\x1ay", "xy"},
		"control inside a sequence": {"\x1b[3\n1mx", "\n\x1b[31mx"},
		"too long":                  {"\x1b[" + strings.Repeat("1;", 500) + "mx", "x"},
		"reset":                     {"\x1bcx", "\x1bcx"},
	} {
		if got := filter(c.in); got != c.out {
			t.Errorf("%s: %q, want %q", name, got, c.out)
		}
		if got := filter(strings.Split(c.in, "")...); utf8.ValidString(c.in) && got != c.out {
			t.Errorf("%s, a character at a time: %q", name, got)
		}
		var bytewise []string
		for i := range len(c.in) {
			bytewise = append(bytewise, c.in[i:i+1])
		}
		if got := filter(bytewise...); got != c.out {
			t.Errorf("%s, a byte at a time: %q", name, got)
		}
	}
}

func TestText(t *testing.T) {
	for in, out := range map[string]string{
		"plain ✓\t":           "plain ✓\t",
		"\x1b]52;c;x\x07\r\n": `\x1b]52;c;x\x07\r\n`,
		"a\u009bm":            `a\x9bm`,
		"bad \xff":            "bad \uFFFD",
		"drop \u202e elbat":   "drop \uFFFD elbat",
		"zero\x00 del\x7f":    `zero\x00 del\x7f`,
	} {
		if got := Text(in, false); got != out {
			t.Errorf("%q: %q, want %q", in, got, out)
		}
	}
	if got := Text("a\nb\x1b", true); got != "a\nb\\x1b" {
		t.Errorf("%q", got)
	}
}

func TestLines(t *testing.T) {
	var l Lines
	var got []string
	emit := func(s string) { got = append(got, s) }
	for _, piece := range []string{"$ lx\b", "s -l\r\n\r\n", "\x1b[3", "2mgreen\x1b[0m ", "\xe2\x9c", "\x93  \r\nhalf", " progress\rdone\x1b]0;t\x07 \xff"} {
		l.Write([]byte(piece), emit)
	}
	l.Finish(emit)
	l.Finish(emit)
	if want := "$ ls -l|green ✓|half progress|done \uFFFD"; strings.Join(got, "|") != want {
		t.Errorf("%q", got)
	}
	got = nil
	l.Write([]byte(strings.Repeat("x", 3*maxLine)), emit)
	if len(got) != 3 {
		t.Errorf("%d lines of a line without end", len(got))
	}
}

// Whatever comes in, in whatever pieces, nothing goes out that reaches beyond the picture.
func FuzzFilter(f *testing.F) {
	f.Add([]byte("\x1b]52;c;x\x07\x1b[31mx\u009bm"), 3)
	f.Add([]byte("\xc2\x1b\x9b6n"), 1)
	for _, b := range screens(f) {
		f.Add(b, len(b)/3)
	}
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		cut = min(max(cut, 0), len(data))
		out := filter(string(data[:cut]), string(data[cut:]))
		for _, bad := range []string{"\x1b]", "\x1bP", "\x1b_", "\x1b^", "\x1bX", "\x1bZ", "\x05"} {
			if strings.Contains(out, bad) {
				t.Fatalf("%q lets %q through: %q", data, bad, out)
			}
		}
		for _, c := range out { // C1 controls; bytes that are no UTF-8 are no character either
			if c >= 0x80 && c <= 0x9f {
				t.Fatalf("%q lets %q through: %q", data, c, out)
			}
		}
		if again := filter(out); again != out {
			t.Fatalf("%q: %q filtered again is %q", data, out, again)
		}
		var l Lines
		check := func(line string) {
			if strings.ContainsFunc(line, func(c rune) bool { return !harmless(c) && c != utf8.RuneError }) {
				t.Fatalf("%q", line)
			}
		}
		l.Write(data, check)
		l.Finish(check)
	})
}
