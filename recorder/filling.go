package recorder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/index"
)

const (
	// batchEntries and batchBytes are what one transaction brings into the index at most, about.
	batchEntries = 500
	batchBytes   = 1 << 20
	// restShare is how many times as long as it worked the index rests, unless somebody waits for it: sessions that are
	// busy make work for it faster than it can be done beside them, and they go first.
	restShare = 6
	restMost  = time.Second
)

// filling is one open index that recordings are brought into: those that have ended one after another, the oldest first,
// live ones as they go.
type filling struct {
	recorder *Recorder
	index    *index.Index
	ctx      context.Context // ends when the index is to be closed, for the reason that is its cause
	fail     context.CancelCauseFunc
	work     sync.WaitGroup // goroutines that write
	waited   atomic.Int32   // how many wait for the index to be up to date
	finding  sync.Mutex     // of discover

	mu      sync.Mutex
	changed chan struct{}       // closed and replaced when anything below changes
	tick    uint64              // grows when live recordings are to be looked at
	whole   map[string]struct{} // wholly in the index
	open    map[string]*source  // all others
	backlog []*source           // of those, what has ended, in the order in which to read it
	looked  bool                // discover knows all recordings that there were
	claims  uint64              // when it looked last
	closed  bool                // no work is begun any more
	broken  map[string]struct{} // have no header that can be read: no search finds them, verify does; or are locked
}

// source is one recording that is not wholly in the index.
type source struct {
	header  format.Header
	live    bool          // readLive reads it
	follows *live         // once it has begun to; readLive's own
	seen    uint64        // the tick up to which what was safe is in
	pending []index.Entry // lines that were under way then
	again   time.Time     // after a failure: when to try next
}

func newFilling(ctx context.Context, r *Recorder, x *index.Index) *filling {
	f := &filling{
		recorder: r, index: x, changed: make(chan struct{}),
		whole: map[string]struct{}{}, open: map[string]*source{}, broken: map[string]struct{}{},
	}
	f.ctx, f.fail = context.WithCancelCause(ctx)
	return f
}

