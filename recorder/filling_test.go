package recorder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/index"
)

// withoutIndex is a recorder that fills none by itself.
func withoutIndex(t *testing.T) *Recorder {
	t.Helper()
	r, err := Open(t.Context(), Options{Dir: t.TempDir(), Log: testLog(t), Interpreters: talking})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

// fillingOf is an index that is filled by hand.
func fillingOf(t *testing.T, r *Recorder) *filling {
	t.Helper()
	x, _, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	f := newFilling(context.WithoutCancel(t.Context()), r, x)
	t.Cleanup(f.close)
	return f
}

// TestALiveRecordingThatFailedIsFollowedAgain: a live recording that could not be indexed for a moment is not taken for one that
// has ended when it is tried again; what it says afterwards is found.
func TestALiveRecordingThatFailedIsFollowedAgain(t *testing.T) {
	r := withoutIndex(t)
	rec := begin(t, r, "s1")
	if err := rec.Record(t.Context(), said("before")); err != nil {
		t.Fatal(err)
	}
	f := fillingOf(t, r) // whose turns are taken by hand, but the backlog's
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
	states, err := f.index.Sessions(t.Context())
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
	r := withoutIndex(t)
	f := fillingOf(t, r)
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

// TestARecordingThatCannotBeReadForAMoment is looked at again, also where nothing else begins.
func TestARecordingThatCannotBeReadForAMoment(t *testing.T) {
	r := withoutIndex(t)
	end(t, begin(t, r, "s1"))
	f := fillingOf(t, r)
	path := pathOf(r, "s1")
	if err := errors.Join(os.Rename(path, path+".away"), os.Mkdir(path, 0o700)); err != nil { // it opens, and a read fails
		t.Fatal(err)
	}
	if err := f.discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
		t.Fatal(err)
	}
	if err := f.discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.open["s1"] == nil {
		t.Errorf("it is not brought into the index: %v is given up", f.broken)
	}
}

// TestASessionInAnothersPlace: one that begins while another is purged, so that there are as many as before, is found.
func TestASessionInAnothersPlace(t *testing.T) {
	r := withoutIndex(t)
	end(t, begin(t, r, "s1"))
	f := fillingOf(t, r)
	purged := sync.OnceFunc(func() {
		r.mu.Lock()
		path := r.paths["s1"]
		r.mu.Unlock()
		if err := r.remove(t.Context(), "s1", path); err != nil {
			t.Error(err)
		}
		f.forget(t.Context(), "s1")
	})
	if err := f.discover(meanwhile{t.Context(), purged}); err != nil {
		t.Fatal(err)
	}
	end(t, begin(t, r, "s2"))
	if err := f.discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.open["s2"] == nil {
		t.Error("it is not found")
	}
}

// TestPurgedWhileItIsIndexed: what is purged when all of it is in the index, and that is not said yet, does not stay in it.
func TestPurgedWhileItIsIndexed(t *testing.T) {
	r := withoutIndex(t)
	rec := begin(t, r, "s1")
	if err := rec.Record(t.Context(), said("something")); err != nil {
		t.Fatal(err)
	}
	end(t, rec)
	f := fillingOf(t, r)
	f.waited.Add(1) // so that it does not rest
	if err := f.discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := f.open["s1"]
	_, events, err := r.Read(t.Context(), "s1")
	if err := f.feed(s.header, events, err); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	path := r.paths["s1"]
	r.mu.Unlock()
	if err := r.remove(t.Context(), "s1", path); err != nil {
		t.Fatal(err)
	}
	f.forget(t.Context(), "s1")
	f.finished(s, nil)
	states, err := f.index.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, there := states["s1"]; there || len(f.open) > 0 || len(f.whole) > 0 {
		t.Errorf("the index has %v, open %v, whole %v", states, f.open, f.whole)
	}
}

// TestAnIndexAskedForWhileItIsOpened: what is to be looked at when the index is opened (what is hidden now, what is gone) and changes
// while that is done is looked at once more; and whoever has it made anew is not content with one that was opened for another reason.
func TestAnIndexAskedForWhileItIsOpened(t *testing.T) {
	r := withoutIndex(t)
	r.Index = filepath.Join(t.TempDir(), "index.db")
	ix := newIndexer(r)
	for name, ask := range map[string]func(){
		"other masks": func() { ix.rebuild(errOtherMask) },
		"gone":        func() { ix.forget(t.Context(), "s1") },
	} {
		asked, anew := ix.wanted()
		f, err := ix.open(t.Context(), anew)
		if err != nil {
			t.Fatal(err)
		}
		ask()
		ix.begin(f, asked)
		if f.ctx.Err() == nil {
			t.Errorf("%s: an index is used that was opened before", name)
		}
		ix.end(context.Cause(f.ctx))
		f.close()
	}
	asked, anew := ix.wanted()
	if anew {
		t.Error("it is made anew, which nobody asked for")
	}
	f, err := ix.open(t.Context(), anew)
	if err != nil {
		t.Fatal(err)
	}
	ix.begin(f, asked)
	ix.rebuild(errOtherMask)
	ix.rebuild(errRenewed)
	ix.end(context.Cause(f.ctx)) // the first reason
	f.close()
	if _, anew := ix.wanted(); !anew {
		t.Error("it is opened as it is, with what is destroyed")
	}
}

// TestOneDamagedRecordingLeavesTheOthersTheirIndex: a file that is no recording any more since it was indexed does not keep the index
// from being opened.
func TestOneDamagedRecordingLeavesTheOthersTheirIndex(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, Log: testLog(t), Interpreters: talking, Index: filepath.Join(dir, "index.db")}
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, session := range []string{"s1", "s2"} {
		rec := begin(t, r, session)
		if err := rec.Record(t.Context(), said("a needle")); err != nil {
			t.Fatal(err)
		}
		end(t, rec)
	}
	indexed(t, r)
	path := pathOf(r, "s1")
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("no recording"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	eventually(t, "the index is there", func() bool {
		s, _ := r.IndexStatus()
		return s.Error == "" && s.Sessions == 1 && s.Behind == 0
	})
	found := collect(t, r.Search(t.Context(), Query{Text: "needle"}))
	if len(found) != 1 || found[0].Session != "s2" {
		t.Errorf("found %+v", found)
	}
}
