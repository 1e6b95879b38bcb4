package grant

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// emergency is a world in which engineers may break the glass for owner@orders, which hangs on evidence that nobody can read.
func emergency(t *testing.T) *world {
	t.Helper()
	return with(t, func(c *configs.Config) {
		c.Evidence = []configs.Evidence{{Name: "dead", URL: "http://127.0.0.1:1/", Every: configs.Duration(time.Minute)}}
		c.Policies = append(c.Policies,
			configs.Policy{Name: "owner", Groups: []string{"engineers"}, Accounts: []string{"owner@orders"}, MaxDuration: minutes(60), Evidence: []string{"dead"}, Approve: configs.Approve{Groups: []string{"leads"}}},
			configs.Policy{Name: "frozen", Effect: configs.Forbid, Accounts: []string{"owner@orders"}, When: "!request.break_glass"},
			configs.Policy{Name: "frozen by evidence", Effect: configs.Forbid, Accounts: []string{"owner@orders"}, When: "evidence.dead.frozen", Evidence: []string{"dead"}},
			configs.Policy{Name: "glass", Groups: []string{"engineers"}, Accounts: []string{"owner@orders"}, MaxDuration: minutes(45), ReasonLength: 20, BreakGlass: true,
				Review: configs.Review{Groups: []string{"security"}, Within: configs.Duration(24 * time.Hour)}, Approve: configs.Approve{Auto: true}})
	})
}

var breaking = Ask{Target: "orders", Account: "owner", Reason: "INC-43: orders is down, nobody answers", BreakGlass: true}

// Breaking the glass waits for nothing and nobody, is loud, and has to be looked at by somebody else before it can be done again.
func TestBreakGlass(t *testing.T) {
	w := emergency(t)
	plain := breaking
	plain.BreakGlass = false
	_, err := w.Request(t.Context(), alice, plain)
	refused(t, err, refusal.NotPermitted)
	short := breaking
	short.Reason = "help"
	_, err = w.Request(t.Context(), alice, short)
	refused(t, err, refusal.NotPermitted, "20 characters")
	_, err = w.Request(t.Context(), carol, breaking)
	refused(t, err, refusal.NotPermitted, "members of engineers")

	g, err := w.Request(t.Context(), alice, breaking)
	if err != nil || g.State != Approved || !g.BreakGlass {
		t.Fatal(g, err)
	}
	l := w.lease(alice, "owner", "orders")
	if events := w.events("grant.break_glass"); len(events) != 1 || events[0].Reason != breaking.Reason {
		t.Errorf("%+v", events)
	}
	var alarms int
	if err := w.db.Do(t.Context(), func(tx *store.Tx) error {
		taken, _, err := TakeEvents(t.Context(), tx, 100)
		for _, e := range taken {
			if e.Kind == EventAlarm {
				alarms++
			}
		}
		return err
	}); err != nil || alarms != 1 {
		t.Errorf("%d alarms, %v", alarms, err)
	}
	_, err = w.Extend(t.Context(), alice, g.ID, time.Minute, "more")
	refused(t, err, refusal.NotPermitted, "not extended")
	_, err = w.Review(t.Context(), carol, g.ID, "fine")
	refused(t, err, refusal.Conflict, "still open")
	w.pass(46 * time.Minute)
	w.state(g.ID, Ended, EndExpired)
	if l.Live() == nil {
		t.Error("it goes on")
	}

	// In time it can be done again; overdue it can't, which is told once.
	w.pass(23 * time.Hour)
	again, err := w.Request(t.Context(), alice, breaking)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Release(t.Context(), alice, again.ID); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	w.pass(time.Hour)
	if events := w.events("grant.review_overdue"); len(events) != 1 || events[0].Grant != g.ID {
		t.Errorf("%+v", events)
	}
	_, err = w.Request(t.Context(), alice, breaking)
	refused(t, err, refusal.NotPermitted, "paused", "sallyport review "+g.ID)
	w.restart()
	_, err = w.Request(t.Context(), alice, breaking)
	refused(t, err, refusal.NotPermitted, "paused")
	if _, err := w.Request(t.Context(), dave, breaking); err != nil {
		t.Errorf("dave's right is not alice's: %v", err)
	}
	// But by another identity of the same person it is paused too.
	partner := person("partner", "engineers")
	partner.Issuer = "https://partner.example"
	w.config.Approvals.People = []configs.LinkedPerson{{Issuer: alice.Issuer, Subject: alice.Subject, Also: []string{partner.Key()}}}
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	_, err = w.Request(t.Context(), partner, breaking)
	refused(t, err, refusal.NotPermitted, "paused", "sallyport review "+g.ID)

	auditor := alice
	auditor.Groups = []string{"engineers", "security"}
	_, err = w.Review(t.Context(), auditor, g.ID, "fine")
	refused(t, err, refusal.NotPermitted, "did yourself")
	_, err = w.Review(t.Context(), bob, g.ID, "fine")
	refused(t, err, refusal.NotPermitted, "members of security may")
	linked := carol
	linked.Method = authn.LinkedAccount
	_, err = w.Review(t.Context(), linked, g.ID, "fine")
	refused(t, err, refusal.NotPermitted, "by a click elsewhere")
	_, err = w.Review(t.Context(), carol, g.ID, "")
	refused(t, err, refusal.Invalid, "say what you have found")
	if list, err := w.Reviews(t.Context(), carol, false); err != nil || len(list) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err = w.Review(t.Context(), carol, g.ID, "she restarted it"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Review(t.Context(), carol, g.ID, "twice")
	refused(t, err, refusal.Conflict, "already")
	if _, err := w.Request(t.Context(), alice, breaking); err != nil {
		t.Error(err)
	}
}

func TestScheduledStart(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[1].Ahead = configs.Duration(48 * time.Hour) })
	start := w.clocks.now().Add(24 * time.Hour)
	ask := Ask{Target: "orders", Account: "ro", Reason: "the migration", Start: w.clocks.now().Add(72 * time.Hour)}
	_, err := w.Request(t.Context(), alice, ask)
	refused(t, err, refusal.NotPermitted, "begins in 48h at the latest")
	ask.Account, ask.Start = "app", start
	_, err = w.Request(t.Context(), alice, ask)
	refused(t, err, refusal.NotPermitted, "not at a time")
	ask.Account = "ro"
	g, err := w.Request(t.Context(), alice, ask)
	if err != nil || !g.Start.Equal(start) {
		t.Fatal(g, err)
	}
	_, err = w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "begins at")
	w.restart()
	w.pass(23*time.Hour + 59*time.Minute)
	_, err = w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "begins at")
	w.pass(time.Minute)
	w.lease(alice, "ro", "orders")
	if got := w.row(g.ID); !got.From.Equal(start) || !got.Until.Equal(start.Add(time.Hour)) {
		t.Errorf("from %s until %s", got.From, got.Until)
	}
	if _, err := w.Release(t.Context(), alice, g.ID); err != nil {
		t.Fatal(err)
	}
	if g, err = w.Request(t.Context(), alice, Ask{Target: "orders", Account: "ro", Reason: "again", Start: w.clocks.now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	w.pass(59 * time.Minute)
	_, err = w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "begins at")
	w.pass(time.Minute)
	// Asked again when it begins, by what is so then.
	_, err = w.Lease(t.Context(), person("alice", "sales"), "orders", "ro")
	refused(t, err, refusal.NoGrant)
	w.state(g.ID, Ended, EndPolicyRemoved)
}

