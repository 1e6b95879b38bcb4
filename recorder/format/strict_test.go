package format

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"
)

const typed = "typed-canary"

// strictFile is a recording with two keys, whose blocks are of either class by turns, and where each begins.
func strictFile(t testing.TB, raw, strictly []byte) (content []byte, where []int) {
	t.Helper()
	var keys [2]*Key
	h := testHeader()
	for i, k := range [][]byte{raw, strictly} {
		var err error
		if keys[i], err = NewKey(k); err != nil {
			t.Fatal(err)
		}
	}
	h.Lock = &Lock{Recipients: []string{"age1…"}, Key: []byte("wrapped"), Check: KeyCheck(h.Session, raw)}
	h.Lock.Input = &Lock{Recipients: []string{"age1x"}, Key: []byte("wrapped"), Check: KeyCheck(h.Session, strictly)}
	content, b, err := CreateLockedTwice(h, keys[0], keys[1])
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		at := time.Duration(i+1) * time.Second
		for _, e := range []Event{
			{Type: TypeAnswered, At: at, Data: []byte(canary)},
			{Type: TypeSaid, At: at, Data: []byte(typed), Strict: true},
			StandIn(Event{Type: TypeSaid, At: at, Data: []byte("[sealed]")}),
		} {
			if err := b.Add(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.Finish()
	content = append(content, b.Take(nil)...)
	if err := b.Seal(End{Reason: "closed"}, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	content = append(content, b.Bytes()...)
	for at := 0; ; {
		n := bytes.Index(content[at:], []byte(blockMark))
		if n < 0 {
			return content, where
		}
		at += n
		where = append(where, at)
		at++
	}
}

// readStrict reads with either key, or none.
func readStrict(t testing.TB, content, raw, strictly []byte) (texts []string, damages []*Damage) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if raw != nil {
		key, _ := NewKey(raw)
		r.Unlock(key)
	}
	if strictly != nil {
		key, _ := NewKey(strictly)
		r.UnlockStrict(key)
	}
	for {
		e, err := r.Next()
		if damage, ok := err.(*Damage); ok { //nolint:errorlint // as Next gives it
			damages = append(damages, damage)
			continue
		}
		if err != nil {
			return texts, damages
		}
		if e = e.StandsFor(); e.Type == TypeSaid {
			texts = append(texts, string(e.Data))
		}
	}
}

func TestStricterKey(t *testing.T) {
	raw, strictly := bytes.Repeat([]byte{7}, KeySize), bytes.Repeat([]byte{9}, KeySize)
	content, where := strictFile(t, raw, strictly)
	if len(where) < 7 || bytes.Contains(content, []byte(typed)) {
		t.Fatalf("%d blocks", len(where))
	}
	for name, c := range map[string]struct {
		raw, strictly []byte
		typed, stood  int
	}{"both": {raw, strictly, 3, 3}, "the ordinary": {raw, nil, 0, 3}, "none": {nil, nil, 0, 0}, "the stricter alone": {nil, strictly, 3, 0}} {
		texts, damages := readStrict(t, content, c.raw, c.strictly)
		got := map[string]int{}
		for _, text := range texts {
			got[text]++
		}
		if len(damages) > 0 || got[typed] != c.typed || got["[sealed]"] != c.stood {
			t.Errorf("with %s: %v, %v", name, got, damages)
		}
	}
	if texts, damages := readStrict(t, content, raw, raw); len(damages) != 3 || len(texts) != 3 {
		t.Errorf("the ordinary key as the stricter one: %q, %v", texts, damages)
	}
}

// TestBlocksOfTheOtherClass states that a block that is made one of the other class, or moved to where one of the other class stood, with all
// sums made right again, is found: by its chain without a key, and by its lock with both.
func TestBlocksOfTheOtherClass(t *testing.T) {
	raw, strictly := bytes.Repeat([]byte{7}, KeySize), bytes.Repeat([]byte{9}, KeySize)
	content, where := strictFile(t, raw, strictly)
	seed := seedOf(func() Chain { r, _ := NewReader(bytes.NewReader(content)); return r.origin }())
	mend := func(file []byte, at int) { // the sums that need no chain
		head := file[at : at+blockSize]
		binary.BigEndian.PutUint32(head[blockSize-4:], crc32.Update(seed, castagnoli, head[:blockSize-4]))
	}
	for i, at := range where[:len(where)-1] {
		file := bytes.Clone(content)
		file[at+27] ^= flagStrict
		mend(file, at)
		if _, damages := readStrict(t, file, nil, nil); len(damages) == 0 {
			t.Errorf("block %d of the other class is not found by the chain", i+1)
		}
		if _, damages := readStrict(t, file, raw, strictly); len(damages) == 0 {
			t.Errorf("block %d of the other class opens", i+1)
		}
		if i+2 < len(where) { // the next one, of the other class, in its place
			size, next := where[i+1]-at, where[i+2]-where[i+1]
			file = append(bytes.Clone(content[:at]), content[where[i+1]:where[i+1]+next]...)
			file = append(append(file, content[at:at+size]...), content[where[i+2]:]...)
			copy(file[at+8:], content[at+8:at+24]) // number and first event of the place
			copy(file[at+next+8:], content[at+size+8:at+size+24])
			mend(file, at)
			mend(file, at+next)
			if _, damages := readStrict(t, file, nil, nil); len(damages) == 0 {
				t.Errorf("blocks %d and %d in each other's place are not found by the chain", i+1, i+2)
			}
			if texts, _ := readStrict(t, file, raw, strictly); len(texts) == 6 {
				t.Errorf("blocks %d and %d open in each other's place: %q", i+1, i+2, texts)
			}
		}
	}
	// A recording that has no stricter key has no such block.
	plain, _ := lockedFile(t, raw)
	at := bytes.Index(plain, []byte(blockMark))
	plain[at+27] |= flagStrict
	r, err := NewReader(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(plain[at+blockSize-4:], crc32.Update(seedOf(r.origin), castagnoli, plain[at:at+blockSize-4]))
	if _, damages := readStrict(t, plain, nil, nil); len(damages) == 0 {
		t.Error("a block for a stricter key that the recording has not is taken")
	}
}
