package grant

import (
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
)

// What policies give and nobody has used, and groups that lack people, are told to whoever writes them; what is used is not.
func TestLintUsed(t *testing.T) {
	w := with(t, func(c *configs.Config) {
		c.Policies[2].Approve.Groups, c.Policies[2].Approve.Count = []string{"leads"}, 2
		c.Policies = append(c.Policies, configs.Policy{Name: "glass", BreakGlass: true, Groups: []string{"engineers"}, Accounts: []string{"owner@orders"},
			MaxDuration: minutes(30), Approve: configs.Approve{Auto: true}, Review: configs.Review{Groups: []string{"auditors"}, Within: minutes(60)}},
			configs.Policy{Name: "frozen", Effect: configs.Forbid, Groups: []string{"contractors"}, Accounts: []string{"*@*"}, When: "account == 'nobody'"})
		c.Workloads = []configs.Workload{{Name: "ci", Groups: []string{"deployers"}}}
	})
	ctx := t.Context()
	lint := func(since time.Duration, people ...authn.Identity) string {
		t.Helper()
		now := w.clocks.now()
		found, err := LintUsed(ctx, w.config, w.db.Read(), people, now.Add(-since), now)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(found.Error(), "\n", "; ") + ";"
	}
	people := []authn.Identity{alice, bob, dave, carol}
	if got := lint(time.Hour, people...); strings.Contains(got, "since") || strings.Contains(got, "policy write") {
		t.Errorf("of a gateway that has given nothing yet: %s", got)
	}
	w.approved(alice, "ro", "orders")
	l := w.lease(alice, "ro", "orders")
	w.pass(10 * time.Minute)
	l.Return()
	if _, err := w.Release(ctx, alice, l.Grant.ID); err != nil {
		t.Fatal(err)
	}
	w.approved(alice, "app", "orders")
	w.lease(alice, "app", "orders")
	w.pass(31 * time.Minute) // it asked for half an hour, of at most one

	got := lint(24*time.Hour, people...)
	for _, want := range []string{
		"policy read gives up to 8h; the longest of 1 grants since 2026-11-24 gave access for 10m",
		"policy read was not used by members of deployers since 2026-11-24",
		"policy write gives up to 1h; the longest of 1 grants since 2026-11-24 gave access for 30m",
		"policy ship has given nobody access since 2026-11-24",
		"policy glass is reviewed by members of auditors, and nobody is known in auditors",
		"policy frozen is for members of contractors, and nobody is known in contractors",
	} {
		if !strings.Contains(got, want+";") {
			t.Errorf("it does not say %q: %s", want, got)
		}
	}
	for _, no := range []string{"policy write was not used", "policy write gives 1", "policy glass has given", "nobody is known in deployers", "permissions", "policy ship asks"} {
		if strings.Contains(got, no) {
			t.Errorf("it says %q: %s", no, got)
		}
	}
	// Of accounts those that were not used; and two identities of one person are one of those who have to approve.
	w.config.Policies[0].Accounts = []string{"app@orders", "owner@orders", "deploy@web-1"}
	partner := dave
	partner.Issuer, partner.Subject = "https://partner.example", "4711"
	w.config.Approvals.People = []configs.LinkedPerson{{Issuer: dave.Issuer, Subject: dave.Subject, Also: []string{partner.Key()}}}
	got = lint(24*time.Hour, alice, dave, partner)
	for _, want := range []string{
		"policy write gives 3 accounts, of which 2 were not used since 2026-11-24: owner@orders, deploy@web-1",
		"policy ship asks for 2 approvals by leads, of whom 1 are known",
		"permissions grants.revoke, grants.list are for members of security, and nobody is known in security",
	} {
		if !strings.Contains(got, want+";") {
			t.Errorf("it does not say %q: %s", want, got)
		}
	}
	// What was asked for before is not looked at.
	w.pass(48 * time.Hour)
	if got = lint(time.Hour, people...); !strings.Contains(got, "policy write has given nobody access since 2026-11-26;") {
		t.Error(got)
	}
}
