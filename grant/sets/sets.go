// Package sets is what of a configuration decides who may what, as it is kept by its hash, and what a change of it gives to somebody.
//
// What it promises:
//
//   - A set is all that decisions are made by, and nothing else: no addresses, no credentials. The same set has the same hash.
//   - What can't be seen to take away is taken to widen: a change of which nothing is said to widen gives nobody more than they had,
//     for no fewer approvals.
//   - What is shown of a difference is bounded. A set is known by its hash, whatever is shown of it.
package sets

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"sallyport/configs"
)

// Set is all of a configuration that decides who may what.
type Set struct {
	Policies    []configs.Policy     `json:"policies"`
	Roles       []configs.Role       `json:"roles"`
	Permissions []configs.Permission `json:"permissions"`
	Evidence    []configs.Evidence   `json:"evidence"`
	Targets     []Target             `json:"targets"`
	// People are those who may vote by accounts elsewhere, and who is one person.
	People  []configs.LinkedPerson `json:"people,omitempty"`
	Confirm bool                   `json:"confirm,omitempty"` // policy_changes.confirm
}

// Target is what policies see of one: no addresses, no credentials.
type Target struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	Labels   map[string]string `json:"labels,omitempty"`
	Accounts []string          `json:"accounts"`
}

// seen is what policies see of a target.
func seen(t configs.Target) Target {
	one := Target{Name: t.Name, Kind: t.Kind, Labels: t.Labels}
	for _, a := range t.Accounts {
		one.Accounts = append(one.Accounts, a.Name)
	}
	return one
}

// Of is a configuration's as it is kept, with its hash.
func Of(c *configs.Config) (body string, hash string, err error) {
	s := Set{Policies: c.Policies, Roles: c.Roles, Permissions: c.Permissions, Evidence: c.Evidence, People: c.Approvals.People, Confirm: c.PolicyChanges.Confirm}
	for _, t := range c.Targets {
		s.Targets = append(s.Targets, seen(t))
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(text)
	return string(text), hex.EncodeToString(sum[:]), nil
}

// Read reads a set as Of has written it.
func Read(body string) (s Set, err error) {
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return s, fmt.Errorf("read a set of policies: %w", err)
	}
	return s, nil
}

// In is a configuration with the policies that the set has, on those of its targets that are as they were.
func (old Set) In(c *configs.Config) *configs.Config {
	past := *c
	past.Policies, past.Roles, past.Permissions, past.Evidence, past.PolicyChanges.Confirm = old.Policies, old.Roles, old.Permissions, old.Evidence, old.Confirm
	past.Approvals.People = old.People
	past.Targets = slices.DeleteFunc(slices.Clone(c.Targets), func(t configs.Target) bool {
		return !slices.ContainsFunc(old.Targets, func(o Target) bool { return same(o, seen(t)) })
	})
	return &past
}

// Comparison is what a set would change of another.
type Comparison struct {
	Widens      []string          // what of it may give somebody more; none: nothing
	Changes     map[string]string // what was added, removed, changed, and widens by itself, for the audit log
	Differences []Change          // the same in full, as far as they are kept
}

// Compare says what a set would widen of one that asks for a second person (policy_changes.confirm); nothing where it does not.
func Compare(before, after string) (c Comparison, err error) {
	old, err := Read(before)
	if err != nil || !old.Confirm {
		return c, err
	}
	now, err := Read(after)
	if err != nil {
		return c, err
	}
	if c.Widens = widening(old, now); len(c.Widens) > 0 {
		c.Differences = changes(old, now)
	}
	c.Changes, err = Difference(before, after)
	return c, err
}
