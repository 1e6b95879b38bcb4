package recorder

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/recorder/disk"
	"sallyport/recorder/index"
	"sallyport/recorder/transparency"
)

// Shred destroys the recording of a session that has ended, for good and before its time: file and, with it, the key that its
// recipients could open it with, what the write-ahead log still has of it, and what was derived from it. What stays is that it
// was: its leaves, and the event, which says who and why; both have its hash. They are on stable storage before anything goes,
// and a gateway that dies meanwhile goes on with it at its next start. It refuses (Conflict) one that lives or is on hold.
// Copies that somebody took elsewhere it can't reach.
func (r *Recorder) Shred(ctx context.Context, session string, event store.AuditEvent) error {
	if r.Store == nil {
		return refusal.New(refusal.Unsupported, "this gateway has no store, without which nothing is destroyed")
	}
	defer r.packer.without(session)() // before the lock, for which packing waits
	r.purging.Lock()
	defer r.purging.Unlock()
	if r.Live(session) {
		return refusal.New(refusal.Conflict, "session %.80s has not ended", session).WithHint("sallyport kill ends it")
	}
	header, err := r.header(session)
	if err != nil {
		return err
	}
	path, said, state, _, err := r.epitaph(header)
	if err != nil {
		return fmt.Errorf("destroy the recording of session %s: %w", session, err)
	}
	said.Kind, said.Reason = "recording.shredded", event.Reason
	said.Actor, said.ActorName, said.Client = event.Actor, event.ActorName, event.Client
	err = r.Store.Do(ctx, func(tx *store.Tx) error {
		held := false
		if err := tx.QueryRowContext(ctx, `SELECT count(*) > 0 FROM recording_holds WHERE session = ?`, session).Scan(&held); err != nil {
			return err
		}
		if held {
			return refusal.New(refusal.Conflict, "the recording of session %s is on hold", session).
				WithHint("it is destroyed only after the hold has ended: sallyport hold %s --release", session)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO recording_shreds (session, since) VALUES (?, ?) ON CONFLICT (session) DO NOTHING`, session, time.Now().UnixMilli()); err != nil {
			return err
		}
		return tx.Audit(said)
	})
	if err != nil {
		return err
	}
	// From here on it is done whoever gives up waiting.
	ctx = context.WithoutCancel(ctx)
	if err := r.audit.catchUp(ctx); err != nil {
		return err
	}
	if err := r.bind(transparency.Leaf{Kind: transparency.Shred, Recording: transparency.Of(session, state)}); err != nil {
		return err
	}
	return r.destroy(ctx, session, path, header.Lock != nil)
}

// destroy is what Shred does once it has been said.
func (r *Recorder) destroy(ctx context.Context, session, path string, locked bool) error {
	if err := disk.Overwrite(filepath.Join(r.Dir, path)); err != nil {
		return fmt.Errorf("destroy the recording of session %s: %w", session, err)
	}
	if err := r.remove(ctx, session, path); err != nil {
		return fmt.Errorf("destroy the recording of session %s: %w", session, err)
	}
	if err := r.wal.Scrub(); err != nil {
		return fmt.Errorf("destroy what the write-ahead log has of session %s: %w", session, err)
	}
	if !locked && r.indexer != nil { // which had nothing of a locked one
		// A database leaves what was deleted in its pages, so it goes whole.
		if err := r.indexer.renew(ctx); err != nil {
			return fmt.Errorf("destroy what the search index has of session %s: %w", session, err)
		}
	}
	return r.Store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM recording_shreds WHERE session = ?`, session)
		return err
	})
}

// finishShreds goes on with what an earlier run had begun to destroy. It is called before anything is derived from recordings.
func (r *Recorder) finishShreds(ctx context.Context) error {
	rows, err := r.Store.Read().QueryContext(ctx, `SELECT session FROM recording_shreds`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var begun []string
	for rows.Next() {
		var session string
		if err := rows.Scan(&session); err != nil {
			return err
		}
		begun = append(begun, session)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(begun) == 0 {
		return err
	}
	if err := r.audit.catchUp(ctx); err != nil {
		return err
	}
	for _, session := range begun {
		r.mu.Lock()
		path, there := r.paths[session]
		r.mu.Unlock()
		if there {
			leaf := transparency.Leaf{Kind: transparency.Shred, Recording: transparency.Recording{Session: session}}
			if err := r.bind(leaf); err != nil {
				return err
			}
			if err := disk.Overwrite(filepath.Join(r.Dir, path)); err != nil {
				return err
			}
			if err := r.remove(ctx, session, path); err != nil {
				return err
			}
		}
		r.Log.Info("the recording of a session is destroyed, as an earlier run had begun to", "session", session)
	}
	if r.Index != "" { // which is not open yet
		if err := index.Remove(r.Index); err != nil {
			return err
		}
	}
	return r.Store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM recording_shreds`)
		return err
	})
}
