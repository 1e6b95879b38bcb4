package grant

import (
	"strings"
	"testing"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
)

func TestLookups(t *testing.T) {
	w := newWorld(t)
	for name, want := range map[string]bool{"orders": true, "Orders": true, "order": false, "": false} {
		if _, ok := w.Target(name); ok != want {
			t.Errorf("Target(%q) = %v", name, ok)
		}
	}
	for name, want := range map[string]bool{"orders.db.example": true, "ORDERS.DB.EXAMPLE.": true, "orders": false, "web-1": false, "": false} {
		if _, ok := w.TargetByServerName(name); ok != want {
			t.Errorf("TargetByServerName(%q) = %v", name, ok)
		}
	}
	for _, tt := range []struct {
		host string
		port int
		want bool
	}{
		{"web-1", 22, true}, {"WEB-1", 2222, true}, {"web-1", 80, false},
		{"web-1.example", 22, true}, {"web-1.example.", 22, true}, {"web-1.example", 5432, false},
		{"10.1.1.1", 22, true}, {"::ffff:10.1.1.1", 22, true},
		{"fd00::1", 22, true}, {"FD00:0:0::1", 22, true}, {"[fd00::1]", 22, true},
		{"bastion.example", 2200, true}, {"bastion.example", 22, false},
		{"10.0.0.9", 2222, true}, {"10.0.0.9", 22, false},
		{"orders", 22, false}, {"10.0.0.5", 5432, false}, {"", 22, false},
	} {
		if got, ok := w.TargetByAddress(tt.host, tt.port); ok != tt.want || ok && got.Name != "web-1" {
			t.Errorf("TargetByAddress(%q, %d) = %v", tt.host, tt.port, ok)
		}
	}
}

