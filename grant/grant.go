// Package grant is may they, now: targets and accounts, requests, the life of a grant, leases.
//
// What it promises:
//
//   - Access is a pure function of a grant's row as last committed and of the time (Lease.Live). Everything else, the
//     timers that close Lease.Ended and the transition to ended(expired) included, only says sooner or later what that
//     function says already, so a failure in it never prolongs access.
//   - A transition is one compare-and-swap on the row's version and its audit event, in one transaction; one of two
//     that race wins, and states that are over have no way out.
//   - The clock starts at the first use. Until is set with From, to no more than the duration later, and moved only by an
//     extension that was decided as the request was, within a total that was settled when it was asked for: reconnecting
//     and restarting do not lengthen a grant. Neither does a clock set back: a running grant also has a
//     deadline on the clock that does not jump, the latest wall-clock time seen is kept in the store, and while the clock
//     is behind it nothing is approved and nobody is let in anew. A store that is an old copy of itself revives nothing.
//   - Nobody approves what they asked for, one person has one vote, and a vote counts only for a policy that still
//     says what it said. A configuration read anew ends what it no longer allows.
//   - Denying, revoking and giving back work also when the clock is wrong or the policy is gone.
//
// The life of a grant:
//
//	request ─► pending ──approvals──► approved ──first use──► active ──► ended
//	              │                      │                       expired, hours over, idle,
//	              ├─► denied             ├─► ended               released, revoked, forbidden,
//	              ├─► withdrawn          ├─► withdrawn           policy, target or account gone,
//	              └─► lapsed             └─► lapsed              clock went back
//
// Why so few states: nothing has to be made on a target before a grant can be used, or cleaned up after it, so there is
// nothing to wait for between approved and active or between active and ended, and the one row says it all. Suspending
// is ending: whoever still needs access asks again.
package grant

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"sallyport/authn"
	"sallyport/configs"
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
	Active:   {Active, Ended}, // and nothing but its end moves, and what is asked of it
}

// Why a grant ended; stable words.
const (
	EndExpired       = "expired"
	EndReleased      = "released"
	EndRevoked       = "revoked"
	EndIdentityGone  = "identity_gone"
	EndPolicyRemoved = "policy_removed"
	EndForbidden     = "forbidden"     // a policy has come to forbid it
	EndWindowClosed  = "window_closed" // the hours of its policy are over
	EndIdle          = "idle"          // it was not in use for as long as its policy allows
	EndTargetRemoved = "target_removed"
	EndClockWentBack = "clock_went_back"
	// EndStoreLost: whether it was revoked can't be known. It ends leases while the store does not answer, and grants at a
	// start from a store that is too old.
	EndStoreLost = "store_lost"
	// EndRestored: the store was brought back from a backup, and what has become of it since then can't be known.
	EndRestored = "restored"
	// What a grant hung on is no more: its ticket, the shift of who holds it, the job, or other evidence; or it could not be read
	// for too long.
	EndTicketClosed  = "ticket_closed"
	EndShiftOver     = "shift_over"
	EndTaskCompleted = "task_completed"
	EndEvidenceGone  = "evidence_gone"
	EndEvidenceLost  = "evidence_lost"
	// EndApprovalWithdrawn: somebody took the approval back without which it would not have been given.
	EndApprovalWithdrawn = "approval_withdrawn"
)

// Vote is one approver's word.
type Vote struct {
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Name    string    `json:"name"`
	Approve bool      `json:"approve"`
	Comment string    `json:"comment,omitempty"`
	Time    time.Time `json:"time"`
	Stage   int       `json:"stage"` // at which it counts, from 1
}

// Grant is (identity, target, account, from, until, why). Identity, target, account and reason never change.
type Grant struct {
	ID       string         `json:"id"` // short, typeable: g-7k3mq2
	State    State          `json:"state"`
	Identity authn.Identity `json:"identity"` // as it was proven when it asked
	Target   string         `json:"target"`
	Account  string         `json:"account"`
	Reason   string         `json:"reason"`
	Ticket   string         `json:"ticket,omitempty"`
	Source   netip.Addr     `json:"source,omitzero"` // where it was asked for from, if that is known
	Policy   string         `json:"policy"`
	Duration time.Duration  `json:"duration_ns"`
	Total    time.Duration  `json:"total_ns"`          // how long it may last with all extensions
	Idle     time.Duration  `json:"idle_ns,omitempty"` // it ends after so long without a session; 0: it does not
	Terms
	Ballot
	Needed     int        `json:"approvals_needed"` // at all stages; 0: approved by policy
	MayApprove []string   `json:"may_approve"`      // groups, of any stage
	Requested  time.Time  `json:"requested"`
	DecideBy   time.Time  `json:"decide_by,omitzero"`
	ActivateBy time.Time  `json:"activate_by,omitzero"`
	From       time.Time  `json:"from,omitzero"`  // when access started
	Until      time.Time  `json:"until,omitzero"` // when it ends at the latest; set with From, moved by extensions only
	Extension  *Extension `json:"extension,omitempty"`
	Extensions int        `json:"extensions,omitempty"` // how many have been asked for
	EndedAt    time.Time  `json:"ended_at,omitzero"`
	EndReason  string     `json:"end_reason,omitempty"`
	EndedBy    string     `json:"ended_by,omitempty"`    // a name, or "system"
	EndComment string     `json:"end_comment,omitempty"` // what they said, or what exactly was gone
	Version    int        `json:"version"`

	settled *Ballot // the votes that have just decided an extension, until they are written
}

