package sets

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"sallyport/configs"
	"sallyport/grant/policy"
)

// Difference names what was added, removed and changed between two sets, and what of it may widen access. What can't be seen
// to take away is taken to widen.
func Difference(before, after string) (map[string]string, error) {
	var old Set // none: all is new
	var err error
	if before != "" {
		if old, err = Read(before); err != nil {
			return nil, err
		}
	}
	now, err := Read(after)
	if err != nil {
		return nil, err
	}
	added, removed, changed, widens := []string{}, []string{}, []string{}, []string{}
	note := func(what string, was, is any, had, has, gives bool) {
		switch {
		case !had:
			added = append(added, what)
		case !has:
			removed = append(removed, what)
		case same(was, is):
			return
		default:
			changed = append(changed, what)
		}
		if gives {
			widens = append(widens, what)
		}
	}
	policies, roles := byName(old.Policies, func(p configs.Policy) string { return p.Name }), byName(old.Roles, func(r configs.Role) string { return r.Name })
	policiesNow, rolesNow := byName(now.Policies, func(p configs.Policy) string { return p.Name }), byName(now.Roles, func(r configs.Role) string { return r.Name })
	for _, name := range names(policies, policiesNow) {
		was, had := policies[name]
		is, has := policiesNow[name]
		note("policy "+name, was, is, had, has, !had && !is.Forbids() || !has && was.Forbids() || had && has && !narrower(was, is))
	}
	for _, name := range names(roles, rolesNow) {
		was, had := roles[name]
		is, has := rolesNow[name]
		wider := had && has && (!within(is.Accounts, was.Accounts) || !labelled(is.Labels, was.Labels) || !same(was.Limits.Narrow(is.Limits), is.Limits))
		note("role "+name, was, is, had, has, wider) // a new role gives nothing until a policy names it
	}
	if !same(old.Permissions, now.Permissions) {
		note("permissions", old.Permissions, now.Permissions, true, true, slices.ContainsFunc(now.Permissions, func(p configs.Permission) bool {
			return !slices.ContainsFunc(old.Permissions, func(o configs.Permission) bool { return same(o, p) })
		}))
	}
	note("evidence", old.Evidence, now.Evidence, true, true, !same(old.Evidence, now.Evidence))
	note("targets", old.Targets, now.Targets, true, true, true)
	note("approvals.people", old.People, now.People, true, true, !onlyUnlinked(old.People, now.People))
	if slices.Equal(added, []string{}) && !orderKept(old.Policies, now.Policies) {
		changed = append(changed, "the order of the policies")
	}
	fields := map[string]string{}
	for key, list := range map[string][]string{"added": added, "removed": removed, "changed": changed, "widens": widens} {
		if len(list) > 0 {
			fields[key] = strings.Join(list, ", ")
		}
	}
	return fields, nil
}

// narrower reports whether the policy as it is gives no more to anybody than as it was.
func narrower(was, is configs.Policy) bool {
	if was.Forbids() || is.Forbids() {
		return false // what forbids less, gives more; which it is, is not worked out
	}
	most := func(was, is configs.Duration) bool { return is <= was }
	least := func(was, is int) bool { return is >= was }
	kept := was.When == "" || was.When == is.When
	return within(is.Groups, was.Groups) && within(is.Accounts, was.Accounts) && within(is.Roles, was.Roles) && labelled(is.Labels, was.Labels) && kept &&
		(len(was.Hours) == 0 || len(is.Hours) > 0 && within(is.Hours, was.Hours)) && (len(was.Networks) == 0 || len(is.Networks) > 0 && within(is.Networks, was.Networks)) &&
		within(was.Evidence, is.Evidence) && (was.Ticket == "" || was.Ticket == is.Ticket) && same(was.SignIn, is.SignIn) && was.BreakGlass == is.BreakGlass &&
		same(was.Review, is.Review) && most(was.MaxDuration, is.MaxDuration) && most(was.MaxTotal, is.MaxTotal) && most(was.Ahead, is.Ahead) &&
		(was.Idle == 0 || is.Idle > 0 && most(was.Idle, is.Idle)) && least(was.ReasonLength, is.ReasonLength) && (was.Concurrent == 0 || is.Concurrent > 0 && is.Concurrent <= was.Concurrent) &&
		(is.Approve.Auto == was.Approve.Auto || was.Approve.Auto) && (was.Approve.Auto || fewerApprove(policy.Stages(was), policy.Stages(is))) &&
		(was.Approve.Confirm == "" || is.Approve.Confirm == was.Approve.Confirm)
}

// fewerApprove reports whether what stages let through, those before would have: each of them still has to be met, by as many
// of no more groups.
func fewerApprove(was, is []configs.Stage) bool {
	for i, before := range was {
		if i >= len(is) || !within(is[i].Groups, before.Groups) || is[i].Count < before.Count {
			return false
		}
	}
	return true
}

// within reports whether all of the one are among the others.
func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// labelled reports whether labels ask for all that others did.
func labelled(is, was map[string]string) bool {
	for k, v := range was {
		if have, ok := is[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func byName[T any](list []T, name func(T) string) map[string]T {
	m := map[string]T{}
	for _, x := range list {
		m[name(x)] = x
	}
	return m
}

func names[T any](a, b map[string]T) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// orderKept reports whether the policies that both have stand in the same order.
func orderKept(was, is []configs.Policy) bool {
	order := func(list, other []configs.Policy) (names []string) {
		for _, p := range list {
			if slices.ContainsFunc(other, func(o configs.Policy) bool { return o.Name == p.Name }) {
				names = append(names, p.Name)
			}
		}
		return names
	}
	return slices.Equal(order(was, is), order(is, was))
}

func same(a, b any) bool {
	x, err := json.Marshal(a)
	y, other := json.Marshal(b)
	return err == nil && other == nil && string(x) == string(y)
}
