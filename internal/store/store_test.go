package store_test

import (
	"context"
	"errors"
	"testing"
	"testing/fstest"
	"time"

	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// opener opens the store of a directory.
type opener func(ctx context.Context, dir string) (*store.Store, error)

// databases runs a test for each kind of store.
func databases(t *testing.T, test func(t *testing.T, open opener)) {
	t.Run("sqlite", func(t *testing.T) { test(t, store.Open) })
	t.Run("postgres", func(t *testing.T) {
		test(t, func(ctx context.Context, dir string) (*store.Store, error) {
			return store.OpenPostgres(ctx, dir, storetest.Postgres(t, dir))
		})
	})
}

func opened(t *testing.T, open opener, dir string) *store.Store {
	t.Helper()
	s, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSecondGatewayIsRefused(t *testing.T) {
	databases(t, func(t *testing.T, open opener) {
		dir := t.TempDir()
		opened(t, open, dir)
		if _, err := open(t.Context(), dir); !errors.Is(err, store.ErrLocked) {
			t.Fatalf("second Open: got %v, want ErrLocked", err)
		}
	})
}

func TestEventStandsOrFallsWithItsChange(t *testing.T) {
	databases(t, func(t *testing.T, open opener) {
		dir := t.TempDir()
		s := opened(t, open, dir)
		files := fstest.MapFS{"00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE things (name TEXT);\n")}}
		for range 2 { // the second time there is nothing to do
			if err := s.Migrate(t.Context(), "test", files); err != nil {
				t.Fatal(err)
			}
		}
		failed := errors.New("failed")
		err := s.Do(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.Exec(`INSERT INTO things VALUES ('a')`); err != nil {
				return err
			}
			if err := tx.Audit(store.AuditEvent{Kind: "thing.made", Actor: "system"}); err != nil {
				return err
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
		if events, err := s.Outbox(t.Context(), 0, 10); err != nil || len(events) != 0 {
			t.Fatalf("the event of a change undone was kept: %v %v", events, err)
		}
		committed := s.Committed()
		if err := s.Audit(t.Context(), store.AuditEvent{Kind: "thing.seen", Actor: "system"}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-committed:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody was woken")
		}
	})
}

func TestNumbersAreNotReusedAfterMove(t *testing.T) {
	databases(t, func(t *testing.T, open opener) {
		dir := t.TempDir()
		s := opened(t, open, dir)
		ctx := context.Background()
		for range 3 {
			if err := s.Audit(ctx, store.AuditEvent{Kind: "k", Actor: "system"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Moved(ctx, 3); err != nil {
			t.Fatal(err)
		}
		s.Close()
		s = opened(t, open, dir)
		if err := s.Audit(ctx, store.AuditEvent{Kind: "k", Actor: "system"}); err != nil {
			t.Fatal(err)
		}
		events, err := s.Outbox(ctx, 0, 10)
		if err != nil || len(events) != 1 || events[0].Number != 4 {
			t.Fatalf("got %+v, %v; want one event with number 4", events, err)
		}
	})
}
