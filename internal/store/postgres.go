package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3/database"
)

// This file is a store on a PostgreSQL server. One gateway at a time uses a database: the one connection that writes also
// holds an advisory lock, so that whoever loses the connection loses the right to write with it, and whoever comes second
// is refused.

// lockNumber is the advisory lock's. It is arbitrary and must never change: an older gateway looks at the same.
const lockNumber = 0x5a11_9047

// ErrInUse is returned by OpenPostgres, and by Do after a connection was lost, when another gateway has the database.
var ErrInUse = errors.New("another sallyport gateway is using this database")

// lockPatience is how long to wait for another gateway to let go.
const lockPatience = 3 * time.Second

// postgresReads is how many connections read at once.
const postgresReads = 4

// postgres carries the rooms' words over.
var postgres = dialect{
	goose:      database.DialectPostgres,
	outbox:     must(fs.Sub(migrationFiles, "migrations/postgres")),
	migrations: func(files fs.FS) (fs.FS, error) { return carried(files, ".sqlite.sql", postgresTypes) },
	// A sequence leaves gaps where a transaction is undone, and a gap in the audit log would mean an event is missing.
	newEvent: `WITH next AS (UPDATE audit_number SET last = last + 1 RETURNING last)
		INSERT INTO audit_outbox (number, body) SELECT last, ? FROM next RETURNING number`,
	lastNumber:  `SELECT last FROM audit_number`,
	raiseNumber: []string{`UPDATE audit_number SET last = %d`},
}

// OpenPostgres locks dir, makes it where it is missing (mode 0700), and opens the database that the connection string names
// (a URL or key=value pairs, as libpq's; https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING). Its
// user needs to own a schema of the database. Errors do not hold the password.
func OpenPostgres(ctx context.Context, dir, connection string) (*Store, error) {
	config, err := parseConnection(connection)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["statement_timeout"] = "30s"
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "60s" // what a gateway that froze holds is given back
	config.RuntimeParams["synchronous_commit"] = "on"                   // durable when Do returns, whatever the server's default is
	s, err := open(dir, postgres)
	if err != nil {
		return nil, err
	}
	s.writes = openPostgres(config, 1, takeLock)
	s.reads = openPostgres(config, postgresReads, nil)
	if err = s.writes.PingContext(ctx); err == nil {
		err = s.Migrate(ctx, "store", s.dialect.outbox)
	}
	if err == nil {
		s.recent.base, err = s.lastNumber(ctx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open the store at %s: %w", config.Host, err)
	}
	return s, nil
}

// openPostgres opens a pool of that many connections; each is prepared by afterConnect.
func openPostgres(config *pgx.ConnConfig, connections int, afterConnect func(context.Context, *pgx.Conn) error) *sql.DB {
	var options []stdlib.OptionOpenDB
	if afterConnect != nil {
		options = append(options, stdlib.OptionAfterConnect(afterConnect))
	}
	db := sql.OpenDB(connector{stdlib.GetConnector(*config, options...)})
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

// takeLock makes the connection the one that may write. The lock goes with the connection; that of a gateway that was just
// stopped may take the server a moment to give up.
func takeLock(ctx context.Context, conn *pgx.Conn) error {
	again := time.NewTicker(lockPatience / 30)
	defer again.Stop()
	for until := time.Now().Add(lockPatience); ; {
		var taken bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(lockNumber)).Scan(&taken); err != nil {
			return fmt.Errorf("lock the database: %w", err)
		}
		if taken {
			return nil
		}
		if time.Now().After(until) {
			return ErrInUse
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}

// parseConnection reads a connection string. The error does not show it.
func parseConnection(connection string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(connection)
	if err != nil {
		return nil, fmt.Errorf("the store's connection string: %w", redacted(err, connection))
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	config.RuntimeParams["application_name"] = "sallyport"
	return config, nil
}

// redacted says what is wrong with a connection string without showing it.
func redacted(err error, connection string) error {
	if strings.Contains(err.Error(), connection) {
		return errors.New("it can't be read; write it like postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full")
	}
	return err
}

// postgresTypes turns the types of the rooms' tables into PostgreSQL's. Texts are compared by their bytes, as SQLite does,
// whatever the database's locale.
var postgresTypes = strings.NewReplacer(
	" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", " BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
	" INTEGER PRIMARY KEY AUTOINCREMENT", " BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
	" INTEGER", " BIGINT",
	" TEXT", ` TEXT COLLATE "C"`,
	" BLOB", " BYTEA",
)
