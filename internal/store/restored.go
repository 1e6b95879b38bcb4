package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A database that was brought back from a backup knows nothing of what was ended or used up since. So it is marked, in the
// transaction or the file that brings it back, and each room that keeps rights ends them before anybody can use one.

// Restoration is one bringing back.
type Restoration struct {
	Made time.Time // when the backup was
	At   time.Time // when it was brought back
}

// Restored tells a room whether the database was brought back from a backup since the room last asked. What the room ends
// because of it, it ends in this transaction: once that is committed it is not told again.
func (tx *Tx) Restored(ctx context.Context, room string) (r Restoration, restored bool, err error) {
	var id, made, at int64
	err = tx.QueryRowContext(ctx, `SELECT id, made, at FROM restored
		WHERE id > COALESCE((SELECT id FROM restored_seen WHERE room = ?), 0) ORDER BY id DESC LIMIT 1`, room).Scan(&id, &made, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("read whether the store was restored: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO restored_seen (room, id) VALUES (?, ?) ON CONFLICT (room) DO UPDATE SET id = ?`, room, id, id); err != nil {
		return r, false, fmt.Errorf("note that the store was restored: %w", err)
	}
	return Restoration{Made: time.Unix(0, made).UTC(), At: time.Unix(0, at).UTC()}, true, nil
}

// markRestored writes it down.
const markRestored = `INSERT INTO restored (id, made, at) SELECT COALESCE(max(id), 0) + 1, ?, ? FROM restored`

// MarkRestored says that the database was brought back from a backup of that time.
func (s *Store) MarkRestored(ctx context.Context, made time.Time) error {
	return s.Do(ctx, func(tx *Tx) error {
		if _, err := tx.ExecContext(ctx, markRestored, made.UnixNano(), time.Now().UnixNano()); err != nil {
			return fmt.Errorf("mark the store as restored: %w", err)
		}
		return nil
	})
}

// RaiseNumber makes the next audit event's number greater than that one, which stands in the audit log: a database that was
// brought back would else give it again, and who moves events by their numbers would take the new one for moved.
func (s *Store) RaiseNumber(ctx context.Context, number uint64) error {
	last, err := s.lastNumber(ctx)
	if err != nil || last >= number {
		return err
	}
	return s.Do(ctx, func(tx *Tx) error {
		for _, statement := range s.dialect.raiseNumber {
			if _, err := tx.ExecContext(ctx, strings.ReplaceAll(statement, "%d", strconv.FormatUint(number, 10))); err != nil {
				return fmt.Errorf("raise the audit events' number: %w", err)
			}
		}
		tx.AfterCommit(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.recent = recent{base: number}
		})
		return nil
	})
}
