package grant

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

func TestLiveAllocatesNothing(t *testing.T) {
	s := storetest.New(t, t.TempDir())
	grants, err := Open(t.Context(), example(), s, nil) // the real clocks
	if err != nil {
		t.Fatal(err)
	}
	defer grants.Close()
	if _, err := grants.Request(t.Context(), alice, Ask{Target: "orders", Account: "ro", Reason: "because"}); err != nil {
		t.Fatal(err)
	}
	l, err := grants.Lease(t.Context(), alice, "orders", "ro")
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if err := l.Live(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

// Live sees a revocation the moment it is committed, although nobody listens to Ended, and does so while a transaction
// holds the store.
func TestRevocationIsSeenAtOnce(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	l := w.lease(alice, "app", "orders")
	asked := make(chan time.Time, 1) // when it was asked for the last time that it was live
	go func() {
		var last time.Time
		for began := time.Now(); l.Live() == nil; began = time.Now() {
			last = began
		}
		asked <- last
	}()
	if _, err := w.Revoke(t.Context(), carol, g.ID, ""); err != nil {
		t.Fatal(err)
	}
	returned := time.Now()
	if l.Live() == nil {
		t.Fatal("live after Revoke returned")
	}
	if last := <-asked; last.After(returned) {
		t.Errorf("live to who asked %s after Revoke returned", last.Sub(returned))
	}
	err := w.db.Do(t.Context(), func(*store.Tx) error {
		start := time.Now()
		l.Live()
		if took := time.Since(start); took > 5*time.Second { // who waits for the store would do so until this function has returned
			return fmt.Errorf("Live waited %s for the store", took)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func waitEnded(t *testing.T, l *Lease) {
	t.Helper()
	select {
	case <-l.Ended():
	case <-time.After(20 * time.Second):
		t.Fatal("the lease did not end")
	}
}

func TestTimerCutsOnTime(t *testing.T) {
	s := storetest.New(t, t.TempDir())
	grants, err := Open(t.Context(), example(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer grants.Close()
	if _, err := grants.Request(t.Context(), alice, Ask{Target: "orders", Account: "ro", Duration: 1500 * time.Millisecond, Reason: "because"}); err != nil {
		t.Fatal(err)
	}
	l, err := grants.Lease(t.Context(), alice, "orders", "ro")
	if err != nil {
		t.Fatal(err)
	}
	waitEnded(t, l)
	if late := time.Since(l.Until()); late < 0 || late > 5*time.Second {
		t.Errorf("cut %s after its end", late)
	}
}

// A wall clock set forward moves no timer; the keeper looks at it all the same.
func TestWallClockSetForwardCuts(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	l := w.lease(alice, "app", "orders")
	w.clocks.set(24 * time.Hour)
	waitEnded(t, l)
	w.clocks.set(-24 * time.Hour)
	refused(t, l.Live(), refusal.NoGrant, "expired")
	deadline := time.Now().Add(20 * time.Second)
	for w.row(g.ID).State != Ended {
		if time.Now().After(deadline) {
			t.Fatal("not written down")
		}
		time.Sleep(time.Millisecond)
	}
}

// Live itself cuts by either clock, before any timer, and does not take it back.
func TestLiveNeedsNoTimer(t *testing.T) {
	for name, change := range map[string]func(*clocks, time.Duration){
		"set forward": func(c *clocks, sign time.Duration) { c.set(sign * 24 * time.Hour) },
		"set back, and over": func(c *clocks, sign time.Duration) {
			c.set(-24 * time.Hour)
			c.pass(max(0, sign) * 30 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.approved(alice, "app", "orders")
			l := w.lease(alice, "app", "orders")
			w.Service.Close()
			change(w.clocks, 1)
			refused(t, l.Live(), refusal.NoGrant, "expired")
			change(w.clocks, -1)
			refused(t, l.Live(), refusal.NoGrant, "expired")
			waitEnded(t, l)
			if reason, _ := l.Why(); reason != EndExpired {
				t.Errorf("why: %q", reason)
			}
		})
	}
}

func TestClockSetBack(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	l := w.lease(alice, "app", "orders")
	unused := w.approved(alice, "ro", "orders")
	w.pass(10 * time.Minute)
	w.clocks.set(-2 * time.Hour)
	if err := l.Live(); err != nil {
		t.Fatalf("a running lease has its own clock: %v", err)
	}
	_, err := w.Lease(ctx, alice, "orders", "app")
	refused(t, err, refusal.NotPermitted, "clock is behind", "2026-11-24 10:10:00 UTC", "2026-11-24 12:10:00 UTC")
	_, err = w.Lease(ctx, alice, "orders", "ro")
	refused(t, err, refusal.NotPermitted, "clock is behind")
	_, err = w.Request(ctx, job, Ask{Target: "orders", Account: "ro", Reason: "because"})
	refused(t, err, refusal.NotPermitted, "clock is behind")
	w.request(dave, "app", "orders") // to wait is no harm
	w.pass(19 * time.Minute)
	if err := l.Live(); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	refused(t, l.Live(), refusal.NoGrant, "expired")
	w.state(g.ID, Ended, EndExpired)
	if ended := w.row(g.ID); ended.EndedAt.Before(ended.From) {
		t.Errorf("ended before it began: %+v", ended)
	}
	w.pass(40 * time.Minute)
	w.state(unused.ID, Lapsed, "")
	w.restart() // what was seen before is still known
	_, err = w.Lease(ctx, alice, "orders", "ro")
	refused(t, err, refusal.NotPermitted, "clock is behind")
	w.clocks.set(2 * time.Hour)
	w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
}

func TestRestart(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	until := w.lease(alice, "app", "orders").Until()
	w.pass(20 * time.Minute)
	w.restart()
	l := w.lease(alice, "app", "orders")
	if !l.Until().Equal(until) {
		t.Fatalf("until %s became %s", until, l.Until())
	}
	w.clocks.set(-time.Hour) // the clock that can't be set goes on
	w.clocks.pass(10 * time.Minute)
	refused(t, l.Live(), refusal.NoGrant, "expired")
	w.clocks.set(time.Hour)
	w.pass(0)
	w.state(g.ID, Ended, EndExpired)

	g = w.approved(alice, "app", "orders")
	w.lease(alice, "app", "orders")
	w.clocks.pass(4 * time.Second)
	w.stop()
	w.clocks.set(-4 * time.Second)
	w.start()
	w.state(g.ID, Ended, EndClockWentBack)
	w.clocks.set(4 * time.Second)
	_, err := w.Lease(t.Context(), alice, "orders", "app")
	refused(t, err, refusal.NoGrant, "ended because the gateway's clock went back")

	g = w.approved(alice, "app", "orders")
	w.lease(alice, "app", "orders")
	w.stop()
	w.clocks.pass(time.Hour)
	w.start()
	w.state(g.ID, Ended, EndExpired)
}

// An old copy of the store gives back nothing that was used up or taken away since; a short outage costs nothing.
func TestOldBackup(t *testing.T) {
	w := newWorld(t)
	active := w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
	approved := w.approved(job, "ro", "orders")
	waits := w.request(alice, "app", "orders")
	w.stop()
	restore := storetest.Copy(t, w.dir)
	w.clocks.pass(9 * time.Minute)
	w.start()
	w.state(active.ID, Active, "")
	w.state(approved.ID, Approved, "")
	for id, who := range map[string]authn.Identity{active.ID: carol, approved.ID: job} {
		if _, err := w.Revoke(t.Context(), who, id, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.clocks.pass(2 * time.Minute)
	w.stop()
	restore()
	w.start()
	w.state(active.ID, Ended, EndStoreLost)
	w.state(approved.ID, Ended, EndStoreLost)
	w.state(waits.ID, Pending, "")
	_, err := w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "its store is a copy, since 2026-11-24 12:00:00 UTC")
}

// What a crash forgets of the time is seconds.
func TestCrashAndClockSetBack(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	w.lease(alice, "app", "orders")
	for range 4 {
		w.pass(saveEvery)
	}
	w.db.Close() // so that nothing is written at the end
	w.clocks.set(-4*saveEvery + 2*time.Second)
	w.Service.Close()
	w.start()
	w.state(g.ID, Ended, EndClockWentBack)
}

// A row read again while the wall clock is right again, after it was behind, has the deadline it had.
func TestDeadlineIsSetOnce(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	l := w.lease(alice, "app", "orders")
	w.clocks.set(-20 * time.Minute)
	w.pass(20 * time.Minute)
	w.transitions.Lock()
	w.refresh(g.ID)
	w.transitions.Unlock()
	if err := l.Live(); err != nil {
		t.Fatal(err)
	}
	w.clocks.pass(10 * time.Minute)
	refused(t, l.Live(), refusal.NoGrant, "expired")
}

func TestGroupsLost(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	who := alice
	who.SignedIn = w.clocks.now()
	g := w.approved(who, "app", "orders")
	l := w.lease(who, "app", "orders")
	old := who
	old.Groups, old.SignedIn = nil, who.SignedIn.Add(-time.Hour)
	_, err := w.Lease(ctx, old, "orders", "app")
	refused(t, err, refusal.NoGrant, "it is for members of engineers", "sallyport login")
	if err := l.Live(); err != nil {
		t.Fatalf("an old certificate ended a grant: %v", err)
	}
	anew := who
	anew.Groups, anew.SignedIn = []string{"sales"}, who.SignedIn.Add(time.Hour)
	_, err = w.Lease(ctx, anew, "orders", "app")
	refused(t, err, refusal.NoGrant, "it is for members of engineers")
	w.state(g.ID, Ended, EndPolicyRemoved)
	if l.Live() == nil {
		t.Error("live although the groups are gone")
	}
	// The same before the first use.
	g = w.approved(who, "app", "orders")
	_, err = w.Lease(ctx, old, "orders", "app")
	refused(t, err, refusal.NoGrant, "it is for members of engineers")
	w.state(g.ID, Approved, "")
	_, err = w.Lease(ctx, anew, "orders", "app")
	refused(t, err, refusal.NoGrant)
	w.state(g.ID, Ended, EndPolicyRemoved)
}

func TestLeaseRefusals(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	_, err := w.Lease(ctx, alice, "nowhere", "app")
	refused(t, err, refusal.UnknownTarget, "sallyport targets")
	_, err = w.Lease(ctx, alice, "orders", "nobody")
	refused(t, err, refusal.UnknownAccount, "sallyport targets")
	_, err = w.Lease(ctx, alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "no live grant for ro@orders", "you have not asked for one", `sallyport request ro@orders --duration 30m --reason "…"`)
	_, err = w.Lease(ctx, alice, "web-1", "deploy")
	refused(t, err, refusal.NoGrant, `sallyport request deploy@web-1 --duration 20m --reason "…"`)
	_, err = w.Lease(ctx, carol, "orders", "app")
	refused(t, err, refusal.NoGrant, "no policy lets you ask for one", "members of engineers may ask for app@orders")
	_, err = w.Lease(ctx, alice, "orders", "owner")
	refused(t, err, refusal.NoGrant, "nobody may have owner@orders")
	if n := len(w.events("session.refused")); n != 6 {
		t.Errorf("%d audited, want 6", n)
	}
}

func TestReturnLeavesTheGrant(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	l, other := w.lease(alice, "app", "orders"), w.lease(alice, "app", "orders")
	l.Return()
	l.Return()
	if l.Live() == nil {
		t.Error("live after it was returned")
	}
	if err := other.Live(); err != nil {
		t.Error(err)
	}
	w.state(g.ID, Active, "")
}

// When the store is lost, nobody can say what was revoked, so nobody stays.
func TestLostStoreCuts(t *testing.T) {
	w := newWorld(t)
	w.approved(alice, "app", "orders")
	l := w.lease(alice, "app", "orders")
	w.db.Close()
	for range 7 {
		if err := l.Live(); err != nil {
			t.Fatalf("cut after too short a time: %v", err)
		}
		w.clocks.pass(5 * time.Second)
		w.tick(t.Context())
	}
	waitEnded(t, l)
	if reason, sentence := l.Why(); reason != EndStoreLost || !strings.Contains(sentence, "lost its store") {
		t.Errorf("%q %q", reason, sentence)
	}
	if _, err := w.Lease(t.Context(), dave, "orders", "app"); err == nil {
		t.Error("let in without a store")
	}
}

func TestManyExpiredGrantsDoNotDelayTheStart(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
	err := w.db.Do(t.Context(), func(tx *store.Tx) error {
		row := w.row(g.ID)
		for i := range manyGrants {
			row.ID = fmt.Sprintf("g-%06d", i)
			row.Identity.Subject = fmt.Sprint("sub-", i)
			if err := insert(t.Context(), tx, row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.clocks.pass(24 * time.Hour)
	start := time.Now()
	w.start()
	if took := time.Since(start); took > time.Minute { // less than a second, on a machine with nothing else to do
		t.Errorf("the start took %s", took)
	}
	var open int
	if err := w.db.Read().QueryRow(`SELECT count(*) FROM grants WHERE ` + isOpen).Scan(&open); err != nil || open != 0 {
		t.Errorf("%d are still open, %v", open, err)
	}
	if e := len(w.events("grant.ended")); e != manyGrants+1 {
		t.Errorf("%d endings audited", e)
	}
}

// The table itself refuses what would lengthen a grant, make a second one, or count a vote twice.
func TestTableRefuses(t *testing.T) {
	w := newWorld(t)
	g := w.approved(alice, "app", "orders")
	w.lease(alice, "app", "orders")
	for _, statement := range []string{
		`UPDATE grants SET until = until + 1`,
		`UPDATE grants SET state = 'forever'`,
		`UPDATE grants SET until = 0`,
		`UPDATE grants SET until = started + total + 1, extensions = 1`,
		`UPDATE grants SET total = duration - 1`,
		`INSERT INTO grants SELECT 'g-1', version, state, issuer, subject, identity, source, target, account, reason, ticket, policy, duration,
			total, idle, needed, may_approve, requested, decide_by, activate_by, started, until, extensions, extension, ended_at, end_reason,
			ended_by, end_comment, terms FROM grants`,
		`INSERT INTO grant_votes SELECT * FROM grant_votes`,
	} {
		err := w.db.Do(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(statement)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "constraint") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	w.state(g.ID, Active, "")
}
