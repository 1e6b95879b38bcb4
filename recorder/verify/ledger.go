package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// The kinds of Finding; stable words.
const (
	// LogMissing: there is no log, though something says that there should be.
	LogMissing = "log_missing"
	// NotSigned: a checkpoint has no good signature of the log's key.
	NotSigned = "not_signed"
	// NotWitnessed: no checkpoint has the witnesses' cosignatures.
	NotWitnessed = "not_witnessed"
	// RolledBack: the log has fewer leaves than it had.
	RolledBack = "rolled_back"
	// Rewritten: the log has other leaves than it had.
	Rewritten = "rewritten"
	// LeafDamaged: a leaf can't be read.
	LeafDamaged = "leaf_damaged"
	// Twice: the log says that a session began, or ended, twice.
	Twice = "twice"
	// Changed: a recording is not what the log has bound.
	Changed = "changed"
	// Cut: a recording is shorter than the log has bound.
	Cut = "cut"
	// Extended: a recording goes on after the ending that the log has bound.
	Extended = "extended"
	// Gone: a recording is missing, and no leaf says that it was purged.
	Gone = "gone"
	// Planted: a recording that no leaf tells of.
	Planted = "planted"
	// Unended: the log has no ending of a recording whose gateway has been started again since.
	Unended = "unended"
	// Backdated: a recording says that it began before leaves that stand before its own.
	Backdated = "backdated"
	// PurgedOnHold: a recording was purged while it was on hold.
	PurgedOnHold = "purged_on_hold"
	// Returned: a recording is there that was destroyed: somebody put a copy back.
	Returned = "returned"
)

// Finding is something that is not as the log over all recordings says, or wrong with the log itself.
type Finding struct {
	Kind    string `json:"kind"`
	Session string `json:"session,omitempty"`
	Leaf    int64  `json:"leaf"` // that says otherwise; -1: none
	What    string `json:"what"`
}

// Kept is a checkpoint that an auditor kept, and what became of it.
type Kept struct {
	Size       int64 `json:"size"`
	Consistent bool  `json:"consistent"` // the log begins with what it was then
}

// Ledger is the log over all recordings as it was found.
type Ledger struct {
	Origin string `json:"origin,omitempty"`
	Key    string `json:"key,omitempty"`
	// Trusted says that the key was given, and not taken from the directory that is checked.
	Trusted bool `json:"trusted"`
	// Leaves is how many there are, Signed how many the newest checkpoint covers, Witnessed how many the newest one with
	// the cosignatures asked for.
	Leaves    int64                      `json:"leaves"`
	Root      string                     `json:"root"`
	Signed    int64                      `json:"signed"`
	Witnessed int64                      `json:"witnessed"`
	Cosigned  []transparency.Cosignature `json:"cosigned,omitempty"`
	Kept      []Kept                     `json:"kept,omitempty"`
	// Covered is how many leaves nobody can have changed who does not also control a witness or the auditor.
	Covered     int64                       `json:"covered"`
	Checkpoint  string                      `json:"checkpoint,omitempty"` // the newest one that is good, to be kept
	Kinds       map[transparency.Kind]int64 `json:"kinds,omitempty"`
	Last        time.Time                   `json:"last,omitzero"` // the newest leaf's time, by the gateway's clock
	Credentials int64                       `json:"credentials"`
	Problems    []Finding                   `json:"problems,omitempty"`
	// Uncovered are sessions of which something is not covered, or not bound yet.
	Uncovered []string `json:"uncovered,omitempty"`
	// NotProven says in words what this report does not prove.
	NotProven []string `json:"not_proven"`
}

