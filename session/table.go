package session

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

var migrations, _ = fs.Sub(migrationFiles, "migrations") // the directory is embedded above

func (m *Manager) insert(ctx context.Context, s *Session) error {
	identity, err := json.Marshal(s.opening.Identity)
	if err != nil {
		return err
	}
	approvers, err := json.Marshal(s.opening.Lease.Grant.Approvers())
	if err != nil {
		return err
	}
	return m.store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (id, protocol, identity, target, account, grant_id, reason, approvers, client, started)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.id, s.opening.Protocol, identity, s.opening.Target.Name, s.opening.Account.Name, s.opening.Lease.Grant.ID,
			s.opening.Lease.Grant.Reason, approvers, s.opening.Client.String(), s.started.UnixMilli())
		if err != nil {
			return fmt.Errorf("insert session: %w", err)
		}
		return tx.Audit(s.event("session.started"))
	})
}

func (m *Manager) updateEnd(e end) error {
	ctx, cancel := context.WithTimeout(context.Background(), cutTime)
	defer cancel()
	return m.store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE sessions SET ended = ?, end_reason = ?, end_detail = ? WHERE id = ?`,
			e.at.UnixMilli(), e.reason, e.detail, e.session.id)
		if err != nil {
			return fmt.Errorf("update session: %w", err)
		}
		event := e.session.event("session.ended")
		event.Reason = e.reason
		event.Fields = map[string]string{"detail": e.detail}
		return tx.Audit(event)
	})
}

// event is an audit event about the session, of the one whose session it is.
func (s *Session) event(kind string) store.AuditEvent {
	who := s.opening.Identity
	return store.AuditEvent{
		Kind: kind, Actor: who.Key(), ActorName: who.Label(), Client: s.opening.Client.String(),
		Target: s.opening.Target.Name, Account: s.opening.Account.Name, Grant: s.opening.Lease.Grant.ID, Session: s.id,
	}
}

// closeCrashed ends the rows that an earlier run left open; their recordings were closed by the recorder.
func (m *Manager) closeCrashed(ctx context.Context) error {
	return m.store.Do(ctx, func(tx *store.Tx) error {
		rows, err := tx.QueryContext(ctx, `UPDATE sessions SET ended = ?, end_reason = ?, end_detail = 'the gateway died'
			WHERE ended IS NULL RETURNING id, target, account, grant_id`, time.Now().UnixMilli(), EndCrashed)
		if err != nil {
			return err
		}
		defer rows.Close()
		var events []store.AuditEvent
		for rows.Next() {
			event := store.AuditEvent{Kind: "session.ended", Actor: "system", Reason: EndCrashed}
			if err := rows.Scan(&event.Session, &event.Target, &event.Account, &event.Grant); err != nil {
				return err
			}
			events = append(events, event)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, event := range events {
			if err := tx.Audit(event); err != nil {
				return err
			}
		}
		return nil
	})
}

const infoColumns = `id, protocol, identity, target, account, grant_id, reason, approvers, client, started, ended, end_reason, end_detail`

// List returns sessions, newest first; only live ones, or all.
func (m *Manager) List(ctx context.Context, all bool) ([]Info, error) {
	rows, err := m.store.Read().QueryContext(ctx, `SELECT `+infoColumns+` FROM sessions WHERE ended IS NULL OR ? ORDER BY started DESC, id DESC`, all)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer rows.Close()
	infos := []Info{}
	for rows.Next() {
		info, err := scanInfo(rows)
		if err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		infos = append(infos, info)
	}
	return infos, rows.Err()
}

// Get returns one session, or refuses with NotFound.
func (m *Manager) Get(ctx context.Context, id string) (Info, error) {
	info, err := scanInfo(m.store.Read().QueryRowContext(ctx, `SELECT `+infoColumns+` FROM sessions WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Info{}, refusal.New(refusal.NotFound, "no session %s", id).WithHint("list them with: sallyport sessions --all")
	}
	return info, err
}

func scanInfo(row interface{ Scan(...any) error }) (Info, error) {
	var info Info
	var identity, approvers []byte
	var started int64
	var ended sql.NullInt64
	err := row.Scan(&info.ID, &info.Protocol, &identity, &info.Target, &info.Account, &info.Grant, &info.Reason,
		&approvers, &info.Client, &started, &ended, &info.EndReason, &info.EndDetail)
	if err != nil {
		return Info{}, err
	}
	info.Identity = authn.Identity{}
	if err := errors.Join(json.Unmarshal(identity, &info.Identity), json.Unmarshal(approvers, &info.Approvers)); err != nil {
		return Info{}, fmt.Errorf("session %s: %w", info.ID, err)
	}
	info.Started = time.UnixMilli(started).UTC()
	if ended.Valid {
		info.Ended = time.UnixMilli(ended.Int64).UTC()
	}
	info.Live = !ended.Valid
	return info, nil
}
