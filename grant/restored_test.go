package grant

import (
	"testing"
	"time"

	"sallyport/internal/refusal"
)

// What was open in a restored store ends, however young the backup is, once, and nothing that is asked for later.
func TestRestoredRevivesNothing(t *testing.T) {
	w := newWorld(t)
	active := w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
	approved := w.approved(job, "ro", "orders")
	waits := w.request(alice, "app", "orders")
	over := w.request(dave, "app", "orders")
	if _, err := w.Deny(t.Context(), bob, over.ID, "no"); err != nil {
		t.Fatal(err)
	}
	if err := w.db.MarkRestored(t.Context(), w.clocks.now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.state(active.ID, Ended, EndRestored)
	w.state(approved.ID, Ended, EndRestored)
	w.state(waits.ID, Lapsed, EndRestored)
	w.state(over.ID, Denied, "")
	_, err := w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "backup")
	if _, err := w.Approve(t.Context(), bob, waits.ID, ""); err == nil {
		t.Error("a request of before was approved")
	}

	again := w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
	w.restart()
	w.state(again.ID, Active, "")
}
