package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// mostRecent is how many committed events are kept in memory for those who follow them.
const mostRecent = 4096

// recent are the last committed audit events, in the order of their numbers. Its owner's lock guards it.
type recent struct {
	base   uint64       // the number before events' first
	events []AuditEvent // without a gap
	early  []AuditEvent // committed before one with a lower number has said so
	torn   bool         // it is not known whether one was committed, which then will never say so
}

// add takes a committed event in. Numbers are without a gap, so that one which is missing is about to come; but where it is not known
// of one whether it was committed, and a later one comes, it was: then what came before is in the audit log only.
func (r *recent) add(e AuditEvent) {
	next := func() uint64 { return r.base + uint64(len(r.events)) + 1 }
	if e.Number < next() { // passed over by that
		return
	}
	i, _ := slices.BinarySearchFunc(r.early, e, func(a, b AuditEvent) int { return int(int64(a.Number) - int64(b.Number)) })
	r.early = slices.Insert(r.early, i, e)
	if r.torn && r.early[0].Number > next() {
		r.base, r.events = r.early[0].Number-1, nil
	}
	r.torn = false
	for len(r.early) > 0 && r.early[0].Number == next() {
		r.events, r.early = append(r.events, r.early[0]), r.early[1:]
	}
	if over := len(r.events) - mostRecent; over > mostRecent/4 { // by many at once, so that it costs little
		r.base += uint64(over)
		r.events = slices.Clone(r.events[over:])
	}
}

// Recent returns the committed events with numbers above after, in order and without a gap, as far as they are in memory.
// It is false where some of them are not any more; the audit log has those.
func (s *Store) Recent(after uint64) ([]AuditEvent, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after < s.recent.base {
		return nil, false
	}
	from := min(after-s.recent.base, uint64(len(s.recent.events)))
	return slices.Clone(s.recent.events[from:]), true
}

// Latest is the number of the last event that Recent knows.
func (s *Store) Latest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recent.base + uint64(len(s.recent.events))
}

// lastNumber is the last number that was given.
func (s *Store) lastNumber(ctx context.Context) (number uint64, err error) {
	err = s.writes.QueryRowContext(ctx, s.dialect.lastNumber).Scan(&number)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find the last audit event: %w", err)
	}
	return number, nil
}
