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
	ctx, cancel := context.WithTimeout(context.Background(), cutTime)
	defer cancel()
	err := m.store.Audit(ctx, store.AuditEvent{
		Kind: "session.refused", Actor: who.Key(), ActorName: who.Label(), Client: client.String(),
		Target: target, Account: account, Outcome: string(r.Code), Reason: r.Error(),
	})
	if err != nil {
		m.log.Error("a refusal could not be audited", "error", err)
	}
}
