package grant

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/evidence"
	"sallyport/grant/policy"
	"sallyport/grant/sets"
	"sallyport/internal/refusal"
)

// The table in docs/policies.md names tests for each invariant, and they are there.
func TestInvariantsAreNamed(t *testing.T) {
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, where := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go", "../configs/*_test.go", "../session/*_test.go", "../test/*/*_test.go", "../recorder/*_test.go", "../protocols/*/*/*_test.go"} {
		files, err := filepath.Glob(where)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			source, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(source)
		}
	}
	rows := regexp.MustCompile(`(?m)^\| (I\d+) \|.*$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) != 20 {
		t.Errorf("the table has %d invariants", len(rows))
	}
	for _, row := range rows {
		named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(row[0], -1)
		if len(named) == 0 && !strings.Contains(row[0], "not yet") {
			t.Errorf("%s has no test", row[1])
		}
		for _, n := range named {
			if !strings.Contains(code.String(), "func "+n[1]+"(t ") {
				t.Errorf("%s names %s, which is no test", row[1], n[1])
			}
		}
	}
}

// Ending one grant never touches another, not even the next of the same person for the same account.
func TestI7EndingOneGrantTouchesNoOther(t *testing.T) {
	w := newWorld(t)
	mine, his := w.approved(alice, "ro", "orders"), w.approved(dave, "ro", "orders")
	other := w.approved(alice, "app", "orders")
	first, second, third := w.lease(alice, "ro", "orders"), w.lease(dave, "ro", "orders"), w.lease(alice, "app", "orders")
	if _, err := w.Release(t.Context(), alice, mine.ID); err != nil {
		t.Fatal(err)
	}
	again := w.approved(alice, "ro", "orders") // back to back, by the same clock
	next := w.lease(alice, "ro", "orders")
	waitEnded(t, first)
	w.pass(time.Second)
	for _, l := range []*Lease{second, third, next} {
		if err := l.Live(); err != nil {
			t.Error(err)
		}
	}
	for _, g := range []Grant{his, other, again} {
		w.state(g.ID, Active, "")
	}
	if _, err := w.Revoke(t.Context(), carol, mine.ID, "late"); !refusal.Is(err, refusal.Conflict) { // a late word on the first
		t.Errorf("%v", err)
	}
	w.state(again.ID, Active, "")
}

// What a grant was decided by is kept: the set of policies, and all that they were asked with. Asking them again gives the same
// answer, after whatever has happened to the configuration.
func TestI11DecisionsCanBeWorkedOutAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "duty.yaml")
	if err := os.WriteFile(file, []byte("subjects: [sub-alice]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := hanging(t, configs.Evidence{Name: "oncall", Kind: configs.KindOnCall, File: file}, func(c *configs.Config) {
		c.Policies[1].When = `identity.subject in evidence.oncall.subjects && request.ticket.startsWith("OPS-")`
	})
	g, err := read(w, "OPS-7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
		t.Fatal(err)
	}
	w.config = example()
	w.config.Policies = w.config.Policies[:1]
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	w.restart()
	g = w.row(g.ID)
	var body []byte
	if err := w.db.Read().QueryRowContext(t.Context(), `SELECT body FROM policy_sets WHERE hash = ?`, g.Revision).Scan(&body); err != nil {
		t.Fatal(err)
	}
	var kept sets.Set
	if err := json.Unmarshal(body, &kept); err != nil {
		t.Fatal(err)
	}
	policies, err := policy.Compile(&configs.Config{Policies: kept.Policies, Roles: kept.Roles, Evidence: kept.Evidence})
	if err != nil {
		t.Fatal(err)
	}
	ask := policy.Ask{Identity: g.Identity, Account: g.Account, Duration: g.Duration, Reason: g.Reason, Ticket: g.Ticket, Time: g.Requested, Source: g.Source, Start: g.Start, Evidence: map[string]evidence.Fact{}}
	for _, one := range kept.Targets {
		if one.Name == g.Target {
			ask.Target = configs.Target{Name: one.Name, Kind: one.Kind, Labels: one.Labels}
		}
	}
	for name, data := range g.Terms.Evidence {
		ask.Evidence[name] = evidence.Fact{Data: data}
	}
	e := policy.Decide(policies, ask)
	if e.Winner == nil || e.Winner.Name != g.Policy || e.Duration != g.Duration || policy.Needed(e.Winner.Policy) != g.Needed {
		t.Errorf("%+v: %s", e, e.Detail())
	}
	ask.Ticket = "WEB-1" // and it is really asked
	if e := policy.Decide(policies, ask); e.Winner != nil {
		t.Errorf("another request is permitted too, by %s", e.Winner.Name)
	}
}

// Denying, revoking, giving back and taking a vote back work where approving does not: the clock is wrong, or the policy gone.
func TestI18TakingAwayWorksWhenGivingDoesNot(t *testing.T) {
	for name, breaks := range map[string]func(*world){
		"the clock is behind": func(w *world) { w.clocks.set(-time.Hour) },
		"the policy is gone": func(w *world) {
			c := example()
			c.Policies = c.Policies[3:]
			rules, err := index(c, w.clocks.now, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			w.rules.Store(rules) // as while a reload has not ended them yet
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pending, active, approved := w.request(alice, "app", "orders"), w.approved(alice, "ro", "orders"), w.approved(dave, "ro", "orders")
			voted := w.request(alice, "deploy", "web-1")
			for _, who := range []authn.Identity{bob, dave} {
				if _, err := w.Approve(t.Context(), who, voted.ID, ""); err != nil {
					t.Fatal(err)
				}
			}
			l := w.lease(alice, "ro", "orders")
			breaks(w)
			if _, err := w.Request(t.Context(), carol, Ask{Target: "orders", Account: "ro", Reason: "because"}); err == nil {
				t.Error("something was granted")
			}
			if _, err := w.Revoke(t.Context(), carol, active.ID, "now"); err != nil {
				t.Error(err)
			}
			waitEnded(t, l)
			if _, err := w.Release(t.Context(), dave, approved.ID); err != nil {
				t.Error(err)
			}
			if _, err := w.Withdraw(t.Context(), dave, voted.ID, "no"); err != nil {
				t.Error(err)
			}
			if _, err := w.Deny(t.Context(), bob, pending.ID, "no"); err != nil {
				t.Error(err)
			}
			w.state(pending.ID, Denied, "")
			w.state(voted.ID, Ended, EndApprovalWithdrawn)
		})
	}
}

// A grant that nobody used leaves nothing, and says of itself that it was not used.
func TestI19UnusedGrantsLeaveNothing(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "ro", "orders")
	w.pass(61 * time.Minute)
	if g = w.row(g.ID); g.State != Lapsed || !g.From.IsZero() || !g.Until.IsZero() || !strings.Contains(g.EndComment, "not used by") {
		t.Errorf("%+v", g)
	}
	if w.openOf(alice, "orders", "ro") != nil {
		t.Error("it is still open")
	}
	if events := w.events("grant.active"); len(events) != 0 {
		t.Errorf("%+v", events)
	}
}

// Every moment of access stands on enough votes of people who may, on a policy that approves, or on broken glass: whoever does
// whatever.
func TestI20AccessStandsOnSomething(t *testing.T) {
	everybody := []authn.Identity{alice, bob, dave, carol, job}
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, dir: t.TempDir(), clocks: newClocks(), config: example()}
		w.config.Policies = append(w.config.Policies, staged())
		w.start()
		defer w.stop()
		var ids []string
		for range rapid.IntRange(3, 15).Draw(rt, "steps") {
			who := rapid.SampledFrom(everybody).Draw(rt, "who")
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				what := rapid.SampledFrom([]Ask{{Target: "orders", Account: "app"}, {Target: "orders", Account: "ro"}, {Target: "web-1", Account: "deploy"}, {Target: "orders", Account: "owner"}}).Draw(rt, "what")
				what.Reason = "because"
				if g, err := w.Request(t.Context(), who, what); err == nil {
					ids = append(ids, g.ID)
				}
			case 1, 2:
				if len(ids) > 0 {
					_, _ = w.Approve(t.Context(), who, rapid.SampledFrom(ids).Draw(rt, "which"), "") // most are refused
				}
			case 3:
				if len(ids) > 0 {
					_, _ = w.Withdraw(t.Context(), who, rapid.SampledFrom(ids).Draw(rt, "which"), "")
				}
			case 4:
				for _, a := range [][2]string{{"orders", "app"}, {"orders", "ro"}, {"web-1", "deploy"}, {"orders", "owner"}} {
					_, _ = w.Lease(t.Context(), who, a[0], a[1])
				}
			}
			for _, id := range ids {
				g := w.row(id)
				if g.State != Active {
					continue
				}
				p, ok := w.rules.Load().policy(g.Policy)
				switch {
				case !ok:
					rt.Fatalf("%s is active by policy %s, which is none", id, g.Policy)
				case g.BreakGlass != p.BreakGlass, g.Needed == 0 && !policy.Auto(p.Policy), g.Needed > 0 && !enough(g, p.Policy):
					rt.Fatalf("%s is active on %+v", id, g)
				}
				for _, v := range g.Votes {
					if v.key() == g.Identity.Key() {
						rt.Fatalf("%s stands on its holder's own word", id)
					}
				}
			}
		}
	})
}

// Each set of policies that comes into force is kept and told, with what it changes.
func TestPolicySetsAreAudited(t *testing.T) {
	w := newWorld(t)
	first := w.events("policy.loaded")
	if len(first) != 1 || first[0].Fields["before"] != "" {
		t.Fatalf("%+v", first)
	}
	change := func(widens string, what func(c *configs.Config)) map[string]string {
		t.Helper()
		before := len(w.events("policy.loaded"))
		what(w.config)
		if err := w.Reload(t.Context(), w.config); err != nil {
			t.Fatal(err)
		}
		events := w.events("policy.loaded")
		if len(events) != before+1 {
			t.Fatalf("%d events", len(events)-before)
		}
		e := events[before]
		if e.Fields["widens"] != widens || e.Fields["before"] == "" || e.Fields["before"] == e.Fields["policy_set"] {
			t.Errorf("%+v, want %q", e.Fields, widens)
		}
		return e.Fields
	}
	change("", func(c *configs.Config) { c.Policies[0].MaxDuration = minutes(30) })
	change("policy write", func(c *configs.Config) { c.Policies[0].MaxDuration = minutes(60) })
	change("policy write", func(c *configs.Config) { c.Policies[0].Approve.Groups = []string{"leads", "engineers"} })
	change("", func(c *configs.Config) { c.Policies[0].Approve.Count = 2 })
	change("policy write", func(c *configs.Config) { c.Policies[0].Groups = append(c.Policies[0].Groups, "interns") })
	change("", func(c *configs.Config) { c.Policies[0].When = "account != 'x'" })
	change("policy write", func(c *configs.Config) { c.Policies[0].When = "" })
	if f := change("", func(c *configs.Config) {
		c.Policies = append(c.Policies, configs.Policy{Name: "frozen", Effect: configs.Forbid, Accounts: []string{"*@*"}, When: "false"})
	}); f["added"] != "policy frozen" {
		t.Errorf("%+v", f)
	}
	if f := change("policy frozen", func(c *configs.Config) { c.Policies = c.Policies[:len(c.Policies)-1] }); f["removed"] != "policy frozen" {
		t.Errorf("%+v", f)
	}
	change("permissions", func(c *configs.Config) {
		c.Permissions = append(c.Permissions, configs.Permission{Groups: []string{"x"}, May: []string{"*"}})
	})
	change("", func(c *configs.Config) { c.Permissions = c.Permissions[:1] })
	n := len(w.events("policy.loaded"))
	if err := w.Reload(t.Context(), w.config); err != nil || len(w.events("policy.loaded")) != n {
		t.Errorf("the same again is an event: %v", err)
	}
	w.restart()
	if len(w.events("policy.loaded")) != n {
		t.Error("a start with the same is an event")
	}
}