// Terms are what else was settled when it was asked for.
type Terms struct {
	// Role is the role it was given by, with the limits it had then; empty: the policy names the account itself.
	Role   string             `json:"role,omitempty"`
	Limits configs.RoleLimits `json:"limits,omitzero"`
	// Confirm: approvals count only from people who show that they are signed in; see configs.Approve.
	Confirm bool `json:"confirm,omitempty"`
	// Stages are the approvals that it needs one after the other, where there is more than one.
	Stages []Stage `json:"stages,omitempty"`
	// Revision is the hash of the set of policies that it was decided by.
	Revision string `json:"revision,omitempty"`
	// Start is before when it can't be used; zero: at once.
	Start time.Time `json:"start,omitzero"`
	// BreakGlass: it was taken in an emergency, and approved by nobody.
	BreakGlass bool `json:"break_glass,omitempty"`
	// Evidence is what was known when it was asked for, by name.
	Evidence map[string]map[string]any `json:"evidence,omitempty"`
}

// Extension is a wish of the holder's that an active grant end later. The grant goes on to its old end while it waits.
type Extension struct {
	Duration   time.Duration `json:"duration_ns"` // by how much
	Reason     string        `json:"reason"`
	Requested  time.Time     `json:"requested"`
	Needed     int           `json:"approvals_needed"`
	MayApprove []string      `json:"may_approve"`
	Stages     []Stage       `json:"stages,omitempty"`
	Ballot
}

// Ballot is the votes on one thing.
type Ballot struct {
	Votes []Vote `json:"votes"`

	voters    map[string][]string // the groups of those who voted, when they did, by identity key
	addresses map[string]string   // their e-mail addresses, likewise
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

// deciders are the groups that may vote on what waits.
func (g Grant) deciders() []string {
	if g.Extension != nil {
		return g.Extension.MayApprove
	}
	return g.MayApprove
}

// cast adds or replaces somebody's vote, which counts at that stage, from 0: one person has one vote over all stages.
func (b *Ballot) cast(stage int, who authn.Identity, approve bool, comment string, at time.Time) {
	v := Vote{Issuer: who.Issuer, Subject: who.Subject, Name: who.Label(), Approve: approve, Comment: comment, Time: at, Stage: stage + 1}
	b.Votes = slices.DeleteFunc(b.Votes, func(other Vote) bool { return other.key() == v.key() })
	b.Votes = append(b.Votes, v)
	if b.voters == nil {
		b.voters, b.addresses = map[string][]string{}, map[string]string{}
	}
	b.voters[v.key()], b.addresses[v.key()] = slices.Clone(who.Groups), who.Email
}

// key is the voter's, as authn.Identity.Key.
func (v Vote) key() string { return v.Issuer + " " + v.Subject }

// name is how people write what it is for.
func (g Grant) name() string { return g.Account + "@" + g.Target }

// clone shares nothing with g.
func (g Grant) clone() Grant {
	g.Ballot, g.MayApprove = g.Ballot.clone(), slices.Clone(g.MayApprove)
	g.Identity.Groups = slices.Clone(g.Identity.Groups)
	if g.Extension != nil {
		e := *g.Extension
		e.Ballot, e.MayApprove = e.Ballot.clone(), slices.Clone(e.MayApprove)
		g.Extension = &e
	}
	return g
}

func (b Ballot) clone() Ballot {
	return Ballot{slices.Clone(b.Votes), maps.Clone(b.voters), maps.Clone(b.addresses)}
}

// end moves g to a last state.
func (g *Grant) end(to State, at time.Time, reason, by, comment string) {
	g.State, g.EndedAt, g.EndReason, g.EndedBy, g.EndComment = to, at, reason, by, comment
	g.Extension = nil
}

// expire ends a grant whose time is over.
func (g *Grant) expire(at time.Time) {
	if g.Until.Before(g.From.Add(g.Duration)) { // it was never to be longer
		g.end(Ended, at, EndWindowClosed, system, "the hours of policy "+g.Policy+" are over")
		return
	}
	g.end(Ended, at, EndExpired, system, "its "+policy.Short(g.Until.Sub(g.From))+" are over")
}