func TestOffers(t *testing.T) {
	w := newWorld(t)
	longer := w.config.Policies[0]
	longer.Name, longer.MaxDuration = "long", minutes(240)
	shorter := w.config.Policies[0]
	shorter.Name, shorter.MaxDuration = "short", minutes(5)
	w.config.Policies = append(w.config.Policies, longer, shorter)
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	g := w.approved(alice, "ro", "orders")
	w.request(alice, "app", "orders")
	offers, err := w.Offers(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range offers {
		got = append(got, o.Account+"@"+o.Target+" by "+o.Policy+" "+o.Live)
	}
	want := []string{"app@orders by write ", "app@orders by long ", "ro@orders by read " + g.ID, "deploy@web-1 by ship "}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
	if !offers[2].Auto || offers[0].Auto || offers[0].Kind != configs.KindPostgres || offers[0].MayApprove[0] != "leads" {
		t.Errorf("%+v", offers)
	}
	if offers, err := w.Offers(t.Context(), carol); err != nil || len(offers) != 0 {
		t.Errorf("carol is offered %+v", offers)
	}
}

func TestPermissions(t *testing.T) {
	w := newWorld(t)
	if err := w.May(carol, RevokeGrants, "orders"); err != nil {
		t.Error(err)
	}
	if err := w.May(carol, RevokeGrants, ""); err != nil {
		t.Error(err)
	}
	refused(t, w.May(carol, KillSessions, "orders"), refusal.NotPermitted, "sessions.kill", "orders", "no group has it")
	refused(t, w.May(carol, KillSessions, "web-1"), refusal.NotPermitted, "members of leads have it")
	if err := w.May(bob, KillSessions, "web-1"); err != nil {
		t.Error(err)
	}
	refused(t, w.May(bob, KillSessions, "orders"), refusal.NotPermitted)  // other label
	refused(t, w.May(bob, KillSessions, ""), refusal.NotPermitted)        // of no target
	refused(t, w.May(bob, KillSessions, "removed"), refusal.NotPermitted) // not configured
	refused(t, w.May(alice, VerifyLog, ""), refusal.NotPermitted, "log.verify")
	nobody := carol
	nobody.Subject = ""
	refused(t, w.May(nobody, RevokeGrants, "orders"), refusal.NotPermitted)
}

func TestWhoSeesWhat(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	mine := w.request(alice, "app", "orders") // leads may approve
	auto := w.request(alice, "ro", "orders")  // nobody but alice and security
	if _, err := w.Release(ctx, alice, auto.ID); err != nil {
		t.Fatal(err)
	}
	w.clocks.pass(1)
	other := w.request(dave, "app", "orders")
	for _, tt := range []struct {
		name      string
		open, all []string
	}{
		{"alice", []string{mine.ID}, []string{auto.ID, mine.ID}},
		{"bob", []string{other.ID, mine.ID}, []string{other.ID, mine.ID}},
		{"carol", []string{other.ID, mine.ID}, []string{other.ID, auto.ID, mine.ID}},
		{"eve", nil, nil},
	} {
		identity := map[string]authn.Identity{"alice": alice, "bob": bob, "carol": carol, "eve": person("eve", "engineers")}[tt.name]
		for all, want := range map[bool][]string{false: tt.open, true: tt.all} {
			grants, err := w.List(ctx, identity, all)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, g := range grants {
				seen[g.ID] = true
			}
			if len(grants) != len(want) {
				t.Errorf("%s sees %d, want %d (all: %v)", tt.name, len(grants), len(want), all)
			}
			for _, id := range want {
				if !seen[id] {
					t.Errorf("%s does not see %s", tt.name, id)
				}
			}
			if len(grants) > 0 && all && tt.name != "alice" && grants[0].ID != other.ID {
				t.Errorf("not newest first: %v", grants)
			}
		}
		_, err := w.Get(ctx, identity, mine.ID)
		if tt.name == "eve" {
			refused(t, err, refusal.NotFound)
		} else if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	_, err := w.Get(ctx, alice, "g-zzzzzz")
	refused(t, err, refusal.NotFound, "sallyport grants")
}

// The account that makes the roles of others is nobody's to ask for, by whatever policy, nor is one that logs in as it; neither is
// the name of a role that was made for somebody's grant.
func TestTheAccountThatMakesRolesIsNobodys(t *testing.T) {
	c := example()
	orders := &c.Targets[0]
	orders.Accounts = append(orders.Accounts, configs.Account{Name: "maker", User: "boss"}, configs.Account{Name: "other", User: "boss"},
		configs.Account{Name: "temp", Ephemeral: true, MemberOf: []string{"readers"}})
	orders.MakeRolesWith, orders.Heir = "maker", "estate"
	c.Policies = []configs.Policy{
		{Name: "all", Groups: []string{"engineers"}, Accounts: []string{"*@*"}, MaxDuration: minutes(60), Approve: configs.Approve{Auto: true}},
		{Name: "glass", Groups: []string{"engineers"}, Accounts: []string{"*@*"}, MaxDuration: minutes(60), BreakGlass: true, Approve: configs.Approve{Auto: true}, ReasonLength: 1},
	}
	w := &world{t: t, dir: t.TempDir(), clocks: newClocks(), config: c}
	w.start()
	t.Cleanup(func() { w.stop() })
	temp, err := w.Request(t.Context(), alice, Ask{Target: orders.Name, Account: "temp", Reason: "because"})
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"maker", "other"} {
		for _, glass := range []bool{false, true} {
			_, err := w.Request(t.Context(), alice, Ask{Target: orders.Name, Account: account, Reason: "because", BreakGlass: glass})
			refused(t, err, refusal.NotPermitted, "the gateway's own")
		}
		_, err := w.Explain(t.Context(), alice, Ask{Target: orders.Name, Account: account})
		refused(t, err, refusal.NotPermitted, "the gateway's own")
		_, err = w.Lease(t.Context(), alice, orders.Name, account)
		refused(t, err, refusal.NotPermitted, "the gateway's own")
	}
	for _, role := range []string{"sp_aaaaaaaa_" + strings.TrimPrefix(temp.ID, "g-"), temp.ID, "boss"} {
		_, err := w.Request(t.Context(), alice, Ask{Target: orders.Name, Account: role, Reason: "because"})
		refused(t, err, refusal.UnknownAccount, "has no account")
	}
	offers, err := w.Offers(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, o := range offers {
		seen[o.Account] = true
	}
	if !seen["temp"] || seen["maker"] || seen["other"] {
		t.Errorf("offered are %v", seen)
	}
}
