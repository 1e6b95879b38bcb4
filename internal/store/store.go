// Package store is where a gateway keeps what must outlive it: one SQLite database in the state directory (Open), or one
// database of a PostgreSQL server (OpenPostgres).
//
// It gives transactions, migrations, the outbox of audit events and a lock on what it opened; each room keeps its own
// tables and SQL beside its own types. Writes are serialised through one connection and are durable when Do returns, so a
// transition and its audit event stand or fall together.
//
// Rooms write SQL that both databases understand, with "?" for parameters and columns of the types TEXT, INTEGER (of 64
// bits) and BLOB; postgres.go says how that is carried over.
package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	_ "modernc.org/sqlite" // the driver registers itself
)

// Store is the database and the lock on the state directory. Safe for concurrent use.
type Store struct {
	reads   *sql.DB
	writes  *sql.DB
	lock    *os.File
	dialect dialect

	mu      sync.Mutex
	waiting chan struct{} // closed and replaced when an audit event is committed
	recent  recent
}

// ErrLocked is returned by Open when another gateway uses the directory.
var ErrLocked = errors.New("another sallyport gateway is running on this state directory")

// dialect is what differs between the databases.
type dialect struct {
	goose      database.Dialect
	outbox     fs.FS                      // the store's own tables
	migrations func(fs.FS) (fs.FS, error) // from the rooms' words to the database's
	newEvent   string                     // inserts an audit event with the next number and returns that
	lastNumber string                     // the number last given; no row or 0: none was
	// raiseNumber makes %d the number last given.
	raiseNumber []string
}

var sqlite = dialect{
	goose:      database.DialectSQLite3,
	outbox:     must(fs.Sub(migrationFiles, "migrations/sqlite")),
	migrations: func(files fs.FS) (fs.FS, error) { return carried(files, ".postgres.sql", strings.NewReplacer()) },
	newEvent:   `INSERT INTO audit_outbox (body) VALUES (?) RETURNING number`,
	lastNumber: `SELECT seq FROM sqlite_sequence WHERE name = 'audit_outbox'`,
	raiseNumber: []string{
		`DELETE FROM sqlite_sequence WHERE name = 'audit_outbox'`,
		`INSERT INTO sqlite_sequence (name, seq) VALUES ('audit_outbox', %d)`,
	},
}

// open locks dir, which it makes where it is missing (mode 0700).
func open(dir string, d dialect) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	lock, err := lockDirectory(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return &Store{lock: lock, dialect: d, waiting: make(chan struct{})}, nil
}

// Lock takes the lock of a state directory, which must be there, as a gateway on it does, until the result is closed. It is
// for what may only be done while no gateway runs.
func Lock(dir string) (io.Closer, error) {
	lock, err := lockDirectory(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return lock, nil
}

// Open locks dir, makes it where it is missing (mode 0700) and opens the SQLite database in it, which is in WAL mode with
// synchronous=FULL; write transactions begin immediately.
func Open(ctx context.Context, dir string) (*Store, error) {
	s, err := open(dir, sqlite)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "sallyport.db")
	if s.writes, err = openDatabase(ctx, path, 1, "immediate"); err == nil {
		s.reads, err = openDatabase(ctx, path, 4, "deferred")
	}
	if err == nil {
		err = s.Migrate(ctx, "store", s.dialect.outbox)
	}
	if err == nil {
		s.recent.base, err = s.lastNumber(ctx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

// openDatabase opens a pool of that many connections.
func openDatabase(ctx context.Context, path string, connections int, begin string) (*sql.DB, error) {
	query := url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "busy_timeout(10000)"},
		"_txlock": {begin},
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// Migrate brings the tables of one room up to date: migrations is a file system of goose's *.sql files, whose numbers
// are the room's own.
func (s *Store) Migrate(ctx context.Context, room string, migrations fs.FS) error {
	versions, err := database.NewStore(s.dialect.goose, "migrations_"+room)
	if err != nil {
		return err
	}
	own, err := s.dialect.migrations(migrations)
	if err != nil {
		return fmt.Errorf("migrations of %s: %w", room, err)
	}
	provider, err := goose.NewProvider("", s.writes, own, goose.WithStore(versions), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrations of %s: %w", room, err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", room, err)
	}
	return nil
}

// commitTime bounds how long a commit may take, and finding out what became of one.
const commitTime = 30 * time.Second

// Tx is one write transaction.
type Tx struct {
	*sql.Tx
	store *Store
	after []func()
	// The last of its audit events, as it stands in the outbox; 0 where there is none.
	number uint64
	body   []byte
}

// AfterCommit runs f once the transaction is durable, and not if it fails.
func (tx *Tx) AfterCommit(f func()) { tx.after = append(tx.after, f) }

// Do runs f in a write transaction, which commits when f returns nil. Writers wait for each other; f must not wait for
// anything but the database. When ctx ends before f has returned nothing is written; after that the commit is no longer ended by it,
// for whether it has taken place then would not be known: what is kept in memory beside the store (AfterCommit) would differ from it.
func (s *Store) Do(ctx context.Context, f func(*Tx) error) error {
	inside, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	leave := context.AfterFunc(ctx, cancel)
	defer leave()
	raw, err := s.writes.BeginTx(inside, nil)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("begin: %w", err)
	}
	tx := &Tx{Tx: raw, store: s}
	defer raw.Rollback() // after a commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	if !leave() {
		return fmt.Errorf("commit: %w", context.Cause(ctx))
	}
	late := time.AfterFunc(commitTime, cancel)
	defer late.Stop()
	if err := raw.Commit(); err != nil && !s.committed(ctx, tx) {
		return fmt.Errorf("commit: %w", err)
	}
	for _, f := range tx.after {
		f()
	}
	return nil
}

