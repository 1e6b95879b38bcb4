package grant

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// with is a world whose example was changed.
func with(t *testing.T, change func(c *configs.Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), clocks: newClocks(), config: example()}
	change(w.config)
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) extend(who authn.Identity, id string, by time.Duration) Grant {
	w.t.Helper()
	g, err := w.Extend(context.Background(), who, id, by, "not done yet")
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func TestExtend(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[0].MaxTotal = minutes(75) })
	ctx := t.Context()
	g := w.approved(alice, "app", "orders")
	_, err := w.Extend(ctx, alice, g.ID, time.Minute, "")
	refused(t, err, refusal.Conflict, "only an active grant can be extended")
	w.lease(alice, "app", "orders")
	until := w.row(g.ID).Until

	_, err = w.Extend(ctx, bob, g.ID, time.Minute, "")
	refused(t, err, refusal.NotPermitted, "not yours to extend")
	_, err = w.Extend(ctx, alice, g.ID, -time.Minute, "")
	refused(t, err, refusal.Invalid)
	_, err = w.Extend(ctx, alice, g.ID, 46*time.Minute, "")
	refused(t, err, refusal.NotPermitted, "policy write", "sallyport extend "+g.ID+" --duration 45m")

	// While it waits, the grant goes on to its old end; and it waits for one at a time.
	if g = w.extend(alice, g.ID, 30*time.Minute); g.Extension == nil || g.Extension.Needed != 1 || !g.Until.Equal(until) {
		t.Fatalf("%+v", g)
	}
	_, err = w.Extend(ctx, alice, g.ID, time.Minute, "")
	refused(t, err, refusal.Conflict, "waits already", "30m more wait for approval by leads")
	_, err = w.Approve(ctx, alice, g.ID, "")
	refused(t, err, refusal.NotPermitted, "your own")
	_, err = w.Approve(ctx, carol, g.ID, "")
	refused(t, err, refusal.NotPermitted, "members of leads may")
	if g, err = w.Deny(ctx, bob, g.ID, "hurry up"); err != nil || g.State != Active || g.Extension != nil || !g.Until.Equal(until) {
		t.Fatalf("%+v %v", g, err)
	}

	w.extend(alice, g.ID, 30*time.Minute)
	w.restart()
	l := w.lease(alice, "app", "orders")
	if g, err = w.Approve(ctx, bob, g.ID, "fine"); err != nil || !g.Until.Equal(until.Add(30*time.Minute)) || g.Duration != 30*time.Minute || g.Extension != nil {
		t.Fatalf("%+v %v", g, err)
	}
	if !l.Until().Equal(g.Until) {
		t.Errorf("the lease ends at %s", l.Until())
	}
	_, err = w.Approve(ctx, dave, g.ID, "")
	refused(t, err, refusal.Conflict, "already")
	_, err = w.Extend(ctx, alice, g.ID, 16*time.Minute, "")
	refused(t, err, refusal.NotPermitted, "--duration 15m")

	w.pass(40 * time.Minute)
	if err := l.Live(); err != nil {
		t.Errorf("after its old end: %v", err)
	}
	w.pass(20 * time.Minute)
	if err := l.Live(); err == nil {
		t.Error("it lives after its new end")
	}
	w.state(g.ID, Ended, EndExpired)
	for kind, n := range map[string]int{"grant.extension_requested": 2, "grant.extension_denied": 1, "grant.extended": 1, "extend.refused": 6} {
		if e := w.events(kind); len(e) != n {
			t.Errorf("%d of %s", len(e), kind)
		}
	}
	var votes int
	if err := w.db.Read().QueryRow(`SELECT count(*) FROM grant_votes WHERE round > 0`).Scan(&votes); err != nil || votes != 2 {
		t.Errorf("%d votes on extensions are kept, %v", votes, err)
	}
}

