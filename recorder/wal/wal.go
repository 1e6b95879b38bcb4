// Package wal is the write-ahead log that all recordings of a gateway share: one sync makes safe what many sessions wait
// for.
//
// Whoever appends has written the same bytes to a file of their own before, without a sync. Append returns when the bytes
// are on stable storage in the log. One committer takes everything that is queued, writes it in one piece, syncs once and
// wakes all who waited; there is no timer, the sync under way is what forms the next group. Behind it a checkpointer syncs
// the files themselves, after which the log's space is used again. The log's files are filled with zeros before they are
// used, so that a sync has no more to do than to bring the bytes to the disk, and a full disk stops nobody who appends.
//
// After a crash Replay gives back every group that was synced, and perhaps the one that was being written, in order; to
// write them to their files again is harmless.
//
// A write or a sync that fails, of the log or of a file behind it, ends the log for good: everything appended then or later
// fails, nothing is tried again, and no space is used again, so that the next Replay has all there is. What the bytes mean
// is no concern of the log's.
package wal

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
)

// The places at which Options.At is called.
const (
	BeforeWrite      = "wal-before-write"
	HalfWritten      = "wal-half-written" // with a function that writes half of the group
	AfterWrite       = "wal-after-write"
	AfterSync        = "wal-after-sync"
	BeforeCheckpoint = "checkpoint-before-sync" // none of the files of a full segment is synced
	AfterCheckpoint  = "checkpoint-after-sync"  // all are, and the segment is not used again yet
)

const (
	// FullSegment is the size that segments grow to. A log begins with a small one and makes each next four times as large.
	FullSegment  = 64 << 20
	firstSegment = 1 << 20
	growth       = 4
	// askAt is the part of a segment after which the next one is asked for: early, so that it is there, and filled, before
	// this one is full, though many sessions begin to write at once.
	askAt = 8
	// groupLimit is how many bytes go into one write; who has more waits for the next.
	groupLimit = 512 << 10
)

// ErrClosed is what an Append says after Close.
var ErrClosed = errors.New("the write-ahead log is closed")

// Failure is why a log has ended. What of the last group is on the disk is not known.
type Failure struct{ Err error }

