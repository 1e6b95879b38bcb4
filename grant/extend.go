package grant

import (
	"context"
	"slices"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Extend asks that one's own active grant end later, by as much. Where the policy itself approves, it does at once; else
// votes are collected as for the request, and until they are there the grant goes on to its old end. In all it lasts no
// longer than was settled when it was asked for, than the policy says now, and than the policy's hours. Nothing but the
// end changes: whoever needs more than that asks for another grant.
func (s *Service) Extend(ctx context.Context, who authn.Identity, id string, by time.Duration, reason string) (Grant, error) {
	id = canonical(id)
	seen := Grant{ID: id}
	if err := s.meet(ctx); err != nil {
		return Grant{}, err
	}
	s.learnOf(ctx, id)
	g, err := s.onGrant(ctx, who, id, reason, func(g *Grant, reason string) (store.AuditEvent, error) {
		seen = g.clone()
		return s.extend(ctx, g, who, by, reason)
	})
	return g, s.refused(ctx, "extend.refused", who, seen, err)
}

func (s *Service) extend(ctx context.Context, g *Grant, who authn.Identity, by time.Duration, reason string) (store.AuditEvent, error) {
	none := store.AuditEvent{}
	switch {
	case !g.owned(who):
		return none, refusal.New(refusal.NotPermitted, "grant %s is not yours to extend", g.ID).
			WithHint("ask for one of your own with: %s", command(g.Target, g.Account, g.Duration, 1, g.Ticket))
	case by < time.Second:
		return none, refusal.New(refusal.Invalid, "an extension by %s makes no sense", by).
			WithHint("extend by a second or more, such as --duration 30m")
	case g.State != Active:
		return none, refusal.New(refusal.Conflict, "only an active grant can be extended").WithDetail("%s", s.describe(*g)).
			WithHint("ask for another with: %s", command(g.Target, g.Account, g.Duration, 1, g.Ticket))
	case g.BreakGlass:
		return none, refusal.New(refusal.NotPermitted, "what was taken in an emergency is not extended").
			WithHint("when it has ended, ask in the ordinary way, or with --break-glass again")
	case g.Extension != nil:
		return none, refusal.New(refusal.Conflict, "an extension of grant %s waits already", g.ID).WithDetail("%s", s.describe(*g)).
			WithHint("ask a member of %s other than yourself to run: sallyport approve %s", policy.Or(g.Extension.MayApprove), g.ID)
	}
	if ended, over := s.judgeTime(s.rowOf(*g)); over {
		return none, refusal.New(refusal.Conflict, "it is too late to extend grant %s", g.ID).WithDetail("%s", sentence(ended)).
			WithHint("ask for another with: %s", command(g.Target, g.Account, g.Duration, 1, g.Ticket))
	}
	if err := s.clock.sound(); err != nil {
		return none, err
	}
	r := s.rules.Load()
	if o := r.objection(*g, s.connecting(ctx, who, *g)); o.reason != "" {
		return none, refusal.New(refusal.NotPermitted, "no policy lets you extend grant %s", g.ID).WithDetail("%s", o.text).
			WithHint("it goes on until %s", when(g.Until))
	}
	if latest := r.latest(*g, s.clock.stamp(), g.Until.Add(by)); latest.Before(g.Until.Add(by)) {
		no := refusal.New(refusal.NotPermitted, "grant %s can't be extended by %s", g.ID, policy.Short(by)).
			WithDetail("by policy %s it lasts until %s at the latest", g.Policy, when(maxTime(latest, g.Until)))
		if left := latest.Sub(g.Until).Truncate(time.Second); left > 0 {
			return none, no.WithHint("extend it with: sallyport extend %s --duration %s", g.ID, policy.Short(left))
		}
		return none, no.WithHint("when it has ended, ask again with: %s", command(g.Target, g.Account, g.Duration, 1, g.Ticket))
	}
	p, _ := r.policy(g.Policy) // there is one, or there were an objection
	stages := stagesOf(p)
	if had := g.stages(); len(had) > 0 {
		now, same := still(p, had)
		if !same {
			return none, refusal.New(refusal.NotPermitted, "nobody could approve an extension of grant %s", g.ID).
				WithDetail("policy %s has come to ask for other stages of approval than it was given by", g.Policy).WithHint("it goes on until %s", when(g.Until))
		}
		stages = now
	}
	e := Extension{Duration: by, Reason: reason, Requested: s.clock.stamp(), Stages: written(stages)}
	e.Needed, e.MayApprove = total(stages), groupsOf(stages)
	g.Extensions++
	if e.Needed == 0 {
		return s.prolong(g, e, nil), nil
	}
	if i := slices.IndexFunc(stages, func(s Stage) bool { return len(s.Groups) == 0 }); i >= 0 {
		return none, refusal.New(refusal.NotPermitted, "nobody could approve an extension of grant %s", g.ID).
			WithDetail("it was approved by %s, who no longer may", policy.Or(g.stages()[i].Groups)).WithHint("it goes on until %s", when(g.Until))
	}
	if err := s.approvable(ctx, r, *g, "an extension of grant "+g.ID, stages); err != nil {
		return none, err
	}
	g.Extension = &e
	event := s.event("grant.extension_requested", &who, *g)
	event.Reason, event.Fields["by"] = reason, by.String()
	return event, nil
}

// approveExtension counts one more vote for an extension. A text says why it is dropped instead.
func (s *Service) approveExtension(ctx context.Context, r *rules, g *Grant, who authn.Identity, comment string) (event store.AuditEvent, text string, err error) {
	p, _ := r.policy(g.Policy)
	e := g.Extension
	drop := func(text string) (store.AuditEvent, string, error) {
		g.settled, g.Extension = &e.Ballot, nil
		event := s.event("grant.extension_denied", nil, *g)
		event.Reason = text
		return event, text, nil
	}
	stages, same := still(p, e.stages())
	if !same {
		return drop("policy " + g.Policy + " has come to ask for other stages of approval")
	}
	if !policy.InAny(who.Groups, groupsOf(stages)) {
		return event, "", notApprover("approve", *g, groupsOf(stages))
	}
	if latest := r.latest(*g, s.clock.stamp(), g.Until.Add(e.Duration)); latest.Before(g.Until.Add(e.Duration)) {
		return drop("by policy " + g.Policy + " it now lasts until " + when(maxTime(latest, g.Until)) + " at the latest")
	}
	event, met, err := s.count(ctx, r, g, &e.Ballot, stages, who, comment)
	if err != nil {
		return event, "", err
	}
	if met {
		event = s.prolong(g, *e, &who)
	}
	event.Reason = comment
	return event, "", nil
}

// prolong moves the end.
func (s *Service) prolong(g *Grant, e Extension, by *authn.Identity) store.AuditEvent {
	g.Until = g.Until.Add(e.Duration)
	g.settled, g.Extension = &e.Ballot, nil
	event := s.event("grant.extended", by, *g)
	event.Fields["by"], event.Fields["until"] = e.Duration.String(), g.Until.Format(time.RFC3339Nano)
	var names []string
	for _, v := range e.Votes {
		names = append(names, v.Name)
	}
	if len(names) == 0 {
		names = []string{"policy " + g.Policy}
		event.Reason = e.Reason
	}
	event.Fields["approvers"] = strings.Join(names, ",")
	return event
}

// denyExtension turns an extension down; the grant goes on to its end.
func (s *Service) denyExtension(g *Grant, who authn.Identity, comment string) store.AuditEvent {
	e := g.Extension
	e.cast(max(e.open(e.stages()), 0), who, false, comment, s.clock.stamp())
	g.settled, g.Extension = &e.Ballot, nil
	event := s.event("grant.extension_denied", &who, *g)
	event.Reason = comment
	return event
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
