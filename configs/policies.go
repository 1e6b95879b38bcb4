package configs

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// What a policy does to a request that it speaks of.
const (
	Permit = "permit"
	Forbid = "forbid"
)

// Policy says who may be granted what, for how long, and who approves. The first policy that admits a request wins
// whole; none means no. One whose effect is forbid gives nothing and takes precedence over all that permit.
type Policy struct {
	Name string `yaml:"name"`
	// Effect is Permit, which is the default, or Forbid.
	Effect string `yaml:"effect"`
	// Groups are those whose members may ask. A policy that forbids and names none is for everybody.
	Groups []string `yaml:"groups"`
	// Accounts are ACCOUNT@TARGET, where either side may be "*" or end in "*"; Labels further narrows the targets.
	Accounts []string          `yaml:"accounts"`
	Labels   map[string]string `yaml:"labels"`
	// Roles are names of roles, whose accounts it speaks of too, with their limits. Of several that have the account asked for
	// the first counts, before accounts. What forbids names none.
	Roles []string `yaml:"roles"`
	// When is a condition in CEL, over what docs/policies.md lists; empty: always. Whether it is one, the room that
	// evaluates it says (grant.Check).
	When string `yaml:"when"`
	// Hours are when the policy holds, one or more of ParseHours' texts; none: always. A grant ends with them.
	Hours []string `yaml:"hours"`
	// Message is what people are told whom a policy forbids something.
	Message string `yaml:"message"`
	// MaxDuration bounds a grant; DefaultDuration is used when a request names none.
	MaxDuration     Duration `yaml:"max_duration"`
	DefaultDuration Duration `yaml:"default_duration"`
	// MaxTotal is how long a grant may last in all when it is extended; default: max_duration, so that none is.
	MaxTotal Duration `yaml:"max_total"`
	// Idle ends a grant that has had no session for so long, since its last one or since it began; 0: never.
	Idle Duration `yaml:"idle"`
	// ReasonLength is the least number of characters of a reason; default 1.
	ReasonLength int `yaml:"reason_length"`
	// Ticket is a regular expression (RE2) that the whole of a request's ticket must match; empty: none is asked for.
	Ticket string `yaml:"ticket"`
	// Evidence are names of evidence that has to be there when it is asked for, and for as long as a grant lives.
	Evidence []string `yaml:"evidence"`
	// Networks are prefixes (10.0.0.0/8) of addresses to ask and to connect from; none: any.
	Networks []string `yaml:"networks"`
	SignIn   SignIn   `yaml:"sign_in"`
	// Concurrent is how many open grants by this policy one identity may have at a time; 0: any number.
	Concurrent int `yaml:"concurrent"`
	// Ahead is how far in the future a grant may be asked to begin; 0: it begins with its first use.
	Ahead Duration `yaml:"ahead"`
	// BreakGlass makes it a policy of its own kind, for emergencies: nothing but its own kind of request asks for it, it waits
	// for nobody and nothing, is told to everybody, and has to be reviewed after.
	BreakGlass bool   `yaml:"break_glass"`
	Review     Review `yaml:"review"`
	// Approve is required: either auto, or the groups any member of which (but the requester) may approve.
	Approve Approve `yaml:"approve"`
}

// SignIn says how somebody must have proven who they are.
type SignIn struct {
	// MaxAge is how long ago at most, by auth_time where the provider gives one, else by the sign-in here; 0: any time.
	MaxAge Duration `yaml:"max_age"`
	// ACR and AMR are values of those claims, of which the sign-in must have one each; none: any.
	ACR []string `yaml:"acr"`
	AMR []string `yaml:"amr"`
}

// Review says who looks at what was done by break-glass, and how soon.
type Review struct {
	Groups []string `yaml:"groups"`
	Within Duration `yaml:"within"` // default 24h
}

