package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"sallyport/configs"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// TestReadsAhead: what a gateway that died had only in its write-ahead log counts as it will after the next start, and
// nothing in the directory is changed.
func TestReadsAhead(t *testing.T) {
	dir := t.TempDir()
	r, err := recorder.Open(t.Context(), recorder.Options{Dir: dir, Config: configs.Recording{Durability: configs.Synced, AllowVolatile: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	rec, err := r.Begin(t.Context(), format.Header{Session: "s1", Protocol: "test", Target: "orders", Account: "app"}, "")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "recordings", "*", "*", "*", "s1.srec"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	before, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := rec.Record(t.Context(), format.Event{Type: format.TypeSaid, Data: []byte("something")}); err != nil {
			t.Fatal(err)
		}
	}
	// The power fails: the file was not synced, and all that is left of it is its beginning.
	died := t.TempDir()
	if err := os.CopyFS(died, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Rel(dir, files[0])
	if err != nil {
		t.Fatal(err)
	}
	left = filepath.Join(died, left)
	if err := os.Truncate(left, before.Size()); err != nil {
		t.Fatal(err)
	}
	events := func() uint64 {
		t.Helper()
		var out, said bytes.Buffer
		if code := run([]string{died, "--json"}, &out, &said); code != exitUnproven || said.Len() > 0 {
			t.Fatalf("exit %d: %s%s", code, out.String(), said.String())
		}
		var report struct{ Recordings []struct{ Events uint64 } }
		if err := json.Unmarshal(out.Bytes(), &report); err != nil || len(report.Recordings) != 1 {
			t.Fatalf("%v\n%s", err, out.String())
		}
		return report.Recordings[0].Events
	}
	if got := events(); got != 10 {
		t.Errorf("%d events, with the log", got)
	}
	if now, err := os.Stat(left); err != nil || now.Size() != before.Size() {
		t.Errorf("the file was changed: %v, %v", now, err)
	}
	if err := os.RemoveAll(filepath.Join(died, "wal")); err != nil {
		t.Fatal(err)
	}
	if got := events(); got != 0 {
		t.Errorf("%d events, without the log", got)
	}
}
