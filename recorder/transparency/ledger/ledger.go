// Package ledger writes the log over all recordings, whose form is sallyport/recorder/transparency.
//
// Append returns when its leaves are on stable storage; many that come at once share one sync. A leaf is written once, to
// the file of the bundle that is not full, and counts from then on: it is in the tree before Append returns. The checkpoint
// over it is signed within Options.Interval. Between the two the leaf has no signature, from which nobody gains anything:
// who can take a leaf off the gateway's disk holds the key that signs too, and only what a witness has seen binds them.
//
// tessera's POSIX driver was tried first: with 100 leaves a second one took 8 ms and one in a hundred 94 ms on the machine
// this was built on, because it rewrites bundle, tiles and state, each in a file of its own, before a leaf is safe.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/recorder/disk"
	"sallyport/recorder/transparency"
)

// Options configure Open. Dir, Signer and Key are required.
type Options struct {
	// Dir is the state directory; the log is in its folder transparency.Folder.
	Dir string
	// Signer signs checkpoints, Key is its public half; their name is the log's origin.
	Signer note.Signer
	Key    transparency.LogKey
	// Witnesses are asked to cosign.
	Witnesses []Witness
	// Interval is how long after a leaf a checkpoint is signed, and how long after that witnesses are asked, at the most;
	// 0: a second.
	Interval time.Duration
	Log      *slog.Logger
}

// Log is one gateway's log, being written. All methods are safe for concurrent use. One process at a time may have a
// directory open; the store's lock sees to that.
type Log struct {
	o    Options
	dir  string
	turn chan struct{} // whoever has it writes, and owns tail and tailSize
	tail *os.File      // of the bundle that is not full; nil before its first leaf
	at   int64         // the length of tail

	publishing sync.Mutex // of checkpoints: they only grow
	stop       context.CancelFunc
	running    sync.WaitGroup
	due        chan struct{} // a leaf waits to be signed
	signed     chan struct{} // a checkpoint waits for its witnesses

	mu        sync.Mutex
	next      *group
	size      int64
	edge      [][]tlog.Hash // by level, the hashes of the tile that is not full
	head      transparency.Checkpoint
	witnessed transparency.Checkpoint // the newest with a cosignature; none where Note is nil
	unsigned  time.Time               // when the oldest leaf was written that no witness has seen; zero: none
	asked     []WitnessStatus
	dead      error
	failed    chan struct{}
}

// ErrClosed is what Append says after Close.
var ErrClosed = errors.New("the log is closed")

// ErrDamaged is wrapped by Open's error where the log is not what its own checkpoint says.
var ErrDamaged = errors.New("the log over all recordings is damaged")

// Open opens the log, or makes it, and starts signing checkpoints and asking witnesses. It refuses a log that is not, or
// not any more, what its newest checkpoint says.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	l := &Log{
		o: o, dir: filepath.Join(o.Dir, transparency.Folder), turn: make(chan struct{}, 1), next: newGroup(),
		due: make(chan struct{}, 1), signed: make(chan struct{}, 1), failed: make(chan struct{}),
	}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open the log %s: %w", l.dir, err)
	}
	if _, err := l.Publish(); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.running.Go(func() { l.keepPublishing(running) })
	if len(o.Witnesses) > 0 {
		l.running.Go(func() { l.witnessing(running) })
	}
	return l, nil
}

// group is leaves that become safe with one sync.
type group struct {
	entries [][]byte
	done    chan struct{}
	first   int64 // the index of the first entry
	good    int   // how many of the entries are safe
	err     error // why the others are not
}

func newGroup() *group { return &group{done: make(chan struct{})} }

