// Package powerloss fails the power under the session log, on the crashable file system that Pebble is tested with: a
// second model of what a disk may have kept, made by other people than ours in package recorder. It is a module of its own
// for that dependency; `make conformance` runs it.
package powerloss

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
	"sallyport/recorder/wal"
)

// disk is a recorder's, in memory.
type disk struct {
	*vfs.MemFS
	lies bool // syncs do nothing: the mistake that the test must find
}

type file struct {
	vfs.File
	lies bool
}

func (f *file) Sync() error {
	if f.lies {
		return nil
	}
	return f.File.Sync()
}

func (*file) Truncate(int64) error { return errors.ErrUnsupported } // only after a write that failed

// directory makes a directory and those above it, and syncs them.
func (d *disk) directory(dir string) error {
	if err := d.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if err := d.syncDirectory(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) syncDirectory(dir string) error {
	f, err := d.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// make makes a file as the recorder's own does, under another name first.
func (d *disk) make(path string, first []byte) (*file, error) {
	if err := d.directory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := d.MemFS.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(first, 0); err != nil {
		return nil, err
	}
	if err := errors.Join(f.Sync(), d.Rename(path+".new", path), d.syncDirectory(filepath.Dir(path))); err != nil {
		return nil, err
	}
	return &file{f, d.lies}, nil
}

// Create implements wal.Disk.
func (d *disk) Create(path string, size int64) (wal.File, error) {
	return d.make(path, make([]byte, size))
}

func (d *disk) hardware() recorder.Hardware {
	return recorder.Hardware{
		Create: func(dir, path string, first []byte) (recorder.File, error) {
			return d.make(filepath.Join(dir, path), first)
		},
		Log:     d,
		Segment: 64 << 10, // small, so that they are used again and again
	}
}

// crash writes the disk as it may be after a loss of power to another directory.
func (d *disk) crash(t *testing.T, from, to string, percent int) {
	t.Helper()
	after := d.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(rand.Uint64(), 0))})
	var copyAll func(string)
	copyAll = func(path string) {
		info, err := after.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			t.Fatal(err)
		}
		if !info.IsDir() {
			f, err := after.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			content, err := io.ReadAll(f)
			if err == nil {
				err = os.WriteFile(filepath.Join(to, relative), content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if err := os.MkdirAll(filepath.Join(to, relative), 0o700); err != nil {
			t.Fatal(err)
		}
		names, err := after.List(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			copyAll(filepath.Join(path, name))
		}
	}
	copyAll(from)
}

// told are the events that callers were told are safe.
type told struct {
	mu sync.Mutex
	of map[string]int // how many, by session
	n  atomic.Int64
}

func (a *told) add(session string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of[session]++
	a.n.Add(1)
}

// run runs sessions, fails the power many times, and returns what was acknowledged and is gone.
func run(t *testing.T, lies bool, crashes int) (lost []string) {
	d := &disk{MemFS: vfs.NewCrashableMem(), lies: lies}
	dir := t.TempDir()
	for _, room := range []string{"recordings", "audit", "wal"} {
		if err := d.directory(filepath.Join(dir, room)); err != nil {
			t.Fatal(err)
		}
	}
	options := recorder.Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true}}
	r, err := recorder.OpenOn(t.Context(), options, d.hardware())
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := told{of: map[string]int{}}
	var over atomic.Bool
	var calm sync.RWMutex // the sessions rest while a crash is looked at
	var all sync.WaitGroup
	for worker := range 6 {
		all.Go(func() {
			for count := 0; !over.Load(); count++ {
				session := fmt.Sprintf("s%d-%d", worker, count)
				rec, err := r.Begin(t.Context(), format.Header{Session: session, Protocol: "test"}, "")
				if err != nil {
					t.Error(err)
					return
				}
				for n := range 200 {
					if over.Load() {
						break
					}
					e := format.Event{Type: format.TypeSaid, Data: fmt.Appendf(nil, "%d %s", n, strings.Repeat("x", rand.IntN(2000)))}
					calm.RLock()
					err := rec.Record(t.Context(), e)
					calm.RUnlock()
					if err != nil {
						t.Error(err)
						return
					}
					acknowledged.add(session)
				}
				if rand.IntN(3) == 0 { // one that is not ended keeps its file behind the log
					if err := rec.End(format.End{Reason: "done"}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	defer func() {
		over.Store(true)
		all.Wait()
		r.Close(context.WithoutCancel(t.Context())) // there is no file with the operating system
	}()
	for crash := range crashes {
		target := acknowledged.n.Load() + int64(20+rand.IntN(100))
		for deadline := time.Now().Add(time.Minute); acknowledged.n.Load() < target; time.Sleep(time.Millisecond) {
			if t.Failed() || time.Now().After(deadline) {
				t.Fatal("nothing more is acknowledged")
			}
		}
		acknowledged.mu.Lock() // before the power fails, so no less than was told
		want := make(map[string]int, len(acknowledged.of))
		for session, n := range acknowledged.of {
			want[session] = n
		}
		acknowledged.mu.Unlock()
		after := quick(t)
		d.crash(t, dir, after, []int{0, 0, 30, 50, 90}[crash%5])
		calm.Lock()
		lost = gone(t, options, after, want)
		calm.Unlock()
		if len(lost) > 0 {
			return lost
		}
	}
	t.Logf("%d events acknowledged, %d losses of power", acknowledged.n.Load(), crashes)
	return nil
}

// quick is a directory in memory, where there is one: starting on it syncs much, and that is not what is tested.
func quick(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "sallyport-powerloss-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// gone starts a recorder on what a crash has left and returns what is missing or not whole.
func gone(t *testing.T, o recorder.Options, dir string, want map[string]int) (lost []string) {
	t.Helper()
	o.Dir = dir
	r, err := recorder.Open(t.Context(), o)
	if err != nil {
		return []string{err.Error()}
	}
	for session, n := range want {
		_, events, err := r.Read(t.Context(), session)
		if err != nil {
			lost = append(lost, err.Error())
			continue
		}
		found := 0
		for e, err := range events {
			if err != nil {
				lost = append(lost, err.Error())
				break
			}
			number, _, _ := strings.Cut(string(e.Data), " ")
			if i, err := strconv.Atoi(number); e.Type == format.TypeSaid && err == nil && i == found {
				found++
			}
		}
		if found < n {
			lost = append(lost, fmt.Sprintf("%s has %d of %d", session, found, n))
		}
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := verify.Check(dir, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Recordings {
		if f.State != verify.Sealed {
			lost = append(lost, fmt.Sprintf("%s is %s: %v", f.Path, f.State, f.Problems))
		}
	}
	slices.Sort(lost)
	return lost
}

// Whatever was acknowledged at level synced is there after a loss of power, and every recording is whole.
func TestLossOfPower(t *testing.T) {
	for _, lost := range run(t, false, 15) {
		t.Error("acknowledged and gone: ", lost)
	}
}

// The test before is worth something only if it finds syncs that are not done.
func TestLossOfPowerFindsMissingSyncs(t *testing.T) {
	if lost := run(t, true, 15); len(lost) == 0 {
		t.Error("nothing was found wrong with a disk that does not sync")
	} else {
		t.Logf("found: %s", lost[0])
	}
}
