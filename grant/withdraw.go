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
		if e := g.Extension; e != nil && slices.ContainsFunc(e.Votes, mine) {
			e.Votes = slices.DeleteFunc(e.Votes, mine)
			event := s.event("grant.vote_withdrawn", &who, *g)
			event.Reason = comment
			return event, nil
		}
		switch {
		case !slices.ContainsFunc(g.Votes, mine):
			return store.AuditEvent{}, refusal.New(refusal.NotFound, "you have not approved grant %s", id).WithHint("see what waits for you with: sallyport requests")
		case g.State.Over():
			return store.AuditEvent{}, s.decided(*g)
		}
		kind := "grant.vote_withdrawn"
		if g.State == Pending {
			g.Votes = slices.DeleteFunc(g.Votes, mine)
		} else { // the vote stays on record
			kind = "grant.ended"
			g.end(Ended, s.clock.stamp(), EndApprovalWithdrawn, who.Label(), comment)
		}
		event := s.event(kind, &who, *g)
		event.Reason = comment
		if g.EndReason != "" {
			event.Fields["end_reason"] = g.EndReason
		}
		return event, nil
	})
	return g, s.refused(ctx, "withdraw.refused", who, seen, err)
}
