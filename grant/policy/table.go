package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/evidence"
)

// maxTable bounds a file of tests, in bytes.
const maxTable = 4 << 20

// What holds where a test says nothing.
const (
	testTime   = "2026-01-05T12:00:00Z" // a Monday
	testReason = "a test of the policies, whose reason is as long as anybody could want one of them to be when they ask"
)

// Test is a question to the policies and the answer that is expected; docs/policies.md describes how it is written.
type Test struct {
	Name     string `yaml:"name"`
	Identity struct {
		Kind    string            `yaml:"kind"` // human (default) or workload
		Issuer  string            `yaml:"issuer"`
		Subject string            `yaml:"subject"`
		Email   string            `yaml:"email"`
		Groups  []string          `yaml:"groups"`
		Age     string            `yaml:"age"` // since the sign-in; default: none
		Claims  map[string]string `yaml:"claims"`
		ACR     string            `yaml:"acr"`
		AMR     []string          `yaml:"amr"`
	} `yaml:"identity"`
	Account  string  `yaml:"account"` // ACCOUNT@TARGET
	Duration string  `yaml:"duration"`
	Reason   *string `yaml:"reason"`
	Ticket   string  `yaml:"ticket"`
	Time     string  `yaml:"time"`
	Source   string  `yaml:"source"`
	// Start is when it is to begin, BreakGlass that it is asked for in an emergency.
	Start      string `yaml:"start"`
	BreakGlass bool   `yaml:"break_glass"`
	// Evidence is what other systems say, by its name: what a policy's condition knows of it. Null: it is missing, as is what is
	// not named here.
	Evidence map[string]map[string]any `yaml:"evidence"`
	// Expect is "permit POLICY", "forbid POLICY" or "none".
	Expect string `yaml:"expect"`
	// Stages, where given, are the approvals that it is expected to need, in order: "1 of leads", "2 of owners or security"; with
	// auto alone in it, none.
	Stages []string `yaml:"stages"`

	File string `yaml:"-"`
	Line int    `yaml:"-"`
}

// Result is how a test went.
type Result struct {
	Test
	Got         string // as Expect
	Explanation Explanation
}

// Passed reports whether the answer was as expected.
func (r Result) Passed() bool { return r.Got == r.Wanted() }

// Wanted is what was expected, with the stages of approval where the test names them.
func (r Result) Wanted() string { return r.Expect + afterwards(r.Stages) }

func afterwards(stages []string) string {
	if len(stages) == 0 {
		return ""
	}
	return ", approved by " + strings.Join(stages, ", then ")
}

// approvals are a policy's stages as tests write them.
func approvals(p configs.Policy) (list []string) {
	for _, s := range Stages(p) {
		list = append(list, fmt.Sprintf("%d of %s", s.Count, Or(s.Groups)))
	}
	if len(list) == 0 {
		return []string{"auto"}
	}
	return list
}

// ReadTests reads a file of tests. The error is configs.Problems where the file could be read, but is not as it should be.
func ReadTests(file string) ([]Test, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read tests: %w", err)
	}
	if info.Size() > maxTable {
		return nil, fmt.Errorf("read tests: %s is larger than 4 MiB", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read tests: %w", err)
	}
	var all struct {
		Tests []Test `yaml:"tests"`
	}
	tree, err := parser.ParseBytes(text, 0)
	if err == nil {
		err = yaml.UnmarshalWithOptions(text, &all, yaml.Strict())
	}
	if placed, ok := errors.AsType[yaml.Error](err); ok {
		problem := configs.Problem{File: file, Message: placed.GetMessage()}
		if t := placed.GetToken(); t != nil && t.Position != nil {
			problem.Line, problem.Column = t.Position.Line, t.Position.Column
		}
		return nil, configs.Problems{problem}
	} else if err != nil {
		return nil, configs.Problems{{File: file, Message: err.Error()}}
	}
	for i := range all.Tests {
		t := &all.Tests[i]
		t.File = file
		if path, err := yaml.PathString(fmt.Sprintf("$.tests[%d].expect", i)); err == nil {
			if node, err := path.FilterFile(tree); err == nil && node != nil {
				t.Line = node.GetToken().Position.Line
			}
		}
	}
	if len(all.Tests) == 0 {
		return nil, configs.Problems{{File: file, Message: "there are no tests in it; write them under tests"}}
	}
	return all.Tests, nil
}

