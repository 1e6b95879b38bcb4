package grant

import (
	"context"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/policy"
	"sallyport/internal/store"
)

// machine plays everything that can happen to grants against a real store, with clocks that do as they please, and
// knows the one true time, which only it can see.
type machine struct {
	*world
	truth   time.Duration // that has really passed
	highest time.Time     // the latest wall-clock time that was there to see

	leases map[string][]*Lease
	began  map[string]time.Duration // truth at the first use
	used   map[string]time.Duration // truth when a lease was last held, or the process began
	seen   map[string]Grant         // rows after the last step
	slack  time.Duration            // what crashes may have lost
}

var people = []authn.Identity{alice, bob, dave, carol, job}

var wanted = [][2]string{{"app", "orders"}, {"ro", "orders"}, {"deploy", "web-1"}, {"owner", "orders"}}

// grant draws a grant, most times one that is not over and in that state.
func (m *machine) grant(t *rapid.T, state State) Grant {
	var some []Grant
	for _, id := range slices.Sorted(maps.Keys(m.seen)) {
		if m.seen[id].State == state {
			some = append(some, m.seen[id])
		}
	}
	if len(some) == 0 || rapid.IntRange(0, 9).Draw(t, "any") == 0 {
		some = slices.Collect(maps.Values(m.seen))
		slices.SortFunc(some, func(a, b Grant) int { return strings.Compare(a.ID, b.ID) })
	}
	if len(some) == 0 {
		t.Skip("no grant yet")
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(t, "grant")]
}

func who(t *rapid.T) authn.Identity { return rapid.SampledFrom(people).Draw(t, "who") }

