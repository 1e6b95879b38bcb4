package sets

import (
	"slices"
	"strings"

	"sallyport/configs"
	"sallyport/grant/policy"
)

// widening names what of a set may give somebody more than the one before. It is bounded conservatively: only what is seen to
// take away, and to open no way to something else, is left out. Since the first policy that admits a request wins whole, taking
// from one can give a request to a later one, which may ask for less.
func widening(old, now Set) (wide []string) {
	if old.Confirm && !now.Confirm {
		wide = append(wide, "policy_changes")
	}
	if !orderKept(old.Policies, now.Policies) {
		wide = append(wide, "the order of the policies")
	}
	was, is := byName(old.Policies, func(p configs.Policy) string { return p.Name }), byName(now.Policies, func(p configs.Policy) string { return p.Name })
	for _, p := range now.Policies {
		if _, had := was[p.Name]; !had && !p.Forbids() {
			wide = append(wide, "policy "+p.Name)
		}
	}
	for i, before := range old.Policies {
		after, has := is[before.Name]
		switch {
		case has && same(before, after):
		case before.Forbids(), has && !takesAway(before, after), opens(before, old.Policies[i+1:]):
			wide = append(wide, "policy "+before.Name)
		}
	}
	roles := byName(now.Roles, func(r configs.Role) string { return r.Name })
	for _, before := range old.Roles {
		after, has := roles[before.Name]
		if !has { // a policy that names it is another one now
			continue
		}
		narrowed := after
		narrowed.Limits = before.Limits
		if !same(narrowed, before) || !same(before.Limits.Narrow(after.Limits), after.Limits) {
			wide = append(wide, "role "+before.Name)
		}
	}
	if !sameButFewer(old.Permissions, now.Permissions) {
		wide = append(wide, "permissions")
	}
	if !same(old.Evidence, now.Evidence) {
		wide = append(wide, "evidence")
	}
	if !sameButFewer(old.Targets, now.Targets) {
		wide = append(wide, "targets")
	}
	if !onlyUnlinked(old.People, now.People) {
		wide = append(wide, "approvals.people")
	}
	return wide
}

// onlyUnlinked reports whether of the people linked nothing is different but that some accounts elsewhere have no vote any more. What said
// who is one person with whom, which addresses do too, must stay: it keeps people from deciding on what is theirs.
func onlyUnlinked(was, is []configs.LinkedPerson) bool {
	stays := func(list []configs.LinkedPerson) (kept []configs.LinkedPerson) {
		for _, p := range list {
			if p.Email != "" || len(p.Also) > 0 {
				kept = append(kept, p)
			}
		}
		return kept
	}
	return sameButFewer(was, is) && same(stays(was), stays(is))
}

// takesAway reports whether a policy that permits gives no more to anybody than before.
func takesAway(was, is configs.Policy) bool {
	if !narrower(was, is) || policy.Auto(is) && !policy.Auto(was) {
		return false
	}
	if was.Approve.Within != is.Approve.Within || was.Approve.Start != is.Approve.Start || !same(was.Roles, is.Roles) {
		return false // by fewer roles an account may be given with fewer limits
	}
	// What narrower looks at. Anything else that is different, such as a key of a later version, is not known to take away.
	is.Groups, is.Accounts, is.Labels, is.When, is.Hours, is.Networks, is.Evidence = was.Groups, was.Accounts, was.Labels, was.When, was.Hours, was.Networks, was.Evidence
	is.Ticket, is.MaxDuration, is.MaxTotal, is.Ahead, is.Idle, is.ReasonLength, is.Concurrent = was.Ticket, was.MaxDuration, was.MaxTotal, was.Ahead, was.Idle, was.ReasonLength, was.Concurrent
	is.DefaultDuration, is.Message = was.DefaultDuration, was.Message
	is.Approve.Auto, is.Approve.Groups, is.Approve.Count, is.Approve.Confirm = was.Approve.Auto, was.Approve.Groups, was.Approve.Count, was.Approve.Confirm
	is.Approve.Stages = was.Approve.Stages
	return same(was, is)
}

// opens reports whether one of the later policies may admit what a policy admitted so far.
func opens(p configs.Policy, later []configs.Policy) bool {
	return slices.ContainsFunc(later, func(q configs.Policy) bool {
		return !q.Forbids() && q.BreakGlass == p.BreakGlass && !apart(p, q)
	})
}

// apart reports whether no account on any target can be spoken of by both.
func apart(p, q configs.Policy) bool {
	if len(p.Roles) > 0 || len(q.Roles) > 0 {
		return false
	}
	for _, a := range p.Accounts {
		for _, b := range q.Accounts {
			account, target := differ(a, b)
			if !account && !target {
				return false
			}
		}
	}
	return true
}

// differ reports which sides of two ACCOUNT@TARGET patterns are names without a star, and not the same.
func differ(a, b string) (account, target bool) {
	other := func(x, y string) bool { return !strings.Contains(x+y, "*") && x != y }
	i, j := strings.LastIndexByte(a, '@'), strings.LastIndexByte(b, '@')
	if i < 0 || j < 0 {
		return false, false
	}
	return other(a[:i], b[:j]), other(a[i+1:], b[j+1:])
}

// sameButFewer reports whether a list is another one with some left out.
func sameButFewer[T any](was, is []T) bool {
	for _, x := range is {
		at := slices.IndexFunc(was, func(y T) bool { return same(x, y) })
		if at < 0 {
			return false
		}
		was = was[at+1:]
	}
	return true
}
