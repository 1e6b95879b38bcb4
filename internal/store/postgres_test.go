package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

func onPostgres(t *testing.T) (*store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	connection := storetest.Postgres(t, dir)
	s, err := store.OpenPostgres(t.Context(), dir, connection)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, connection
}

func TestOneGatewayADatabase(t *testing.T) {
	_, connection := onPostgres(t)
	if _, err := store.OpenPostgres(t.Context(), t.TempDir(), connection); !errors.Is(err, store.ErrInUse) {
		t.Fatalf("a second gateway on the same database: got %v, want ErrInUse", err)
	}
}

// Whoever loses the connection loses the right to write; it comes back with the next one unless somebody else has it.
func TestRightToWriteGoesWithTheConnection(t *testing.T) {
	s, connection := onPostgres(t)
	other, err := pgx.Connect(t.Context(), connection)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.WithoutCancel(t.Context()))
	cut := func(after string) {
		t.Helper()
		var holders int
		if err := other.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_locks
			WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&holders); err != nil || holders != 1 {
			t.Fatalf("%d connections held the lock, %v; want one", holders, err)
		}
		if after != "" {
			if _, err := other.Exec(t.Context(), after); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func() error {
		return s.Audit(t.Context(), store.AuditEvent{Kind: "k", Actor: "system"})
	}
	// The statement that finds the connection dead may fail; nothing is written twice or by somebody without the lock.
	again := func() (err error) {
		for range 5 {
			if err = write(); err == nil || errors.Is(err, store.ErrInUse) {
				return err
			}
		}
		return err
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	cut("")
	if err := again(); err != nil {
		t.Fatalf("the store did not come back: %v", err)
	}
	cut(`SELECT pg_advisory_lock(1511100487)`) // 0x5a119047
	if err := again(); !errors.Is(err, store.ErrInUse) {
		t.Fatalf("wrote beside another gateway: %v", err)
	}
	if _, err := other.Exec(t.Context(), `SELECT pg_advisory_unlock_all()`); err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Fatalf("the store did not come back: %v", err)
	}
	events, err := s.Outbox(t.Context(), 0, 10)
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, %v; want the three that were written", len(events), err)
	}
}

func TestUndoneTransactionLeavesNoGap(t *testing.T) {
	databases(t, func(t *testing.T, open opener) {
		s := opened(t, open, t.TempDir())
		undone := errors.New("undone")
		for i := range 4 {
			err := s.Do(t.Context(), func(tx *store.Tx) error {
				if err := tx.Audit(store.AuditEvent{Kind: "k", Actor: "system"}); err != nil || i%2 == 1 {
					return err
				}
				return undone
			})
			if err != nil && !errors.Is(err, undone) {
				t.Fatal(err)
			}
		}
		events, err := s.Outbox(t.Context(), 0, 10)
		if err != nil || len(events) != 2 || events[0].Number != 1 || events[1].Number != 2 {
			t.Fatalf("got %+v, %v; want numbers 1 and 2", events, err)
		}
	})
}

func TestConnectionStringIsNotShown(t *testing.T) {
	for _, connection := range []string{
		"postgres://gateway:hunter2@127.0.0.1:1/store?sslmode=nonsense",
		"postgres://gateway:hunter2@127.0.0.1:1/store?sslmode=disable",
		"host=127.0.0.1 port=1 user=gateway password=hunter2 sslmode=disable",
		"hunter2 is no connection string",
	} {
		_, err := store.OpenPostgres(t.Context(), t.TempDir(), connection)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}
