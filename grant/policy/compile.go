package policy

import (
	"net/netip"
	"regexp"
	"slices"
	"time"

	"sallyport/configs"
)

// Policy is one of a configuration's policies, ready to be asked. It never changes, and is safe for concurrent use.
type Policy struct {
	configs.Policy
	hours     []configs.Hours
	ticket    *regexp.Regexp
	condition *condition // nil: always
	roles     []configs.Role
	networks  []netip.Prefix
}

// Compile reads the conditions, hours and patterns of a configuration's policies. The error is configs.Problems: all
// that is wrong with them, with their places in the files.
func Compile(c *configs.Config) ([]*Policy, error) {
	var policies []*Policy
	var problems configs.Problems
	shared := calculations{}
	for i, each := range c.Policies {
		p := &Policy{Policy: each}
		for _, name := range each.Roles {
			at := slices.IndexFunc(c.Roles, func(r configs.Role) bool { return r.Name == name })
			if at < 0 {
				problems = append(problems, c.PolicyProblem(i, "roles", 1, 1, "there is no role %q", name))
				continue
			}
			p.roles = append(p.roles, c.Roles[at])
		}
		for _, text := range each.Hours {
			h, err := configs.ParseHours(text)
			if err != nil {
				problems = append(problems, c.PolicyProblem(i, "hours", 1, 1, "%s", err))
			}
			p.hours = append(p.hours, h)
		}
		for _, text := range each.Networks {
			n, err := netip.ParsePrefix(text)
			if err != nil {
				problems = append(problems, c.PolicyProblem(i, "networks", 1, 1, "%q is no network", text))
			}
			p.networks = append(p.networks, n)
		}
		if each.Ticket != "" {
			var err error
			if p.ticket, err = each.TicketPattern(); err != nil {
				problems = append(problems, c.PolicyProblem(i, "ticket", 1, 1, "ticket is no regular expression: %s", err))
			}
		}
		if each.When != "" {
			var faults []fault
			p.condition, faults = shared.parse(each.When, each.Evidence)
			for _, f := range faults {
				problems = append(problems, c.PolicyProblem(i, "when", f.line, f.column, "policy %s: when: %s", each.Name, f.text))
			}
		}
		policies = append(policies, p)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	for _, p := range policies {
		if p.condition != nil {
			p.condition.plain = slices.DeleteFunc(p.condition.plain, func(g guard) bool { return !g.cheap() })
		}
	}
	return policies, nil
}

// Open says whether a policy holds at a time by its hours, and until when, which is zero where it has none; if it does
// not, when it next will.
func (p *Policy) Open(at time.Time) (open bool, change time.Time) {
	if len(p.hours) == 0 {
		return true, time.Time{}
	}
	var next time.Time
	for _, h := range p.hours {
		switch now, t := h.Open(at); {
		case now && (!open || t.After(change)):
			open, change = true, t
		case !now && !t.IsZero() && (next.IsZero() || t.Before(next)):
			next = t
		}
	}
	if open {
		return true, change
	}
	return false, next
}
