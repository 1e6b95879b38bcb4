// Package grant is may they, now: targets and accounts, requests, the life of a grant, leases.
//
// What it promises:
//
//   - Access is a pure function of a grant's row as last committed and of the time (Lease.Live). Everything else, the
//     timers that close Lease.Ended and the transition to ended(expired) included, only says sooner or later what that
//     function says already, so a failure in it never prolongs access.
//   - A transition is one compare-and-swap on the row's version and its audit event, in one transaction; one of two
//     that race wins, and states that are over have no way out.
//   - The clock starts at the first use. Until is set with From, to no more than the duration later, and never again:
//     reconnecting and restarting do not lengthen a grant. Neither does a clock set back: a running grant also has a
//     deadline on the clock that does not jump, the latest wall-clock time seen is kept in the store, and while the clock
//     is behind it nothing is approved and nobody is let in anew. A store that is an old copy of itself revives nothing.
//   - Nobody approves what they asked for, one person has one vote, and a vote counts only for a policy that still
//     says what it said. A configuration read anew ends what it no longer allows.
//   - Denying, revoking and giving back work also when the clock is wrong or the policy is gone.
//
// The life of a grant:
//
//	request ─► pending ──approvals──► approved ──first use──► active ──► ended
//	              │                      │                       expired, released, revoked,
//	              ├─► denied             ├─► ended               policy, target or account gone,
//	              ├─► withdrawn          ├─► withdrawn           clock went back
//	              └─► lapsed             └─► lapsed
//
// Why so few states: nothing has to be made on a target before a grant can be used, or cleaned up after it, so there is
// nothing to wait for between approved and active or between active and ended, and the one row says it all. Suspending
// is ending: whoever still needs access asks again.
package grant

import (
	"maps"
	"slices"
	"time"

	"sallyport/authn"
	"sallyport/grant/policy"
)

// State is where a grant is in its life.
type State string

// The states. Only active gives access.
const (
	Pending   State = "pending"   // waits for approval
	Approved  State = "approved"  // may be used; the clock starts when access starts
	Active    State = "active"    // gives access until Until
	Ended     State = "ended"     // gave access, or could have; EndReason says why no more
	Denied    State = "denied"    // an approver said no
	Withdrawn State = "withdrawn" // the requester took it back before it was used
	Lapsed    State = "lapsed"    // nobody decided, or nobody used it, in time
)

// Over reports whether it is a last state.
func (s State) Over() bool { return len(ways[s]) == 0 }

// ways are all transitions there are. A vote that decides nothing stays at pending.
var ways = map[State][]State{
	Pending:  {Pending, Approved, Denied, Withdrawn, Lapsed},
	Approved: {Active, Ended, Withdrawn, Lapsed},
	Active:   {Ended},
}

// Why a grant ended; stable words.
const (
	EndExpired       = "expired"
	EndReleased      = "released"
	EndRevoked       = "revoked"
	EndIdentityGone  = "identity_gone"
	EndPolicyRemoved = "policy_removed"
	EndTargetRemoved = "target_removed"
	EndClockWentBack = "clock_went_back"
	// EndStoreLost: whether it was revoked can't be known. It ends leases while the store does not answer, and grants at a
	// start from a store that is too old.
	EndStoreLost = "store_lost"
)

// Vote is one approver's word.
type Vote struct {
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Name    string    `json:"name"`
	Approve bool      `json:"approve"`
	Comment string    `json:"comment,omitempty"`
	Time    time.Time `json:"time"`
}

// Grant is (identity, target, account, from, until, why). Identity, target, account and reason never change.
type Grant struct {
	ID         string         `json:"id"` // short, typeable: g-7k3mq2
	State      State          `json:"state"`
	Identity   authn.Identity `json:"identity"` // as it was proven when it asked
	Target     string         `json:"target"`
	Account    string         `json:"account"`
	Reason     string         `json:"reason"`
	Policy     string         `json:"policy"`
	Duration   time.Duration  `json:"duration_ns"`
	Votes      []Vote         `json:"votes"`
	Needed     int            `json:"approvals_needed"` // 0: approved by policy
	MayApprove []string       `json:"may_approve"`      // groups
	Requested  time.Time      `json:"requested"`
	DecideBy   time.Time      `json:"decide_by,omitzero"`
	ActivateBy time.Time      `json:"activate_by,omitzero"`
	From       time.Time      `json:"from,omitzero"`  // when access started
	Until      time.Time      `json:"until,omitzero"` // when it ends at the latest; set with From, never later
	EndedAt    time.Time      `json:"ended_at,omitzero"`
	EndReason  string         `json:"end_reason,omitempty"`
	EndedBy    string         `json:"ended_by,omitempty"`    // a name, or "system"
	EndComment string         `json:"end_comment,omitempty"` // what they said, or what exactly was gone
	Version    int            `json:"version"`

	voters map[string][]string // the groups of those who voted, when they did, by identity key
}

// Approvers are the names of those who approved, or "policy NAME" where the policy did.
func (g Grant) Approvers() []string {
	if g.Needed == 0 {
		return []string{"policy " + g.Policy}
	}
	var names []string
	for _, v := range g.Votes {
		if v.Approve {
			names = append(names, v.Name)
		}
	}
	return names
}

// owned reports whether it is that identity's own.
func (g Grant) owned(who authn.Identity) bool { return g.Identity.Key() == who.Key() }

// eligible returns the votes of people in those groups: of the others the right to vote is gone.
func (g Grant) eligible(groups []string) []Vote {
	return slices.DeleteFunc(slices.Clone(g.Votes), func(v Vote) bool { return !policy.InAny(g.voters[v.key()], groups) })
}

// approvals counts the votes for g by people in those groups.
func (g Grant) approvals(groups []string) (n int) {
	for _, v := range g.eligible(groups) {
		if v.Approve {
			n++
		}
	}
	return n
}

// cast adds or replaces somebody's vote.
func (g *Grant) cast(who authn.Identity, approve bool, comment string, at time.Time) {
	v := Vote{Issuer: who.Issuer, Subject: who.Subject, Name: who.Label(), Approve: approve, Comment: comment, Time: at}
	g.Votes = slices.DeleteFunc(g.Votes, func(other Vote) bool { return other.key() == v.key() })
	g.Votes = append(g.Votes, v)
	if g.voters == nil {
		g.voters = map[string][]string{}
	}
	g.voters[v.key()] = slices.Clone(who.Groups)
}

// key is the voter's, as authn.Identity.Key.
func (v Vote) key() string { return v.Issuer + " " + v.Subject }

// name is how people write what it is for.
func (g Grant) name() string { return g.Account + "@" + g.Target }

// clone shares nothing with g.
func (g Grant) clone() Grant {
	g.Votes, g.MayApprove, g.voters = slices.Clone(g.Votes), slices.Clone(g.MayApprove), maps.Clone(g.voters)
	g.Identity.Groups = slices.Clone(g.Identity.Groups)
	return g
}

// end moves g to a last state.
func (g *Grant) end(to State, at time.Time, reason, by, comment string) {
	g.State, g.EndedAt, g.EndReason, g.EndedBy, g.EndComment = to, at, reason, by, comment
}