// Append adds leaves, whose Time is now where it is zero, and returns the index of the first once all are on stable
// storage. Where ctx ends first, they may be or may come to be. An error for want of room (syscall.ENOSPC and its like)
// leaves the log as it was; any other ends it for good.
func (l *Log) Append(ctx context.Context, leaves ...transparency.Leaf) (int64, error) {
	var entries [][]byte
	now := time.Now()
	for _, leaf := range leaves {
		if leaf.Time.IsZero() {
			leaf.Time = now
		}
		entry, err := leaf.Encode()
		if err != nil {
			return 0, err
		}
		entries = append(entries, entry)
	}
	l.mu.Lock()
	if l.dead != nil {
		defer l.mu.Unlock()
		return 0, l.dead
	}
	mine, from := l.next, len(l.next.entries)
	mine.entries = append(mine.entries, entries...)
	l.mu.Unlock()
	select {
	case <-mine.done:
	case l.turn <- struct{}{}: // nobody writes: this one does, for all who have queued
		l.mu.Lock()
		ours := l.next
		l.next = newGroup()
		l.mu.Unlock()
		l.write(ours)
		<-l.turn
		<-mine.done // which is ours, or was written just before
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if mine.good < from+len(entries) {
		return 0, mine.err
	}
	return mine.first + int64(from), nil
}

// write makes a group safe. The caller has the turn.
func (l *Log) write(g *group) {
	defer close(g.done)
	l.mu.Lock()
	g.first = l.size
	g.err = l.dead
	l.mu.Unlock()
	for g.err == nil && g.good < len(g.entries) {
		room := transparency.Width - int((g.first+int64(g.good))%transparency.Width)
		part := g.entries[g.good:min(len(g.entries), g.good+room)]
		if g.err = l.store(part); g.err == nil {
			g.good += len(part)
			l.integrate(part)
		}
	}
	if g.good > 0 {
		poke(l.due)
	}
	if g.err != nil && !isFull(g.err) {
		l.fail(g.err)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// store brings entries to the tail and syncs it. They belong to one bundle. The caller has the turn.
func (l *Log) store(entries [][]byte) error {
	if l.tail == nil {
		l.mu.Lock()
		n := l.size / transparency.Width
		l.mu.Unlock()
		path := filepath.Join(l.dir, filepath.FromSlash(transparency.TailPath(n)))
		tail, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("begin a bundle of leaves: %w", err)
		}
		if err := disk.SyncDirectory(filepath.Dir(path)); err != nil {
			tail.Close()
			return fmt.Errorf("begin a bundle of leaves: %w", err)
		}
		l.tail, l.at = tail, 0
	}
	var data []byte
	for _, entry := range entries {
		data = transparency.AppendEntry(data, entry)
	}
	if _, err := l.tail.WriteAt(data, l.at); err != nil {
		if isFull(err) {
			if cut := l.tail.Truncate(l.at); cut != nil { // else a later, shorter leaf would be followed by the rest of this
				return fmt.Errorf("write leaves: what was half written could not be cut: %w", errors.Join(errUnknown, cut))
			}
		}
		return fmt.Errorf("write leaves: %w", err)
	}
	if err := disk.SyncData(l.tail); err != nil {
		return fmt.Errorf("sync leaves: %w", errors.Join(errUnknown, err))
	}
	l.at += int64(len(data))
	return nil
}

// errUnknown marks errors after which nobody knows what is on the disk.
var errUnknown = errors.New("what of the log is on the disk is not known")

func isFull(err error) bool {
	return !errors.Is(err, errUnknown) && disk.IsFull(err)
}

// integrate adds entries to the tree, and puts a bundle that they made full, and tiles, where they stay. The caller has the
// turn.
func (l *Log) integrate(entries [][]byte) {
	l.mu.Lock()
	for _, entry := range entries {
		l.push(0, tlog.RecordHash(entry))
		l.size++
	}
	if l.unsigned.IsZero() {
		l.unsigned = time.Now()
	}
	full := l.size%transparency.Width == 0
	n := l.size/transparency.Width - 1
	l.mu.Unlock()
	if !full {
		return
	}
	if err := l.settle(n); err != nil { // the leaves are safe where they are, and the next start settles them
		l.o.Log.Warn("a full bundle of leaves could not be put in its place", "bundle", n, "error", err)
		if !isFull(err) {
			l.fail(err)
		}
	}
	l.promote()
}

// push adds a hash to the edge of a level. The lock is held.
func (l *Log) push(level int, h tlog.Hash) {
	for len(l.edge) <= level {
		l.edge = append(l.edge, nil)
	}
	l.edge[level] = append(l.edge[level], h)
}

// settle moves a full tail to where bundles are.
func (l *Log) settle(n int64) error {
	from := filepath.Join(l.dir, filepath.FromSlash(transparency.TailPath(n)))
	to := filepath.Join(l.dir, filepath.FromSlash(transparency.BundlePath(n, transparency.Width)))
	if l.tail != nil {
		if err := l.tail.Close(); err != nil {
			return err
		}
		l.tail = nil
	}
	if err := disk.MakeDirectory(l.o.Dir, filepath.Dir(to)); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return disk.SyncDirectory(filepath.Dir(to)) // its old name goes with the next tail's sync, and does no harm before
}

// promote writes tiles that are full and puts their hash on the level above.
func (l *Log) promote() {
	for level := 0; ; level++ {
		l.mu.Lock()
		var full []tlog.Hash
		if level < len(l.edge) && len(l.edge[level]) == transparency.Width {
			full = l.edge[level]
		}
		n := l.size>>(transparency.Height*(level+1)) - 1
		l.mu.Unlock()
		if full == nil {
			return
		}
		path := filepath.Join(l.dir, filepath.FromSlash(transparency.TilePath(level, n, transparency.Width)))
		if err := l.replace(path, encode(full)); err != nil {
			l.o.Log.Warn("a tile could not be written; it can be made again from the leaves", "tile", path, "error", err)
		}
		l.mu.Lock()
		l.edge[level] = nil
		l.push(level+1, transparency.Peaks(full)[0])
		l.mu.Unlock()
	}
}

// root is the tree as it is. The lock is held.
func (l *Log) root() tlog.Tree {
	var peaks []tlog.Hash
	for level := len(l.edge) - 1; level >= 0; level-- {
		peaks = append(peaks, transparency.Peaks(l.edge[level])...)
	}
	return tlog.Tree{N: l.size, Hash: transparency.RootOf(peaks)}
}

// fail ends the log.
func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead == nil {
		l.dead = err
		close(l.failed)
		if !errors.Is(err, ErrClosed) {
			l.o.Log.Error("the log over all recordings can't be written", "error", err)
		}
	}
}

// Failed is closed when the log can't be written any more; Err says why.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err is nil or why nothing can be appended any more.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// Publish signs a checkpoint over all leaves there are, unless the newest covers them, and returns the newest.
func (l *Log) Publish() (transparency.Checkpoint, error) {
	l.publishing.Lock()
	defer l.publishing.Unlock()
	l.mu.Lock()
	tree, head := l.root(), l.head
	l.mu.Unlock()
	if head.Note != nil && head.Tree == tree {
		return head, nil
	}
	head, err := transparency.Sign(l.o.Signer, tree)
	if err != nil {
		return head, err
	}
	if err := l.replace(filepath.Join(l.dir, transparency.CheckpointFile), head.Note); err != nil {
		return head, fmt.Errorf("write the checkpoint: %w", err)
	}
	l.mu.Lock()
	l.head = head
	l.mu.Unlock()
	poke(l.signed)
	return head, nil
}

// keepPublishing signs checkpoints after leaves, not more often than once an interval.
func (l *Log) keepPublishing(ctx context.Context) {
	for {
		select {
		case <-l.due:
		case <-ctx.Done():
			return
		}
		if !pause(ctx, l.o.Interval) {
			return
		}
		if _, err := l.Publish(); err != nil {
			l.o.Log.Error("no checkpoint of the log could be signed; it is tried again", "error", err)
			poke(l.due)
		}
	}
}

// pause waits; it reports false if the context ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Close signs a last checkpoint, asks the witnesses once more, and closes the log. Appending has to be over.
func (l *Log) Close(ctx context.Context) error {
	l.stop()
	l.running.Wait()
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	_, err := l.Publish()
	if len(l.o.Witnesses) > 0 && l.Unwitnessed() > 0 {
		l.ask(ctx)
	}
	l.fail(ErrClosed)
	if l.tail != nil {
		err = errors.Join(err, l.tail.Close())
		l.tail = nil
	}
	return err
}

// replace puts a file in the place of another, in a directory that may be missing.
func (l *Log) replace(path string, content []byte) error {
	if err := disk.MakeDirectory(l.o.Dir, filepath.Dir(path)); err != nil {
		return err
	}
	return disk.Replace(path, content)
}
