package postgres

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"sallyport/grant"
	"sallyport/protocols/postgres/server"
	"sallyport/session"
)

// How a session's work on the target is ended: it is asked to cancel, and if it has not gone within graceTime it is
// terminated. looks is the time between two looks.
const (
	graceTime     = 1500 * time.Millisecond
	terminateTime = 3 * time.Second
	looks         = 50 * time.Millisecond
)

// tellTime bounds writing the last message to a client that does not read.
const tellTime = 2 * time.Second

// farewell is what is done when the session has ended: tell the client, and leave nothing running on the target. Nothing
// reaches the target over the session's connection any more.
func (r *relay) farewell(ctx context.Context, why session.Ending) {
	cut := time.Now()
	past := time.Unix(1, 0)
	_ = r.client.raw.SetReadDeadline(past) // frees the reader; a closed connection needs no freeing
	var both sync.WaitGroup
	both.Go(func() {
		defer r.handler.recovered("farewell to a client", func() {})
		r.tell(r.lastWords(why))
	})
	r.stopTarget(ctx, why, cut)
	both.Wait()
}

// lastWords is the message that ends the session for the client; nothing where it knows already.
func (r *relay) lastWords(why session.Ending) []byte {
	switch why.Reason {
	case session.EndClientClosed:
		return nil
	case session.EndTargetClosed, session.EndTargetFailed, session.EndRefused, session.EndProtocolViolation:
		if inside := r.last.Load(); inside != nil {
			return inside.last
		}
		return nil
	}
	opening := r.session.Opening()
	at := opening.Account.Name + "@" + opening.Target.Name
	detail := fmt.Sprintf("This session was %s, under grant %s for %s.", r.session.ID(), opening.Lease.Grant.ID, at)
	var hint string
	if strings.HasPrefix(why.Reason, "grant_") {
		hint = fmt.Sprintf(`ask for another with: sallyport request %s --duration 30m --reason "…"`, at)
	}
	return appendFatal(nil, stateAdminShutdown, "terminating connection due to administrator command: "+why.Sentence, detail, hint)
}

// tell writes the last message, unless it would stand in the middle of another, and ends the client's connection as far as the client
// sees it: that does not wait for the target. A client that does not read holds nothing up:
// the deadline frees a write that hangs, and then nothing more is written.
func (r *relay) tell(message []byte) {
	if r.client.raw.SetWriteDeadline(time.Now().Add(tellTime)) != nil {
		return
	}
	r.out.mu.Lock()
	defer r.out.mu.Unlock()
	if len(message) == 0 || r.out.broken || r.out.at.inside || r.told.Load() {
		return
	}
	if _, err := r.client.conn.Write(message); err != nil {
		r.out.broken = true
		return
	}
	r.told.Store(true)
	r.client.hangUp()
}

// stopTarget ends what the session left running on the target and makes sure that it ended.
func (r *relay) stopTarget(ctx context.Context, why session.Ending, cut time.Time) {
	b := r.target.Load()
	if b == nil {
		return // it was never logged in
	}
	switch why.Reason {
	case session.EndTargetClosed:
		return
	case session.EndClientClosed, session.EndProtocolViolation, session.EndTargetFailed:
		// That the client said goodbye means nothing here: it can say so behind statements that are still to run.
		if r.targetGone.Load() || r.due.Load() <= 0 && !r.unsynced.Load() {
			return // it was idle, and ends with its connection
		}
	}
	reason := "the session has ended: " + why.Sentence
	if err := r.cancelTarget(ctx, reason); err != nil {
		r.handler.log.Warn("what ran on the target could not be cancelled", "session", r.session.ID(), "error", err)
	}
	// The role of an ephemeral account has no password any more, and may itself be on its way out: who made it ends it.
	if !r.session.Opening().Account.Ephemeral && r.endAs(ctx, r.credentials, reason, cut) {
		return
	}
	// The account's own login can be spoilt by who has the account (all its connections taken, its password changed). Only
	// the account that the configuration names for that is used instead: none that can do more may be used unasked.
	if r.endWith(ctx, reason, cut) {
		return
	}
	target := r.session.Opening().Target.Name
	r.session.LeftRunning(fmt.Sprintf("server process %d of %s could not be ended, nor is it known to be gone", b.Key.PID, target))
	r.handler.log.Error("what ran on the target may run on: nobody here could end it", "session", r.session.ID(),
		"target", target, "backend", b.Key.PID)
}

