package recorder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sallyport/internal/refusal"
	"sallyport/recorder/index"
)

const (
	// indexInterval is how often live recordings are looked at; a search looks at once.
	indexInterval = 2 * time.Second
	// indexRetry is how long what could not be indexed waits for the next try.
	indexRetry = 30 * time.Second
	// indexFarewell is how long Close waits for what has just ended.
	indexFarewell = 3 * time.Second
)

// indexer keeps the search index up to date, in the background and off the way of everything that is recorded. What it
// can't do costs a search its speed and never its completeness: a recording that is not in the index is read.
type indexer struct {
	recorder *Recorder
	path     string
	stop     context.CancelFunc
	stopped  chan struct{}

	mu      sync.Mutex
	current *filling      // nil while there is none to search
	err     error         // why there is none
	asked   uint64        // how often somebody wanted it opened again
	anew    bool          // and without what it has
	opened  uint64        // what had been asked before it was last opened,
	failed  uint64        // and before it last could not be
	changed chan struct{} // closed and replaced when these change
}

// IndexStatus is how the search index stands.
type IndexStatus struct {
	// Sessions are wholly in it; Live are followed as they go; Behind wait to be read, and are searched by reading them.
	Sessions int `json:"sessions"`
	Live     int `json:"live"`
	Behind   int `json:"behind"`
	// Error is why there is no index just now.
	Error string `json:"error,omitempty"`
}

func newIndexer(r *Recorder) *indexer {
	return &indexer{recorder: r, path: r.Index, stopped: make(chan struct{}), changed: make(chan struct{})}
}

func startIndexer(ctx context.Context, r *Recorder) *indexer {
	ix := newIndexer(r)
	ctx, ix.stop = context.WithCancel(context.WithoutCancel(ctx))
	go ix.run(ctx)
	return ix
}

// run fills one index after another: a damaged one is followed by a new one.
func (ix *indexer) run(ctx context.Context) {
	defer close(ix.stopped)
	for ctx.Err() == nil {
		asked, anew := ix.wanted()
		f, err := ix.open(ctx, anew)
		if err == nil {
			ix.begin(f, asked)
			err = f.run()
			ix.end(err)
			f.close()
		} else {
			ix.fail(asked, err)
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, errAgain), errors.Is(err, errOtherMask):
		case errors.Is(err, index.ErrDamaged), errors.Is(err, errRenewed):
			ix.recorder.Log.Warn("the search index is made anew", "reason", err)
		default:
			ix.recorder.Log.Error("there is no search index; searches read the recordings", "error", err)
			pause(ctx, indexRetry)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (ix *indexer) open(ctx context.Context, remove bool) (*filling, error) {
	if remove {
		if err := index.Remove(ix.path); err != nil {
			return nil, err
		}
	}
	x, _, err := index.Open(ctx, ix.path)
	if err != nil {
		return nil, err
	}
	f := newFilling(ctx, ix.recorder, x)
	if err := f.load(); err != nil {
		f.fail(err)
		f.close()
		return nil, err
	}
	return f, nil
}

// wanted is how often somebody wanted the index opened again, and whether it is to be made anew.
func (ix *indexer) wanted() (asked uint64, anew bool) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.asked, ix.anew
}

// errAgain ends an index that was opened while something changed that is looked at when it is opened.
var errAgain = errors.New("the search index is opened again")

// begin has an index searched that was opened after so much had been asked.
func (ix *indexer) begin(f *filling, asked uint64) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.current, ix.err, ix.opened = f, nil, asked
	if ix.asked == asked {
		ix.anew = false
	} else {
		f.fail(errAgain)
	}
	ix.change()
}

// end has the index searched no more, for that reason.
func (ix *indexer) end(why error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.current, ix.err = nil, why
	ix.anew = ix.anew || errors.Is(why, index.ErrDamaged)
	ix.change()
}

// fail says that the index could not be opened.
func (ix *indexer) fail(asked uint64, why error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.err, ix.failed = why, asked
	ix.anew = ix.anew || errors.Is(why, index.ErrDamaged)
	ix.change()
}

