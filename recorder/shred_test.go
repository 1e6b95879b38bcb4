package recorder

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency"
	"sallyport/recorder/verify"
)

// destroying is a gateway with all that derives something from a recording: log, index, store, packing.
func destroying(t *testing.T, dir string, s *store.Store, recipients ...string) *Recorder {
	t.Helper()
	r, err := Open(t.Context(), Options{
		Dir: dir, Version: "test", Log: testLog(t), Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true},
		Ledger: openLedger(t, dir), Store: s, Index: filepath.Join(dir, "index.db"), Interpreters: talking,
		Recipients: func(string) []string { return recipients },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// spoken records something and ends it.
func spoken(t *testing.T, r *Recorder, session, what string) {
	t.Helper()
	rec := begin(t, r, session)
	if err := r.Store.Audit(t.Context(), store.AuditEvent{Kind: "session.started", Actor: "x", Session: session}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := rec.Record(t.Context(), said(what+strings.Repeat(" and so on", 50))); err != nil {
			t.Fatal(err)
		}
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
}

func shredded(reason string) store.AuditEvent {
	return store.AuditEvent{Actor: "idp carol", ActorName: "Carol", Reason: reason}
}

// TestShred: nothing of a recording that is destroyed stands in the state directory, of one in the clear and of a locked
// one, whose key is gone with it; others are as they were, and verify says who destroyed it and finds no fault.
func TestShred(t *testing.T) {
	auditor := newIdentity(t, false)
	for name, recipients := range map[string][]string{"clear": nil, "locked": {auditor.recipient()}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := storetest.New(t, dir)
			r := destroying(t, dir, s, recipients...)
			spoken(t, r, "s1", canary)
			spoken(t, r, "s2", "a needle")
			if err := r.packer.settled(t.Context()); err != nil {
				t.Fatal(err)
			}
			path := pathOf(r, "s1")
			if recipients == nil {
				indexed(t, r)
				if got := collect(t, r.Search(t.Context(), Query{Text: canary})); len(got) == 0 {
					t.Fatal("it is not found before")
				}
			} else if texts, _ := openedTexts(t, path, auditor); len(texts) == 0 {
				t.Fatal("it does not open before")
			}
			header, err := r.header("s1")
			if err != nil {
				t.Fatal(err)
			}

			live := begin(t, r, "s3")
			if err := r.Shred(t.Context(), "s3", shredded("live")); !refusal.Is(err, refusal.Conflict) {
				t.Errorf("a live one: %v", err)
			}
			if err := live.End(format.End{Reason: "done"}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Hold(t.Context(), "s1", shredded("case 7")); err != nil {
				t.Fatal(err)
			}
			if err := r.Shred(t.Context(), "s1", shredded("held")); !refusal.Is(err, refusal.Conflict) {
				t.Errorf("one on hold: %v", err)
			}
			if err := r.Release(t.Context(), "s1", shredded("")); err != nil {
				t.Fatal(err)
			}
			if err := r.Shred(t.Context(), "s1", shredded("erasure 113")); err != nil {
				t.Fatal(err)
			}
			expectNoPlaintext(t, dir)
			if header.Lock != nil {
				expectNowhere(t, dir, header.Lock.Key[len(header.Lock.Key)-32:])
			}
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("its file: %v", err)
			}
			if err := r.Shred(t.Context(), "s1", shredded("again")); !refusal.Is(err, refusal.NotFound) {
				t.Errorf("again: %v", err)
			}
			if recipients == nil {
				if got := collect(t, r.Search(t.Context(), Query{Text: canary})); len(got) != 0 {
					t.Errorf("found: %+v", got)
				}
				if got := collect(t, r.Search(t.Context(), Query{Text: "needle"})); len(got) == 0 {
					t.Error("the other recording is found no more")
				}
			}
			spoken(t, r, "s4", "afterwards") // the log goes on
			expectShredded(t, func() (*verify.Report, error) { return r.Verify(t.Context()) }, "erasure 113")
			unbind(t, r)
			expectShredded(t, func() (*verify.Report, error) { return checkBound(t, dir), nil }, "erasure 113")
		})
	}
}

func expectShredded(t *testing.T, check func() (*verify.Report, error), reason string) {
	t.Helper()
	report, err := check()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := report.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	if !report.Whole || len(report.Shredded) != 1 || report.Shredded[0].Session != "s1" || report.Shredded[0].Leaf < 0 || report.Shredded[0].SHA256 == "" ||
		!strings.Contains(text.String(), "was destroyed by Carol at "+report.Shredded[0].Time.UTC().Format(time.RFC3339)+": "+reason) {
		t.Errorf("%+v\n%s", report.Shredded, text.String())
	}
}

func expectNowhere(t *testing.T, dir string, what []byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, what) {
			t.Errorf("%s has it", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestShredGoesOn: what a gateway that died had said that it destroys, its next start destroys.
func TestShredGoesOn(t *testing.T) {
	dir := t.TempDir()
	s := storetest.New(t, dir)
	r := destroying(t, dir, s)
	spoken(t, r, "s1", canary)
	indexed(t, r)
	path := pathOf(r, "s1")
	if err := r.packer.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Shred(t.Context(), "s1", shredded("erasure 114")); err != nil {
		t.Fatal(err)
	}
	unbind(t, r)
	// As if it had died before the file was touched: the event and the leaf are there.
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.Do(t.Context(), func(tx *store.Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO recording_shreds (session, since) VALUES ('s1', 0)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r = destroying(t, dir, s)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("its file: %v", err)
	}
	expectNoPlaintext(t, dir)
	unbind(t, r)
	expectShredded(t, func() (*verify.Report, error) { return checkBound(t, dir), nil }, "erasure 114")
}

// TestShreddedOnHold: a recording that the log has on hold and that somebody has destroyed all the same is a fault.
func TestShreddedOnHold(t *testing.T) {
	dir := t.TempDir()
	s := storetest.New(t, dir)
	r := destroying(t, dir, s)
	spoken(t, r, "s1", canary)
	if _, err := r.Hold(t.Context(), "s1", shredded("case 7")); err != nil {
		t.Fatal(err)
	}
	path := pathOf(r, "s1")
	if err := r.bind(transparency.Leaf{Kind: transparency.Shred, Recording: transparency.Recording{Session: "s1"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := r.Ledger.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	o, err := verify.Trust(filepath.Join(dir, "keys", "log.pub"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Check(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if report.Whole || len(report.Log.Problems) != 1 || report.Log.Problems[0].Kind != verify.PurgedOnHold {
		t.Errorf("%+v", report.Log)
	}
}

// TestShreddedAndPutBack: a recording that was destroyed and that somebody has put back is a fault, offline and at the gateway.
func TestShreddedAndPutBack(t *testing.T) {
	dir := t.TempDir()
	s := storetest.New(t, dir)
	r := destroying(t, dir, s)
	spoken(t, r, "s1", canary)
	if err := r.packer.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := pathOf(r, "s1")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Shred(t.Context(), "s1", shredded("erasure 115")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	returned := func(report *verify.Report) bool {
		return !report.Whole && len(report.Log.Problems) == 1 && report.Log.Problems[0].Kind == verify.Returned && report.Log.Problems[0].Session == "s1"
	}
	report, err := r.Verify(t.Context())
	if err != nil || !returned(report) {
		t.Errorf("the gateway: %v, %+v", err, report.Log)
	}
	err = s.Do(t.Context(), func(tx *store.Tx) error { // as long as it is just being destroyed
		_, err := tx.ExecContext(t.Context(), `INSERT INTO recording_shreds (session, since) VALUES ('s1', 0)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if report, err := r.Verify(t.Context()); err != nil || !report.Whole {
		t.Errorf("while it is being destroyed: %v, %+v", err, report.Log)
	}
	unbind(t, r)
	o, err := verify.Trust(filepath.Join(dir, "keys", "log.pub"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if report, err = verify.Check(dir, o); err != nil || !returned(report) {
		t.Errorf("offline: %v, %+v", err, report.Log)
	}
}

// TestShredWhilePacking: a recording that is being packed while it is destroyed keeps nobody waiting for ever.
func TestShredWhilePacking(t *testing.T) {
	dir := t.TempDir()
	s := storetest.New(t, dir)
	r := destroying(t, dir, s)
	defer r.Close(t.Context())
	r.packer.work.close()
	rec := begin(t, r, "s1")
	recordMuch(t, rec)
	end(t, rec)
	path := pathOf(r, "s1")

	// The store is busy, so that Shred waits with what packing needs in its hands.
	busy, over := make(chan struct{}), make(chan struct{})
	go s.Do(context.Background(), func(tx *store.Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO recording_shreds (session, since) VALUES ('s1', 0)`)
		close(busy)
		<-over
		return errors.Join(err, errors.New("nothing of it stays"))
	})
	<-busy
	shred := make(chan error, 1)
	go func() { shred <- r.Shred(context.WithoutCancel(t.Context()), "s1", shredded("erasure 113")) }()
	eventually(t, "Shred has what packing needs", func() bool {
		free := r.purging.TryLock()
		if free {
			r.purging.Unlock()
		}
		return !free
	})
	r.packer.work.start(t.Context(), r.packer.run)
	next := begin(t, r, "s2")
	recordMuch(t, next)
	end(t, next)
	whole := func(path string) bool {
		f, err := os.Open(path)
		if err != nil {
			return false
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return false
		}
		found, err := format.Look(f, info.Size())
		return err == nil && found.Packed && found.Sealed
	}
	other := pathOf(r, "s2")
	eventually(t, "one of them is packed but for being exchanged", func() bool { return whole(path+disk.Unborn) || whole(other+disk.Unborn) })
	close(over)
	select {
	case err := <-shred:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Shred waits for what waits for it")
	}
	if err := r.packer.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Dir(path) + "/s1*")
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