// committed tells whether a transaction has taken place although its commit failed, as when the connection was lost while the server
// was at it: then its last audit event stands in the outbox. It looks where one may write, which is not before the server has done
// with the connection that was lost. Where it can't be known, those who follow the events look in the audit log for what may be there.
func (s *Store) committed(ctx context.Context, tx *Tx) bool {
	if tx.number == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTime)
	defer cancel()
	var body []byte
	var err error
	for range 2 { // the first may find another connection dead
		err = s.writes.QueryRowContext(ctx, `SELECT body FROM audit_outbox WHERE number = ?`, tx.number).Scan(&body)
		if err == nil || errors.Is(err, sql.ErrNoRows) {
			break
		}
	}
	if err == nil && bytes.Equal(body, tx.body) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.torn = true
	return false
}

// Read is the pool for queries that change nothing; each sees the last committed state.
func (s *Store) Read() *sql.DB { return s.reads }

// Close closes the database and gives up the lock.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.reads, s.writes} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// AuditEvent is one event of the control plane: who did what to what, and how it went.
type AuditEvent struct {
	// Number is given by the outbox, from 1 without a gap.
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	// Kind is a stable dotted word: "grant.approved", "login.succeeded", "session.refused".
	Kind string `json:"kind"`
	// Actor is issuer + " " + subject, or "system"; ActorName is for people.
	Actor     string `json:"actor"`
	ActorName string `json:"actor_name,omitempty"`
	Client    string `json:"client,omitempty"` // address
	Target    string `json:"target,omitempty"`
	Account   string `json:"account,omitempty"`
	Grant     string `json:"grant,omitempty"`
	Session   string `json:"session,omitempty"`
	// Outcome is "ok" or a refusal code.
	Outcome string            `json:"outcome"`
	Reason  string            `json:"reason,omitempty"`
	Fields  map[string]string `json:"fields,omitempty"`
}

// Audit puts an event into the outbox, in the same transaction as the change it tells of. Time is set where it is zero.
func (tx *Tx) Audit(event AuditEvent) error {
	if event.Time.IsZero() {
		event.Time = time.Now().UTC()
	}
	if event.Outcome == "" {
		event.Outcome = "ok"
	}
	body, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("audit event %s: %w", event.Kind, err)
	}
	if err := tx.QueryRow(tx.store.dialect.newEvent, body).Scan(&event.Number); err != nil {
		return fmt.Errorf("audit event %s: %w", event.Kind, err)
	}
	tx.number, tx.body = event.Number, body
	tx.AfterCommit(func() { tx.store.wake(event) })
	return nil
}

// Audit is Tx.Audit in a transaction of its own, for events that tell of no change here (a refusal, a read).
func (s *Store) Audit(ctx context.Context, event AuditEvent) error {
	return s.Do(ctx, func(tx *Tx) error { return tx.Audit(event) })
}

// Outbox returns up to limit events with numbers above after, in order.
func (s *Store) Outbox(ctx context.Context, after uint64, limit int) ([]AuditEvent, error) {
	rows, err := s.reads.QueryContext(ctx, `SELECT number, body FROM audit_outbox WHERE number > ? ORDER BY number LIMIT ?`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	defer rows.Close()
	var events []AuditEvent
	for rows.Next() {
		var number uint64
		var body []byte
		if err := rows.Scan(&number, &body); err != nil {
			return nil, fmt.Errorf("read the outbox: %w", err)
		}
		var event AuditEvent
		if err := json.Unmarshal(body, &event); err != nil {
			return nil, fmt.Errorf("audit event %d: %w", number, err)
		}
		event.Number = number
		events = append(events, event)
	}
	return events, rows.Err()
}

// Moved forgets the events up to that number, which now stand in the audit log. Their numbers are not used again.
func (s *Store) Moved(ctx context.Context, number uint64) error {
	return s.Do(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`DELETE FROM audit_outbox WHERE number <= ?`, number)
		return err
	})
}

// Committed returns a channel that is closed when the next audit event has been committed. Take it before reading the
// outbox, so that none is missed.
func (s *Store) Committed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}

func (s *Store) wake(event AuditEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.add(event)
	close(s.waiting)
	s.waiting = make(chan struct{})
}
