package policy

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"sallyport/configs"
)

// A decision over a thousand policies that all speak of the account, each with a condition, of which the last admits.
func BenchmarkDecide(b *testing.B) {
	for _, tt := range []struct{ name, when string }{
		{"plain", `request.ticket == "OPS-%d" && target.labels.env == "prod"`},
		{"calculated", `request.ticket.endsWith("-%d") && target.labels.env == "prod"`},
	} {
		b.Run(tt.name, func(b *testing.B) {
			var policies []configs.Policy
			for i := range 1000 {
				policies = append(policies, configs.Policy{
					Name: fmt.Sprint("p", i), Groups: []string{"eng"}, Accounts: []string{"*@*"}, MaxDuration: hours(1), Approve: configs.Approve{Auto: true},
					When: fmt.Sprintf(tt.when, i),
				})
			}
			ready := compiled(b, policies...)
			ask := asked()
			ask.Ticket = "OPS-999"
			for b.Loop() {
				if e := Decide(ready, ask); e.Winner == nil || e.Winner.Name != "p999" {
					b.Fatal(e.Detail())
				}
			}
		})
	}
}

// What is looked at without evaluating says no only where evaluating does not say yes.
func TestGuardsAgreeWithConditions(t *testing.T) {
	parts := []string{
		`request.ticket == "OPS-1"`, `"OPS-1" == request.ticket`, `target.labels.env == "prod"`, `target.labels.zone == "a"`, `request.ticket.startsWith("OPS-")`,
		`"eng" in identity.groups`, `"lead" in identity.groups`, `account == "app"`, `request.ticket != "OPS-1"`, `!(account == "app")`, `identity.email == "x"`,
		`(account == "app" || account == "ro")`, `request.ticket.endsWith("1")`, `has(target.labels.env)`, `target.labels[?"zone"].orValue("b") == "b"`,
	}
	excluded := 0
	rapid.Check(t, func(t *rapid.T) {
		when := rapid.SampledFrom(parts).Draw(t, "a")
		for range rapid.IntRange(0, 2).Draw(t, "more") {
			when += " && " + rapid.SampledFrom(parts).Draw(t, "b")
		}
		c, faults := parse(when, nil)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		ask := asked()
		ask.Account = rapid.SampledFrom([]string{"app", "ro", "x"}).Draw(t, "account")
		ask.Ticket = rapid.SampledFrom([]string{"", "OPS-1", "OPS-2", "X-1"}).Draw(t, "ticket")
		ask.Identity.Groups = rapid.SampledFrom([][]string{nil, {"eng"}, {"lead", "eng"}}).Draw(t, "groups")
		ask.Target.Labels = rapid.SampledFrom([]map[string]string{nil, {"env": "prod"}, {"env": "test", "zone": "a"}}).Draw(t, "labels")
		in := input(ask, 0)
		holds, err := c.whole.holds(in)
		if quick, failed := c.quick(in, fits(ask)); quick != holds || (failed == nil) != (err == nil) {
			t.Fatalf("%s: %v, %v without limits, %v, %v with", when, quick, failed, holds, err)
		}
		if c.excluded(in) {
			excluded++
			if holds || err != nil {
				t.Fatalf("%s is excluded, but evaluated it is %v, %v", when, holds, err)
			}
		}
	})
	if excluded == 0 {
		t.Error("nothing was ever excluded")
	}
}
