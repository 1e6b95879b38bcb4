package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/recorder/disk"
	"sallyport/recorder/format"
)

// testLog shows what a recorder logs when its test fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func openRecorder(t testing.TB, dir string, level configs.Durability) *Recorder {
	t.Helper()
	r, err := Open(t.Context(), Options{
		Dir: dir, Version: "test", Log: testLog(t),
		Config: configs.Recording{Durability: level, AllowVolatile: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// pathOf takes the lock: audit files come to the same map at any time.
func pathOf(r *Recorder, session string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return filepath.Join(r.Dir, r.paths[session])
}

func header(session string) format.Header {
	return format.Header{
		Session: session, Protocol: "test", Target: "orders", Account: "app", Grant: "g-1",
		Identity: format.Party{Issuer: "https://idp.example", Subject: "1", Name: "Alice", Email: "alice@corp.example"},
	}
}

func begin(t testing.TB, r *Recorder, session string) *Recording {
	t.Helper()
	rec, err := r.Begin(t.Context(), header(session), "")
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func said(text string) Event { return Event{Type: format.TypeSaid, Data: []byte(text)} }

// texts are what was said and answered in a recording.
func texts(t testing.TB, r *Recorder, session string) []string {
	t.Helper()
	_, events, err := r.Read(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != format.TypeEnd {
			all = append(all, string(e.Data))
		}
	}
	return all
}

// ending is the last event of a recording, "" if it has no ending.
func ending(t testing.TB, r *Recorder, session string) string {
	t.Helper()
	_, events, err := r.Read(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	reason := ""
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == format.TypeEnd {
			end, err := format.EndOf(e)
			if err != nil {
				t.Fatal(err)
			}
			reason = end.Reason
		}
	}
	return reason
}

// eventually polls until done says so.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

func levels(t *testing.T, f func(t *testing.T, level configs.Durability)) {
	for _, level := range []configs.Durability{configs.Written, configs.Synced} {
		t.Run(string(level), func(t *testing.T) { f(t, level) })
	}
}

func TestWhatIsRecordedIsReadInOrder(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		dir := t.TempDir()
		r := openRecorder(t, dir, level)
		rec := begin(t, r, "s1")
		if h := rec.Header(); h.Started.IsZero() || h.Gateway != "test" || h.Durability != string(level) {
			t.Fatalf("header %+v", h)
		}
		var want []string
		for i := range 200 {
			text := fmt.Sprintf("event %d", i)
			want = append(want, text)
			var err error
			if i%3 == 0 {
				err = rec.Record(t.Context(), said(text))
			} else {
				err = rec.Note(said(text))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := rec.Record(t.Context(), said("last")); err != nil {
			t.Fatal(err)
		}
		want = append(want, "last")
		if got := texts(t, r, "s1"); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("a live recording reads %q", got)
		}
		if err := rec.End(format.End{Reason: "client_closed"}); err != nil {
			t.Fatal(err)
		}
		if err := rec.Record(t.Context(), said("too late")); !errors.Is(err, ErrEnded) {
			t.Fatalf("after the ending: %v", err)
		}
		if got := texts(t, r, "s1"); strings.Join(got, "|") != strings.Join(want, "|") || ending(t, r, "s1") != "client_closed" {
			t.Fatalf("read %q, ended %q", got, ending(t, r, "s1"))
		}
		path := filepath.Join(dir, "recordings", rec.Header().Started.Format("2006/01/02"), "s1.srec")
		for p, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
			if info, err := os.Stat(p); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v", p, info.Mode(), err)
			}
		}
	})
}

func TestNotesAreSafeSoonByThemselves(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		r := openRecorder(t, t.TempDir(), level)
		rec := begin(t, r, "s1")
		began := time.Now()
		if err := rec.Note(said("seen")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the note is in the file", func() bool { return len(texts(t, r, "s1")) == 1 })
		t.Logf("after %v", time.Since(began))
	})
}

func TestConcurrentCallersKeepTheirOrder(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		r := openRecorder(t, t.TempDir(), level)
		rec := begin(t, r, "s1")
		const callers, each = 8, 40
		var all sync.WaitGroup
		for c := range callers {
			all.Go(func() {
				for i := range each {
					e := said(fmt.Sprintf("%d/%d", c, i))
					e.Channel = uint32(c)
					var err error
					if i%2 == 0 {
						err = rec.Record(t.Context(), e)
					} else {
						err = rec.Note(e)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if err := rec.End(format.End{Reason: "done"}); err != nil {
			t.Fatal(err)
		}
		next := map[string]int{}
		for _, text := range texts(t, r, "s1") {
			c, i, _ := strings.Cut(text, "/")
			if i != fmt.Sprint(next[c]) {
				t.Fatalf("caller %s: event %s stands where %d should", c, i, next[c])
			}
			next[c]++
		}
		if len(next) != callers {
			t.Fatalf("callers %v", next)
		}
	})
}

func TestBigEventsAndFullQueue(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		r := openRecorder(t, t.TempDir(), level)
		rec := begin(t, r, "s1")
		big := strings.Repeat("0123456789abcdef", 3<<20/16)
		for range 4 { // more than the queue holds: Note waits and loses nothing
			if err := rec.Note(said(big)); err != nil {
				t.Fatal(err)
			}
			rec.mu.Lock()
			if n := rec.next.Len(); n > queueLimit+len(big)+4096 { // one is taken in while there is room
				t.Errorf("%d bytes wait for the disk", n)
			}
			rec.mu.Unlock()
		}
		if err := rec.End(format.End{Reason: "done"}); err != nil {
			t.Fatal(err)
		}
		got := texts(t, r, "s1")
		if len(got) != 4 {
			t.Fatalf("%d events", len(got))
		}
		for _, text := range got {
			if text != big {
				t.Fatalf("an event of %d bytes came back as %d others", len(big), len(text))
			}
		}
	})
}

func TestBeginRefuses(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	begin(t, r, "used")
	for _, session := range []string{"", "used", "../x", "a/b", "-x", ".x", "a.b", "a\x00", strings.Repeat("x", 65)} {
		if _, err := r.Begin(t.Context(), header(session), ""); err == nil {
			t.Errorf("session %q was begun", session)
		}
	}
	if _, _, err := r.Read(t.Context(), "unknown"); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("an unknown session: %v", err)
	}
	if _, err := r.Begin(t.Context(), header("s2"), "never"); !refusal.Is(err, refusal.Invalid) {
		t.Errorf("an unknown level: %v", err)
	}
}

