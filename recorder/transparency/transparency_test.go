package transparency

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"sallyport/recorder/format"
)

func TestPathsOfTiles(t *testing.T) {
	for path, want := range map[string][3]int64{
		"tile/0/000":                    {0, 0, 256},
		"tile/0/001.p/5":                {0, 1, 5},
		"tile/3/x001/x234/067":          {3, 1234067, 256},
		"tile/entries/x001/x234/067":    {-1, 1234067, 256},
		"tile/entries/x001/000.p/255":   {-1, 1000, 255},
		"tile/entries/999":              {-1, 999, 256},
		"tile/1/x999/x999/x999/999.p/1": {1, 999999999999, 1},
	} {
		level, n, width, err := ParsePath(path)
		if err != nil || int64(level) != want[0] || n != want[1] || int64(width) != want[2] {
			t.Errorf("%s: %d %d %d %v", path, level, n, width, err)
		}
	}
	for _, path := range []string{
		"", "tile", "tile/0", "tile/0/", "tile/0/1", "tile/0/0000", "tile/0/x000", "tile/0/x000/001", "tile/00/000", "tile/-1/000",
		"tile/8/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/../../secret", "tile/0/+01", "tile/entries/x001",
		"tile/entries/001/001", "checkpoint", "tile/0/" + strings.Repeat("x001/", 30) + "001", "tile/0/000.p/1/2",
	} {
		if level, n, width, err := ParsePath(path); err == nil {
			t.Errorf("%q was taken for %d %d %d", path, level, n, width)
		}
	}
}

// The roots are those of golang.org/x/mod/sumdb/tlog, whatever the size.
func TestRootsAreThoseOfTheLibrary(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, i := range indexes {
			found = append(found, stored[i])
		}
		return found, nil
	})
	var tree Tree
	var leaves []tlog.Hash
	for i := range int64(700) {
		want, err := tlog.TreeHash(i, reader)
		if err != nil || tree.Root() != want || RootOf(Peaks(leaves)) != want || tree.Size() != i {
			t.Fatalf("%d leaves: %v, want %v, %v", i, tree.Root(), want, err)
		}
		entry := fmt.Appendf(nil, "leaf %d", i)
		hashes, err := tlog.StoredHashes(i, entry, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		leaves = append(leaves, tlog.RecordHash(entry))
		tree.Add(leaves[i])
	}
}

func TestLeavesAndBundles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var bundle []byte
		var leaves []Leaf
		for range rapid.IntRange(0, 20).Draw(t, "leaves") {
			leaf := Leaf{
				Kind: rapid.SampledFrom([]Kind{Open, Close, Heartbeat}).Draw(t, "kind"), Time: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "time")).UTC(),
				Recording: Of("s-1", format.State{Number: rapid.Uint64().Draw(t, "blocks"), Chain: format.Chain{1, 2, 3}}), Reason: rapid.String().Draw(t, "reason"),
			}
			entry, err := leaf.Encode()
			if err != nil {
				t.Fatal(err)
			}
			leaf.Reason = strings.ToValidUTF8(leaf.Reason, "\ufffd")
			leaves, bundle = append(leaves, leaf), AppendEntry(bundle, entry)
		}
		entries, size, whole := Entries(bundle)
		if !whole || size != len(bundle) || len(entries) != len(leaves) {
			t.Fatalf("%d of %d, whole %v", len(entries), len(leaves), whole)
		}
		for i, entry := range entries {
			leaf, err := Decode(entry)
			if err != nil || fmt.Sprint(leaf) != fmt.Sprint(leaves[i]) {
				t.Fatalf("%+v is not %+v: %v", leaf, leaves[i], err)
			}
		}
		if len(bundle) == 0 {
			return
		}
		cut := rapid.IntRange(0, len(bundle)-1).Draw(t, "cut")
		if _, good, whole := Entries(bundle[:cut]); whole != (good == cut) || good > cut {
			t.Fatalf("cut at %d: %d are good, whole %v", cut, good, whole)
		}
	})
	if _, size, whole := Entries(make([]byte, 100)); size != 0 || whole {
		t.Error("zeros, which a power cut leaves, were taken for leaves")
	}
	if _, err := (Leaf{Kind: Progress, Reason: strings.Repeat("x", MaxLeaf)}).Encode(); err == nil {
		t.Error("a leaf too long was taken")
	}
}

func TestCheckpoints(t *testing.T) {
	private, public, err := GenerateKey("gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := SignerOf(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseLogKey(public + "\n")
	if err != nil {
		t.Fatal(err)
	}
	witnessPrivate, witnessPublic, err := GenerateWitnessKey("witness.example")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := ParseWitnessKey(witnessPublic)
	if err != nil {
		t.Fatal(err)
	}
	tree := tlog.Tree{N: 7, Hash: tlog.RecordHash([]byte("x"))}
	c, err := Sign(signer, tree)
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseCheckpoint(c.Note, key, witness)
	if err != nil || read.Tree != tree || read.Origin != "gateway.example/log" || len(read.Cosigned) != 0 {
		t.Fatalf("%+v %v", read, err)
	}
	lines, err := Cosign(c, witnessPrivate)
	if err != nil {
		t.Fatal(err)
	}
	read, err = ParseCheckpoint(c.WithSignatures(lines), key, witness)
	if err != nil || len(read.Cosigned) != 1 || read.Cosigned[0].Witness != "witness.example" || time.Since(read.Cosigned[0].Time) > time.Minute {
		t.Fatalf("%+v %v", read, err)
	}
	for i := range c.Note {
		if c.Note[i] == '\n' {
			continue
		}
		changed := bytes.Clone(c.Note)
		changed[i] ^= 1
		if read, err := ParseCheckpoint(changed, key); err == nil && read.Tree != tree {
			t.Fatalf("byte %d changed: %+v", i, read)
		}
	}
	// A witness's signature is of this checkpoint and no other, and a log's does not pass for a witness's.
	other, err := Sign(signer, tlog.Tree{N: 8, Hash: tree.Hash})
	if err != nil {
		t.Fatal(err)
	}
	if read, err := ParseCheckpoint(other.WithSignatures(lines), key, witness); err == nil && len(read.Cosigned) > 0 {
		t.Fatal("a cosignature passed for another checkpoint")
	}
	otherPrivate, _, err := GenerateKey("gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = SignerOf(otherPrivate); err != nil {
		t.Fatal(err)
	}
	if forged, err := Sign(signer, tree); err != nil {
		t.Fatal(err)
	} else if _, err := ParseCheckpoint(forged.Note, key); err == nil {
		t.Fatal("another key of the same name passed")
	}
}
