// Package grant is may they, now: targets and accounts, requests, the life of a grant, leases.
//
// CONTRACT (to be built here): see the doc comments.
package grant

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/store"
)

var errTODO = errors.New("grant: not built")

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

// Why a grant ended; stable words.
const (
	EndExpired       = "expired"
	EndReleased      = "released"
	EndRevoked       = "revoked"
	EndIdentityGone  = "identity_gone"
	EndPolicyRemoved = "policy_removed"
	EndTargetRemoved = "target_removed"
	EndClockWentBack = "clock_went_back"
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
	Identity   authn.Identity `json:"identity"`
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
	EndedBy    string         `json:"ended_by,omitempty"`
	Version    int            `json:"version"`
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

// Permission is a verb that configs.Permission may give.
type Permission string

// The permissions. Approving is given by policies, not here; everybody may see and end their own grants and sessions.
const (
	ListGrants     Permission = "grants.list"
	RevokeGrants   Permission = "grants.revoke"
	ListSessions   Permission = "sessions.list"
	KillSessions   Permission = "sessions.kill"
	WatchSessions  Permission = "sessions.watch"
	ReadRecordings Permission = "recordings.read" // replay, search
	Export         Permission = "recordings.export"
	VerifyLog      Permission = "log.verify"
	ManageTargets  Permission = "targets.manage" // check, trust, setup
)

// Service decides and keeps grants. Safe for concurrent use.
type Service struct{}

// Open loads the grants, ends what has run out, and starts the timers.
func Open(ctx context.Context, config *configs.Config, s *store.Store, log *slog.Logger) (*Service, error) {
	return nil, errTODO
}

// Reload takes a new configuration in, at once and whole; grants whose policy, target or account is gone end.
func (s *Service) Reload(ctx context.Context, config *configs.Config) error { return errTODO }

// Target finds a target by name.
func (s *Service) Target(name string) (configs.Target, bool) { return configs.Target{}, false }

// TargetByServerName finds a Postgres target by the TLS server name that the client asked for.
func (s *Service) TargetByServerName(name string) (configs.Target, bool) {
	return configs.Target{}, false
}

// TargetByAddress finds an SSH target by a name or address that a jump asks for: its name, an alias, or its address.
func (s *Service) TargetByAddress(host string, port int) (configs.Target, bool) {
	return configs.Target{}, false
}

// Account finds an account of a target.
func Account(t configs.Target, name string) (configs.Account, bool) {
	for _, a := range t.Accounts {
		if a.Name == name {
			return a, true
		}
	}
	return configs.Account{}, false
}

// Offer is an account that somebody may ask for, and how.
type Offer struct {
	Target      string            `json:"target"`
	Kind        string            `json:"kind"`
	Labels      map[string]string `json:"labels,omitempty"`
	Account     string            `json:"account"`
	Policy      string            `json:"policy"`
	MaxDuration time.Duration     `json:"max_duration_ns"`
	Auto        bool              `json:"auto"`
	MayApprove  []string          `json:"may_approve,omitempty"`
	Live        string            `json:"live,omitempty"` // the id of a grant of theirs that is approved or active
}

// Offers lists what the identity may ask for, by target and account.
func (s *Service) Offers(ctx context.Context, who authn.Identity) ([]Offer, error) {
	return nil, errTODO
}

// Ask is a request for a grant.
type Ask struct {
	Target   string
	Account  string
	Duration time.Duration // 0: the policy's default
	Reason   string
}

// Request files a request; it is approved at once where the policy says so. A refusal says what was missing.
func (s *Service) Request(ctx context.Context, who authn.Identity, ask Ask) (Grant, error) {
	return Grant{}, errTODO
}

// Approve and Deny are an approver's vote; never the requester's own.
func (s *Service) Approve(ctx context.Context, who authn.Identity, id, comment string) (Grant, error) {
	return Grant{}, errTODO
}

// Deny ends a pending request.
func (s *Service) Deny(ctx context.Context, who authn.Identity, id, comment string) (Grant, error) {
	return Grant{}, errTODO
}

// Revoke ends a grant from outside: by its approvers and those who may revoke.
func (s *Service) Revoke(ctx context.Context, who authn.Identity, id, reason string) (Grant, error) {
	return Grant{}, errTODO
}

// Release gives one's own grant back, or withdraws one's own request.
func (s *Service) Release(ctx context.Context, who authn.Identity, id string) (Grant, error) {
	return Grant{}, errTODO
}

// Get returns one grant that the identity may see: its own, one it may approve, or with grants.list.
func (s *Service) Get(ctx context.Context, who authn.Identity, id string) (Grant, error) {
	return Grant{}, errTODO
}

// List returns the grants the identity may see, newest first; all of them or only those not yet over.
func (s *Service) List(ctx context.Context, who authn.Identity, all bool) ([]Grant, error) {
	return nil, errTODO
}

// May returns nil if the identity has the permission for that target ("" for things of no target), else a refusal.
func (s *Service) May(who authn.Identity, permission Permission, target string) error { return errTODO }

// Lease is a live grant as a connection holds it. Safe for concurrent use.
type Lease struct{ Grant Grant }

// Lease returns a lease on the identity's live grant for the account, starting its clock if it was only approved, or
// refuses with NoGrant, saying what is missing and the exact command that asks for it. The transition to active is
// audited in the same transaction.
func (s *Service) Lease(ctx context.Context, who authn.Identity, target, account string) (*Lease, error) {
	return nil, errTODO
}

// Live returns nil while the lease gives access. It is a pure function of the grant's row as last committed and of the
// time by both clocks, the earlier of which cuts; it takes no lock that a database call holds, and allocates nothing
// while live.
func (l *Lease) Live() error { return errTODO }

// Ended is closed when the lease has ended, by time or by a transition.
func (l *Lease) Ended() <-chan struct{} { return nil }

// Why says how it ended: the end reason, and a sentence for the user ("grant g-7k3mq2 was revoked by Bob: done").
func (l *Lease) Why() (reason, sentence string) { return "", "" }

// Until is when the lease ends at the latest.
func (l *Lease) Until() time.Time { return time.Time{} }

// Return gives the lease up; the grant goes on.
func (l *Lease) Return() {}

// Close stops the timers.
func (s *Service) Close() error { return nil }