// Run asks the policies. The error says what makes no sense about the test.
func (t Test) Run(c *configs.Config, policies []*Policy) (Result, error) {
	ask, err := t.ask(c)
	if err != nil {
		return Result{}, configs.Problems{{File: t.File, Line: t.Line, Column: 1, Message: fmt.Sprintf("test %q: %s", t.Name, err)}}
	}
	r := Result{Test: t, Explanation: Decide(policies, ask), Got: "none"}
	switch e := r.Explanation; {
	case len(e.Forbidden) > 0:
		r.Got = "forbid " + e.Forbidden[0].Name
		for _, f := range e.Forbidden { // any of them
			if t.Expect == "forbid "+f.Name && len(t.Stages) == 0 {
				r.Got = t.Expect
			}
		}
	case e.Winner != nil:
		r.Got = "permit " + e.Winner.Name
		if len(t.Stages) > 0 {
			r.Got += afterwards(approvals(e.Winner.Policy))
		}
	}
	return r, nil
}

// ask is what a test asks.
func (t Test) ask(c *configs.Config) (Ask, error) {
	ask := Ask{Reason: testReason, Ticket: t.Ticket}
	if t.Reason != nil {
		ask.Reason = *t.Reason
	}
	if kind, name, _ := strings.Cut(t.Expect, " "); t.Expect != "none" && (kind != "permit" && kind != "forbid" || name == "") {
		return ask, fmt.Errorf("expect is %q; write permit POLICY, forbid POLICY or none", t.Expect)
	} else if name != "" && !hasPolicy(c, name) {
		return ask, fmt.Errorf("it expects policy %q, which there is none of", name)
	}
	var err error
	if ask.Target, ask.Account, err = Find(c, t.Account); err != nil {
		return ask, err
	}
	if t.Duration != "" {
		d, err := configs.ParseDuration(t.Duration)
		if err != nil {
			return ask, err
		}
		ask.Duration = d.D()
	}
	at := t.Time
	if at == "" {
		at = testTime
	}
	if ask.Time, err = time.Parse(time.RFC3339, at); err != nil {
		return ask, fmt.Errorf("time is %q; write it like %s", at, testTime)
	}
	if t.Source != "" {
		if ask.Source, err = netip.ParseAddr(t.Source); err != nil {
			return ask, fmt.Errorf("source is %q; write an address like 10.1.2.3", t.Source)
		}
	}
	if t.Start != "" {
		if ask.Start, err = time.Parse(time.RFC3339, t.Start); err != nil {
			return ask, fmt.Errorf("start is %q; write it like %s", t.Start, testTime)
		}
	}
	ask.BreakGlass = t.BreakGlass
	if ask.Evidence, err = t.evidence(c); err != nil {
		return ask, err
	}
	i := t.Identity
	ask.Identity = authn.Identity{
		Kind: authn.Kind(i.Kind), Issuer: i.Issuer, Subject: i.Subject, Email: i.Email, Groups: i.Groups, SignedIn: ask.Time, ACR: i.ACR, AMR: i.AMR, Claims: i.Claims,
	}
	switch ask.Identity.Kind {
	case "":
		ask.Identity.Kind = authn.Human
	case authn.Human, authn.Workload:
	default:
		return ask, fmt.Errorf("identity.kind is %q; it is %s or %s", i.Kind, authn.Human, authn.Workload)
	}
	if i.Age != "" {
		age, err := configs.ParseDuration(i.Age)
		if err != nil {
			return ask, err
		}
		ask.Identity.SignedIn = ask.Time.Add(-age.D())
	}
	return ask, nil
}

// evidence is what a test says of it, as it would have been read.
func (t Test) evidence(c *configs.Config) (map[string]evidence.Fact, error) {
	facts := map[string]evidence.Fact{}
	for _, e := range c.Evidence {
		facts[e.Name] = evidence.Fact{Missing: "the test does not say that it is there"}
	}
	for name, data := range t.Evidence {
		if _, known := facts[name]; !known {
			return nil, fmt.Errorf("it names evidence %q, which there is none of", name)
		}
		if data == nil {
			continue
		}
		// As JSON, which evidence is read as: conditions meet the same types.
		text, err := json.Marshal(data)
		if err != nil {
			return nil, fmt.Errorf("evidence %s: %w", name, err)
		}
		var read map[string]any
		if err := json.Unmarshal(text, &read); err != nil {
			return nil, fmt.Errorf("evidence %s: %w", name, err)
		}
		facts[name] = evidence.Fact{Data: read}
	}
	return facts, nil
}

func hasPolicy(c *configs.Config, name string) bool {
	for _, p := range c.Policies {
		if p.Name == name {
			return true
		}
	}
	return false
}

// Find finds ACCOUNT@TARGET in a configuration.
func Find(c *configs.Config, text string) (configs.Target, string, error) {
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return configs.Target{}, "", fmt.Errorf("%q is not ACCOUNT@TARGET", text)
	}
	for _, t := range c.Targets {
		if t.Name != text[at+1:] {
			continue
		}
		for _, a := range t.Accounts {
			if a.Name == text[:at] {
				return t, a.Name, nil
			}
		}
		return t, "", fmt.Errorf("target %s has no account %q", t.Name, text[:at])
	}
	return configs.Target{}, "", fmt.Errorf("there is no target %q", text[at+1:])
}
