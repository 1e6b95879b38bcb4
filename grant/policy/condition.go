package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// What a condition may cost. A condition whose worst case is dearer, with inputs as large as below, is refused when it is
// loaded; one that meets larger inputs and gets dearer ends in an error when it is evaluated.
const (
	maxCost       = 100_000 // steps, of which one takes some tens of nanoseconds
	maxMemory     = 100_000 // elements of what it makes on the way
	maxExpression = 2000    // characters
	maxNesting    = 20
	maxRegex      = 1000 // instructions of a regular expression's program
	maxLoops      = 1    // all(), exists() and so on inside each other
)

// The largest inputs that a condition's cost is worked out for.
const (
	maxItems = 200  // groups, labels
	maxName  = 256  // characters of a name, a group, a label
	maxText  = 1000 // of a reason
)

// variables are all that conditions know, with their types. docs/policies.md says what they mean.
var variables = []cel.EnvOption{
	cel.Variable("identity.kind", cel.StringType),
	cel.Variable("identity.issuer", cel.StringType),
	cel.Variable("identity.subject", cel.StringType),
	cel.Variable("identity.email", cel.StringType),
	cel.Variable("identity.groups", cel.ListType(cel.StringType)),
	cel.Variable("identity.age", cel.DurationType),
	cel.Variable("identity.claims", cel.MapType(cel.StringType, cel.StringType)),
	cel.Variable("target.name", cel.StringType),
	cel.Variable("target.kind", cel.StringType),
	cel.Variable("target.labels", cel.MapType(cel.StringType, cel.StringType)),
	cel.Variable("account", cel.StringType),
	cel.Variable("request.duration", cel.DurationType),
	cel.Variable("request.reason", cel.StringType),
	cel.Variable("request.ticket", cel.StringType),
	cel.Variable("request.time", cel.TimestampType),
	cel.Variable("request.break_glass", cel.BoolType),
	cel.Variable("source.address", cel.StringType),
	cel.Variable("evidence", cel.MapType(cel.StringType, cel.DynType)),
}

// input is what the variables stand for in one request. An unknown address is empty, which is no address, so that a
// condition on it fails.
func input(ask Ask, length time.Duration) *known {
	address := ""
	if ask.Source.IsValid() {
		address = ask.Source.Unmap().WithZone("").String()
	}
	groups, labels, claims := ask.Identity.Groups, ask.Target.Labels, ask.Identity.Claims
	if claims == nil {
		claims = map[string]string{}
	}
	if groups == nil {
		groups = []string{}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	facts := map[string]any{}
	for name, f := range ask.Evidence {
		if f.Missing == "" {
			facts[name] = f.Data
		}
	}
	plain := map[string]any{
		"evidence":            facts,
		"identity.kind":       string(ask.Identity.Kind),
		"identity.issuer":     ask.Identity.Issuer,
		"identity.subject":    ask.Identity.Subject,
		"identity.email":      ask.Identity.Email,
		"identity.groups":     groups,
		"identity.claims":     claims,
		"identity.age":        max(0, ask.Time.Sub(ask.Identity.SignedIn)),
		"target.name":         ask.Target.Name,
		"target.kind":         ask.Target.Kind,
		"target.labels":       labels,
		"account":             ask.Account,
		"request.duration":    length,
		"request.reason":      ask.Reason,
		"request.ticket":      ask.Ticket,
		"request.time":        ask.Time.UTC(),
		"request.break_glass": ask.BreakGlass,
		"source.address":      address,
	}
	values := make(map[string]any, len(plain))
	adapter := environment.CELTypeAdapter()
	for name, v := range plain {
		values[name] = adapter.NativeToValue(v)
	}
	activation, err := cel.NewActivation(values)
	if err != nil {
		panic(err) // it is a map
	}
	return &known{plain: plain, values: values, activation: activation, small: fits(ask), calculated: map[*calculation]ref.Val{}}
}

// known is what conditions know of one request. It is made once for all of them: values are as CEL has them, so that no
// evaluation has to make them, and what several calculate is calculated once. It is one goroutine's.
type known struct {
	plain      map[string]any
	values     map[string]any
	activation cel.Activation // on values
	small      bool           // no larger than what conditions' cost was worked out for
	calculated map[*calculation]ref.Val
}

// lasting sets request.duration, which depends on the policy.
func (k *known) lasting(length time.Duration) {
	k.plain["request.duration"], k.values["request.duration"] = length, types.Duration{Duration: length}
}

// environment is the one in which conditions are read. Nothing in it depends on anything but the input: there is no
// clock, no chance and nothing outside.
var environment = func() *cel.Env {
	options := append([]cel.EnvOption{
		ext.Network(), ext.Strings(),
		cel.OptionalTypes(),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(maxNesting * 5),
		cel.RegexProgramSizeLimit(maxRegex),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(maxLoops),
		),
	}, variables...)
	env, err := cel.NewEnv(options...)
	if err != nil {
		panic(err) // all of it is written above
	}
	return env
}()

