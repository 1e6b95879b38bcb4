package mask

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// seen is what a picture shows, row after row.
func seen(p *terminal.Picture) string {
	columns, rows := p.Size()
	var b strings.Builder
	for y := range rows {
		for x := range columns {
			if c := p.At(x, y).Char(); c != 0 {
				b.WriteRune(c)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// joined is what seen would be read as, if every row went on in the next, and nothing stood between digits.
func joined(s string) string { return strings.NewReplacer("\n", "", " ", "", "-", "").Replace(s) }

// watcher shows what a Screen gives, and looks at each state whether something is seen that must not be.
type watcher struct {
	screen  *Screen
	picture *terminal.Picture
	real    *terminal.Picture
	all     []byte
}

func watch(m *Masker, columns, rows int) *watcher {
	return &watcher{screen: m.Screen(columns, rows), picture: terminal.NewPicture(columns, rows), real: terminal.NewPicture(columns, rows)}
}

func (w *watcher) write(data []byte) {
	w.real.Write(data)
	given := w.screen.Write(nil, data)
	w.picture.Write(given)
	w.all = append(w.all, given...)
}

func (w *watcher) flush() {
	given := w.screen.Flush(nil)
	w.picture.Write(given)
	w.all = append(w.all, given...)
}

// TestNoPaintedCardSurvives states that a card's number which stands on a screen is never seen on it, in whatever order and pieces it was
// painted there, and by whatever movements.
func TestNoPaintedCardSurvives(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	rapid.Check(t, func(t *rapid.T) {
		const columns, rows = 40, 8
		number := card(t)
		column, row := rapid.IntRange(0, columns-len(number)).Draw(t, "column"), rapid.IntRange(0, rows-1).Draw(t, "row")
		w := watch(m, columns, rows)
		var b bytes.Buffer
		some := func(name string) {
			b.WriteString(rapid.SampledFrom([]string{"", "", "hello ", "\x1b[1m", "\x1b[0m", "\x1b[?25l", "\x1b[?25h", "\r\nls -l\r\n", "\x1b[H", "\x1b[5;9H", "\b\b", "\r"}).Draw(t, name))
		}
		if rapid.Bool().Draw(t, "full screen") {
			b.WriteString("\x1b[?1049h\x1b[H\x1b[2J")
		}
		some("first")
		order := rapid.Permutation(indexes(len(number))).Draw(t, "order")
		for _, i := range order {
			fmt.Fprintf(&b, "\x1b[%d;%dH", row+1, column+i+1)
			switch rapid.IntRange(0, 3).Draw(t, "way") {
			case 0: // by overwriting
				fmt.Fprintf(&b, "%c\b%c", 'x', number[i])
			case 1: // by moving back
				fmt.Fprintf(&b, "\x1b[C\b%c", number[i])
			default:
				b.WriteByte(number[i])
			}
			if rapid.IntRange(0, 4).Draw(t, "elsewhere") == 0 {
				b.WriteString("\x1b7\x1b[8;30Hstatus\x1b8")
			}
		}
		all := b.Bytes()
		for rest := all; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 60)).Draw(t, "piece")
			w.write(rest[:n])
			rest = rest[n:]
			if strings.Contains(joined(seen(w.picture)), number) {
				t.Fatalf("%s is seen after %q:\n%s", number, all[:len(all)-len(rest)], seen(w.picture))
			}
		}
		w.flush()
		if !strings.Contains(seen(w.real), number) { // something was written over it
			return
		}
		if strings.Contains(joined(seen(w.picture)), number) {
			t.Fatalf("%s is seen at the end of %q:\n%s", number, all, seen(w.picture))
		}
		if !strings.Contains(seen(w.picture), number[len(number)-4:]+"]") {
			t.Fatalf("that something is masked is not seen after %q:\n%s", all, seen(w.picture))
		}
	})
}

func indexes(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// TestScreenIsAsPainted states that what is not hidden is shown as it was painted, in whatever pieces it came.
func TestScreenIsAsPainted(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "key", Regexp: `zzkey=[a-z]+`}}})
	rapid.Check(t, func(t *rapid.T) {
		w := watch(m, 30, 6)
		for range rapid.IntRange(1, 20).Draw(t, "pieces") {
			w.write([]byte(rapid.OneOf(
				rapid.StringMatching(`[a-m 0-3é漢]{0,40}`),
				rapid.SampledFrom([]string{
					"\r\n", "\n", "\r", "\b", "\t", "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[1K", "\x1b[3;5H", "\x1b[A", "\x1b[2D", "\x1b[?1049h", "\x1b[?1049l", "\x1b[2;4r", "\x1b[r", "\x1bM", "\x1b[L", "\x1b[M",
					"\x1b[P", "\x1b[@", "\x1b7", "\x1b8", "\x1b[31m", "\x1b[7m", "\x1b[m", "\x1b[?25l", "\x1b[?25h", "\x1b[", "5;1H", "\x1b]0;a title\a", "\x1b(0lqk\x1b(B", "\x1b[4h", "\x1b[4l", "\x1bc",
				}),
			).Draw(t, "piece")))
		}
		w.flush()
		if !w.screen.painting { // lines are given as they came, and shown as whoever shows them does
			return
		}
		if got, want := seen(w.picture), seen(w.real); got != want {
			t.Fatalf("%q is shown as\n%s\nwant\n%s", w.all, got, want)
		}
		gotX, gotY, _ := w.picture.Cursor()
		if x, y, _ := w.real.Cursor(); gotX != x || gotY != y {
			t.Fatalf("the cursor is at %d, %d, want %d, %d", gotX, gotY, x, y)
		}
	})
}

