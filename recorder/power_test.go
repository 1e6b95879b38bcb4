package recorder

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/configs"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
	"sallyport/recorder/wal"
)

// forgetful is a disk that at any instant can say how it might look after a loss of power: whatever was synced is there,
// and of what was not, any part of any sectors. The files are real ones too, so that everything else reads them.
type forgetful struct {
	mu    sync.Mutex
	dir   string
	files map[string]*unsafeFile // by path, and what a removed one held
	lies  func(path string) bool // syncs of these files do nothing: a mistake that the test must find
}

// unsafeFile is a file with what of it is safe.
type unsafeFile struct {
	*os.File
	disk    *forgetful
	path    string
	safe    []byte
	pending []change
	removed bool // which nobody has synced: it may be back
}

// change is a write, or with no data a truncation.
type change struct {
	at   int64
	data []byte
}

const sector = 512

func (d *forgetful) add(path string, f *os.File, safe []byte) *unsafeFile {
	d.mu.Lock()
	defer d.mu.Unlock()
	file := &unsafeFile{File: f, disk: d, path: path, safe: safe}
	d.files[path] = file
	return file
}

func (d *forgetful) hardware(segment int64) Hardware {
	return Hardware{
		Segment: segment,
		Log:     d,
		Create: func(dir, path string, first []byte) (File, error) {
			f, err := disk.Create(dir, path, first)
			if err != nil {
				return nil, err
			}
			return d.add(filepath.Join(dir, path), f, bytes.Clone(first)), nil
		},
	}
}

func (d *forgetful) Create(path string, size int64) (wal.File, error) {
	f, err := wal.System{}.Create(path, size)
	if err != nil {
		return nil, err
	}
	return d.add(path, f.(wal.DataSynced).File, make([]byte, size)), nil
}

func (d *forgetful) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[path].removed = true
	return os.Remove(path)
}

func (f *unsafeFile) change(c change, do func() error) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.pending = append(f.pending, c)
	return do()
}

func (f *unsafeFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.change(change{at, bytes.Clone(b)}, func() error { n, err = f.File.WriteAt(b, at); return err })
	return n, err
}

func (f *unsafeFile) Truncate(size int64) error {
	return f.change(change{at: size}, func() error { return f.File.Truncate(size) })
}