// condition is one that was read and checked.
type condition struct {
	whole program
	// bare is whole without the limits that are watched while it is evaluated, which cost ten times what it does itself. Its
	// worst case for inputs that fit is known to be within them. Without one (evidence, of unknown size) whole is used.
	bare  *program
	parts []program // what && joins, for explaining
	plain []guard   // of those, the ones that need not be evaluated for themselves
}

type program struct {
	text string
	run  cel.Program
	uses []string // variables of the request that it looks at, as they are written
}

// fault is something wrong with a condition, at a place of its text, from 1.
type fault struct {
	line, column int
	text         string
}

// parse reads a condition. What it has in common with others of its set is in s.
func (s calculations) parse(text string, declared []string) (*condition, []fault) {
	checked, issues := environment.Compile(text)
	if err := issues.Err(); err != nil {
		var faults []fault
		for _, e := range issues.Errors() {
			line, column := 1, 1
			if e.Location.Line() > 0 {
				line, column = e.Location.Line(), e.Location.Column()+1
			}
			faults = append(faults, fault{line, column, e.Message})
		}
		return nil, faults
	}
	// What evidence says has no type before it is there; if it is neither true nor false then, that is an error.
	if checked.OutputType() != cel.BoolType && checked.OutputType() != cel.DynType {
		return nil, []fault{{1, 1, fmt.Sprintf("a condition is true or false, but this is of type %s", checked.OutputType())}}
	}
	if name := undeclared(checked, declared); name != "" {
		return nil, []fault{{1, 1, fmt.Sprintf("it looks at evidence %q; name that under the policy's evidence too, and write it as evidence.%s", name, name)}}
	}
	worst, err := environment.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, []fault{{1, 1, "what it costs can't be worked out: " + err.Error()}}
	}
	if worst.Max > maxCost {
		return nil, []fault{{1, 1, fmt.Sprintf("it could take %d steps, of at most %d; ask for less, such as one group instead of a search through all of them", worst.Max, maxCost)}}
	}
	c := &condition{}
	if c.whole, err = plan(text, checked, maxCost); err != nil {
		return nil, []fault{{1, 1, err.Error()}}
	}
	if len(declared) == 0 {
		run, err := environment.Program(checked, cel.EvalOptions(cel.OptOptimize))
		if err != nil {
			return nil, []fault{{1, 1, err.Error()}}
		}
		c.bare = &program{c.whole.text, run, nil}
	}
	parts := conjuncts(checked.NativeRep().Expr(), nil)
	c.plain = s.guards(parts, checked.NativeRep().SourceInfo())
	for _, part := range parts {
		text, err := cel.ExprToString(part, checked.NativeRep().SourceInfo())
		if err != nil {
			continue // the whole is explained instead
		}
		one, issues := environment.Compile(text)
		if issues.Err() != nil {
			continue
		}
		if p, err := plan(text, one, maxCost); err == nil {
			c.parts = append(c.parts, p)
		}
	}
	return c, nil
}

// undeclared is evidence that a condition looks at, or may look at, though its policy does not name it.
func undeclared(checked *cel.Ast, declared []string) (name string) {
	named := map[int64]bool{}
	root := ast.NavigateAST(checked.NativeRep())
	for _, e := range ast.MatchDescendants(root, ast.KindMatcher(ast.SelectKind)) {
		if s := e.AsSelect(); s.Operand().Kind() == ast.IdentKind && s.Operand().AsIdent() == "evidence" {
			named[s.Operand().ID()] = true
			if !slices.Contains(declared, s.FieldName()) {
				name = s.FieldName()
			}
		}
	}
	for _, e := range ast.MatchDescendants(root, ast.KindMatcher(ast.IdentKind)) {
		if e.AsIdent() == "evidence" && !named[e.ID()] {
			name = "…"
		}
	}
	return name
}

// plan makes a program that stops at its limits.
func plan(text string, checked *cel.Ast, limit uint64) (program, error) {
	run, err := environment.Program(checked,
		cel.EvalOptions(cel.OptOptimize), cel.CostLimit(limit), cel.MemoryLimit(maxMemory))
	return program{strings.Join(strings.Fields(text), " "), run, uses(checked)}, err
}

