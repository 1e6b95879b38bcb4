// Package policy answers one question from configuration alone: does a policy admit this request, and if none does, what
// is missing?
//
// It is pure: no clock, no store, no provider. The same policies and the same request give the same answer for ever, so
// that an answer can be checked again later. The rules are few:
//
//   - Nothing matched means no.
//   - A policy that forbids beats all that permit, wherever it stands. If its condition can't be worked out it forbids;
//     if that of one that permits can't, it does not match. Either way the answer says so.
//   - Policies are tried in the order in which they are written; the first that admits the request as asked wins whole.
//     Nothing is merged from two of them.
//   - What a policy leaves out gives nothing: no group is nobody, no maximum duration is no time at all, and neither
//     auto nor approving groups is a request that nobody could approve, which is refused when it is made.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/evidence"
)

// What holds where a policy says nothing.
const (
	DefaultWithin = 24 * time.Hour // for a decision
	DefaultStart  = time.Hour      // for the first use after approval
)

// Ask is a request as a policy sees it: who, what for, for how long, why, when and from where. The groups of people and of
// workloads are the same.
type Ask struct {
	Identity authn.Identity
	Target   configs.Target
	Account  string
	Duration time.Duration // 0: the policy's default
	Reason   string
	Ticket   string
	Time     time.Time
	Source   netip.Addr // of the connection; not valid: not known
	// Start is when it is to begin; zero: with its first use.
	Start time.Time
	// BreakGlass asks for an emergency, which policies of that kind alone give.
	BreakGlass bool
	// Evidence is what is known of it, by name.
	Evidence map[string]evidence.Fact
}

// Clause is a part of a policy that a request can fail.
type Clause string

// The clauses, in the order in which they are checked.
const (
	Coverage  Clause = "coverage"  // the policy speaks of other accounts or targets
	Group     Clause = "group"     // not in any of its groups
	Hours     Clause = "hours"     // not at this time
	Duration  Clause = "duration"  // longer than it allows
	Reason    Clause = "reason"    // shorter than it asks for
	Ticket    Clause = "ticket"    // none, or not as it asks for
	Start     Clause = "start"     // to begin later than it allows
	Network   Clause = "network"   // not from there
	SignIn    Clause = "sign_in"   // not proven as it asks for
	Evidence  Clause = "evidence"  // something is not as it has to be, or not known
	When      Clause = "when"      // its condition does not hold, or can't be worked out
	Approvers Clause = "approvers" // nobody could approve
)

// Miss is one clause that a request failed, in words for the one who asked.
type Miss struct {
	Clause Clause `json:"clause"`
	Text   string `json:"text"`
}

// Candidate is a policy that speaks of the account asked for, and what the request lacks under it.
type Candidate struct {
	Policy *Policy `json:"-"`
	Name   string  `json:"policy"`
	Misses []Miss  `json:"misses,omitempty"`
}

// Forbidden is a policy that forbids a request, and what it says about it.
type Forbidden struct {
	Name string `json:"policy"`
	Text string `json:"text"`
}

// Explanation is the answer to a request.
type Explanation struct {
	// Winner is the policy that admits the request, nil if none does or one forbids it.
	Winner *Policy
	// Role is the one by which the winner gives the account; see Policy.Role.
	Role configs.Role
	// Duration is what the winner gives: what was asked for, or its default.
	Duration time.Duration
	// Forbidden are the policies that forbid the request, whatever the others say.
	Forbidden []Forbidden
	// Candidates are the policies that speak of the account, in their order, up to the one that would admit the request.
	// Decide leaves them out where there is a winner.
	Candidates []Candidate
}

// Decide tries the policies in order, and explains if none admits the request.
func Decide(policies []*Policy, ask Ask) Explanation {
	in := input(ask, 0)
	for _, p := range policies {
		if p.Forbids() || p.BreakGlass != ask.BreakGlass || !p.admits(ask, in) {
			continue
		}
		e := Explanation{Winner: p, Duration: p.length(ask.Duration)}
		e.Role, _ = p.Role(ask.Target, ask.Account)
		ask.Duration = e.Duration // what is forbidden is what would be given
		if e.Forbidden = Forbidding(policies, ask); len(e.Forbidden) > 0 {
			e.Winner, e.Duration, e.Role = nil, 0, configs.Role{}
		}
		return e
	}
	return Explain(policies, ask)
}

