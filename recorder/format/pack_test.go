package format

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// counter is a Keyer whose keys say how many events came before; it has none while it is told to have none.
type counter struct {
	events int
	none   bool
}

func (c *counter) Event(Event)         { c.events++ }
func (c *counter) Key() ([]byte, bool) { return fmt.Append(nil, c.events), !c.none }

func packed(t testing.TB, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	state, err := Pack(bytes.NewReader(content), &out, &counter{})
	if err != nil {
		t.Fatal(err)
	}
	if state.Offset != int64(len(content)) {
		t.Fatalf("%d of %d bytes were packed", state.Offset, len(content))
	}
	return out.Bytes()
}

// long is a recording of some MiB: groups of about 1 KiB, a second apart, some events larger than a pack.
func long(t testing.TB, count int) (content []byte, all []Event) {
	t.Helper()
	var groups [][]Event
	random := rand.New(rand.NewPCG(1, 2))
	for i := range count {
		size := random.IntN(2000)
		if i%1500 == 700 {
			size = 3 << 20
		}
		e := Event{Type: TypeSaid, At: time.Duration(i) * time.Second, Data: bytes.Repeat(fmt.Appendf(nil, "event %d;", i), 1+size/9)}
		groups, all = append(groups, []Event{e}), append(all, e)
	}
	content, _ = file(t, groups, &End{Reason: "done"})
	return content, all
}

