// Package verify tells whether a session log is whole, from its files alone.
//
// It reads what an auditor is given, a copy of the state directory, and needs neither a gateway nor a secret. It checks each
// file's sums, numbers and chain, whether it was ended, and the audit log's numbering; makes the Merkle tree over all
// recordings anew from its leaves (sallyport/recorder/transparency); and compares each file with what its leaves bound. That
// is evidence against whoever may write the files only as far as somebody else vouches for the log: a witness whose
// cosignature it asks for, or an auditor who kept a checkpoint. The report says how far that is, and what it does not prove.
package verify

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
)

// State says how a file is.
type State string

// The states of a file.
const (
	Sealed  State = "sealed"  // whole and ended
	Live    State = "live"    // whole as far as it goes, and being written
	Open    State = "open"    // whole as far as it goes, but not ended; a gateway's start ends it
	Torn    State = "torn"    // its last bytes are no whole block: cut short while being written, or later
	Damaged State = "damaged" // not what was written
)

// File is one recording or audit file.
type File struct {
	Path     string           `json:"path"` // below the directory, with slashes
	Session  string           `json:"session,omitempty"`
	Protocol string           `json:"protocol,omitempty"`
	Level    string           `json:"durability,omitempty"`
	Started  time.Time        `json:"started,omitzero"`
	State    State            `json:"state"`
	Ending   string           `json:"ending,omitempty"` // the reason of the ending
	Bytes    int64            `json:"bytes"`
	Blocks   uint64           `json:"blocks"`
	Events   uint64           `json:"events"`
	Chain    string           `json:"chain,omitempty"` // after the last good block, in hexadecimal
	Problems []*format.Damage `json:"problems,omitempty"`

	header    format.Header
	first     transparency.Chain // c_0
	differ    []mark             // where it is not what the log has bound
	connected []connection
	ended     time.Time
	gone      bool
}

// Range is a run of numbers, both ends included.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d to %d", r.First, r.Last)
}

// Audit is the audit log of the control plane.
type Audit struct {
	Events   uint64  `json:"events"`
	Last     uint64  `json:"last"`              // the highest number
	Missing  []Range `json:"missing,omitempty"` // numbers between 1 and Last that stand nowhere
	Repeated []Range `json:"repeated,omitempty"`
	// Waiting are events that the gateway has kept, in its database, and not yet moved to the log. It is known only where
	// Options.Waiting was given.
	Waiting []Range `json:"waiting,omitempty"`
	Files   []File  `json:"files"`
}

// Report is what Check found.
type Report struct {
	// Whole says that nothing is damaged, torn or missing. Events that wait to be moved, and recordings that a crash
	// left open, are no damage.
	Whole      bool   `json:"whole"`
	Recordings []File `json:"recordings"`
	Audit      Audit  `json:"audit"`
	// Purged are recordings that the audit log says were deleted when their time was over. Missing are those of sessions that
	// it says were begun, of which there is no file although nothing was said of deleting it.
	Purged  []Purged  `json:"purged,omitempty"`
	Missing []Missing `json:"missing,omitempty"`
	// Shredded are recordings that somebody had destroyed before their time, which the log has too.
	Shredded []Shredded `json:"shredded,omitempty"`
	// Log is the log over all recordings, and what is not as it says; nil where there is none. Covered is how many files are
	// wholly bound by leaves that a witness has seen, or that a checkpoint covers which was kept.
	Log     *Ledger `json:"log,omitempty"`
	Covered int     `json:"covered"`
}

// Options say what is known beside the files; the zero value is nothing.
type Options struct {
	// Live tells of a file whether it is being written, and how many bytes of it are safe; what is beyond is not looked
	// at. Where it is given, any other file that was not ended is damaged: its ending is gone.
	Live func(path string) (safe int64, live bool)
	// Waiting are the numbers of the audit events that are not moved yet, in order.
	Waiting []uint64
	// Destroying tells of a session whose recording is just being destroyed; nil: of none.
	Destroying func(session string) bool
	// Ahead has, by session, what stands in the write-ahead log of a gateway that died and was not started since.
	Ahead map[string][]Piece

	// LogKey is the public key of the log over all recordings. Without one that in the directory is used, which whoever holds
	// the directory may have exchanged.
	LogKey transparency.LogKey
	// Witnesses are those of whom Quorum (0: all) must have cosigned a checkpoint.
	Witnesses []transparency.WitnessKey
	Quorum    int
	// Archive says that the directory is a copy of an archive, which has only what had ended: of sessions without an ending in
	// the log no recording is asked for.
	Archive bool
	// Kept are checkpoints that were kept elsewhere, with which the log must begin.
	Kept [][]byte

	dir string // which Check reads
}

// destroying reports whether a file that was there a moment ago is gone, or is to be.
func (o Options) destroying(path string) bool {
	if _, err := os.Lstat(filepath.Join(o.dir, filepath.FromSlash(path))); errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return o.Destroying != nil && o.Destroying(name(path))
}