// Approve says who decides.
type Approve struct {
	Auto   bool     `yaml:"auto"`
	Groups []string `yaml:"groups"`
	// Count is how many different people must approve; default 1.
	Count int `yaml:"count"`
	// Stages, instead of groups and count, are approvals one after the other: the first that is not met decides who is asked, and
	// one person's approval counts at one of them only.
	Stages []Stage `yaml:"stages" json:",omitempty"`
	// Within is how long a request waits for a decision; default 24h. Start is how long an approved grant waits to be
	// used first; default 1h.
	Within Duration `yaml:"within"`
	Start  Duration `yaml:"start"`
	// Confirm is empty, or ConfirmSignedIn: approvals count only from people who show that they are signed in, in the console,
	// on the command line or at the API, and not by a click elsewhere.
	Confirm string `yaml:"confirm"`
}

// Stage is one of several approvals that a request needs, one after the other.
type Stage struct {
	Name   string   `yaml:"name"`   // for people; default: its number
	Groups []string `yaml:"groups"` // any member of which may approve
	Count  int      `yaml:"count"`  // how many of them must; default 1
}

// ConfirmSignedIn is the value of Approve.Confirm.
const ConfirmSignedIn = "signed-in"

// Forbids reports whether the policy's effect is to forbid.
func (p Policy) Forbids() bool { return p.Effect == Forbid }

// TicketPattern compiles Ticket so that it matches a whole text or nothing.
func (p Policy) TicketPattern() (*regexp.Regexp, error) {
	if _, err := regexp.Compile(p.Ticket); err != nil { // first alone, so that no bracket of the next line's closes one
		return nil, err
	}
	return regexp.Compile(`^(?:` + p.Ticket + `)$`)
}

func (p *Policy) setDefaults() {
	set(&p.Effect, Permit)
	if p.Forbids() {
		return
	}
	if p.BreakGlass {
		set(&p.Review.Within, Duration(24*time.Hour))
		set(&p.ReasonLength, 20)
	}
	set(&p.DefaultDuration, min(p.MaxDuration, Duration(30*time.Minute)))
	set(&p.MaxTotal, p.MaxDuration)
	set(&p.ReasonLength, 1)
	set(&p.Approve.Within, Duration(24*time.Hour))
	set(&p.Approve.Start, Duration(time.Hour))
	if !p.Approve.Auto && len(p.Approve.Stages) == 0 {
		set(&p.Approve.Count, 1)
	}
	for i := range p.Approve.Stages {
		set(&p.Approve.Stages[i].Name, strconv.Itoa(i+1))
		set(&p.Approve.Stages[i].Count, 1)
	}
}

const (
	maxPattern = 200 // bytes of a ticket's pattern; RE2 takes time in proportion
	maxMessage = 500 // characters
)

func (l *loader) validatePolicies(c *Config) {
	names := map[string]bool{}
	for i, p := range c.Policies {
		where := l.policies[i]
		at := func(path, format string, args ...any) { l.at(where.file, where.path+"."+path, format, args...) }
		if !policyName.MatchString(p.Name) {
			at("name", "a policy needs a name of letters, digits, blanks, dots and dashes, at most 63; got %q", p.Name)
		}
		if names[p.Name] {
			at("name", "there is another policy named %q", p.Name)
		}
		names[p.Name] = true
		if len(p.Accounts) == 0 && len(p.Roles) == 0 {
			at("accounts", "accounts is missing; write ACCOUNT@TARGET, where * stands for any, or name roles")
		}
		for j, name := range p.Roles {
			if !slices.ContainsFunc(c.Roles, func(r Role) bool { return r.Name == name }) {
				at(fmt.Sprintf("roles[%d]", j), "there is no role %q; write it under roles", name)
			}
		}
		for j, account := range p.Accounts {
			checkPattern(at, fmt.Sprintf("accounts[%d]", j), account, c.Targets)
		}
		for j, text := range p.Hours {
			if _, err := ParseHours(text); err != nil {
				at(fmt.Sprintf("hours[%d]", j), "%s", err)
			}
		}
		for j, name := range p.Evidence {
			if !slices.ContainsFunc(c.Evidence, func(e Evidence) bool { return e.Name == name }) {
				at(fmt.Sprintf("evidence[%d]", j), "there is no evidence %q; write it under evidence", name)
			}
		}
		for j, text := range p.Networks {
			if _, err := netip.ParsePrefix(text); err != nil {
				at(fmt.Sprintf("networks[%d]", j), "%q is no network; write it like 10.0.0.0/8", text)
			}
		}
		if utf8.RuneCountInString(p.Message) > maxMessage || strings.ContainsFunc(p.Message, func(r rune) bool { return r < ' ' }) {
			at("message", "message is one line of at most %d characters", maxMessage)
		}
		switch p.Effect {
		case Permit:
			validatePermit(at, p)
		case Forbid:
			validateForbid(at, p)
		default:
			at("effect", "effect is %q; it is %s, which is the default, or %s", p.Effect, Permit, Forbid)
		}
	}
}

