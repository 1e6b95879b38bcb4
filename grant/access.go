package grant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"sallyport/authn"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
)

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
	HoldRecordings Permission = "recordings.hold"
	// ShredRecordings: destroy recordings before their time. "*" does not give it.
	ShredRecordings Permission = "recordings.shred"
	// UnmaskRecordings: see what masking hides in recordings. "*" does not give it.
	UnmaskRecordings Permission = "recordings.unmask"
	VerifyLog        Permission = "log.verify"
	ManageTargets    Permission = "targets.manage" // check, trust, setup
	// ManageAuthorities: see and rotate the gateway's certificate authorities. It is not about a target.
	ManageAuthorities Permission = "authorities.manage"
	// ConfirmPolicies: let policies that may widen access come into force, where the configuration asks for that.
	ConfirmPolicies Permission = "policies.confirm"
	// RetryNotifications: have channels be told anew what was given up. It is not about a target.
	RetryNotifications Permission = "notifications.retry"
)

// byNameOnly are what "*" does not give.
var byNameOnly = []Permission{ShredRecordings, UnmaskRecordings}

// May returns nil if the identity has the permission for that target ("" for things of no target), else a refusal. A
// permission narrowed to labels says nothing about things of no target, or of one that is not configured any more.
func (s *Service) May(who authn.Identity, permission Permission, target string) error {
	r := s.rules.Load()
	labels := r.names[strings.ToLower(target)].Labels
	var groups []string
	for _, p := range r.permissions {
		if !slices.Contains(p.May, string(permission)) && (slices.Contains(byNameOnly, permission) || !slices.Contains(p.May, "*")) || !policy.Labelled(labels, p.Labels) {
			continue
		}
		if proven(who) == nil && policy.InAny(who.Groups, p.Groups) {
			return nil
		}
		for _, g := range p.Groups {
			if !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	no := refusal.New(refusal.NotPermitted, "you do not have the permission %s", permission)
	if target != "" {
		no = refusal.New(refusal.NotPermitted, "you do not have the permission %s for target %s", permission, quote(target))
	}
	if len(groups) == 0 {
		return no.WithDetail("no group has it").WithHint("it is given under permissions in the gateway's configuration")
	}
	return no.WithDetail("members of %s have it", policy.Or(groups)).WithHint("ask one of them")
}

// sees reports whether the identity may see a grant.
func (s *Service) sees(who authn.Identity, g Grant) bool {
	return g.owned(who) || who.Emergency == "" && policy.InAny(who.Groups, g.MayApprove) || s.May(who, ListGrants, g.Target) == nil
}

// Get returns one grant that the identity may see: its own, one it may approve, or with grants.list.
func (s *Service) Get(ctx context.Context, who authn.Identity, id string) (Grant, error) {
	if err := inEmergency(who); err != nil {
		return Grant{}, err
	}
	id = canonical(id)
	g, err := load(ctx, s.store.Read(), id)
	switch {
	case errors.Is(err, errNoRow) || err == nil && !s.sees(who, g):
		return Grant{}, noSuch(id)
	case err != nil:
		return Grant{}, fmt.Errorf("get grant %s: %w", id, err)
	}
	return g, nil
}

// List returns the grants the identity may see, newest first; all of them or only those not yet over.
func (s *Service) List(ctx context.Context, who authn.Identity, all bool) ([]Grant, error) {
	if err := inEmergency(who); err != nil {
		return nil, err
	}
	where := `WHERE ` + isOpen
	if all {
		where = `WHERE true`
	}
	grants, err := query(ctx, s.store.Read(), math.MaxInt32, where+` ORDER BY requested DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("list grants: %w", err)
	}
	return slices.DeleteFunc(grants, func(g Grant) bool { return !s.sees(who, g) }), nil
}