// TestPaintedWords states what is masked of patterns on a screen: as wide as it was, also where it goes on in the next row.
func TestPaintedWords(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "key", Regexp: `AKIA[0-9A-Z]{16}`}}})
	for name, paint := range map[string]string{
		"in a row":         "\x1b[2;3HAKIA0123456789ABCDEF.",
		"backwards":        "\x1b[2;13H6789ABCDEF.\x1b[2;3HAKIA012345",
		"in two rows":      "\x1b[2;15HAKIA01\x1b[3;1H23456789ABCDEF.",
		"by erasing":       "\x1b[2;3HAKIA0123456789ABCDEx\x1b[2;22H\x1b[K\x1b[2;22HF.",
		"by inserting":     "\x1b[2;3HAKIA0789ABCDEF.\x1b[2;8H\x1b[6@123456",
		"by deleting":      "\x1b[2;3HAKIA0123456---789ABCDEF.\x1b[2;14H\x1b[3P",
		"by scrolling":     "\x1b[3;1HAKIA0123456789ABCDEF.\x1b[H\x1b[M",
		"by repeating":     "\x1b[2;3HAKIA0\x1b[15b.",
		"wide characters":  "\x1b[2;1H漢漢 AKIA0123456789ABCDEF.",
		"over a prompt":    "$ typed\r\x1b[KAKIA0123456789ABCDEF.",
		"after a long one": "AKIA0123456789ABCDE\b\b\b\b\b56789ABCDEF.",
	} {
		for size := range 12 {
			w := watch(m, 40, 5)
			if name == "in two rows" {
				w = watch(m, 20, 5)
			}
			for rest := []byte(paint); len(rest) > 0; {
				n := len(rest)
				if size > 0 {
					n = min(n, size)
				}
				w.write(rest[:n])
				rest = rest[n:]
			}
			w.flush()
			got := seen(w.picture)
			if strings.Contains(joined(got), "AKIA") || !strings.Contains(strings.ReplaceAll(got, "\n", ""), "[masked: key]") || !strings.Contains(got, ".") {
				t.Errorf("%s, in pieces of %d:\n%s\nfrom\n%s", name, size, got, seen(w.real))
			}
		}
	}
}

// TestRealPrograms states that what real programs (vim and tmux, as they were recorded) painted on a screen of 80 by 24 is masked on it at every
// moment, that all else is shown, and that what it is made of has nothing of it either.
func TestRealPrograms(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "key", Regexp: `AKIA[0-9A-Z]{16}`}}})
	for _, program := range []string{"vim", "tmux"} {
		data, err := os.ReadFile(filepath.Join("testdata", program+".screen"))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{64, 1000} {
			w := watch(m, 80, 24)
			painted, masked, rest := false, false, false
			for at := 0; at < len(data); at += size {
				w.write(data[at:min(at+size, len(data))])
				masked = masked || strings.Contains(seen(w.picture), "1111]") && strings.Contains(seen(w.picture), "[masked: key]")
				rest = rest || strings.Contains(seen(w.picture), "nothing to hide")
				for _, secret := range []string{"4111111111111111", "AKIAIOSFODNN7EXAMPLE"} {
					painted = painted || strings.Contains(joined(seen(w.real)), secret)
					if strings.Contains(joined(seen(w.picture)), secret) {
						t.Fatalf("%s shows %s after %d bytes:\n%s", program, secret, at+size, seen(w.picture))
					}
				}
			}
			if !painted && size < 100 {
				t.Fatalf("%s painted nothing that is to be masked", program)
			}
			if !masked || !rest {
				t.Errorf("%s in pieces of %d: masked is shown: %t, and the rest: %t", program, size, masked, rest)
			}
		}
	}
}

