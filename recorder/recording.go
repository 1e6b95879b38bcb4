package recorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/configs"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
	"sallyport/recorder/wal"
)

const (
	// noteDelay is how long notes wait for company; with a write and a sync they are safe within 50 ms on a sound disk.
	noteDelay = 30 * time.Millisecond
	// queueLimit is how many bytes wait for the disk before callers do.
	queueLimit = 4 << 20
	// flushAt is how many bytes of notes are written without waiting for more.
	flushAt = 64 << 10
	// keepBuffer is the largest buffer that an idle recording holds on to.
	keepBuffer = 256 << 10
)

// Recording is one session's, being written. Its methods are safe for concurrent use; the order of the calls that have
// returned is the order of the events.
//
// Whoever waits for the disk first does the writing for all who queue meanwhile (group commit without a goroutine of its
// own): it takes everything queued, writes it in one piece, waits for the write-ahead log at level synced, and wakes the
// rest, of whom one goes on with what has been queued since.
type Recording struct {
	recorder *Recorder
	header   format.Header
	key      *format.Key // of a locked recording; nil: it is in the clear
	strict   *format.Key // of what is for stricter recipients
	sealer   Sealer      // which tells that apart; nil: nothing is
	level    configs.Durability
	started  time.Time // has the clock that does not jump
	file     File
	faults   *faults
	failed   chan struct{}
	safe     atomic.Int64 // bytes of the file that are safe at the level; readers of a live recording see no more
	grown    signal       // safe has grown, or the recording ended

	mu      sync.Mutex
	next    *format.Builder // what is queued
	good    format.State    // of what was written and is safe
	spare   []byte
	latest  time.Duration // At of the last event
	records bool          // a Record waits in next, not only notes
	busy    bool          // somebody writes, without holding mu
	changed chan struct{} // closed when a commit is over; made by those who wait
	timer   *time.Timer   // writes notes
	armed   bool
	err     error
	stopped error // nothing more is taken; what was is still written
	ended   bool  // by End or close: nothing is written any more

	sealed   bool // has its ending
	finished bool // synced whole, so that the log needs the file no more

	bound uint64 // blocks that the log over all recordings has; keepBinding's own
}

// ErrEnded is what a recording says once it was ended.
var ErrEnded = errors.New("the recording has ended")

// create makes the file of a recording, durably, with its header in it, and locked if there is a key, which is wiped when
// the recording has ended.
func (r *Recorder) create(path string, header format.Header, keys keyPair, level configs.Durability, started time.Time) (_ *Recording, err error) {
	defer func() {
		if err != nil {
			keys.wipe()
		}
	}()
	first, builder, err := format.CreateLockedTwice(header, keys.key, keys.strict)
	if err != nil {
		return nil, err
	}
	if level == configs.Synced {
		if err := r.wal.Start(); err != nil {
			return nil, err
		}
	}
	rec := &Recording{
		recorder: r, header: header, key: keys.key, strict: keys.strict, sealer: r.sealerFor(header, keys), level: level, started: started,
		failed: make(chan struct{}), next: builder, good: builder.State(),
	}
	rec.safe.Store(rec.good.Offset)
	if header.Protocol != protocolAudit {
		rec.faults = r.faults
	}
	rec.mu.Lock() // Close waits until the file is there
	defer rec.mu.Unlock()
	if err := r.claim(rec, path); err != nil { // before the file is seen: nobody must find it without knowing that it is live
		return nil, err
	}
	if rec.file, err = r.hardware.Create(r.Dir, path, first); err != nil {
		r.mu.Lock()
		delete(r.paths, header.Session)
		delete(r.live, header.Session)
		r.mu.Unlock()
		rec.ended = true
		return nil, err
	}
	if err := r.bindOpening(rec, path); err != nil {
		rec.ended = true
		rec.file.Close()
		r.ended(rec)
		r.mu.Lock()
		delete(r.paths, header.Session)
		r.mu.Unlock()
		return nil, err
	}
	if keys.key != nil {
		r.noteLocked(header)
	}
	rec.timer = time.AfterFunc(time.Hour, rec.flush)
	rec.timer.Stop()
	return rec, nil
}

// Header returns the recording's header as written.
func (r *Recording) Header() format.Header { return r.header }

// Failed is closed when the recording can't be written any more; Err says why.
func (r *Recording) Failed() <-chan struct{} { return r.failed }

// Err is nil or what went wrong.
func (r *Recording) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cmp.Or(r.err, r.stopped)
}

