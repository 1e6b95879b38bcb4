package grant

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

func TestApprovalRefusals(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	own := w.request(dave, "app", "orders") // dave is a lead too
	other := w.request(alice, "app", "orders")
	_, err := w.Approve(ctx, dave, own.ID, "")
	refused(t, err, refusal.NotPermitted, "you may not approve your own request "+own.ID, "another member of leads")
	_, err = w.Deny(ctx, dave, own.ID, "")
	refused(t, err, refusal.NotPermitted, "your own", "sallyport release "+own.ID)
	_, err = w.Approve(ctx, carol, other.ID, "")
	refused(t, err, refusal.NotPermitted, "members of leads may")
	_, err = w.Deny(ctx, carol, other.ID, "")
	refused(t, err, refusal.NotPermitted, "members of leads may")
	_, err = w.Approve(ctx, job, other.ID, "") // in leads, but no person
	refused(t, err, refusal.NotPermitted, "only people")
	_, err = w.Approve(ctx, bob, other.ID, "a\x00b")
	refused(t, err, refusal.Invalid, "U+0000")
	_, err = w.Approve(ctx, bob, "g-000000", "")
	refused(t, err, refusal.NotFound, "g-000000")
	_, err = w.Approve(ctx, authn.Identity{Groups: []string{"leads"}}, other.ID, "")
	refused(t, err, refusal.NotAuthenticated)
	w.clocks.set(-3 * time.Second)
	_, err = w.Approve(ctx, bob, other.ID, "")
	refused(t, err, refusal.NotPermitted, "clock is behind")
	w.clocks.set(2 * time.Second)
	if _, err := w.Approve(ctx, bob, other.ID, ""); err != nil {
		t.Errorf("a second back: %v", err)
	}
	if n := len(w.events("approve.refused")); n != 7 {
		t.Errorf("%d approve.refused, want 7", n)
	}
	// The same subject at another issuer is somebody else.
	stranger := dave
	stranger.Issuer = "https://other.example"
	if g, err := w.Approve(ctx, stranger, own.ID, ""); err != nil || g.State != Approved {
		t.Errorf("%+v %v", g, err)
	}
}

