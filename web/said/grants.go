package said

import (
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/grant/policy"
	"sallyport/web/api"
)

// Grant is a grant as the API says it; lists are never null.
func Grant(g grant.Grant) api.Grant {
	out := api.Grant{
		ID:         g.ID,
		State:      string(g.State),
		Identity:   Identity(g.Identity),
		Target:     g.Target,
		Account:    g.Account,
		Reason:     g.Reason,
		Ticket:     g.Ticket,
		Policy:     g.Policy,
		Role:       g.Role,
		Limits:     g.Terms.Limits.Words(),
		Start:      g.Start,
		BreakGlass: g.BreakGlass,
		Confirm:    g.Confirm,
		Duration:   g.Duration,
		Total:      g.Total,
		Idle:       g.Idle,
		Approvers:  OrEmpty(g.Approvers()),
		Needed:     g.Needed,
		MayApprove: OrEmpty(g.MayApprove),
		Stages:     stages(g.Standing()),
		Requested:  g.Requested,
		DecideBy:   g.DecideBy,
		ActivateBy: g.ActivateBy,
		From:       g.From,
		Until:      g.Until,
		EndedAt:    g.EndedAt,
		EndReason:  g.EndReason,
		EndedBy:    g.EndedBy,
		EndComment: g.EndComment,
	}
	out.Votes = votes(g.Ballot)
	if e := g.Extension; e != nil {
		out.Extension = &api.Extension{
			Duration: e.Duration, Reason: e.Reason, Requested: e.Requested, Votes: votes(e.Ballot), Needed: e.Needed, MayApprove: OrEmpty(e.MayApprove),
			Stages: stages(e.Standing()),
		}
	}
	return out
}

func votes(b grant.Ballot) []api.Vote {
	out := []api.Vote{}
	for _, v := range b.Votes {
		v.Stage = max(v.Stage, 1)
		out = append(out, api.Vote(v))
	}
	return out
}

func stages(list []grant.Standing) []api.Stage {
	out := []api.Stage{}
	for _, s := range list {
		out = append(out, api.Stage{
			Number: s.Number, Name: s.Name, Groups: OrEmpty(s.Groups), Needed: s.Needed, Approvals: s.Approvals, By: OrEmpty(s.By), State: s.State,
		})
	}
	return out
}

// Offer is what somebody may ask for.
func Offer(o grant.Offer) api.Offer {
	out := api.Offer{
		Target: o.Target, Kind: o.Kind, Labels: o.Labels, Account: o.Account, Policy: o.Policy, MaxDuration: o.MaxDuration, Auto: o.Auto,
		MayApprove: o.MayApprove, Role: o.Role, Limits: o.Limits, BreakGlass: o.BreakGlass, Ticket: o.Ticket, Live: o.Live,
	}
	for i, s := range o.Stages {
		out.Stages = append(out.Stages, api.Stage{Number: i + 1, Name: s.Name, Groups: OrEmpty(s.Groups), Needed: s.Needed, By: []string{}})
	}
	return out
}

// Explanation is an answer of the policies as the API says it.
func Explanation(e policy.Explanation) api.Explanation {
	out := api.Explanation{Outcome: "none", Forbidden: []api.Forbidden{}, Candidates: []api.Candidate{}, MayApprove: []string{}, Stages: []api.Stage{}}
	for _, f := range e.Forbidden {
		out.Outcome = "forbid"
		out.Forbidden = append(out.Forbidden, api.Forbidden{Policy: f.Name, Text: f.Text})
	}
	if p := e.Winner; p != nil {
		out.Outcome, out.Policy, out.Duration = "permit", p.Name, e.Duration
		out.Role, out.Limits = e.Role.Name, e.Role.Limits.Words()
		out.Ends = p.Ends(e.Duration)
		out.Needed, out.MayApprove = policy.Needed(p.Policy), OrEmpty(policy.Approving(p.Policy))
		for i, s := range policy.Stages(p.Policy) {
			out.Stages = append(out.Stages, api.Stage{Number: i + 1, Name: s.Name, Groups: OrEmpty(s.Groups), Needed: s.Count, By: []string{}})
		}
	}
	for _, c := range e.Candidates {
		candidate := api.Candidate{Policy: c.Name, Misses: []api.Miss{}}
		for _, m := range c.Misses {
			candidate.Misses = append(candidate.Misses, api.Miss{Clause: string(m.Clause), Text: m.Text})
		}
		out.Candidates = append(out.Candidates, candidate)
	}
	return out
}

// Held is a set of policies that waits for a second person.
func Held(h grant.Held) api.HeldPolicies {
	held := api.HeldPolicies{
		Revision: h.Revision, Since: h.Since.UTC(), Confirmed: h.Confirmed, Widens: h.Widens, Changes: h.Changes,
		MadeBy: h.MadeBy, RejectedBy: h.Rejected, RejectedAt: h.RejectedAt, Comment: h.Comment,
	}
	for _, d := range h.Differences {
		held.Differences = append(held.Differences, api.PolicyDifference(d))
	}
	return held
}

// Reviews are what was done in emergencies.
func Reviews(reviews []grant.Review) []api.Review {
	out := []api.Review{}
	for _, r := range reviews {
		out = append(out, api.Review{Grant: Grant(r.Grant), Groups: OrEmpty(r.Groups), Due: r.Due, Done: r.Done, By: r.By, Comment: r.Comment})
	}
	return out
}

// Notifications are what is told to channels.
func Notifications(list []approval.Notification) []api.Notification {
	out := make([]api.Notification, 0, len(list))
	for _, n := range list {
		out = append(out, api.Notification{
			ID: n.ID, Channel: n.Channel, Kind: string(n.Kind), Grant: n.Grant, State: n.State, Attempts: n.Attempts,
			NextTry: n.NextTry, Error: n.Error, Created: n.Created, Done: n.Done,
		})
	}
	return out
}
