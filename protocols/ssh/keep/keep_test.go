package keep

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"sallyport/protocols/ssh/interpret"
	"sallyport/recorder/format"
)

func TestTypedInputIsCountedNotHashed(t *testing.T) {
	k := Counts(3, true, "stdin", interpret.WhyTyped)
	for range 3 * hashEvery {
		for _, e := range k.Events([]byte("x")) {
			if !bytes.Contains(e.Data, []byte(`"sha256":""`)) {
				t.Fatalf("typed input is hashed: %s", e.Data)
			}
		}
	}
	if last := k.Last(); last != nil {
		t.Fatalf("typed input is hashed at the end: %s", last[0].Data)
	}
}

func TestKeysTypedCostNoMemory(t *testing.T) {
	var whole atomic.Int64
	whole.Store(1 << 40)
	key := []byte("a")
	for name, k := range map[string]*Keeper{
		"typed":  Counts(1, true, "stdin", interpret.WhyTyped),
		"shown":  Shown(1, format.TypeAnswered, "stdout", &whole),
		"passed": Counts(1, true, "stdin", interpret.WhyForwarded),
	} {
		k.Events(key)
		if n := testing.AllocsPerRun(1000, func() { k.Events(key) }); n > 0 {
			t.Errorf("%s: %.2f allocations a key", name, n)
		}
	}
}

func TestOutputIsKeptWholeUpToItsBound(t *testing.T) {
	var whole atomic.Int64
	whole.Store(10)
	k := Whole(1, format.TypeAnswered, "stdout", &whole)
	if e := k.Events([]byte("123456")); len(e) != 1 || e[0].Type != format.TypeAnswered {
		t.Fatalf("kept as %v", e)
	}
	if last := k.Last(); last != nil {
		t.Fatalf("all of it is whole, and yet %s", last[0].Data)
	}
	if e := k.Events([]byte("789012")); len(e) != 1 || e[0].Type != format.TypeBulk {
		t.Fatalf("kept as %v", e)
	}
	last := k.Last() // the hash of all of it
	want := fmt.Sprintf(`"bytes":12,"sha256":"%x"`, sha256.Sum256([]byte("123456789012")))
	if len(last) != 1 || !bytes.Contains(last[0].Data, []byte(want)) {
		t.Fatalf("at the end %v, want %s", last, want)
	}
}

// A flood on a terminal is recorded by length and hash, says so once where it begins, and ends when something is typed.
func TestTerminalFlood(t *testing.T) {
	var whole atomic.Int64
	whole.Store(10)
	k := Shown(1, format.TypeAnswered, "stdout", &whole)
	types := func(data string) (all []format.Type) {
		for _, e := range k.Events([]byte(data)) {
			all = append(all, e.Type)
		}
		return all
	}
	for _, step := range []struct {
		data string
		want []format.Type
	}{
		{"1234567890", []format.Type{format.TypeAnswered}},
		{"x", []format.Type{format.TypeNote, format.TypeBulk}},
		{"y", []format.Type{format.TypeBulk}},
	} {
		if got := types(step.data); !slices.Equal(got, step.want) {
			t.Fatalf("%q is recorded as %v, want %v", step.data, got, step.want)
		}
	}
	whole.Store(10) // something is typed
	if got := types("z"); !slices.Equal(got, []format.Type{format.TypeAnswered}) {
		t.Fatalf("after that, as %v", got)
	}
	want := fmt.Sprintf(`"bytes":13,"sha256":"%x"`, sha256.Sum256([]byte("1234567890xyz")))
	if last := k.Last(); len(last) != 1 || !bytes.Contains(last[0].Data, []byte(want)) {
		t.Fatalf("at the end %v, want %s", last, want)
	}
}
