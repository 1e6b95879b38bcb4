package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// counted is a file behind the log that knows how often it was synced.
type counted struct {
	syncs atomic.Int64
	hold  chan struct{} // if not nil, syncs wait until it is closed
	err   error
}

func (c *counted) Sync() error {
	if c.hold != nil {
		<-c.hold
	}
	c.syncs.Add(1)
	return c.err
}

func started(t testing.TB, o Options) *Log {
	t.Helper()
	l := New(o)
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	return l
}

// replayed gives all records as "name@offset:data".
func replayed(t testing.TB, dir string) ([]string, Found) {
	t.Helper()
	var all []string
	found, err := Replay(dir, func(r Record) error {
		all = append(all, fmt.Sprintf("%s@%d:%s", r.Name, r.Offset, r.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, found
}

func appendAll(t testing.TB, l *Log, f Syncer, from, to int) (want []string) {
	t.Helper()
	for i := from; i < to; i++ {
		data := fmt.Sprint("record ", i, strings.Repeat("x", i%100))
		if err := l.Append(Record{Name: "a", File: f, Offset: int64(i), Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("a@%d:%s", i, data))
	}
	return want
}

func TestWhatIsAppendedIsReplayed(t *testing.T) {
	dir := t.TempDir()
	l := started(t, Options{Dir: dir})
	f := &counted{}
	want := appendAll(t, l, f, 0, 100)
	if got, found := replayed(t, dir); !slices.Equal(got, want) || len(found.Damages) > 0 {
		t.Fatalf("%q, %+v", got, found)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(Record{Name: "a", File: f}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if got, _ := replayed(t, dir); !slices.Equal(got, want) { // the file was not finished
		t.Fatalf("after Close: %q", got)
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	l = started(t, Options{Dir: dir})
	appendAll(t, l, f, 0, 3)
	if err := l.Finish(f); err != nil || f.syncs.Load() != 1 {
		t.Fatalf("%v, %d syncs", err, f.syncs.Load())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("a log that nobody needs was left: %v, %v", left, err)
	}
}

// Segments are used again only when what they hold is in files that are synced; until then Append waits, and the log
// never has more than a few.
func TestSegmentsAreUsedAgainOnceTheirFilesAreSynced(t *testing.T) {
	dir := t.TempDir()
	l := started(t, Options{Dir: dir, Segment: 16 << 10})
	f := &counted{hold: make(chan struct{})}
	var count atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			if err := l.Append(Record{Name: "a", File: f, Offset: int64(i), Data: []byte("x")}); err != nil {
				t.Error(err)
			}
			count.Add(1)
		}
	}()
	// Three groups in each of the segments there may be: the one whose files cannot be synced, and the next.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		waits := l.current == nil && len(l.sealed) > 0 && len(l.free) == 0 && l.wanted == 0
		l.mu.Unlock()
		if waits {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("Append does not wait for the files")
		}
	}
	waiting := count.Load()
	got, _ := replayed(t, dir)
	if waiting >= 50 || int64(len(got)) < waiting {
		t.Fatalf("%d are acknowledged, the log has %d", waiting, len(got))
	}
	close(f.hold)
	<-done
	if f.syncs.Load() < 10 {
		t.Errorf("%d syncs for 17 segments' worth", f.syncs.Load())
	}
	if files, err := filesOf(dir); err != nil || len(files) > 3 {
		t.Errorf("%v, %v", files, err)
	}
	got, found := replayed(t, dir)
	if len(found.Damages) > 0 || len(got) == 0 || got[len(got)-1] != "a@49:x" {
		t.Errorf("%q %+v", got, found)
	}
	if err := l.Finish(f); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// The log grows from one small segment to full ones, whatever the sizes of what is appended, and gives the pieces of a
// large record in order.
func TestGrowth(t *testing.T) {
	dir := t.TempDir()
	l := started(t, Options{Dir: dir, Segment: 8 << 20})
	files := map[string]*bytes.Buffer{}
	var mu sync.Mutex
	var all sync.WaitGroup
	f := &counted{}
	for w := range 4 {
		all.Go(func() {
			name := fmt.Sprint("file", w)
			content := &bytes.Buffer{}
			for range 40 {
				data := bytes.Repeat([]byte{byte(rand.Uint32())}, rand.IntN(700<<10))
				if err := l.Append(Record{Name: name, File: f, Offset: int64(content.Len()), Data: data}); err != nil {
					t.Error(err)
				}
				content.Write(data)
			}
			mu.Lock()
			defer mu.Unlock()
			files[name] = content
		})
	}
	all.Wait()
	sizes := 0
	paths, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Size() == 8<<20 {
			sizes++
		}
	}
	if sizes == 0 || len(paths) > 4 {
		t.Errorf("%d of %d segments are full ones", sizes, len(paths))
	}
	found, err := Replay(dir, func(r Record) error {
		if !bytes.Equal(files[r.Name].Bytes()[r.Offset:r.Offset+int64(len(r.Data))], r.Data) {
			return fmt.Errorf("%s at %d is not what was appended", r.Name, r.Offset)
		}
		return nil
	})
	if err != nil || found.Groups == 0 || len(found.Damages) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyLog copies a log with its last segment changed.
func copyLog(t testing.TB, dir, to, changed string, content []byte) {
	t.Helper()
	paths, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b := content
		if path != changed {
			if b, err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(path)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A group that is torn at any byte is cut, whatever the space held before; nothing before it is lost and nothing is
// called damage.
func TestTornAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	l := started(t, Options{Dir: dir, Segment: 16 << 10})
	f := &counted{}
	appendAll(t, l, f, 0, 40) // so that what is overwritten is an older group
	l.mu.Lock()
	room := l.current.size-l.current.used >= page
	l.mu.Unlock()
	if !room {
		appendAll(t, l, f, 40, 41)
	}
	before, _ := replayed(t, dir)
	l.mu.Lock()
	at, path := l.current.used, l.current.path
	l.mu.Unlock()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, f, 900, 901)
	after, _ := replayed(t, dir)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before)+1 || bytes.Equal(old, whole) {
		t.Fatalf("%d records, then %d", len(before), len(after))
	}
	length := len(bytes.TrimRight(whole[at:at+page], "\x00"))
	to := t.TempDir()
	for n := range length {
		for _, rest := range [][]byte{old[at+int64(n):], make([]byte, len(old)-int(at)-n), nil} {
			copyLog(t, dir, to, path, slices.Concat(whole[:at+int64(n)], rest))
			got, found := replayed(t, to)
			// What the old bytes have in common with the new may complete it.
			if !slices.Equal(got, before) && !slices.Equal(got, after) || len(found.Damages) > 0 || slices.Equal(got, after) && n < groupTop {
				t.Fatalf("torn after %d bytes: %d records, %v", n, len(got), found.Damages)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A changed bit in a group that is not the last is told, and everything else is given.
func TestDamageInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	l := started(t, Options{Dir: dir, Segment: 32 << 10})
	f := &counted{hold: make(chan struct{})} // nothing is used again
	want := appendAll(t, l, f, 0, 10)        // the second segment has the last ones
	paths, err := filesOf(dir)
	if err != nil || len(paths) != 2 {
		t.Fatalf("%v, %v", paths, err)
	}
	whole, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	for group := range 7 { // the last one too: the next segment tells
		for range 40 {
			content := bytes.Clone(whole)
			start := (group + 1) * page
			length := len(bytes.TrimRight(content[start:start+page], "\x00"))
			content[start+rand.IntN(length)] ^= 1 << rand.IntN(8)
			copyLog(t, dir, to, paths[0], content)
			got, found := replayed(t, to)
			if len(found.Damages) != 1 || !slices.Equal(got, slices.Delete(slices.Clone(want), group, group+1)) {
				t.Fatalf("group %d: %q, %v", group, got, found.Damages)
			}
		}
	}
	close(f.hold)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// failing is a disk whose files fail after a while.
type failing struct {
	System
	left  atomic.Int64 // operations
	write bool         // which fails
}

type failingFile struct {
	File
	disk *failing
}

var errDisk = errors.New("the disk is gone")

func (d *failing) Create(path string, size int64) (File, error) {
	f, err := d.System.Create(path, size)
	return &failingFile{f, d}, err
}

func (f *failingFile) WriteAt(b []byte, at int64) (int, error) {
	if f.disk.write && f.disk.left.Add(-1) == 0 {
		n, _ := f.File.WriteAt(b[:len(b)/2], at)
		return n, errDisk
	}
	return f.File.WriteAt(b, at)
}

func (f *failingFile) Sync() error {
	if !f.disk.write && f.disk.left.Add(-1) == 0 {
		return errDisk // only once: the next would succeed, and must not be asked
	}
	return f.File.Sync()
}

func TestAFailureIsForGood(t *testing.T) {
	for _, write := range []bool{true, false} {
		t.Run(fmt.Sprintf("write=%v", write), func(t *testing.T) {
			disk := &failing{write: write}
			disk.left.Store(20)
			dir := t.TempDir()
			told := make(chan error, 2)
			l := started(t, Options{Dir: dir, Disk: disk, Failed: func(err error) { told <- err }})
			f := &counted{}
			var acknowledged []string
			var mu sync.Mutex
			var all sync.WaitGroup
			for w := range 4 {
				all.Go(func() {
					for i := 0; ; i++ {
						err := l.Append(Record{Name: fmt.Sprint(w), File: f, Offset: int64(i), Data: []byte("x")})
						if err != nil {
							if failure, ok := errors.AsType[*Failure](err); !ok || !errors.Is(failure, errDisk) {
								t.Errorf("append: %v", err)
							}
							return
						}
						mu.Lock()
						acknowledged = append(acknowledged, fmt.Sprintf("%d@%d:x", w, i))
						mu.Unlock()
					}
				})
			}
			all.Wait()
			for range 3 {
				if err := l.Append(Record{Name: "a", File: f}); !errors.Is(err, errDisk) {
					t.Errorf("again: %v", err)
				}
			}
			if err := l.Finish(f); !errors.Is(err, errDisk) || f.syncs.Load() > 0 {
				t.Errorf("finish: %v", err)
			}
			if err := <-told; !errors.Is(err, errDisk) {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			got, found := replayed(t, dir)
			for _, a := range acknowledged {
				if !slices.Contains(got, a) {
					t.Errorf("%s was acknowledged and is gone", a)
				}
			}
			if len(acknowledged) == 0 || len(found.Damages) > 0 {
				t.Errorf("%d acknowledged, %v", len(acknowledged), found.Damages)
			}
		})
	}
}

// A log that cannot grow goes on with what it has.
func TestADiskWithoutRoomToGrow(t *testing.T) {
	disk := &cramped{}
	dir := t.TempDir()
	l := started(t, Options{Dir: dir, Disk: disk})
	f := &counted{}
	data := bytes.Repeat([]byte("x"), 100<<10)
	for i := range 40 { // four times what the one segment holds
		if err := l.Append(Record{Name: "a", File: f, Offset: int64(i), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	if f.syncs.Load() == 0 || disk.files.Load() < 2 {
		t.Errorf("%d syncs, %d files asked for", f.syncs.Load(), disk.files.Load())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

type cramped struct {
	System
	files atomic.Int64
}

func (d *cramped) Create(path string, size int64) (File, error) {
	if d.files.Add(1) > 1 {
		return nil, errDisk
	}
	return d.System.Create(path, size)
}

// FuzzReplay: whatever the log's file holds, Replay ends without panic and allocates no more than the file's size asks for.
func FuzzReplay(f *testing.F) {
	dir := f.TempDir()
	l := started(f, Options{Dir: dir, Segment: 16 << 10})
	appendAll(f, l, &counted{}, 0, 2)
	paths, err := filesOf(dir)
	if err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "1.wal"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = Replay(dir, func(r Record) error { return nil })
	})
}
