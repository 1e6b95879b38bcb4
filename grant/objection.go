package grant

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/grant/evidence"
	"sallyport/grant/policy"
)

type sourceKey struct{}

// WithSource tells Request and Lease which address the caller's connection comes from, for conditions of policies.
func WithSource(ctx context.Context, from net.Addr) context.Context {
	if tcp, ok := from.(*net.TCPAddr); ok {
		return context.WithValue(ctx, sourceKey{}, tcp.AddrPort().Addr().Unmap().WithZone(""))
	}
	return ctx
}

// source is the address that WithSource told; not valid where it did not.
func source(ctx context.Context) netip.Addr {
	from, _ := ctx.Value(sourceKey{}).(netip.Addr)
	return from
}

// circumstances are what an open grant is held against the policies with.
type circumstances struct {
	identity authn.Identity
	source   netip.Addr
	at       time.Time // for what permits
	now      time.Time // for what forbids
	evidence map[string]evidence.Fact
	// connecting is set where they are those of a connection and not of the grant.
	connecting bool
}

// settled are the circumstances under which a grant was asked for, or began: would the policies as they are now have let
// it? So what has only gone by, such as how long ago a sign-in was, ends nothing.
func (s *Service) settled(g Grant) circumstances {
	at := g.Requested
	if g.State == Active {
		at = g.From
	}
	return circumstances{identity: g.Identity, source: g.Source, at: at, now: s.clock.stamp(), evidence: s.rules.Load().known(g)}
}

// connecting are the circumstances of a connection.
func (s *Service) connecting(ctx context.Context, who authn.Identity, g Grant) circumstances {
	now := s.clock.stamp()
	return circumstances{identity: who, source: source(ctx), at: now, now: now, evidence: s.rules.Load().known(g), connecting: true}
}

// objection is why the configuration does not allow a grant; none where reason is empty.
type objection struct {
	reason, text string
	// passing is set where only the circumstances are at fault: the grant holds, but does not let this connection in.
	passing bool
}

// objection holds an open grant against the configuration. Of one that is active only the subject, the condition and what
// forbids are looked at: its length was settled when it began.
func (r *rules) objection(g Grant, c circumstances) objection {
	t, ok := r.names[g.Target]
	if !ok {
		return objection{reason: EndTargetRemoved, text: "target " + g.Target + " was removed"}
	}
	if _, ok := Account(t, g.Account); !ok {
		return objection{reason: EndTargetRemoved, text: "account " + g.name() + " was removed"}
	}
	p, ok := r.policy(g.Policy)
	if !ok {
		return objection{reason: EndPolicyRemoved, text: "policy " + g.Policy + " was removed"}
	}
	ask := policy.Ask{
		Identity: c.identity, Target: t, Account: g.Account, Duration: g.Duration, Reason: g.Reason, Ticket: g.Ticket,
		Time: c.at, Source: c.source, BreakGlass: g.BreakGlass, Evidence: c.evidence,
	}
	if o := r.evidenceGone(p, c); o.reason != "" {
		return o
	}
	unread := slices.ContainsFunc(p.Policy.Evidence, func(name string) bool { return c.evidence[name].Missing != "" })
	var texts, passing []string
	// By which role it gives the account is part of what was decided.
	if role, covers := p.Role(t, g.Account); covers && role.Name != g.Role {
		texts = append(texts, "it gives "+g.name()+" by "+roleName(role.Name)+" now, no longer by "+roleName(g.Role))
	}
	for _, m := range p.Misses(ask) {
		switch m.Clause {
		case policy.Coverage, policy.Group:
			texts = append(texts, m.Text)
		case policy.Hours: // of an active grant they are in Until, and a request may wait for them
			if c.connecting && g.State == Approved {
				passing = append(passing, m.Text)
			}
		case policy.Evidence, policy.Start: // of the one see above; the other was settled when it was asked for
		case policy.SignIn:
			if c.connecting {
				passing = append(passing, m.Text)
			}
		case policy.When, policy.Network:
			switch {
			case m.Clause == policy.When && unread && !c.connecting: // it can't be worked out before that is read again
			case c.connecting:
				passing = append(passing, m.Text)
			default:
				for _, name := range p.Policy.Evidence {
					if m.Clause == policy.When && strings.Contains(m.Text, "evidence."+name) {
						return objection{reason: r.evidence.Ends(name), text: "policy " + g.Policy + ": " + m.Text}
					}
				}
				texts = append(texts, m.Text)
			}
		default:
			if g.State != Active {
				texts = append(texts, m.Text)
			}
		}
	}
	if text := unapproved(p, g); text != "" {
		texts = append(texts, text)
	}
	if len(texts) > 0 {
		return objection{reason: EndPolicyRemoved, text: "policy " + g.Policy + ": " + strings.Join(texts, ", ")}
	}
	ask.Time = c.now
	if !c.connecting && r.forbidsUnread(ask, c.evidence) {
		return objection{}
	}
	for _, f := range policy.Forbidding(r.policies, ask) {
		return objection{reason: EndForbidden, text: "policy " + f.Name + " forbids it: " + f.Text, passing: c.connecting}
	}
	if len(passing) > 0 {
		return objection{reason: EndPolicyRemoved, text: "policy " + g.Policy + ": " + strings.Join(passing, ", "), passing: true}
	}
	return objection{}
}

// unapproved says why what was or can be said of an open grant is not enough any more for its policy; empty: it is.
func unapproved(p *policy.Policy, g Grant) string {
	stages, same := still(p, g.stages())
	asks := fmt.Sprintf("it now asks for %d approvals by %s", policy.Needed(p.Policy), policy.Or(policy.Approving(p.Policy)))
	switch {
	case g.State == Active:
	case !same && g.Needed > 0:
		return asks + fmt.Sprintf(", in %d stages", len(policy.Stages(p.Policy)))
	case !same:
		return asks
	case g.State == Pending:
		if i := slices.IndexFunc(stages, func(s Stage) bool { return len(s.Groups) == 0 }); i >= 0 {
			text := "nobody is left who could approve it"
			if len(stages) > 1 {
				text += " at stage " + stages[i].Name
			}
			return text
		}
	case !policy.Auto(p.Policy):
		for i, s := range policy.Stages(p.Policy) {
			stages[i].Needed = s.Count // what was enough when it was approved need not be more than is asked for now
		}
		if g.open(stages) >= 0 {
			return asks
		}
	}
	return ""
}

func roleName(name string) string {
	if name == "" {
		return "itself"
	}
	return "role " + name
}

// open reports whether a policy's hours hold; those of one that is gone are not what ends a grant.
func (r *rules) open(name string, at time.Time) bool {
	p, ok := r.policy(name)
	if !ok {
		return true
	}
	open, _ := p.Open(at)
	return open
}

// latest is until when a grant may last: as wanted, but not longer than in all, nor than the hours of its policy.
func (r *rules) latest(g Grant, now, wanted time.Time) time.Time {
	earlier := func(t time.Time) {
		if t.Before(wanted) {
			wanted = t
		}
	}
	total := g.Total
	if p, ok := r.policy(g.Policy); ok {
		total = min(total, max(g.Duration, p.Total()))
		open, end := p.Open(now)
		switch {
		case !open:
			earlier(now)
		case !end.IsZero():
			earlier(end)
		}
		for _, name := range p.Policy.Evidence {
			if f := r.evidence.Known(name, about(g)); !f.Until.IsZero() {
				earlier(f.Until)
			}
		}
	}
	earlier(g.From.Add(total))
	return wanted
}