func TestConcurrent(t *testing.T) {
	w := with(t, func(c *configs.Config) {
		c.Policies[1].Accounts, c.Policies[1].Concurrent = []string{"ro@*", "owner@*"}, 1
	})
	first := w.approved(alice, "ro", "orders")
	_, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "owner", Reason: "two"})
	refused(t, err, refusal.TooMany, "by policy read")
	if _, err := w.Request(t.Context(), dave, Ask{Target: "orders", Account: "owner", Reason: "his first"}); err != nil {
		t.Error(err)
	}
	if _, err := w.Release(t.Context(), alice, first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "owner", Reason: "one"}); err != nil {
		t.Error(err)
	}
}

// Where somebody comes from and how they have signed in is asked at the request and at each connection.
func TestNetworkAndSignIn(t *testing.T) {
	w := with(t, func(c *configs.Config) {
		c.Policies[1].Networks = []string{"10.0.0.0/8", "fd00::/8"}
		c.Policies[1].SignIn = configs.SignIn{MaxAge: minutes(60), AMR: []string{"hwk", "fpt"}, ACR: []string{"phr"}}
	})
	inside, outside := from(t, "10.1.2.3:5"), from(t, "192.0.2.1:5")
	who := alice
	who.SignedIn = w.clocks.now()
	who.AuthTime = who.SignedIn.Add(-2 * time.Hour)
	ask := Ask{Target: "orders", Account: "ro", Reason: "look"}
	_, err := w.Request(outside, who, ask)
	refused(t, err, refusal.NotPermitted, "connections from 10.0.0.0/8 or fd00::/8", "at most 1h old", "of class phr", "with hwk or fpt")
	_, err = w.Request(t.Context(), who, ask) // from nowhere that is known
	refused(t, err, refusal.NotPermitted, "connections from")
	who.AuthTime, who.ACR, who.AMR = who.SignedIn, "phr", []string{"pwd", "hwk"}
	g, err := w.Request(inside, who, ask)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Lease(outside, who, "orders", "ro")
	refused(t, err, refusal.NoGrant, "connections from")
	if _, err = w.Lease(inside, who, "orders", "ro"); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour) // the grant goes on: what has only gone by ends nothing
	w.state(g.ID, Ended, EndExpired)
	_, err = w.Request(inside, who, ask)
	refused(t, err, refusal.NotPermitted, "at most 1h old")
}

