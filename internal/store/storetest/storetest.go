// Package storetest opens the stores that the rooms' tests stand on: SQLite, or, where SALLYPORT_TEST_STORE is "postgres", a
// database of the server that SALLYPORT_TEST_POSTGRES names (test/tools/with-postgres starts one). So the same tests hold
// for both.
package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/internal/store"
)

// Open opens the store of a state directory. The same directory has the same database, also after Close.
func Open(ctx context.Context, dir string) (*store.Store, error) {
	if os.Getenv("SALLYPORT_TEST_STORE") != "postgres" {
		return store.Open(ctx, dir)
	}
	connection, err := database(ctx, dir)
	if err != nil {
		return nil, err
	}
	return store.OpenPostgres(ctx, dir, connection)
}

// New opens the store of a state directory for one test, which fails where that fails, and closes it when the test has ended.
func New(t testing.TB, dir string) *store.Store {
	t.Helper()
	s, err := Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Postgres returns the connection string of a state directory's database on a real server. The test is skipped where none is
// running; `make test` runs one.
func Postgres(t *testing.T, dir string) string {
	t.Helper()
	if os.Getenv("SALLYPORT_TEST_POSTGRES") == "" {
		t.Skip("needs a server: test/tools/with-postgres go test ./internal/store/...")
	}
	connection, err := database(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return connection
}

// Copy copies the store of a state directory, which must be closed, and returns what puts the copy in its place.
func Copy(t *testing.T, dir string) (restore func()) {
	t.Helper()
	if os.Getenv("SALLYPORT_TEST_STORE") != "postgres" {
		path := filepath.Join(dir, "sallyport.db")
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(statements ...string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), os.Getenv("SALLYPORT_TEST_POSTGRES"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		for _, statement := range statements {
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
	}
	name := databaseName(dir)
	run(`CREATE DATABASE ` + name + `_copy TEMPLATE ` + name)
	return func() {
		t.Helper()
		run(`DROP DATABASE `+name+` WITH (FORCE)`, `CREATE DATABASE `+name+` TEMPLATE `+name+`_copy`)
	}
}

// Contents returns everything that the store of a state directory holds outside of that directory: nothing for SQLite, whose
// file is in it.
func Contents(t *testing.T, dir string) []byte {
	t.Helper()
	if os.Getenv("SALLYPORT_TEST_STORE") != "postgres" {
		return nil
	}
	conn, err := pgx.Connect(t.Context(), Postgres(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) == 0 {
		t.Fatalf("%d tables, %v", len(tables), err)
	}
	var contents []byte
	for _, table := range tables {
		rows, err := conn.Query(t.Context(), `SELECT * FROM `+pgx.Identifier{table}.Sanitize())
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			for _, value := range rows.RawValues() {
				contents = append(append(contents, value...), '\n')
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return contents
}

func databaseName(dir string) string {
	hash := sha256.Sum256([]byte(dir))
	return "test_" + hex.EncodeToString(hash[:8])
}

// database makes the database where it is missing and returns its connection string.
func database(ctx context.Context, dir string) (string, error) {
	server := os.Getenv("SALLYPORT_TEST_POSTGRES")
	if server == "" {
		return "", errors.New("SALLYPORT_TEST_POSTGRES names no server; see test/tools/with-postgres")
	}
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", fmt.Errorf("connect to the tests' server: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	name := databaseName(dir)
	_, err = conn.Exec(ctx, `CREATE DATABASE `+name)
	if e := (*pgconn.PgError)(nil); err != nil && (!errors.As(err, &e) || e.Code != "42P04") { // duplicate_database
		return "", fmt.Errorf("make the tests' database: %w", err)
	}
	return strings.Replace(server, "dbname=postgres", "dbname="+name, 1), nil
}
