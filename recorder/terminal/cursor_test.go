package terminal

import "testing"

func TestLineIsWhereTheCursorIs(t *testing.T) {
	for output, want := range map[string][2]string{
		"":                          {"", ""},
		"$ ls":                      {"$ ls", ""},
		"$ lsx\b\x1b[K":             {"$ ls", ""},
		"$ able\b\b\b\b":            {"$ ", "able"},
		"$ \x1b[10Gx\x1b[3G":        {"$ ", "       x"},
		"漢字 a\b":                    {"漢字 ", "a"},
		"0123456789abc":             {"0123456789abc", ""},
		"0123456789abc\x1b[A\r":     {"", "0123456789abc"},
		"\x1b[31mred\x1b[0m > \x07": {"red > ", ""},
	} {
		p := NewPicture(10, 5)
		if output[:min(1, len(output))] != "0" {
			p = NewPicture(40, 5)
		}
		p.Write([]byte(output))
		if before, after := p.Line(); before != want[0] || after != want[1] {
			t.Errorf("%q: %q and %q, want %q", output, before, after, want)
		}
	}
}
