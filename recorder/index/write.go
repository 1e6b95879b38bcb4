package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"sallyport/recorder/format"
)

// Batch is what one session has more.
type Batch struct {
	// From is how many entries of the session came before; where the index has another number, the batch is refused.
	From    int64
	Entries []Entry
	// Failed are the counts of entries, of this batch or before it, that turned out to have failed.
	Failed []int64
	// Mask names what is hidden in the entries, for whoever must know whether that is still what is to be hidden.
	Mask string
	// Whole says that this is all there will be; Bytes is then the recording's size.
	Whole bool
	Bytes int64
}

// errOrder is a batch that does not follow from what the index has.
var errOrder = errors.New("the batch does not go on where the index ends")

// Register makes sessions known, oldest first, so that a search finds them in that order however they are filled.
func (x *Index) Register(ctx context.Context, headers []format.Header) error {
	return x.do(ctx, func(tx *sql.Tx) error {
		for _, h := range headers {
			body, err := json.Marshal(h)
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO sessions (number, session, header, protocol, target, account, grant_id, started)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session) DO NOTHING`,
				x.next, h.Session, body, h.Protocol, h.Target, h.Account, h.Grant, h.Started.UnixNano())
			if err != nil {
				return err
			}
			x.next++
		}
		return nil
	})
}

// Append adds a batch to a registered session: all of it or, with an error, nothing.
func (x *Index) Append(ctx context.Context, session string, b Batch) error {
	return x.do(ctx, func(tx *sql.Tx) error {
		var number, have int64
		if err := tx.QueryRowContext(ctx, `SELECT number, entries FROM sessions WHERE session = ?`, session).Scan(&number, &have); err != nil {
			return err
		}
		if have != b.From {
			return errOrder
		}
		first := firstOf(number)
		if err := insert(ctx, tx, first+have, b.Entries); err != nil {
			return err
		}
		for _, n := range b.Failed {
			if _, err := tx.ExecContext(ctx, `UPDATE entries SET failed = 1 WHERE id = ?`, first+n); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE sessions SET entries = ?, mask = ?, whole = ?, bytes = ? WHERE number = ?`,
			have+int64(len(b.Entries)), b.Mask, b.Whole, b.Bytes, number)
		return err
	})
}

func insert(ctx context.Context, tx *sql.Tx, id int64, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	entry, err := tx.PrepareContext(ctx, `INSERT INTO entries (id, at, failed, text, item) VALUES (?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer entry.Close()
	trigrams, err := tx.PrepareContext(ctx, `INSERT INTO trigrams (rowid, text) VALUES (?, ?)`)
	if err != nil {
		return err
	}
	defer trigrams.Close()
	for _, e := range entries {
		text, rest, err := e.encode()
		if err != nil {
			return err
		}
		if _, err := entry.ExecContext(ctx, id, int64(e.Item.At), e.Failed, []byte(text), rest); err != nil {
			return err
		}
		if _, err := trigrams.ExecContext(ctx, id, Fold(text)); err != nil {
			return err
		}
		id++
	}
	return nil
}

// clearAtOnce is how many entries one transaction takes out.
const clearAtOnce = 1000

// Forget takes a session out of the index. Where it is interrupted, the next call takes out the rest.
func (x *Index) Forget(ctx context.Context, session string) error {
	if err := x.Clear(ctx, session); err != nil {
		return err
	}
	return x.do(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE session = ?`, session)
		return err
	})
}

// Clear takes out a session's entries, so that it can be filled from the beginning; it keeps its place in the order.
func (x *Index) Clear(ctx context.Context, session string) error {
	for left := true; left; {
		err := x.do(ctx, func(tx *sql.Tx) (err error) {
			left, err = clearSome(ctx, tx, session)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// clearSome takes out the session's last entries and reports whether there are more.
func clearSome(ctx context.Context, tx *sql.Tx, session string) (bool, error) {
	var number, entries int64
	err := tx.QueryRowContext(ctx, `SELECT number, entries FROM sessions WHERE session = ?`, session).Scan(&number, &entries)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	keep := max(0, entries-clearAtOnce)
	type row struct {
		id   int64
		text []byte
	}
	var gone []row
	rows, err := tx.QueryContext(ctx, `SELECT id, text FROM entries WHERE id >= ? AND id <= ?`, firstOf(number)+keep, lastOf(number))
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.id, &r.text); err != nil {
			return false, err
		}
		gone = append(gone, r)
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	for _, r := range gone { // a table without content is told what it had
		if _, err := tx.ExecContext(ctx, `INSERT INTO trigrams (trigrams, rowid, text) VALUES ('delete', ?, ?)`, r.id, Fold(string(r.text))); err != nil {
			return false, err
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM entries WHERE id >= ? AND id <= ?`, firstOf(number)+keep, lastOf(number)); err != nil {
		return false, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE sessions SET entries = ?, whole = 0 WHERE number = ?`, keep, number)
	return keep > 0, err
}

func (x *Index) do(ctx context.Context, f func(*sql.Tx) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	next := x.next
	tx, err := x.writes.BeginTx(ctx, nil)
	if err == nil {
		defer tx.Rollback() // after a commit it does nothing
		if err = f(tx); err == nil {
			err = tx.Commit()
		}
	}
	if err != nil {
		x.next = next
		return fmt.Errorf("write the search index: %w", classify(err))
	}
	return nil
}
