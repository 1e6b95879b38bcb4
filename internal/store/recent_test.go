package store

import (
	"errors"
	"sync"
	"testing"
)

// TestRecent states that those who follow see each committed event once and in order, whoever commits at the same time, none
// that was rolled back, and are told when they are too late.
func TestRecent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const writers, each = 8, 60
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for n := range each {
				err := s.Do(t.Context(), func(tx *Tx) error {
					if err := tx.Audit(AuditEvent{Kind: "thing.done", Actor: "system"}); err != nil {
						return err
					}
					if n%3 == 0 {
						return errors.ErrUnsupported
					}
					return tx.Audit(AuditEvent{Kind: "thing.done", Actor: "system"})
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
	for range 2 * mostRecent {
		s.wake(AuditEvent{Number: s.Latest() + 1})
	}
	if _, whole := s.Recent(1); whole {
		t.Error("what is long past is still in memory")
	}
	s.Close()
	again := open(t, dir)
	if again.Latest() != want {
		t.Errorf("after a restart the last is %d, want %d", again.Latest(), want)
	}
	if _, whole := again.Recent(want - 1); whole {
		t.Error("a new process has what an old one knew")
	}
	if events, whole := again.Recent(want); !whole || len(events) != 0 {
		t.Errorf("nothing has happened yet: %v %v", events, whole)
	}
}