// A vote on an extension counts only while the grant lives and the policy still allows it.
func TestExtensionDecidedLate(t *testing.T) {
	longer := func(c *configs.Config) { c.Policies[0].MaxTotal = minutes(120) }
	w := with(t, longer)
	g := w.approved(alice, "app", "orders")
	w.lease(alice, "app", "orders")
	w.extend(alice, g.ID, time.Hour)
	until := w.row(g.ID).Until
	if err := w.Reload(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	_, err := w.Approve(t.Context(), bob, g.ID, "")
	refused(t, err, refusal.Conflict, "can't be extended by that any more")
	if g = w.row(g.ID); g.State != Active || !g.Until.Equal(until) || g.Extension != nil {
		t.Fatalf("%+v", g)
	}
	longer(w.config)
	if err := w.Reload(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	w.extend(alice, g.ID, time.Hour)
	w.Service.Close() // the keeper, which might be the first to see it
	w.clocks.pass(30 * time.Minute)
	_, err = w.Approve(t.Context(), bob, g.ID, "")
	refused(t, err, refusal.Conflict, "too late")
	w.state(g.ID, Ended, EndExpired)
}

// An extension that would not be in force before the old end is refused: leases are cut then, whatever is being written. One that is
// accepted keeps the sessions that there are.
func TestExtensionInTheLastInstant(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[0].MaxTotal, c.Policies[1].MaxTotal = minutes(120), minutes(600) })
	w.Service.Close() // the keeper, which might be the first to see it
	ctx := t.Context()
	for _, account := range []string{"ro", "app"} {
		g := w.approved(alice, account, "orders")
		l := w.lease(alice, account, "orders")
		if account == "app" {
			w.extend(alice, g.ID, 10*time.Minute)
		}
		decide := func() (Grant, error) {
			if account == "app" {
				return w.Approve(ctx, bob, g.ID, "")
			}
			return w.Extend(ctx, alice, g.ID, 10*time.Minute, "not done yet")
		}
		until := w.row(g.ID).Until
		w.clocks.pass(until.Sub(w.clocks.now()) - lastCall + time.Millisecond)
		_, err := decide()
		refused(t, err, refusal.Conflict, "too late to extend")
		if now := w.row(g.ID); now.State != Active || !now.Until.Equal(until) || now.Extension != nil && len(now.Extension.Votes) > 0 {
			t.Fatalf("%+v", now)
		}
		w.clocks.pass(lastCall)
		if l.Live() == nil {
			t.Error("it lives on")
		}
		if _, err := w.Release(ctx, alice, g.ID); err != nil {
			t.Fatal(err)
		}

		g = w.approved(alice, account, "orders")
		l = w.lease(alice, account, "orders")
		if account == "app" {
			w.extend(alice, g.ID, 10*time.Minute)
		}
		until = w.row(g.ID).Until
		w.clocks.pass(until.Sub(w.clocks.now()) - lastCall)
		if _, err := decide(); err != nil {
			t.Fatal(err)
		}
		w.clocks.pass(2 * lastCall)
		if err := errors.Join(w.tick(ctx), l.Live()); err != nil {
			t.Error(err)
		}
		if _, err := w.Release(ctx, alice, g.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// What was changed while it was judged is judged again, and ends where it has to: an identity that is gone must not keep a grant because
// it was extended in that moment.
func TestWhatChangesWhileItIsJudged(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[1].MaxTotal = minutes(600) })
	g := w.approved(alice, "ro", "orders")
	l := w.lease(alice, "ro", "orders")
	other := w.approved(dave, "ro", "orders")
	w.lease(dave, "ro", "orders")
	changed := map[string]bool{}
	err := w.review(t.Context(), func(r *row) (Grant, bool) {
		if !changed[r.grant.ID] {
			changed[r.grant.ID] = true
			w.extend(r.grant.Identity, r.grant.ID, time.Hour)
		} else if r.grant.ID == other.ID {
			return r.grant, false // of this one, it made the difference
		}
		now := r.grant.clone()
		now.end(Ended, w.clocks.now(), EndIdentityGone, system, "left")
		return now, true
	})
	if err != nil {
		t.Fatal(err)
	}
	w.state(g.ID, Ended, EndIdentityGone)
	w.state(other.ID, Active, "")
	if l.Live() == nil {
		t.Error("it lives on")
	}
	w.lease(dave, "ro", "orders")
}

// A grant that ended in the store without memory knowing of it, because the answer to a commit got lost, leaves memory too.
func TestEndThatMemoryMissed(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
	g = w.row(g.ID)
	ended := g.clone()
	ended.end(Ended, w.clocks.now(), EndRevoked, "Carol", "")
	if err := w.db.Do(t.Context(), func(tx *store.Tx) error { _, err := save(t.Context(), tx, g, ended); return err }); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * time.Hour)
	if left := w.entries(); len(left) > 0 {
		t.Errorf("memory still has %+v", left[0].row.Load().grant)
	}
	w.state(g.ID, Ended, EndRevoked)
}

func TestExtendByPolicy(t *testing.T) {
	w := with(t, func(c *configs.Config) {
		c.Policies[1].MaxTotal, c.Policies[1].Hours = minutes(600), []string{"tue 08:00-13:30 UTC"}
	})
	g := w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
	if g = w.extend(alice, g.ID, 30*time.Minute); g.Until.Sub(g.From) != 90*time.Minute || g.Extension != nil {
		t.Fatalf("%+v", g)
	}
	_, err := w.Extend(t.Context(), alice, g.ID, time.Minute, "")
	refused(t, err, refusal.NotPermitted, "until 2026-11-24 13:30:00 UTC at the latest")
}