// Check reads the whole session log below dir: each file by itself, the audit log's numbers, and all of them against the log
// over all recordings, where there is one. It uses every processor there is. The error is one of reading; what is wrong with
// the log is in the report.
func Check(dir string, o Options) (*Report, error) {
	fail := func(err error) (*Report, error) { return nil, fmt.Errorf("check the session log: %w", err) }
	o.dir = dir
	report := &Report{Whole: true, Recordings: []File{}, Audit: Audit{Files: []File{}}}
	log, leaves, err := o.readLedger(dir) // before the files: what it binds stands in them
	if err != nil {
		return fail(err)
	}
	report.Log = log
	var numbers []uint64
	told := newTold()
	for _, room := range []struct {
		name string
		into *[]File
	}{{"recordings", &report.Recordings}, {"audit", &report.Audit.Files}} {
		files, err := find(dir, room.name)
		if err != nil && !(log != nil && errors.Is(err, fs.ErrNotExist)) { // what is gone then, the log says
			return fail(err)
		}
		results, err := checkAll(dir, files, o, leaves)
		if err != nil {
			return fail(err)
		}
		for _, result := range results {
			if result.file.State == Torn || result.file.State == Damaged {
				report.Whole = false
			}
			*room.into = append(*room.into, result.file)
			numbers = append(numbers, result.numbers...)
			for _, event := range result.events {
				told.take(event)
			}
		}
	}
	report.Audit.count(numbers, o.Waiting)
	if err := report.compare(dir, told); err != nil {
		return fail(err)
	}
	if log != nil {
		later := leaves
		if o.Live != nil { // the gateway goes on meanwhile
			if later, err = readLeaves(dir); err != nil {
				return fail(err)
			}
		}
		report.compareWithLog(leaves, later, o)
		if o.Archive {
			report.Missing = slices.DeleteFunc(report.Missing, func(m Missing) bool { return leaves.sessions[m.Session].lived(leaves) })
		}
	}
	if len(report.Missing) > 0 || len(report.Audit.Missing) > 0 || len(report.Audit.Repeated) > 0 || log != nil && len(log.Problems) > 0 {
		report.Whole = false
	}
	return report, nil
}

// find lists the recordings of a folder, in order.
func find(dir, room string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(filepath.Join(dir, room), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".srec") {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// result is what reading one file gave.
type result struct {
	file    File
	numbers []uint64 // of audit events
	events  [][]byte // audit events that tell of recordings
}

// checkAll reads files, several at once.
func checkAll(dir string, files []string, o Options, l *leaves) ([]result, error) {
	results, errs := make([]result, len(files)), make([]error, len(files))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(files); i = int(next.Add(1)) - 1 {
				relative, err := filepath.Rel(dir, files[i])
				if err == nil {
					results[i], err = check(files[i], filepath.ToSlash(relative), o, l)
				}
				errs[i] = err
			}
		})
	}
	all.Wait()
	for i, err := range errs {
		if errors.Is(err, fs.ErrNotExist) && o.Live != nil { // was purged since it was listed
			results[i].file.gone = true
		} else if err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(results, func(r result) bool { return r.file.gone }), nil
}

// check reads one file.
func check(path, relative string, o Options, l *leaves) (result, error) {
	r := result{file: File{Path: relative}}
	file := &r.file
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	var live bool
	if o.Live != nil {
		file.Bytes, live = o.Live(relative) // before the file is looked at, which may be ended meanwhile
	}
	if !live {
		info, err := f.Stat()
		if err != nil {
			return r, err
		}
		file.Bytes = info.Size()
	}
	var source io.ReaderAt = f
	if !live {
		source, file.Bytes = withAhead(f, file.Bytes, o.Ahead[name(path)])
	}
	reader, err := format.NewReader(io.NewSectionReader(source, 0, file.Bytes))
	if errors.Is(err, format.ErrNotRecording) {
		file.State = Damaged
		file.Problems = append(file.Problems, &format.Damage{Length: file.Bytes, What: err.Error()})
		return r, nil
	} else if err != nil {
		return r, err
	}
	if session := reader.Header().Session; name(path) != session {
		file.add("this is the file of session " + session + " under another name")
	}
	if err := r.read(reader, l); err != nil {
		return r, err
	}
	r.state(reader, live, o)
	return r, nil
}

// read reads a recording to its end.
func (r *result) read(reader *format.Reader, l *leaves) error {
	file, h := &r.file, reader.Header()
	file.header = h
	file.Session, file.Protocol, file.Level, file.Started = h.Session, h.Protocol, h.Durability, h.Started
	file.first = transparency.Chain(reader.State().Chain)
	reader.Follow(file.against(l))
	for {
		event, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if damage, ok := errors.AsType[*format.Damage](err); ok {
			file.Problems = append(file.Problems, damage)
			continue
		} else if err != nil {
			return err
		}
		switch {
		case event.Type == format.TypeEnd:
			end, err := format.EndOf(event)
			if err != nil {
				file.add(err.Error())
			}
			file.Ending = end.Reason
			file.ended = h.Started.Add(event.At)
		case event.Type == format.TypeNote:
			if act, is := actAt(event, h.Started); is {
				file.connected = append(file.connected, act)
			}
		case event.Type == format.TypeConnected:
			file.connected = append(file.connected, connectedAt(event, h.Started))
		case event.Type == format.TypeAudit && h.Protocol == "audit":
			var numbered struct {
				Number uint64 `json:"number"`
			}
			if err := json.Unmarshal(event.Data, &numbered); err != nil || numbered.Number == 0 {
				file.add(fmt.Sprintf("an audit event has no number: %v", err))
				continue
			}
			r.numbers = append(r.numbers, numbered.Number)
			r.events = append(r.events, event.Data)
		}
	}
}

