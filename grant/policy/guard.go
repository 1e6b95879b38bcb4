package policy

import (
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// guard is a part of a condition that is plain enough to be looked at without evaluating it: a text, or a calculation that other
// conditions make too, compared with a literal. Where it does not hold, the whole can't, since all parts are joined by && and false && anything, an error too, is false. It is
// what lets a decision go through a thousand policies.
type guard struct {
	name  string // of the variable
	label string // of target.labels
	test  func(have string) bool
	group string  // that has to be among identity.groups
	any   []guard // of which one has to hold
	// calculation and holds, of its value; holds is true of what it can't judge.
	calculation *calculation
	holds       func(have ref.Val) bool
}

// excludes reports whether it certainly does not hold, and is no error.
func (g guard) excludes(in *known) bool {
	switch {
	case len(g.any) > 0: // false || false; an error anywhere is one
		return !slices.ContainsFunc(g.any, func(one guard) bool { return !one.excludes(in) })
	case g.calculation != nil:
		have := in.value(g.calculation)
		return have != nil && !g.holds(have)
	case g.group != "":
		groups, ok := in.plain["identity.groups"].([]string)
		return ok && !slices.Contains(groups, g.group)
	case g.label != "":
		labels, _ := in.plain["target.labels"].(map[string]string)
		have, ok := labels[g.label]
		return ok && !g.test(have)
	}
	have, ok := in.plain[g.name].(string)
	return ok && !g.test(have)
}

// counted says that each calculation of it has one more use.
func (g guard) counted() {
	if g.calculation != nil {
		g.calculation.uses++
	}
	for _, one := range g.any {
		one.counted()
	}
}

// cheap reports whether all of it costs less than the condition that it stands in: a calculation that no other condition makes is
// made with the condition or not at all.
func (g guard) cheap() bool {
	return (g.calculation == nil || g.calculation.uses > 1) && !slices.ContainsFunc(g.any, func(one guard) bool { return !one.cheap() })
}

// guards finds them among the parts of a condition, those first that need no calculation.
func (s calculations) guards(parts []ast.Expr, info *ast.SourceInfo) (found []guard) {
	for _, e := range parts {
		if g, ok := s.guardOf(e, info); ok {
			g.counted()
			found = append(found, g)
		}
	}
	slices.SortStableFunc(found, func(a, b guard) int { return a.calculations() - b.calculations() })
	return found
}

// calculations is how many there are in it.
func (g guard) calculations() (n int) {
	if g.calculation != nil {
		n++
	}
	for _, one := range g.any {
		n += one.calculations()
	}
	return n
}

// comparing is a function of a text and a literal as CEL defines it, for that literal; nil: it is none of those that are plain.
func comparing(name, want string) func(have string) bool {
	switch name {
	case operators.Equals:
		return func(have string) bool { return have == want }
	case operators.NotEquals:
		return func(have string) bool { return have != want }
	case "startsWith":
		return func(have string) bool { return strings.HasPrefix(have, want) }
	case "endsWith":
		return func(have string) bool { return strings.HasSuffix(have, want) }
	case "contains":
		return func(have string) bool { return strings.Contains(have, want) }
	case "matches":
		if pattern, err := regexp.Compile(want); err == nil {
			return pattern.MatchString
		}
	}
	return nil
}

// guardOf is an expression's, if it is plain enough.
func (s calculations) guardOf(e ast.Expr, info *ast.SourceInfo) (guard, bool) {
	if g, ok := plain(e); ok {
		return g, true
	}
	if name, args := operation(e); name == operators.LogicalOr {
		var g guard
		for _, side := range args {
			one, ok := s.guardOf(side, info)
			if !ok {
				return g, false
			}
			g.any = append(g.any, one)
		}
		return g, true
	}
	return s.calculated(e, info)
}

// plain is the guard of an expression that compares a variable.
func plain(e ast.Expr) (g guard, ok bool) {
	name, args := operation(e)
	if len(args) != 2 {
		return g, false
	}
	variable, literal := args[0], args[1]
	if _, isText := text(variable); isText && (name == operators.Equals || name == operators.NotEquals) {
		variable, literal = literal, variable
	}
	if want, isText := text(literal); isText {
		if g.test = comparing(name, want); g.test != nil {
			return g, g.about(variable)
		}
	}
	switch {
	case name == operators.In && args[1].Kind() == ast.ListKind:
		var wanted []string
		for _, element := range args[1].AsList().Elements() {
			one, isText := text(element)
			if !isText {
				return g, false
			}
			wanted = append(wanted, one)
		}
		if len(args[1].AsList().OptionalIndices()) > 0 || !g.about(args[0]) {
			return g, false
		}
		g.test = func(have string) bool { return slices.Contains(wanted, have) }
		return g, true
	case name == operators.In:
		g.group, ok = text(args[0])
		return g, ok && g.group != "" && path(args[1]) == "identity.groups"
	}
	return g, false
}

// about notes which variable it is; false: none of those that are plain texts.
func (g *guard) about(e ast.Expr) bool {
	name := path(e)
	if label, ok := strings.CutPrefix(name, "target.labels."); ok && !strings.Contains(label, ".") {
		g.label = label
		return true
	}
	g.name = name
	return slices.Contains(texts, name)
}

// texts are the variables that are strings.
var texts = []string{
	"identity.kind", "identity.issuer", "identity.subject", "identity.email", "target.name", "target.kind", "account",
	"request.reason", "request.ticket", "source.address",
}

// path is a variable's name as it is written; empty: it is none.
func path(e ast.Expr) string {
	switch e.Kind() {
	case ast.IdentKind:
		return e.AsIdent()
	case ast.SelectKind:
		if s := e.AsSelect(); !s.IsTestOnly() {
			if before := path(s.Operand()); before != "" {
				return before + "." + s.FieldName()
			}
		}
	}
	return ""
}

// text is a literal's.
func text(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}