// uses are the variables that an expression looks at, as they are written: those of which whoever asks may be told what they stand for.
// What evidence says is about others, and what they typed themselves they know: it is not repeated in what others read.
func uses(checked *cel.Ast) (names []string) {
	root := ast.NavigateAST(checked.NativeRep())
	for _, e := range ast.MatchDescendants(root, func(e ast.NavigableExpr) bool { return e.Kind() == ast.IdentKind || e.Kind() == ast.SelectKind }) {
		name := path(e)
		if parent, inside := e.Parent(); name == "" || inside && path(parent) != "" { // a part of a longer name
			continue
		}
		if _, known := told(known{plain: map[string]any{}}, name); known && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// said is a failed part with what the variables in it stood for: identity.age < duration("8h") (identity.age is 9h2m).
func (p program) said(in *known) string {
	var values []string
	for _, name := range p.uses {
		if value, _ := told(*in, name); value != "" {
			values = append(values, name+" is "+value)
		}
	}
	if len(values) == 0 {
		return p.text
	}
	return p.text + " (" + strings.Join(values, ", ") + ")"
}

// mostSaid is how many characters of a value are told.
const mostSaid = 64

// told writes what a variable of the request stands for; known: it is one. An empty value is one that is not there.
func told(in known, name string) (value string, is bool) {
	text := func(s string) string {
		if runes := []rune(s); len(runes) > mostSaid {
			s = string(runes[:mostSaid]) + "…"
		}
		return strconv.Quote(s)
	}
	if label, of := strings.CutPrefix(name, "target.labels."); of {
		labels, _ := in.plain["target.labels"].(map[string]string)
		if have, there := labels[label]; there {
			return text(have), true
		}
		return "", true
	}
	if claim, of := strings.CutPrefix(name, "identity.claims."); of {
		claims, _ := in.plain["identity.claims"].(map[string]string)
		if have, there := claims[claim]; there {
			return text(have), true
		}
		return "", true
	}
	if name == "evidence" || name == "request.reason" || name == "request.ticket" || !slices.ContainsFunc(declared, func(d string) bool { return d == name }) {
		return "", false
	}
	switch v := in.plain[name].(type) {
	case string:
		return text(v), true
	case time.Duration:
		return Short(v.Round(time.Second)), true
	case time.Time:
		return v.Format("2006-01-02 15:04:05 UTC"), true
	case bool:
		return strconv.FormatBool(v), true
	case []string:
		return "[" + strings.Join(v[:min(len(v), 10)], ", ") + "]", true
	}
	return "", true
}

// declared are the names of the variables.
var declared = func() (names []string) {
	for _, v := range environment.Variables() {
		names = append(names, v.Name())
	}
	return names
}()

// conjuncts are the expressions that && joins, from left to right.
func conjuncts(e ast.Expr, found []ast.Expr) []ast.Expr {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.LogicalAnd {
		return append(found, e)
	}
	for _, arg := range e.AsCall().Args() {
		found = conjuncts(arg, found)
	}
	return found
}

// fits reports whether what conditions see of a request is no larger than what their cost was worked out for.
func fits(ask Ask) bool {
	ok := len(ask.Reason) <= maxText && len(ask.Identity.Groups) <= maxItems && len(ask.Target.Labels) <= maxItems && len(ask.Identity.Claims) <= maxItems
	for _, s := range []string{ask.Ticket, ask.Account, ask.Target.Name, ask.Identity.Issuer, ask.Identity.Subject, ask.Identity.Email} {
		ok = ok && len(s) <= maxName
	}
	for _, g := range ask.Identity.Groups {
		ok = ok && len(g) <= maxName
	}
	for _, texts := range []map[string]string{ask.Target.Labels, ask.Identity.Claims} {
		for k, v := range texts {
			ok = ok && len(k) <= maxName && len(v) <= maxName
		}
	}
	return ok
}

// quick evaluates as cheaply as can be.
func (c *condition) quick(in *known) (bool, error) {
	if in.small && c.bare != nil {
		return c.bare.holds(in)
	}
	return c.whole.holds(in)
}

// excluded reports whether the condition certainly does not hold, without evaluating it.
func (c *condition) excluded(in *known) bool {
	return slices.ContainsFunc(c.plain, func(g guard) bool { return g.excludes(in) })
}

// holds evaluates.
func (p program) holds(in *known) (bool, error) {
	value, _, err := p.run.Eval(in.activation)
	if err != nil {
		return false, err
	}
	yes, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("it is neither true nor false")
	}
	return bool(yes), nil
}

// check evaluates a condition; where it does not hold, or can't be worked out, text says which part of it.
func (c *condition) check(in *known) (holds bool, text string, err error) {
	if holds, err = c.whole.holds(in); holds && err == nil {
		return true, "", nil
	}
	var says []string
	for _, p := range c.parts {
		switch yes, fails := p.holds(in); {
		case fails != nil && err != nil:
			says = append(says, fmt.Sprintf("%s: %s", p.text, fails))
		case fails == nil && !yes:
			says = append(says, p.said(in))
		}
	}
	if len(says) == 0 {
		says = []string{c.whole.text}
		if err != nil {
			says[0] += ": " + err.Error()
		}
	}
	return false, strings.Join(says, " and "), err
}

// sizes bounds the variables, for working out the worst case.
type sizes struct{}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	path := n.Path()
	if len(path) == 0 {
		return nil
	}
	name := strings.Join(path, ".")
	most := uint64(maxName)
	switch name {
	case "identity.groups", "target.labels", "identity.claims":
		most = maxItems
	case "request.reason":
		most = maxText
	}
	return &cost.SizeEstimate{Max: most}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}