// Explain is Decide with what each policy says, also where one admits the request.
func Explain(policies []*Policy, ask Ask) Explanation {
	var e Explanation
	for _, p := range policies {
		if p.Forbids() || p.BreakGlass != ask.BreakGlass || !p.Covers(ask.Target, ask.Account) {
			continue
		}
		misses := p.Misses(ask)
		e.Candidates = append(e.Candidates, Candidate{Policy: p, Name: p.Name, Misses: misses})
		if len(misses) == 0 {
			e.Winner, e.Duration = p, p.length(ask.Duration)
			e.Role, _ = p.Role(ask.Target, ask.Account)
			ask.Duration = e.Duration // what is forbidden is what would be given
			break
		}
	}
	if e.Forbidden = Forbidding(policies, ask); len(e.Forbidden) > 0 {
		e.Winner, e.Duration, e.Role = nil, 0, configs.Role{}
	}
	return e
}

// Forbidding lists the policies that forbid a request. One whose condition can't be worked out forbids it too.
func Forbidding(policies []*Policy, ask Ask) (forbidden []Forbidden) {
	var in *known
	for _, p := range policies {
		if !p.Forbids() || !p.Covers(ask.Target, ask.Account) || len(p.Groups) > 0 && !InAny(ask.Identity.Groups, p.Groups) {
			continue
		}
		if open, _ := p.Open(ask.Time); !open {
			continue
		}
		if ask.BreakGlass && slices.ContainsFunc(p.Policy.Evidence, func(name string) bool { f, ok := ask.Evidence[name]; return !ok || f.Missing != "" }) {
			continue // an emergency waits for no other system
		}
		text := p.Message
		if text == "" {
			text = "it is forbidden"
		}
		if p.condition != nil {
			if in == nil {
				in = input(ask, ask.Duration)
			}
			if p.condition.excluded(in) {
				continue
			}
			if holds, err := p.condition.quick(in); !holds && err == nil {
				continue
			}
			holds, says, err := p.condition.check(in)
			if err != nil {
				text += " (whether it is can't be worked out, so it is: " + says + ")"
			} else if !holds {
				continue
			}
		}
		forbidden = append(forbidden, Forbidden{p.Name, text})
	}
	return forbidden
}

// admits reports whether Misses would list none, without saying what; in is the request as conditions see it.
func (p *Policy) admits(ask Ask, in *known) bool {
	if !p.Covers(ask.Target, ask.Account) || !InAny(ask.Identity.Groups, p.Groups) {
		return false
	}
	if p.condition != nil {
		if p.condition.excluded(in) {
			return false
		}
		in.lasting(p.length(ask.Duration))
		if holds, err := p.condition.quick(in); !holds || err != nil {
			return false
		}
	}
	return len(p.Misses(ask)) == 0
}

