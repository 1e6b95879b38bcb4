package store_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// slowCommits has commits take until the lock 1 is free that the returned connection holds.
func slowCommits(t *testing.T, connection string) *pgx.Conn {
	t.Helper()
	other, err := pgx.Connect(t.Context(), connection)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close(context.Background()) })
	_, err = other.Exec(t.Context(), `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON audit_outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();
		SELECT pg_advisory_lock(1)`)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// committing waits until the gateway's connection waits in its commit, and returns that one's process.
func committing(t *testing.T, other *pgx.Conn) (pid int) {
	t.Helper()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		err := other.QueryRow(t.Context(), `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`).Scan(&pid)
		if err == nil {
			return pid
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
	}
	t.Fatal("nobody commits")
	return 0
}

// TestCallerLeavesInACommit: who asked for a change and goes away while it is committed undoes nothing and leaves nobody in doubt: it has
// taken place, and what is kept in memory beside it is told.
func TestCallerLeavesInACommit(t *testing.T) {
	s, connection := onPostgres(t)
	other := slowCommits(t, connection)
	ctx, leave := context.WithCancel(t.Context())
	told, done := false, make(chan error, 1)
	go func() {
		done <- s.Do(ctx, func(tx *store.Tx) error {
			tx.AfterCommit(func() { told = true })
			return tx.Audit(store.AuditEvent{Kind: "grant.revoked", Actor: "system"})
		})
	}()
	committing(t, other)
	leave()
	if _, err := other.Exec(t.Context(), `SELECT pg_advisory_unlock(1)`); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !told {
		t.Fatalf("it was told as %v, and memory: %v", err, told)
	}
	if events, whole := s.Recent(0); !whole || len(events) != 1 {
		t.Errorf("%v %v", events, whole)
	}
	// Who leaves before that has changed nothing.
	gone, leave := context.WithCancel(t.Context())
	err := s.Do(gone, func(tx *store.Tx) error {
		leave()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestConnectionLostInACommit: a server that breaks a commit off has undone it; the next change has its number, and nobody who follows
// the events waits for what never came.
func TestConnectionLostInACommit(t *testing.T) {
	s, connection := onPostgres(t)
	other := slowCommits(t, connection)
	done := make(chan error, 1)
	go func() { done <- s.Audit(t.Context(), store.AuditEvent{Kind: "first", Actor: "system"}) }()
	if _, err := other.Exec(t.Context(), `SELECT pg_terminate_backend($1, 10000)`, committing(t, other)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Fatal("what was undone was told as done")
	}
	if _, err := other.Exec(t.Context(), `SELECT pg_advisory_unlock(1)`); err != nil {
		t.Fatal(err)
	}
	if err := s.Audit(t.Context(), store.AuditEvent{Kind: "second", Actor: "system"}); err != nil {
		t.Fatal(err)
	}
	if events, whole := s.Recent(0); !whole || len(events) != 1 || events[0].Kind != "second" || events[0].Number != 1 {
		t.Errorf("%v %v", events, whole)
	}
}

// TestAnswerToACommitIsLost: where the server has committed, and only its answer is lost, the change is told as done.
func TestAnswerToACommitIsLost(t *testing.T) {
	dir := t.TempDir()
	config, err := pgx.ParseConfig(storetest.Postgres(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var lose atomic.Bool // the next answer, and the connection with it
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			network, address := pgconnAddress(config)
			server, err := net.Dial(network, address)
			if err != nil {
				t.Error(err)
				client.Close()
				return
			}
			go func() { _, _ = io.Copy(server, client); server.Close() }()
			go func() {
				defer client.Close()
				buffer := make([]byte, 64<<10)
				for {
					n, err := server.Read(buffer)
					if err != nil || lose.CompareAndSwap(true, false) {
						return
					}
					if _, err := client.Write(buffer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	at := listener.Addr().(*net.TCPAddr)
	s, err := store.OpenPostgres(t.Context(), dir, "host=127.0.0.1 port="+portOf(at)+" user="+config.User+" dbname="+config.Database+" sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	told := 0
	for _, kind := range []string{"first", "second"} {
		err := s.Do(t.Context(), func(tx *store.Tx) error {
			tx.AfterCommit(func() { told++ })
			if err := tx.Audit(store.AuditEvent{Kind: kind, Actor: "system"}); err != nil {
				return err
			}
			lose.Store(kind == "first")
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	if events, whole := s.Recent(0); told != 2 || !whole || len(events) != 2 || events[0].Kind != "first" {
		t.Errorf("%v %v, told %d times", events, whole, told)
	}
}

// pgconnAddress is where a configuration's server listens.
func pgconnAddress(config *pgx.ConnConfig) (network, address string) {
	if filepath.IsAbs(config.Host) {
		return "unix", filepath.Join(config.Host, ".s.PGSQL.5432")
	}
	return "tcp", net.JoinHostPort(config.Host, portOf(&net.TCPAddr{Port: int(config.Port)}))
}

func portOf(at *net.TCPAddr) string {
	_, port, _ := net.SplitHostPort((&net.TCPAddr{IP: net.IPv4zero, Port: at.Port}).String())
	return port
}
