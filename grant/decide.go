package grant

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"sallyport/authn"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Approve and Deny are an approver's vote; never the requester's own.
//
// An approval counts only if the policy that the request was made under still admits it, and then only from groups that
// could approve when it was asked for and still can: a configuration read meanwhile narrows, and widens nothing. Earlier
// votes are measured again. Only people approve.
func (s *Service) Approve(ctx context.Context, who authn.Identity, id, comment string) (Grant, error) {
	var gone error // set where the request ended instead
	s.learnOf(ctx, id)
	g, err := s.vote(ctx, "approve.refused", who, id, comment, func(g *Grant, comment string) (store.AuditEvent, error) {
		if who.Kind != authn.Human {
			return store.AuditEvent{}, refusal.New(refusal.NotPermitted, "only people may approve")
		}
		if p, ok := s.rules.Load().policy(g.Policy); who.Method == authn.LinkedAccount && (g.Confirm || ok && p.Approve.Confirm != "") {
			return store.AuditEvent{}, refusal.New(refusal.NotPermitted, "grant %s is not approved by a click elsewhere", g.ID).
				WithDetail("policy %s asks for a sign-in of your own", g.Policy).
				WithHint("approve it in the gateway's console, or with: sallyport approve %s", g.ID)
		}
		// Those who come by themselves are asked where they come in (web); a word from elsewhere is asked here.
		if within := s.rules.Load().freshFor(g.Target); who.Method == authn.LinkedAccount && within > 0 && (who.AuthTime.IsZero() || s.clock.stamp().Sub(who.AuthTime) > within) {
			return store.AuditEvent{}, refusal.New(refusal.StepUp, "you must have signed in within the last %s to approve grant %s", policy.Short(within), g.ID).
				WithHint("sign in again and repeat it, or approve it in the gateway's console")
		}
		if err := s.clock.sound(); err != nil {
			return store.AuditEvent{}, err
		}
		if g.State != Pending && g.Extension == nil {
			return store.AuditEvent{}, s.decided(*g)
		}
		if ended, over := s.judgeTime(s.rowOf(*g)); over {
			*g = ended
			gone = refusal.New(refusal.Conflict, "it is too late to approve grant %s", g.ID).
				WithDetail("%s", s.describe(*g)).WithHint("%s has to ask again", g.Identity.Label())
			return s.over(*g), nil
		}
		r := s.rules.Load()
		if o := r.objection(*g, s.settled(*g)); o.reason != "" {
			s.object(g, o)
			gone = refusal.New(refusal.Conflict, "the policy does not allow grant %s any more", g.ID).
				WithDetail("%s", o.text).WithHint("%s has to ask again", g.Identity.Label())
			return s.over(*g), nil
		}
		if g.Extension != nil {
			event, text, err := s.approveExtension(ctx, r, g, who, comment)
			if text != "" {
				gone = refusal.New(refusal.Conflict, "grant %s can't be extended by that any more", g.ID).
					WithDetail("%s", text).WithHint("%s has to ask again", g.Identity.Label())
			}
			return event, err
		}
		return s.approve(ctx, r, g, who, comment)
	})
	if err == nil && gone != nil {
		err = s.refused(ctx, "approve.refused", who, g, gone)
		g = Grant{}
	}
	return g, err
}

// approve counts one more vote on a request that the policy still admits, at the stage that is open.
func (s *Service) approve(ctx context.Context, r *rules, g *Grant, who authn.Identity, comment string) (store.AuditEvent, error) {
	p, _ := r.policy(g.Policy)
	stages, _ := still(p, g.stages()) // they are the same, or there were an objection
	event, met, err := s.count(ctx, r, g, &g.Ballot, stages, who, comment)
	if err != nil {
		return event, err
	}
	if met {
		g.State, g.ActivateBy = Approved, maxTime(s.clock.stamp(), g.Start).Add(policy.StartWithin(p.Policy))
		approved := s.event("grant.approved", &who, *g)
		approved.Fields["approvers"], approved.Fields["waited"] = strings.Join(g.By(), ","), approved.Time.Sub(g.Requested).String()
		if stage := event.Fields["stage"]; stage != "" {
			approved.Fields["stage"] = stage
		}
		event = approved
	}
	event.Reason = comment
	return event, nil
}