func (m *machine) actions() map[string]func(*rapid.T) {
	ctx := context.Background()
	// only tells that nothing but this grant, and its votes, may change by an act on it (I7).
	only := func(t *rapid.T, id string, act func()) {
		m.settle(t)
		before := m.rows(t)
		act()
		for other, g := range m.rows(t) {
			if other != id && g.Version != before[other].Version {
				t.Fatalf("an act on %s changed %s", id, other)
			}
		}
	}
	return map[string]func(*rapid.T){
		"request": func(t *rapid.T) {
			w := rapid.SampledFrom(wanted).Draw(t, "what")
			d := time.Duration(rapid.SampledFrom([]int{0, 1, 2, 5, 9, 61, 90}).Draw(t, "minutes")) * time.Minute
			m.Request(ctx, who(t), Ask{Target: w[1], Account: w[0], Duration: d, Reason: "because", Ticket: "OPS-1"})
		},
		"extend": func(t *rapid.T) {
			g := m.grant(t, Active)
			d := time.Duration(rapid.SampledFrom([]int{1, 5, 30, 61}).Draw(t, "minutes")) * time.Minute
			only(t, g.ID, func() { m.Extend(ctx, g.Identity, g.ID, d, "not done yet") })
			if rapid.Bool().Draw(t, "voted on") {
				by := who(t)
				only(t, g.ID, func() { m.Approve(ctx, by, g.ID, "") })
			}
		},
		"disconnect": func(t *rapid.T) {
			g := m.grant(t, Active)
			m.disconnect(g.ID)
		},
		"approve": func(t *rapid.T) {
			for range 2 {
				g, by := m.grant(t, rapid.SampledFrom([]State{Pending, Pending, Active}).Draw(t, "state")), who(t)
				only(t, g.ID, func() { m.Approve(ctx, by, g.ID, "") })
			}
		},
		"end": func(t *rapid.T) {
			g, by := m.grant(t, rapid.SampledFrom([]State{Pending, Approved, Active}).Draw(t, "state")), who(t)
			only(t, g.ID, func() {
				switch rapid.IntRange(0, 2).Draw(t, "how") {
				case 0:
					m.Deny(ctx, by, g.ID, "")
				case 1:
					m.Revoke(ctx, by, g.ID, "")
				case 2:
					m.Release(ctx, by, g.ID)
				}
			})
		},
		"take a vote back": func(t *rapid.T) {
			g := m.grant(t, rapid.SampledFrom([]State{Pending, Pending, Approved, Active}).Draw(t, "state"))
			by := who(t)
			if len(g.Votes) > 0 {
				v := rapid.SampledFrom(g.Votes).Draw(t, "whose")
				by = authn.Identity{Issuer: v.Issuer, Subject: v.Subject, Name: v.Name, Kind: authn.Human}
			}
			only(t, g.ID, func() { m.Withdraw(ctx, by, g.ID, "") })
		},
		"connect": func(t *rapid.T) {
			g := m.grant(t, Approved)
			m.connect(g.Identity, g.Account, g.Target)
		},
		"time passes": func(t *rapid.T) {
			// In steps as long as the keeper sleeps, so that it sees what it would see.
			step, steps := saveEvery, rapid.IntRange(1, 60).Draw(t, "steps")
			if steps == 60 {
				step = 5 * time.Minute // asleep, or all of it would take too long to test
			}
			for range steps {
				m.truth += step
				m.clocks.pass(step)
				m.watch()
				if err := m.tick(ctx); err != nil {
					t.Fatal(err)
				}
			}
		},
		"wall clock is set": func(t *rapid.T) {
			d := time.Duration(rapid.IntRange(-7200, 3600).Draw(t, "seconds")) * time.Second
			if rapid.Bool().Draw(t, "nudged only") {
				d /= 3600
			}
			m.clocks.set(d)
			m.watch()
			m.tick(ctx)
		},
		"restart": func(t *rapid.T) {
			if rapid.Bool().Draw(t, "crash") {
				// As much as a crash can leave undone: the service never hears of it, and what the clock showed since it was
				// last written down is forgotten. That is never more than saveEvery while grants are open, which P3 is held to.
				close(m.keeper.stop)
				<-m.keeper.stopped
				m.keeper.stopOnce.Do(func() {})
				var err error
				if m.highest, err = loadHigh(ctx, m.db.Read()); err != nil {
					t.Fatal(err)
				}
				m.db.Close()
				m.slack += saveEvery
			} else {
				m.stop()
			}
			d := time.Duration(rapid.IntRange(0, 300).Draw(t, "seconds off")) * time.Second
			m.clocks.pass(d)
			if rapid.Bool().Draw(t, "clock set back meanwhile") {
				// That nobody can tell from having been off for less long; but then nobody was let in meanwhile either.
				m.clocks.set(-time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds back")) * time.Second)
			} else {
				m.truth += d
			}
			m.begin(t)
			m.watch()
		},
		"the configuration changes": func(t *rapid.T) {
			c := exacting()
			if rapid.IntRange(0, 3).Draw(t, "without a policy") == 0 {
				i := rapid.IntRange(0, 2).Draw(t, "policy")
				c.Policies = slices.Delete(c.Policies, i, i+1)
			}
			if rapid.Bool().Draw(t, "fewer approvers") {
				for i := range c.Policies {
					if c.Policies[i].Name == "ship" {
						c.Policies[i].Approve.Groups = []string{"leads"}
					}
				}
			}
			if i := slices.IndexFunc(c.Policies, func(p configs.Policy) bool { return p.Name == "own" }); i >= 0 {
				stages := &c.Policies[i].Approve.Stages
				switch rapid.IntRange(0, 5).Draw(t, "stages") {
				case 0:
					*stages = append(slices.Clone(*stages), configs.Stage{Name: "3", Groups: []string{"leads"}})
				case 1:
					(*stages)[1].Groups = []string{"security"}
				}
			}
			if rapid.IntRange(0, 3).Draw(t, "forbids") == 0 {
				c.Policies = append(c.Policies, configs.Policy{Name: "freeze", Effect: configs.Forbid, Accounts: []string{"app@*"}, Groups: []string{"leads"}})
			}
			m.config = c
			if err := m.Reload(ctx, c); err != nil {
				t.Fatal(err)
			}
		},
		"": m.check,
	}
}

// watch notes the wall-clock time; it is read through the service, so the service has seen it too.
func (m *machine) watch() {
	wall, _ := m.clock.read()
	if wall.After(m.highest) {
		m.highest = wall
	}
}

// begin starts the service as a new process: on another clock that can't be set, and without any lease.
func (m *machine) begin(t *rapid.T) {
	m.clocks.mu.Lock()
	m.clocks.mono = 0
	m.clocks.mu.Unlock()
	m.start()
	m.leases = map[string][]*Lease{}
	for id := range m.used {
		m.used[id] = m.truth
	}
	m.settle(t)
}

// settle lets everything happen that the time has brought about.
func (m *machine) settle(t *rapid.T) {
	if err := m.tick(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// sound is I13's condition, worked out apart from the code under test.
func (m *machine) sound() bool { return m.highest.Sub(m.clocks.now()) <= 2*time.Second }

func (m *machine) connect(who authn.Identity, account, target string) {
	if l, err := m.Lease(context.Background(), who, target, account); err == nil {
		if _, used := m.began[l.Grant.ID]; !used {
			m.began[l.Grant.ID] = m.truth
		}
		m.leases[l.Grant.ID] = append(m.leases[l.Grant.ID], l)
		m.used[l.Grant.ID] = m.truth
	}
}

func (m *machine) disconnect(id string) {
	if len(m.leases[id]) > 0 {
		m.used[id] = m.truth
	}
	for _, l := range m.leases[id] {
		l.Return()
	}
	delete(m.leases, id)
}

func (m *machine) rows(t *rapid.T) map[string]Grant {
	grants, err := query(context.Background(), m.db.Read(), 100000, `WHERE true`)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]Grant{}
	for _, g := range grants {
		rows[g.ID] = g
	}
	return rows
}

// check is the invariants.
func (m *machine) check(t *rapid.T) {
	m.watch()
	rows := m.rows(t)
	for id, g := range rows {
		old, known := m.seen[id]
		m.checkRow(t, g)
		if !known {
			old = Grant{State: Pending}
		}
		if known && old.State.Over() && g.Version != old.Version {
			t.Fatalf("I4: %s was %s and is %s", id, old.State, g.State)
		}
		if known && (g.Version < old.Version || g.Identity.Key() != old.Identity.Key() || g.Target != old.Target || g.Account != old.Account || g.Reason != old.Reason || g.Duration != old.Duration) {
			t.Fatalf("what never changes changed:\n%+v\n%+v", old, g)
		}
		if known && !old.Until.IsZero() && !g.From.Equal(old.From) {
			t.Fatalf("P3: %s: its beginning moved from %s to %s", id, old.From, g.From)
		}
		if known && !old.Until.IsZero() && !g.Until.Equal(old.Until) {
			m.checkExtended(t, old, g)
		}
		if began := (g.State == Approved || g.State == Active) && g.State != old.State; began && !m.sound() {
			t.Fatalf("I13: %s became %s while the clock showed %s after %s", id, g.State, m.clocks.now(), m.highest)
		}
	}
	m.checkTime(t, rows)
	m.checkIdle(t, rows)
	m.checkAudit(t, rows)
	m.seen = rows
}

// checkRow is what must hold of a row alone.
func (m *machine) checkRow(t *rapid.T, g Grant) {
	var p configs.Policy
	for _, each := range exacting().Policies {
		if each.Name == g.Policy {
			p = each
		}
	}
	if total := max(p.MaxDuration, p.MaxTotal).D(); g.Duration > p.MaxDuration.D() || g.Total > total || g.Until.After(g.From.Add(total)) ||
		g.Extensions == 0 && g.Until.After(g.From.Add(g.Duration)) {
		t.Fatalf("I3: longer than allowed: %+v", g)
	}
	if (g.State == Active || g.State == Approved) && (len(g.Approvers()) < max(1, policy.Needed(p)) || g.Needed > 0 && !enough(g, p)) {
		t.Fatalf("I9: approved by %v: %+v", g.Approvers(), g)
	}
	voters := map[string]bool{}
	for _, v := range g.Votes {
		if v.key() == g.Identity.Key() {
			t.Fatalf("I8: own vote: %+v", g)
		}
		if voters[v.key()] {
			t.Fatalf("I10: two votes: %+v", g)
		}
		voters[v.key()] = true
		if !policy.InAny(g.voters[v.key()], policy.Approving(p)) {
			t.Fatalf("I9: a vote by %s, who may not: %+v", v.Name, g)
		}
	}
}

// enough is whether a grant has the approvals that a policy asks for at each of its stages, worked out apart from the code under
// test.
func enough(g Grant, p configs.Policy) bool {
	for i, s := range policy.Stages(p) {
		n := 0
		for _, v := range g.Votes {
			if v.Approve && v.Stage == i+1 && policy.InAny(g.voters[v.key()], s.Groups) {
				n++
			}
		}
		if n < s.Count {
			return false
		}
	}
	return true
}

// checkTime is P3 by the one true time: whoever holds a lease, and whoever connects again.
func (m *machine) checkTime(t *rapid.T, rows map[string]Grant) {
	for _, p := range people {
		for _, w := range wanted {
			if w[0] == "ro" { // nobody connects by itself where being idle ends a grant
				continue
			}
			if e := m.openOf(p, w[1], w[0]); e != nil && e.row.Load().grant.State == Active {
				m.connect(p, w[0], w[1])
			}
		}
	}
	for id, leases := range m.leases {
		g := rows[id]
		for _, l := range leases {
			if l.Live() != nil {
				continue
			}
			if g.State.Over() {
				t.Fatalf("a lease lives on grant %+v", g)
			}
			if used := m.truth - m.began[id]; used >= g.Until.Sub(g.From)+m.slack {
				t.Fatalf("P3: %s of %s was used for %s, with %s of crashes", id, g.Until.Sub(g.From), used, m.slack)
			}
			if !inHours(g, m.clocks.now()) {
				t.Fatalf("%s lives at %s, out of its hours: %+v", id, m.clocks.now(), g)
			}
			if g.Account == "app" && slices.ContainsFunc(m.config.Policies, configs.Policy.Forbids) && policy.InAny(g.Identity.Groups, []string{"leads"}) {
				t.Fatalf("%s lives although it is forbidden: %+v", id, g)
			}
		}
	}
}

// checkExtended is what must hold where the end of a grant has moved: later, while it was active, within what it may last in
// all, and by as many votes as it needed, of which none was the holder's.
func (m *machine) checkExtended(t *rapid.T, old, g Grant) {
	if g.State != Active || old.State != Active || g.Extensions == 0 || g.Until.Before(old.Until) || g.Until.After(g.From.Add(g.Total)) {
		t.Fatalf("P3: the end of %+v moved to %s", old, g.Until)
	}
	if !m.sound() {
		t.Fatalf("I13: %s was extended while the clock showed %s after %s", g.ID, m.clocks.now(), m.highest)
	}
	if g.Needed == 0 {
		return
	}
	var votes, own int
	var stages int
	err := m.db.Read().QueryRow(`SELECT count(*), count(*) FILTER (WHERE issuer || ' ' || subject = ?), count(DISTINCT stage) FROM grant_votes
		WHERE grant_id = ? AND round = ? AND approve = 1`, g.Identity.Key(), g.ID, g.Extensions).Scan(&votes, &own, &stages)
	if err != nil || votes < g.Needed || own > 0 || stages < max(1, len(g.Stages)) {
		t.Fatalf("I8, I9: %s was extended by %d votes at %d stages, %d of them its holder's: %v", g.ID, votes, stages, own, err)
	}
}

// checkIdle is that a grant that may not be idle is over when it has been, and never while somebody holds a lease.
func (m *machine) checkIdle(t *rapid.T, rows map[string]Grant) {
	for id, g := range rows {
		idle := m.truth - m.used[id]
		if len(m.leases[id]) > 0 {
			m.used[id], idle = m.truth, 0
		}
		if g.State == Active && g.Idle > 0 && idle > g.Idle {
			m.settle(t) // the keeper looks once a second
			if g = m.row(id); g.State == Active {
				t.Fatalf("%s was idle for %s: %+v", id, idle, g)
			}
		}
		if was := m.seen[id]; g.EndReason == EndIdle && was.State == Active && idle < g.Idle {
			t.Fatalf("%s ended after having been idle for %s: %+v", id, idle, g)
		}
	}
}

// inHours is whether the hours of a grant's policy hold, worked out apart from the code under test.
func inHours(g Grant, at time.Time) bool {
	return g.Policy != "write" || at.UTC().Hour() >= 5 && at.UTC().Hour() < 23
}

// exacting is the example with everything that ends a grant early, or lets it last longer.
func exacting() *configs.Config {
	c := example()
	c.Policies = append(c.Policies, staged())
	for i := range c.Policies {
		switch p := &c.Policies[i]; p.Name {
		case "write":
			p.MaxTotal, p.Ticket, p.Hours = minutes(120), "OPS-[0-9]+", []string{"mon-sun 05:00-23:00 UTC"}
		case "read":
			p.MaxTotal, p.Idle = minutes(600), minutes(7)
		case "own":
			p.MaxTotal = minutes(90)
		case "ship":
			p.MaxTotal, p.When = minutes(60), `"deployers" in identity.groups || "engineers" in identity.groups`
		}
	}
	return c
}

// checkAudit is that each transition has its one event.
func (m *machine) checkAudit(t *rapid.T, rows map[string]Grant) {
	all, err := m.db.Outbox(context.Background(), 0, 100000)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range all {
		if strings.HasPrefix(e.Kind, "grant.") {
			count[e.Grant]++
		}
	}
	for id, g := range rows {
		want := g.Version
		if g.Needed == 0 {
			want++ // requested and approved in one
		}
		if count[id] != want {
			t.Fatalf("%s: %d events for version %d", id, count[id], g.Version)
		}
	}
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		m := &machine{
			world:  &world{t: t, dir: dir, clocks: newClocks(), config: exacting()},
			leases: map[string][]*Lease{}, began: map[string]time.Duration{}, used: map[string]time.Duration{}, seen: map[string]Grant{},
		}
		m.start()
		defer func() { m.stop() }()
		for _, w := range wanted {
			if _, err := m.Request(t.Context(), dave, Ask{Target: w[1], Account: w[0], Reason: "because", Ticket: "OPS-1"}); err != nil {
				rt.Fatal(err)
			}
		}
		m.seen = m.rows(rt)
		rt.Repeat(m.actions())
	})
}

// A vote is written by compare-and-swap: of many at once on one row, one is kept (I2).
func TestCompareAndSwap(t *testing.T) {
	w := newWorld(t)
	g := w.request(alice, "app", "orders")
	old := w.row(g.ID)
	var calls []func() error
	for i := range 8 {
		calls = append(calls, func() error {
			next := old.clone()
			next.cast(0, person("lead-"+strconv.Itoa(i), "leads"), true, "", w.clocks.now())
			return w.db.Do(t.Context(), func(tx *store.Tx) error {
				_, err := save(t.Context(), tx, old, next)
				return err
			})
		})
	}
	won := race(calls...)
	if now := w.row(g.ID); won != 1 || now.Version != 2 || len(now.Votes) != 1 {
		t.Fatalf("%d of 8 won: %+v", won, now)
	}
}
