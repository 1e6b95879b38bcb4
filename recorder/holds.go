package recorder

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/recorder/transparency"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

var migrations, _ = fs.Sub(migrationFiles, "migrations") // the directory is embedded above

// Hold says that a recording is kept whatever its age, and why.
type Hold struct {
	Session string
	Since   time.Time
	By      string
	Reason  string
}

// Hold keeps a session's recording from being purged until Release. The event says who and why; kind, session and what
// the recording knows are filled in. A second hold takes the place of the first.
func (r *Recorder) Hold(ctx context.Context, session string, event store.AuditEvent) (Hold, error) {
	h := Hold{Session: session, Since: time.Now().UTC().Truncate(time.Millisecond), By: event.ActorName, Reason: event.Reason}
	event.Kind = "recording.held"
	err := r.holding(ctx, session, event, transparency.Hold, `INSERT INTO recording_holds (session, since, by, reason) VALUES (?, ?, ?, ?)
		ON CONFLICT (session) DO UPDATE SET since = excluded.since, by = excluded.by, reason = excluded.reason`,
		h.Session, h.Since.UnixMilli(), h.By, h.Reason)
	return h, err
}

// Release ends a Hold; it refuses (NotFound) where there is none.
func (r *Recorder) Release(ctx context.Context, session string, event store.AuditEvent) error {
	event.Kind = "recording.released"
	return r.holding(ctx, session, event, transparency.Release, `DELETE FROM recording_holds WHERE session = ?`, session)
}

// holding changes a hold and audits it, as one; never while the recording is being purged.
func (r *Recorder) holding(ctx context.Context, session string, event store.AuditEvent, kind transparency.Kind, statement string, args ...any) error {
	if r.Store == nil {
		return refusal.New(refusal.Unsupported, "this gateway keeps no list of holds")
	}
	r.purging.Lock()
	defer r.purging.Unlock()
	header, err := r.header(session)
	if err != nil {
		return err
	}
	event.Session, event.Target, event.Account, event.Grant = session, header.Target, header.Account, header.Grant
	err = r.Store.Do(ctx, func(tx *store.Tx) error {
		result, err := tx.ExecContext(ctx, statement, args...)
		if err != nil {
			return fmt.Errorf("hold the recording of session %s: %w", session, err)
		}
		if changed, err := result.RowsAffected(); err == nil && changed == 0 {
			return refusal.New(refusal.NotFound, "the recording of session %s is not on hold", session)
		}
		return tx.Audit(event)
	})
	if err == nil {
		r.owe(transparency.Leaf{Kind: kind, Recording: transparency.Recording{Session: session}})
	}
	return err
}

// Holds lists the recordings on hold, the newest hold first.
func (r *Recorder) Holds(ctx context.Context) ([]Hold, error) {
	if r.Store == nil {
		return nil, nil
	}
	rows, err := r.Store.Read().QueryContext(ctx, `SELECT session, since, by, reason FROM recording_holds ORDER BY since DESC, session DESC`)
	if err != nil {
		return nil, fmt.Errorf("list the holds: %w", err)
	}
	defer rows.Close()
	var all []Hold
	for rows.Next() {
		var h Hold
		var since int64
		if err := rows.Scan(&h.Session, &since, &h.By, &h.Reason); err != nil {
			return nil, fmt.Errorf("list the holds: %w", err)
		}
		h.Since = time.UnixMilli(since).UTC()
		all = append(all, h)
	}
	return all, rows.Err()
}