// count counts somebody's approval at the first stage that is not met, and says whether all now are. Votes that lost their right
// are dropped before; a vote counts at one stage only, whatever groups its voter is in. Where an earlier stage came to be open
// again, votes at the later ones stay, and decide nothing before it is met: to ask their people anew would let one person make
// all others decide again, and what they said yes to has not changed.
func (s *Service) count(ctx context.Context, r *rules, g *Grant, b *Ballot, stages []Stage, who authn.Identity, comment string) (event store.AuditEvent, met bool, err error) {
	b.Votes = b.counted(stages)
	if err := s.dropLeavers(ctx, b, stages); err != nil {
		return event, false, err
	}
	if mine := b.by(r.persons, who); mine >= 0 {
		what, only := "grant "+g.ID, ""
		if g.Extension != nil {
			what = "the extension of grant " + g.ID
		}
		if len(stages) > 1 {
			only = "; one person has one vote over all its stages"
		}
		return event, false, refusal.New(refusal.Conflict, "you have approved %s already, at %s", what, when(b.Votes[mine].Time)).
			WithDetail("%s%s", s.describe(*g), only).WithHint("somebody else has to approve it too")
	}
	open := b.open(stages)
	if open < 0 { // what counts has not become less, nor what is needed
		open = len(stages) - 1
	}
	if !policy.InAny(who.Groups, stages[open].Groups) {
		for i, stage := range stages {
			if i > open && policy.InAny(who.Groups, stage.Groups) {
				return event, false, refusal.New(refusal.Conflict, "grant %s does not wait for you yet", g.ID).
					WithDetail("%s; yours is stage %d", s.describe(*g), i+1).WithHint("you are asked when the stages before it are met")
			}
		}
		return event, false, notApprover("approve", *g, stages[open].Groups)
	}
	if err := s.leaves(ctx, r, *g, *b, stages, open, who); err != nil {
		return event, false, err
	}
	b.cast(open, who, true, comment, s.clock.stamp())
	event = s.event("grant.voted", &who, *g)
	event.Fields["approvals"] = strconv.Itoa(b.at(stages)[open]) + " of " + strconv.Itoa(stages[open].Needed)
	s.staged(&event, *b, stages, open, open)
	return event, b.open(stages) < 0, nil
}

// leaves refuses an approval that would leave too few people for the stages after it, where others could give it: whoever is
// in the groups of several stages has one vote. As with requests that nobody could approve, it is worked out only where the
// configuration says that all who may approve are known here.
func (s *Service) leaves(ctx context.Context, r *rules, g Grant, b Ballot, stages []Stage, open int, who authn.Identity) error {
	if len(stages) < 2 || !r.onlyKnown || s.members == nil {
		return nil
	}
	members, err := s.members(ctx, groupsOf(stages))
	if err != nil {
		return err
	}
	rest, n := slices.Clone(stages), b.at(stages)
	for i := range rest {
		rest[i].Needed -= n[i]
	}
	free := slices.DeleteFunc(r.persons.Others(g.Identity, members), func(m authn.Identity) bool { return b.by(r.persons, m) >= 0 })
	if short(rest, free) != nil {
		return nil // it is not this approval that makes it so
	}
	rest[open].Needed--
	no := short(rest, slices.DeleteFunc(free, func(m authn.Identity) bool { return r.persons.Same(m, who) }))
	if no == nil {
		return nil
	}
	label := stages[no.stages[len(no.stages)-1]].Name
	return refusal.New(refusal.Conflict, "nobody could approve grant %s at stage %s if you did now", g.ID, label).
		WithDetail("one person has one vote over all stages, and yours is needed there").WithHint("have another member of %s approve at stage %s", policy.Or(stages[open].Groups), stages[open].Name)
}

// dropLeavers drops the votes of people who could not cast them any more: who has left the group, or may not sign in.
func (s *Service) dropLeavers(ctx context.Context, b *Ballot, stages []Stage) error {
	if s.groups == nil {
		return nil
	}
	stay := []Vote{}
	for _, v := range b.Votes {
		now, err := s.groups(ctx, authn.Identity{Issuer: v.Issuer, Subject: v.Subject})
		if err != nil {
			return fmt.Errorf("whether %s may still approve: %w", v.Name, err)
		}
		if policy.InAny(now, stages[v.stage()].Groups) {
			stay = append(stay, v)
		}
	}
	b.Votes = stay
	return nil
}

// staged says in an event at which stage somebody voted and, where another one than before is open now, which.
func (s *Service) staged(event *store.AuditEvent, b Ballot, stages []Stage, voted, open int) {
	if len(stages) < 2 {
		return
	}
	standing := b.standing(stages)
	event.Fields["stage"] = standing[voted].Label(len(stages))
	if now := b.open(stages); now >= 0 && now != open {
		event.Fields["opens"] = standing[now].Label(len(stages))
	}
}

// over is the event of a grant that the gateway itself has just ended.
func (s *Service) over(g Grant) store.AuditEvent {
	event := s.event("grant."+string(g.State), nil, g)
	event.Reason = g.EndComment
	if g.EndReason != "" {
		event.Fields["end_reason"] = g.EndReason
	}
	return event
}

