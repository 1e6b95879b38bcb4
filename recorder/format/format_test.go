package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func testHeader() Header {
	return Header{Session: "s1", Protocol: "postgres", Target: "orders", Account: "app", Grant: "g", Started: time.Unix(1_700_000_000, 0).UTC()}
}

// file builds a file with one block for each group of events; where says where each block begins, and the file ends.
func file(t testing.TB, groups [][]Event, end *End) (content []byte, where []int) {
	t.Helper()
	content, b, err := Create(testHeader())
	if err != nil {
		t.Fatal(err)
	}
	for _, events := range groups {
		where = append(where, len(content))
		for _, e := range events {
			if err := b.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		b.Finish()
		content = append(content, b.Take(nil)...)
	}
	if end != nil {
		where = append(where, len(content))
		if err := b.Seal(*end, time.Second); err != nil {
			t.Fatal(err)
		}
		content = append(content, b.Take(nil)...)
	}
	if b.State().Offset != int64(len(content)) {
		t.Fatalf("the builder counts %d bytes of %d", b.State().Offset, len(content))
	}
	return content, append(where, len(content))
}

type contents struct {
	events  []Event
	damages []*Damage
	sealed  bool
	state   State
}

// read reads all there is; headerless is what NewReader said.
func read(t testing.TB, content []byte) (c contents, headerless error) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(content))
	if err != nil {
		return c, err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			c.sealed, c.state = r.Sealed(), r.State()
			return c, nil
		}
		if d, ok := errors.AsType[*Damage](err); ok {
			c.damages = append(c.damages, d)
		} else if err != nil {
			t.Fatal(err)
		} else {
			c.events = append(c.events, e)
		}
	}
}

func groups() [][]Event {
	us := time.Microsecond
	return [][]Event{
		{{Type: TypeSaid, At: 1 * us, Data: []byte("SELECT 1")}, {Type: TypeAnswered, At: 5 * us, Channel: 7, Data: []byte{}}},
		{{Type: Type(65535), At: 9 * us, Channel: 1<<32 - 1, Data: []byte("\xf5SB\x01 looks like a block")}},
		{{Type: TypeNote, At: 10 * us, Data: []byte(`{"kind":"x"}`)}},
	}
}

func flat(groups [][]Event) (all []Event) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	content, _ := file(t, groups(), &End{Reason: "done"})
	c, err := read(t, content)
	if err != nil || len(c.damages) > 0 || !c.sealed {
		t.Fatalf("%v %v sealed %v", err, c.damages, c.sealed)
	}
	if diff := cmp.Diff(flat(groups()), c.events[:len(c.events)-1], cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if end, err := EndOf(c.events[len(c.events)-1]); err != nil || end.Reason != "done" {
		t.Errorf("%+v, %v", end, err)
	}
}

func TestRoundTripOfAnything(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		content, b, err := Create(testHeader())
		if err != nil {
			r.Fatal(err)
		}
		var want []Event
		var at time.Duration
		for range rapid.IntRange(0, 30).Draw(r, "events") {
			at += time.Duration(rapid.Int64Range(0, 1e9).Draw(r, "µs")) * time.Microsecond
			e := Event{
				Type:    Type(rapid.Uint16().Draw(r, "type")),
				At:      at,
				Channel: rapid.Uint32().Draw(r, "channel"),
				Data:    rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(r, "data"),
			}
			if rapid.IntRange(0, 9).Draw(r, "big") == 0 {
				e.Data = bytes.Repeat([]byte{1, 2, 3}, rapid.IntRange(0, MaxFrame).Draw(r, "third"))
			}
			want = append(want, e)
			if err := b.Add(e); err != nil {
				r.Fatal(err)
			}
			if rapid.Bool().Draw(r, "finish") {
				b.Finish()
				content = append(content, b.Take(nil)...)
			}
		}
		b.Finish()
		content = append(content, b.Take(nil)...)
		c, err := read(t, content)
		if err != nil || len(c.damages) > 0 {
			r.Fatalf("%v %v", err, c.damages)
		}
		same := func(a, b Event) bool {
			return a.Type == b.Type && a.At == b.At && a.Channel == b.Channel && bytes.Equal(a.Data, b.Data)
		}
		if !slices.EqualFunc(want, c.events, same) {
			r.Fatalf("%d events came back as %d, or others", len(want), len(c.events))
		}
		if c.state.Offset != int64(len(content)) {
			r.Fatalf("the reader counts %d bytes of %d", c.state.Offset, len(content))
		}
	})
}

