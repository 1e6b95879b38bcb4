package store_test

import (
	"errors"
	"sync"
	"testing"

	"sallyport/internal/store"
)

// TestRecent states that those who follow see each committed event once and in order, whoever commits at the same time, none
// that was rolled back, and are told when they are too late.
func TestRecent(t *testing.T) {
	databases(t, func(t *testing.T, open opener) {
		dir := t.TempDir()
		s := opened(t, open, dir)
		const writers, each = 8, 60
		var all sync.WaitGroup
		for range writers {
			all.Go(func() {
				for n := range each {
					err := s.Do(t.Context(), func(tx *store.Tx) error {
						if err := tx.Audit(store.AuditEvent{Kind: "thing.done", Actor: "system"}); err != nil {
							return err
						}
						if n%3 == 0 {
							return errors.ErrUnsupported
						}
						return tx.Audit(store.AuditEvent{Kind: "thing.done", Actor: "system"})
					})
					if err != nil && !errors.Is(err, errors.ErrUnsupported) {
						t.Error(err)
					}
				}
			})
		}
		const want = writers * (each - each/3) * 2
		var last uint64
		for last < want {
			committed := s.Committed()
			events, whole := s.Recent(last)
			if !whole {
				t.Fatalf("what follows %d is gone", last)
			}
			for _, e := range events {
				if e.Number != last+1 {
					t.Fatalf("%d after %d", e.Number, last)
				}
				last = e.Number
			}
			if last < want {
				<-committed
			}
		}
		all.Wait()
		if events, _ := s.Recent(0); len(events) != want || s.Latest() != want {
			t.Errorf("%d events, the last %d; want %d", len(events), s.Latest(), want)
		}
		const more = 10_000 // more than are kept in memory
		err := s.Do(t.Context(), func(tx *store.Tx) error {
			for range more {
				if err := tx.Audit(store.AuditEvent{Kind: "thing.done", Actor: "system"}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, whole := s.Recent(1); whole {
			t.Error("what is long past is still in memory")
		}
		s.Close()
		again := opened(t, open, dir)
		if again.Latest() != want+more {
			t.Errorf("after a restart the last is %d, want %d", again.Latest(), want+more)
		}
		if _, whole := again.Recent(want + more - 1); whole {
			t.Error("a new process has what an old one knew")
		}
		if events, whole := again.Recent(want + more); !whole || len(events) != 0 {
			t.Errorf("nothing has happened yet: %v %v", events, whole)
		}
	})
}