func (f *unsafeFile) Sync() error {
	f.disk.mu.Lock()
	pending := len(f.pending)
	lie := f.disk.lies != nil && f.disk.lies(f.path)
	f.disk.mu.Unlock()
	// Not under the lock, as the others write meanwhile, and some of them fail.
	if err := (wal.DataSynced{File: f.File}).Sync(); err != nil || lie {
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	for _, c := range f.pending[:pending] {
		f.safe = c.apply(f.safe)
	}
	f.pending = f.pending[pending:]
	return nil
}

func (c change) apply(to []byte) []byte {
	if c.data == nil {
		return to[:min(c.at, int64(len(to)))]
	}
	if end := c.at + int64(len(c.data)); end > int64(len(to)) {
		to = append(to, make([]byte, end-int64(len(to)))...)
	}
	copy(to[c.at:], c.data)
	return to
}

// crash writes the disk as it may look if the power fails now.
func (d *forgetful) crash(t testing.TB, to string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	keep := rand.Float64() // of all that is not synced: nothing at 0, all at 1
	if rand.IntN(4) == 0 {
		keep = 0
	}
	for path, f := range d.files {
		if f.removed && rand.IntN(2) == 0 {
			continue
		}
		content := bytes.Clone(f.safe)
		for _, c := range f.pending {
			for at := c.at; c.data != nil && at < c.at+int64(len(c.data)); {
				next := min((at/sector+1)*sector, c.at+int64(len(c.data)))
				if rand.Float64() < keep {
					content = change{at, c.data[at-c.at : next-c.at]}.apply(content)
				}
				at = next
			}
			if c.data == nil && rand.Float64() < keep {
				content = c.apply(content)
			}
		}
		relative, err := filepath.Rel(d.dir, path)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(to, relative)
		if err := os.MkdirAll(filepath.Dir(copied), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// acknowledgements are the events that callers were told are safe.
type acknowledgements struct {
	mu sync.Mutex
	of map[string]map[int]bool
	n  atomic.Int64
}

func (a *acknowledgements) add(session string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of[session] == nil {
		a.of[session] = map[int]bool{}
	}
	a.of[session][n] = true
	a.n.Add(1)
}

func (a *acknowledgements) copy() map[string]map[int]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]map[int]bool{}
	for session, numbers := range a.of {
		all[session] = map[int]bool{}
		for n := range numbers {
			all[session][n] = true
		}
	}
	return all
}

// lossOfPower runs sessions on a forgetful disk, fails the power many times, and returns what was acknowledged and is
// not there after the next start.
func lossOfPower(t *testing.T, lies func(path string) bool, crashes int) (lost []string) {
	dir := t.TempDir()
	disk := &forgetful{dir: dir, files: map[string]*unsafeFile{}, lies: lies}
	options := Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true}}
	r, err := open(t.Context(), options, disk.hardware(32<<10)) // small, so that they are used again and again
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := acknowledgements{of: map[string]map[int]bool{}}
	var over atomic.Bool
	var calm sync.RWMutex // the sessions rest while a crash is looked at
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for count := 0; !over.Load(); count++ {
				session := fmt.Sprintf("s%d-%d", worker, count)
				rec, err := r.Begin(t.Context(), header(session), "")
				if err != nil {
					t.Error(err)
					return
				}
				for n := 0; n < 30+rand.IntN(100) && !over.Load(); n++ {
					if err := rec.Note(Event{Type: format.TypeAnswered, Data: []byte("seen")}); err != nil {
						t.Error(err)
					}
					size := rand.IntN(700)
					if rand.IntN(50) == 0 {
						size = rand.IntN(40 << 10) // in several groups
					}
					calm.RLock()
					err := rec.Record(t.Context(), said(fmt.Sprintf("%d %s", n, strings.Repeat("x", size))))
					calm.RUnlock()
					if err != nil {
						t.Error(err)
						return
					}
					acknowledged.add(session, n)
				}
				if rand.IntN(3) == 0 { // one that is not ended keeps its file behind the log
					if err := rec.End(format.End{Reason: "done"}); err != nil {
						t.Error(err)
					}
					acknowledged.add(session, -1)
				}
			}
		})
	}
	defer func() {
		over.Store(true)
		all.Wait()
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for range crashes {
		target := acknowledged.n.Load() + int64(rand.IntN(150))
		eventually(t, "more is acknowledged", func() bool { return acknowledged.n.Load() > target || t.Failed() })
		told := acknowledged.copy() // before the power fails, so no less than was told
		after := t.TempDir()
		disk.crash(t, after)
		options.Dir = after
		func() {
			calm.Lock()
			defer calm.Unlock()
			lost = afterCrash(t, options, told)
		}()
		if len(lost) > 0 {
			return lost
		}
	}
	t.Logf("%d events acknowledged, %d crashes", acknowledged.n.Load(), crashes)
	return nil
}