// A vote can be taken back: what waits has it no more, what was given by it ends.
func TestWithdrawnVotes(t *testing.T) {
	w := newWorld(t)
	g := w.request(alice, "deploy", "web-1") // takes two
	_, err := w.Withdraw(t.Context(), bob, g.ID, "")
	refused(t, err, refusal.NotFound, "you have not approved")
	for range 2 {
		if _, err := w.Approve(t.Context(), bob, g.ID, ""); err != nil {
			t.Fatal(err)
		}
		if g, err = w.Withdraw(t.Context(), bob, g.ID, "wrong one"); err != nil || len(g.Votes) != 0 || g.State != Pending {
			t.Fatal(g, err)
		}
	}
	for _, who := range []authn.Identity{bob, dave} {
		if _, err := w.Approve(t.Context(), who, g.ID, ""); err != nil {
			t.Fatal(err)
		}
	}
	l := w.lease(alice, "deploy", "web-1")
	if _, err = w.Withdraw(t.Context(), dave, g.ID, "changed my mind"); err != nil {
		t.Fatal(err)
	}
	w.state(g.ID, Ended, EndApprovalWithdrawn)
	waitEnded(t, l)
	_, err = w.Withdraw(t.Context(), bob, g.ID, "")
	refused(t, err, refusal.Conflict, "already")
}

// Whoever started the job does not approve what the job asks for, however they are known here.
func TestWhoStartedTheJobDoesNotApprove(t *testing.T) {
	w := newWorld(t)
	starter := person("bob", "leads")
	starter.Email = "Bob@example.com"
	for name, by := range map[string]authn.Starter{
		"by subject": {ID: "7", Person: starter.Subject}, "by address": {ID: "7", Person: "bob@EXAMPLE.com"}, "by the job's word": {ID: "7", Email: "bob@example.com"},
	} {
		deploy := job
		deploy.Subject, deploy.StartedBy = "run "+name, by
		g, err := w.Request(t.Context(), deploy, Ask{Target: "web-1", Account: "deploy", Reason: "release 7"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Approve(t.Context(), starter, g.ID, "")
		refused(t, err, refusal.NotPermitted, "a job that you started")
		linked := starter
		linked.Method, linked.Credential = authn.LinkedAccount, "slack/ops"
		_, err = w.Approve(t.Context(), linked, g.ID, "")
		refused(t, err, refusal.NotPermitted, "a job that you started")
		for _, who := range []authn.Identity{dave, carol} {
			if _, err = w.Approve(t.Context(), who, g.ID, ""); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		w.state(g.ID, Approved, "")
	}
}

func TestClickIsTooLittle(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[0].Approve.Confirm = configs.ConfirmSignedIn })
	g := w.request(alice, "app", "orders")
	linked := bob
	linked.Method = authn.LinkedAccount
	_, err := w.Approve(t.Context(), linked, g.ID, "")
	refused(t, err, refusal.NotPermitted, "sallyport approve "+g.ID)
	// Also where the policy has come not to ask for it: that was settled.
	w.config.Policies[0].Approve.Confirm = ""
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	_, err = w.Approve(t.Context(), linked, g.ID, "")
	refused(t, err, refusal.NotPermitted, "sallyport approve "+g.ID)
	if _, err = w.Approve(t.Context(), bob, g.ID, ""); err != nil {
		t.Error(err)
	}
}

// from is the context of a connection from that address.
func from(t *testing.T, address string) context.Context {
	t.Helper()
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return WithSource(t.Context(), net.TCPAddrFromAddrPort(at))
}

// What nobody could approve is refused at once, naming the group that is empty; where the configuration asks for that.
func TestNobodyCouldApprove(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Approvals.Known = true })
	ask := Ask{Target: "web-1", Account: "deploy", Reason: "because"} // two of leads or security
	for _, tt := range []struct {
		members []authn.Identity
		says    string
	}{
		{nil, "nobody else is known in leads or security"},
		{[]authn.Identity{bob}, "nobody else is known in security"},
		{[]authn.Identity{bob, dave}, "nobody else is known in security"}, // of whom dave is the one who asks
	} {
		w.members = tt.members
		_, err := w.Request(t.Context(), dave, ask)
		refused(t, err, refusal.NotPermitted, "nobody could approve deploy@web-1 now", tt.says)
	}
	w.members = []authn.Identity{bob, carol, dave}
	if _, err := w.Request(t.Context(), dave, ask); err != nil {
		t.Error(err)
	}
	starter := job
	starter.StartedBy = authn.Starter{Person: bob.Subject}
	w.members = []authn.Identity{bob, carol}
	_, err := w.Request(t.Context(), starter, ask)
	refused(t, err, refusal.NotPermitted, "nobody else is known in leads")
	if _, err := w.Request(t.Context(), dave, Ask{Target: "orders", Account: "ro", Reason: "by policy"}); err != nil {
		t.Error(err)
	}
}
