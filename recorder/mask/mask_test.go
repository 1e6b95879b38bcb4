package mask

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

func newMasker(t testing.TB, rules format.Mask) *Masker {
	t.Helper()
	m, err := New(&rules)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// luhn is the formula as ISO/IEC 7812-1 tells it, from the right.
func luhn(digits string) bool {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// card makes one of so many digits.
func card(t *rapid.T) string {
	n := rapid.IntRange(leastDigits, mostDigits).Draw(t, "digits")
	body := rapid.StringMatching(fmt.Sprintf(`[1-9][0-9]{%d}`, n-2)).Draw(t, "body")
	for d := range 10 {
		if whole := fmt.Sprint(body, d); luhn(whole) {
			return whole
		}
	}
	panic("no digit is right")
}

func TestText(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "token", Regexp: `tok_[a-z0-9]+`}, {Name: "holder", Regexp: `holder=\w+ \d+`}}})
	for in, want := range map[string]string{
		"":                                "",
		"SELECT 1":                        "SELECT 1",
		"'4111111111111111'":              "'[card •••••1111]'",
		"4111 1111 1111 1111.":            "[card ••••••••1111].",
		"a 3782-822463-10005 b":           "a [card ••••••0005] b",
		"4111111111111112":                "4111111111111112", // not right by Luhn
		"41111111111111111111111":         "41111111111111111111111",
		"12 4111 1111 1111 1111 7":        "12 [card ••••••••1111] 7",
		"x4111111111111111y":              "x[card •••••1111]y",
		"4222222222222":                   "[card ••2222]",
		"say tok_abc9, 4111111111111111":  "say [masked: token], [card •••••1111]",
		"holder=Ada 4111111111111111 end": "[masked: holder] end",
		"4111\x1b[1m1111\x1b[m11111111":   "[card •••••1111]\x1b[1m\x1b[m",
		"2026-11-25 12:30:00.000000+00":   "2026-11-25 12:30:00.000000+00",
	} {
		if got := m.Text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
		if got := string(m.Bytes([]byte(in))); got != want {
			t.Errorf("%q became %q as bytes, want %q", in, got, want)
		}
	}
	if m, err := New(&format.Mask{}); m != nil || err != nil || m.Text("4111111111111111") != "4111111111111111" {
		t.Error("no rules mask something")
	}
}

// held are all bytes that an item shows, as its JSON has them and as they are.
func held(items []item.Item) string {
	var b strings.Builder
	for _, it := range items {
		b.Write(it.Data)
	}
	for _, it := range items {
		for _, p := range it.Params {
			b.WriteString("\n" + string(p.Binary))
		}
		b.WriteString("\n" + it.Text + "\n")
		it.Data = nil
		text, _ := json.Marshal(it)
		b.Write(text)
	}
	return b.String()
}

// plain leaves nothing between digits that a card's number could have there.
func plain(s string) string {
	s = string(look([]byte(s)).text)
	return strings.NewReplacer(" \r", "", " ", "", "-", "").Replace(s)
}

