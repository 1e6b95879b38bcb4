package grant

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/persons"
	"sallyport/internal/refusal"
)

// A change that may widen access waits for another person, over reloads and restarts; the old policies stay in force until it is
// confirmed, and one confirmation is good for that change alone.
func TestWideningWaitsForASecondPerson(t *testing.T) {
	w := newWorld(t)
	change := func(f func(*configs.Config)) *configs.Config {
		t.Helper()
		text, err := json.Marshal(w.config)
		if err != nil {
			t.Fatal(err)
		}
		c := &configs.Config{}
		if err := json.Unmarshal(text, c); err != nil {
			t.Fatal(err)
		}
		f(c)
		return c
	}
	reload := func(c *configs.Config) error { return w.Reload(t.Context(), c) }
	wide := func(c *configs.Config) { c.Policies[0].Approve = configs.Approve{Auto: true} }
	granted := func() bool {
		t.Helper()
		g, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "app", Reason: "because"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
		return g.State == Approved
	}

	// Without the key nothing waits; nor does the key itself.
	w.config = change(func(c *configs.Config) {
		c.PolicyChanges.Confirm = true
		c.Permissions = append(c.Permissions, configs.Permission{Groups: []string{"security"}, May: []string{string(ConfirmPolicies)}})
	})
	if err := reload(w.config); err != nil {
		t.Fatal(err)
	}
	// What takes away needs nobody.
	if err := reload(change(func(c *configs.Config) { c.Policies[0].MaxDuration = minutes(30) })); err != nil {
		t.Fatal(err)
	}
	w.config = change(func(c *configs.Config) { c.Policies[0].MaxDuration = minutes(30) })

	for name, f := range map[string]func(*configs.Config){
		"auto": wide, "the key off": func(c *configs.Config) { c.PolicyChanges.Confirm = false },
		"longer":     func(c *configs.Config) { c.Policies[0].MaxDuration = minutes(31) },
		"permission": func(c *configs.Config) { c.Permissions[0].May = append(c.Permissions[0].May, "sessions.watch") },
		"label":      func(c *configs.Config) { c.Targets[1].Labels = map[string]string{"env": "prod"} },
		"target":     func(c *configs.Config) { c.Targets = append(c.Targets, configs.Target{Name: "new"}) },
	} {
		refused(t, reload(change(f)), refusal.Conflict, "second person")
		h, waits, err := w.HeldPolicies(t.Context())
		if err != nil || !waits || h.Confirmed || len(h.Widens) == 0 {
			t.Fatalf("%s: %+v, %v, %v", name, h, waits, err)
		}
	}
	refused(t, reload(change(wide)), refusal.Conflict, "second person")
	if granted() {
		t.Fatal("what waits is in force")
	}
	h, _, err := w.HeldPolicies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.ConfirmPolicies(t.Context(), bob, h.Revision)
	refused(t, err, refusal.NotPermitted, "policies.confirm")
	robot := carol
	robot.Kind = authn.Workload
	_, err = w.ConfirmPolicies(t.Context(), robot, h.Revision)
	refused(t, err, refusal.NotPermitted, "only people")
	for _, wrong := range []string{"", h.Revision[:11], strings.Repeat("0", 64)} {
		_, err = w.ConfirmPolicies(t.Context(), carol, wrong)
		refused(t, err, refusal.Conflict, "no such set")
	}

	// A restart is no way around it, whatever else stands in the file.
	past := w.config
	w.config = change(func(c *configs.Config) {
		wide(c)
		c.Permissions = append(c.Permissions, configs.Permission{Groups: []string{"leads"}, May: []string{string(ConfirmPolicies)}})
		c.Targets = append(c.Targets, configs.Target{Name: "new", Accounts: []configs.Account{{Name: "app"}}})
		c.Policies[0].Accounts = append(c.Policies[0].Accounts, "app@new")
	})
	w.restart()
	if granted() {
		t.Fatal("after a restart what waits is in force")
	}
	if _, err := w.Request(t.Context(), alice, Ask{Target: "new", Account: "app", Reason: "because"}); err == nil {
		t.Fatal("after a restart a new target is there")
	}
	h, waits, err := w.HeldPolicies(t.Context())
	if err != nil || !waits {
		t.Fatalf("%+v, %v", h, err)
	}
	_, err = w.ConfirmPolicies(t.Context(), bob, h.Revision)
	refused(t, err, refusal.NotPermitted, "policies.confirm")

	// Confirmed, that and nothing else comes into force.
	if h, err = w.ConfirmPolicies(t.Context(), carol, h.Revision[:12]); err != nil || !h.Confirmed {
		t.Fatalf("%+v, %v", h, err)
	}
	other := change(func(c *configs.Config) { c.Policies[1].MaxDuration = minutes(9999) })
	refused(t, reload(other), refusal.Conflict, "second person")
	refused(t, reload(w.config), refusal.Conflict, "second person") // another one has waited since
	if h, _, err = w.HeldPolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err = w.ConfirmPolicies(t.Context(), carol, h.Revision); err != nil {
		t.Fatal(err)
	}
	if err := reload(w.config); err != nil {
		t.Fatal(err)
	}
	if !granted() {
		t.Fatal("what was confirmed is not in force")
	}
	// The confirmation is used up.
	if err := reload(past); err != nil && refusal.Of(err) == nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	events, err := w.db.Outbox(t.Context(), 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		kinds[e.Kind]++
		if e.Kind == "policy.confirmed" && e.Actor != carol.Key() {
			t.Errorf("%+v", e)
		}
	}
	if kinds["policy.confirmed"] != 2 || kinds["policy.held"] == 0 || kinds["policy.confirm_refused"] == 0 {
		t.Errorf("%v", slices.Sorted(maps.Keys(kinds)))
	}
}

