package policy

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// guard is a part of a condition that is plain enough to be looked at without evaluating anything: a comparison of a text with
// a literal. Where it does not hold, the whole can't, since all parts are joined by && and false && anything, an error too, is
// false. It is what lets a decision go through a thousand policies.
type guard struct {
	name  string // of the variable
	label string // of target.labels
	test  func(have string) bool
	group string // that has to be among identity.groups
}

// excludes reports whether it certainly does not hold.
func (g guard) excludes(in map[string]any) bool {
	if g.group != "" {
		groups, ok := in["identity.groups"].([]string)
		return ok && !slices.Contains(groups, g.group)
	}
	if g.label != "" {
		labels, _ := in["target.labels"].(map[string]string)
		have, ok := labels[g.label]
		return ok && !g.test(have)
	}
	have, ok := in[g.name].(string)
	return ok && !g.test(have)
}

// guards finds them among the parts of a condition.
func guards(parts []ast.Expr) (found []guard) {
	for _, e := range parts {
		if e.Kind() != ast.CallKind {
			continue
		}
		call := e.AsCall()
		var g guard
		switch args := call.Args(); {
		case call.FunctionName() == operators.Equals && len(args) == 2:
			variable, literal := args[0], args[1]
			if _, ok := text(variable); ok {
				variable, literal = literal, variable
			}
			want, ok := text(literal)
			if !ok || !g.about(variable) {
				continue
			}
			g.test = func(have string) bool { return have == want }
		case call.FunctionName() == "startsWith" && call.IsMemberFunction() && len(args) == 1:
			want, ok := text(args[0])
			if !ok || !g.about(call.Target()) {
				continue
			}
			g.test = func(have string) bool { return strings.HasPrefix(have, want) }
		case call.FunctionName() == operators.In && len(args) == 2:
			want, ok := text(args[0])
			if !ok || path(args[1]) != "identity.groups" {
				continue
			}
			g.group = want
		default:
			continue
		}
		found = append(found, g)
	}
	return found
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
