package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/authn"
	"sallyport/configs"
)

var orders = configs.Target{Name: "orders", Labels: map[string]string{"env": "prod", "team": "shop"}}

// cover reports whether a policy without roles speaks of app@orders.
func cover(p configs.Policy) bool { return (&Policy{Policy: p}).Covers(orders, "app") }

// What would end a grant is said before it is asked for.
func TestEnds(t *testing.T) {
	for _, test := range []struct {
		p    configs.Policy
		want string
	}{
		{configs.Policy{MaxDuration: hours(2), Approve: configs.Approve{Auto: true}}, "it lapses where it is not used within 1h; it ends 1h after its first use, with extensions after 2h at most"},
		{configs.Policy{MaxDuration: hours(1), MaxTotal: hours(3), Idle: configs.Duration(15 * time.Minute), Hours: []string{"mon 08:00-19:00 UTC"}, Evidence: []string{"oncall"}, Approve: configs.Approve{Groups: []string{"leads"}, Within: hours(4)}},
			"the request lapses where nobody has decided within 4h; it lapses where it is not used within 1h; it ends 1h after its first use, with extensions after 3h at most; " +
				"it ends with the hours mon 08:00-19:00 UTC; it ends after 15m without a session; it ends when evidence oncall is gone"},
		{configs.Policy{MaxDuration: hours(1), MaxTotal: hours(1), BreakGlass: true, Approve: configs.Approve{Auto: true}, Review: configs.Review{Groups: []string{"security"}, Within: hours(24)}},
			"it lapses where it is not used within 1h; it ends 1h after its first use; it is reviewed by security within 24h"},
	} {
		p := &Policy{Policy: test.p}
		if got := strings.Join(p.Ends(time.Hour), "; "); got != test.want {
			t.Errorf("%s", got)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		want    bool
	}{
		{"app@orders", true},
		{"*@*", true},
		{"app@*", true},
		{"*@orders", true},
		{"ap*@ord*", true},
		{"*pp@*ders", true},
		{"*p*@*rde*", true},
		{"app@order", false},
		{"ap@orders", false},
		{"APP@orders", false},
		{"a*p@orders", false}, // a star in the middle is none
		{"app", false},
		{"@orders", false},
		{"app@", false},
		{"", false},
		{"**@**", false},
		{"apple*@orders", false},
	} {
		p := configs.Policy{Accounts: []string{"nothing@nowhere", tt.pattern}}
		if got := cover(p); got != tt.want {
			t.Errorf("%q covers app@orders: %v", tt.pattern, got)
		}
	}
	for _, tt := range []struct {
		labels map[string]string
		want   bool
	}{
		{nil, true},
		{map[string]string{"env": "prod"}, true},
		{map[string]string{"env": "prod", "team": "shop"}, true},
		{map[string]string{"env": "test"}, false},
		{map[string]string{"env": "prod", "region": ""}, false},
	} {
		if got := cover(configs.Policy{Accounts: []string{"*@*"}, Labels: tt.labels}); got != tt.want {
			t.Errorf("labels %v: %v", tt.labels, got)
		}
	}
	if cover(configs.Policy{Labels: map[string]string{"env": "prod"}}) {
		t.Error("labels alone cover an account")
	}
}

// in is somebody in those groups.
func in(groups ...string) authn.Identity { return authn.Identity{Kind: authn.Human, Groups: groups} }

// compiled are policies ready to be asked.
func compiled(t interface{ Fatal(...any) }, policies ...configs.Policy) []*Policy {
	ready, err := Compile(&configs.Config{Policies: policies})
	if err != nil {
		t.Fatal(err)
	}
	return ready
}

func hours(n int) configs.Duration { return configs.Duration(time.Duration(n) * time.Hour) }

func TestDecide(t *testing.T) {
	leads := configs.Approve{Groups: []string{"leads"}}
	policies := compiled(t, []configs.Policy{
		{Name: "elsewhere", Groups: []string{"eng"}, Accounts: []string{"*@web"}, MaxDuration: hours(9), Approve: leads},
		{Name: "ops", Groups: []string{"ops"}, Accounts: []string{"app@orders"}, MaxDuration: hours(9), Approve: leads},
		{Name: "short", Groups: []string{"eng"}, Accounts: []string{"app@orders"}, MaxDuration: hours(1), ReasonLength: 10, Approve: leads},
		{Name: "long", Groups: []string{"eng"}, Accounts: []string{"app@orders"}, MaxDuration: hours(4), DefaultDuration: hours(2), Approve: leads},
		{Name: "empty", Groups: []string{"sales"}, Accounts: []string{"app@orders"}, MaxDuration: hours(1)},
		{Name: "timeless", Groups: []string{"hr"}, Accounts: []string{"app@orders"}, Approve: leads},
		{Name: "groupless", Accounts: []string{"*@*"}, MaxDuration: hours(1), Approve: leads},
	}...)
	for _, tt := range []struct {
		name    string
		ask     Ask
		winner  string
		length  time.Duration
		says    string
		nearest string
	}{
		{name: "first that admits", ask: Ask{Identity: in("eng"), Reason: "long enough"}, winner: "short", length: time.Hour},
		{name: "too long for the first", ask: Ask{Identity: in("eng"), Duration: 2 * time.Hour, Reason: "long enough"}, winner: "long", length: 2 * time.Hour},
		{name: "too short a reason for the first", ask: Ask{Identity: in("eng"), Reason: "x"}, winner: "long", length: 2 * time.Hour},
		{name: "any of several groups", ask: Ask{Identity: in("x", "ops"), Reason: "x"}, winner: "ops", length: 9 * time.Hour},
		{name: "too long for all", ask: Ask{Identity: in("eng"), Duration: 5 * time.Hour, Reason: "long enough"}, says: "policy long: 5h is longer than the 4h it allows", nearest: "ops"},
		{name: "no reason", ask: Ask{Identity: in("ops")}, says: "policy ops: the reason has 0 of at least 1 characters", nearest: "ops"},
		{name: "characters, not bytes", ask: Ask{Identity: in("eng"), Reason: "äääääääää"}, winner: "long", length: 2 * time.Hour},
		{name: "no approver", ask: Ask{Identity: in("sales"), Reason: "x"}, says: "policy empty: nobody could approve it", nearest: "ops"},
		{name: "no time", ask: Ask{Identity: in("hr"), Reason: "x"}, says: "policy timeless: it allows no time at all", nearest: "ops"},
		{name: "no group", ask: Ask{Reason: "x"}, says: "policy ops: it is for members of ops", nearest: "ops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.ask.Target, tt.ask.Account = orders, "app"
			e := Decide(policies, tt.ask)
			if tt.winner != "" {
				if e.Winner == nil || e.Winner.Name != tt.winner || e.Duration != tt.length {
					t.Fatalf("got %+v", e)
				}
				return
			}
			if e.Winner != nil || !strings.Contains(e.Detail(), tt.says) {
				t.Fatalf("won by %v: %s", e.Winner, e.Detail())
			}
			if near := e.Nearest(); near[0].Name != tt.nearest {
				t.Errorf("nearest is %+v", near[0])
			}
			if strings.Contains(e.Detail(), "elsewhere") {
				t.Errorf("told of other targets: %s", e.Detail())
			}
			if got := e.MayAsk(); !slices.Equal(got, []string{"ops", "eng", "hr"}) {
				t.Errorf("may ask: %v", got)
			}
		})
	}
	if e := Decide(policies, Ask{Identity: in("eng"), Target: configs.Target{Name: "mail"}, Account: "app", Reason: "x"}); e.Winner != nil || !strings.Contains(e.Detail(), "groupless: it names no group") {
		t.Errorf("%+v %s", e, e.Detail())
	}
	if e := Decide(nil, Ask{}); e.Winner != nil || e.Detail() != "no policy speaks of it" {
		t.Errorf("%+v %s", e, e.Detail())
	}
}