// rowOf is a grant as it stands in a transaction, with what memory knows of it.
func (s *Service) rowOf(g Grant) *row {
	r := &row{grant: g, deadline: math.MaxInt64}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.open[g.ID]; e != nil {
		if known := e.row.Load(); known.grant.State == g.State {
			r.entry, r.deadline = e, known.deadline
			if g.State == Active { // of which memory may not know yet that it was extended
				r.deadline += g.Until.Sub(known.grant.Until)
			}
		}
	}
	return r
}

// Deny ends a pending request, or turns down the extension that waits. It works whatever has become of the policy.
func (s *Service) Deny(ctx context.Context, who authn.Identity, id, comment string) (Grant, error) {
	return s.vote(ctx, "deny.refused", who, id, comment, func(g *Grant, comment string) (store.AuditEvent, error) {
		if g.Extension != nil {
			return s.denyExtension(g, who, comment), nil
		}
		if g.State != Pending {
			return store.AuditEvent{}, s.decided(*g)
		}
		now := s.clock.stamp()
		g.cast(max(g.open(g.stages()), 0), who, false, comment, now)
		g.end(Denied, now, "", who.Label(), comment)
		event := s.event("grant.denied", &who, *g)
		event.Reason = comment
		return event, nil
	})
}

// vote is what approving and denying have in common: who may.
func (s *Service) vote(ctx context.Context, kind string, who authn.Identity, id, comment string, decide func(*Grant, string) (store.AuditEvent, error)) (Grant, error) {
	id = canonical(id)
	verb := strings.TrimSuffix(kind, ".refused")
	if err := s.meet(ctx); err != nil && verb == "approve" { // what is denied is, whatever is not known
		return Grant{}, err
	}
	seen := Grant{ID: id}
	g, err := s.onGrant(ctx, who, id, comment, func(g *Grant, comment string) (store.AuditEvent, error) {
		seen = g.clone()
		asked, started := s.rules.Load().persons.Own(g.Identity, who)
		switch {
		case g.owned(who) || asked && verb == "approve":
			r := refusal.New(refusal.NotPermitted, "you may not %s your own request %s", verb, g.ID)
			if verb == "deny" {
				return store.AuditEvent{}, r.WithHint("take it back with: sallyport release %s", g.ID)
			}
			if len(g.MayApprove) > 0 {
				r.WithDetail("another member of %s has to", policy.Or(g.MayApprove)).WithHint("ask one of them to run: sallyport approve %s", g.ID)
			}
			return store.AuditEvent{}, r
		case verb == "approve" && started:
			return store.AuditEvent{}, refusal.New(refusal.NotPermitted, "you may not approve %s, which is for a job that you started", g.ID).
				WithHint("ask another member of %s to run: sallyport approve %s", policy.Or(g.deciders()), g.ID)
		case stale(ctx, *g):
			return store.AuditEvent{}, refusal.New(refusal.Conflict, "what that was about is decided already").WithDetail("%s", s.describe(*g)).
				WithHint("see what waits for you with: sallyport requests")
		case verb == "approve" && elsewhere(ctx, *g):
			return store.AuditEvent{}, refusal.New(refusal.Conflict, "that was about another stage of grant %s than the one that waits", g.ID).WithDetail("%s", s.describe(*g)).
				WithHint("see what waits for you with: sallyport requests")
		case !policy.InAny(who.Groups, g.deciders()):
			return store.AuditEvent{}, notApprover(verb, *g, g.deciders())
		}
		return decide(g, comment)
	})
	return g, s.refused(ctx, kind, who, seen, err)
}

// meet looks up what has to be known to tell who is one person with whom.
func (s *Service) meet(ctx context.Context) error {
	return s.rules.Load().persons.Learn(ctx, s.current)
}

type roundKey struct{}

// WithRound narrows Approve and Deny to what was asked: 0 for the request itself, n for the n-th extension. A word on the one
// must not be taken for one on the other because it came late.
func WithRound(ctx context.Context, round int) context.Context {
	return context.WithValue(ctx, roundKey{}, round)
}

type stageKey struct{}

// WithStage narrows Approve to the stage at which somebody was asked, from 1: a word on one must not be taken for one on the next,
// of whose people they may be as well, because it came late.
func WithStage(ctx context.Context, stage int) context.Context {
	return context.WithValue(ctx, stageKey{}, stage)
}

type noteKey struct{}

// WithNote has what somebody decides by Approve or Deny noted by whoever brings it, in the same transaction: both are there or neither.
// note is called with the grant as it then is, where their word counts; its error takes the word back.
func WithNote(ctx context.Context, note func(*store.Tx, Grant) error) context.Context {
	return context.WithValue(ctx, noteKey{}, note)
}