func TestSyncedNeedsADisk(t *testing.T) {
	dir := "/dev/shm"
	if volatile, err := disk.IsVolatile(dir); err != nil || !volatile {
		t.Skip("no tmpfs at " + dir)
	}
	dir, err := os.MkdirTemp(dir, "sallyport-test-*")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	_, err = Open(t.Context(), Options{Dir: dir, Config: configs.Recording{Durability: configs.Synced}})
	if !refusal.Is(err, refusal.RecorderFailed) {
		t.Fatalf("synced on tmpfs: %v", err)
	}
	r, err := Open(t.Context(), Options{Dir: dir, Config: configs.Recording{Durability: configs.Written}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	if _, err := r.Begin(t.Context(), header("s1"), configs.Synced); !refusal.Is(err, refusal.RecorderFailed) {
		t.Fatalf("a synced recording on tmpfs: %v", err)
	}
}

func TestOpenClosesWhatWasLeft(t *testing.T) {
	dir := t.TempDir()
	r := openRecorder(t, dir, configs.Written)
	for _, session := range []string{"whole", "torn", "ended"} {
		rec := begin(t, r, session)
		if err := rec.Record(t.Context(), said("one"), said("two")); err != nil {
			t.Fatal(err)
		}
		if session == "ended" {
			if err := rec.End(format.End{Reason: "done"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := pathOf(r, "torn")
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("\xf5SB\x01half a block")
	f.Close()
	left := path + disk.Unborn
	if err := os.WriteFile(left, []byte("SREC1\nhalf a hea"), 0o600); err != nil {
		t.Fatal(err)
	}

	r = openRecorder(t, dir, configs.Written)
	var crashed []string
	for _, h := range r.Crashed() {
		crashed = append(crashed, h.Session)
	}
	if len(crashed) != 2 || !strings.Contains(strings.Join(crashed, " "), "torn") || !strings.Contains(strings.Join(crashed, " "), "whole") {
		t.Fatalf("crashed: %v", crashed)
	}
	for session, reason := range map[string]string{"whole": "crashed", "torn": "crashed", "ended": "done"} {
		got := strings.Join(texts(t, r, session), "|")
		if !strings.HasPrefix(got, "one|two") || ending(t, r, session) != reason {
			t.Errorf("%s: %s, ended %q", session, got, ending(t, r, session))
		}
	}
	if got := texts(t, r, "torn"); !strings.Contains(got[2], `"cut_bytes":"16"`) {
		t.Errorf("the cut is not told: %q", got)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was left", left)
	}
	r.Close(t.Context())
	if r = openRecorder(t, dir, configs.Written); len(r.Crashed()) != 0 {
		t.Errorf("crashed twice: %v", r.Crashed())
	}
}

func TestDamageInTheMiddleIsKeptAndTold(t *testing.T) {
	dir := t.TempDir()
	r := openRecorder(t, dir, configs.Written)
	rec := begin(t, r, "s1")
	var offsets []int64
	for i := range 5 {
		offsets = append(offsets, rec.safe.Load())
		if err := rec.Record(t.Context(), said(fmt.Sprint("event ", i))); err != nil {
			t.Fatal(err)
		}
	}
	path := pathOf(r, "s1")
	r.Close(t.Context())
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[offsets[3]-1] ^= 1 // in event 2
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	r = openRecorder(t, dir, configs.Written)
	after, err := os.ReadFile(path)
	if err != nil || string(after[:len(content)]) != string(content) {
		t.Fatalf("bytes of a damaged recording were changed: %v", err)
	}
	got := texts(t, r, "s1")
	if len(got) < 6 || got[1] != "event 1" || !strings.Contains(got[2], "damage") || got[3] != "event 3" || got[4] != "event 4" || ending(t, r, "s1") != "crashed" {
		t.Fatalf("read %q", got)
	}
}

func TestReadyAndBeginRefuseBelowTheReserve(t *testing.T) {
	r, err := Open(t.Context(), Options{
		Dir: t.TempDir(), Log: testLog(t),
		Config: configs.Recording{Durability: configs.Written, Reserve: 1 << 60},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	if err := r.Ready(); !refusal.Is(err, refusal.RecorderFailed) {
		t.Errorf("ready: %v", err)
	}
	if _, err := r.Begin(t.Context(), header("s1"), ""); !refusal.Is(err, refusal.RecorderFailed) {
		t.Errorf("begin: %v", err)
	}
}

func collect[T any](t testing.TB, items iter.Seq2[T, error]) []T {
	t.Helper()
	var all []T
	for v, err := range items {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func BenchmarkRecord(b *testing.B) {
	for _, level := range []configs.Durability{configs.Written, configs.Synced} {
		b.Run(string(level), func(b *testing.B) {
			r := openRecorder(b, b.TempDir(), level)
			r.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
			rec := begin(b, r, "s1")
			e := Event{Type: format.TypeSaid, Data: make([]byte, 300)}
			b.ReportAllocs()
			for b.Loop() {
				if err := rec.Record(b.Context(), e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
