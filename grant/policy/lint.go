package policy

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"sallyport/configs"
)

// Lint finds what is no mistake, but most likely not meant: policies that can never win because an earlier one always does,
// roles and evidence that nothing names, and patterns of conditions that match anywhere in a text. Places are those in the files.
func Lint(c *configs.Config) (found configs.Problems) {
	roles, known := map[string]bool{}, map[string]bool{}
	for i, p := range c.Policies {
		for _, name := range p.Roles {
			roles[name] = true
		}
		for _, name := range p.Evidence {
			known[name] = true
		}
		if person := toPerson(p.When); person != "" && !p.Forbids() {
			found = append(found, c.PolicyProblem(i, "when", 1, 1, "policy %s gives access to a person by name (%s); give it to a group, a claim or a pipeline", p.Name, person))
		}
		for _, pattern := range loose(p.When) {
			found = append(found, c.PolicyProblem(i, "when", 1, 1, "policy %s: matches(%q) finds its pattern anywhere in the text; write ^…$ around what has to be all of it", p.Name, pattern))
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

// loose are the patterns of a condition that are not held to the beginning and the end of a text.
func loose(when string) (patterns []string) {
	if when == "" {
		return nil
	}
	checked, issues := environment.Compile(when)
	if issues.Err() != nil {
		return nil // which is said elsewhere
	}
	for _, e := range ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), ast.KindMatcher(ast.CallKind)) {
		name, args := operation(e)
		if name != "matches" || len(args) != 2 {
			continue
		}
		if pattern, literal := text(args[1]); literal && !(strings.HasPrefix(pattern, "^") && strings.HasSuffix(pattern, "$")) {
			patterns = append(patterns, pattern)
		}
	}
	return patterns
}

// toPerson is where a condition compares who somebody is with a name that stands in it; empty: nowhere.
func toPerson(when string) string {
	if when == "" {
		return ""
	}
	checked, issues := environment.Compile(when)
	if issues.Err() != nil {
		return ""
	}
	for _, e := range ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), ast.KindMatcher(ast.CallKind)) {
		name, args := operation(e)
		if len(args) != 2 || name != operators.Equals && name != operators.In {
			continue
		}
		for at, side := range args {
			who := path(side)
			if who != "identity.subject" && who != "identity.email" {
				continue
			}
			other := args[1-at]
			_, literal := text(other)
			if literal || other.Kind() == ast.ListKind && slices.ContainsFunc(other.AsList().Elements(), func(e ast.Expr) bool { _, is := text(e); return is }) {
				return who
			}
		}
	}
	return ""
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