// endWith is endAs with the target's account for it, if it has one.
func (r *relay) endWith(ctx context.Context, reason string, cut time.Time) (gone bool) {
	opening := r.session.Opening()
	name := opening.Target.EndWith
	if opening.Account.Ephemeral {
		name = opening.Target.MakeRolesWith
	}
	if name == "" || name == opening.Account.Name {
		return false
	}
	account, ok := grant.Account(opening.Target, name)
	if !ok {
		return false
	}
	c, err := server.CredentialsOf(ctx, opening.Target, account)
	if err != nil {
		r.handler.log.Error("the account that ends what others left running can't be used", "target", opening.Target.Name, "account", name, "error", err)
		return false
	}
	if gone = r.endAs(ctx, c, reason+"; as "+name, cut); gone && !opening.Account.Ephemeral {
		r.session.EndedAs(name)
	}
	return gone
}

// endAs waits for the backend to be gone, and terminates it where it does not go; true says that it is gone.
func (r *relay) endAs(ctx context.Context, c server.Credentials, reason string, cut time.Time) (gone bool) {
	b := r.target.Load()
	look := func(kind session.ActKind, first string, patience time.Duration, done, notDone string) error {
		return r.session.Act(ctx, session.Act{Kind: kind, Reason: reason, Do: func(ctx context.Context, conn net.Conn) (string, error) {
			own, err := r.ownLogin(conn, c)
			if err != nil {
				return "could not confirm", err
			}
			defer own.Bye()
			if first != "" {
				if _, err := own.Query(first + r.itsBackend(b, cut, false)); err != nil {
					return "could not confirm", err
				}
			}
			if gone, err = r.isGone(ctx, own, b, cut, patience); err != nil {
				return "could not confirm", err
			}
			if gone {
				return done, nil
			}
			return notDone, nil
		}})
	}
	err := look(session.ActConfirm, "", graceTime, "gone", "still there")
	if !gone && err == nil {
		err = look(session.ActTerminate, "select pg_catalog.pg_terminate_backend(pid)", terminateTime, "terminated", "still there")
	}
	if err != nil {
		r.handler.log.Warn("it is not known whether the backend is gone", "session", r.session.ID(), "as", c.User, "error", err)
	}
	return gone
}

// ownLogin is a connection of the gateway's own, mostly as the same role, which may see its own backends and end them. The
// client's settings are not made on it, and names are only looked for in the catalogue.
func (r *relay) ownLogin(conn net.Conn, c server.Credentials) (*server.Conn, error) {
	c.Params = server.OwnParams(r.database, r.target.Load().Version())
	return server.Login(conn, c)
}

// itsBackend finds the session's backend. Process ids are reused, so it must have started before the cut; both times are the
// target's, so its clock need not agree with ours. A role that may not see when it started can't tell, and is shown it
// where alike says so.
func (r *relay) itsBackend(b *server.Conn, cut time.Time, alike bool) string {
	return fmt.Sprintf(" from pg_catalog.pg_stat_activity where pid = %d and coalesce(backend_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %f), %t)",
		int32(b.Key.PID), time.Since(cut).Seconds(), alike)
}

// isGone waits for the session's backend to be gone.
func (r *relay) isGone(ctx context.Context, own, b *server.Conn, cut time.Time, patience time.Duration) (bool, error) {
	tick := time.NewTicker(looks)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; {
		rows, err := own.Query("select 1" + r.itsBackend(b, cut, true))
		if err != nil {
			return false, err
		}
		if len(rows) == 0 {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}
