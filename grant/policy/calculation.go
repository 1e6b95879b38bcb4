package policy

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// calculation is an expression that several conditions of a set have in common, such as request.ticket.split("-")[1]. For one
// request it has one value, whichever policy asks, so it is worked out once for all of them and compared by each. Only what has
// the same value for all policies of a request is one: nothing with request.duration in it, which a policy may set, and nothing
// with evidence, of which the size, and so the cost, is not known.
type calculation struct {
	run  cel.Program
	of   *cel.Type
	uses int // conditions that compare it; worked out apart from them only where there are two
}

// calculations are those of a set of policies, by their text.
type calculations map[string]*calculation

// note returns the calculation that an expression is, nil where it can be none.
func (s calculations) note(e ast.Expr, info *ast.SourceInfo) *calculation {
	text, err := cel.ExprToString(e, info)
	if err != nil || strings.Contains(text, "request.duration") || strings.Contains(text, "evidence") {
		return nil
	}
	if c, known := s[text]; known {
		return c
	}
	s[text] = nil
	checked, issues := environment.Compile(text)
	if issues.Err() != nil {
		return nil
	}
	// It runs without limits, as condition.bare does, so its own worst case has to be within them.
	worst, err := environment.EstimateCost(checked, sizes{})
	if err != nil || worst.Max > maxCost {
		return nil
	}
	run, err := environment.Program(checked, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil
	}
	s[text] = &calculation{run: run, of: checked.OutputType()}
	return s[text]
}

// value is a calculation's for one request; nil where it can't be worked out, or not be known to cost little.
func (k *known) value(c *calculation) ref.Val {
	if !k.small {
		return nil
	}
	v, done := k.calculated[c]
	if !done {
		var err error
		if v, _, err = c.run.Eval(k.activation); err != nil {
			v = nil
		}
		k.calculated[c] = v
	}
	return v
}

// ordered are the comparisons of two values of one type that has an order.
var ordered = map[string]func(sign types.Int) bool{
	operators.Less:          func(sign types.Int) bool { return sign < 0 },
	operators.LessEquals:    func(sign types.Int) bool { return sign <= 0 },
	operators.Greater:       func(sign types.Int) bool { return sign > 0 },
	operators.GreaterEquals: func(sign types.Int) bool { return sign >= 0 },
}

// turned are the comparisons with their sides changed.
var turned = map[string]string{
	operators.Equals: operators.Equals, operators.NotEquals: operators.NotEquals,
	operators.Less: operators.Greater, operators.LessEquals: operators.GreaterEquals,
	operators.Greater: operators.Less, operators.GreaterEquals: operators.LessEquals,
}

// orderly are the types whose values have an equality and an order without surprises: no NaN, and nothing of two types.
var orderly = []*cel.Type{cel.StringType, cel.IntType, cel.BoolType, cel.DurationType, cel.TimestampType}

// calculated finds the guard that an expression is by a calculation: one compared with something constant, else the expression
// itself.
func (s calculations) calculated(e ast.Expr, info *ast.SourceInfo) (g guard, ok bool) {
	if name, args := operation(e); len(args) == 2 {
		side, other := args[0], args[1]
		want := constant(other)
		if opposite, has := turned[name]; want == nil && has {
			want, side, name = constant(side), other, opposite
		}
		if holds := comparison(name, want); holds != nil {
			c := s.note(side, info)
			if c != nil && c.of.IsExactType(kindOf(want)) && slices.ContainsFunc(orderly, c.of.IsExactType) {
				return guard{calculation: c, holds: holds}, true
			}
		}
	}
	c := s.note(e, info)
	if c == nil || !c.of.IsExactType(cel.BoolType) {
		return g, false
	}
	return guard{calculation: c, holds: func(have ref.Val) bool { return have != types.False }}, true
}

// operation is a call's function and all it is called with.
func operation(e ast.Expr) (name string, args []ast.Expr) {
	if e.Kind() != ast.CallKind {
		return "", nil
	}
	call := e.AsCall()
	if call.IsMemberFunction() {
		args = append(args, call.Target())
	}
	return call.FunctionName(), append(args, call.Args()...)
}

// comparison is that of a value with a constant one; nil where the function is none. What it can't compare holds, so that the
// condition itself is asked.
func comparison(name string, want ref.Val) func(have ref.Val) bool {
	if want == nil {
		return nil
	}
	switch name {
	case operators.Equals:
		return func(have ref.Val) bool { return types.Equal(have, want) != types.False }
	case operators.NotEquals:
		return func(have ref.Val) bool { return types.Equal(have, want) != types.True }
	}
	if in := ordered[name]; in != nil {
		return func(have ref.Val) bool {
			compared, can := have.(traits.Comparer)
			if !can {
				return true
			}
			sign, is := compared.Compare(want).(types.Int)
			return !is || in(sign)
		}
	}
	if text, isText := want.(types.String); isText {
		if test := comparing(name, string(text)); test != nil {
			return func(have ref.Val) bool {
				s, is := have.(types.String)
				return !is || test(string(s))
			}
		}
	}
	return nil
}

// constant is the value of a literal, or of a duration or a time that is written as one; nil: it is neither.
func constant(e ast.Expr) ref.Val {
	if e.Kind() == ast.LiteralKind {
		return e.AsLiteral()
	}
	name, args := operation(e)
	if len(args) != 1 || args[0].Kind() != ast.LiteralKind {
		return nil
	}
	var to *cel.Type
	switch name {
	case "duration":
		to = cel.DurationType
	case "timestamp":
		to = cel.TimestampType
	default:
		return nil
	}
	v := args[0].AsLiteral().ConvertToType(to)
	if kindOf(v) == nil || !kindOf(v).IsExactType(to) {
		return nil
	}
	return v
}

// kindOf is the static type of a constant; nil for one that nothing is compared with here.
func kindOf(v ref.Val) *cel.Type {
	switch v.(type) {
	case types.String:
		return cel.StringType
	case types.Int:
		return cel.IntType
	case types.Bool:
		return cel.BoolType
	case types.Duration:
		return cel.DurationType
	case types.Timestamp:
		return cel.TimestampType
	}
	return nil
}
