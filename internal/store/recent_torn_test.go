package store

import "testing"

// TestTornRecent: where it is not known whether an event was committed, those who follow neither wait for it for ever nor pass over what
// comes after it: they are sent to the audit log, once.
func TestTornRecent(t *testing.T) {
	var r recent
	event := func(number uint64) AuditEvent { return AuditEvent{Number: number} }
	r.add(event(1))
	r.torn = true // of 2 nothing is known
	r.add(event(3))
	if r.base != 2 || len(r.events) != 1 || len(r.early) != 0 {
		t.Fatalf("it was committed: %+v", r)
	}
	r.torn = true // of 4 neither, but that was undone
	r.add(event(4))
	r.add(event(6))
	r.add(event(5))
	if r.base != 2 || len(r.events) != 4 || r.torn {
		t.Fatalf("it was undone: %+v", r)
	}
	r.torn = true // of 8, while 7 has not said so yet
	r.add(event(9))
	r.add(event(7))
	r.add(event(10))
	if r.base != 8 || len(r.events) != 2 || len(r.early) != 0 {
		t.Fatalf("one was late: %+v", r)
	}
}