// TestNoCardSurvives states that whatever holds a card's number, in whatever pieces it comes, nothing of what is made of it does.
func TestNoCardSurvives(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	rapid.Check(t, func(t *rapid.T) {
		number := card(t)
		written := number
		switch rapid.IntRange(0, 3).Draw(t, "writing") {
		case 1, 2:
			separator := rapid.SampledFrom([]string{" ", "-", "\x1b[1m", "\x1b[0;31m", "\x1b[K", " \r"}).Draw(t, "separator")
			var b strings.Builder
			for i := range number {
				if i > 0 && rapid.Bool().Draw(t, "here") {
					b.WriteString(separator)
				}
				b.WriteByte(number[i])
			}
			written = b.String()
		}
		around := rapid.SampledFrom([]string{"", "x", "card: ", "7 ", "99 88 ", "\n", ".", "'", "\x1b[2J", "é", "12345678901234567890123 ", "\xff"})
		before, after := around.Draw(t, "before"), rapid.SampledFrom([]string{"", "x", " 7", " 99 88", "\r\n", ".", "'", "\x1b[H", "-", " ", "\x1b"}).Draw(t, "after")
		all := before + written + after

		one := item.Item{Kind: item.Statement, SQL: all, Command: all, Path: all, Error: all, Tag: all, Text: all, Reason: all, Data: []byte(all),
			Params: []item.Param{{Text: all}, {Binary: []byte(all)}}, Fields: map[string]string{"a": all}}
		var items []item.Item
		s := Items{Masker: m, Yield: func(it item.Item, _ error) bool { items = append(items, it); return true }}
		s.Item(one, nil)
		if strings.Contains(plain(held(items)), number) {
			t.Fatalf("%q survives in %+v", number, items)
		}
		kinds := []item.Kind{item.Output, item.Input}
		for _, kind := range kinds {
			items = nil
			for rest := []byte(all); len(rest) > 0; {
				n := rapid.IntRange(1, min(len(rest), 9)).Draw(t, "piece")
				it := item.Item{Kind: kind, Channel: 1, Data: rest[:n]}
				if kind == item.Input {
					it.Text = string(rest[:n])
				}
				s.Item(it, nil)
				s.Item(item.Item{Kind: item.Output, Channel: 2, Data: []byte("1")}, nil) // stands between, elsewhere
				rest = rest[n:]
			}
			s.Item(item.Item{Kind: item.Exit, Channel: 1}, nil)
			mine := slices.DeleteFunc(items, func(it item.Item) bool { return it.Channel == 2 })
			if strings.Contains(plain(held(mine)), number) {
				t.Fatalf("%q survives in %q", number, held(mine))
			}
		}
	})
}

// TestStreamGivesAll states that nothing but what is masked is changed, lost or kept for ever, in whatever pieces it comes.
func TestStreamGivesAll(t *testing.T) {
	for name, rules := range map[string]format.Mask{
		"cards": {Cards: true}, "patterns": {Cards: true, Patterns: []format.MaskPattern{{Name: "k", Regexp: `key=[a-z]+`}}},
	} {
		m := newMasker(t, rules)
		rapid.Check(t, func(t *rapid.T) {
			var in, out []byte
			s := m.Stream()
			for range rapid.IntRange(1, 20).Draw(t, "pieces") {
				piece := rapid.OneOf(
					rapid.SliceOfN(rapid.Byte(), 0, 40),
					rapid.Map(rapid.StringMatching(`[0-7 -]{0,60}`), func(s string) []byte { return []byte(s) }),
					rapid.Map(rapid.StringMatching(`(key=|[a-z]{1,3}|\n| |\x1b\[[0-9;]{0,3}m?){0,5}`), func(s string) []byte { return []byte(s) }),
				).Draw(t, "piece")
				in = append(in, piece...)
				out = s.Write(out, piece)
			}
			out = s.Flush(out)
			if want := m.Bytes(in); bytes.Equal(want, in) && !bytes.Equal(out, in) {
				t.Fatalf("%s: %q became %q", name, in, out)
			}
		})
	}
}

// TestStreamIsAsTheWhole states that lines without long rows of digits are masked in pieces as they are in one.
func TestStreamIsAsTheWhole(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "key", Regexp: `key=[a-z]+`}, {Name: "iban", Regexp: `DE\d\d( ?\d{4}){4} ?\d\d`}}})
	text := "ls -l\r\n4111 1111 1111 1111 and key=secret\x1b[0m x\r\nDE89370400440532013000 $ key=other\r\n" + strings.Repeat("9", 40) + " 4222222222222 end\r\n"
	want := m.Text(text)
	if strings.Count(want, "[") != 6 { // one of them begins a colour
		t.Fatalf("%q", want)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		s := m.Stream()
		var out []byte
		for rest := []byte(text); len(rest) > 0; {
			n := min(1+random.IntN(12), len(rest))
			out, rest = s.Write(out, rest[:n]), rest[n:]
		}
		if out = s.Flush(out); string(out) != want {
			t.Fatalf("%q, want %q", out, want)
		}
	}
}