// Who made a change is them by whichever of their identities.
func TestWhoMadeTheChange(t *testing.T) {
	partner := person("partner", "security")
	partner.Issuer = "https://partner.example"
	all := persons.Of([]configs.LinkedPerson{{Issuer: alice.Issuer, Subject: alice.Subject, Also: []string{partner.Key()}}})
	mail := bob
	mail.Email = "Bob@example.com"
	for _, test := range []struct {
		by   string
		who  authn.Identity
		mine bool
	}{
		{alice.Subject, alice, true}, {alice.Key(), alice, true}, {alice.Subject, partner, true}, {partner.Key(), alice, true}, {alice.Key(), carol, false},
		{"bob@EXAMPLE.com", mail, true}, {"bob@example.com", bob, false}, {"", alice, false}, {"", authn.Identity{}, false},
	} {
		if got := (Held{MadeBy: test.by}).ofTheirs(all, test.who); got != test.mine {
			t.Errorf("made by %q, and it is %s: %v", test.by, test.who.Key(), got)
		}
	}
}

// Who has a vote by which account, and who is one person, is part of what a second person confirms: over a reload and a restart those in
// force stay until then. Taking a vote away needs nobody, unless it said who is one person with whom.
func TestPeopleWaitForASecondPerson(t *testing.T) {
	person := func(name string) configs.LinkedPerson {
		return configs.LinkedPerson{Issuer: "https://login.example", Subject: "sub-" + name, Slack: "T012AB3C4/U" + name}
	}
	twice := person("bob")
	twice.Also = []string{"https://partner.example 4711"}
	mail := person("dave")
	mail.Email = "dave@example.com"
	with := func(people ...configs.LinkedPerson) *configs.Config {
		c := example()
		c.PolicyChanges.Confirm = true
		c.Permissions = append(c.Permissions, configs.Permission{Groups: []string{"security"}, May: []string{string(ConfirmPolicies)}})
		c.Approvals.People = people
		return c
	}
	w := newWorld(t)
	w.stop()
	w.config = with(person("alice"), twice, mail)
	w.start()
	for name, c := range map[string]*configs.Config{
		"another":             with(person("alice"), twice, mail, person("mallory")),
		"another account":     with(configs.LinkedPerson{Issuer: "https://login.example", Subject: "sub-alice", Slack: "T012AB3C4/Umallory"}, twice, mail),
		"two people":          with(person("alice"), person("bob"), mail),
		"two people, removed": with(person("alice"), mail),
		"no address":          with(person("alice"), twice, person("dave")),
		"nobody":              with(),
	} {
		refused(t, w.Reload(t.Context(), c), refusal.Conflict, "second person")
		h, waits, err := w.HeldPolicies(t.Context())
		if err != nil || !waits || !slices.Equal(h.Widens, []string{"approvals.people"}) || len(h.Differences) == 0 || h.Differences[0].What != "approvals.people" {
			t.Errorf("%s: %+v, %v, %v", name, h, waits, err)
		}
	}
	w.config = with(person("alice"), twice, mail, person("mallory"))
	w.restart()
	if got := w.People(); len(got) != 3 || got[2].Subject != "sub-dave" {
		t.Errorf("after a restart: %+v", got)
	}
	h, _, err := w.HeldPolicies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ConfirmPolicies(t.Context(), carol, h.Revision); err != nil {
		t.Fatal(err)
	}
	if err := w.Reload(t.Context(), w.config); err != nil || len(w.People()) != 4 {
		t.Errorf("%+v %v", w.People(), err)
	}
	if err := w.Reload(t.Context(), with(twice, mail)); err != nil || len(w.People()) != 2 {
		t.Errorf("%+v %v", w.People(), err)
	}
}

// What is rejected does not come into force, also where it is loaded in the same moment.
func TestRejectedWhileItIsLoaded(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.config.PolicyChanges.Confirm = true
	w.config.Permissions = append(w.config.Permissions, configs.Permission{Groups: []string{"security"}, May: []string{string(ConfirmPolicies)}})
	w.config.Approvals.People = []configs.LinkedPerson{{Issuer: alice.Issuer, Subject: alice.Subject, Also: []string{"https://partner.example 4711"}}}
	var revision string
	var loading atomic.Bool
	rejected := make(chan error, 1)
	w.current = func(ctx context.Context, who authn.Identity) (authn.Identity, error) {
		if loading.CompareAndSwap(true, false) { // the set was found to be confirmed, and is not in force yet
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, err := w.RejectPolicies(ctx, carol, revision, "not this")
				rejected <- err
			}()
			select {
			case <-done:
			case <-time.After(300 * time.Millisecond): // it waits, as it should
			}
		}
		return who, nil
	}
	w.start()
	c := *w.config
	c.Policies = slices.Clone(c.Policies)
	c.Policies[1].MaxDuration += minutes(1)
	refused(t, w.Reload(t.Context(), &c), refusal.Conflict, "second person")
	h, _, err := w.HeldPolicies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ConfirmPolicies(t.Context(), carol, h.Revision); err != nil {
		t.Fatal(err)
	}
	revision = h.Revision
	loading.Store(true)
	if err := w.Reload(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	if err := <-rejected; w.rules.Load().revision != revision || !refusal.Is(err, refusal.Conflict) {
		t.Fatalf("in force: %v, and the rejection said %v", w.rules.Load().revision == revision, err)
	}
}