// Misses lists the clauses of a policy that the request fails; none means that it admits the request. What forbids admits
// nothing.
func (p *Policy) Misses(ask Ask) []Miss {
	var misses []Miss
	miss := func(c Clause, format string, args ...any) {
		misses = append(misses, Miss{c, fmt.Sprintf(format, args...)})
	}
	covers, member := p.Covers(ask.Target, ask.Account), InAny(ask.Identity.Groups, p.Groups)
	if !covers || p.Forbids() || p.BreakGlass != ask.BreakGlass {
		miss(Coverage, "it does not speak of %s@%s", ask.Account, ask.Target.Name)
	}
	if !member {
		if len(p.Groups) == 0 {
			miss(Group, "it names no group")
		} else {
			miss(Group, "it is for members of %s", Or(p.Groups))
		}
	}
	begin := ask.Time
	if ask.Start.After(begin) {
		begin = ask.Start
	}
	if ahead := begin.Sub(ask.Time); ahead > p.Ahead.D() {
		if p.Ahead == 0 {
			miss(Start, "it begins with its first use, not at a time")
		} else {
			miss(Start, "it begins in %s at the latest", Short(p.Ahead.D()))
		}
	}
	if open, next := p.Open(begin); !open {
		miss(Hours, "it holds %s, next from %s", Or(p.Policy.Hours), next.UTC().Format("2006-01-02 15:04 UTC"))
	}
	length, most := p.length(ask.Duration), p.MaxDuration.D()
	switch {
	case most <= 0:
		miss(Duration, "it allows no time at all")
	case length <= 0 || length > most:
		miss(Duration, "%s is longer than the %s it allows", Short(length), Short(most))
	}
	if have, least := utf8.RuneCountInString(ask.Reason), max(p.ReasonLength, 1); have < least {
		miss(Reason, "the reason has %d of at least %d characters", have, least)
	}
	switch {
	case p.ticket == nil:
	case ask.Ticket == "":
		miss(Ticket, "it asks for a ticket like %s", p.Policy.Ticket)
	case !p.ticket.MatchString(ask.Ticket):
		miss(Ticket, "ticket %q is not like %s", ask.Ticket, p.Policy.Ticket)
	}
	if len(p.networks) > 0 && !slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return ask.Source.IsValid() && n.Contains(ask.Source.Unmap().WithZone("")) }) {
		miss(Network, "it is for connections from %s", Or(p.Networks))
	}
	p.missesSignIn(ask, miss)
	known := true
	for _, name := range p.Policy.Evidence {
		if f, ok := ask.Evidence[name]; !ok {
			known = false
			miss(Evidence, "evidence %s: it is not known", name)
		} else if f.Missing != "" {
			known = false
			miss(Evidence, "evidence %s: %s", name, f.Missing)
		}
	}
	if p.condition != nil && covers && member && known { // to others it says nothing
		if holds, says, err := p.condition.check(input(ask, length)); err != nil {
			miss(When, "its condition can't be worked out: %s", says)
		} else if !holds {
			miss(When, "its condition does not hold: %s", says)
		}
	}
	if at := slices.IndexFunc(Stages(p.Policy), func(s configs.Stage) bool { return len(s.Groups) == 0 }); at >= 0 {
		miss(Approvers, "nobody could approve it: it names no approving group")
	}
	return misses
}

// missesSignIn finds what the sign-in lacks.
func (p *Policy) missesSignIn(ask Ask, miss func(c Clause, format string, args ...any)) {
	want, who := p.Policy.SignIn, ask.Identity
	proven := who.SignedIn
	if !who.AuthTime.IsZero() {
		proven = who.AuthTime
	}
	if most := want.MaxAge.D(); most > 0 && ask.Time.Sub(proven) > most {
		miss(SignIn, "it asks for a sign-in that is at most %s old", Short(most))
	}
	if len(want.ACR) > 0 && !slices.Contains(want.ACR, who.ACR) {
		miss(SignIn, "it asks for a sign-in of class %s", Or(want.ACR))
	}
	if len(want.AMR) > 0 && !InAny(who.AMR, want.AMR) {
		miss(SignIn, "it asks for a sign-in with %s", Or(want.AMR))
	}
}

// length is what the request asks for under that policy.
func (p *Policy) length(asked time.Duration) time.Duration {
	if asked != 0 {
		return asked
	}
	if d := p.DefaultDuration.D(); d > 0 {
		return d
	}
	return p.MaxDuration.D()
}

// Total is how long a grant may last in all, with what it is extended by.
func (p *Policy) Total() time.Duration { return max(p.MaxTotal.D(), p.MaxDuration.D()) }

// Auto reports whether the policy itself approves. One that says auto and names approvers as well means the approvers.
func Auto(p configs.Policy) bool {
	return p.Approve.Auto && len(p.Approve.Groups) == 0 && len(p.Approve.Stages) == 0
}

