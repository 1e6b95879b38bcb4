package policy

import (
	"strings"
	"testing"

	"sallyport/configs"
)

func TestLint(t *testing.T) {
	wide := configs.Policy{Name: "wide", Groups: []string{"eng", "ops"}, Accounts: []string{"*@*"}, MaxDuration: hours(8), Approve: configs.Approve{Auto: true}}
	narrow := configs.Policy{Name: "narrow", Groups: []string{"eng"}, Accounts: []string{"app@orders"}, Labels: map[string]string{"env": "prod"}, MaxDuration: hours(1), Approve: configs.Approve{Groups: []string{"leads"}}}
	lint := func(c *configs.Config) string { return Lint(c).Error() }
	if got := lint(&configs.Config{Policies: []configs.Policy{wide, narrow}}); !strings.Contains(got, "policy narrow never wins: policy wide") {
		t.Error(got)
	}
	for name, change := range map[string]func(w, n *configs.Policy){
		"a condition":    func(w, _ *configs.Policy) { w.When = "account == 'app'" },
		"fewer groups":   func(w, _ *configs.Policy) { w.Groups = []string{"ops"} },
		"shorter":        func(w, _ *configs.Policy) { w.MaxDuration = hours(0) },
		"other labels":   func(w, _ *configs.Policy) { w.Labels = map[string]string{"env": "test"} },
		"other accounts": func(w, _ *configs.Policy) { w.Accounts = []string{"ro@*"} },
		"a ticket":       func(w, _ *configs.Policy) { w.Ticket = "X" },
		"another kind":   func(_, n *configs.Policy) { n.BreakGlass = true },
		"forbids":        func(_, n *configs.Policy) { n.Effect = configs.Forbid },
		"later":          func(_, n *configs.Policy) { n.Ahead = hours(1) },
	} {
		w, n := wide, narrow
		change(&w, &n)
		if got := lint(&configs.Config{Policies: []configs.Policy{w, n}}); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := lint(&configs.Config{Policies: []configs.Policy{narrow, wide}}); got != "" {
		t.Error(got)
	}
	// A pattern that is not held to the whole text.
	for when, says := range map[string]string{
		`request.ticket.matches("OPS-[0-9]+")`:                          `matches("OPS-[0-9]+")`,
		`account == "app" && !(request.reason.matches("^INC"))`:         `matches("^INC")`,
		`request.ticket.matches("^OPS-[0-9]+$")`:                        "",
		`["a"].exists(x, identity.groups.exists(g, g.matches("ops-")))`: "",
		`identity.groups.exists(g, g.matches("ops-$"))`:                 `matches("ops-$")`,
		`request.ticket.startsWith("OPS-")`:                             "",
		`account == "app" && identity.email == "ann@example.com"`:       "gives access to a person by name (identity.email)",
		`identity.subject in ["00u1", "00u2"]`:                          "gives access to a person by name (identity.subject)",
		`identity.email.endsWith("@example.com")`:                       "",
		`identity.email != "ann@example.com"`:                           "",
	} {
		loosely := narrow
		loosely.When = when
		if got := lint(&configs.Config{Policies: []configs.Policy{loosely}}); !strings.Contains(got, says) || says == "" && got != "" {
			t.Errorf("%s: %q", when, got)
		}
	}
	if got := lint(&configs.Config{Roles: []configs.Role{{Name: "r"}}, Evidence: []configs.Evidence{{Name: "e"}}}); !strings.Contains(got, "role r") || !strings.Contains(got, "evidence e") {
		t.Error(got)
	}
}