// Whoever has an identity at another provider too is one person, by the configuration's word or where both name one address: it
// approves for neither, at no stage and for no extension, and has one vote; its other identities are no other people where there
// have to be enough.
func TestOnePersonOfTwoIdentities(t *testing.T) {
	elsewhere := func(who authn.Identity) authn.Identity {
		who.Issuer, who.Subject = "https://partner.example", "4711 "+who.Subject
		return who
	}
	address := func(who authn.Identity) authn.Identity { who.Email = who.Name + "@example.com"; return who }
	linked := func(c *configs.Config) {
		for _, who := range []authn.Identity{alice, bob, dave} {
			c.Approvals.People = append(c.Approvals.People, configs.LinkedPerson{Issuer: who.Issuer, Subject: who.Subject, Also: []string{elsewhere(who).Key()}})
		}
	}
	for name, test := range map[string]struct {
		change func(*configs.Config)
		as     func(authn.Identity) authn.Identity
	}{"linked": {linked, func(who authn.Identity) authn.Identity { return who }}, "one address": {func(*configs.Config) {}, address}} {
		t.Run(name, func(t *testing.T) {
			w := with(t, func(c *configs.Config) {
				test.change(c)
				c.Approvals.Known = true
				c.Policies[0].Approve.Count, c.Policies[0].MaxTotal = 2, minutes(120)
				c.Policies = append(c.Policies, configs.Policy{Name: "glass", BreakGlass: true, Groups: []string{"engineers"}, Accounts: []string{"owner@orders"},
					MaxDuration: minutes(30), Approve: configs.Approve{Auto: true}, Review: configs.Review{Groups: []string{"leads"}, Within: minutes(60)}})
			})
			ctx := t.Context()
			me, first, second := test.as(dave), test.as(bob), test.as(person("erin", "leads"))
			ask := Ask{Target: "orders", Account: "app", Reason: "because"}
			w.members = []authn.Identity{me, elsewhere(me), first, elsewhere(first)}
			_, err := w.Request(ctx, me, ask)
			refused(t, err, refusal.NotPermitted, "nobody could approve app@orders now", "it takes 2 of leads, of whom 1 other than you")
			w.members = append(w.members, second)
			g, err := w.Request(ctx, me, ask)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Approve(ctx, elsewhere(me), g.ID, "")
			refused(t, err, refusal.NotPermitted, "your own request")
			w.vote(elsewhere(first), g.ID, Pending)
			w.restart() // what is known of voters is kept
			_, err = w.Approve(ctx, first, g.ID, "")
			refused(t, err, refusal.Conflict, "you have approved grant "+g.ID+" already")
			w.vote(second, g.ID, Approved)
			w.lease(me, "app", "orders")
			w.extend(me, g.ID, time.Minute)
			_, err = w.Approve(ctx, elsewhere(me), g.ID, "")
			refused(t, err, refusal.NotPermitted, "your own request")

			glass, err := w.Request(ctx, me, Ask{Target: "orders", Account: "owner", Reason: "everything is down and nobody answers", BreakGlass: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Release(ctx, me, glass.ID); err != nil {
				t.Fatal(err)
			}
			_, err = w.Service.Review(ctx, elsewhere(me), glass.ID, "all was well")
			refused(t, err, refusal.NotPermitted, "what you did yourself")
		})
	}
	// And who started a job approves it by none of their identities.
	w := with(t, linked)
	deploy := job
	deploy.StartedBy = authn.Starter{ID: "7", Person: bob.Subject}
	g, err := w.Request(t.Context(), deploy, Ask{Target: "web-1", Account: "deploy", Reason: "release 7"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Approve(t.Context(), elsewhere(bob), g.ID, "")
	refused(t, err, refusal.NotPermitted, "a job that you started")
}

// Who asks by one identity, is linked to a second, and shares an address with a third at another provider is one person by all of them.
func TestOnePersonByAChain(t *testing.T) {
	partner := authn.Identity{Issuer: "https://partner.example", Subject: "4711", Kind: authn.Human, Email: "dave@partner.example", Groups: []string{"leads"}}
	third := authn.Identity{Issuer: "https://third.example", Subject: "9", Kind: authn.Human, Name: "D", Email: "Dave@partner.example", Groups: []string{"leads", "engineers"}}
	w := newWorld(t)
	w.stop()
	w.config.Approvals.People = []configs.LinkedPerson{{Issuer: dave.Issuer, Subject: dave.Subject, Also: []string{partner.Key()}}}
	w.config.Policies[0].Approve.Count = 2
	w.config.Policies = append(w.config.Policies, configs.Policy{Name: "glass", BreakGlass: true, Groups: []string{"engineers"}, Accounts: []string{"owner@orders"},
		MaxDuration: minutes(30), Approve: configs.Approve{Auto: true}, Review: configs.Review{Groups: []string{"leads"}, Within: minutes(60)}})
	w.current = func(_ context.Context, who authn.Identity) (authn.Identity, error) {
		if who.Key() == partner.Key() {
			return partner, nil
		}
		return who, nil
	}
	w.start()
	ctx := t.Context()
	g, err := w.Request(ctx, dave, Ask{Target: "orders", Account: "app", Reason: "because"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Approve(ctx, third, g.ID, "")
	refused(t, err, refusal.NotPermitted, "your own request")
	g = w.request(alice, "app", "orders")
	w.vote(third, g.ID, Pending)
	_, err = w.Approve(ctx, dave, g.ID, "")
	refused(t, err, refusal.Conflict, "you have approved grant "+g.ID+" already")

	// What is paused for one of them is for all.
	glass, err := w.Request(ctx, dave, Ask{Target: "orders", Account: "owner", Reason: "everything is down", BreakGlass: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Release(ctx, dave, glass.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.Service.Review(ctx, third, glass.ID, "all was well")
	refused(t, err, refusal.NotPermitted, "what you did yourself")
	w.clocks.pass(2 * time.Hour)
	_, err = w.Request(ctx, third, Ask{Target: "orders", Account: "owner", Reason: "everything is down", BreakGlass: true})
	refused(t, err, refusal.NotPermitted, "your right to break the glass is paused", glass.ID)
	other := person("frank", "engineers")
	if _, err = w.Request(ctx, other, Ask{Target: "orders", Account: "owner", Reason: "everything is down", BreakGlass: true}); err != nil {
		t.Error(err)
	}
}

// How long a request waited stands in the event of its approval, also where the gateway was started anew meanwhile.
func TestHowLongItWaited(t *testing.T) {
	w := newWorld(t)
	g := w.request(alice, "app", "orders")
	w.pass(time.Hour)
	w.restart()
	w.pass(30 * time.Minute)
	w.vote(bob, g.ID, Approved)
	w.request(alice, "ro", "orders")
	if found := w.events("grant.approved"); len(found) != 2 || found[0].Fields["waited"] != "1h30m0s" || found[1].Fields["waited"] != "0s" {
		t.Errorf("%+v", found)
	}
}

func TestNobodyEndsWhatIsNotTheirs(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	l := w.lease(alice, "app", "orders")
	_, err := w.Release(t.Context(), bob, g.ID)
	refused(t, err, refusal.NotPermitted, "not yours")
	_, err = w.Revoke(t.Context(), person("eve", "engineers"), g.ID, "")
	refused(t, err, refusal.NotPermitted, "members of security have it")
	if err := l.Live(); err != nil {
		t.Error(err)
	}
}

func TestQuorumOfDistinctPeople(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	g := w.request(alice, "deploy", "web-1")
	if g.Needed != 2 {
		t.Fatalf("%+v", g)
	}
	g, err := w.Approve(ctx, bob, g.ID, "")
	if err != nil || g.State != Pending || len(g.Votes) != 1 {
		t.Fatalf("%+v %v", g, err)
	}
	_, err = w.Lease(ctx, alice, "web-1", "deploy")
	refused(t, err, refusal.NoGrant, "waits for approval by leads or security (1 of 2 have)")
	_, err = w.Approve(ctx, bob, g.ID, "")
	refused(t, err, refusal.Conflict, "you have approved grant "+g.ID+" already")
	both := bob
	both.Groups = []string{"security"}
	_, err = w.Approve(ctx, both, g.ID, "") // by another group, but the same person
	refused(t, err, refusal.Conflict, "already")
	if g, err = w.Approve(ctx, carol, g.ID, ""); err != nil || g.State != Approved {
		t.Fatalf("%+v %v", g, err)
	}
	if names := g.Approvers(); !slices.Equal(names, []string{"Bob", "Carol"}) {
		t.Errorf("approvers: %v", names)
	}
	if e := w.events("grant.voted"); len(e) != 1 || e[0].Fields["approvals"] != "1 of 2" {
		t.Errorf("grant.voted: %+v", e)
	}
}

func TestVoteFallsWithTheRightToVote(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	g := w.request(alice, "deploy", "web-1")
	if _, err := w.Approve(ctx, carol, g.ID, ""); err != nil {
		t.Fatal(err)
	}
	w.config.Policies[2].Approve.Groups = []string{"leads"} // security may not any more
	if err := w.Reload(ctx, w.config); err != nil {
		t.Fatal(err)
	}
	g, err := w.Approve(ctx, bob, g.ID, "")
	if err != nil || g.State != Pending || !slices.Equal(g.Approvers(), []string{"Bob"}) {
		t.Fatalf("carol's vote still counts: %+v %v", g, err)
	}
	if votes := w.row(g.ID).Votes; len(votes) != 1 {
		t.Errorf("stored: %+v", votes)
	}
	if g, err = w.Approve(ctx, dave, g.ID, ""); err != nil || g.State != Approved {
		t.Fatalf("%+v %v", g, err)
	}
}

// TestVoteFallsWithItsVoter: who has left the group, or the company, since they approved is none of those who did.
func TestVoteFallsWithItsVoter(t *testing.T) {
	ctx := t.Context()
	now := map[string][]string{carol.Key(): carol.Groups, bob.Key(): bob.Groups, dave.Key(): dave.Groups}
	w := newWorld(t)
	w.groups = func(_ context.Context, who authn.Identity) ([]string, error) { return now[who.Key()], nil }
	w.restart()
	g := w.request(alice, "deploy", "web-1")
	if _, err := w.Approve(ctx, carol, g.ID, ""); err != nil {
		t.Fatal(err)
	}
	now[carol.Key()] = []string{"sales"}
	g, err := w.Approve(ctx, bob, g.ID, "")
	if err != nil || g.State != Pending || !slices.Equal(g.Approvers(), []string{"Bob"}) {
		t.Fatalf("carol's vote still counts: %+v %v", g, err)
	}
	if votes := w.row(g.ID).Votes; len(votes) != 1 {
		t.Errorf("stored: %+v", votes)
	}
	if g, err = w.Approve(ctx, dave, g.ID, ""); err != nil || g.State != Approved {
		t.Fatalf("%+v %v", g, err)
	}
}

func TestPolicyIsAskedAgain(t *testing.T) {
	ctx := t.Context()
	tests := []struct {
		name     string
		change   func(*configs.Config)
		pending  State
		approved State
		active   State
		reason   string
		says     string
	}{
		{"nothing", func(*configs.Config) {}, Pending, Approved, Active, "", ""},
		{"policy gone", func(c *configs.Config) { c.Policies = c.Policies[1:] }, Denied, Ended, Ended, EndPolicyRemoved, "policy write was removed"},
		{"target gone", func(c *configs.Config) { c.Targets = c.Targets[1:] }, Denied, Ended, Ended, EndTargetRemoved, "target orders was removed"},
		{"account gone", func(c *configs.Config) { c.Targets[0].Accounts = c.Targets[0].Accounts[1:] }, Denied, Ended, Ended, EndTargetRemoved, "account app@orders was removed"},
		{"group gone", func(c *configs.Config) { c.Policies[0].Groups = []string{"admins"} }, Denied, Ended, Ended, EndPolicyRemoved, "it is for members of admins"},
		{"other accounts", func(c *configs.Config) { c.Policies[0].Accounts = []string{"ro@orders"} }, Denied, Ended, Ended, EndPolicyRemoved, "does not speak of app@orders"},
		{"label gone", func(c *configs.Config) { c.Policies[0].Labels = map[string]string{"env": "test"} }, Denied, Ended, Ended, EndPolicyRemoved, "does not speak of app@orders"},
		{"shorter", func(c *configs.Config) { c.Policies[0].MaxDuration = minutes(10) }, Denied, Ended, Active, EndPolicyRemoved, "30m is longer than the 10m"},
		{"other approvers", func(c *configs.Config) { c.Policies[0].Approve.Groups = []string{"security"} }, Denied, Ended, Active, EndPolicyRemoved, "policy write: "},
		{"more approvers", func(c *configs.Config) { c.Policies[0].Approve.Count = 2 }, Pending, Ended, Active, EndPolicyRemoved, "asks for 2 approvals by leads"},
		{"by itself", func(c *configs.Config) { c.Policies[0].Approve = configs.Approve{Auto: true} }, Pending, Approved, Active, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			pending := w.request(dave, "app", "orders")
			approved := w.approved(person("emil", "engineers"), "app", "orders")
			w.approved(alice, "app", "orders")
			l := w.lease(alice, "app", "orders")
			other := w.approved(alice, "ro", "orders")
			tt.change(w.config)
			if err := w.Reload(ctx, w.config); err != nil {
				t.Fatal(err)
			}
			for id, want := range map[string]State{pending.ID: tt.pending, approved.ID: tt.approved, l.Grant.ID: tt.active} {
				g := w.row(id)
				if g.State != want {
					t.Errorf("%s grant is %s, want %s", id, g.State, want)
				}
				if g.State.Over() && (g.EndReason != tt.reason || !strings.Contains(g.EndComment, tt.says) || g.EndedBy != "system") {
					t.Errorf("%+v", g)
				}
			}
			if live := l.Live() == nil; live != (tt.active == Active) {
				t.Errorf("live: %v", live)
			}
			if tt.reason != EndTargetRemoved || tt.name == "account gone" {
				w.state(other.ID, Approved, "")
			}
			// A start with the same configuration comes to the same.
			w.restart()
			w.state(pending.ID, tt.pending, w.row(pending.ID).EndReason)
			if n := len(w.events("grant.ended")) + len(w.events("grant.denied")); tt.reason == "" && n != 0 {
				t.Errorf("%d endings", n)
			}
		})
	}
}

// A configuration that was read while the gateway was down, or between a look and a vote, is heeded at the vote.
func TestVoteAfterPolicyWentAway(t *testing.T) {
	w := newWorld(t)
	g := w.request(alice, "app", "orders")
	c := example()
	c.Policies = c.Policies[1:]
	rules, err := index(c, time.Now, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.rules.Store(rules) // as in the moment between taking it in and ending what it ends
	_, err = w.Approve(t.Context(), bob, g.ID, "")
	refused(t, err, refusal.Conflict, "policy write was removed")
	w.state(g.ID, Denied, EndPolicyRemoved)
	if len(w.events("grant.denied")) != 1 || len(w.events("approve.refused")) != 1 {
		t.Error("not audited")
	}
}

func TestOneTransitionWins(t *testing.T) {
	w := newWorld(t)
	g := w.request(alice, "app", "orders")
	old := w.row(g.ID)
	if _, err := w.Deny(t.Context(), bob, g.ID, ""); err != nil {
		t.Fatal(err)
	}
	next := old
	next.State = Approved
	err := w.db.Do(t.Context(), func(tx *store.Tx) error {
		_, err := save(t.Context(), tx, old, next)
		return err
	})
	if !errors.Is(err, errStale) {
		t.Fatalf("a stale row was written: %v", err)
	}
	w.state(g.ID, Denied, "")
	for from := range map[State]bool{Ended: true, Denied: true, Withdrawn: true, Lapsed: true} {
		for _, to := range []State{Pending, Approved, Active, Ended} {
			err := w.db.Do(t.Context(), func(tx *store.Tx) error {
				_, err := save(t.Context(), tx, Grant{ID: g.ID, State: from, Version: 2}, Grant{ID: g.ID, State: to})
				return err
			})
			if err == nil {
				t.Errorf("%s became %s", from, to)
			}
		}
	}
}

// race calls all at once and returns how many succeeded.
func race(calls ...func() error) (won int) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	start := make(chan struct{})
	for _, call := range calls {
		wg.Go(func() {
			<-start
			if call() == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	close(start)
	wg.Wait()
	return won
}

func TestRaces(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	for range 20 {
		g := w.request(alice, "deploy", "web-1")
		// Two approvers in the same moment, each twice: one vote each, one transition.
		approve := func(who authn.Identity) func() error {
			return func() error { _, err := w.Approve(ctx, who, g.ID, ""); return err }
		}
		if won := race(approve(bob), approve(carol), approve(bob), approve(carol)); won != 2 {
			t.Fatalf("%d approvals counted, want 2", won)
		}
		if now := w.row(g.ID); now.State != Approved || len(now.Votes) != 2 || now.Version != 3 {
			t.Fatalf("%+v", now)
		}
		// Two connections at once start one clock.
		var leases [2]*Lease
		connect := func(i int) func() error {
			return func() (err error) { leases[i], err = w.Lease(ctx, alice, "web-1", "deploy"); return err }
		}
		if won := race(connect(0), connect(1)); won != 2 || !leases[0].Until().Equal(leases[1].Until()) || w.row(g.ID).Version != 4 {
			t.Fatalf("%d connected", won)
		}
		// Several end it: one does.
		if won := race(
			func() error { _, err := w.Revoke(ctx, carol, g.ID, ""); return err },
			func() error { _, err := w.Release(ctx, alice, g.ID); return err },
			func() error { _, err := w.Revoke(ctx, bob, g.ID, ""); return err },
		); won != 1 || leases[0].Live() == nil || leases[1].Live() == nil {
			t.Fatalf("%d ended it", won)
		}
	}
	for range 20 {
		g := w.request(alice, "app", "orders")
		won := race(
			func() error { _, err := w.Approve(ctx, bob, g.ID, ""); return err },
			func() error { _, err := w.Deny(ctx, dave, g.ID, ""); return err },
		)
		if won != 1 {
			t.Fatalf("%d of approve and deny won", won)
		}
		// Revoke beside a connection being opened: whatever came first, nobody is in afterwards.
		var l *Lease
		race(
			func() (err error) { l, err = w.Lease(ctx, alice, "orders", "app"); return err },
			func() error { _, err := w.Revoke(ctx, carol, g.ID, ""); return err },
		)
		if l != nil {
			if l.Live() == nil {
				t.Fatal("a lease outlived the revocation")
			}
			<-l.Ended()
		}
		if !w.row(g.ID).State.Over() {
			t.Fatalf("%+v", w.row(g.ID))
		}
		// Of equal requests one is filed.
		ask := func() error {
			_, err := w.Request(ctx, alice, Ask{Target: "orders", Account: "ro", Reason: "because"})
			return err
		}
		if won := race(ask, ask, ask); won != 1 {
			t.Fatalf("%d equal requests were filed", won)
		}
		open, err := w.List(ctx, alice, false)
		if err != nil || len(open) != 1 {
			t.Fatalf("%v %v", open, err)
		}
		if _, err := w.Release(ctx, alice, open[0].ID); err != nil {
			t.Fatal(err)
		}
	}
}

// The clock races with what people do: an approval with the request's lapsing, an extension with the grant's end, a connection with the
// approval's. Whoever comes first wins, and nobody is in afterwards who may not be.
func TestRacesWithTheClock(t *testing.T) {
	ctx := t.Context()
	w := with(t, func(c *configs.Config) { c.Policies[1].MaxTotal = minutes(600) })
	tick := func(d time.Duration) func() error {
		return func() error { w.clocks.pass(d); return w.tick(ctx) }
	}
	for range 10 {
		g := w.request(alice, "app", "orders") // for two hours to decide
		w.pass(2*time.Hour - time.Second)
		approved := false
		race(tick(time.Second), func() error {
			_, err := w.Approve(ctx, bob, g.ID, "")
			approved = err == nil
			return err
		})
		if now := w.row(g.ID); now.State != map[bool]State{true: Approved, false: Lapsed}[approved] {
			t.Fatalf("approved: %v, and it is %+v", approved, now)
		}
		if approved { // for an hour to be used
			w.pass(time.Hour - time.Second)
			var l *Lease
			race(tick(2*time.Second), func() (err error) { l, err = w.Lease(ctx, alice, "orders", "app"); return err })
			if now := w.row(g.ID); (l != nil) != (now.State == Active) || l == nil && now.State != Lapsed {
				t.Fatalf("connected: %v, and it is %+v", l != nil, now)
			}
			if l != nil {
				if _, err := w.Release(ctx, alice, g.ID); err != nil {
					t.Fatal(err)
				}
			}
		}

		g = w.approved(alice, "ro", "orders")
		l := w.lease(alice, "ro", "orders")
		until := w.row(g.ID).Until
		w.pass(until.Sub(w.clocks.now()) - lastCall)
		extended := false
		race(tick(lastCall), func() error {
			_, err := w.Extend(ctx, alice, g.ID, time.Hour, "not done yet")
			extended = err == nil
			return err
		})
		if err := w.tick(ctx); err != nil {
			t.Fatal(err)
		}
		now := w.row(g.ID)
		if extended != (now.State == Active) || !extended && l.Live() == nil || extended && !now.Until.Equal(until.Add(time.Hour)) {
			t.Fatalf("extended: %v, live: %v, and it is %+v", extended, l.Live(), now)
		}
		if extended {
			w.lease(alice, "ro", "orders") // the session may be gone, for cutting waits for no transaction; the grant goes on
			if _, err := w.Release(ctx, alice, g.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}