// Stages are the approvals that a policy asks for, one after the other: one where it names groups alone, none where it approves
// by itself.
func Stages(p configs.Policy) []configs.Stage {
	switch {
	case Auto(p):
		return nil
	case len(p.Approve.Stages) == 0:
		return []configs.Stage{{Name: "1", Groups: p.Approve.Groups, Count: max(p.Approve.Count, 1)}}
	}
	stages := slices.Clone(p.Approve.Stages)
	for i := range stages {
		stages[i].Count = max(stages[i].Count, 1)
	}
	return stages
}

// Approving are the groups that approve at one stage or another, each once.
func Approving(p configs.Policy) (groups []string) {
	for _, s := range Stages(p) {
		for _, g := range s.Groups {
			if !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	return groups
}

// Needed is how many people must approve, at all stages together; 0 where the policy itself does.
func Needed(p configs.Policy) (n int) {
	for _, s := range Stages(p) {
		n += s.Count
	}
	return n
}

// Within is how long a request waits for a decision.
func Within(p configs.Policy) time.Duration { return orDefault(p.Approve.Within, DefaultWithin) }

// StartWithin is how long an approved grant waits for its first use.
func StartWithin(p configs.Policy) time.Duration { return orDefault(p.Approve.Start, DefaultStart) }

func orDefault(d configs.Duration, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d.D()
	}
	return otherwise
}

// Ends says what would end a grant by the policy, and the request before it: each a sentence's part.
func (p *Policy) Ends(length time.Duration) (list []string) {
	if Needed(p.Policy) > 0 {
		list = append(list, "the request lapses where nobody has decided within "+Short(Within(p.Policy)))
	}
	list = append(list, "it lapses where it is not used within "+Short(StartWithin(p.Policy)))
	after := "it ends " + Short(length) + " after its first use"
	if most := p.Total(); most > length && !p.BreakGlass {
		after += ", with extensions after " + Short(most) + " at most"
	}
	list = append(list, after)
	if len(p.Policy.Hours) > 0 {
		list = append(list, "it ends with the hours "+Or(p.Policy.Hours))
	}
	if p.Idle > 0 {
		list = append(list, "it ends after "+Short(p.Idle.D())+" without a session")
	}
	for _, name := range p.Policy.Evidence {
		list = append(list, "it ends when evidence "+name+" is gone")
	}
	if p.BreakGlass {
		list = append(list, "it is reviewed by "+Or(p.Review.Groups)+" within "+Short(p.Review.Within.D()))
	}
	return list
}

// InAny reports whether one of the groups is among those wanted.
func InAny(groups, wanted []string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(wanted, g) })
}

// Nearest returns the candidates that did not admit the request, those that lack least first.
func (e Explanation) Nearest() []Candidate {
	near := slices.DeleteFunc(slices.Clone(e.Candidates), func(c Candidate) bool { return len(c.Misses) == 0 })
	slices.SortStableFunc(near, func(a, b Candidate) int { return len(a.Misses) - len(b.Misses) })
	return near
}

// Detail says what was missing, policy by policy, nearest first; where something forbids the request, that alone counts.
func (e Explanation) Detail() string {
	if len(e.Forbidden) > 0 {
		var parts []string
		for _, f := range e.Forbidden {
			parts = append(parts, "policy "+f.Name+" forbids it: "+f.Text)
		}
		return strings.Join(parts, "; ")
	}
	near := e.Nearest()
	if len(near) == 0 {
		return "no policy speaks of it"
	}
	var parts []string
	for _, c := range near {
		var texts []string
		for _, m := range c.Misses {
			texts = append(texts, m.Text)
		}
		parts = append(parts, "policy "+c.Name+": "+strings.Join(texts, ", "))
	}
	return strings.Join(parts, "; ")
}

// MayAsk lists the groups that some candidate would let ask, each once.
func (e Explanation) MayAsk() []string {
	var groups []string
	for _, c := range e.Candidates {
		if slices.ContainsFunc(c.Misses, func(m Miss) bool { return m.Clause == Approvers }) {
			continue // nobody gets anything by it
		}
		for _, g := range c.Policy.Groups {
			if !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	return groups
}