// Round is what waits for decision, as WithRound counts: -1 where nothing does.
func (g Grant) Round() int {
	switch {
	case g.Extension != nil:
		return g.Extensions
	case g.State == Pending:
		return 0
	}
	return -1
}

func stale(ctx context.Context, g Grant) bool {
	round, given := ctx.Value(roundKey{}).(int)
	return given && round != g.Round()
}

func elsewhere(ctx context.Context, g Grant) bool {
	stage, given := ctx.Value(stageKey{}).(int)
	return given && stage != g.Stage()
}

// onGrant is change for somebody who says something.
func (s *Service) onGrant(ctx context.Context, who authn.Identity, id, comment string, decide func(*Grant, string) (store.AuditEvent, error)) (Grant, error) {
	if err := proven(who); err != nil {
		return Grant{}, err
	}
	comment, err := clean("comment", comment)
	if err != nil {
		return Grant{}, err
	}
	return s.change(ctx, id, func(g *Grant) (store.AuditEvent, error) { return decide(g, comment) })
}

// Revoke ends a grant from outside: by its approvers and those who may revoke. Revoking one's own is giving it back.
// It works whatever has become of the policy, the target and the clock.
func (s *Service) Revoke(ctx context.Context, who authn.Identity, id, reason string) (Grant, error) {
	id = canonical(id)
	seen := Grant{ID: id}
	g, err := s.onGrant(ctx, who, id, reason, func(g *Grant, reason string) (store.AuditEvent, error) {
		seen = g.clone()
		if !g.owned(who) && !policy.InAny(who.Groups, g.MayApprove) {
			if err := s.May(who, RevokeGrants, g.Target); err != nil {
				r := refusal.Of(err)
				return store.AuditEvent{}, refusal.New(refusal.NotPermitted, "you may not revoke grant %s", g.ID).
					WithDetail("its approvers may, and those with the permission: %s", r.Detail).WithHint("%s", r.Hint)
			}
		}
		return s.takeAway(g, who, EndRevoked, reason)
	})
	return g, s.refused(ctx, "revoke.refused", who, seen, err)
}

// Release gives one's own grant back, or withdraws one's own request.
func (s *Service) Release(ctx context.Context, who authn.Identity, id string) (Grant, error) {
	id = canonical(id)
	seen := Grant{ID: id}
	if err := inEmergency(who); err != nil {
		return Grant{}, err
	}
	g, err := s.change(ctx, id, func(g *Grant) (store.AuditEvent, error) {
		seen = g.clone()
		if !g.owned(who) {
			return store.AuditEvent{}, refusal.New(refusal.NotPermitted, "grant %s is not yours to give back", g.ID).
				WithHint("its approvers, and those who may, end it with: sallyport revoke %s", g.ID)
		}
		return s.takeAway(g, who, EndReleased, "")
	})
	return g, s.refused(ctx, "release.refused", who, seen, err)
}

// takeAway ends a grant that is not over yet.
func (s *Service) takeAway(g *Grant, who authn.Identity, reason, comment string) (store.AuditEvent, error) {
	if g.State.Over() {
		return store.AuditEvent{}, s.decided(*g)
	}
	now := s.clock.stamp()
	to := Ended
	if own := g.owned(who); own && g.State != Active {
		to = Withdrawn
	} else if g.State == Pending {
		to = Denied
	}
	g.end(to, now, reason, who.Label(), comment)
	event := s.event("grant."+string(to), &who, *g)
	event.Reason, event.Fields["end_reason"] = comment, reason
	return event, nil
}

// decided refuses because there is nothing left to decide.
func (s *Service) decided(g Grant) error {
	state := string(g.State)
	if g.State == Lapsed || g.State == Ended {
		state = "over"
	}
	return refusal.New(refusal.Conflict, "grant %s is %s already", g.ID, state).WithDetail("%s", s.describe(g)).
		WithHint("see what waits for you with: sallyport requests")
}

func notApprover(verb string, g Grant, groups []string) error {
	r := refusal.New(refusal.NotPermitted, "you may not %s grant %s", verb, g.ID)
	if len(groups) == 0 {
		return r.WithDetail("nobody approves it but the policy").WithHint("end it with: sallyport revoke %s", g.ID)
	}
	return r.WithDetail("members of %s may", policy.Or(groups)).WithHint("ask one of them to run: sallyport %s %s", verb, g.ID)
}

func noSuch(id string) error {
	return refusal.New(refusal.NotFound, "there is no grant %s that you may see", quote(id)).WithHint("list them with: sallyport grants")
}
