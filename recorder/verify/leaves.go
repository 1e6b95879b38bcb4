package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// none is the index of no leaf.
const none = int64(-1)

// bound is what the log says of one recording.
type bound struct {
	open, end, purge, shred int64 // indexes of leaves, or none
	began                   time.Time
	before                  time.Time          // the latest of the leaves before the open leaf
	first                   transparency.Chain // c_0, of the open leaf
	marks                   []mark             // as they stand in the log: a recording only grows
	ending                  mark               // of the end, or of a purge without one
	kind                    transparency.Kind  // of the end
	last                    int64              // the index of the last leaf that binds something
	held                    bool
	heldPurged              bool
	heldShredded            bool
}

// mark is a chain value after a block.
type mark struct {
	blocks, events uint64
	chain          transparency.Chain
	leaf           int64
}

// leaves is the log as read: what is in it, and its roots at the sizes that were asked about.
type leaves struct {
	size     int64
	roots    map[int64]tlog.Hash
	sessions map[string]*bound
	kinds    map[transparency.Kind]int64
	last     time.Time // of the newest leaf
	starts   []int64   // indexes of start leaves
	settled  int64     // the index of the last start that found everything ended
	issued   int64     // credentials
	torn     bool      // the last leaf is cut short: it was being written, or the gateway died
	problems []Finding
}

func (l *leaves) problem(kind, session string, leaf int64, format string, args ...any) {
	l.problems = append(l.problems, Finding{Kind: kind, Session: session, Leaf: leaf, What: fmt.Sprintf(format, args...)})
}

func (l *leaves) of(session string) *bound {
	b := l.sessions[session]
	if b == nil {
		b = &bound{open: none, end: none, purge: none, shred: none, last: none}
		l.sessions[session] = b
	}
	return b
}

func newLeaves() *leaves {
	return &leaves{roots: map[int64]tlog.Hash{}, sessions: map[string]*bound{}, kinds: map[transparency.Kind]int64{}, settled: none}
}

// readLeaves reads all leaves below dir, and makes the tree anew from them. sizes are those whose roots are of interest.
func readLeaves(dir string, sizes ...int64) (*leaves, error) {
	l := newLeaves()
	slices.Sort(sizes)
	var tree transparency.Tree
	note := func() {
		for len(sizes) > 0 && sizes[0] <= tree.Size() {
			if sizes[0] == tree.Size() {
				l.roots[sizes[0]] = tree.Root()
			}
			sizes = sizes[1:]
		}
	}
	note()
	for n := int64(0); ; n++ {
		entries, torn, err := readBundle(dir, n)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			leaf, err := transparency.Decode(entry)
			if err != nil {
				l.problem(LeafDamaged, "", tree.Size(), "leaf %d can't be read: %v", tree.Size(), err)
			} else {
				l.take(tree.Size(), leaf)
			}
			tree.Add(tlog.RecordHash(entry))
			note()
		}
		if len(entries) < transparency.Width {
			if torn {
				l.torn = true
			}
			break
		}
	}
	l.size = tree.Size()
	l.roots[l.size] = tree.Root()
	return l, nil
}

// readBundle reads a bundle: full, partial (the widest there is), or from the tail.
func readBundle(dir string, n int64) (entries [][]byte, torn bool, err error) {
	log := filepath.Join(dir, transparency.Folder)
	full := filepath.Join(log, filepath.FromSlash(transparency.BundlePath(n, transparency.Width)))
	paths := []string{full, filepath.Join(log, filepath.FromSlash(transparency.TailPath(n)))}
	if partial, err := os.ReadDir(full + ".p"); err == nil {
		widest := 0
		for _, p := range partial {
			if width, err := strconv.Atoi(p.Name()); err == nil {
				widest = max(widest, width)
			}
		}
		paths = append(paths, filepath.Join(full+".p", strconv.Itoa(widest)))
	}
	for _, path := range append(paths, full) { // that of a gateway which goes on may have become full, and moved, meanwhile
		content, err := disk.Read(path, 2*transparency.Width*(transparency.MaxLeaf+2))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		entries, _, whole := transparency.Entries(content)
		return entries, !whole, nil
	}
	return nil, false, fs.ErrNotExist
}

// take notes what a leaf says.
func (l *leaves) take(index int64, leaf transparency.Leaf) {
	l.kinds[leaf.Kind]++
	before := l.last
	if leaf.Time.After(l.last) {
		l.last = leaf.Time
	}
	at := mark{leaf.Blocks, leaf.Events, leaf.Chain, index}
	switch leaf.Kind {
	case transparency.Open:
		b := l.of(leaf.Session)
		if b.open != none || b.end != none {
			l.problem(Twice, leaf.Session, index, "the session was begun twice, by leaves %d and %d", b.open, index)
			return
		}
		b.open, b.began, b.before, b.first, b.last = index, leaf.Time, before, leaf.Chain, index
	case transparency.Progress:
		for _, live := range leaf.Live {
			b := l.of(live.Session)
			b.marks = append(b.marks, mark{live.Blocks, live.Events, live.Chain, index})
			b.last = index
		}
	case transparency.Close, transparency.Crashed, transparency.Adopted:
		b := l.of(leaf.Session)
		if b.end != none {
			if b.ending.chain != leaf.Chain || b.ending.blocks != leaf.Blocks {
				l.problem(Twice, leaf.Session, index, "the session was ended twice, and differently, by leaves %d and %d", b.end, index)
			}
			return
		}
		b.end, b.ending, b.kind, b.last = index, at, leaf.Kind, index
		if leaf.Kind == transparency.Adopted {
			b.began = leaf.Time
		}
	case transparency.Hold:
		l.of(leaf.Session).held = true
	case transparency.Release:
		l.of(leaf.Session).held = false
	case transparency.Purge:
		b := l.of(leaf.Session)
		b.purge, b.heldPurged = index, b.held
		if b.end != none && (b.ending.chain != leaf.Chain || b.ending.blocks != leaf.Blocks) {
			l.problem(Changed, leaf.Session, index, "what was purged is not what had been recorded: leaf %d binds another end than leaf %d", index, b.end)
		}
		if b.end == none {
			b.ending = at
		}
	case transparency.Shred:
		b := l.of(leaf.Session)
		b.shred, b.heldShredded = index, b.held
		if leaf.Blocks > 0 && b.end != none && (b.ending.chain != leaf.Chain || b.ending.blocks != leaf.Blocks) {
			l.problem(Changed, leaf.Session, index, "what was destroyed is not what had been recorded: leaf %d binds another end than leaf %d", index, b.end)
		}
	case transparency.Issue:
		l.issued++
	case transparency.Start:
		l.starts = append(l.starts, index)
		if leaf.Settled {
			l.settled = index
		}
	}
}
