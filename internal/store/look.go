package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
)

// This file opens a store that a gateway may be running on, for nothing but reading.

// LookSQLite opens the database of a state directory, which must be there. It takes no lock and writes nothing; on a database that no
// gateway has open it makes SQLite's two files beside it, so it is for the user whom the gateway runs as.
func LookSQLite(ctx context.Context, state string) (*sql.DB, error) {
	path := filepath.Join(state, databaseFile)
	if _, err := os.Stat(path); err != nil { // opening would make it
		return nil, fmt.Errorf("look into the store: %w", err)
	}
	db, err := openDatabase(ctx, path, 1, "deferred")
	if err != nil {
		return nil, fmt.Errorf("look into the store: %s: %w", path, err)
	}
	if _, err := db.ExecContext(ctx, `PRAGMA query_only = ON`); err != nil { // of the one connection
		db.Close()
		return nil, fmt.Errorf("look into the store: %s: %w", path, err)
	}
	return db, nil
}

// LookPostgres opens the database that a connection string names (see OpenPostgres).
func LookPostgres(ctx context.Context, connection string) (*sql.DB, error) {
	config, err := parseConnection(connection)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	db := openPostgres(config, 1, nil)
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("look into the store at %s: %w", config.Host, err)
	}
	return db, nil
}