// A packed file is the same recording: events, numbers and every chain value.
func TestPacked(t *testing.T) {
	small, _ := file(t, groups(), &End{Reason: "done"})
	only, _ := file(t, nil, &End{Reason: "done"})
	big, _ := long(t, 4000)
	for name, content := range map[string][]byte{"small": small, "only an ending": only, "long": big} {
		t.Run(name, func(t *testing.T) {
			out := packed(t, content)
			t.Logf("%d bytes became %d", len(content), len(out))
			before, err := read(t, content)
			if err != nil {
				t.Fatal(err)
			}
			after, err := read(t, out)
			if err != nil || len(after.damages) > 0 || !after.sealed {
				t.Fatalf("%v %v", err, after.damages)
			}
			same := func(a, b Event) bool {
				return a.Type == b.Type && a.At == b.At && a.Channel == b.Channel && bytes.Equal(a.Data, b.Data)
			}
			if !slices.EqualFunc(before.events, after.events, same) {
				t.Errorf("%d events became %d, or others", len(before.events), len(after.events))
			}
			if after.state.Offset != int64(len(out)) {
				t.Errorf("the reader counts %d bytes of %d", after.state.Offset, len(out))
			}
			after.state.Offset = before.state.Offset
			if after.state != before.state {
				t.Errorf("it ends at %+v instead of %+v", after.state, before.state)
			}
			info, err := Look(bytes.NewReader(out), int64(len(out)))
			if err != nil || !info.Sealed || !info.Packed || info.Content != int64(len(content)) || info.Header.Session != "s1" {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

func TestOnlyWholeRecordingsArePacked(t *testing.T) {
	content, where := file(t, groups(), &End{Reason: "done"})
	flipped := bytes.Clone(content)
	flipped[where[1]+blockSize] ^= 1
	for name, content := range map[string][]byte{
		"open": content[:where[2]], "torn": content[:where[2]+7], "damaged": flipped, "more after the ending": append(bytes.Clone(content), 0),
	} {
		if _, err := Pack(bytes.NewReader(content), io.Discard, &counter{}); !errors.Is(err, ErrNotWhole) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Pack(bytes.NewReader(packed(t, content)), io.Discard, &counter{}); err == nil {
		t.Error("packed twice")
	}
	full := errors.New("no space left")
	if _, err := Pack(bytes.NewReader(content), refusing{full}, &counter{}); !errors.Is(err, full) {
		t.Errorf("a disk that is full: %v", err)
	}
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

func TestEveryFlippedBitOfAPackedFileIsFound(t *testing.T) {
	content, _ := file(t, groups(), &End{Reason: "done"})
	out := packed(t, content)
	for i := range out {
		for bit := range 8 {
			out[i] ^= 1 << bit
			c, err := read(t, out)
			out[i] ^= 1 << bit
			if err == nil && len(c.damages) == 0 {
				t.Fatalf("byte %d bit %d: not found", i, bit)
			}
		}
	}
}

func TestPackedCutAtEveryByte(t *testing.T) {
	content, _ := file(t, groups(), &End{Reason: "done"})
	out := packed(t, content)
	for size := range out {
		c, err := read(t, out[:size])
		if err == nil && (c.sealed || len(c.damages) > 1) {
			t.Fatalf("cut at %d: sealed %v, %v", size, c.sealed, c.damages)
		}
		if info, err := Look(bytes.NewReader(out[:size]), int64(size)); err == nil && (info.Sealed || info.Packed) {
			t.Fatalf("cut at %d: %+v", size, info)
		}
	}
}

// One pack is changed, with all sums made right again: the chain tells, and what follows is read.
func TestChangedPackIsFound(t *testing.T) {
	content, all := long(t, 4000)
	out := packed(t, content)
	r, err := NewReader(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	start := int(r.state.Offset)
	s, body, ok := readSection(bytes.NewReader(out), int64(start), r.state.seed)
	if !ok || s.kind != kindPack {
		t.Fatalf("%+v", s)
	}
	changed := bytes.Replace(body, []byte("event 5;"), []byte("event 6;"), 1)
	zstd, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	section := s.append(nil, zstd.EncodeAll(changed, nil), r.state.seed)
	c, err := read(t, append(append(bytes.Clone(out[:start]), section...), out[start+int(s.size()):]...))
	if err != nil || len(c.damages) != 1 || !strings.Contains(c.damages[0].What, "chain") || len(c.events) <= len(all) {
		t.Fatalf("%v %v, %d events of %d", err, c.damages, len(c.events), len(all)+1)
	}
	// A whole pack taken away, exchanged, or of another file.
	next := start + int(s.size())
	key, _, _ := readSection(bytes.NewReader(out), int64(next), r.state.seed)
	after := next + int(key.size())
	for name, changed := range map[string][]byte{
		"taken away": append(bytes.Clone(out[:start]), out[next:]...),
		"twice":      append(bytes.Clone(out[:next]), out[start:]...),
		"exchanged":  append(append(bytes.Clone(out[:start]), out[next:after]...), append(bytes.Clone(out[start:next]), out[after:]...)...),
		"of another": append(append(bytes.Clone(out[:start]), s.append(nil, zstd.EncodeAll(body, nil), 1)...), out[next:]...),
	} {
		if c, err := read(t, changed); err != nil || len(c.damages) == 0 {
			t.Errorf("%s: not found (%v)", name, err)
		}
	}
}

// A damaged pack costs itself and nothing else.
func TestDamagedPack(t *testing.T) {
	content, all := long(t, 4000)
	out := packed(t, content)
	r, err := NewReader(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := readSection(bytes.NewReader(out), r.state.Offset, r.state.seed)
	out[int(r.state.Offset)+sectionTop+int(s.length)/2] ^= 1
	c, err := read(t, out)
	if err != nil || len(c.damages) != 1 || c.damages[0].Length != s.size() || c.damages[0].Torn || !c.sealed {
		t.Fatalf("%v %v", err, c.damages)
	}
	if lost := len(all) + 1 - len(c.events); lost < 500 || lost > int(s.blocks) { // one event has several blocks
		t.Errorf("%d events lost with a pack of %d blocks", lost, s.blocks)
	}
}

// counted tells how much of a file is read.
type counted struct {
	*bytes.Reader
	bytes int
}

func (c *counted) ReadAt(b []byte, at int64) (int, error) {
	c.bytes += len(b)
	return c.Reader.ReadAt(b, at)
}

func TestResume(t *testing.T) {
	content, all := long(t, 6000)
	out := packed(t, content)
	for _, second := range []int{0, 1, 699, 700, 701, 2500, 3000, 4444, 5998, 5999, 7000} {
		file := &counted{Reader: bytes.NewReader(out)}
		r, key, err := Resume(file, int64(len(out)), time.Duration(second)*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		before := 0
		if key != nil {
			fmt.Sscan(string(key), &before)
		}
		e, err := r.Next()
		switch {
		case err != nil:
			t.Fatalf("at %ds: %v", second, err)
		case e.Type == TypeEnd:
		case !bytes.Equal(e.Data, all[before].Data) || e.At != all[before].At:
			t.Errorf("at %ds: event at %v after %d", second, e.At, before)
		case before > 0 && int(e.At/time.Second) > second:
			t.Errorf("at %ds it begins at %v", second, e.At)
		}
		if second == 4444 && (before < 3000 || file.bytes > 1<<20) {
			t.Errorf("%d bytes of %d were read, %d events are before the key", file.bytes, len(out), before)
		}
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, io.EOF) || !r.Sealed() {
			t.Errorf("at %ds: %v", second, err)
		}
	}
	if r, key, err := Resume(bytes.NewReader(content), int64(len(content)), time.Hour); err != nil || key != nil || r.State().Number != 0 {
		t.Errorf("what is not packed is read from its beginning: %q, %v", key, err)
	}
}

// Where no key can be had, packs are closed all the same.
func TestNoKeys(t *testing.T) {
	content, _ := long(t, 6000)
	var out bytes.Buffer
	if _, err := Pack(bytes.NewReader(content), &out, &counter{none: true}); err != nil {
		t.Fatal(err)
	}
	if _, key, err := Resume(bytes.NewReader(out.Bytes()), int64(out.Len()), time.Hour); err != nil || key != nil {
		t.Errorf("%q, %v", key, err)
	}
	if c, err := read(t, out.Bytes()); err != nil || len(c.damages) > 0 || !c.sealed {
		t.Fatalf("%v %v", err, c.damages)
	}
}

// A pack that claims to be small and is not.
func TestPackThatUnpacksWithoutBound(t *testing.T) {
	zstd, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	content, where := file(t, groups(), nil)
	seed := crc32.Checksum(nil, castagnoli)
	if r, err := NewReader(bytes.NewReader(content)); err == nil {
		seed = r.state.seed
	}
	bomb := section{kind: kindPack, blocks: 1, number: 1, first: 1}.append(nil, zstd.EncodeAll(make([]byte, 64<<20), nil), seed)
	c, err := read(t, append(bytes.Clone(content[:where[0]]), bomb...))
	if err != nil || len(c.events) > 0 || len(c.damages) != 1 {
		t.Fatalf("%v %d events %v", err, len(c.events), c.damages)
	}
}

func FuzzResume(f *testing.F) {
	content, _ := long(f, 3000)
	f.Add(packed(f, content), int64(time.Hour))
	small, _ := file(f, groups(), &End{Reason: "done"})
	f.Add(packed(f, small), int64(0))
	f.Fuzz(func(t *testing.T, content []byte, at int64) {
		r, _, err := Resume(bytes.NewReader(content), int64(len(content)), time.Duration(at))
		for n := 0; err == nil || errors.As(err, new(*Damage)); n++ {
			if _, err = r.Next(); n > 1<<16 {
				return
			}
		}
	})
}

func BenchmarkPack(b *testing.B) {
	content, _ := long(b, 4000)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := Pack(bytes.NewReader(content), io.Discard, &counter{}); err != nil {
			b.Fatal(err)
		}
	}
}
