package terminal

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/charmbracelet/x/vt"
)

func emulator(columns, lines int) *vt.Emulator {
	e := vt.NewEmulator(columns, lines)
	e.InputPipe().(io.Closer).Close()
	return e
}

// randomOutput is what programs write: lines, colours, margins, full-screen editors.
func randomOutput(r *rand.Rand, pieces int) (all [][]byte) {
	sequences := []string{
		"\x1b[31m", "\x1b[1;44m", "\x1b[0m", "\x1b[m", "\x1b[38;5;200m", "\x1b[7m", "\x1b[2J", "\x1b[K", "\x1b[1K", "\x1b[3;10r", "\x1b[r",
		"\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h", "\x1b[L", "\x1b[2M", "\x1b[3P", "\x1b[4@", "\x1bM", "\x1bD", "\x1b[S", "\x1b[T",
		"\x1b(0", "\x1b(B", "\x1b]0;title\x07", "\x1b[6n", "\x1b[c", "\r\n", "\n", "\b", "\t", "日本", "é", "e\u0301",
	}
	for range pieces {
		if r.IntN(30) == 0 {
			for n := range r.IntN(100) {
				all = append(all, fmt.Appendf(nil, "\x1b[3%dmline %d %s\r\n", r.IntN(8), n, strings.Repeat("y", r.IntN(60))))
			}
		}
		switch r.IntN(4) {
		case 0:
			all = append(all, []byte(sequences[r.IntN(len(sequences))]))
		case 1:
			all = append(all, fmt.Appendf(nil, "\x1b[%d;%dH", 1+r.IntN(14), 1+r.IntN(45)))
		default:
			all = append(all, []byte(strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(30))))
		}
	}
	return all
}

// A terminal that shows the picture shows what one shows that has shown everything.
func TestPicture(t *testing.T) {
	const columns, lines = 40, 12
	r := rand.New(rand.NewPCG(7, 7))
	wrong := 0
	for round := range 100 {
		whole, p := emulator(columns, lines), NewPicture(columns, lines)
		var f Filter
		var far []byte
		for _, piece := range randomOutput(r, 1+r.IntN(60)) {
			p.Write(piece)
			far = append(far, piece...)
		}
		whole.Write(f.Append(nil, far))
		if !p.Whole() {
			t.Fatalf("round %d: half written after whole pieces", round)
		}
		painted := emulator(columns, lines)
		painted.Write([]byte("what was there before\x1b[5;7H\x1b[31mred"))
		painted.Write(p.Paint())
		if got, want := painted.Render(), whole.Render(); got != want || painted.CursorPosition() != whole.CursorPosition() {
			if wrong++; wrong < 3 {
				t.Errorf("round %d: after %q\npaint %q\n%v %q\ninstead of\n%v %q", round, far, p.Paint(), painted.CursorPosition(), got, whole.CursorPosition(), want)
			}
		}
		if bytes.Contains(p.Paint(), []byte("\x1b]")) {
			t.Fatal("a title came through")
		}
	}
	if wrong > 0 {
		t.Errorf("%d of 100 are wrong", wrong)
	}
}

// screens are what a few programs wrote to a terminal of 80 columns and 24 lines while somebody used them.
func screens(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/screens/*.screen")
	if err != nil || len(files) == 0 {
		t.Fatal("no screens: ", err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = b
	}
	return all
}

// blankless is a screen without the blanks at the ends of its lines: the emulator loses one where a wide character was overwritten.
func blankless(screen string) string {
	lines := strings.Split(screen, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.Join(lines, "\n")
}

// TestPictureOfPrograms: the same for real programs, at every place where a replay could begin.
func TestPictureOfPrograms(t *testing.T) {
	for name, all := range screens(t) {
		whole, p := emulator(80, 24), NewPicture(80, 24)
		var f Filter
		looked := 0
		for at := 0; at < len(all); {
			piece := all[at:min(at+211, len(all))]
			at += len(piece)
			p.Write(piece)
			whole.Write(f.Append(nil, piece))
			if !p.Whole() {
				continue
			}
			looked++
			painted := emulator(80, 24)
			painted.Write(p.Paint())
			if got, want := blankless(painted.Render()), blankless(whole.Render()); got != want || painted.CursorPosition() != whole.CursorPosition() {
				t.Fatalf("%s at %d: %v %q\ninstead of %v %q", name, at, painted.CursorPosition(), got, whole.CursorPosition(), want)
			}
		}
		if looked < len(all)/211/4 {
			t.Errorf("%s: looked at %d times", name, looked)
		}
	}
}

// TestMarginsBeyondTheScreen: a program that thinks the screen larger than it is, or wants to break what shows it, breaks nothing.
func TestMarginsBeyondTheScreen(t *testing.T) {
	for _, b := range []string{"\x1b[1;24r\x1b[T", "\x1b[1;24r\x1b[1;1H\x1b[L", "\x1b[2;400r\x1b[2;1H\x1b[3M", "\x1b[?69h\x1b[1;400s\x1b[4;1H\x1b[L\x1b[T\x1b[P\x1b[@", "\x1b[1;24r\x1b[4;1H\n\n\x1bM\x1b[S"} {
		p := NewPicture(20, 4)
		p.Write([]byte("one\r\ntwo\r\nthree" + b + "x"))
		screen := p.Paint()
		if p.Lost() {
			t.Errorf("%q: the picture is given up", b)
		}
		painted := emulator(20, 4)
		painted.Write(screen)
		painted.Write([]byte("\x1b[1;1H\x1b[L\x1b[T\x1b[M\x1b[S"))
	}
}

// FuzzPicture: any bytes are stood, and the picture stays small.
func FuzzPicture(f *testing.F) {
	f.Add([]byte("\x1b[999999999b\x1b[?1049h\x1b[1;1r\x1b]52;c;?\x07\x1bP0q#0~\x1b\\\xff\xfe"), 80, 24)
	for _, b := range screens(f) {
		f.Add(b, 80, 24)
		f.Add(b[:len(b)/2], 20, 5)
	}
	f.Fuzz(func(t *testing.T, b []byte, columns, lines int) {
		p := NewPicture(columns, lines)
		p.Write([]byte("x"))
		p.Write(b)
		p.Resize(lines, columns)
		p.Write(b)
		if n := len(p.Paint()); n > 64*maxColumns*maxRows {
			t.Fatalf("a picture of %d bytes", n)
		}
		if p.lost {
			t.Fatal("the emulator broke")
		}
	})
}

func BenchmarkPicture(b *testing.B) {
	out := bytes.Join(randomOutput(rand.New(rand.NewPCG(1, 1)), 5000), nil)
	p := NewPicture(120, 40)
	b.SetBytes(int64(len(out)))
	for b.Loop() {
		p.Write(out)
	}
}