// readLedger reads the log and checks it by itself. It returns nil where there is none and none is asked for.
func (o *Options) readLedger(dir string) (*Ledger, *leaves, error) {
	report := &Ledger{NotProven: []string{}}
	asked := o.LogKey.Verifier != nil || len(o.Witnesses) > 0 || len(o.Kept) > 0
	if _, err := os.Stat(filepath.Join(dir, transparency.Folder)); errors.Is(err, fs.ErrNotExist) {
		if !asked {
			return nil, nil, nil
		}
		report.Problems = []Finding{{Kind: LogMissing, Leaf: none, What: "there is no log over all recordings (folder " + transparency.Folder + ")"}}
		return report, newLeaves(), nil
	} else if err != nil {
		return nil, nil, err
	}
	key, err := o.logKey(dir, report)
	if err != nil {
		return nil, nil, err
	}
	checks, err := o.checkpoints(dir, key, report)
	if err != nil {
		return nil, nil, err
	}
	sizes := make([]int64, 0, len(checks))
	for _, c := range checks {
		sizes = append(sizes, c.Tree.N)
	}
	l, err := readLeaves(dir, sizes...)
	if err != nil {
		return nil, nil, err
	}
	report.Problems = append(report.Problems, l.problems...)
	report.Leaves, report.Root, report.Kinds, report.Last, report.Credentials = l.size, l.roots[l.size].String(), l.kinds, l.last, l.issued
	for _, c := range checks {
		good := true
		switch root, there := l.roots[c.Tree.N]; {
		case !there:
			good = false
			report.add(RolledBack, "%s covers %d leaves, and the log has %d: it was cut or set back", c.what, c.Tree.N, l.size)
		case root != c.Tree.Hash:
			good = false
			report.add(Rewritten, "the log does not begin with the %d leaves of %s: what stood there was changed", c.Tree.N, c.what)
		}
		c.found(report, good, o.quorum())
	}
	if len(o.Witnesses) > 0 && report.Witnessed == 0 && !slices.ContainsFunc(report.Problems, func(p Finding) bool { return p.Kind == NotWitnessed }) {
		report.add(NotWitnessed, "no checkpoint that fits the log has the cosignatures asked for")
	}
	report.Covered = report.Witnessed
	for _, k := range report.Kept {
		if k.Consistent {
			report.Covered = max(report.Covered, k.Size)
		}
	}
	return report, l, nil
}

func (r *Ledger) add(kind, format string, args ...any) {
	r.Problems = append(r.Problems, Finding{Kind: kind, Leaf: none, What: fmt.Sprintf(format, args...)})
}

// checked is a checkpoint to be compared with the log.
type checked struct {
	transparency.Checkpoint
	what string
	kept bool
}

func (c *checked) found(report *Ledger, good bool, quorum int) {
	if c.kept {
		report.Kept = append(report.Kept, Kept{Size: c.Tree.N, Consistent: good})
	}
	if !good || c.kept {
		return
	}
	if c.Tree.N >= report.Signed {
		report.Signed, report.Checkpoint = c.Tree.N, string(c.Note)
	}
	if len(c.Cosigned) >= quorum && quorum > 0 && c.Tree.N >= report.Witnessed {
		report.Witnessed, report.Cosigned = c.Tree.N, c.Cosigned
	}
}

func (o *Options) quorum() int {
	if o.Quorum > 0 {
		return o.Quorum
	}
	return len(o.Witnesses)
}

// logKey is the key that checkpoints are checked with: the one given, else the directory's own, which proves nothing against
// whoever holds the directory.
func (o *Options) logKey(dir string, report *Ledger) (transparency.LogKey, error) {
	key := o.LogKey
	report.Trusted = key.Verifier != nil
	if !report.Trusted {
		text, err := disk.Read(filepath.Join(dir, "keys", "log.pub"), 4096)
		if errors.Is(err, fs.ErrNotExist) {
			return key, nil // which NotProven says
		}
		if err == nil {
			key, err = transparency.ParseLogKey(string(text))
		}
		if err != nil {
			return key, err
		}
	}
	report.Origin, report.Key = key.Name(), strings.TrimSpace(key.Text)
	return key, nil
}