// stop has nothing more recorded, for the reason given, as if the disk were full; what was taken until now is still
// written. Whoever serves the session ends it then.
func (r *Recording) stop(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || r.stopped != nil || r.ended {
		return
	}
	r.stopped = why
	close(r.failed)
}

// Record writes events and returns when they are safe at the recording's level. If ctx ends first, they may be safe or
// not. After any other error the recording is dead.
func (r *Recording) Record(ctx context.Context, events ...Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.room(ctx); err != nil {
		return err
	}
	if err := r.add(events); err != nil {
		return err
	}
	r.records = true
	r.next.Finish()
	want := r.next.State().Sequence
	for r.err == nil && r.good.Sequence < want {
		if err := r.advance(ctx); err != nil {
			return err
		}
	}
	return r.err
}

// Note queues events to be written within 50 ms. It waits only for room in the queue; it never drops.
func (r *Recording) Note(events ...Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.room(context.Background()); err != nil {
		return err
	}
	if err := r.add(events); err != nil {
		return err
	}
	switch {
	case r.next.Len() >= flushAt:
		r.timer.Reset(0)
		r.armed = true
	case !r.armed:
		r.timer.Reset(noteDelay)
		r.armed = true
	}
	return nil
}

// flush writes the notes that are queued.
func (r *Recording) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.armed = false
	for !r.ended && r.err == nil && r.next.Len() > 0 {
		_ = r.advance(context.Background()) // which never ends
	}
}

// room waits until there is room in the queue. The lock is held.
func (r *Recording) room(ctx context.Context) error {
	for r.err == nil && !r.ended && r.next.Len() >= queueLimit {
		if err := r.advance(ctx); err != nil {
			return err
		}
	}
	if r.err == nil && r.ended {
		return ErrEnded
	}
	return cmp.Or(r.err, r.stopped)
}

// add queues events. The lock is held.
func (r *Recording) add(events []Event) error {
	now := time.Since(r.started)
	r.latest = max(r.latest, now)
	for _, e := range events {
		e.At = r.latest
		var err error
		if r.sealer == nil {
			err = r.next.Add(e)
		} else {
			r.sealer.Seal(e, func(e Event) {
				if err == nil {
					err = r.next.Add(e)
				}
			})
		}
		if err != nil {
			r.fail(err)
			return err
		}
	}
	return nil
}

