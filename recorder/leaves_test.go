package recorder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
	"sallyport/recorder/verify"
)

// bound is a gateway with a log over all recordings, whose checkpoints are signed when it is opened and closed.
func bound(t testing.TB, dir string, s *store.Store) *Recorder {
	t.Helper()
	l := openLedger(t, dir)
	r, err := Open(t.Context(), Options{
		Dir: dir, Version: "test", Log: testLog(t), Config: configs.Recording{AllowVolatile: true}, Ledger: l, Store: s, Progress: 5 * time.Millisecond,
		Keep: func(string) time.Duration { return 10 * day },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openLedger(t testing.TB, dir string) *ledger.Log {
	t.Helper()
	signer, key, err := ledger.LoadKey(filepath.Join(dir, "keys"), "gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), ledger.Options{Dir: dir, Signer: signer, Key: key, Interval: time.Hour, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func unbind(t testing.TB, r *Recorder) {
	t.Helper()
	if err := errors.Join(r.Close(context.Background()), r.Ledger.Close(context.Background())); err != nil {
		t.Error(err)
	}
}

// checkBound checks a directory as an auditor does.
func checkBound(t testing.TB, dir string) *verify.Report {
	t.Helper()
	o, err := verify.Trust(filepath.Join(dir, "keys", "log.pub"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Check(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Whole || report.Log == nil || !report.Log.Trusted {
		t.Errorf("not whole: %+v", report.Log)
		for _, f := range report.Recordings {
			t.Logf("%+v", f)
		}
	}
	return report
}

// leavesOf lists the leaves of a session by kind and session, without what only tells that time passes.
func leavesOf(t testing.TB, l *ledger.Log, session string) (all []transparency.Kind) {
	t.Helper()
	err := l.Recent(func(_ int64, leaf transparency.Leaf) bool {
		if leaf.Session == session && leaf.Kind != transparency.Progress {
			all = append(all, leaf.Kind)
		}
		if slices.ContainsFunc(leaf.Live, func(r transparency.Recording) bool { return r.Session == session }) {
			all = append(all, leaf.Kind)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(all)
	return slices.Compact(all)
}

func expectLeaves(t testing.TB, l *ledger.Log, session string, want ...transparency.Kind) {
	t.Helper()
	if got := leavesOf(t, l, session); !slices.Equal(got, want) {
		t.Errorf("the leaves of %q are %v, want %v", session, got, want)
	}
}

func TestEveryRecordingIsBound(t *testing.T) {
	dir := t.TempDir()
	earlier := openRecorder(t, dir, configs.Synced)
	rec := begin(t, earlier, "before-the-log")
	if err := errors.Join(rec.Record(t.Context(), said("x")), rec.End(format.End{Reason: "done"}), earlier.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	s := storetest.New(t, dir)
	r := bound(t, dir, s)
	expectLeaves(t, r.Ledger, "before-the-log", transparency.Adopted)
	rec = begin(t, r, "one")
	expectLeaves(t, r.Ledger, "one", transparency.Open)
	if err := rec.Record(t.Context(), said("first")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "progress is bound", func() bool { return len(leavesOf(t, r.Ledger, "one")) == 2 })
	report, err := r.Verify(t.Context()) // as the gateway itself does, while it is live
	if err != nil || !report.Whole || len(report.Log.Uncovered) == 0 {
		t.Errorf("%+v %v", report.Log, err)
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
	expectLeaves(t, r.Ledger, "one", transparency.Open, transparency.Progress, transparency.Close)
	if err := s.Audit(t.Context(), store.AuditEvent{Kind: "credential.issued", Actor: "x", Fields: map[string]string{"credential": "c-1"}}); err != nil {
		t.Fatal(err)
	}
	issued := func() (credential string) {
		err := r.Ledger.Recent(func(_ int64, leaf transparency.Leaf) bool {
			if leaf.Kind == transparency.Issue {
				credential = leaf.Credential
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return credential
	}
	eventually(t, "a credential is told of", func() bool { return issued() == "c-1" })
	if _, err := r.Hold(t.Context(), "one", store.AuditEvent{Actor: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Release(t.Context(), "one", store.AuditEvent{Actor: "x"}); err != nil {
		t.Fatal(err)
	}
	r.clock, r.running = func() time.Time { return time.Now().Add(20 * day) }, func() time.Duration { return 20 * day }
	if purged, err := r.Purge(t.Context()); err != nil || !slices.Contains(purged, "one") || !slices.Contains(purged, "before-the-log") {
		t.Errorf("%v %v", purged, err)
	}
	unbind(t, r)
	report = checkBound(t, dir)
	if len(report.Purged) != 2 || report.Purged[0].Leaf < 0 || report.Log.Kinds[transparency.Start] != 1 || report.Log.Kinds[transparency.Stop] != 1 {
		t.Errorf("%+v %+v", report.Purged, report.Log.Kinds)
	}
	r = bound(t, dir, s)
	defer unbind(t, r)
	expectLeaves(t, r.Ledger, "one", transparency.Open, transparency.Progress, transparency.Close, transparency.Hold, transparency.Release, transparency.Purge)
}

// The gateway dies at each of the places where a recording and its leaves are not yet the same; the next start makes them so.
func TestDeathBetweenRecordingAndLeaf(t *testing.T) {
	for name, c := range map[string]struct {
		do      func(rec *Recording) error
		forget  bool // the last leaf was not written
		leaves  []transparency.Kind
		removed bool
	}{
		"before the opening leaf": {do: func(*Recording) error { return nil }, forget: true, removed: true},
		"after the opening leaf":  {do: func(*Recording) error { return nil }, leaves: []transparency.Kind{transparency.Open, transparency.Crashed}},
		"while it lived": {do: func(rec *Recording) error { return rec.Record(t.Context(), said("a"), said("b")) },
			leaves: []transparency.Kind{transparency.Open, transparency.Crashed}},
		"before the closing leaf": {do: func(rec *Recording) error {
			return errors.Join(rec.Record(t.Context(), said("a")), rec.End(format.End{Reason: "done"}))
		}, forget: true, leaves: []transparency.Kind{transparency.Open, transparency.Crashed}},
		"after the closing leaf": {do: func(rec *Recording) error { return rec.End(format.End{Reason: "done"}) },
			leaves: []transparency.Kind{transparency.Open, transparency.Close}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, after := t.TempDir(), t.TempDir()
			r := bound(t, dir, nil)
			defer unbind(t, r)
			r.binder.close() // no progress: the last leaf is the one that counts
			if err := c.do(begin(t, r, "one")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(after, os.DirFS(dir)); err != nil { // what a dead gateway leaves
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(after, "keys", "log"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.forget {
				forgetLeaf(t, after)
			}
			again := bound(t, after, nil)
			expectLeaves(t, again.Ledger, "one", c.leaves...)
			if again.has("one") == c.removed {
				t.Errorf("the recording is there: %v", !c.removed)
			}
			unbind(t, again)
			checkBound(t, after)
			again = bound(t, after, nil) // and nothing is said twice
			expectLeaves(t, again.Ledger, "one", c.leaves...)
			unbind(t, again)
			checkBound(t, after)
		})
	}
}

// forgetLeaf cuts the last leaf off the log's tail.
func forgetLeaf(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, transparency.Folder, transparency.TailFolder, "0")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries, size, whole := transparency.Entries(content)
	if !whole || len(entries) < 2 {
		t.Fatalf("the tail has %d leaves", len(entries))
	}
	if err := os.Truncate(path, int64(size-2-len(entries[len(entries)-1]))); err != nil {
		t.Fatal(err)
	}
}

// What stands on the disk and was bound by nobody is not taken in by a start.
func TestStartDoesNotAdoptWhatWasPlanted(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	unbind(t, bound(t, dir, nil))
	other := openRecorder(t, elsewhere, configs.Synced)
	rec := begin(t, other, "planted")
	if err := errors.Join(rec.Record(t.Context(), said("x")), rec.End(format.End{Reason: "done"})); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "recordings", "x"), os.DirFS(filepath.Join(elsewhere, "recordings"))); err != nil {
		t.Fatal(err)
	}
	r := bound(t, dir, nil)
	expectLeaves(t, r.Ledger, "planted")
	unbind(t, r)
	report, err := verify.Check(dir, verify.Options{})
	if err != nil || report.Whole || len(report.Log.Problems) != 1 || report.Log.Problems[0].Kind != verify.Planted {
		t.Errorf("%+v %v", report.Log, err)
	}
}

// BenchmarkBegin measures what a session's opening waits for at 100 a second: the recording's file, without and with its
// leaf in the log. "p99-ms" is the slowest hundredth.
func BenchmarkBegin(b *testing.B) {
	for _, leaf := range []bool{false, true} {
		b.Run(fmt.Sprintf("leaf=%v", leaf), func(b *testing.B) {
			r := bound(b, b.TempDir(), nil)
			defer unbind(b, r)
			if l := r.Ledger; !leaf {
				r.binder.close()
				r.Ledger = nil
				defer func() { r.Ledger = l }()
			}
			var mu sync.Mutex
			var took []time.Duration
			var all sync.WaitGroup
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			n := 0
			for b.Loop() {
				<-tick.C
				n++
				session := fmt.Sprint("s", n)
				all.Go(func() {
					began := time.Now()
					rec, err := r.Begin(b.Context(), header(session), "")
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
					if err == nil {
						err = rec.End(format.End{Reason: "done"})
					}
					if err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}
