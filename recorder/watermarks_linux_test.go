package recorder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/format"
)

// The disk fills: first people are told, then no session begins, then open ones end, with everything they said, and the
// audit log has each step once.
func TestWatermarks(t *testing.T) {
	levels(t, func(t *testing.T, level configs.Durability) {
		dir := tinyDisk(t, 32)
		s := storetest.New(t, t.TempDir())
		r, err := Open(t.Context(), Options{Dir: dir, Log: testLog(t), Store: s, Config: configs.Recording{
			Durability: level, AllowVolatile: true, Warn: 16 << 20, Reserve: 8 << 20, End: 4 << 20,
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close(t.Context())
		rec := begin(t, r, "s1")
		if err := rec.Record(t.Context(), said("before")); err != nil {
			t.Fatal(err)
		}
		leave := func(free int64) {
			t.Helper()
			for i := 0; ; i++ {
				now, err := r.free()
				if err != nil {
					t.Fatal(err)
				}
				if now <= free {
					return
				}
				write(t, filepath.Join(dir, "filler"), int(min(now-free, 1<<20)))
			}
		}
		states := func() (all []string) {
			for _, e := range collect(t, r.Audit(t.Context(), AuditFilter{Kind: "recorder.disk"})) {
				all = append(all, e.Fields["state"])
			}
			return all
		}
		leave(15 << 20)
		eventually(t, "people are told", func() bool { return strings.Join(states(), " ") == "low" })
		if err := r.Ready(); err != nil {
			t.Errorf("low is no reason to refuse: %v", err)
		}
		leave(7 << 20)
		eventually(t, "it is scarce", func() bool { return strings.Join(states(), " ") == "low scarce" })
		if _, err := r.Begin(t.Context(), header("s2"), ""); !refusal.Is(err, refusal.RecorderFailed) {
			t.Errorf("a session began: %v", err)
		}
		if err := rec.Record(t.Context(), said("still open")); err != nil {
			t.Errorf("an open session goes on: %v", err)
		}
		if err := rec.Note(Event{Type: format.TypeAnswered, Data: []byte("last words")}); err != nil {
			t.Fatal(err)
		}
		leave(3 << 20)
		select {
		case <-rec.Failed():
		case <-t.Context().Done():
		}
		if err := rec.Record(t.Context(), said("more")); !refusal.Is(err, refusal.RecorderFailed) || rec.Err() == nil {
			t.Errorf("a session that is to end goes on: %v", err)
		}
		if err := rec.End(format.End{Reason: "recorder_failed"}); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, r, "s1"); strings.Join(got, ",") != "before,still open,last words" || ending(t, r, "s1") != "recorder_failed" {
			t.Errorf("%q, ended %q", got, ending(t, r, "s1"))
		}
		eventually(t, "it is said", func() bool { return strings.Join(states(), " ") == "low scarce exhausted" })
	})
}

// write appends bytes to a file.
func write(t testing.TB, path string, size int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
}
