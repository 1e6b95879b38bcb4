// Package verify tells whether a session log is whole, from its files alone.
//
// It reads what an auditor is given, a copy of the state directory, and needs neither a gateway nor a key. It checks each
// file's sums, numbers and chain, whether it was ended, and the audit log's numbering. What it finds is evidence only
// as far as the files go: whoever may write them could make others that are whole. That nothing was exchanged or taken
// away is what a witness is for.
package verify

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/recorder/format"
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
}

// Options say what a running gateway knows about its own log.
type Options struct {
	// Live tells of a file whether it is being written, and how many bytes of it are safe; what is beyond is not looked
	// at. Where it is given, any other file that was not ended is damaged: its ending is gone.
	Live func(path string) (safe int64, live bool)
	// Waiting are the numbers of the audit events that are not moved yet, in order.
	Waiting []uint64
}

// Check reads the whole session log below dir. The error is one of reading; what is wrong with the log is in the report.
func Check(dir string, o Options) (*Report, error) {
	report := &Report{Whole: true, Recordings: []File{}, Audit: Audit{Files: []File{}}}
	var numbers []uint64
	told := newTold()
	for _, room := range []string{"recordings", "audit"} {
		err := filepath.WalkDir(filepath.Join(dir, room), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() || !strings.HasSuffix(path, ".srec") {
				return nil
			}
			relative, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			file, err := check(path, filepath.ToSlash(relative), o, &numbers, told)
			if err != nil {
				return err
			}
			if file.State == Torn || file.State == Damaged {
				report.Whole = false
			}
			if room == "audit" {
				report.Audit.Files = append(report.Audit.Files, file)
			} else {
				report.Recordings = append(report.Recordings, file)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("check the session log: %w", err)
		}
	}
	report.Audit.count(numbers, o.Waiting)
	if err := report.compare(dir, told); err != nil {
		return nil, fmt.Errorf("check the session log: %w", err)
	}
	if len(report.Missing) > 0 || len(report.Audit.Missing) > 0 || len(report.Audit.Repeated) > 0 {
		report.Whole = false
	}
	return report, nil
}

// check reads one file and collects the numbers of audit events.
func check(path, relative string, o Options, numbers *[]uint64, told *told) (File, error) {
	file := File{Path: relative}
	f, err := os.Open(path)
	if err != nil {
		return file, err
	}
	defer f.Close()
	var live bool
	if o.Live != nil {
		file.Bytes, live = o.Live(relative) // before the file is looked at, which may be ended meanwhile
	}
	if !live {
		info, err := f.Stat()
		if err != nil {
			return file, err
		}
		file.Bytes = info.Size()
	}
	reader, err := format.NewReader(io.NewSectionReader(f, 0, file.Bytes))
	if errors.Is(err, format.ErrNotRecording) {
		file.State = Damaged
		file.Problems = append(file.Problems, &format.Damage{Length: file.Bytes, What: err.Error()})
		return file, nil
	} else if err != nil {
		return file, err
	}
	h := reader.Header()
	file.Session, file.Protocol, file.Level, file.Started = h.Session, h.Protocol, h.Durability, h.Started
	if strings.TrimSuffix(filepath.Base(path), ".srec") != h.Session {
		file.add("this is the file of session " + h.Session + " under another name")
	}
	for {
		event, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if damage, ok := errors.AsType[*format.Damage](err); ok {
			file.Problems = append(file.Problems, damage)
			continue
		} else if err != nil {
			return file, err
		}
		switch {
		case event.Type == format.TypeEnd:
			end, err := format.EndOf(event)
			if err != nil {
				file.add(err.Error())
			}
			file.Ending = end.Reason
		case event.Type == format.TypeAudit && h.Protocol == "audit":
			var numbered struct {
				Number uint64 `json:"number"`
			}
			if err := json.Unmarshal(event.Data, &numbered); err != nil || numbered.Number == 0 {
				file.add(fmt.Sprintf("an audit event has no number: %v", err))
				continue
			}
			*numbers = append(*numbers, numbered.Number)
			told.take(event.Data)
		}
	}
	state := reader.State()
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
	return file, nil
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
				fmt.Fprintf(&b, "%s: %s\n", f.Path, f.State)
			}
			for _, p := range f.Problems {
				fmt.Fprintf(&b, "  %s\n", p)
			}
		}
	}
	for _, missing := range r.Audit.Missing {
		fmt.Fprintf(&b, "audit log: events %s are missing\n", missing)
	}
	for _, repeated := range r.Audit.Repeated {
		fmt.Fprintf(&b, "audit log: events %s stand there more than once\n", repeated)
	}
	for _, waiting := range r.Audit.Waiting {
		fmt.Fprintf(&b, "audit log: events %s are not moved yet\n", waiting)
	}
	for _, missing := range r.Missing {
		fmt.Fprintf(&b, "recordings: that of session %s, begun at %s, is missing\n", missing.Session, missing.Begun.UTC().Format(time.RFC3339))
	}
	if len(r.Purged) > 0 {
		fmt.Fprintf(&b, "%d recordings were purged when their time was over, as the audit log says\n", len(r.Purged))
	}
	states := map[State]int{}
	for _, f := range r.Recordings {
		states[f.State]++
	}
	fmt.Fprintf(&b, "%d recordings: %d sealed, %d live, %d open, %d torn, %d damaged\n", len(r.Recordings),
		states[Sealed], states[Live], states[Open], states[Torn], states[Damaged])
	fmt.Fprintf(&b, "audit log: %d events in %d files\n", r.Audit.Events, len(r.Audit.Files))
	if r.Whole {
		b.WriteString("whole\n")
	} else {
		b.WriteString("not whole\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
