package wal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestScrub: what was finished stands nowhere in the log afterwards, what was not is still replayed, and who appends
// meanwhile loses nothing.
func TestScrub(t *testing.T) {
	for _, segment := range []int64{0, 16 << 10} {
		t.Run(fmt.Sprint(segment), func(t *testing.T) {
			dir := t.TempDir()
			l := started(t, Options{Dir: dir, Segment: segment})
			gone, stays := &counted{}, &counted{}
			const secret = "canary-in-the-log"
			for i := range 20 {
				if err := l.Append(Record{Name: "gone", File: gone, Offset: int64(i), Data: []byte(secret)}); err != nil {
					t.Fatal(err)
				}
			}
			if !inLog(t, dir, secret) {
				t.Fatal("it is not there before")
			}
			if err := l.Finish(gone); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for writer := range 4 {
				wg.Go(func() {
					for i := range 50 {
						if err := l.Append(Record{Name: "stays", File: stays, Offset: int64(writer*1000 + i), Data: []byte("meanwhile")}); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			if err := l.Scrub(); err != nil {
				t.Fatal(err)
			}
			if inLog(t, dir, secret) {
				t.Error("it is there afterwards")
			}
			wg.Wait()
			if err := l.Append(Record{Name: "stays", File: stays, Offset: 9999, Data: []byte("the last")}); err != nil {
				t.Fatal(err)
			}
			got, found := replayed(t, dir)
			if len(got) == 0 || got[len(got)-1] != "stays@9999:the last" || len(found.Damages) > 0 {
				t.Errorf("%d records, %+v", len(got), found)
			}
			// What is not in the log any more was synced in the file that it is of.
			if len(got) < 201 && stays.syncs.Load() == 0 {
				t.Errorf("%d records are left, and the file was not synced", len(got))
			}
			if err := l.Finish(stays); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func inLog(t *testing.T, dir, text string) bool {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"+extension))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(text)) {
			return true
		}
	}
	return false
}
