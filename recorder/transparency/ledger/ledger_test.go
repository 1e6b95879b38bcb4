package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/witness"
)

// options are of a log with a key of its own.
func options(t testing.TB, dir string) Options {
	t.Helper()
	private, public, err := transparency.GenerateKey("gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := transparency.SignerOf(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := transparency.ParseLogKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Dir: dir, Signer: signer, Key: key, Interval: time.Millisecond}
}

func openLog(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// fill appends leaves up to a size, some at once.
func fill(t testing.TB, l *Log, to int64) {
	t.Helper()
	for at := l.Size(); at < to; {
		var leaves []transparency.Leaf
		for i := at; i < to && len(leaves) < 100; i++ {
			leaves = append(leaves, leaf(i))
		}
		first, err := l.Append(t.Context(), leaves...)
		if err != nil || first != at {
			t.Fatalf("leaf %d stands at %d, %v", at, first, err)
		}
		at += int64(len(leaves))
	}
}

func leaf(i int64) transparency.Leaf {
	return transparency.Leaf{Kind: transparency.Open, Recording: transparency.Recording{Session: fmt.Sprint("s-", i), Blocks: uint64(i)}}
}

// whole checks the log against the library: its root, proofs, tiles and every leaf.
func whole(t testing.TB, l *Log, size int64) {
	t.Helper()
	if l.Size() != size {
		t.Fatalf("the log has %d leaves, want %d", l.Size(), size)
	}
	var tree transparency.Tree
	for n := int64(0); n<<transparency.Height < size; n++ {
		width := int(min(size-n<<transparency.Height, transparency.Width))
		bundle, err := l.Bundle(n, width)
		if err != nil {
			t.Fatal(err)
		}
		entries, _, good := transparency.Entries(bundle)
		if !good || len(entries) != width {
			t.Fatalf("bundle %d has %d leaves, want %d", n, len(entries), width)
		}
		tile, err := l.Tile(0, n, width)
		if err != nil {
			t.Fatal(err)
		}
		for i, entry := range entries {
			read, err := transparency.Decode(entry)
			if want := n<<transparency.Height + int64(i); err != nil || read.Blocks != uint64(want) {
				t.Fatalf("leaf %d is %s, %v", want, entry, err)
			}
			hash := tlog.RecordHash(entry)
			if decode(tile)[i] != hash {
				t.Fatalf("tile %d has another hash %d", n, i)
			}
			tree.Add(hash)
		}
	}
	c, err := l.Publish()
	if err != nil || c.Tree.N != size || c.Tree.Hash != tree.Root() {
		t.Fatalf("checkpoint %+v of %v, %v", c.Tree, tree.Root(), err)
	}
	read, err := transparency.ParseCheckpoint(c.Note, l.Key())
	if err != nil || read.Tree != c.Tree {
		t.Fatalf("%+v %v", read, err)
	}
	for _, old := range []int64{1, size / 2, size - 1} {
		if old < 1 || old > size {
			continue
		}
		root, err := tlog.TreeHash(old, l)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := l.Consistency(old, size)
		if err != nil || tlog.CheckTree(proof, size, c.Tree.Hash, old, root) != nil {
			t.Fatalf("from %d to %d: %v", old, size, err)
		}
	}
}

func TestLogGrowsAndOpensAgainAtEverySize(t *testing.T) {
	o := options(t, t.TempDir())
	for _, size := range []int64{0, 1, 2, 255, 256, 257, 511, 512, 700, 2000} {
		l := openLog(t, o)
		fill(t, l, size)
		whole(t, l, size)
		closeLog(t, l)
		l = openLog(t, o)
		whole(t, l, size)
		closeLog(t, l)
	}
	// Tiles of hashes are made again where they are lost.
	if err := os.RemoveAll(filepath.Join(o.Dir, transparency.Folder, "tile", "0")); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, o)
	defer closeLog(t, l)
	whole(t, l, 2000)
	for _, wrong := range [][3]int64{{0, 8, 1}, {0, 7, 209}, {0, 0, 257}, {0, 0, 0}, {0, -1, 1}, {1, 0, 8}, {1, 1, 1}, {5, 0, 1}} {
		if data, err := l.Tile(int(wrong[0]), wrong[1], int(wrong[2])); !errors.Is(err, ErrNoTile) {
			t.Errorf("tile %v: %d bytes, %v", wrong, len(data), err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	o := options(t, t.TempDir())
	l := openLog(t, o)
	const people, each = 50, 20
	var mu sync.Mutex
	where := map[int64]string{}
	var all sync.WaitGroup
	for p := range people {
		all.Go(func() {
			for i := range each {
				session := fmt.Sprintf("s-%d-%d", p, i)
				leaf := transparency.Leaf{Kind: transparency.Open, Recording: transparency.Recording{Session: session}}
				index, err := l.Append(t.Context(), leaf)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other := where[index]; other != "" {
					t.Errorf("%s and %s both stand at %d", other, session, index)
				}
				where[index] = session
				mu.Unlock()
				if i%7 == 0 {
					if _, err := l.Tile(0, index>>transparency.Height, int(index%transparency.Width)+1); err != nil {
						t.Errorf("the tile of leaf %d: %v", index, err)
					}
				}
			}
		})
	}
	all.Wait()
	closeLog(t, l)
	l = openLog(t, o)
	defer closeLog(t, l)
	found := 0
	err := l.Recent(func(index int64, leaf transparency.Leaf) bool {
		if where[index] != leaf.Session {
			t.Errorf("leaf %d is of %s, want %s", index, leaf.Session, where[index])
		}
		found++
		return true
	})
	if err != nil || found != people*each {
		t.Errorf("%d leaves of %d, %v", found, people*each, err)
	}
}

// What a crash leaves at the end was not acknowledged and is cut, at whatever byte it broke off; what stood before stays.
func TestTornTail(t *testing.T) {
	o := options(t, t.TempDir())
	l := openLog(t, o)
	fill(t, l, 5)
	closeLog(t, l)
	tail := filepath.Join(o.Dir, transparency.Folder, "tail", "0")
	good, err := os.ReadFile(tail)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := leaf(5).Encode()
	if err != nil {
		t.Fatal(err)
	}
	next := transparency.AppendEntry(nil, entry)
	torn := [][]byte{make([]byte, 1), make([]byte, 4096), append(slices.Clone(next[:20]), make([]byte, len(next)-20)...)}
	for cut := 1; cut < len(next); cut++ {
		torn = append(torn, next[:cut])
	}
	for _, rest := range torn {
		if err := os.WriteFile(tail, append(slices.Clone(good), rest...), 0o600); err != nil {
			t.Fatal(err)
		}
		l := openLog(t, o)
		whole(t, l, 5)
		closeLog(t, l)
	}
	l = openLog(t, o)
	defer closeLog(t, l)
	fill(t, l, 6)
	whole(t, l, 6)
}

// A full bundle that a power cut left where tails are, or in both places, is where it belongs after the next start.
func TestFullTailIsMoved(t *testing.T) {
	o := options(t, t.TempDir())
	l := openLog(t, o)
	fill(t, l, 300)
	closeLog(t, l)
	bundle, tail := filepath.Join(o.Dir, transparency.Folder, "tile", "entries", "000"), filepath.Join(o.Dir, transparency.Folder, "tail", "0")
	content, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, lost := range []bool{false, true} {
		if err := os.WriteFile(tail, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if lost {
			if err := os.Remove(bundle); err != nil {
				t.Fatal(err)
			}
		}
		l := openLog(t, o)
		whole(t, l, 300)
		closeLog(t, l)
		if _, err := os.Stat(tail); err == nil {
			t.Error("the tail is still there")
		}
	}
}

func TestLogThatIsNotWhatItWasIsNotOpened(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, dir string) error{
		"leaf changed": func(t *testing.T, dir string) error {
			return replaceIn(filepath.Join(dir, "tail", "1"), "s-299", "s-999")
		},
		"old leaf changed": func(t *testing.T, dir string) error {
			os.RemoveAll(filepath.Join(dir, "tile", "0")) // else the tile's hashes speak for what the leaves were
			return replaceIn(filepath.Join(dir, "tile", "entries", "000"), `"s-7"`, `"s-8"`)
		},
		"tail cut":    func(t *testing.T, dir string) error { return os.Truncate(filepath.Join(dir, "tail", "1"), 10) },
		"tail gone":   func(t *testing.T, dir string) error { return os.Remove(filepath.Join(dir, "tail", "1")) },
		"bundle gone": func(t *testing.T, dir string) error { return os.Remove(filepath.Join(dir, "tile", "entries", "000")) },
		"not signed": func(t *testing.T, dir string) error {
			return replaceIn(filepath.Join(dir, "checkpoint"), "300\n", "299\n")
		},
	} {
		o := options(t, t.TempDir())
		l := openLog(t, o)
		fill(t, l, 300)
		closeLog(t, l)
		if err := harm(t, filepath.Join(o.Dir, transparency.Folder)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if l, err := Open(t.Context(), o); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				l.Close(context.Background())
			}
		}
	}
}

func replaceIn(path, old, new string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed := strings.Replace(string(content), old, new, 1)
	if changed == string(content) {
		return fmt.Errorf("%s has no %q", path, old)
	}
	return os.WriteFile(path, []byte(changed), 0o600)
}

// newWitness is a witness that answers over HTTP.
func newWitness(t testing.TB, dir string, logs ...transparency.LogKey) (*httptest.Server, Witness) {
	t.Helper()
	w, err := witness.New(witness.Options{Dir: dir, Name: "witness.example", Logs: logs})
	if err != nil {
		t.Fatal(err)
	}
	key, err := transparency.ParseWitnessKey(w.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	return server, Witness{URL: server.URL, Key: key}
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 s still not: %s", what)
		}
	}
}

func TestWitnessSeesEverythingAndRefusesAnotherHistory(t *testing.T) {
	o := options(t, t.TempDir())
	_, w := newWitness(t, t.TempDir(), o.Key)
	o.Witnesses = []Witness{w}
	l := openLog(t, o)
	for size := int64(1); size < 600; size += 97 {
		fill(t, l, size)
		until(t, "witnessed", func() bool { return l.Witnessed().Tree.N == size && l.Unwitnessed() == 0 })
	}
	seen := l.Witnessed()
	if len(seen.Cosigned) != 1 || seen.Cosigned[0].Witness != "witness.example" {
		t.Fatalf("%+v", seen.Cosigned)
	}
	closeLog(t, l)
	l = openLog(t, o) // which does not know what the witness knows but from its own files
	if l.Witnessed().Tree != seen.Tree || len(l.Witnessed().Cosigned) != 1 {
		t.Fatalf("after a restart %+v is known as witnessed", l.Witnessed())
	}
	fill(t, l, 700)
	until(t, "witnessed after a restart", func() bool { return l.Witnessed().Tree.N == 700 })
	closeLog(t, l)

	// Whoever has the log's key can make another history, which the witness does not cosign: a shorter one, one of the
	// same length, a longer one.
	for _, size := range []int64{20, 700, 800} {
		forged := o
		forged.Dir = t.TempDir()
		f := openLog(t, forged)
		if _, err := f.Append(t.Context(), transparency.Leaf{Kind: transparency.Heartbeat}); err != nil {
			t.Fatal(err)
		}
		for f.Size() < size {
			if _, err := f.Append(t.Context(), leaf(f.Size())); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.Publish(); err != nil {
			t.Fatal(err)
		}
		until(t, "refused", func() bool { return f.Witnesses()[0].Error != "" })
		if n := f.Witnessed().Tree.N; n != 0 {
			t.Errorf("the witness cosigned another history of %d leaves", n)
		}
		closeLog(t, f)
	}
}

func TestWitnessThatIsAwayIsAskedAgain(t *testing.T) {
	o := options(t, t.TempDir())
	handler, err := witness.New(witness.Options{Dir: t.TempDir(), Name: "witness.example", Logs: []transparency.LogKey{o.Key}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := transparency.ParseWitnessKey(handler.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	var there atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !there.Load() {
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	o.Witnesses = []Witness{{URL: server.URL, Key: key}}
	l := openLog(t, o)
	defer closeLog(t, l)
	fill(t, l, 10)
	until(t, "an error", func() bool { return l.Witnesses()[0].Error != "" })
	if l.Unwitnessed() == 0 {
		t.Error("nothing is said to wait for a witness")
	}
	there.Store(true)
	until(t, "witnessed", func() bool { return l.Witnessed().Tree.N == 10 && l.Witnesses()[0].Error == "" })
}

// BenchmarkAppend measures how long a leaf takes at 100 a second: the slowest hundredth of them is "p99-ms".
func BenchmarkAppend(b *testing.B) {
	l := openLog(b, options(b, b.TempDir()))
	defer closeLog(b, l)
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for b.Loop() {
		<-tick.C
		all.Go(func() {
			began := time.Now()
			if _, err := l.Append(b.Context(), leaf(1)); err != nil {
				b.Error(err)
			}
			mu.Lock()
			took = append(took, time.Since(began))
			mu.Unlock()
		})
	}
	all.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
