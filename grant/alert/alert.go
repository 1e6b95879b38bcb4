// Package alert tells people when something happens that they want to know of: an event of the audit log for which a condition
// holds, or so many of them within a time.
//
// What it promises:
//
//   - It reads the events behind their commit: whatever happens never waits for an alert, and an alert that can't be told changes
//     nothing else.
//   - Every event is looked at, in order: from memory, and from the audit log where it fell behind. An alert and how far it has
//     looked are one transaction, so that it tells each once, also over a restart. What was counted towards one is in memory.
//   - Conditions are CEL, checked when they are loaded, with a worst case that is bounded there and while they are evaluated; what is
//     remembered of events is bounded, and so is how often an alert is told.
package alert

import (
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/store"
)

const (
	maxCost       = 20_000 // steps of a condition on one event
	maxMemory     = 20_000
	maxExpression = 2000 // characters
	maxRegex      = 1000 // instructions
	maxText       = 1000 // bytes of a field that conditions are asked about; longer ones are cut
	maxFields     = 50

	maxKeys = 10_000 // that are counted for, for each alert
	// mostTold is how often one alert is told in tellingTime; the last time says so.
	mostTold    = 30
	tellingTime = time.Hour
)

// texts are the fields of an event that are texts, as conditions name them.
var texts = map[string]func(store.AuditEvent) string{
	"event.kind":       func(e store.AuditEvent) string { return e.Kind },
	"event.actor":      func(e store.AuditEvent) string { return e.Actor },
	"event.actor_name": func(e store.AuditEvent) string { return e.ActorName },
	"event.client":     func(e store.AuditEvent) string { return e.Client },
	"event.target":     func(e store.AuditEvent) string { return e.Target },
	"event.account":    func(e store.AuditEvent) string { return e.Account },
	"event.grant":      func(e store.AuditEvent) string { return e.Grant },
	"event.session":    func(e store.AuditEvent) string { return e.Session },
	"event.outcome":    func(e store.AuditEvent) string { return e.Outcome },
	"event.reason":     func(e store.AuditEvent) string { return e.Reason },
}

// environment is the one in which conditions are read. Like policies', it has no clock but the event's.
var environment = func() *cel.Env {
	options := []cel.EnvOption{
		ext.Network(), ext.Strings(), cel.OptionalTypes(), cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(100), cel.RegexProgramSizeLimit(maxRegex),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(1)),
		cel.Variable("event.time", cel.TimestampType),
		cel.Variable("event.fields", cel.MapType(cel.StringType, cel.StringType)),
	}
	for name := range texts {
		options = append(options, cel.Variable(name, cel.StringType))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		panic(err) // all of it is written above
	}
	return env
}()

// sizes bounds the variables, for working out the worst case.
type sizes struct{}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	switch path := strings.Join(n.Path(), "."); {
	case path == "":
		return nil
	case path == "event.fields":
		return &cost.SizeEstimate{Max: maxFields}
	}
	return &cost.SizeEstimate{Max: maxText}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// Rules are a configuration's alerts with what they have counted. Not safe for concurrent use.
type Rules struct{ rules []*rule }

type rule struct {
	configs.Alert
	run  cel.Program
	seen map[string][]time.Time // by key, the last Count-1 events at most, oldest first
	told []time.Time            // in the last tellingTime
}

