package policy

import (
	"strings"
	"time"

	"sallyport/configs"
)

// Covers reports whether the policy speaks of that account on that target: the target has all of its labels, and one of its
// roles has the account or one of its own patterns matches.
func (p *Policy) Covers(target configs.Target, account string) bool {
	_, covers := p.Role(target, account)
	return covers
}

// Role is the role by which the policy gives that account on that target: the first of its roles that has it. Where none
// has but the policy's own patterns match, it is one without name and limits.
func (p *Policy) Role(target configs.Target, account string) (role configs.Role, covers bool) {
	if !Labelled(target.Labels, p.Labels) {
		return role, false
	}
	for _, r := range p.roles {
		if Labelled(target.Labels, r.Labels) && reaches(r.Accounts, target.Name, account) {
			return r, true
		}
	}
	return role, reaches(p.Accounts, target.Name, account)
}

// reaches reports whether one of the ACCOUNT@TARGET patterns matches.
func reaches(patterns []string, target, account string) bool {
	for _, pattern := range patterns {
		at := strings.LastIndexByte(pattern, '@')
		if at > 0 && matches(pattern[:at], account) && matches(pattern[at+1:], target) {
			return true
		}
	}
	return false
}

// Labelled reports whether a target with those labels has all that are wanted.
func Labelled(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// matches compares with a pattern that may begin or end with "*"; a star elsewhere stands for itself, which no name
// contains.
func matches(pattern, name string) bool {
	if pattern == "*" {
		return name != ""
	}
	body, open := strings.CutPrefix(pattern, "*")
	body, ends := strings.CutSuffix(body, "*")
	switch {
	case body == "":
		return false // empty, or stars only
	case open && ends:
		return strings.Contains(name, body)
	case open:
		return strings.HasSuffix(name, body)
	case ends:
		return strings.HasPrefix(name, body)
	}
	return name == body
}

// Or joins names for a sentence: a; a or b; a, b or c.
func Or(names []string) string {
	switch n := len(names); n {
	case 0:
		return "nobody"
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
}

// Short writes a duration as people and the command line do: 30m, 1h30m, 45s.
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
