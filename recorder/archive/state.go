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

// found notes what has ended, and that the log was read so far.
func (a *Archive) found(ctx context.Context, rows []row, leaves int64) error {
	err := a.o.Store.Do(ctx, func(tx *store.Tx) error {
		for _, r := range rows {
			if r.state == gone {
				if _, err := tx.ExecContext(ctx, `UPDATE archive_objects SET state = ? WHERE place = ? AND session = ? AND state = ?`, gone, a.place, r.session, waiting); err != nil {
					return err
				}
				continue
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO archive_objects (place, session, leaf, ended, chain, state) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (place, session) DO NOTHING`, a.place, r.session, r.leaf, r.ended.UnixMilli(), r.chain, waiting); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO archive_places (place, leaves, checkpoint, saved, complete) VALUES (?, ?, 0, 0, 0)
			ON CONFLICT (place) DO UPDATE SET leaves = excluded.leaves`, a.place, leaves)
		return err
	})
	return failing("note what is to be archived", err)
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
	return a.update(ctx, `UPDATE archive_objects SET state = ?, upload = '' WHERE place = ? AND session = ?`, gone, a.place, session)
}

// setArchived says that an object is there and was read back; of a session's recording with an audit event.
func (a *Archive) setArchived(ctx context.Context, r row, event *store.AuditEvent) error {
	err := a.o.Store.Do(ctx, func(tx *store.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE archive_objects SET state = ?, object = ?, version = ?, sha256 = ?, bytes = ?, archived = ?, upload = ''
			WHERE place = ? AND session = ?`, archived, r.object, r.version, r.sha256, r.bytes, time.Now().UnixMilli(), a.place, r.session); err != nil {
			return err
		}
		if event == nil {
			return nil
		}
		return tx.Audit(*event)
	})
	return failing("keep what was archived", err)
}

// forget has an object archived again that is not there any more, or not what it was.
func (a *Archive) forget(ctx context.Context, session string) error {
	return a.update(ctx, `UPDATE archive_objects SET state = ?, archived = 0 WHERE place = ? AND session = ?`, waiting, a.place, session)
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

func (a *Archive) count(ctx context.Context, s *Status) error {
	var oldest sql.NullInt64
	db := a.o.Store.Read()
	err := db.QueryRowContext(ctx, `SELECT count(*), min(ended) FROM archive_objects WHERE place = ? AND state = ?`, a.place, waiting).Scan(&s.Waiting, &oldest)
	if err == nil {
		err = db.QueryRowContext(ctx, `SELECT count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM archive_objects WHERE place = ? AND state = ?`, a.place, archived).Scan(&s.Archived, &s.Bytes)
	}
	s.Oldest = moment(oldest.Int64)
	return failing("count what is archived", err)
}
