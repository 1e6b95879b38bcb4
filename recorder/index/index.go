// Package index finds text in recordings without reading them.
//
// It is one SQLite database beside the recordings, derived from them and disposable: what is in it can be made again from
// the recordings at any time, and it is made again when the file is missing, was written by another version or turns out
// damaged. Nothing that must be kept is kept here.
//
// A search gives exactly what reading all recordings through an Extractor would give. Text is compared as Fold leaves it:
// in lower case, any part of it. The database has the trigrams of every text (SQLite's FTS5); they lead to candidates,
// and each candidate's text is compared itself before it counts. What is shorter than three characters has no trigrams
// and is compared with every text there is.
package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"

	"modernc.org/sqlite"
)

// version is of the tables, of Fold and of the Extractor; an index of another one is made anew. Raise it too when the
// interpreters of the protocols make something else of the same recording.
const version = 3

// ErrDamaged is wrapped by errors that say that the file is no index any more: remove it and make it again.
var ErrDamaged = errors.New("the search index is damaged")

// Index is the open database. Safe for concurrent use; writes wait for each other.
type Index struct {
	path   string
	writes *sql.DB
	reads  *sql.DB

	mu   sync.Mutex // of writing
	next int64      // the number of the next session
}

// Entries are numbered so that a later session's come after an earlier one's: the session's number in the upper bits,
// the entry's in the lower.
const sessionBits = 32

func firstOf(session int64) int64 { return session << sessionBits }
func lastOf(session int64) int64  { return firstOf(session+1) - 1 }
func sessionOf(entry int64) int64 { return entry >> sessionBits }

// The tables. An entry's text is what can be found, each part of it on lines of its own; item is the rest of the item as
// JSON. The trigrams are of Fold(text) and without positions, which would double them and spare only comparisons.
const tables = `
CREATE TABLE sessions (
	number INTEGER PRIMARY KEY,
	session TEXT NOT NULL UNIQUE,
	header BLOB NOT NULL,
	protocol TEXT NOT NULL,
	target TEXT NOT NULL,
	account TEXT NOT NULL,
	grant_id TEXT NOT NULL,
	started INTEGER NOT NULL,
	entries INTEGER NOT NULL DEFAULT 0,
	bytes INTEGER NOT NULL DEFAULT 0,
	mask TEXT NOT NULL DEFAULT '',
	whole INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE entries (
	id INTEGER PRIMARY KEY,
	at INTEGER NOT NULL,
	failed INTEGER NOT NULL DEFAULT 0,
	text BLOB NOT NULL,
	item BLOB NOT NULL
);
CREATE INDEX entries_failed ON entries (id) WHERE failed;
CREATE VIRTUAL TABLE trigrams USING fts5 (text, tokenize = 'trigram case_sensitive 1', content = '', columnsize = 0, detail = none);
`

// Open opens the index at path. It makes a new, empty one where there is none, or none that this version can read, and
// says so by fresh.
func Open(ctx context.Context, path string) (x *Index, fresh bool, err error) {
	x, err = open(ctx, path)
	if err == nil && x != nil {
		return x, false, nil
	}
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, false, fmt.Errorf("open the search index: %w", err)
	}
	if err := Remove(path); err != nil {
		return nil, false, err
	}
	if x, err = create(ctx, path); err != nil {
		return nil, false, fmt.Errorf("make the search index: %w", err)
	}
	return x, true, nil
}

// Remove removes an index that is not open.
func Remove(path string) error {
	for _, end := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(path + end); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the search index: %w", err)
		}
	}
	return nil
}

// open opens what is there; nil where that is another version's, or nothing.
func open(ctx context.Context, path string) (*Index, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	x := &Index{path: path}
	found, err := 0, x.connect(ctx)
	if err == nil {
		err = x.writes.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&found)
	}
	if err == nil && found == version {
		// Reads the first pages of every table, so that a file cut short is noticed now.
		err = x.writes.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) + 1, (SELECT count(*) FROM (SELECT 1 FROM entries LIMIT 1)),
			(SELECT count(*) FROM (SELECT rowid FROM trigrams WHERE trigrams MATCH '"the"' LIMIT 1)) FROM sessions`).Scan(&x.next, new(int), new(int))
	}
	if err != nil || found != version {
		x.Close()
		return nil, classify(err)
	}
	return x, nil
}

func create(ctx context.Context, path string) (*Index, error) {
	x := &Index{path: path, next: 1}
	if err := x.connect(ctx); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	_, err := x.writes.ExecContext(ctx, tables+fmt.Sprintf("PRAGMA user_version = %d;", version))
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// connect opens the pools. With WAL and synchronous=NORMAL the file is consistent after any crash, a power cut included,
// which may take the last transactions; they are made again.
func (x *Index) connect(ctx context.Context) error {
	for _, pool := range []struct {
		db    **sql.DB
		size  int
		begin string
	}{{&x.writes, 1, "immediate"}, {&x.reads, 8, "deferred"}} {
		query := url.Values{
			"_pragma": {"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(10000)", "cache_size(-16000)"},
			"_txlock": {pool.begin},
		}
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: x.path, RawQuery: query.Encode()}).String())
		if err != nil {
			return err
		}
		*pool.db = db
		db.SetMaxOpenConns(pool.size)
		db.SetMaxIdleConns(pool.size)
		if err := db.PingContext(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the database.
func (x *Index) Close() error {
	var errs []error
	for _, db := range []*sql.DB{x.reads, x.writes} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// classify marks errors that mean a damaged file.
func classify(err error) error {
	if wrong, ok := errors.AsType[*sqlite.Error](err); ok {
		switch wrong.Code() & 0xff {
		case 1, 11, 24, 26: // SQLITE_ERROR (a table is missing), CORRUPT, FORMAT, NOTADB
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return err
}

// State is how far a session is in the index.
type State struct {
	Entries int64
	Bytes   int64  // of the recording when it was read whole
	Whole   bool   // the recording was read to its ending
	Mask    string // Batch.Mask of what came last
}

// Sessions lists what is in the index.
func (x *Index) Sessions(ctx context.Context) (map[string]State, error) {
	rows, err := x.reads.QueryContext(ctx, `SELECT session, entries, bytes, mask, whole FROM sessions`)
	if err != nil {
		return nil, classify(err)
	}
	defer rows.Close()
	all := map[string]State{}
	for rows.Next() {
		var session string
		var s State
		if err := rows.Scan(&session, &s.Entries, &s.Bytes, &s.Mask, &s.Whole); err != nil {
			return nil, classify(err)
		}
		all[session] = s
	}
	return all, classify(rows.Err())
}

// Fold is text as it is compared: in lower case, and without what a database's text can't have.
func Fold(text string) string {
	return strings.ReplaceAll(strings.ToLower(strings.ToValidUTF8(text, "\uFFFD")), "\x00", "\uFFFD")
}