// load compares the index with the recordings: what is gone is taken out, and what was not read to its ending, or is
// another file since, is to be read again.
func (f *filling) load() error {
	states, err := f.index.Sessions(f.ctx)
	if err != nil {
		return err
	}
	for session, state := range states {
		size, err := f.recorder.size(session)
		switch {
		case errors.Is(err, os.ErrNotExist):
			err = f.index.Forget(f.ctx, session)
		case err == nil && state.Entries > 0 && state.Mask != f.recorder.maskNow(session):
			err = f.index.Clear(f.ctx, session)
		case err == nil && state.Whole && state.Bytes == size:
			f.whole[session] = struct{}{}
		case err == nil && state.Entries > 0:
			err = f.index.Clear(f.ctx, session)
		case err != nil: // one recording that can't be read leaves the others theirs
			f.recorder.Log.Error("a recording that was in the search index cannot be read, and is taken out", "session", session, "error", err)
			err = f.index.Clear(f.ctx, session)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run works until the index is to be closed, and returns why.
func (f *filling) run() error {
	f.work.Go(f.readBacklog)
	f.work.Go(f.readLive)
	ticker := time.NewTicker(indexInterval)
	defer ticker.Stop()
	for f.ctx.Err() == nil {
		if err := f.discover(f.ctx); err != nil {
			f.fail(err)
		}
		f.advance()
		select {
		case <-ticker.C:
		case <-f.ctx.Done():
		}
	}
	return context.Cause(f.ctx)
}

// close closes the index, also under searches that go on, which fail.
func (f *filling) close() {
	f.fail(nil)
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.work.Wait()
	if err := f.index.Close(); err != nil {
		f.recorder.Log.Error("close the search index", "error", err)
	}
}

// change tells those who wait. The lock is held.
func (f *filling) change() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// advance has live recordings looked at and returns the number of that look.
func (f *filling) advance() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tick++
	f.change()
	return f.tick
}

// discover finds recordings that it does not know yet.
func (f *filling) discover(ctx context.Context) error {
	f.finding.Lock()
	defer f.finding.Unlock()
	claims := f.recorder.claims.Load()
	f.mu.Lock()
	same := f.looked && f.claims == claims
	f.mu.Unlock()
	if same {
		return nil
	}
	all := f.recorder.listed() // no less than were claimed by then
	f.mu.Lock()
	maps.DeleteFunc(all, func(session string, _ bool) bool { return f.knows(session) })
	f.mu.Unlock()
	found, err := f.find(ctx, all)
	if err == nil {
		err = f.index.Register(ctx, found.headers)
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return context.Cause(f.ctx)
	}
	f.looked, f.claims = !found.again, claims
	for _, session := range found.broken {
		f.broken[session] = struct{}{}
	}
	for _, h := range found.headers {
		s := &source{header: h}
		f.open[h.Session] = s
		if f.recorder.Live(h.Session) {
			s.live = true
		} else {
			f.backlog = append(f.backlog, s)
		}
	}
	f.change()
	return nil
}

// knows reports whether a recording is in the index, on its way there or never to come. The lock is held.
func (f *filling) knows(session string) bool {
	_, whole := f.whole[session]
	_, broken := f.broken[session]
	_, open := f.open[session]
	return whole || broken || open
}

// found is what a look at recordings found.
type found struct {
	headers []format.Header // the oldest first
	broken  []string        // that never come into the index
	again   bool            // there are more, which cannot be read just now
}

// find reads the headers of recordings, and is told which of them lived when they were listed: one that did may have had no file
// then, and may have one, and its ending too, before this is done.
func (f *filling) find(ctx context.Context, sessions map[string]bool) (found, error) {
	var all found
	for session, lived := range sessions {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		header, err := f.recorder.header(session)
		switch {
		case err == nil && header.Lock == nil:
			all.headers = append(all.headers, header)
		case err == nil: // what is locked never comes into the index, not even while it lives
			all.broken = append(all.broken, session)
		case isMissing(err) && !lived:
			if f.recorder.has(session) { // else it is purged
				all.broken = append(all.broken, session)
			}
		case isMissing(err):
			all.again = true
		default:
			f.recorder.Log.Error("a recording is left out of the search index", "session", session, "error", err)
			if errors.Is(err, format.ErrNotRecording) {
				all.broken = append(all.broken, session)
			} else {
				all.again = true
			}
		}
	}
	slices.SortFunc(all.headers, byAge)
	return all, nil
}

// readBacklog reads what has ended.
func (f *filling) readBacklog() {
	for {
		f.mu.Lock()
		changed := f.changed
		var next *source
		if i := slices.IndexFunc(f.backlog, func(s *source) bool { return !time.Now().Before(s.again) }); i >= 0 {
			next = f.backlog[i]
			f.backlog = slices.Delete(f.backlog, i, i+1)
		}
		f.mu.Unlock()
		if next != nil && f.recorder.Live(next.header.Session) { // one that failed: read as if it had ended, it would lack its end
			f.mu.Lock()
			next.live = true
			f.change()
			f.mu.Unlock()
			continue
		}
		if next != nil {
			_, events, err := f.recorder.Read(f.ctx, next.header.Session)
			f.finished(next, f.feed(next.header, events, err))
			continue
		}
		select {
		case <-changed:
		case <-f.ctx.Done():
			return
		}
	}
}

// feed brings one recording into the index, from its beginning.
func (f *filling) feed(header format.Header, events iter.Seq2[Event, error], err error) error {
	if err != nil {
		return err
	}
	d := f.newFeeder(header)
	for item, err := range f.recorder.itemsBy((*Recorder).newLinesTeller, header, events) {
		if err == nil {
			err = d.item(item)
		}
		if err != nil {
			return err
		}
	}
	return d.whole()
}

// onOwnStack runs f in a goroutine of its own: a database needs a large stack, and a follower of a live recording waits
// with the one that it has for hours.
func onOwnStack(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return <-done
}

// rest lets what is more urgent go on, after work of some length.
func (f *filling) rest(after time.Duration) {
	over := time.NewTimer(min(restShare*after, restMost))
	defer over.Stop()
	for f.waited.Load() == 0 {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if f.waited.Load() > 0 {
			return
		}
		select {
		case <-changed:
		case <-over.C:
			return
		case <-f.ctx.Done():
			return
		}
	}
}

// spare returns nil while there is room for what is not needed: the reserve is for recordings.
func (r *Recorder) spare() error {
	free, err := disk.Free(r.recordings())
	if err == nil && free < int64(r.Config.Reserve) {
		err = fmt.Errorf("%w: %d bytes are free", errNoRoom, free)
	}
	return err
}

var errNoRoom = errors.New("the search index waits for room on the disk")

// finished notes how reading a recording went.
func (f *filling) finished(s *source, err error) {
	session := s.header.Session
	if err != nil {
		if f.ctx.Err() != nil {
			return
		}
		if errors.Is(err, index.ErrDamaged) || errors.Is(err, errNoRoom) {
			f.fail(err)
			return
		}
	}
	gone := !f.recorder.has(session) // purged meanwhile
	if err != nil && !gone {
		f.recorder.Log.Error("a recording could not be indexed; searches read it, and it is tried again", "session", session, "error", err)
		if err := f.index.Clear(f.ctx, session); err != nil {
			f.fail(err)
			return
		}
	}
	f.mu.Lock()
	switch {
	case gone:
		delete(f.open, session)
	case err == nil:
		delete(f.open, session)
		f.whole[session] = struct{}{}
	default:
		s.live, s.pending, s.again = false, nil, time.Now().Add(indexRetry)
		f.backlog = append(f.backlog, s)
	}
	f.change()
	f.mu.Unlock()
	if gone || !f.recorder.has(session) { // whoever purged it found it neither whole nor open, or will
		f.drop(f.ctx, session)
	}
}

// drop takes a recording that is gone out of the index, in which it is whole or not at all on its way.
func (f *filling) drop(ctx context.Context, session string) {
	if err := f.index.Forget(ctx, session); err != nil {
		f.recorder.Log.Error("a recording that is gone could not be taken out of the search index; the next start does it", "session", session, "error", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.whole, session)
}

// upToDate brings in what is safe of live recordings now, and returns what is not wholly in the index, the oldest first.
func (f *filling) upToDate(ctx context.Context) ([]apart, error) {
	f.waited.Add(1)
	defer f.waited.Add(-1)
	if err := f.discover(ctx); err != nil {
		return nil, err
	}
	tick := f.advance()
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		behind := false
		for _, s := range f.open {
			behind = behind || s.live && s.seen < tick
		}
		if !behind {
			break
		}
		changed := f.changed
		f.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-f.ctx.Done():
			err = context.Cause(f.ctx)
		case <-ctx.Done():
			err = ctx.Err()
		}
		f.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	var all []apart
	for _, s := range f.open {
		if !s.live || len(s.pending) > 0 {
			all = append(all, apart{header: s.header, indexed: s.live, pending: s.pending})
		}
	}
	slices.SortFunc(all, func(a, b apart) int { return byAge(a.header, b.header) })
	return all, nil
}

// settled waits until nothing is open that has ended.
func (f *filling) settled(ctx context.Context) {
	f.waited.Add(1)
	defer f.waited.Add(-1)
	f.mu.Lock()
	f.change()
	f.mu.Unlock()
	for {
		f.mu.Lock()
		changed, open := f.changed, slices.Collect(maps.Values(f.open))
		f.mu.Unlock()
		if !slices.ContainsFunc(open, func(s *source) bool { return !f.recorder.Live(s.header.Session) }) {
			return
		}
		select {
		case <-changed:
		case <-f.ctx.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// forget takes a recording that is gone out of the index, where it is in it. One that is on its way finished takes out.
func (f *filling) forget(ctx context.Context, session string) {
	f.mu.Lock()
	_, whole := f.whole[session]
	f.mu.Unlock()
	if whole {
		f.drop(ctx, session)
	}
}

func (f *filling) status() IndexStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := IndexStatus{Sessions: len(f.whole)}
	for _, source := range f.open {
		if source.live {
			s.Live++
		} else {
			s.Behind++
		}
	}
	return s
}
