package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

const canary = "select 'canary-7f3a91'"

// lockedFile is a locked recording of some blocks, and where each begins.
func lockedFile(t testing.TB, raw []byte) (content []byte, where []int) {
	t.Helper()
	key, err := NewKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	h := testHeader()
	h.Lock = &Lock{Recipients: []string{"age1…"}, Key: []byte("wrapped"), Check: KeyCheck(h.Session, raw)}
	content, b, err := CreateLocked(h, key)
	if err != nil {
		t.Fatal(err)
	}
	add := func(events ...Event) {
		where = append(where, len(content))
		for _, e := range events {
			if err := b.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		b.Finish()
		content = append(content, b.Take(nil)...)
	}
	add(Event{Type: TypeSaid, At: time.Second, Data: []byte(canary)})
	add(Event{Type: TypeAnswered, At: 2 * time.Second, Data: bytes.Repeat([]byte(canary), 100_000)}) // in several blocks
	add(JSON(TypeConnected, 0, Connected{Local: "a", Remote: "b"}))
	add(Event{Type: TypeSaid, At: 3 * time.Second, Data: []byte(canary)}, Event{Type: TypeSaid, At: 4 * time.Second, Data: []byte("more")})
	where = append(where, len(content))
	key.Release()
	if err := b.Seal(End{Reason: "closed"}, 5*time.Second); err != nil { // needs no key
		t.Fatal(err)
	}
	return append(content, b.Bytes()...), where
}

// readLocked reads with a key, or without.
func readLocked(t testing.TB, content, raw []byte) (events []Event, damages []*Damage, r *Reader) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if raw != nil {
		key, err := NewKey(raw)
		if err != nil {
			t.Fatal(err)
		}
		r.Unlock(key)
	}
	for {
		e, err := r.Next()
		var damage *Damage
		switch {
		case errors.Is(err, io.EOF):
			return events, damages, r
		case errors.As(err, &damage):
			damages = append(damages, damage)
		case err != nil:
			t.Fatal(err)
		default:
			events = append(events, e)
		}
	}
}

func TestLockedRoundTrip(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, KeySize)
	content, _ := lockedFile(t, raw)
	if bytes.Contains(content, []byte("canary")) {
		t.Error("the file has plain text")
	}
	events, damages, r := readLocked(t, content, raw)
	var got []string
	for _, e := range events {
		got = append(got, string(e.Data))
	}
	if len(damages) > 0 || !r.Sealed() || len(events) != 6 || got[0] != canary || got[1] != strings.Repeat(canary, 100_000) || got[4] != "more" {
		t.Errorf("with the key: %d events, damages %v", len(events), damages)
	}
	// Without the key it is whole as well, and says what is in the clear.
	events, damages, r = readLocked(t, content, nil)
	if len(damages) > 0 || !r.Sealed() || len(events) != 2 || events[0].Type != TypeConnected || events[1].Type != TypeEnd || r.State().Sequence != 8 {
		t.Errorf("without the key: %v, damages %v, %d frames", events, damages, r.State().Sequence)
	}
	if r.Latest() != 5*time.Second {
		t.Errorf("without the key the last frame is at %s", r.Latest())
	}
	// Another key opens nothing, and that is damage.
	events, damages, _ = readLocked(t, content, bytes.Repeat([]byte{8}, KeySize))
	if len(events) != 2 || len(damages) != 4 {
		t.Errorf("with another key: %d events, %d damages", len(events), len(damages))
	}
}

func TestLockedBlocksChangedMovedOrTakenAwayAreFoundWithoutAKey(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, KeySize)
	content, where := lockedFile(t, raw)
	for i := where[0]; i < len(content); i += 1 + len(content)/400 {
		changed := bytes.Clone(content)
		changed[i] ^= 1
		if _, damages, _ := readLocked(t, changed, nil); len(damages) == 0 {
			t.Fatalf("the flipped byte %d was not found", i)
		}
	}
	gone := append(bytes.Clone(content[:where[0]]), content[where[1]:]...)
	moved := bytes.Join([][]byte{content[:where[2]], content[where[3]:where[4]], content[where[2]:where[3]], content[where[4]:]}, nil)
	for what, changed := range map[string][]byte{"gone": gone, "moved": moved} {
		if _, damages, _ := readLocked(t, changed, nil); len(damages) == 0 {
			t.Errorf("a block that is %s was not found", what)
		}
	}
	// Who makes all sums anew still can't have a block open in another place, or in another recording.
	one, _ := NewReader(bytes.NewReader(content))
	first, err := one.wholeBlock()
	if err != nil {
		t.Fatal(err)
	}
	key, _ := NewKey(raw)
	if _, ok, err := key.unlock(&first, one.origin); !ok || err != nil {
		t.Fatal("the block does not open where it belongs")
	}
	other := first
	other.number++
	if _, ok, _ := key.unlock(&other, one.origin); ok {
		t.Error("a block opens in another place")
	}
	if _, ok, _ := key.unlock(&first, Chain{}); ok {
		t.Error("a block opens in another recording")
	}
	other = first
	other.payload = bytes.Clone(first.payload)
	other.payload[0] ^= 1
	if _, ok, _ := key.unlock(&other, one.origin); ok {
		t.Error("a block opens with another time")
	}
}

