package grant

import (
	"fmt"

	"sallyport/authn"
	"sallyport/grant/policy"
)

// sentence says how a grant that is over came to its end.
func sentence(g Grant) string {
	said := func(s string) string {
		if g.EndComment != "" {
			return s + ": " + g.EndComment
		}
		return s
	}
	switch {
	case g.State == Denied && g.EndReason == "":
		return said(fmt.Sprintf("grant %s was denied by %s", g.ID, g.EndedBy))
	case g.State == Withdrawn:
		return fmt.Sprintf("grant %s was taken back by %s", g.ID, g.EndedBy)
	case g.State == Lapsed:
		return said(fmt.Sprintf("grant %s lapsed", g.ID))
	case g.EndReason == EndExpired:
		return fmt.Sprintf("grant %s ended at %s: expired", g.ID, when(g.EndedAt))
	case g.EndReason == EndRevoked:
		return said(fmt.Sprintf("grant %s was revoked by %s", g.ID, g.EndedBy))
	case g.EndReason == EndReleased:
		return fmt.Sprintf("grant %s was given back by %s", g.ID, g.EndedBy)
	case g.EndReason == EndClockWentBack:
		return said(fmt.Sprintf("grant %s ended because the gateway's clock went back", g.ID))
	}
	return said(fmt.Sprintf("grant %s ended at %s", g.ID, when(g.EndedAt)))
}

// describe says where a grant is in its life.
func (s *Service) describe(g Grant) string {
	if ended, over := s.judgeTime(&row{grant: g, deadline: 1<<63 - 1}); over {
		g = ended
	}
	switch g.State {
	case Pending:
		return fmt.Sprintf("grant %s waits for %s", g.ID, approvalBy(g.Standing()))
	case Approved:
		return fmt.Sprintf("grant %s is approved and can be used until %s for %s", g.ID, when(g.ActivateBy), policy.Short(g.Duration))
	case Active:
		text := fmt.Sprintf("grant %s is active until %s", g.ID, when(g.Until))
		if e := g.Extension; e != nil {
			text += fmt.Sprintf("; %s more wait for %s", policy.Short(e.Duration), approvalBy(e.Standing()))
		}
		return text
	}
	return sentence(g)
}

// next says what somebody can do about an open grant of theirs.
func next(g Grant, who authn.Identity) string {
	if g.State == Pending {
		return fmt.Sprintf("ask a member of %s other than yourself to run: sallyport approve %s", policy.Or(g.Asked()), g.ID)
	}
	return fmt.Sprintf("connect with it, or give it back first with: sallyport release %s", g.ID)
}