// A file cut anywhere has every block that was whole and nothing else, is never taken for one that was changed in the
// middle, and can be continued from there.
func TestCutAtEveryByte(t *testing.T) {
	content, where := file(t, groups(), &End{Reason: "done"})
	for size := range content {
		c, err := read(t, content[:size])
		if size < where[0] {
			if !errors.Is(err, ErrNotRecording) {
				t.Fatalf("cut at %d, within the header: %v", size, err)
			}
			continue
		}
		whole, events := 0, 0
		for whole+1 < len(where) && where[whole+1] <= size {
			events += len(append(groups(), []Event{{}})[whole])
			whole++
		}
		if err != nil || len(c.events) != events || c.sealed || c.state.Offset != int64(where[whole]) || c.state.Number != uint64(whole) {
			t.Fatalf("cut at %d: %v, %d events of %d, sealed %v, whole to %d of %d", size, err, len(c.events), events, c.sealed, c.state.Offset, where[whole])
		}
		if torn := size > where[whole]; torn != (len(c.damages) == 1 && c.damages[0].Torn && c.damages[0].Length == int64(size-where[whole])) || !torn && len(c.damages) > 0 {
			t.Fatalf("cut at %d: %v", size, c.damages)
		}
		b := Continue(c.state)
		if err := b.Seal(End{Reason: "crashed"}, time.Minute); err != nil {
			t.Fatal(err)
		}
		repaired := append(bytes.Clone(content[:c.state.Offset]), b.Bytes()...)
		if c, err := read(t, repaired); err != nil || len(c.damages) > 0 || !c.sealed || len(c.events) != events+1 {
			t.Fatalf("cut at %d and continued: %v %v", size, err, c.damages)
		}
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	content, where := file(t, groups(), &End{Reason: "done"})
	last := where[len(where)-2]
	for i := range content {
		for bit := range 8 {
			content[i] ^= 1 << bit
			c, err := read(t, content)
			content[i] ^= 1 << bit
			switch {
			case i < where[0]:
				if err == nil && len(c.damages) == 0 {
					t.Fatalf("byte %d bit %d of the header: not found", i, bit)
				}
			case err != nil || len(c.damages) == 0:
				t.Fatalf("byte %d bit %d: not found", i, bit)
			case i < last && c.damages[0].Torn, i >= last && (!c.damages[0].Torn || c.sealed):
				t.Fatalf("byte %d bit %d: torn %v", i, bit, c.damages[0].Torn)
			}
		}
	}
}

func TestBlocksTakenAwayMovedOrAddedAreFound(t *testing.T) {
	content, where := file(t, groups(), &End{Reason: "done"})
	other, otherWhere := file(t, groups(), &End{Reason: "done"}) // of another salt, all else equal
	block := func(i int) []byte { return content[where[i]:where[i+1]] }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head := content[:where[0]]
	for name, changed := range map[string][]byte{
		"taken away":             join(head, block(0), block(2), block(3)),
		"first taken away":       join(head, block(1), block(2), block(3)),
		"exchanged":              join(head, block(1), block(0), block(2), block(3)),
		"twice":                  join(head, block(0), block(0), block(1), block(2), block(3)),
		"after the ending":       join(content, block(1)),
		"garbage after the end":  join(content, []byte("more")),
		"of another file":        join(head, block(0), other[otherWhere[1]:otherWhere[2]], block(2), block(3)),
		"stale block at the end": join(head, block(0), block(1), other[otherWhere[2]:]),
	} {
		c, err := read(t, changed)
		if err != nil || len(c.damages) == 0 {
			t.Errorf("%s: not found (%v)", name, err)
		}
		for _, d := range c.damages {
			t.Logf("%s: %v", name, d)
		}
	}
}

// Somebody who can compute checksums, and may write the file, changes a block and all checksums: the chain tells.
func TestChainFindsWhatChecksumsDoNot(t *testing.T) {
	content, where := file(t, groups(), &End{Reason: "done"})
	r, err := NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	at := where[1]
	head, payload := content[at:at+blockSize], content[at+blockSize:where[2]]
	payload[len(payload)-1] ^= 1
	b, _ := parseBlock(head, r.state.seed)
	b.sum = crc32.Checksum(payload, castagnoli)
	b.putSummed(head)
	sum := crc32.Update(r.state.seed, castagnoli, head[:blockSize-4])
	copy(head[blockSize-4:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	c, err := read(t, content)
	if err != nil || len(c.damages) == 0 || !strings.Contains(c.damages[0].What, "chain") {
		t.Fatalf("%v %v", err, c.damages)
	}
}

// What a user of the session sends cannot pass for a block, also where it stands in a torn one.
func TestForgedBlocksInTheDataAreNotFound(t *testing.T) {
	forged, _ := file(t, [][]Event{nil, {{Type: TypeSaid, Data: []byte("never said")}}}, nil) // the same header but for the salt
	content, where := file(t, [][]Event{{{Type: TypeSaid, Data: []byte("one")}}, {{Type: TypeSaid, Data: append(forged, forged...)}}}, nil)
	c, err := read(t, content[:where[2]-10])
	if err != nil || len(c.events) != 1 || len(c.damages) != 1 || !c.damages[0].Torn {
		t.Fatalf("%v %d events %v", err, len(c.events), c.damages)
	}
}

func TestEventOfWhichOnlyTheBeginningWasWritten(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 3*MaxFrame)
	content, b, err := Create(testHeader())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Add(Event{Type: TypeSaid, Data: big}); err != nil {
		t.Fatal(err)
	}
	b.Finish()
	all := append(content, b.Bytes()...)
	c, err := read(t, all[:len(all)-1]) // the last block is torn
	if err != nil || len(c.events) != 1 || len(c.events[0].Data) == 0 || len(c.events[0].Data) >= len(big) {
		t.Fatalf("%v, %d events", err, len(c.events))
	}
	b = Continue(c.state)
	if err := b.Seal(End{Reason: "crashed"}, 0); err != nil {
		t.Fatal(err)
	}
	c, err = read(t, append(bytes.Clone(all[:c.state.Offset]), b.Bytes()...))
	if err != nil || len(c.events) != 2 || c.events[1].Type != TypeEnd || len(c.damages) != 0 {
		t.Fatalf("%v %+v", err, c.damages)
	}
}

func TestBounds(t *testing.T) {
	h := testHeader()
	h.Reason = strings.Repeat("x", MaxHeader)
	if _, _, err := Create(h); err == nil {
		t.Error("a header without bound was made")
	}
	_, b, err := Create(testHeader())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Add(Event{Data: make([]byte, MaxEvent+1)}); err == nil {
		t.Error("an event without bound was added")
	}
	long := End{Reason: strings.Repeat("\x01", 1<<20), Detail: strings.Repeat("é", 1<<20)}
	if err := b.Seal(long, 0); err != nil || b.Len() > 64<<10 {
		t.Errorf("an ending of %d bytes: %v", b.Len(), err)
	}
	claims := append([]byte(magic+strings.Repeat("s", saltSize)), 0xff, 0xff, 0xff, 0xff)
	if _, err := NewReader(bytes.NewReader(claims)); !errors.Is(err, ErrNotRecording) {
		t.Errorf("a header of 4 GiB: %v", err)
	}
}

func TestLook(t *testing.T) {
	for _, end := range []*End{nil, {Reason: "done"}, {Reason: strings.Repeat("\x01", 5000), Detail: strings.Repeat("\x02", 5000)}} {
		content, where := file(t, groups(), end)
		for _, size := range []int{len(content), len(content) - 1, where[1], where[0]} {
			info, err := Look(bytes.NewReader(content), int64(size))
			if want := end != nil && size == len(content); err != nil || info.Sealed != want || info.Packed || info.Content != int64(size) {
				t.Errorf("ending %v, %d of %d bytes: %+v, %v", end != nil, size, len(content), info, err)
			}
		}
		if end != nil {
			more := append(bytes.Clone(content), 0)
			if info, _ := Look(bytes.NewReader(more), int64(len(more))); info.Sealed {
				t.Error("sealed, with a byte after the ending")
			}
		}
	}
}

// A failing disk is not the end of a file.
func TestReadErrorsAreNotDamage(t *testing.T) {
	content, where := file(t, groups(), &End{Reason: "done"})
	failed := errors.New("input/output error")
	for _, size := range []int{3, where[0], where[1] + 5, where[2] - 1, len(content)} {
		r, err := NewReader(io.MultiReader(bytes.NewReader(content[:size]), failing{failed}))
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, failed) {
			t.Errorf("after %d bytes: %v", size, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzReader(f *testing.F) {
	content, where := file(f, groups(), &End{Reason: "done"})
	f.Add(content)
	f.Add(content[:where[2]-3])
	f.Add(append(bytes.Clone(content[:where[1]]), content[where[2]:]...))
	f.Add(packed(f, content))
	f.Fuzz(func(t *testing.T, content []byte) {
		r, err := NewReader(bytes.NewReader(content))
		if err != nil {
			return
		}
		for n := 0; ; n++ {
			_, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if _, ok := errors.AsType[*Damage](err); err != nil && !ok {
				t.Fatal(err)
			}
			if n > 2*len(content)+10+len(content)/sectionTop*maxBody {
				t.Fatal("it does not end")
			}
		}
		if r.State().Offset > int64(len(content)) {
			t.Fatalf("%d bytes of %d", r.State().Offset, len(content))
		}
	})
}

// FuzzPayload changes what is inside a block and makes its checksums right again, which no accident does.
func FuzzPayload(f *testing.F) {
	f.Add([]byte("\x06\x01\x00\x03abc"), uint16(1))
	f.Add([]byte("\x07\x01\x00\x03abc\x06\x00\x00\x01d"), uint16(2))
	f.Fuzz(func(t *testing.T, payload []byte, frames uint16) {
		if len(payload) > MaxPayload {
			return
		}
		content, b, err := Create(testHeader())
		if err != nil {
			t.Fatal(err)
		}
		b.open, b.count = 0, int(frames)
		b.buf = append(make([]byte, blockSize), payload...)
		b.Finish()
		content = append(content, b.Bytes()...)
		if _, err := read(t, content); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkBuilder(b *testing.B) {
	_, builder, err := Create(testHeader())
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{100, 4 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			e := Event{Type: TypeSaid, Data: make([]byte, size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				builder.Add(e)
				builder.Finish()
				builder.Take(builder.Bytes())
			}
		})
	}
}

func TestBulkIsTheSameJSON(t *testing.T) {
	for _, b := range []Bulk{
		{},
		{FromClient: true, Stream: "stdin", Bytes: 1<<62 + 1, Why: "typed"},
		{Stream: "stdout", Bytes: 12, SHA256: strings.Repeat("0f", 32), Why: "file"},
		{Stream: "a \"quoted\" \\ <&>\n", Bytes: -1, SHA256: "\x7f", Why: "ü\xff\u2028"},
	} {
		want, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Append([]byte("x")); string(got) != "x"+string(want) {
			t.Errorf("%s, want x%s", got, want)
		}
	}
}
