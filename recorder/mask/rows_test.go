package mask

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// told is what terminal.Lines makes of a terminal's output in pieces, masked as a text export and the search index do.
func told(t *testing.T, m *Masker, columns, rows int, pieces ...string) []string {
	t.Helper()
	var all []string
	var lines terminal.Lines
	emit := func(line string) { all = append(all, m.Text(line)) }
	items := Items{Masker: m, Lines: true, Yield: func(it item.Item, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		if it.Kind == item.Output {
			lines.Write(it.Data, emit)
		}
		return true
	}}
	items.Item(item.Item{Kind: item.Command, Channel: 1, Columns: columns, Lines: rows}, nil)
	for _, piece := range pieces {
		items.Item(item.Item{Kind: item.Output, Channel: 1, Stream: "stdout", Data: []byte(piece)}, nil)
	}
	items.Item(item.Item{Kind: item.End}, nil)
	lines.Finish(emit)
	return all
}

// TestRowsOfAnEditor: a number that is typed into an editor, which shows where the cursor is after each character, is in no line, whole or digit
// by digit; what else stands in the rows is, each once.
func TestRowsOfAnEditor(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	pieces := []string{"$ vi\r\n", "\x1b[?1049h\x1b[H\x1b[2J~\r\n~\r\n\x1b[1;1H"}
	for i, c := range "pay 4111 1111 1111 1111 now" {
		pieces = append(pieces, fmt.Sprintf("\x1b[1;%dH%c", i+1, c), fmt.Sprintf("\x1b[5;30H<%c>\x1b[1;%dH", 'a'+i, i+2))
	}
	pieces = append(pieces, "\x1b[2;1Hhello", "\x1b[3;1H", "\x1b[?1049l", "$ \r\n", "$ ls\r\nmore\r\n")
	got := told(t, m, 40, 6, pieces...)
	digits := 0
	for _, line := range got {
		digits += strings.Count(line, "1") + strings.Count(line, "4")
	}
	for _, want := range []string{"$ vi", "pay [card ••••••••1111] now", "hello", "$ ls", "more"} {
		n := 0
		for _, line := range got {
			if line == want {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q stands there %d times", want, n)
		}
	}
	if digits != 4 {
		t.Errorf("%d digits are seen: %q", digits, got)
	}
}

// TestRowsOfALine: a line that is edited is one line, as it was in the end; one that is edited over several rows too.
func TestRowsOfALine(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	for name, c := range map[string]struct {
		pieces []string
		want   []string
	}{
		"backspace": {[]string{"$ lss", "\b\x1b[K", " -la\r\n", "total 0\r\n"}, []string{"$ ls -la", "total 0"}},
		"a number":  {[]string{"$ 4111 1111 1111 111x", "\b\x1b[K", "1\r\n"}, []string{"$ [card ••••••••1111]"}},
		"wrapped": {
			[]string{"one\r\n", "$ 4111 1111 1111 1", "11x", "\x1b[A\x1b[B", "\b\x1b[K1", "\r\n", "two\r\n"},
			[]string{"one", "$ [card •••••••••111", "1]", "two"},
		},
		"scrolled": {[]string{"a\r\nb\r\nc\r\n", "\x1b[1;1H\x1b[4;1H", "d\r\ne\r\nf\r\n"}, []string{"a", "b", "c", "d", "e", "f"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := told(t, m, 20, 4, c.pieces...)
			if name == "wrapped" { // how wide the label is in each row is another test's
				for i, line := range got {
					got[i] = strings.ReplaceAll(line, "•", "")
					if strings.Contains(line, "4111") || strings.Count(line, "1") > 4 {
						t.Errorf("%q", line)
					}
				}
				if !slices.Contains(got, "two") || !slices.Contains(got, "one") {
					t.Errorf("%q", got)
				}
				return
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestRowsOfChangeAreBounded: a program that changes a little of everything is not told of without bound.
func TestRowsOfChangeAreBounded(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	s := m.Rows(200, 100)
	s.Write(nil, []byte("\x1b[H\x1b[2J"))
	for y := range 100 {
		s.Write(nil, fmt.Appendf(nil, "\x1b[%d;1H%s", y+1, strings.Repeat("x", 190)))
	}
	written, given := 100*200, 0
	for i := range 200 {
		var b []byte
		for y := range 100 {
			b = fmt.Appendf(b, "\x1b[%d;1H%c", y+1, 'a'+i%26)
		}
		written += len(b)
		given += len(s.Write(nil, b))
	}
	if most := mostRows + (rowsPerByte+1)*written; given > most {
		t.Errorf("%d bytes of %d", given, written)
	}
}
