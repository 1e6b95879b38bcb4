package policy

import (
	"fmt"
	"slices"

	"sallyport/configs"
)

// Lint finds what is no mistake, but most likely not meant: policies that can never win because an earlier one always does, and
// roles and evidence that nothing names. Places are those in the files.
func Lint(c *configs.Config) (found configs.Problems) {
	roles, known := map[string]bool{}, map[string]bool{}
	for i, p := range c.Policies {
		for _, name := range p.Roles {
			roles[name] = true
		}
		for _, name := range p.Evidence {
			known[name] = true
		}
		for _, before := range c.Policies[:i] {
			if shadows(before, p) {
				found = append(found, c.PolicyProblem(i, "name", 1, 1, "policy %s never wins: policy %s, which stands before it, admits all that it would", p.Name, before.Name))
				break
			}
		}
	}
	for _, r := range c.Roles {
		if !roles[r.Name] {
			found = append(found, configs.Problem{File: c.File, Message: fmt.Sprintf("no policy names role %s", r.Name)})
		}
	}
	for _, e := range c.Evidence {
		if !known[e.Name] {
			found = append(found, configs.Problem{File: c.File, Message: fmt.Sprintf("no policy names evidence %s", e.Name)})
		}
	}
	return found
}

// shadows reports whether a policy certainly admits all that a later one does.
func shadows(before, p configs.Policy) bool {
	if before.Forbids() || p.Forbids() || before.BreakGlass != p.BreakGlass {
		return false
	}
	asksMore := before.When != "" || len(before.Hours) > 0 || before.Ticket != "" || len(before.Evidence) > 0 || len(before.Networks) > 0 ||
		before.SignIn.MaxAge > 0 || len(before.SignIn.ACR)+len(before.SignIn.AMR) > 0 || before.ReasonLength > max(p.ReasonLength, 1)
	if asksMore || before.MaxDuration < p.MaxDuration || before.Ahead < p.Ahead || !within(p.Groups, before.Groups) {
		return false
	}
	for k, v := range before.Labels {
		if p.Labels[k] != v {
			return false
		}
	}
	return slices.Contains(before.Accounts, "*@*") || within(p.Accounts, before.Accounts) && within(p.Roles, before.Roles)
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