// TestPrompts states what somebody who watches waits for: nothing, after what no number or word can go on with.
func TestPrompts(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "key", Regexp: `key=[a-z]+`}}})
	for _, prompt := range []string{"user@host:~$ ", "\x1b[32morders=>\x1b[0m ", "Password: ", "Password:"} {
		if got := m.Stream().Write(nil, []byte(prompt)); string(got) != prompt {
			t.Errorf("%q is %q at first", prompt, got)
		}
	}
	if got := newMasker(t, format.Mask{Cards: true}).Stream().Write(nil, []byte("version 15")); string(got) != "version " {
		t.Errorf("%q is given before it is known what it is", got)
	}
}

// TestBinaryNumber states that a number in the binary form of a type that nobody knows is masked too.
func TestBinaryNumber(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	it := m.Item(item.Item{Kind: item.Statement, Params: []item.Param{{Binary: binary.BigEndian.AppendUint64(nil, 4111111111111111)}, {Binary: make([]byte, 8)}}})
	if got := it.Params[0]; got.Text != "[card •••••1111]" || got.Binary != nil || len(it.Params[1].Binary) != 8 {
		t.Errorf("%+v", it.Params)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("4111 1111 1111 1111"), 3)
	f.Add([]byte("\x1b[1m4111\x1b]0;x\x07111111111111 key=abc"), 1)
	m := newMasker(f, format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "k", Regexp: `key=[a-z]+|a.*b`}}})
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		s := m.Stream()
		size = max(1, size&63)
		var out []byte
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			out, rest = s.Write(out, rest[:n]), rest[n:]
		}
		out = s.Flush(out)
		if bytes.Equal(m.Bytes(data), data) && !bytes.Equal(out, data) {
			t.Fatalf("%q became %q", data, out)
		}
	})
}

func BenchmarkMask(b *testing.B) {
	log := []byte(strings.Repeat("2026-11-25 12:30:00 INFO  request 4711 took 15 ms, user 1234567 \x1b[32mok\x1b[0m\r\n", 200))
	for name, rules := range map[string]format.Mask{
		"cards": {Cards: true}, "patterns": {Cards: true, Patterns: []format.MaskPattern{{Name: "key", Regexp: `AKIA[0-9A-Z]{16}`}, {Name: "iban", Regexp: `\b[A-Z]{2}\d\d( ?\d{4}){4}`}}},
	} {
		m := newMasker(b, rules)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(log)))
			s := m.Stream()
			var out []byte
			for b.Loop() {
				out = s.Write(out[:0], log)
			}
		})
	}
}

// TestBinaryNumeric states the same of PostgreSQL's numeric.
func TestBinaryNumeric(t *testing.T) {
	m := newMasker(t, format.Mask{Cards: true})
	for _, b := range [][]byte{
		{0, 4, 0, 3, 0, 0, 0, 0, 0x10, 0x0f, 0x04, 0x57, 0x04, 0x57, 0x04, 0x57}, // 4111 1111 1111 1111
		{0, 4, 0, 3, 0, 0, 0, 2, 0x01, 0x7a, 0x0b, 0x06, 0x12, 0x17, 0, 5},       // 378 2822 4631 0005.00
	} {
		if got := m.param(item.Param{Binary: b}); got.Binary != nil || !strings.HasPrefix(got.Text, "[card ") {
			t.Errorf("%x: %+v", b, got)
		}
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, 8), {0, 4, 0, 3, 0, 0, 0, 0, 1}, {0, 0, 0x7f, 0xff, 0, 0, 0, 0}, {0, 1, 0, 0, 0, 0, 0, 0, 0, 7}} {
		if got := m.param(item.Param{Binary: b}); got.Text != "" || !bytes.Equal(got.Binary, b) {
			t.Errorf("%x: %+v", b, got)
		}
	}
}
