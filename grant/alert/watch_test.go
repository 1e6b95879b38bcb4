package alert

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// Every event is looked at and each alert told once, over restarts and where memory has forgotten what happened.
func TestEachIsToldOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	config := &configs.Config{
		Targets: []configs.Target{{Name: "orders"}},
		Alerts:  []configs.Alert{{Name: "glass", When: `event.kind == "grant.break_glass"`, Count: 1, By: "actor", To: []string{"webhook/ops"}}},
	}
	var db *store.Store
	var watcher *Watcher
	begin := func() {
		t.Helper()
		var err error
		if db, err = storetest.Open(ctx, dir); err != nil {
			t.Fatal(err)
		}
		grants, err := grant.Open(ctx, config, db, nil) // whose outbox it is
		if err != nil {
			t.Fatal(err)
		}
		grants.Close()
		watcher, err = Open(ctx, Options{Config: config, Store: db, Audit: func(ctx context.Context, after uint64) iter.Seq2[store.AuditEvent, error] {
			return func(yield func(store.AuditEvent, error) bool) {
				events, err := db.Outbox(ctx, after, 100_000) // nothing moves them here
				if err != nil {
					yield(store.AuditEvent{}, err)
				}
				for _, e := range events {
					if !yield(e, nil) {
						return
					}
				}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	happen := func(kind, reason string) {
		t.Helper()
		if err := db.Audit(ctx, store.AuditEvent{Kind: kind, Actor: "i alice", Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	await := func(want ...string) {
		t.Helper()
		for {
			committed := db.Committed()
			var events []grant.Event
			if err := db.Do(ctx, func(tx *store.Tx) (err error) { events, _, err = grant.TakeEvents(ctx, tx, 100); return err }); err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Alert == nil || e.Kind != grant.EventAlert {
					t.Fatalf("%+v", e)
				}
				told = append(told, e.Alert.Event.Reason)
			}
			if slices.Equal(told, want) {
				return
			}
			select {
			case <-committed:
			case <-ctx.Done():
				t.Fatalf("told %q instead of %q", told, want)
			}
		}
	}
	begin()
	happen("grant.break_glass", "first")
	happen("grant.active", "")
	await("first")
	watcher.Close()
	happen("grant.break_glass", "while nobody looks")
	db.Close()
	begin() // memory knows nothing of that
	await("first", "while nobody looks")
	for i := range 2 * batch {
		happen("grant.active", fmt.Sprint(i))
	}
	happen("grant.break_glass", "after many")
	await("first", "while nobody looks", "after many")

	if err := watcher.Reload(&configs.Config{Alerts: []configs.Alert{{Name: "x", When: "nobody", Count: 1}}}); err == nil {
		t.Error("a condition with mistakes was taken")
	}
	happen("grant.break_glass", "with the old rules")
	await("first", "while nobody looks", "after many", "with the old rules")
	watcher.Close()
	db.Close()
}
