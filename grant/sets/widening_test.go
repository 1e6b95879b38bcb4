package sets

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/policy"
)

func minutes(n int) configs.Duration { return configs.Duration(time.Duration(n) * time.Minute) }

// Where a change is not found to widen, nobody is given anything by the new policies that the old ones would not have given for
// as many votes, by no other people, with no fewer limits.
func TestWhatDoesNotWidenGivesNobodyMore(t *testing.T) {
	groups, accounts := []string{"eng", "ops", "lead"}, []string{"app@orders", "ro@orders", "app@*", "*@web-1", "ro@web-1"}
	some := func(t *rapid.T, list []string, least int, label string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(list), least, 2, rapid.ID[string]).Draw(t, label)
	}
	narrow, narrowAndDifferent := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		old := configs.Config{Targets: []configs.Target{
			{Name: "orders", Labels: map[string]string{"env": "prod"}, Accounts: []configs.Account{{Name: "app"}, {Name: "ro"}}},
			{Name: "web-1", Labels: map[string]string{"env": "test"}, Accounts: []configs.Account{{Name: "app"}, {Name: "ro"}}},
		}}
		old.PolicyChanges.Confirm = true
		for i := range 2 {
			old.Roles = append(old.Roles, configs.Role{Name: fmt.Sprint("r", i), Accounts: some(t, accounts, 1, "role"), Limits: configs.RoleLimits{ReadOnly: rapid.Bool().Draw(t, "ro")}})
		}
		one := func(i int) configs.Policy {
			p := configs.Policy{Name: fmt.Sprint("p", i), Groups: some(t, groups, 1, "groups")}
			if rapid.IntRange(0, 4).Draw(t, "roles") == 0 {
				p.Roles = some(t, []string{"r0", "r1"}, 1, "of")
			} else {
				p.Accounts = some(t, accounts, 1, "accounts")
			}
			if rapid.IntRange(0, 4).Draw(t, "forbid") == 0 {
				p.Effect, p.Roles, p.Accounts = configs.Forbid, nil, some(t, accounts, 1, "forbidden")
				return p
			}
			p.MaxDuration = minutes(rapid.SampledFrom([]int{30, 60}).Draw(t, "long"))
			p.When = rapid.SampledFrom([]string{"", `request.ticket != ""`, `account == "app"`}).Draw(t, "when")
			p.ReasonLength = rapid.SampledFrom([]int{0, 5, 50}).Draw(t, "reason")
			p.BreakGlass = rapid.IntRange(0, 9).Draw(t, "glass") == 0
			if rapid.Bool().Draw(t, "auto") {
				p.Approve.Auto = true
			} else {
				p.Approve.Groups, p.Approve.Count = some(t, groups, 1, "approve"), rapid.IntRange(1, 2).Draw(t, "count")
			}
			return p
		}
		for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
			old.Policies = append(old.Policies, one(i))
		}
		now := old
		now.Policies, now.Roles = slices.Clone(old.Policies), slices.Clone(old.Roles)
		for range rapid.IntRange(1, 2).Draw(t, "changes") {
			i := rapid.IntRange(0, len(now.Policies)-1).Draw(t, "which")
			p := now.Policies[i]
			switch rapid.IntRange(0, 12).Draw(t, "change") {
			case 0:
				now.Policies[i] = one(len(now.Policies))
				now.Policies[i].Name = p.Name
			case 1:
				if len(now.Policies) > 1 {
					now.Policies = slices.Delete(now.Policies, i, i+1)
				}
			case 2:
				p.Groups = p.Groups[:1]
			case 3:
				p.MaxDuration = minutes(30)
			case 4:
				p.ReasonLength = 50
			case 5:
				p.Approve.Count++
			case 6:
				if p.When == "" {
					p.When = `account == "ro"`
				}
			case 7:
				if len(p.Accounts) > 1 {
					p.Accounts = p.Accounts[1:]
				}
			case 8:
				if len(p.Roles) > 1 {
					p.Roles = p.Roles[1:]
				}
			case 9:
				now.Roles[0].Limits.ReadOnly = rapid.Bool().Draw(t, "ro")
			case 10:
				now.Roles[1].Accounts = now.Roles[1].Accounts[:1]
			case 11:
				slices.Reverse(now.Policies)
			case 12:
				forbid := configs.Policy{Name: "x", Effect: configs.Forbid, Groups: some(t, groups, 1, "g"), Accounts: some(t, accounts, 1, "a")}
				if !slices.ContainsFunc(now.Policies, func(q configs.Policy) bool { return q.Name == "x" }) {
					now.Policies = slices.Insert(now.Policies, i, forbid)
				}
			}
			if j := slices.IndexFunc(now.Policies, func(q configs.Policy) bool { return q.Name == p.Name }); j >= 0 && !same(now.Policies[j], p) && now.Policies[j].Name == p.Name {
				if slices.ContainsFunc(old.Policies, func(q configs.Policy) bool { return same(q, now.Policies[j]) }) {
					now.Policies[j] = p
				}
			}
		}
		oldBody, _, err := Of(&old)
		if err != nil {
			t.Fatal(err)
		}
		body, _, err := Of(&now)
		if err != nil {
			t.Fatal(err)
		}
		var a, b Set
		if err := json.Unmarshal([]byte(oldBody), &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(body), &b); err != nil {
			t.Fatal(err)
		}
		if len(widening(a, b)) > 0 {
			return
		}
		narrow++
		if oldBody != body {
			narrowAndDifferent++
		}
		before, err := policy.Compile(&old)
		if err != nil {
			t.Skip(err)
		}
		after, err := policy.Compile(&now)
		if err != nil {
			t.Skip(err)
		}
		for n := range 1 << 3 {
			who := authn.Identity{Issuer: "i", Subject: "s", Kind: authn.Human}
			for i, g := range groups {
				if n>>i&1 == 1 {
					who.Groups = append(who.Groups, g)
				}
			}
			for _, target := range old.Targets {
				for _, account := range []string{"app", "ro"} {
					for _, length := range []time.Duration{20 * time.Minute, 45 * time.Minute} {
						for _, reason := range []string{"x", "because", strings.Repeat("long ", 20)} {
							for _, ticket := range []string{"", "OPS-1"} {
								for _, glass := range []bool{false, true} {
									ask := policy.Ask{Identity: who, Target: target, Account: account, Duration: length, Reason: reason, Ticket: ticket, BreakGlass: glass, Time: time.Unix(0, 0)}
									more := policy.Decide(after, ask)
									if more.Winner == nil {
										continue
									}
									less := policy.Decide(before, ask)
									if less.Winner == nil {
										t.Fatalf("%v was refused, and is given by %s\n%s\n%s", ask, more.Winner.Name, oldBody, body)
									}
									if policy.Needed(more.Winner.Policy) < policy.Needed(less.Winner.Policy) ||
										policy.Needed(less.Winner.Policy) > 0 && !within(more.Winner.Approve.Groups, less.Winner.Approve.Groups) ||
										less.Role.Limits.ReadOnly && !more.Role.Limits.ReadOnly {
										t.Fatalf("%v is given more easily by %s than by %s\n%s\n%s", ask, more.Winner.Name, less.Winner.Name, oldBody, body)
									}
								}
							}
						}
					}
				}
			}
		}
	})
	if narrowAndDifferent == 0 {
		t.Errorf("of %d changes that do not widen, none was one", narrow)
	}
}
