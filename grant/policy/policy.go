// Package policy answers one question from configuration alone: does a policy admit this request, and if none does, what
// is missing?
//
// It is pure: no clock, no store, no provider. The same policies and the same request give the same answer for ever, so
// that an answer can be checked again later. The rules are few:
//
//   - Nothing matched means no.
//   - Policies are tried in the order in which they are written; the first that admits the request as asked wins whole.
//     Nothing is merged from two of them.
//   - What a policy leaves out gives nothing: no group is nobody, no maximum duration is no time at all, and neither
//     auto nor approving groups is a request that nobody could approve, which is refused when it is made.
package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/configs"
)

// What holds where a policy says nothing.
const (
	DefaultWithin = 24 * time.Hour // for a decision
	DefaultStart  = time.Hour      // for the first use after approval
)

// Ask is a request as a policy sees it: whose groups, what for, for how long and why. Identity.Groups are the same for
// people and workloads.
type Ask struct {
	Groups   []string
	Target   configs.Target
	Account  string
	Duration time.Duration // 0: the policy's default
	Reason   string
}

// Clause is a part of a policy that a request can fail.
type Clause string

// The clauses, in the order in which they are checked.
const (
	Coverage  Clause = "coverage"  // the policy speaks of other accounts or targets
	Group     Clause = "group"     // not in any of its groups
	Duration  Clause = "duration"  // longer than it allows
	Reason    Clause = "reason"    // shorter than it asks for
	Approvers Clause = "approvers" // nobody could approve
)

// Miss is one clause that a request failed, in words for the one who asked.
type Miss struct {
	Clause Clause `json:"clause"`
	Text   string `json:"text"`
}

// Candidate is a policy that speaks of the account asked for, and what the request lacks under it.
type Candidate struct {
	Policy configs.Policy `json:"-"`
	Name   string         `json:"policy"`
	Misses []Miss         `json:"misses,omitempty"`
}

// Explanation is the answer to a request.
type Explanation struct {
	// Winner is the policy that admits the request, nil if none does.
	Winner *configs.Policy
	// Duration is what the winner gives: what was asked for, or its default.
	Duration time.Duration
	// Candidates are the policies that speak of the account, in their order, up to the winner.
	Candidates []Candidate
}

// Decide tries the policies in order. policies must not change afterwards: the winner points into it.
func Decide(policies []configs.Policy, ask Ask) Explanation {
	var e Explanation
	for i := range policies {
		p := &policies[i]
		if !Covers(*p, ask.Target, ask.Account) {
			continue
		}
		misses := Misses(*p, ask)
		e.Candidates = append(e.Candidates, Candidate{Policy: *p, Name: p.Name, Misses: misses})
		if len(misses) == 0 {
			e.Winner, e.Duration = p, length(*p, ask.Duration)
			return e
		}
	}
	return e
}

// Misses lists the clauses of one policy that the request fails; none means that it admits the request.
func Misses(p configs.Policy, ask Ask) []Miss {
	var misses []Miss
	miss := func(c Clause, format string, args ...any) {
		misses = append(misses, Miss{c, fmt.Sprintf(format, args...)})
	}
	if !Covers(p, ask.Target, ask.Account) {
		miss(Coverage, "it does not speak of %s@%s", ask.Account, ask.Target.Name)
	}
	if !InAny(ask.Groups, p.Groups) {
		if len(p.Groups) == 0 {
			miss(Group, "it names no group")
		} else {
			miss(Group, "it is for members of %s", Or(p.Groups))
		}
	}
	switch asked, most := length(p, ask.Duration), p.MaxDuration.D(); {
	case most <= 0:
		miss(Duration, "it allows no time at all")
	case asked <= 0 || asked > most:
		miss(Duration, "%s is longer than the %s it allows", Short(asked), Short(most))
	}
	if have, least := utf8.RuneCountInString(ask.Reason), max(p.ReasonLength, 1); have < least {
		miss(Reason, "the reason has %d of at least %d characters", have, least)
	}
	if !Auto(p) && len(p.Approve.Groups) == 0 {
		miss(Approvers, "nobody could approve it: it names no approving group")
	}
	return misses
}

// length is what the request asks for under that policy.
func length(p configs.Policy, asked time.Duration) time.Duration {
	if asked != 0 {
		return asked
	}
	if d := p.DefaultDuration.D(); d > 0 {
		return d
	}
	return p.MaxDuration.D()
}

// Auto reports whether the policy itself approves. One that says auto and names approvers as well means the approvers.
func Auto(p configs.Policy) bool { return p.Approve.Auto && len(p.Approve.Groups) == 0 }

// Needed is how many people must approve; 0 where the policy itself does.
func Needed(p configs.Policy) int {
	if Auto(p) {
		return 0
	}
	return max(p.Approve.Count, 1)
}

// Within is how long a request waits for a decision.
func Within(p configs.Policy) time.Duration { return orDefault(p.Approve.Within, DefaultWithin) }

// Start is how long an approved grant waits for its first use.
func Start(p configs.Policy) time.Duration { return orDefault(p.Approve.Start, DefaultStart) }

func orDefault(d configs.Duration, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d.D()
	}
	return otherwise
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

// Detail says what was missing, policy by policy, nearest first.
func (e Explanation) Detail() string {
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
