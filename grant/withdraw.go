package grant

import (
	"context"
	"slices"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Withdraw takes one's own approval back. Of what still waits the vote is gone; what was given by it ends, for it would not have
// been given. It works whatever has become of the policy and the clock.
func (s *Service) Withdraw(ctx context.Context, who authn.Identity, id, comment string) (Grant, error) {
	id = canonical(id)
	seen := Grant{ID: id}
	g, err := s.onGrant(ctx, who, id, comment, func(g *Grant, comment string) (store.AuditEvent, error) {
		seen = g.clone()
		mine := func(v Vote) bool { return v.key() == who.Key() && v.Approve }
		// The stage at which it counted is open again. Votes at later stages stay, and decide nothing before it is met.
		takeBack := func(b *Ballot, stages []Stage) store.AuditEvent {
			at, open := b.Votes[slices.IndexFunc(b.Votes, mine)].stage(), b.open(stages)
			b.Votes = slices.DeleteFunc(b.Votes, mine)
			event := s.event("grant.vote_withdrawn", &who, *g)
			if at < len(stages) {
				s.staged(&event, *b, stages, at, open)
			}
			event.Reason = comment
			return event
		}
		if e := g.Extension; e != nil && slices.ContainsFunc(e.Votes, mine) {
			return takeBack(&e.Ballot, e.stages()), nil
		}
		switch {
		case !slices.ContainsFunc(g.Votes, mine):
			return store.AuditEvent{}, refusal.New(refusal.NotFound, "you have not approved grant %s", id).WithHint("see what waits for you with: sallyport requests")
		case g.State.Over():
			return store.AuditEvent{}, s.decided(*g)
		}
		if g.State == Pending {
			return takeBack(&g.Ballot, g.stages()), nil
		}
		g.end(Ended, s.clock.stamp(), EndApprovalWithdrawn, who.Label(), comment) // the vote stays on record
		event := s.event("grant.ended", &who, *g)
		event.Reason, event.Fields["end_reason"] = comment, g.EndReason
		return event, nil
	})
	return g, s.refused(ctx, "withdraw.refused", who, seen, err)
}