func TestHours(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[1].Hours = []string{"tue 11:00-12:30 UTC", "wed 11:00-12:30 UTC"} })
	g := w.approved(alice, "ro", "orders")
	l := w.lease(alice, "ro", "orders")
	if g = w.row(g.ID); g.Until.Sub(g.From) != 30*time.Minute {
		t.Fatalf("until %s", g.Until)
	}
	w.clocks.pass(30 * time.Minute)
	if err := l.Live(); err == nil || !strings.Contains(err.Error(), "hours of policy read are over") {
		t.Error(err)
	}
	w.pass(0)
	w.state(g.ID, Ended, EndWindowClosed)
	_, err := w.Request(t.Context(), alice, Ask{Target: "orders", Account: "ro", Reason: "x"})
	refused(t, err, refusal.NotPermitted, "it holds tue 11:00-12:30 UTC or wed 11:00-12:30 UTC, next from 2026-11-25 11:00 UTC")

	// One that was approved in time but is used too late is not let in, and can be used when they come again.
	w.pass(23*time.Hour + 15*time.Minute)
	g = w.approved(alice, "ro", "orders")
	w.pass(45 * time.Minute)
	_, err = w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "does not let you in now", "it holds tue")
	w.state(g.ID, Approved, "")

	// Hours that shrink end what is out of them.
	g = w.approved(dave, "app", "orders")
	l = w.lease(dave, "app", "orders")
	c := example()
	c.Policies[0].Hours = []string{"mon 00:00-01:00 UTC"}
	if err := w.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.state(g.ID, Ended, EndWindowClosed)
	if l.Live() == nil {
		t.Error("the lease lives")
	}
}

func TestIdle(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[1].Idle = minutes(10) })
	g := w.approved(alice, "ro", "orders")
	w.pass(30 * time.Minute) // it is not idle before it began
	a, b := w.lease(alice, "ro", "orders"), w.lease(alice, "ro", "orders")
	w.pass(11 * time.Minute)
	a.Return()
	w.pass(11 * time.Minute)
	b.Return()
	b.Return()
	w.pass(9 * time.Minute)
	a = w.lease(alice, "ro", "orders")
	w.pass(5 * time.Minute)
	a.Return()
	w.pass(9 * time.Minute)
	w.state(g.ID, Active, "")
	w.clocks.pass(time.Minute)
	_, err := w.Lease(t.Context(), alice, "orders", "ro") // whether or not the keeper has looked
	refused(t, err, refusal.NoGrant, "no live grant")
	w.pass(0)
	w.state(g.ID, Ended, EndIdle)
	_, err = w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "it had no session for 10m")
}

// TestInUse: whoever works under a grant without a session keeps it from being idle, and nothing else of it, and nobody
// else's.
func TestInUse(t *testing.T) {
	w := with(t, func(c *configs.Config) { c.Policies[1].Idle = minutes(10) })
	g := w.approved(alice, "ro", "orders")
	refused(t, w.InUse(t.Context(), alice, g.ID), refusal.Conflict, "is not active")
	w.lease(alice, "ro", "orders").Return()
	until := w.row(g.ID).Until
	for range 3 {
		w.pass(9 * time.Minute)
		refused(t, w.InUse(t.Context(), bob, g.ID), refusal.NotPermitted, "is not yours")
		if err := w.InUse(t.Context(), alice, g.ID); err != nil {
			t.Fatal(err)
		}
	}
	if now := w.row(g.ID); now.State != Active || !now.Until.Equal(until) {
		t.Errorf("it ends at %s instead of %s", now.Until, until)
	}
	w.clocks.pass(10 * time.Minute)
	refused(t, w.InUse(t.Context(), alice, g.ID), refusal.Conflict, "is not active") // whether or not the keeper has looked
	w.pass(0)
	w.state(g.ID, Ended, EndIdle)
	refused(t, w.InUse(t.Context(), alice, g.ID), refusal.NotFound, "no open grant")
}