// What was cut off at any place is cut by a repair without the key, and everything before stays.
func TestLockedCutAnywhere(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, KeySize)
	content, where := lockedFile(t, raw)
	for cut := where[3]; cut < where[4]; cut++ {
		_, damages, r := readLocked(t, content[:cut], nil)
		if cut == where[3] && len(damages) != 0 || cut > where[3] && (len(damages) != 1 || !damages[0].Torn) || r.State().Offset != int64(where[3]) {
			t.Fatalf("cut at %d: %v, goes on at %d", cut, damages, r.State().Offset)
		}
		b := Continue(r.State())
		if err := b.Seal(End{Reason: "crashed"}, r.Latest()); err != nil {
			t.Fatal(err)
		}
		repaired := append(bytes.Clone(content[:where[3]]), b.Bytes()...)
		if events, damages, r := readLocked(t, repaired, raw); len(damages) > 0 || !r.Sealed() || len(events) != 4 {
			t.Fatalf("repaired at %d: %d events, %v", cut, len(events), damages)
		}
	}
}

// A block in the clear does not pass for what was recorded, whoever made its sums.
func TestPlantedClearBlockInALockedRecording(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, KeySize)
	content, where := lockedFile(t, raw)
	_, _, r := readLocked(t, content[:where[3]], nil)
	b := Continue(r.State())
	if err := b.Add(Event{Type: TypeSaid, Data: []byte("planted")}); err != nil {
		t.Fatal(err)
	}
	b.Finish()
	if _, damages, _ := readLocked(t, append(bytes.Clone(content[:where[3]]), b.Bytes()...), nil); len(damages) != 1 {
		t.Errorf("damages: %v", damages)
	}
}

func TestWipedKey(t *testing.T) {
	raw := bytes.Repeat([]byte{7}, KeySize)
	content, _ := lockedFile(t, raw)
	key, _ := NewKey(raw)
	block, aead := key.block, key.aead
	if !key.Hold() {
		t.Fatal("a key that is there can't be held")
	}
	key.Release()
	r, _ := NewReader(bytes.NewReader(content))
	r.Unlock(key)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	key.Release()
	if _, err := r.Next(); !errors.Is(err, ErrWiped) {
		t.Errorf("reading goes on with: %v", err)
	}
	if key.Hold() {
		t.Error("a wiped key can be held")
	}
	// What the ciphers had is the same whatever key there was: nothing of it is left.
	again, _ := NewKey(bytes.Repeat([]byte{9}, KeySize))
	blockAgain, aeadAgain := again.block, again.aead
	again.Wipe()
	if !same(block, blockAgain) || !same(aead, aeadAgain) {
		t.Error("something of the key is left")
	}
}

func same(a, b any) bool { return strings.TrimSpace(dump(a)) == strings.TrimSpace(dump(b)) }

func dump(v any) string { return fmt.Sprintf("%#v", reflect.ValueOf(v).Elem()) }

// What locking adds to BenchmarkBuilder.
func BenchmarkLockedBuilder(b *testing.B) {
	for _, size := range []int{300, 64 << 10} {
		for _, locked := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/locked=%t", size, locked), func(b *testing.B) {
				var key *Key
				if locked {
					key, _ = NewKey(make([]byte, KeySize))
				}
				_, builder, err := CreateLocked(testHeader(), key)
				if err != nil {
					b.Fatal(err)
				}
				e := Event{Type: TypeSaid, Data: make([]byte, size)}
				b.SetBytes(int64(size))
				var spare []byte
				for b.Loop() {
					if err := builder.Add(e); err != nil {
						b.Fatal(err)
					}
					builder.Finish()
					spare = builder.Take(spare)
				}
			})
		}
	}
}