// afterCrash starts a recorder on what a crash has left and returns what is missing or not whole.
func afterCrash(t *testing.T, o Options, acknowledged map[string]map[int]bool) (lost []string) {
	t.Helper()
	lost = beforeStart(t, o.Dir, acknowledged)
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for session, numbers := range acknowledged {
		lost = append(lost, missing(t, r, session, numbers)...)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := verify.Check(o.Dir, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Recordings {
		if f.State != verify.Sealed {
			lost = append(lost, fmt.Sprintf("%s is %s: %v", f.Path, f.State, f.Problems))
		}
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		t.Fatal(err)
	}
	return lost
}

// beforeStart checks what a crash has left as it is, with the log that no start has replayed: it changes nothing, and whatever
// was acknowledged is there.
func beforeStart(t *testing.T, dir string, acknowledged map[string]map[int]bool) (lost []string) {
	t.Helper()
	ahead, damages, err := verify.Ahead(dir)
	if err != nil || len(damages) > 0 {
		return []string{fmt.Sprint("the log cannot be read: ", err, damages)}
	}
	if err := os.MkdirAll(filepath.Join(dir, "audit"), 0o700); err != nil { // of which the disk keeps only files
		t.Fatal(err)
	}
	report, err := verify.Check(dir, verify.Options{Ahead: ahead})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Recordings {
		if f.State == verify.Damaged || int(f.Events) < len(acknowledged[f.Session]) {
			lost = append(lost, fmt.Sprintf("before the start %s is %s with %d events of %d: %v", f.Path, f.State, f.Events, len(acknowledged[f.Session]), f.Problems))
		}
	}
	return lost
}

// missing are the acknowledged events of a session that a recorder does not find.
func missing(t *testing.T, r *Recorder, session string, numbers map[int]bool) (lost []string) {
	t.Helper()
	if path, _ := r.Stored(session); path == "" {
		return []string{"there is no " + session}
	}
	found := map[int]bool{}
	for _, text := range texts(t, r, session) {
		number, _, _ := strings.Cut(text, " ")
		if n, err := strconv.Atoi(number); err == nil {
			found[n] = true
		}
	}
	found[-1] = ending(t, r, session) == "done"
	for n := range numbers {
		if !found[n] {
			lost = append(lost, fmt.Sprintf("%s: event %d", session, n))
		}
	}
	return lost
}

// Whatever was acknowledged at level synced is there after a loss of power, whichever sectors of what was not synced the
// disk has kept; and every recording is whole.
func TestLossOfPower(t *testing.T) {
	for _, lost := range lossOfPower(t, nil, 12) {
		t.Error("acknowledged and gone: ", lost)
	}
}

// The test before is worth something only if it finds a sync that is not done: of the log, or of the files behind it.
func TestLossOfPowerFindsAMissingSync(t *testing.T) {
	for _, suffix := range []string{".wal", extension} {
		t.Run(suffix, func(t *testing.T) {
			lost := lossOfPower(t, func(path string) bool { return strings.HasSuffix(path, suffix) }, 25)
			if len(lost) == 0 {
				t.Error("25 losses of power found nothing wrong with a disk that does not sync")
			} else {
				t.Logf("found: %s", lost[0])
			}
		})
	}
}

// One failed sync behind the log ends all recordings at that level, and what was acknowledged is there after the next
// start though the file was never synced.
func TestAFailedCheckpointEndsAll(t *testing.T) {
	dir := t.TempDir()
	r, err := open(t.Context(), Options{Dir: dir, Log: testLog(t), Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true}},
		Hardware{Segment: 16 << 10, Log: wal.System{}, Create: func(dir, path string, first []byte) (File, error) {
			f, err := system().Create(dir, path, first)
			return &unsyncable{f}, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	idle := begin(t, r, "idle")
	rec := begin(t, r, "busy")
	count := 0
	for ; ; count++ {
		if err = rec.Record(t.Context(), said(fmt.Sprint(count))); err != nil {
			break
		}
		if count > 1000 {
			t.Fatal("the files behind the log are never synced")
		}
	}
	if !errors.Is(err, errNoSync) {
		t.Fatal(err)
	}
	<-idle.Failed()
	if err := idle.Record(t.Context(), said("more")); !errors.Is(err, errNoSync) {
		t.Errorf("another session goes on: %v", err)
	}
	if err := r.Ready(); !errors.Is(err, errNoSync) {
		t.Errorf("ready: %v", err)
	}
	path := pathOf(r, "busy")
	if err := r.Close(t.Context()); !errors.Is(err, errNoSync) {
		t.Errorf("close: %v", err)
	}
	// The disk has lost all but the header.
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := format.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, reader.State().Offset); err != nil {
		t.Fatal(err)
	}
	again := openRecorder(t, dir, configs.Synced)
	if got := texts(t, again, "busy"); len(got) < count {
		t.Errorf("%d events of %d", len(got), count)
	}
	if left, err := fs.Glob(os.DirFS(dir), "wal/*"); err != nil || len(left) > 0 {
		t.Errorf("the log was left: %v %v", left, err)
	}
}

var errNoSync = errors.New("no sync today")

type unsyncable struct{ File }

func (u *unsyncable) Sync() error { return errNoSync }
