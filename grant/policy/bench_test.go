package policy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/configs"
)

// A decision over a thousand policies that all speak of the account, each with a condition, of which the last admits.
func BenchmarkDecide(b *testing.B) {
	for _, tt := range []struct{ name, when string }{
		{"plain", `request.ticket == "OPS-%d" && target.labels.env == "prod"`},
		{"compared", `request.ticket.endsWith("-%d") && target.labels.env == "prod"`},
		{"matched", `request.ticket.matches("^OPS-%d$") && target.labels.env == "prod"`},
		{"calculated", `request.ticket.split("-")[1] == "%d" && target.labels.env == "prod"`},
		{"each its own", `request.ticket.replace("OPS-%[1]d", "it") == "it" && target.labels.env == "prod"`}, // nothing that two would share
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

// What is looked at without evaluating says no only where evaluating does not say yes. Each part stands in two conditions, so that
// what they calculate is shared.
func TestGuardsAgreeWithConditions(t *testing.T) {
	parts := []string{
		`request.ticket == "OPS-1"`, `"OPS-1" == request.ticket`, `target.labels.env == "prod"`, `target.labels.zone == "a"`, `request.ticket.startsWith("OPS-")`,
		`"eng" in identity.groups`, `"lead" in identity.groups`, `account == "app"`, `request.ticket != "OPS-1"`, `!(account == "app")`, `identity.email == "x"`,
		`(account == "app" || account == "ro")`, `(account == "x" || target.labels.zone == "a")`, `(target.labels.zone == "b" || "lead" in identity.groups)`,
		`account in ["ro", "x"]`, `request.ticket.contains("S-1")`, `"OPS-1-x".startsWith(request.ticket)`, `target.labels.env != "prod"`, `target.labels.zone.endsWith("a")`,
		`identity.groups == ["eng"]`, `target.labels.zone in ["b"]`, `"" in identity.groups`, `request.duration < duration("30m")`, `request.ticket.endsWith("1")`, `has(target.labels.env)`, `target.labels[?"zone"].orValue("b") == "b"`,
		`request.ticket.split("-")[1] == "1"`, `"2" == request.ticket.split("-")[1]`, `request.ticket.split("-")[1] != "1"`, `size(request.ticket) < 5`, `5 < request.ticket.size()`,
		`request.ticket.size() >= 6`, `request.time.getHours() == 12`, `request.time < timestamp("2026-11-24T11:00:00Z")`, `duration("2h") <= identity.age`, `identity.age > duration("10h")`,
		`cidr("10.0.0.0/8").containsIP(source.address)`, `cidr("192.168.0.0/16").containsIP(source.address)`, `request.ticket.matches("^OPS-[0-9]$")`, `matches("OPS-1", request.ticket)`,
		`matches(request.ticket, "S-2")`, `(request.ticket.split("-")[1] == "2" || account == "ro")`, `identity.groups.exists(g, g.startsWith("l"))`, `!(request.ticket.split("-")[1] == "1")`,
		`request.ticket.split("-")[1].matches("1")`, `request.ticket.split("-")[1] in ["1", "x"]`, `request.duration == duration("0s")`, `request.ticket.lowerAscii() == "ops-1"`,
		`int(request.ticket.split("-")[1]) > 1`, `1 >= int(request.ticket.split("-")[1])`, `identity.age >= duration("2h")`, `duration("2h") > identity.age`, `double(request.ticket.size()) < 5.0`, `request.ticket.size() < 4.5`, `identity.groups.size() == 1`, `target.labels == {"env": "prod"}`,
	}
	excluded, calculates := 0, false
	rapid.Check(t, func(t *rapid.T) {
		when := rapid.SampledFrom(parts).Draw(t, "a")
		for range rapid.IntRange(0, 2).Draw(t, "more") {
			when += " && " + rapid.SampledFrom(parts).Draw(t, "b")
		}
		shared := calculations{}
		c, faults := shared.parse(when, nil)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for _, g := range c.plain {
			g.counted() // as by another condition
			for _, of := range append([]guard{g}, g.any...) {
				calculates = calculates || of.calculation != nil
			}
		}
		ask := asked()
		ask.Source = rapid.SampledFrom([]netip.Addr{{}, ask.Source}).Draw(t, "source")
		ask.Account = rapid.SampledFrom([]string{"app", "ro", "x"}).Draw(t, "account")
		ask.Ticket = rapid.SampledFrom([]string{"", "OPS-1", "OPS-2", "X-1", "OPS-12"}).Draw(t, "ticket")
		ask.Identity.SignedIn = ask.Time.Add(-rapid.SampledFrom([]time.Duration{time.Hour, 2 * time.Hour, 11 * time.Hour}).Draw(t, "age"))
		ask.Identity.Groups = rapid.SampledFrom([][]string{nil, {"eng"}, {"lead", "eng"}}).Draw(t, "groups")
		ask.Target.Labels = rapid.SampledFrom([]map[string]string{nil, {"env": "prod"}, {"env": "test", "zone": "a"}}).Draw(t, "labels")
		in := input(ask, 0)
		holds, err := c.whole.holds(in)
		if quick, failed := c.quick(in); quick != holds || (failed == nil) != (err == nil) {
			t.Fatalf("%s: %v, %v without limits, %v, %v with", when, quick, failed, holds, err)
		}
		if c.excluded(in) {
			excluded++
			if holds || err != nil {
				t.Fatalf("%s is excluded, but evaluated it is %v, %v", when, holds, err)
			}
		}
	})
	if excluded == 0 || !calculates {
		t.Errorf("%d were excluded, by calculations: %t", excluded, calculates)
	}
}

// Decide takes short cuts; what it decides is what going through the policies one by one, by the rules alone, does.
func TestDecideIsWhatTheRulesSay(t *testing.T) {
	groups, labels := []string{"eng", "lead", "ops"}, []map[string]string{nil, {"env": "prod"}, {"env": "test", "zone": "a"}}
	conditions := []string{
		"", "", "", "", // often none, so that something is given in every run
		`account == "app"`, `target.labels.env == "prod"`, `target.labels.zone == "a"`, `request.ticket.endsWith("1")`, `"lead" in identity.groups`,
		`request.duration <= duration("30m")`, `request.ticket.split("-")[1] == "1"`, `cidr("10.0.0.0/8").containsIP(source.address)`,
		`request.ticket.split("-")[1] == "2" && request.duration <= duration("30m")`, `int(request.ticket.split("-")[1]) < 2`, `request.ticket.matches("-2$")`,
		`request.ticket == "OPS-1" || target.labels.zone == "b"`, `!(account in ["ro"]) && request.time.getHours() < 12`, `request.break_glass`,
	}
	outcomes := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		var written []configs.Policy
		for i := range rapid.IntRange(1, 12).Draw(t, "policies") {
			p := configs.Policy{
				Name: fmt.Sprint("p", i), Groups: rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 2, rapid.ID[string]).Draw(t, "of"),
				Accounts: []string{rapid.SampledFrom([]string{"*@*", "app@*", "ro@orders", "*@web-1"}).Draw(t, "accounts")},
				Labels:   rapid.SampledFrom(labels).Draw(t, "labels"), When: rapid.SampledFrom(conditions).Draw(t, "when"),
			}
			if rapid.IntRange(0, 9).Draw(t, "effect") == 0 {
				p.Effect = configs.Forbid
			} else {
				p.MaxDuration, p.Approve, p.BreakGlass = hours(rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "hours")), configs.Approve{Auto: true}, rapid.IntRange(0, 9).Draw(t, "glass") == 0
				p.ReasonLength = rapid.SampledFrom([]int{0, 4, 400}).Draw(t, "reason")
			}
			written = append(written, p)
		}
		policies := compiled(t, written...)
		ask := asked()
		ask.Account = rapid.SampledFrom([]string{"app", "ro"}).Draw(t, "account")
		ask.Target.Labels = rapid.SampledFrom(labels).Draw(t, "target")
		ask.Identity.Groups = rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 3, rapid.ID[string]).Draw(t, "groups")
		ask.Ticket = rapid.SampledFrom([]string{"", "OPS-1", "OPS-2"}).Draw(t, "ticket")
		ask.Duration = rapid.SampledFrom([]time.Duration{0, 20 * time.Minute, 90 * time.Minute}).Draw(t, "duration")
		ask.BreakGlass = rapid.IntRange(0, 4).Draw(t, "glass") == 0

		winner, length := "", time.Duration(0)
		for _, p := range policies {
			if len(p.Misses(ask)) == 0 {
				winner, length = p.Name, p.length(ask.Duration)
				break
			}
		}
		given := ask
		if winner != "" {
			given.Duration = length
		}
		forbidden := 0
		for _, p := range policies {
			if !p.Forbids() || !p.Covers(ask.Target, ask.Account) || len(p.Groups) > 0 && !InAny(ask.Identity.Groups, p.Groups) {
				continue
			}
			if p.condition != nil {
				if holds, err := p.condition.whole.holds(input(given, given.Duration)); !holds && err == nil {
					continue
				}
			}
			forbidden++
		}
		if forbidden > 0 {
			winner, length = "", 0
		}
		e := Decide(policies, ask)
		got := ""
		if e.Winner != nil {
			got = e.Winner.Name
		}
		if got != winner || e.Duration != length || len(e.Forbidden) != forbidden {
			t.Fatalf("decided for %q of %s, %d forbid; by the rules it is %q of %s, %d forbid", got, e.Duration, len(e.Forbidden), winner, length, forbidden)
		}
		switch {
		case forbidden > 0:
			outcomes["forbidden"]++
		case winner != "":
			outcomes["given"]++
		default:
			outcomes["nothing"]++
		}
	})
	if len(outcomes) < 2 { // which of them are rare is up to chance
		t.Errorf("only %v came up", outcomes)
	}
}
