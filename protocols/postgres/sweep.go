package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/protocols/postgres/server"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
)

// sweepTolerance is how far a backend's age may be from that of the recorded connection where its port is not the recorded
// one: an address translator may stand between.
const sweepTolerance = 5 * time.Second

// crashed is a session that a gateway left when it died.
type crashed struct {
	header    format.Header
	connected format.Connected
	at        time.Time // of the connection
	database  string
	user      string // the login's name on the target
}

// Sweep ends what the sessions of a gateway that died left running on their targets; headers are those that recorder.Open
// found open (Recorder.Crashed). Call it once after a start. It goes on after a failure and returns all of them.
func (h *Handler) Sweep(ctx context.Context, r *recorder.Recorder, headers []format.Header) error {
	var failures []error
	for _, header := range headers {
		if header.Protocol != configs.KindPostgres {
			continue
		}
		s, err := readCrashed(ctx, r, header)
		if err == nil && s.connected.BackendPID != 0 {
			err = h.sweep(ctx, s)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("sweep after session %s: %w", header.Session, err))
		}
	}
	return errors.Join(failures...)
}

// readCrashed finds what ties a recording to its backend. Both stand near its beginning.
func readCrashed(ctx context.Context, r *recorder.Recorder, header format.Header) (crashed, error) {
	s := crashed{header: header}
	_, events, err := r.Read(ctx, header.Session)
	if err != nil {
		return s, err
	}
	for event, err := range events {
		if err != nil {
			return s, err
		}
		switch event.Type {
		case format.TypeConnected:
			if err := json.Unmarshal(event.Data, &s.connected); err != nil {
				return s, err
			}
			s.at = header.Started.Add(event.At)
		case format.TypeNote:
			var note format.Note
			if json.Unmarshal(event.Data, &note) == nil && note.Kind == noteStartup {
				s.database, s.user = note.Fields["database"], note.Fields["user"]
				return s, nil
			}
		}
	}
	return s, nil
}

// sweep terminates the backend of one session, if it is still there.
func (h *Handler) sweep(ctx context.Context, s crashed) error {
	t, ok := h.grants.Target(s.header.Target)
	if !ok {
		return fmt.Errorf("target %s is not configured any more", s.header.Target)
	}
	account, ok := grant.Account(t, s.header.Account)
	if !ok {
		return fmt.Errorf("account %s@%s is not configured any more", s.header.Account, t.Name)
	}
	c, err := h.sweeper(ctx, t, account)
	if err != nil {
		return err
	}
	database := s.database
	if database == "" {
		database = server.OwnDatabase(t)
	}
	c.Params = server.OwnParams(database, server.MajorVersion(s.connected.Server))
	reason := "session " + s.header.Session + " was left when the gateway died"
	return h.sessions.ActOn(ctx, t, authn.Identity{}, session.Act{Kind: session.ActSweep, Reason: reason, Do: func(_ context.Context, conn net.Conn) (string, error) {
		b, err := server.Login(conn, c)
		if err != nil {
			return "", err
		}
		defer b.Bye()
		h.versions.Store(t.Address, b.Version())
		rows, err := b.Query(s.terminate(time.Now(), h.loginOf(account, s)))
		if err != nil {
			return "", err
		}
		if len(rows) == 0 {
			return "it was gone", nil
		}
		return "terminated", nil
	}})
}

// terminate is the statement that ends the backend: of that process id and role, from the recorded port, or else as old as the
// recorded connection, as process ids are used again.
func (s crashed) terminate(now time.Time, role string) string {
	var port uint16
	if local, err := netip.ParseAddrPort(s.connected.Local); err == nil {
		port = local.Port()
	}
	return fmt.Sprintf(`select pg_terminate_backend(pid) from pg_stat_activity
where pid = %d and pid <> pg_backend_pid() and usename = %s and (client_port = %d
or abs(extract(epoch from clock_timestamp() - backend_start) - %f) < %f)`,
		int32(s.connected.BackendPID), role, port, now.Sub(s.at).Seconds(), sweepTolerance.Seconds())
}

// sweeper is what the gateway logs in with to end what a session left: the account itself, or who makes its roles.
func (h *Handler) sweeper(ctx context.Context, t configs.Target, account configs.Account) (server.Credentials, error) {
	if account.Ephemeral {
		return h.makerCredentials(ctx, t, "")
	}
	return server.CredentialsOf(ctx, t, account)
}

// loginOf is whose backend it is, in SQL. The role of a grant is believed only where it is one of this gateway's.
func (h *Handler) loginOf(account configs.Account, s crashed) string {
	if !account.Ephemeral || h.roles == nil {
		return "current_user"
	}
	if _, ours := h.roles.Owner(s.user); !ours {
		return "null"
	}
	return "'" + s.user + "'"
}