// Compile reads the conditions. The error is configs.Problems, with their places in the file.
func Compile(c *configs.Config) (*Rules, error) {
	r := &Rules{}
	var problems configs.Problems
	for i, a := range c.Alerts {
		run, line, column, err := compile(a.When)
		if err != nil {
			problems = append(problems, c.AlertProblem(i, "when", line, column, "alert %s: when: %s", a.Name, err))
			continue
		}
		r.rules = append(r.rules, &rule{Alert: a, run: run, seen: map[string][]time.Time{}})
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return r, nil
}

// compile reads one condition; line and column, from 1, are where it is wrong.
func compile(text string) (run cel.Program, line, column int, err error) {
	checked, issues := environment.Compile(text)
	if err := issues.Err(); err != nil {
		line, column := 1, 1
		first := issues.Errors()[0]
		if first.Location.Line() > 0 {
			line, column = first.Location.Line(), first.Location.Column()+1
		}
		return nil, line, column, fmt.Errorf("%s", first.Message)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, 1, 1, fmt.Errorf("a condition is true or false, but this is of type %s", checked.OutputType())
	}
	worst, err := environment.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, 1, 1, fmt.Errorf("what it costs can't be worked out: %w", err)
	}
	if worst.Max > maxCost {
		return nil, 1, 1, fmt.Errorf("it could take %d steps, of at most %d", worst.Max, maxCost)
	}
	run, err = environment.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost), cel.MemoryLimit(maxMemory))
	return run, 1, 1, err
}

// Look takes the next event, and returns the alerts that it raises. Time is the events' own, so that the same events raise the same
// alerts again. A condition that can't be worked out (a field that this kind of event does not have) does not hold.
func (r *Rules) Look(e store.AuditEvent) (raised []grant.Alert) {
	if len(r.rules) == 0 || strings.HasPrefix(e.Kind, "alert.") { // it would tell of itself for ever
		return nil
	}
	in := input(e)
	for _, rule := range r.rules {
		value, _, err := rule.run.Eval(in)
		if yes, ok := value.(types.Bool); err != nil || !ok || !bool(yes) {
			continue
		}
		if a, full := rule.count(e); full {
			raised = append(raised, a)
		}
	}
	return raised
}

// input is what the variables stand for in one event.
func input(e store.AuditEvent) map[string]any {
	cut := func(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxText)], "\uFFFD") }
	fields := map[string]string{}
	for name, value := range e.Fields {
		if len(fields) < maxFields {
			fields[cut(name)] = cut(value)
		}
	}
	in := map[string]any{"event.time": e.Time.UTC(), "event.fields": fields}
	for name, text := range texts {
		in[name] = cut(text(e))
	}
	return in
}

// key is what a rule counts an event for.
func (r *rule) key(e store.AuditEvent) string {
	switch r.By {
	case "client":
		return e.Client
	case "target":
		return e.Target
	case "none":
		return ""
	}
	return e.Actor
}

// count counts an event for which the condition holds, and says whether it is one too many.
func (r *rule) count(e store.AuditEvent) (a grant.Alert, full bool) {
	key := r.key(e)
	since := e.Time
	if r.Count > 1 {
		recent := after(r.seen[key], e.Time.Add(-r.Within.D()))
		recent = append(recent, e.Time)
		if len(recent) < r.Count {
			r.room(e.Time)
			r.seen[key] = recent
			return a, false
		}
		since = recent[0]
		delete(r.seen, key) // the next is about others
	}
	r.told = after(r.told, e.Time.Add(-tellingTime))
	if len(r.told) >= mostTold {
		return a, false
	}
	r.told = append(r.told, e.Time)
	a = grant.Alert{Name: r.Name, Count: r.Count, Since: since, By: r.By, Key: key, Event: e, To: r.To}
	if len(r.told) == mostTold {
		a.Quiet = r.told[0].Add(tellingTime)
	}
	return a, true
}

// room makes room for another key: those whose events are all too old go, and if that is not enough half of them.
func (r *rule) room(now time.Time) {
	if len(r.seen) < maxKeys {
		return
	}
	for key, times := range r.seen {
		if len(after(times, now.Add(-r.Within.D()))) == 0 {
			delete(r.seen, key)
		}
	}
	for key := range r.seen {
		if len(r.seen) <= maxKeys/2 {
			break
		}
		delete(r.seen, key)
	}
}

// after are the times that are later than that one. They are in order but for what clocks do.
func after(times []time.Time, than time.Time) []time.Time {
	for len(times) > 0 && !times[0].After(than) {
		times = times[1:]
	}
	return append([]time.Time(nil), times...)
}
