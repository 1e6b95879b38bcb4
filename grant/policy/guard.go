package policy

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// guard is a part of a condition that is plain enough to be looked at without evaluating anything: texts compared with literals.
// Where it does not hold, the whole can't, since all parts are joined by && and false && anything, an error too, is false. It is
// what lets a decision go through a thousand policies.
type guard struct {
	name  string // of the variable
	label string // of target.labels
	test  func(have string) bool
	group string  // that has to be among identity.groups
	any   []guard // of which one has to hold
}

// excludes reports whether it certainly does not hold, and is no error.
func (g guard) excludes(in *known) bool {
	switch {
	case len(g.any) > 0: // false || false; an error anywhere is one
		return !slices.ContainsFunc(g.any, func(one guard) bool { return !one.excludes(in) })
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

// guards finds them among the parts of a condition.
func guards(parts []ast.Expr) (found []guard) {
	for _, e := range parts {
		if g, ok := guardOf(e); ok {
			found = append(found, g)
		}
	}
	return found
}

// comparing are the functions of a text and a literal, as CEL defines them.
var comparing = map[string]func(have, want string) bool{
	operators.Equals:    func(have, want string) bool { return have == want },
	operators.NotEquals: func(have, want string) bool { return have != want },
	"startsWith":        strings.HasPrefix,
	"endsWith":          strings.HasSuffix,
	"contains":          strings.Contains,
}

// guardOf is an expression's, if it is plain enough.
func guardOf(e ast.Expr) (g guard, ok bool) {
	if e.Kind() != ast.CallKind {
		return g, false
	}
	call := e.AsCall()
	name, args := call.FunctionName(), call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	if len(args) != 2 {
		return g, false
	}
	switch compare := comparing[name]; {
	case name == operators.LogicalOr:
		for _, side := range args {
			one, ok := guardOf(side)
			if !ok {
				return g, false
			}
			g.any = append(g.any, one)
		}
		return g, true
	case compare != nil:
		variable, literal := args[0], args[1]
		if _, isText := text(variable); isText && !call.IsMemberFunction() {
			variable, literal = literal, variable
		}
		want, isText := text(literal)
		if !isText || !g.about(variable) {
			return g, false
		}
		g.test = func(have string) bool { return compare(have, want) }
		return g, true
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