// TestScreensFailShut states that of a screen which can't be worked out nothing is shown: of one too many, and where that goes wrong.
func TestScreensFailShut(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	var all []byte
	s := Items{Masker: m, Yield: func(it item.Item, _ error) bool { all = append(all, it.Data...); return true }}
	for channel := range uint32(mostScreens + 1) {
		s.Item(item.Item{Kind: item.Command, Channel: channel, Columns: 80, Lines: 24, Terminal: "xterm", Via: "shell"}, nil)
		all = nil
		s.Item(item.Item{Kind: item.Output, Channel: channel, Data: []byte("\x1b[5;5Hpainted")}, nil)
		s.Item(item.Item{Kind: item.Output, Channel: channel, Data: []byte(" more")}, nil)
		if got := string(all); strings.Contains(got, "more") == (channel == mostScreens) || strings.Contains(got, "[masked: what this") != (channel == mostScreens) {
			t.Errorf("screen %d gives %q", channel, got)
		}
	}
	s.Item(item.Item{Kind: item.Exit, Channel: 0}, nil)
	s.Item(item.Item{Kind: item.Command, Channel: 99, Columns: 80, Lines: 24, Terminal: "xterm", Via: "shell"}, nil)
	all = nil
	if s.Item(item.Item{Kind: item.Output, Channel: 99, Data: []byte("\x1b[5;5Hpainted")}, nil); !bytes.Contains(all, []byte("painted")) {
		t.Errorf("after one has ended another gives %q", all)
	}
	w := watch(m, 80, 24)
	w.write([]byte("\x1b[5;5H"))
	w.screen.real = nil // so that the terminal in memory panics
	if w.write([]byte("4111")); !strings.HasSuffix(string(w.all), notShown) {
		t.Errorf("it gives %q", w.all)
	}
	if before := len(w.all); true {
		if w.write([]byte("111111111111\r\nmore\r\n")); len(w.all) != before {
			t.Errorf("afterwards it gives %q", w.all[before:])
		}
	}
}

// TestPictureOnAScreen states that what stands for all before, where a recording is read from its middle, is masked like the rest.
func TestPictureOnAScreen(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	p := terminal.NewPicture(30, 5)
	p.Write([]byte("\x1b[2;4H11111111\x1b[2;1H411111111\x1b[3;24H4111111\x1b[4;1H111111111 and"))
	p.Write([]byte("\x1b[2;4H1111111111111 end\x1b[1;1H"))
	var all []byte
	s := Items{Masker: m, Yield: func(it item.Item, _ error) bool { all = append(all, it.Data...); return true }}
	s.Item(item.Item{Kind: item.Output, Via: item.Picture, Channel: 1, Columns: 30, Lines: 5, Data: p.Paint()}, nil)
	s.Item(item.Item{Kind: item.Output, Channel: 1, Data: []byte("\x1b[5;1Hlater")}, nil)
	shown := terminal.NewPicture(30, 5)
	shown.Write(all)
	if got := seen(shown); strings.Contains(joined(got), "4111111111111111") || strings.Count(got, "1111]") != 2 || !strings.Contains(got, "later") || !strings.Contains(got, "and") {
		t.Errorf("%q shows\n%s\nof\n%s", all, got, seen(p))
	}
}

func FuzzScreen(f *testing.F) {
	f.Add([]byte("\x1b[2;4H11111111\x1b[2;1H411111111\r\n\x1b[?1049h"), 3)
	m := newMasker(f, format.Mask{Cards: true})
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		w := watch(m, 30, 5)
		size = max(1, size&63)
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			w.write(rest[:n])
			rest = rest[n:]
			if w.screen.painting {
				if shown := m.Text(seen(w.picture)); shown != seen(w.picture) && !strings.Contains(seen(w.picture), "•") {
					t.Fatalf("%q shows\n%s", data, seen(w.picture))
				}
			}
		}
		w.flush()
	})
}

func BenchmarkScreen(b *testing.B) {
	m := newMasker(b, format.Mask{Cards: true})
	log := []byte(strings.Repeat("2026-11-25 12:30:00 INFO  request 4711 took 15 ms, user 1234567 \x1b[32mok\x1b[0m\r\n", 200))
	key := []byte("\x1b[12;40Hx\x1b[24;70H12,40\x1b[12;41H")
	for name, data := range map[string][]byte{"lines": log, "painting": key} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			s := m.Screen(80, 24)
			var out []byte
			for b.Loop() {
				s.spent = 0
				out = s.Write(out[:0], data)
			}
		})
	}
}
