package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"sallyport/internal/store"
)

// The states of a row of archive_objects.
const (
	waiting  = "waiting"
	archived = "archived"
	gone     = "gone"
	// shredded is what a leaf says, and no row's state: such a row is gone.
	shredded = "shredded"
)

// row is one recording or audit file that has ended.
type row struct {
	session string
	leaf    int64
	ended   time.Time
	chain   string
	state   string
	object  string
	version string
	sha256  string
	bytes   int64
	upload  string
}

// position is how far a place has come.
type position struct {
	leaves, checkpoint int64
	saved, complete    time.Time
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (a *Archive) position(ctx context.Context) (p position, err error) {
	var saved, complete int64
	err = a.o.Store.Read().QueryRowContext(ctx, `SELECT leaves, checkpoint, saved, complete FROM archive_places WHERE place = ?`, a.place).
		Scan(&p.leaves, &p.checkpoint, &saved, &complete)
	if errors.Is(err, sql.ErrNoRows) {
		return position{}, nil
	}
	p.saved, p.complete = moment(saved), moment(complete)
	return p, failing("read how far the archive has come", err)
}

func failing(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// found notes what has ended and what was destroyed, and that the log was read so far.
func (a *Archive) found(ctx context.Context, rows []row, leaves int64) error {
	err := a.o.Store.Do(ctx, func(tx *store.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO archive_places (place, leaves, checkpoint, saved, complete) VALUES (?, ?, 0, 0, 0)
			ON CONFLICT (place) DO UPDATE SET leaves = excluded.leaves`, a.place, leaves); err != nil {
			return err
		}
		for _, r := range rows {
			if err := a.foundOne(ctx, tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	return failing("note what is to be archived", err)
}

func (a *Archive) foundOne(ctx context.Context, tx *store.Tx, r row) error {
	switch r.state {
	case gone: // purged: what is archived stays
		_, err := a.turn(ctx, tx, r.session, waiting, gone)
		return err
	case shredded:
		for _, from := range []string{waiting, archived} {
			if _, err := a.turn(ctx, tx, r.session, from, gone); err != nil {
				return err
			}
		}
		return a.foundShred(ctx, tx, r)
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO archive_objects (place, session, leaf, ended, chain, state) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (place, session) DO NOTHING`, a.place, r.session, r.leaf, r.ended.UnixMilli(), r.chain, waiting)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return err
	}
	return a.total(ctx, tx, waiting, 1, 0)
}

// turn has a row go from a state to another, with the totals, and reports whether it was in the first.
func (a *Archive) turn(ctx context.Context, tx *store.Tx, session, from, to string) (bool, error) {
	result, err := tx.ExecContext(ctx, `UPDATE archive_objects SET state = ? WHERE place = ? AND session = ? AND state = ?`, to, a.place, session, from)
	if err != nil {
		return false, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	var bytes int64
	if err := tx.QueryRowContext(ctx, `SELECT bytes FROM archive_objects WHERE place = ? AND session = ?`, a.place, session).Scan(&bytes); err != nil {
		return false, err
	}
	if err := a.total(ctx, tx, from, -1, -bytes); err != nil {
		return false, err
	}
	return true, a.total(ctx, tx, to, 1, bytes)
}

// total adds to how many are in a state, and to the bytes of those that are archived.
func (a *Archive) total(ctx context.Context, tx *store.Tx, state string, n, bytes int64) error {
	var err error
	switch state {
	case waiting:
		_, err = tx.ExecContext(ctx, `UPDATE archive_places SET waiting = waiting + ? WHERE place = ?`, n, a.place)
	case archived:
		_, err = tx.ExecContext(ctx, `UPDATE archive_places SET archived = archived + ?, bytes = bytes + ? WHERE place = ?`, n, bytes, a.place)
	}
	return err
}

const columns = `session, leaf, ended, chain, state, object, version, sha256, bytes, upload`

func (a *Archive) rows(ctx context.Context, rest string, args ...any) ([]row, error) {
	const what = "read what is to be archived"
	found, err := a.o.Store.Read().QueryContext(ctx, `SELECT `+columns+` FROM archive_objects WHERE place = ? AND `+rest, append([]any{a.place}, args...)...)
	if err != nil {
		return nil, failing(what, err)
	}
	defer found.Close()
	var all []row
	for found.Next() {
		var r row
		var ended int64
		if err := found.Scan(&r.session, &r.leaf, &ended, &r.chain, &r.state, &r.object, &r.version, &r.sha256, &r.bytes, &r.upload); err != nil {
			return nil, failing(what, err)
		}
		r.ended = moment(ended)
		all = append(all, r)
	}
	return all, failing(what, found.Err())
}

// waiting are the next that wait, among the leaves before that one, after another.
func (a *Archive) waiting(ctx context.Context, after, before int64, most int) ([]row, error) {
	return a.rows(ctx, `state = ? AND leaf > ? AND leaf < ? ORDER BY leaf LIMIT ?`, waiting, after, before, most)
}

// setUpload keeps the id of an upload in parts, before its first part goes.
func (a *Archive) setUpload(ctx context.Context, session, object, upload string) error {
	return a.update(ctx, `UPDATE archive_objects SET upload = ?, object = ? WHERE place = ? AND session = ?`, upload, object, a.place, session)
}

func (a *Archive) setGone(ctx context.Context, session string) error {
	return a.move(ctx, session, waiting, gone)
}

// forget has an object archived again that is not there any more, or not what it was.
func (a *Archive) forget(ctx context.Context, session string) error {
	return a.move(ctx, session, archived, waiting)
}

func (a *Archive) move(ctx context.Context, session, from, to string) error {
	err := a.o.Store.Do(ctx, func(tx *store.Tx) error {
		_, err := a.turn(ctx, tx, session, from, to)
		return err
	})
	return failing("keep how far the archive has come", err)
}

// setArchived says that an object is there and was read back; of a session's recording with an audit event. One that was
// destroyed meanwhile is not archived: it is to be deleted there.
func (a *Archive) setArchived(ctx context.Context, r row, event *store.AuditEvent) error {
	err := a.o.Store.Do(ctx, func(tx *store.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE archive_objects SET object = ?, version = ?, sha256 = ?, bytes = ?, archived = ?, upload = ''
			WHERE place = ? AND session = ?`, r.object, r.version, r.sha256, r.bytes, time.Now().UnixMilli(), a.place, r.session)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		if turned, err := a.turn(ctx, tx, r.session, waiting, archived); err != nil || !turned || event == nil {
			return err
		}
		return tx.Audit(*event)
	})
	return failing("keep what was archived", err)
}

func (a *Archive) saveCheckpoint(ctx context.Context, size int64) error {
	return a.update(ctx, `UPDATE archive_places SET checkpoint = ?, saved = ? WHERE place = ?`, size, time.Now().UnixMilli(), a.place)
}

func (a *Archive) saveComplete(ctx context.Context, at time.Time) error {
	return a.update(ctx, `UPDATE archive_places SET complete = ? WHERE place = ?`, at.UnixMilli(), a.place)
}

func (a *Archive) update(ctx context.Context, statement string, args ...any) error {
	err := a.o.Store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
	return failing("keep how far the archive has come", err)
}

// count fills in the totals.
func (a *Archive) count(ctx context.Context, s *Status) error {
	var oldest sql.NullInt64
	err := a.o.Store.Read().QueryRowContext(ctx, `SELECT waiting, archived, bytes,
		(SELECT ended FROM archive_objects o WHERE o.place = p.place AND o.state = ? ORDER BY leaf LIMIT 1) FROM archive_places p WHERE place = ?`, waiting, a.place).
		Scan(&s.Waiting, &s.Archived, &s.Bytes, &oldest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	s.Oldest = moment(oldest.Int64)
	return failing("count what is archived", err)
}
