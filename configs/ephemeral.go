package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Defaults of accounts whose role is made for one grant.
const (
	defaultHeir            = "sallyport_estate"
	defaultConnectionLimit = 5
	mostConnectionLimit    = 1000
)

// EphemeralPrefix begins the names of roles that are made for one grant. No role of a configuration may begin with it.
const EphemeralPrefix = "sp_"

// roleName is what a role of a server may be called here: every statement quotes it, and nobody needs more.
var roleName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,62}$`)

// Ephemeral reports whether the target makes roles for grants.
func (t Target) Ephemeral() bool {
	return slices.ContainsFunc(t.Accounts, func(a Account) bool { return a.Ephemeral })
}

func (t *Target) setEphemeralDefaults() {
	if t.MakeRolesWith != "" {
		set(&t.Heir, defaultHeir)
	}
	for i := range t.Accounts {
		if t.Accounts[i].Ephemeral {
			set(&t.Accounts[i].ConnectionLimit, defaultConnectionLimit)
		}
	}
}

// validateEphemeral looks at the accounts of a Postgres target whose role is made for one grant, and at who makes them.
func validateEphemeral(at reporter, t Target) {
	maker := slices.IndexFunc(t.Accounts, func(a Account) bool { return a.Name == t.MakeRolesWith })
	switch {
	case t.MakeRolesWith == "" && t.Heir != "":
		at("heir", "heir is for targets with make_roles_with")
	case t.MakeRolesWith == "":
	case maker < 0:
		at("make_roles_with", "make_roles_with names an account of this target; there is no %q", t.MakeRolesWith)
	case t.Accounts[maker].Ephemeral:
		at("make_roles_with", "make_roles_with names the account that makes roles; %q is itself made for each grant", t.MakeRolesWith)
	case t.EndWith == t.MakeRolesWith:
		at("end_with", "end_with can do nothing but end sessions, and make_roles_with makes roles; they are two accounts")
	}
	if t.Heir != "" {
		checkRole(at, "heir", t.Heir)
	}
	for i, a := range t.Accounts {
		path := fmt.Sprintf("accounts[%d]", i)
		if !a.Ephemeral {
			if len(a.MemberOf) > 0 || a.ConnectionLimit != 0 {
				at(path, "member_of and connection_limit are for accounts with ephemeral: true")
			}
			continue
		}
		if t.MakeRolesWith == "" {
			at(path+".ephemeral", "the role of %s is made for each grant; name the account that makes it at the target: make_roles_with", a.Name)
		}
		if a.User != "" || a.Password != "" || a.Certificate != "" || a.Key != "" {
			at(path, "user, password, certificate and key of an ephemeral account are made for each grant; leave them out")
		}
		if a.Replication {
			at(path+".replication", "a role that is made for one grant does not replicate")
		}
		if t.EndWith == a.Name {
			at("end_with", "end_with names an account that is always there; %q is made for each grant", a.Name)
		}
		if len(a.MemberOf) == 0 {
			at(path+".member_of", "member_of is missing; name the roles on the target that have the privileges")
		}
		for j, group := range a.MemberOf {
			checkRole(at, fmt.Sprintf("%s.member_of[%d]", path, j), group)
			if group == t.Heir {
				at(fmt.Sprintf("%s.member_of[%d]", path, j), "%q is the heir, which has no members", group)
			}
		}
		if a.ConnectionLimit < 1 || a.ConnectionLimit > mostConnectionLimit {
			at(path+".connection_limit", "connection_limit is %d; it is 1 to %d", a.ConnectionLimit, mostConnectionLimit)
		}
	}
}

// checkRole refuses names that the gateway's own roles could have, and those that make somebody more than they should be.
func checkRole(at reporter, path, name string) {
	switch {
	case !roleName.MatchString(name):
		at(path, "a role's name is letters, digits, underscores, dots and dashes, at most 63; got %q", name)
	case strings.HasPrefix(name, EphemeralPrefix):
		at(path, "names that begin with %s are those of roles made for one grant; got %q", EphemeralPrefix, name)
	}
}