// state says how a recording is that was read.
func (r *result) state(reader *format.Reader, live bool, o Options) {
	file, state := &r.file, reader.State()
	file.Blocks, file.Events, file.Chain = state.Number, state.Sequence, hex.EncodeToString(state.Chain[:])
	switch {
	case reader.Sealed():
		file.State = Sealed
	case live:
		file.State = Live
	default:
		file.State = Open
		if o.Live != nil {
			file.add("the ending is missing")
		}
	}
	for _, problem := range file.Problems {
		if !problem.Torn || o.Live != nil {
			file.State = Damaged
		} else if file.State != Damaged {
			file.State = Torn
		}
	}
}

// against compares the states that a file passes with what the log has bound of it.
func (f *File) against(l *leaves) func(format.State) {
	if l == nil {
		return nil
	}
	b := l.sessions[name(f.Path)]
	if b == nil {
		return nil
	}
	marks := slices.Clone(b.marks)
	if b.ending.blocks > 0 {
		marks = append(marks, b.ending)
	}
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.blocks, b.blocks) })
	return func(s format.State) {
		for len(marks) > 0 && marks[0].blocks <= s.Number {
			if m := marks[0]; m.blocks == s.Number && (m.chain != transparency.Chain(s.Chain) || m.events != s.Sequence) {
				f.differ = append(f.differ, m)
			}
			marks = marks[1:]
		}
	}
}

// add notes a problem of the file as a whole.
func (f *File) add(what string) {
	f.Problems = append(f.Problems, &format.Damage{Offset: f.Bytes, What: what})
}

// count fills in what the numbers tell.
func (a *Audit) count(numbers, waiting []uint64) {
	a.Events = uint64(len(numbers))
	slices.Sort(numbers)
	for _, n := range numbers {
		switch {
		case n == a.Last:
			a.Repeated = grow(a.Repeated, n, n)
		case n > a.Last+1:
			a.Missing = append(a.Missing, Range{a.Last + 1, n - 1})
		}
		a.Last = n
	}
	next := a.Last + 1
	for _, n := range waiting {
		if n <= a.Last { // moved, and not yet forgotten by the database
			continue
		}
		if n > next {
			a.Missing = append(a.Missing, Range{next, n - 1})
		}
		a.Waiting = grow(a.Waiting, n, n)
		next = n + 1
	}
}

// grow adds a number to ranges, at their end.
func grow(ranges []Range, first, last uint64) []Range {
	if n := len(ranges); n > 0 && (ranges[n-1].Last == first || ranges[n-1].Last+1 == first) {
		ranges[n-1].Last = last
		return ranges
	}
	return append(ranges, Range{first, last})
}

// WriteTo prints the report for people: what is wrong, file by file, and a summary.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for _, files := range [][]File{r.Recordings, r.Audit.Files} {
		for _, f := range files {
			if len(f.Problems) > 0 || f.State == Open {
				say(&b, "%s: %s\n", f.Path, f.State)
			}
			for _, p := range f.Problems {
				say(&b, "  %s\n", p)
			}
		}
	}
	for _, missing := range r.Audit.Missing {
		say(&b, "audit log: events %s are missing\n", missing)
	}
	for _, repeated := range r.Audit.Repeated {
		say(&b, "audit log: events %s stand there more than once\n", repeated)
	}
	for _, waiting := range r.Audit.Waiting {
		say(&b, "audit log: events %s are not moved yet\n", waiting)
	}
	for _, missing := range r.Missing {
		say(&b, "recordings: that of session %s, begun at %s, is missing\n", missing.Session, missing.Begun.UTC().Format(time.RFC3339))
	}
	r.Log.write(&b, r.Covered)
	for _, shredded := range r.Shredded {
		say(&b, "%s\n", shredded)
	}
	if len(r.Purged) > 0 {
		say(&b, "%d recordings were purged when their time was over\n", len(r.Purged))
	}
	states := map[State]int{}
	for _, f := range r.Recordings {
		states[f.State]++
	}
	say(&b, "%d recordings: %d sealed, %d live, %d open, %d torn, %d damaged\n", len(r.Recordings),
		states[Sealed], states[Live], states[Open], states[Torn], states[Damaged])
	say(&b, "audit log: %d events in %d files\n", r.Audit.Events, len(r.Audit.Files))
	if r.Whole {
		b.WriteString("whole\n")
	} else {
		b.WriteString("not whole\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