func validatePermit(at reporter, p Policy) {
	if len(p.Groups) == 0 {
		at("groups", "groups is missing; a policy gives access to groups")
	}
	if p.MaxDuration <= 0 {
		at("max_duration", "max_duration is missing; every grant ends: write it like 1h")
	}
	if p.DefaultDuration > p.MaxDuration {
		at("default_duration", "default_duration (%s) is longer than max_duration (%s)", p.DefaultDuration, p.MaxDuration)
	}
	if p.MaxTotal < p.MaxDuration {
		at("max_total", "max_total (%s) is shorter than max_duration (%s)", p.MaxTotal, p.MaxDuration)
	}
	if p.Concurrent < 0 {
		at("concurrent", "concurrent is %d; leave it out for any number", p.Concurrent)
	}
	validateBreakGlass(at, p)
	if p.Message != "" {
		at("message", "message is for policies with effect: %s", Forbid)
	}
	if len(p.Ticket) > maxPattern {
		at("ticket", "ticket is longer than %d characters", maxPattern)
	} else if _, err := p.TicketPattern(); err != nil {
		at("ticket", "ticket is no regular expression: %s", err)
	}
	switch {
	case p.Approve.Auto && (len(p.Approve.Groups) > 0 || p.Approve.Count > 0 || len(p.Approve.Stages) > 0):
		at("approve", "approve has auto and also groups, count or stages; it is one or the other")
	case len(p.Approve.Stages) > 0 && (len(p.Approve.Groups) > 0 || p.Approve.Count != 0):
		at("approve.stages", "approve has stages and also groups or count; write those of each stage in it, or leave the stages out")
	case !p.Approve.Auto && len(p.Approve.Groups) == 0 && len(p.Approve.Stages) == 0:
		at("approve", "approve is missing; write the groups who may approve, or auto: true")
	case p.Approve.Confirm != "" && p.Approve.Confirm != ConfirmSignedIn:
		at("approve.confirm", "approve.confirm is %q; leave it out, or write %s", p.Approve.Confirm, ConfirmSignedIn)
	case p.Approve.Count < 0 || p.Approve.Count > 10:
		at("approve.count", "approve.count is %d; it is between 1 and 10", p.Approve.Count)
	}
	validateStages(at, p.Approve.Stages)
}

// maxStages bounds the approvals one after the other.
const maxStages = 10

func validateStages(at reporter, stages []Stage) {
	if len(stages) > maxStages {
		at("approve.stages", "there are %d stages; at most %d are possible", len(stages), maxStages)
		return
	}
	names := map[string]bool{}
	for i, s := range stages {
		where := fmt.Sprintf("approve.stages[%d]", i)
		switch {
		case !policyName.MatchString(s.Name):
			at(where+".name", "a stage's name is of letters, digits, blanks, dots and dashes, at most 63; got %q", s.Name)
		case names[s.Name]:
			at(where+".name", "there is another stage named %q", s.Name)
		case len(s.Groups) == 0:
			at(where, "stage %s has no groups; write whose members may approve at it", s.Name)
		case slices.Contains(s.Groups, ""):
			at(where+".groups", "stage %s has a group without a name", s.Name)
		case s.Count < 0 || s.Count > 10:
			at(where+".count", "the count of stage %s is %d; it is between 1 and 10", s.Name, s.Count)
		}
		names[s.Name] = true
	}
}

// maxBreakGlass is how long an emergency may go on without anybody's approval.
const maxBreakGlass = Duration(time.Hour)

