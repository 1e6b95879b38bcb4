// Package idempotency lets a client that does not know whether its request arrived send it again.
//
// A request with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header) is carried out once for each caller,
// operation and key; who sends the same again within a day is given the first answer, also after a restart. It promises that
// two of them never run at once, and that a key never stands for two different requests. What an answer holds that may be
// said only once is not kept.
package idempotency

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

const (
	// Life is how long a key is remembered.
	Life = 24 * time.Hour
	// longest and shortest bound a key, in bytes.
	shortest, longest = 1, 255
	// most bounds the keys that are remembered of one caller.
	most = 10_000
)

// Keys are those that are remembered. Safe for concurrent use.
type Keys struct {
	store *store.Store
	now   func() time.Time
}

// Open prepares the table.
func Open(ctx context.Context, s *store.Store) (*Keys, error) {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	if err := s.Migrate(ctx, "idempotency", migrations); err != nil {
		return nil, err
	}
	return &Keys{store: s, now: time.Now}, nil
}

// Request is one that carries a key.
type Request struct {
	Caller    string // authn.Identity.Key
	Operation string
	Key       string
	Content   []byte // what makes it the same request: path and body
}

func (r Request) id() []byte { return sum(r.Caller, r.Operation, r.Key) }

// sum is a hash of texts that no other texts have.
func sum(texts ...string) []byte {
	h := sha256.New()
	for _, t := range texts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(t)))
		h.Write(size[:])
		h.Write([]byte(t))
	}
	return h.Sum(nil)
}

// Answer is what was answered to the first request with a key.
type Answer struct {
	Status int
	Kind   string // content type
	Body   []byte
}

// Begin claims a request's key. With nil the caller carries it out, and calls Finish or Forget; an answer is the one that was
// given before. It refuses a key that belongs to another request, or to one that is under way.
func (k *Keys) Begin(ctx context.Context, r Request) (*Answer, error) {
	if len(r.Key) < shortest || len(r.Key) > longest || !printable(r.Key) {
		return nil, refusal.New(refusal.Invalid, "the Idempotency-Key is no key").WithDetail("it holds %d to %d visible ASCII characters", shortest, longest).
			WithHint("use a random one, such as a UUID, for each thing that is to happen once")
	}
	now, content, caller := k.now(), sum(string(r.Content)), sum(r.Caller)
	var before *Answer
	err := k.store.Do(ctx, func(tx *store.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE began <= ? AND caller = ?`, now.Add(-Life).UnixMilli(), caller); err != nil {
			return fmt.Errorf("forget old keys: %w", err)
		}
		var a Answer
		var first []byte
		err := tx.QueryRowContext(ctx, `SELECT request, status, kind, body FROM idempotency_keys WHERE id = ?`, r.id()).Scan(&first, &a.Status, &a.Kind, &a.Body)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return k.claim(ctx, tx, r, caller, content, now)
		case err != nil:
			return fmt.Errorf("look up the key: %w", err)
		case string(first) != string(content):
			return refusal.New(refusal.Invalid, "this Idempotency-Key was used for another request").WithHint("use a new key for each thing that is to happen once")
		case a.Status == 0:
			return refusal.New(refusal.Conflict, "a request with this Idempotency-Key is under way, or its end was lost").
				WithHint("look whether it has done what you want; a new key does it again")
		}
		before = &a
		return nil
	})
	return before, err
}

func (k *Keys) claim(ctx context.Context, tx *store.Tx, r Request, caller, content []byte, now time.Time) error {
	var kept int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM idempotency_keys WHERE caller = ?`, caller).Scan(&kept); err != nil {
		return fmt.Errorf("count the keys: %w", err)
	}
	if kept >= most {
		return refusal.New(refusal.TooMany, "you used %d Idempotency-Keys within a day", most).WithHint("send the request without one, or tomorrow")
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO idempotency_keys (id, caller, request, began) VALUES (?, ?, ?, ?)`, r.id(), caller, content, now.UnixMilli()); err != nil {
		return fmt.Errorf("keep the key: %w", err)
	}
	return nil
}

// Finish keeps the answer for those who ask again.
func (k *Keys) Finish(ctx context.Context, r Request, a Answer) error {
	if a.Body == nil {
		a.Body = []byte{}
	}
	return k.store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE idempotency_keys SET status = ?, kind = ?, body = ? WHERE id = ?`, a.Status, a.Kind, a.Body, r.id())
		return err
	})
}

// Forget frees the key of a request that did nothing, so that it can be tried again.
func (k *Keys) Forget(ctx context.Context, r Request) error {
	return k.store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE id = ?`, r.id())
		return err
	})
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
