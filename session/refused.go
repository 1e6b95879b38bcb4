package session

import (
	"context"
	"net"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Refused tells the audit log that a protocol's own rule refused an identity before there was a session: a tunnel to
// somewhere else, a target of another protocol. What grant and Begin refuse they audit themselves.
func (m *Manager) Refused(who authn.Identity, client net.Addr, target, account string, r *refusal.Refusal) {
	m.audit(store.AuditEvent{
		Kind: "session.refused", Actor: who.Key(), ActorName: who.Label(), Client: client.String(),
		Target: target, Account: account, Outcome: string(r.Code), Reason: r.Error(),
	})
}

// Refused tells the audit log that something in a session was not let through: a statement that a limit of its role
// refuses, say.
func (s *Session) Refused(r *refusal.Refusal) {
	e := s.event("session.limited")
	e.Outcome, e.Reason = string(r.Code), r.Error()
	s.manager.audit(e)
}

// Masked is a text that was said in the session as it may stand elsewhere, in the audit log and in what the gateway tells: without what
// the configuration masks. It takes the text whole, before it is cut.
func (s *Session) Masked(text string) string { return s.recording.Masked(text) }

// auditUnvouched tells the audit log that a session begins in an emergency though the identity's provider can't be asked. It
// fails where that can't be written: an exception that nobody would hear of is none.
func (m *Manager) auditUnvouched(ctx context.Context, o Opening, why error) error {
	return m.store.Audit(ctx, store.AuditEvent{
		Kind: "session.unvouched", Actor: o.Identity.Key(), ActorName: o.Identity.Label(), Client: o.Client.String(),
		Target: o.Target.Name, Account: o.Account.Name, Grant: o.Lease.Grant.ID, Outcome: "ok", Reason: why.Error(),
	})
}

// LeftRunning tells the audit log that what the session ran on its target may run on.
func (s *Session) LeftRunning(why string) {
	e := s.event("session.left_running")
	e.Outcome, e.Reason = "failed", why
	s.manager.audit(e)
}

// EndedAs tells the audit log that another account of the target had to end what the session ran.
func (s *Session) EndedAs(account string) {
	e := s.event("session.ended_as")
	e.Outcome, e.Reason = "ok", "the session's own account was locked out of its role"
	e.Fields = map[string]string{"as": account}
	s.manager.audit(e)
}

// refused tells the audit log that an identity with a lease was not let through.
func (m *Manager) refused(o Opening, err error) {
	outcome := "failed"
	if r := refusal.Of(err); r != nil {
		outcome = string(r.Code)
	}
	m.audit(store.AuditEvent{
		Kind: "session.refused", Actor: o.Identity.Key(), ActorName: o.Identity.Label(), Client: o.Client.String(),
		Target: o.Target.Name, Account: o.Account.Name, Grant: o.Lease.Grant.ID, Outcome: outcome, Reason: err.Error(),
	})
}

// audit writes an event that no change waits for.
func (m *Manager) audit(event store.AuditEvent) {
	ctx, cancel := context.WithTimeout(context.Background(), cutTime)
	defer cancel()
	if err := m.store.Audit(ctx, event); err != nil {
		m.log.Error("an event could not be audited", "kind", event.Kind, "error", err)
	}
}