func (ix *indexer) change() {
	close(ix.changed)
	ix.changed = make(chan struct{})
}

// use returns the index to search; its own context ends when it is closed.
func (ix *indexer) use() *filling {
	if ix == nil {
		return nil
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.current
}

// ready returns the index after bringing it up to date, and the sessions of which it has nothing or not all. Without an
// index it returns nil.
func (ix *indexer) ready(ctx context.Context) (*filling, []apart, error) {
	f := ix.use()
	if f == nil {
		return nil, nil, nil
	}
	apart, err := f.upToDate(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, nil // the index failed just now, and is said to have elsewhere
	}
	return f, apart, nil
}

// damaged makes the index in use anew.
func (ix *indexer) damaged() { ix.rebuild(index.ErrDamaged) }

// rebuild has the index opened again, made anew unless the reason is another; also one that is just being opened. It returns how
// often that was asked for.
func (ix *indexer) rebuild(why error) uint64 {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.asked++
	ix.anew = ix.anew || errors.Is(why, index.ErrDamaged) || errors.Is(why, errRenewed)
	if ix.current != nil {
		ix.current.fail(why)
	}
	return ix.asked
}

// forget takes a recording that is gone out of the index.
func (ix *indexer) forget(ctx context.Context, session string) {
	if f := ix.use(); f != nil {
		f.forget(ctx, session)
	} else { // found out when the index is opened, and if that is just being done, once more
		ix.rebuild(errAgain)
	}
}

var errRenewed = errors.New("what it had of a recording is destroyed")

// renew makes the index anew, and waits until the old one's file is gone. Where that fails, it is tried again, and the next
// start does it.
func (ix *indexer) renew(ctx context.Context) error {
	asked := ix.rebuild(errRenewed)
	for {
		ix.mu.Lock()
		opened, failed, err, changed := ix.opened, ix.failed, ix.err, ix.changed
		ix.mu.Unlock()
		switch {
		case opened >= asked:
			return nil
		case failed >= asked:
			return err
		}
		select {
		case <-changed:
		case <-ix.stopped: // what was begun is finished by the next start
			return errors.New("the gateway is shutting down")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (ix *indexer) status() IndexStatus {
	ix.mu.Lock()
	err := ix.err
	ix.mu.Unlock()
	f := ix.use()
	if f == nil {
		s := IndexStatus{Behind: len(ix.recorder.sessions()), Error: "it is being opened"}
		if err != nil {
			s.Error = err.Error()
		}
		return s
	}
	return f.status()
}

// close lets what has just ended be indexed, for a moment, and closes the index.
func (ix *indexer) close() {
	if f := ix.use(); f != nil {
		ctx, cancel := context.WithTimeout(context.Background(), indexFarewell)
		if _, err := f.upToDate(ctx); err == nil { // what does not get in is found missing by the next Open
			f.settled(ctx)
		}
		cancel()
	}
	ix.stop()
	<-ix.stopped
}

// RebuildIndex makes the search index anew, from the recordings, in the background.
func (r *Recorder) RebuildIndex() error {
	if r.indexer == nil {
		return refusal.New(refusal.Unsupported, "this gateway keeps no search index").WithHint("searches read the recordings")
	}
	r.indexer.rebuild(fmt.Errorf("%w: somebody said so", index.ErrDamaged))
	return nil
}

// IndexStatus tells how the search index stands; false where there is none.
func (r *Recorder) IndexStatus() (IndexStatus, bool) {
	if r.indexer == nil {
		return IndexStatus{}, false
	}
	return r.indexer.status(), true
}

// size is how long a recording's file is, or was before it was packed.
func (r *Recorder) size(session string) (int64, error) {
	r.mu.Lock()
	path, ok := r.paths[session]
	r.mu.Unlock()
	if !ok {
		return 0, os.ErrNotExist
	}
	found, err := lookInto(filepath.Join(r.Dir, path))
	return found.Content, err
}