// Whatever the policies, an answer is one policy's alone, and never more than it gives.
func TestDecideGivesNoMoreThanOnePolicy(t *testing.T) {
	names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		var policies []configs.Policy
		for range rapid.IntRange(0, 5).Draw(t, "policies") {
			policies = append(policies, configs.Policy{
				Effect:      rapid.SampledFrom([]string{"", "", configs.Permit, configs.Forbid}).Draw(t, "effect"),
				When:        rapid.SampledFrom([]string{"", "", "account == 'app'", "account == 'ro'", "target.labels.nothing == ''"}).Draw(t, "when"),
				Groups:      names.Draw(t, "groups"),
				Accounts:    rapid.SliceOfN(rapid.SampledFrom([]string{"*@*", "app@*", "ro@orders", "*@web"}), 0, 2).Draw(t, "accounts"),
				MaxDuration: hours(rapid.IntRange(0, 3).Draw(t, "max")), DefaultDuration: hours(rapid.IntRange(0, 4).Draw(t, "default")),
				ReasonLength: rapid.IntRange(0, 3).Draw(t, "length"),
				Approve:      configs.Approve{Auto: rapid.Bool().Draw(t, "auto"), Groups: names.Draw(t, "approvers"), Count: rapid.IntRange(-1, 2).Draw(t, "count")},
			})
		}
		ask := Ask{
			Identity: in(names.Draw(t, "mine")...), Target: orders, Account: "app", Reason: rapid.SampledFrom([]string{"", "x", "xxx"}).Draw(t, "reason"),
			Duration: time.Duration(rapid.IntRange(-1, 4).Draw(t, "hours")) * time.Hour,
		}
		ready := compiled(t, policies...)
		e := Decide(ready, ask)
		if whole := Explain(ready, ask); whole.Winner != e.Winner || whole.Duration != e.Duration || len(whole.Forbidden) != len(e.Forbidden) {
			t.Fatalf("decided as %+v, explained as %+v", e, whole)
		}
		forbidden := slices.ContainsFunc(policies, func(p configs.Policy) bool {
			return p.Effect == configs.Forbid && cover(p) && (len(p.Groups) == 0 || InAny(ask.Identity.Groups, p.Groups)) && p.When != "account == 'ro'"
		})
		if forbidden {
			if e.Winner != nil || len(e.Forbidden) == 0 {
				t.Fatalf("forbidden, but %+v", e)
			}
			return
		}
		for _, p := range ready {
			admits := !p.Forbids() && len(p.Misses(ask)) == 0
			if e.Winner == nil && admits {
				t.Fatalf("refused, but %+v admits it", p)
			}
			if e.Winner == p {
				break
			}
			if admits {
				t.Fatalf("%+v came first", p)
			}
		}
		w := e.Winner
		if w == nil {
			return
		}
		if !InAny(ask.Identity.Groups, w.Groups) || !cover(w.Policy) || e.Duration <= 0 || e.Duration > w.MaxDuration.D() ||
			w.When != "" && w.When != "account == 'app'" || ask.Duration != 0 && e.Duration != ask.Duration || len(ask.Reason) < max(1, w.ReasonLength) {
			t.Fatalf("%+v was admitted by %+v for %s", ask, w, e.Duration)
		}
		if needed := Needed(w.Policy); needed == 0 && (!w.Approve.Auto || len(w.Approve.Groups) > 0) || needed > 0 && len(w.Approve.Groups) == 0 || needed < w.Approve.Count && needed > 0 {
			t.Fatalf("%d approvals by %+v", needed, w.Approve)
		}
	})
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Minute: "30m", 90 * time.Minute: "1h30m", time.Hour: "1h", 45 * time.Second: "45s", 0: "0s",
		10*time.Hour + time.Second: "10h0m1s", 20 * time.Minute: "20m", 100 * time.Hour: "100h",
	} {
		if got := Short(d); got != want {
			t.Errorf("Short(%d) = %q, want %q", d, got, want)
		}
		if back, err := time.ParseDuration(Short(d)); err != nil || back != d {
			t.Errorf("%q does not read as what it was", Short(d))
		}
	}
	if Or(nil) != "nobody" || Or([]string{"a"}) != "a" || Or([]string{"a", "b", "c"}) != "a, b or c" {
		t.Error("Or")
	}
}