// wait waits for the end of the commit that is under way. The lock is held before and after.
func (r *Recording) wait(ctx context.Context) error {
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	changed := r.changed
	r.mu.Unlock()
	defer r.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// advance brings what is queued nearer to being safe, or waits for whoever does. At level written the lock is kept while
// writing to the kernel, which is quicker than handing over; during a sync others can queue. The lock is held before
// and after.
func (r *Recording) advance(ctx context.Context) error {
	switch {
	case r.busy:
		return r.wait(ctx)
	case r.level == configs.Written:
		r.write()
	default:
		r.commit()
	}
	return nil
}

// idle waits until nobody writes. The lock is held before and after.
func (r *Recording) idle() {
	for r.busy {
		_ = r.wait(context.Background()) // which never ends
	}
}

// commit makes everything queued safe and lets go of the lock meanwhile.
func (r *Recording) commit() {
	bytes, state, records := r.take()
	r.busy = true
	r.mu.Unlock()
	err := r.keep(bytes, records)
	r.mu.Lock()
	r.busy = false
	r.spare = trim(bytes)
	r.settle(state, err)
	r.wake()
}

// write makes everything queued safe without letting go of the lock. Nobody is busy.
func (r *Recording) write() {
	bytes, state, records := r.take()
	err := r.keep(bytes, records)
	r.spare = trim(bytes)
	r.settle(state, err)
}

// take takes everything queued.
func (r *Recording) take() (bytes []byte, state format.State, records bool) {
	r.next.Finish()
	records = r.records
	bytes, state = r.next.Take(r.spare), r.next.State()
	r.spare, r.records = nil, false
	return bytes, state, records
}

func (r *Recording) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// settle notes how a write went.
func (r *Recording) settle(state format.State, err error) {
	if err != nil {
		r.fail(err)
		return
	}
	r.good = state
	r.safe.Store(state.Offset)
	r.grown.wake()
}

// keep is store for everything but endings, for which the last room is kept.
func (r *Recording) keep(bytes []byte, records bool) error {
	if r.recorder.ballast.Used() {
		return fmt.Errorf("write the recording: only endings are written until there is room again: %w", syscall.ENOSPC)
	}
	return r.store(bytes, records)
}

// store brings whole blocks to the file and makes them safe at the level. Nobody else does so meanwhile.
func (r *Recording) store(bytes []byte, records bool) error {
	faults := r.faults
	if !records {
		faults = nil
	}
	faults.at(beforeWrite)
	at := r.safe.Load()
	if faults.due(halfWritten) {
		_, _ = r.file.WriteAt(bytes[:len(bytes)/2], at)
		die()
	}
	// First to the file, then to the log: so the log has nothing that the file had no room for.
	if _, err := r.file.WriteAt(bytes, at); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	faults.at(afterWrite)
	if r.level == configs.Synced {
		record := wal.Record{Name: r.header.Session, File: r.file, Offset: at, Data: bytes, Traced: faults != nil}
		if err := r.recorder.wal.Append(record); err != nil {
			return err
		}
		faults.at(afterSync)
	}
	return nil
}

// storeEnding brings the ending to the file and syncs the file at level synced, with everything before, so that nothing
// of it is needed in the log any more.
func (r *Recording) storeEnding(bytes []byte) error {
	if _, err := r.file.WriteAt(bytes, r.safe.Load()); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	if r.level == configs.Synced {
		return r.sync()
	}
	return nil
}

// sync syncs the file, which the log needs no more then.
func (r *Recording) sync() error {
	err := r.recorder.wal.Finish(r.file)
	r.finished = err == nil
	return err
}

// fail ends the recording for good. The lock is held.
func (r *Recording) fail(err error) {
	if r.err != nil {
		return
	}
	r.err = err
	if r.stopped == nil {
		close(r.failed)
	}
	r.recorder.Log.Error("a recording failed", "session", r.header.Session, "error", err)
	if disk.IsBroken(err) {
		r.recorder.distrust(err)
	}
}

// End writes the ending and seals the file. There is always room for it: where the disk is full, what could not be
// written is given up and the ballast makes room. It fails after a failed sync, and where the disk does. Only the first
// call counts.
func (r *Recording) End(end format.End) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle()
	if r.ended {
		return nil
	}
	if end.Ended.IsZero() {
		end.Ended = time.Now().UTC()
	}
	err := r.seal(end)
	if err != nil && r.err == nil {
		r.fail(err)
	}
	if err == nil {
		r.recorder.owe(transparency.Leaf{Kind: transparency.Close, Recording: transparency.Of(r.header.Session, r.good), Reason: end.Reason})
	}
	r.finish()
	return err
}

// seal writes the ending. The lock is held.
func (r *Recording) seal(end format.End) error {
	at := max(r.latest, time.Since(r.started))
	if r.err == nil && r.next.Len() > 0 {
		r.write()
	}
	if disk.IsUnknown(r.err) {
		return fmt.Errorf("the recording cannot be ended: %w", r.err)
	}
	if r.err != nil {
		end.Detail = fmt.Sprintf("%s (what was being recorded last is lost: %v)", end.Detail, r.err)
		if err := r.file.Truncate(r.good.Offset); err != nil {
			return fmt.Errorf("cut what was half written: %w", err)
		}
	}
	r.next.Rewind(r.good)
	if err := r.next.Seal(end, at); err != nil {
		return err
	}
	for {
		err := r.storeEnding(r.next.Bytes())
		if err == nil {
			r.settle(r.next.State(), nil)
			r.sealed = true
			return nil
		}
		if !disk.IsFull(err) || !r.recorder.ballast.Release() {
			return err
		}
	}
}

// close writes what is queued and closes the file, unended.
func (r *Recording) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle()
	if r.ended {
		return nil
	}
	if r.err == nil && r.next.Len() > 0 {
		r.write()
	}
	err := r.err
	r.finish()
	return err
}

// finish closes the file. The lock is held, nobody is busy.
func (r *Recording) finish() {
	r.ended = true
	r.wipeKey()
	r.timer.Stop()
	r.spare = nil
	r.next.Take(nil)
	if r.level == configs.Synced && !r.finished && !disk.IsUnknown(r.err) {
		if err := r.sync(); err != nil {
			r.recorder.Log.Error("sync a recording", "session", r.header.Session, "error", err)
		}
	}
	if err := r.file.Close(); err != nil {
		r.recorder.Log.Error("close a recording", "session", r.header.Session, "error", err)
	}
	r.recorder.ended(r)
	if r.sealed && r.header.Lock == nil && r.safe.Load() >= packLeast {
		r.recorder.packer.add(r.header.Session)
	}
	r.grown.wake()
	r.wake()
}

// trim lets go of a buffer that grew large.
func trim(b []byte) []byte {
	if cap(b) > keepBuffer {
		return nil
	}
	return b[:0]
}