// checkpoints reads the directory's, and those that were kept.
func (o *Options) checkpoints(dir string, key transparency.LogKey, report *Ledger) ([]*checked, error) {
	var all []*checked
	if key.Verifier == nil {
		return nil, nil
	}
	archived, err := archivedCheckpoints(dir)
	if err != nil {
		return nil, err
	}
	for _, path := range archived {
		signed, err := disk.Read(path, transparency.MaxCheckpoint)
		if err != nil {
			return nil, err
		}
		c, err := transparency.ParseCheckpoint(signed, key, o.Witnesses...)
		if err != nil {
			report.add(NotSigned, "%s/%s: %v", transparency.CheckpointsFolder, filepath.Base(path), err)
			continue
		}
		all = append(all, &checked{Checkpoint: c, what: fmt.Sprintf("the archived checkpoint over %d leaves", c.Tree.N)})
	}
	for _, name := range []string{transparency.CheckpointFile, transparency.WitnessedFile} {
		signed, err := disk.Read(filepath.Join(dir, transparency.Folder, name), transparency.MaxCheckpoint)
		if errors.Is(err, fs.ErrNotExist) && len(archived) > 0 {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			if name == transparency.CheckpointFile {
				report.add(NotSigned, "the log has no signed checkpoint")
			} else if len(o.Witnesses) > 0 {
				report.add(NotWitnessed, "the log has no checkpoint that a witness cosigned")
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		c, err := transparency.ParseCheckpoint(signed, key, o.Witnesses...)
		if err != nil {
			report.add(NotSigned, "%s/%s: %v", transparency.Folder, name, err)
			continue
		}
		what := "the newest checkpoint"
		if name == transparency.WitnessedFile {
			what = "the newest cosigned checkpoint"
			if missing := o.quorum() - len(c.Cosigned); len(o.Witnesses) > 0 && missing > 0 {
				report.add(NotWitnessed, "of the cosignatures that %s should have, %d are missing", what, missing)
			}
		}
		all = append(all, &checked{Checkpoint: c, what: what})
	}
	for i, signed := range o.Kept {
		c, err := transparency.ParseCheckpoint(bytes.TrimLeft(signed, "\r\n"), key, o.Witnesses...)
		if err != nil {
			report.add(NotSigned, "the checkpoint that was kept (%d) is not of this log's key, which may have been exchanged: %v", i+1, err)
			continue
		}
		what := "the checkpoint that was kept"
		if len(c.Cosigned) > 0 {
			what += ", cosigned " + c.Cosigned[0].Time.Format(time.RFC3339)
		}
		all = append(all, &checked{Checkpoint: c, what: what, kept: true})
	}
	return all, nil
}

// mostArchived is how many of an archive's checkpoints are compared, the newest: a tree that fits the newest of them and has been
// changed further back does not fit one of those either.
const mostArchived = 10_000

// archivedCheckpoints are the paths of the checkpoints that an archive has, by size.
func archivedCheckpoints(dir string) ([]string, error) {
	folder := filepath.Join(dir, transparency.Folder, transparency.CheckpointsFolder)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if transparency.IsCheckpointName(e.Name()) {
			paths = append(paths, filepath.Join(folder, e.Name()))
		}
	}
	return paths[max(0, len(paths)-mostArchived):], err
}

// compareWithLog compares files with what the log says of them.
func (r *Report) compareWithLog(l, later *leaves, o Options) {
	log := r.Log
	seen := map[string]bool{}
	whole, lived, destroyed, uncovered := 0, 0, 0, map[string]bool{}
	for _, files := range [][]File{r.Recordings, r.Audit.Files} {
		for i := range files {
			f := &files[i]
			session := name(f.Path)
			seen[session] = true
			b := l.sessions[session]
			if b == nil || b.open == none && b.end == none {
				if late := later.sessions[session]; late != nil && late.open != none {
					uncovered[session] = true
				} else {
					r.unbound(f, l, o, uncovered)
				}
				continue
			}
			before := len(log.Problems)
			b.judge(f, l, log)
			switch {
			case b.shred == none || o.destroying(f.Path):
			case o.Archive: // its lock is not over, or nobody has deleted it yet
				destroyed++
			default:
				log.Problems = append(log.Problems, Finding{Kind: Returned, Session: session, Leaf: b.shred, What: fmt.Sprintf(
					"%s: leaf %d says that the recording was destroyed, and it is here: a copy was put back, or the destruction was not finished, which a start of the gateway does", f.Path, b.shred)})
			}
			switch {
			case len(log.Problems) > before:
			case b.end != none && b.end < log.Covered:
				whole++
			default:
				uncovered[session] = true
			}
		}
	}
	for session, b := range l.sessions {
		if seen[session] || b.open == none && b.end == none {
			continue
		}
		if late := later.sessions[session]; late != nil && (late.purge != none || late.shred != none) {
			b = late
		}
		if o.Archive && b.lived(l) {
			lived++
			continue
		}
		b.absent(session, r)
	}
	if lived > 0 {
		log.NotProven = append(log.NotProven, fmt.Sprintf("anything of %d recordings and audit files that had not ended when the newest checkpoint of this archive was made", lived))
	}
	if destroyed > 0 {
		log.NotProven = append(log.NotProven, fmt.Sprintf("that %d recordings are gone for good which were destroyed at the gateway: this archive has them, until their lock is over or somebody deletes them", destroyed))
	}
	slices.SortStableFunc(log.Problems, func(a, b Finding) int { return strings.Compare(a.Session, b.Session) })
	log.Uncovered = nil
	for session := range uncovered {
		log.Uncovered = append(log.Uncovered, session)
	}
	slices.Sort(log.Uncovered)
	r.Covered = whole
	log.say()
}

// unbound judges a recording that no leaf tells of.
func (r *Report) unbound(f *File, l *leaves, o Options, uncovered map[string]bool) {
	session := name(f.Path)
	if f.State == Live || o.Live == nil && f.Started.After(l.last) {
		uncovered[session] = true // begun after the log was read or copied
		return
	}
	r.Log.Problems = append(r.Log.Problems, Finding{Kind: Planted, Session: session, Leaf: none,
		What: fmt.Sprintf("%s: no leaf of the log tells of this recording; it was put there", f.Path)})
}

// backdated is by how much a gateway's clock may go back before it is a matter for people.
const backdated = 5 * time.Minute

// judge compares one recording with what was bound.
func (b *bound) judge(f *File, l *leaves, log *Ledger) {
	session := name(f.Path)
	add := func(kind string, leaf int64, format string, args ...any) {
		log.Problems = append(log.Problems, Finding{Kind: kind, Session: session, Leaf: leaf, What: f.Path + ": " + fmt.Sprintf(format, args...)})
	}
	if b.open != none && f.first != b.first {
		add(Changed, b.open, "the recording's beginning is not the one that leaf %d bound: another recording stands in its place", b.open)
		return
	}
	if b.open != none && f.Started.Before(b.before.Add(-backdated)) {
		add(Backdated, b.open, "it says that it began %s, and its leaf %d stands after one of %s: it was made later, or the gateway's clock was set back",
			f.Started.Format(time.RFC3339), b.open, b.before.Format(time.RFC3339))
	}
	if len(f.differ) > 0 {
		m := f.differ[0]
		add(Changed, m.leaf, "what stands up to block %d is not what leaf %d bound; something before was changed", m.blocks, m.leaf)
		return
	}
	hint := ""
	if f.Level == "written" {
		hint = " (it was kept at level written, which a power cut can shorten too)"
	}
	most := b.ending
	if b.end == none {
		most = mark{leaf: b.open}
		for _, m := range b.marks {
			if m.blocks > most.blocks {
				most = m
			}
		}
	}
	switch {
	case f.State == Live:
	case f.Blocks < most.blocks:
		add(Cut, most.leaf, "it has %d blocks, and leaf %d bound %d: its end is missing%s", f.Blocks, most.leaf, most.blocks, hint)
	case b.end != none && f.Blocks > most.blocks:
		add(Extended, b.end, "it has %d blocks, and leaf %d ended it with %d: something was added", f.Blocks, b.end, most.blocks)
	case b.end == none && l.settled > b.open:
		add(Unended, b.open, "the log has no ending of it, though the gateway was started again since (leaf %d)", l.settled)
	}
}

// lived reports whether a recording had begun and not ended when the log's last leaf was written. One that a later start of the
// gateway left without an ending is none of these.
func (b *bound) lived(l *leaves) bool {
	return b != nil && b.open != none && b.end == none && b.purge == none && b.shred == none && l.settled <= b.open
}

// absent judges a recording that is not there.
func (b *bound) absent(session string, r *Report) {
	add := func(kind string, leaf int64, format string, args ...any) {
		r.Log.Problems = append(r.Log.Problems, Finding{Kind: kind, Session: session, Leaf: leaf, What: fmt.Sprintf(format, args...)})
	}
	switch {
	case b.shred != none && b.heldShredded:
		add(PurgedOnHold, b.shred, "the recording of %s was destroyed while it was on hold", session)
	case b.shred != none:
		i := slices.IndexFunc(r.Shredded, func(s Shredded) bool { return s.Session == session })
		if i < 0 {
			r.Shredded = append(r.Shredded, Shredded{Session: session})
			i = len(r.Shredded) - 1
		}
		r.Shredded[i].Leaf = b.shred
	case b.purge != none && b.heldPurged:
		add(PurgedOnHold, b.purge, "the recording of %s was purged while it was on hold", session)
	case b.purge != none:
		if !slices.ContainsFunc(r.Purged, func(p Purged) bool { return p.Session == session }) {
			r.Purged = append(r.Purged, Purged{Session: session, Leaf: b.purge})
		}
		for i := range r.Purged {
			if r.Purged[i].Session == session {
				r.Purged[i].Leaf = b.purge
			}
		}
	default:
		leaf := max(b.open, b.end)
		add(Gone, leaf, "the recording of %s, begun %s by leaf %d, is gone, and no leaf says that it was purged", session, b.began.UTC().Format(time.RFC3339), leaf)
	}
}

// say puts in words what is not proven.
func (r *Ledger) say() {
	note := func(format string, args ...any) { r.NotProven = append(r.NotProven, fmt.Sprintf(format, args...)) }
	switch {
	case r.Key == "":
		note("that this is the gateway's log, or any that was ever signed: its key was not given, and is not in the directory (--log-key)")
	case !r.Trusted:
		note("that this is the gateway's log: its key was taken from the directory itself, not from somebody you trust (--log-key)")
	}
	switch {
	case r.Covered == 0:
		note("that nobody who holds the gateway's keys changed anything: neither a witness's key nor a checkpoint that you kept was given (--witness-key, --checkpoint)")
	case r.Covered < r.Leaves:
		note("anything in the last %d of %d leaves: no witness has seen them, and they are in no checkpoint that you kept", r.Leaves-r.Covered, r.Leaves)
	}
	if len(r.Cosigned) > 0 {
		note("what came after %s, when the newest checkpoint was cosigned: a log that was set back to that time looks the same; ask the witness for its newest checkpoint, and give it with --checkpoint", r.Cosigned[0].Time.Format(time.RFC3339))
	}
	if n := len(r.Uncovered); n > 0 {
		note("%d recordings whole: their ends, or all of them, are bound by no leaf that is covered (they were live, or the copy of the log is older than theirs)", n)
	}
	note("that nobody reached a target without the gateway: compare with the targets' own logs (--reconcile)")
}

// write prints for people.
func (r *Ledger) write(b *strings.Builder, covered int) {
	if r == nil {
		b.WriteString("log over all recordings: there is none\n")
		return
	}
	for _, p := range r.Problems {
		say(b, "%s: %s\n", p.Kind, p.What)
	}
	say(b, "log over all recordings: %s, %d leaves, %d signed", r.Origin, r.Leaves, r.Signed)
	if r.Witnessed > 0 {
		say(b, ", %d witnessed", r.Witnessed)
		for _, c := range r.Cosigned {
			say(b, " (%s, %s)", c.Witness, c.Time.Format(time.RFC3339))
		}
	}
	b.WriteByte('\n')
	for _, k := range r.Kept {
		outcome := "the log begins with it"
		if !k.Consistent {
			outcome = "the log does not begin with it"
		}
		say(b, "the checkpoint kept over %d leaves: %s\n", k.Size, outcome)
	}
	say(b, "%d files are wholly bound by leaves that nobody can have changed who holds the gateway alone\n", covered)
	for _, n := range r.NotProven {
		say(b, "not proven: %s\n", n)
	}
}
