package store_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// A copy made while a gateway writes is the database at one instant, comes back whole, and is marked.
func TestSnapshotComesBack(t *testing.T) {
	migrations := fstest.MapFS{"00001_things.sql": {Data: []byte(`-- +goose Up
CREATE TABLE things (id TEXT PRIMARY KEY, n INTEGER NOT NULL, b BLOB, UNIQUE (n));
CREATE TABLE parts (number INTEGER PRIMARY KEY AUTOINCREMENT, thing TEXT NOT NULL REFERENCES things (id) ON DELETE CASCADE);
CREATE INDEX parts_by_thing ON parts (thing) WHERE number > 0;
`)}}
	for name, kind := range map[string]struct {
		open     opener
		snapshot func(dir, to string) error
		restore  func(from, dir string, made time.Time) error
	}{
		"sqlite": {
			store.Open,
			func(dir, to string) error { return store.SnapshotSQLite(t.Context(), dir, to) },
			func(from, dir string, made time.Time) error { return store.RestoreSQLite(t.Context(), from, dir, made) },
		},
		"postgres": {
			func(ctx context.Context, dir string) (*store.Store, error) {
				return store.OpenPostgres(ctx, dir, storetest.Postgres(t, dir))
			},
			func(dir, to string) error {
				return store.SnapshotPostgres(t.Context(), storetest.Postgres(t, dir), to)
			},
			func(from, dir string, made time.Time) error {
				return store.RestorePostgres(t.Context(), from, storetest.Postgres(t, dir), made)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "postgres" {
				storetest.Postgres(t, t.TempDir()) // or skip
			}
			dir, copied, other := t.TempDir(), t.TempDir(), t.TempDir()
			s := opened(t, kind.open, dir)
			if err := s.Migrate(t.Context(), "things", migrations); err != nil {
				t.Fatal(err)
			}
			put := func(s *store.Store, n int) error {
				return s.Do(t.Context(), func(tx *store.Tx) error {
					id := fmt.Sprint("ü", n)
					if _, err := tx.Exec(`INSERT INTO things (id, n, b) VALUES (?, ?, ?)`, id, n, []byte{0, 255, byte(n)}); err != nil {
						return err
					}
					if _, err := tx.Exec(`INSERT INTO parts (thing) VALUES (?)`, id); err != nil {
						return err
					}
					return tx.Audit(store.AuditEvent{Kind: "put", Actor: "system"})
				})
			}
			for n := range 50 {
				if err := put(s, n); err != nil {
					t.Fatal(err)
				}
			}
			stop, stopped := make(chan struct{}), make(chan error, 1)
			go func() {
				for n := 50; ; n++ {
					select {
					case <-stop:
						stopped <- nil
						return
					default:
					}
					if err := put(s, n); err != nil {
						stopped <- err
						return
					}
				}
			}()
			made := time.Now()
			if err := kind.snapshot(dir, copied); err != nil {
				t.Fatal(err)
			}
			close(stop)
			if err := <-stopped; err != nil {
				t.Fatal(err)
			}
			if err := put(s, 1_000_000); err != nil {
				t.Fatal(err)
			}
			if err := kind.restore(copied, dir, made); err == nil || !strings.Contains(err.Error(), "already") && !strings.Contains(err.Error(), "another sallyport gateway") {
				t.Errorf("restored over a database that is there: %v", err)
			}

			if err := kind.restore(copied, other, made); err != nil {
				t.Fatal(err)
			}
			back := opened(t, kind.open, other)
			if err := back.Migrate(t.Context(), "things", migrations); err != nil {
				t.Fatal(err)
			}
			var things, parts, late int
			var b []byte
			if err := back.Read().QueryRow(`SELECT (SELECT count(*) FROM things), (SELECT count(*) FROM parts), (SELECT count(*) FROM things WHERE n = 1000000)`).Scan(&things, &parts, &late); err != nil {
				t.Fatal(err)
			}
			if things < 50 || parts != things || late != 0 {
				t.Errorf("%d things with %d parts, %d of them later than the copy", things, parts, late)
			}
			if err := back.Read().QueryRow(`SELECT b FROM things WHERE id = 'ü7'`).Scan(&b); err != nil || string(b) != "\x00\xff\x07" {
				t.Errorf("%q, %v", b, err)
			}
			events, err := back.Outbox(t.Context(), 0, 1_000_000)
			if err != nil || len(events) != things {
				t.Errorf("%d events of %d things, %v", len(events), things, err)
			}
			if err := put(back, 7); err == nil {
				t.Error("a key does not hold any more")
			}
			if err := put(back, 2_000_000); err != nil { // numbers go on
				t.Error(err)
			}
			told := func() (n int) {
				for range 2 {
					err := back.Do(t.Context(), func(tx *store.Tx) error {
						r, restored, err := tx.Restored(t.Context(), "room")
						if restored {
							n++
							if !r.Made.Equal(made.UTC().Round(0)) {
								t.Errorf("made %s instead of %s", r.Made, made)
							}
						}
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				return n
			}
			if n := told(); n != 1 {
				t.Errorf("the room was told %d times", n)
			}
			if err := s.Do(t.Context(), func(tx *store.Tx) error {
				_, restored, err := tx.Restored(t.Context(), "room")
				if restored {
					t.Error("the one that was copied is marked")
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := back.MarkRestored(t.Context(), made); err != nil {
				t.Fatal(err)
			}
			if n := told(); n != 1 {
				t.Errorf("the room was told %d times of the second time", n)
			}
		})
	}
}

// A log left beside where a database was would be read into the copy.
func TestRestoreMeetsALeftLog(t *testing.T) {
	from, copied, to := t.TempDir(), t.TempDir(), t.TempDir()
	opened(t, store.Open, from)
	if err := store.SnapshotSQLite(t.Context(), from, copied); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+"/sallyport.db-wal", []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := store.RestoreSQLite(t.Context(), copied, to, time.Now()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("got %v", err)
	}
}

// Numbers that stand in the audit log are not given again.
func TestRaiseNumber(t *testing.T) {
	databases(t, func(t *testing.T, open opener) {
		s := opened(t, open, t.TempDir())
		audit := func() uint64 {
			t.Helper()
			if err := s.Audit(t.Context(), store.AuditEvent{Kind: "k", Actor: "system"}); err != nil {
				t.Fatal(err)
			}
			recent, ok := s.Recent(s.Latest() - 1)
			if !ok || len(recent) != 1 {
				t.Fatalf("%v, %v", recent, ok)
			}
			return recent[0].Number
		}
		for _, step := range []struct{ raise, want uint64 }{{41, 42}, {10, 43}, {99, 100}} {
			if err := s.RaiseNumber(t.Context(), step.raise); err != nil {
				t.Fatal(err)
			}
			if n := audit(); n != step.want {
				t.Errorf("after raising to %d the next was %d instead of %d", step.raise, n, step.want)
			}
		}
	})
}
