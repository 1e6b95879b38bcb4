package store

import (
	"embed"
	"io/fs"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// outboxMigrations are the store's own tables.
var outboxMigrations = must(fs.Sub(migrationFiles, "migrations"))

func must(f fs.FS, err error) fs.FS {
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return f
}