// What a policy says of a connection keeps that one out; what it says of the grant ends it.
func TestConditionsAtTheDoor(t *testing.T) {
	w := with(t, func(c *configs.Config) {
		c.Policies[1].When = `identity.age <= duration("1h") && cidr("10.0.0.0/8").containsIP(source.address)`
	})
	from := func(address string) context.Context {
		return WithSource(t.Context(), &net.TCPAddr{IP: net.ParseIP(address), Port: 1})
	}
	who := alice
	who.SignedIn = w.clocks.now()
	ask := Ask{Target: "orders", Account: "ro", Reason: "x", Ticket: "OPS-1", Duration: 8 * time.Hour}
	_, err := w.Request(from("192.168.0.1"), who, ask)
	refused(t, err, refusal.NotPermitted, `its condition does not hold: cidr("10.0.0.0/8").containsIP(source.address)`)
	_, err = w.Request(t.Context(), who, ask)
	refused(t, err, refusal.NotPermitted, "its condition can't be worked out")
	g, err := w.Request(from("10.1.1.1"), who, ask)
	if err != nil || g.Ticket != "OPS-1" || g.Source.String() != "10.1.1.1" {
		t.Fatal(g, err)
	}
	l, err := w.Lease(from("10.2.2.2"), who, "orders", "ro")
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Lease(from("192.168.0.1"), who, "orders", "ro")
	refused(t, err, refusal.NoGrant, "grant "+g.ID+" for ro@orders does not let you in now", "cidr(")
	w.pass(2 * time.Hour)
	_, err = w.Lease(from("10.2.2.2"), who, "orders", "ro")
	refused(t, err, refusal.NoGrant, "does not let you in now", `identity.age <= duration("1h")`)
	// Time alone ends nothing, and the condition is held against what the grant began with.
	if err := w.Reload(t.Context(), w.config); err != nil || l.Live() != nil {
		t.Fatal(err, l.Live())
	}

	forbids := func(when string) *configs.Config {
		c := example()
		c.Policies = append(c.Policies, configs.Policy{Name: "freeze", Effect: configs.Forbid, Accounts: []string{"*@orders"}, When: when, Message: "Frozen until Friday."})
		return c
	}
	if err := w.Reload(t.Context(), forbids(`request.time >= timestamp("2026-11-24T14:01:30Z")`)); err != nil {
		t.Fatal(err)
	}
	w.pass(80 * time.Second)
	w.state(g.ID, Active, "")
	w.pass(80 * time.Second)
	w.state(g.ID, Ended, EndForbidden)
	if _, why := l.Why(); !strings.Contains(why, "policy freeze forbids it: Frozen until Friday.") {
		t.Error(why)
	}
	_, err = w.Request(t.Context(), who, ask)
	refused(t, err, refusal.NotPermitted, "policy freeze forbids it: Frozen until Friday.")
	_, err = w.Lease(t.Context(), who, "orders", "app")
	refused(t, err, refusal.NoGrant, "Frozen until Friday.")
}

// A configuration with a condition that is none changes nothing.
func TestReloadWithMistakes(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	c := example()
	c.Policies = c.Policies[1:]
	c.Policies[0].When = "identity.nothing"
	err := w.Reload(t.Context(), c)
	if _, ok := errors.AsType[configs.Problems](err); !ok {
		t.Fatal(err)
	}
	w.state(g.ID, Approved, "")
	w.lease(alice, "app", "orders")
}

// The grants of a gateway from before extensions live on.
func TestMigration(t *testing.T) {
	dir := t.TempDir()
	first, err := os.ReadFile("migrations/00001_grants.sql")
	if err != nil {
		t.Fatal(err)
	}
	before := t.TempDir()
	if err := os.WriteFile(filepath.Join(before, "00001_grants.sql"), first, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := storetest.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Migrate(t.Context(), "grant", os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	clocks := newClocks()
	now := clocks.now().UnixNano()
	err = db.Do(t.Context(), func(tx *store.Tx) error {
		for _, statement := range []string{
			`INSERT INTO grants VALUES ('g-000001', 3, 'active', 'https://login.example', 'sub-alice', '{"issuer":"https://login.example","subject":"sub-alice","groups":["engineers"]}',
				'orders', 'app', 'because', 'write', 1800000000000, 1, '["leads"]', NOW, NOW, NOW, NOW, NOW + 1800000000000, 0, '', '', '')`,
			`INSERT INTO grant_votes VALUES ('g-000001', 'https://login.example', 'sub-bob', 'Bob', '["leads"]', 1, '', NOW)`,
			`UPDATE grant_clock SET high = NOW`,
		} {
			if _, err := tx.Exec(strings.ReplaceAll(statement, "NOW", strconv.FormatInt(now, 10))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	w := &world{t: t, dir: dir, clocks: clocks, config: example()}
	w.start()
	defer w.stop()
	w.lease(alice, "app", "orders")
	if g := w.row("g-000001"); g.Total != g.Duration || len(g.Votes) != 1 || g.Votes[0].Name != "Bob" || g.Version != 3 {
		t.Errorf("%+v", g)
	}
	_, err = w.Extend(t.Context(), alice, "g-000001", time.Minute, "")
	refused(t, err, refusal.NotPermitted, "when it has ended, ask again")
}