func validateBreakGlass(at reporter, p Policy) {
	if !p.BreakGlass {
		if len(p.Review.Groups) > 0 || p.Review.Within != 0 {
			at("review", "review is for policies with break_glass: true")
		}
		return
	}
	if !p.Approve.Auto {
		at("approve", "break_glass waits for nobody; write approve: {auto: true}")
	}
	if len(p.Evidence) > 0 || p.Ticket != "" {
		at("evidence", "break_glass needs no other system to be up: leave out evidence and ticket")
	}
	if p.MaxDuration > maxBreakGlass || p.MaxTotal > p.MaxDuration || p.Ahead > 0 {
		at("max_duration", "break_glass gives at most %s, at once, and is not extended", maxBreakGlass)
	}
	if len(p.Review.Groups) == 0 {
		at("review", "review is missing; name the groups that look at what was done")
	}
}

// validateForbid finds keys that say how something is given: what forbids gives nothing.
func validateForbid(at reporter, p Policy) {
	for key, given := range map[string]bool{
		"max_duration": p.MaxDuration != 0, "default_duration": p.DefaultDuration != 0, "max_total": p.MaxTotal != 0,
		"idle": p.Idle != 0, "roles": len(p.Roles) > 0, "sign_in": p.SignIn.MaxAge != 0 || len(p.SignIn.ACR)+len(p.SignIn.AMR) > 0,
		"networks": len(p.Networks) > 0, "concurrent": p.Concurrent != 0, "ahead": p.Ahead != 0, "break_glass": p.BreakGlass, "review": len(p.Review.Groups) > 0, "reason_length": p.ReasonLength != 0, "ticket": p.Ticket != "",
		"approve": p.Approve.Auto || len(p.Approve.Groups) > 0 || len(p.Approve.Stages) > 0 || p.Approve.Count != 0 || p.Approve.Within != 0 || p.Approve.Start != 0 || p.Approve.Confirm != "",
	} {
		if given {
			at(key, "%s is not for policies with effect: %s, which give nothing", key, Forbid)
		}
	}
}

// PolicyProblem is something wrong with a policy of a configuration that was loaded: with the text at key, from line and
// column of that text on, both from 1.
func (c *Config) PolicyProblem(policy int, key string, line, column int, format string, args ...any) Problem {
	problem := Problem{File: c.File, Message: fmt.Sprintf(format, args...)}
	if policy >= len(c.policyPlaces) {
		return problem
	}
	return problem.in(c.policyPlaces[policy], key, line, column)
}

// in is the problem with its place in the text at key of what was written there.
func (problem Problem) in(where place, key string, line, column int) Problem {
	problem.File = where.file.path
	path, err := yaml.PathString(where.path + "." + key)
	if err != nil {
		return problem
	}
	node, err := path.FilterFile(where.file.tree)
	if err != nil || node == nil {
		return problem
	}
	begin := firstToken(node).Position
	problem.Line, problem.Column = begin.Line, begin.Column
	switch n := node.(type) {
	case *ast.StringNode:
		if quoted := n.Token.Value != n.Token.Origin && strings.ContainsAny(strings.TrimSpace(n.Token.Origin)[:1], `"'`); quoted {
			column++
		}
		if line == 1 {
			problem.Column += column - 1
		}
	case *ast.LiteralNode:
		problem.Line, problem.Column = placeInBlock(n, line, column)
	}
	return problem
}

// placeInBlock finds a place of a block's text in the file. In a folded block the lines of the file have become one.
func placeInBlock(n *ast.LiteralNode, line, column int) (int, int) {
	first := n.Start.Position.Line + 1
	lines := strings.Split(strings.TrimPrefix(n.Value.Token.Origin, "\n"), "\n")
	indent := func(i int) int { return len(lines[i]) - len(strings.TrimLeft(lines[i], " ")) }
	if strings.HasPrefix(n.Start.Value, "|") {
		if line > len(lines) {
			return first, 1
		}
		return first + line - 1, indent(0) + column // of the first line all lines are relieved
	}
	for i := range lines {
		width := utf8.RuneCountInString(strings.TrimSpace(lines[i]))
		if column <= width+1 || i == len(lines)-1 {
			return first + i, indent(i) + column
		}
		column -= width + 1
	}
	return first, 1
}
