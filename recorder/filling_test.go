package recorder

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/index"
)

// TestALiveRecordingThatFailedIsFollowedAgain: a live recording that could not be indexed for a moment is not taken for one that
// has ended when it is tried again; what it says afterwards is found.
func TestALiveRecordingThatFailedIsFollowedAgain(t *testing.T) {
	r, err := Open(t.Context(), Options{Dir: t.TempDir(), Log: testLog(t), Interpreters: talking})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	rec := begin(t, r, "s1")
	if err := rec.Record(t.Context(), said("before")); err != nil {
		t.Fatal(err)
	}
	x, _, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	f := newFilling(t.Context(), r, x) // whose turns are taken by hand, but the backlog's
	defer f.close()
	if err := f.discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := f.open["s1"]
	f.lookAt(s, 1)
	if s.follows == nil || s.seen != 1 {
		t.Fatal("it is not followed")
	}
	s.follows.file.Close()
	s.follows = nil
	f.finished(s, errors.New("there was no room for a moment"))
	s.again = time.Time{} // the wait is over
	f.work.Go(f.readBacklog)
	for deadline := time.After(time.Minute); ; {
		f.mu.Lock()
		live, changed := s.live, f.changed
		f.mu.Unlock()
		if live {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("it is not followed again")
		}
	}
	f.lookAt(s, 2)
	if err := rec.Record(t.Context(), said("after")); err != nil {
		t.Fatal(err)
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
	f.lookAt(s, 3)
	states, err := x.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if one := states["s1"]; !one.Whole || one.Entries < 2 {
		t.Errorf("the index has %+v", one)
	}
}

// meanwhile does something when it is first asked for its end: discover has read headers by then and writes to the index.
type meanwhile struct {
	context.Context
	do func()
}

func (m meanwhile) Done() <-chan struct{} {
	m.do()
	return m.Context.Done()
}

// TestAShortRecordingIsFound: one that had no file yet when the index looked, and has ended when that look is over, is not
// taken for one that cannot be read.
func TestAShortRecordingIsFound(t *testing.T) {
	r, err := Open(t.Context(), Options{Dir: t.TempDir(), Log: testLog(t), Interpreters: talking})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	x, _, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	f := newFilling(t.Context(), r, x)
	defer f.close()
	claimed := &Recording{header: header("s1")}
	if err := r.claim(claimed, "recordings/to-come"+extension); err != nil {
		t.Fatal(err)
	}
	whole := sync.OnceFunc(func() {
		r.ended(claimed)
		r.mu.Lock()
		delete(r.paths, "s1")
		r.mu.Unlock()
		end(t, begin(t, r, "s1"))
	})
	for range 2 {
		if err := f.discover(meanwhile{t.Context(), whole}); err != nil {
			t.Fatal(err)
		}
	}
	if f.open["s1"] == nil {
		t.Errorf("it is not brought into the index: %v is given up", f.broken)
	}
}