func (f *Failure) Error() string { return "the write-ahead log has failed: " + f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Unknown marks it for disk.IsUnknown.
func (f *Failure) Unknown() {}

// Options configure New.
type Options struct {
	// Dir has the log's files and nothing else. It exists.
	Dir string
	// Disk is where the log's files are; without one the operating system's.
	Disk Disk
	// Segment is the size that segments grow to, FullSegment if 0; a multiple of 4096, at least 16 KiB.
	Segment int64
	// Log is told what cannot be returned to anybody.
	Log *slog.Logger
	// Failed is called once, from a goroutine of its own, when the log has failed.
	Failed func(error)
	// At is called at named places, for tests of crashes: at those of a group if one of its records is Traced, with
	// what is to be done first if this is where the process dies.
	At func(place string, first func())
}

// Record is a piece of some file.
type Record struct {
	Name   string // of the file, 1 to 255 bytes; unique as long as the log lives
	File   Syncer // the file, which has Data at Offset already
	Offset int64
	Data   []byte
	Traced bool
}

// Syncer is a file behind the log. It is comparable, and the same for all records of a file.
type Syncer interface {
	// Sync makes everything that was written to the file before safe.
	Sync() error
}

// Log is a write-ahead log. Its methods are safe for concurrent use.
type Log struct {
	o     Options
	limit int // bytes of a group

	start   sync.Mutex // held by Start
	started bool

	mu      sync.Mutex
	work    sync.Cond // for the committer: something is queued, or there will be nothing more
	room    sync.Cond // the queue was taken
	freed   sync.Cond // a segment can be used, or the log has failed
	behind  sync.Cond // for the checkpointer: a segment is full, or a new one is wanted
	synced  sync.Cond // the checkpointer is done with a file
	settled sync.Cond // for Scrub: a group is written, or a full segment can be used again
	queue   *group
	spare   []byte // a buffer for the group after the next
	current *segment
	sealed  []*segment // full, oldest first, with files behind them that may not be synced
	free    []*segment
	wanted  int64           // size of a segment to be made
	made    int             // files made so far, for their names
	syncing map[Syncer]bool // just now
	err     error
	closed  bool
	drained bool // closed, and the committer has ended

	committing bool // a group is on its way to the current segment
	scrubbing  bool // by Scrub: only segments of zeros are gone on with

	generation uint64        // of the current segment
	number     uint64        // of the last group that was written
	committed  chan struct{} // closed when the committer has ended
	cleaned    chan struct{} // closed when the checkpointer has ended
}

// group is what one write makes safe.
type group struct {
	buf    []byte
	files  []Syncer
	traced bool
	done   chan struct{} // closed when the group is safe, or err says why not
	err    error
}

// New returns a log whose directory is empty, or has nothing in it that is still needed. It touches no file before Start.
func New(o Options) *Log {
	if o.Segment == 0 {
		o.Segment = FullSegment
	}
	if o.Disk == nil {
		o.Disk = System{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.At == nil {
		o.At = func(string, func()) {}
	}
	l := &Log{
		o: o, limit: int(min(groupLimit, min(firstSegment, o.Segment)-page)),
		syncing: map[Syncer]bool{}, committed: make(chan struct{}), cleaned: make(chan struct{}),
	}
	for _, c := range []*sync.Cond{&l.work, &l.room, &l.freed, &l.behind, &l.synced, &l.settled} {
		c.L = &l.mu
	}
	l.queue = l.newGroup()
	return l
}

// Start makes the first segment, unless that is done. It fails without harm: it can be called again.
func (l *Log) Start() error {
	l.start.Lock()
	defer l.start.Unlock()
	if l.started {
		return l.Err()
	}
	first, err := l.create(min(firstSegment, l.o.Segment))
	if err != nil {
		return fmt.Errorf("make the write-ahead log: %w", err)
	}
	l.mu.Lock()
	l.free = []*segment{first}
	l.mu.Unlock()
	l.started = true
	go l.commitAll()
	go l.checkpointAll()
	return nil
}

// create makes a segment's file.
func (l *Log) create(size int64) (*segment, error) {
	l.mu.Lock()
	l.made++
	path := filepath.Join(l.o.Dir, fmt.Sprintf("%06d%s", l.made, extension))
	l.mu.Unlock()
	file, err := l.o.Disk.Create(path, size)
	if err != nil {
		return nil, err
	}
	return &segment{file: file, path: path, size: size}, nil
}

// Err is nil, or the *Failure that has ended the log.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Append returns when the record is on stable storage, or with the reason why that is not known. The log was started.
func (l *Log) Append(r Record) error {
	if len(r.Name) < 1 || len(r.Name) > 255 {
		return fmt.Errorf("%.80q is no name for the write-ahead log", r.Name)
	}
	last, err := l.enqueue(r)
	if err != nil {
		return err
	}
	<-last.done
	return last.err
}

// enqueue puts a record into the group that is written next, in pieces into several if it is large, and returns the last.
func (l *Log) enqueue(r Record) (*group, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	top := recordTop + len(r.Name)
	for {
		piece := r.Data[:min(len(r.Data), (l.limit-groupTop)/4-top)] // small enough not to wait for an empty queue
		for l.err == nil && !l.closed && len(l.queue.buf)+top+len(piece) > l.limit {
			l.room.Wait()
		}
		if l.err != nil {
			return nil, l.err
		}
		if l.closed {
			return nil, ErrClosed
		}
		g := l.queue
		g.buf = appendRecord(g.buf, r.Name, r.Offset, piece)
		g.traced = g.traced || r.Traced
		r.Data, r.Offset = r.Data[len(piece):], r.Offset+int64(len(piece))
		if n := len(g.files); n == 0 || g.files[n-1] != r.File {
			g.files = append(g.files, r.File)
		}
		l.work.Signal()
		if len(r.Data) == 0 {
			return g, nil
		}
	}
}

func (l *Log) newGroup() *group {
	buf := l.spare
	l.spare = nil
	if buf == nil {
		buf = make([]byte, 0, 64<<10)
	}
	return &group{buf: buf[:groupTop], done: make(chan struct{})}
}

// commitAll is the committer.
func (l *Log) commitAll() {
	defer close(l.committed)
	for {
		g := l.take()
		if g == nil {
			return
		}
		if g.err = l.commit(g); g.err != nil {
			g.err = l.fail(g.err)
		}
		close(g.done)
		l.mu.Lock()
		l.spare = g.buf[:0]
		l.mu.Unlock()
	}
}

// take waits for something to be queued and takes all of it; nil once the log is closed.
func (l *Log) take() *group {
	runtime.Gosched() // lets those whom the last sync has woken come along
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue.buf) == groupTop {
		if l.closed {
			return nil
		}
		l.work.Wait()
	}
	g := l.queue
	l.queue = l.newGroup()
	l.room.Broadcast()
	return g
}

// commit makes a group safe.
func (l *Log) commit(g *group) error {
	size := int64(len(g.buf)+page-1) / page * page
	s, err := l.segmentFor(size)
	if err != nil {
		return err
	}
	at := func(place string, first func()) {
		if g.traced {
			l.o.At(place, first)
		}
	}
	l.number++
	g.buf = s.seal(g.buf, l.number)
	at(BeforeWrite, nil)
	at(HalfWritten, func() { _, _ = s.file.WriteAt(g.buf[:len(g.buf)/2], s.used) })
	if _, err := s.file.WriteAt(g.buf, s.used); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	at(AfterWrite, nil)
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	at(AfterSync, nil)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.committing = false
	l.settled.Broadcast()
	s.used += size
	for _, f := range g.files {
		s.files[f] = struct{}{}
	}
	if s.used > s.size/askAt && !s.asked {
		s.asked = true
		l.want(min(growth*s.size, l.o.Segment))
	}
	return l.err
}

// segmentFor returns the segment that has room for size bytes: the current one, or the next, for which it may have to
// wait until the checkpointer has caught up.
func (l *Log) segmentFor(size int64) (*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	if l.current != nil && l.current.used+size <= l.current.size {
		l.committing = true
		return l.current, nil
	}
	if l.current != nil {
		l.sealed = append(l.sealed, l.current)
		l.current = nil
		l.behind.Signal()
	}
	at := l.usable()
	for ; at < 0 && l.err == nil; at = l.usable() {
		l.freed.Wait()
	}
	if l.err != nil {
		return nil, l.err
	}
	s := l.free[at]
	l.free = slices.Delete(l.free, at, at+1)
	l.generation++
	oldest := l.generation
	if len(l.sealed) > 0 {
		oldest = l.sealed[0].generation
	}
	if err := s.begin(l.generation, oldest, l.number+1); err != nil {
		return nil, err
	}
	l.current, l.committing = s, true
	return s, nil
}

// usable is the place among the free segments of the one to go on with, the largest; -1: there is none. While the log is scrubbed, one
// that still has what is to be forgotten is none. The lock is held.
func (l *Log) usable() int {
	for at, s := range slices.Backward(l.free) {
		if !l.scrubbing || s.zero {
			return at
		}
	}
	return -1
}

// fail ends the log and returns why it has ended.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.err = &Failure{err}
	for _, c := range []*sync.Cond{&l.work, &l.room, &l.freed, &l.behind, &l.synced, &l.settled} {
		c.Broadcast()
	}
	if l.o.Failed != nil {
		go l.o.Failed(l.err)
	}
	return l.err
}

// Close waits until everything appended is safe. If all files are finished and nothing failed, it removes the log;
// else Replay has what there is.
func (l *Log) Close() error {
	l.start.Lock()
	defer l.start.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.work.Broadcast()
	l.room.Broadcast()
	l.mu.Unlock()
	if !l.started {
		return nil
	}
	<-l.committed
	l.mu.Lock()
	l.drained = true
	l.behind.Broadcast()
	l.mu.Unlock()
	<-l.cleaned
	l.mu.Lock()
	defer l.mu.Unlock()
	all := append(append([]*segment{}, l.free...), l.sealed...)
	if l.current != nil {
		all = append(all, l.current)
	}
	clean := l.err == nil
	var errs []error
	for _, s := range all {
		clean = clean && len(s.files) == 0
		errs = append(errs, s.file.Close())
	}
	for _, s := range all {
		if clean {
			errs = append(errs, l.o.Disk.Remove(s.path))
		}
	}
	return errors.Join(errs...)
}
