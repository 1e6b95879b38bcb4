package grant

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

func person(name string, groups ...string) authn.Identity {
	return authn.Identity{Issuer: "https://login.example", Subject: "sub-" + name, Kind: authn.Human, Name: strings.ToUpper(name[:1]) + name[1:], Groups: groups}
}

var (
	alice = person("alice", "engineers")
	bob   = person("bob", "leads")
	dave  = person("dave", "leads", "engineers")
	carol = person("carol", "security")
	job   = authn.Identity{Issuer: "https://ci.example", Subject: "repo:7", Kind: authn.Workload, Name: "deploy", Groups: []string{"deployers", "leads"}}
)

func minutes(n int) configs.Duration { return configs.Duration(time.Duration(n) * time.Minute) }

// example is a configuration with a policy of each sort.
func example() *configs.Config {
	accounts := func(names ...string) (list []configs.Account) {
		for _, n := range names {
			list = append(list, configs.Account{Name: n})
		}
		return list
	}
	return &configs.Config{
		Targets: []configs.Target{
			{Name: "orders", Kind: configs.KindPostgres, ServerName: "orders.db.example", Address: "10.0.0.5:5432", Labels: map[string]string{"env": "prod"}, Accounts: accounts("app", "ro", "owner")},
			{Name: "web-1", Kind: configs.KindSSH, Address: "10.0.0.9:2222", Aliases: []string{"web-1.example", "10.1.1.1", "bastion.example:2200", "fd00::1"}, Labels: map[string]string{"env": "test"}, Accounts: accounts("deploy", "root")},
		},
		Policies: []configs.Policy{
			{Name: "write", Groups: []string{"engineers"}, Accounts: []string{"app@orders"}, MaxDuration: minutes(60), DefaultDuration: minutes(30), ReasonLength: 5, Approve: configs.Approve{Groups: []string{"leads"}, Within: minutes(120), Start: minutes(60)}},
			{Name: "read", Groups: []string{"engineers", "deployers"}, Accounts: []string{"ro@*"}, MaxDuration: minutes(480), DefaultDuration: minutes(60), Approve: configs.Approve{Auto: true, Start: minutes(60)}},
			{Name: "ship", Groups: []string{"engineers", "deployers"}, Accounts: []string{"deploy@web-*"}, MaxDuration: minutes(20), Approve: configs.Approve{Groups: []string{"leads", "security"}, Count: 2, Within: minutes(120), Start: minutes(60)}},
			{Name: "stuck", Groups: []string{"engineers"}, Accounts: []string{"root@web-1"}, MaxDuration: minutes(20)},
		},
		Permissions: []configs.Permission{
			{Groups: []string{"security"}, May: []string{string(RevokeGrants), string(ListGrants)}},
			{Groups: []string{"leads"}, May: []string{"*"}, Labels: map[string]string{"env": "test"}},
		},
	}
}

// clocks are a wall clock that can be set and a clock that can't; time passes on both when the test says so.
type clocks struct {
	mu   sync.Mutex
	wall time.Time
	mono time.Duration
}

func newClocks() *clocks { return &clocks{wall: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)} }

func (c *clocks) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

func (c *clocks) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mono
}

func (c *clocks) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.mono = c.wall.Add(d), c.mono+d
}

func (c *clocks) set(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

// world is a service on a real store that can be opened again.
type world struct {
	*Service
	t      testing.TB
	dir    string
	db     *store.Store
	clocks *clocks
	config *configs.Config

	standing func(authn.Identity) error // nil: all are good
	current  func(context.Context, authn.Identity) (authn.Identity, error)
	groups   func(context.Context, authn.Identity) ([]string, error)
	members  []authn.Identity

	knownMu sync.Mutex
	known   map[string]authn.Identity // see tickets
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), clocks: newClocks(), config: example()}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	if w.db, err = storetest.Open(context.Background(), w.dir); err != nil {
		w.t.Fatal(err)
	}
	o := Options{Config: w.config, Store: w.db, Now: w.clocks.now, Elapsed: w.clocks.elapsed, Current: w.current, Groups: w.groups}
	if w.standing != nil {
		o.Standing = func(_ context.Context, who authn.Identity) error { return w.standing(who) }
	}
	o.Members = func(_ context.Context, groups []string) (found []authn.Identity, _ error) {
		for _, m := range w.members {
			if policy.InAny(m.Groups, groups) {
				found = append(found, m)
			}
		}
		return found, nil
	}
	w.Service, err = OpenWith(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stop() {
	w.Service.Close()
	w.db.Close()
}

func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// pass lets time go by, and the keeper notice.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	w.clocks.pass(d)
	if err := errors.Join(w.tick(context.Background()), w.lookAround(context.Background())); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) request(who authn.Identity, account, target string) Grant {
	w.t.Helper()
	g, err := w.Request(context.Background(), who, Ask{Target: target, Account: account, Reason: "because"})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) approved(who authn.Identity, account, target string) Grant {
	w.t.Helper()
	g := w.request(who, account, target)
	if g.State == Pending {
		var err error
		if g, err = w.Approve(context.Background(), bob, g.ID, ""); err != nil {
			w.t.Fatal(err)
		}
	}
	if g.State != Approved {
		w.t.Fatalf("grant is %s, want approved", g.State)
	}
	return g
}

func (w *world) lease(who authn.Identity, account, target string) *Lease {
	w.t.Helper()
	l, err := w.Lease(context.Background(), who, target, account)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// row reads a grant as the store has it.
func (w *world) row(id string) Grant {
	w.t.Helper()
	g, err := load(context.Background(), w.db.Read(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) state(id string, want State, reason string) {
	w.t.Helper()
	if g := w.row(id); g.State != want || g.EndReason != reason {
		w.t.Fatalf("grant %s is %s (%q), want %s (%q)", id, g.State, g.EndReason, want, reason)
	}
}

// events are the audit events of that kind.
func (w *world) events(kind string) (found []store.AuditEvent) {
	w.t.Helper()
	all, err := w.db.Outbox(context.Background(), 0, 100000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range all {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// refused checks that err is a refusal with that code whose text has all the parts.
func refused(t testing.TB, err error, code refusal.Code, parts ...string) {
	t.Helper()
	if !refusal.Is(err, code) {
		t.Fatalf("got %v, want a refusal %s", err, code)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("refusal %q does not say %q", err, p)
		}
	}
}

func TestLifeWithApproval(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	g := w.request(alice, "app", "ORDERS")
	if g.State != Pending || g.Target != "orders" || g.Duration != 30*time.Minute || g.Policy != "write" || g.Needed != 1 {
		t.Fatalf("request: %+v", g)
	}
	_, err := w.Lease(ctx, alice, "orders", "app")
	refused(t, err, refusal.NoGrant, "no live grant for app@orders", g.ID+" waits for approval by leads", "sallyport approve "+g.ID)

	if g, err = w.Approve(ctx, bob, strings.ToUpper(g.ID), "fine"); err != nil {
		t.Fatal(err)
	}
	if g.State != Approved || len(g.Votes) != 1 || g.Approvers()[0] != "Bob" || !g.From.IsZero() {
		t.Fatalf("approval: %+v", g)
	}
	w.pass(10 * time.Minute) // the clock does not run yet
	l := w.lease(alice, "app", "orders")
	if err := l.Live(); err != nil {
		t.Fatal(err)
	}
	if !l.Grant.From.Equal(w.clocks.now()) || !l.Until().Equal(l.Grant.From.Add(30*time.Minute)) || l.Grant.State != Active {
		t.Fatalf("lease: %+v", l.Grant)
	}
	w.pass(29 * time.Minute)
	again := w.lease(alice, "app", "orders")
	if !again.Until().Equal(l.Until()) {
		t.Fatalf("a second connection moved the end from %s to %s", l.Until(), again.Until())
	}
	w.pass(time.Minute)
	for _, l := range []*Lease{l, again} {
		refused(t, l.Live(), refusal.NoGrant, g.ID+" ended at 2026-11-24 12:40:00 UTC: expired")
		<-l.Ended()
		if reason, sentence := l.Why(); reason != EndExpired || !strings.Contains(sentence, "expired") {
			t.Errorf("why: %q %q", reason, sentence)
		}
	}
	w.state(g.ID, Ended, EndExpired)
	_, err = w.Lease(ctx, alice, "orders", "app")
	refused(t, err, refusal.NoGrant, g.ID+" ended at 2026-11-24 12:40:00 UTC: expired",
		`sallyport request app@orders --duration 30m --reason "… (5 characters or more)"`)

	for _, kind := range []string{"grant.requested", "grant.approved", "grant.active", "grant.ended"} {
		if e := w.events(kind); len(e) != 1 || e[0].Grant != g.ID || e[0].Target != "orders" || e[0].Account != "app" {
			t.Errorf("%s: %+v", kind, e)
		}
	}
	if e := w.events("session.refused"); len(e) != 2 || e[0].Actor != alice.Key() || e[0].Outcome != "no_grant" {
		t.Errorf("session.refused: %+v", e)
	}
}

func TestLapse(t *testing.T) {
	w := newWorld(t)
	undecided := w.request(alice, "app", "orders")
	unused := w.request(alice, "ro", "orders")
	w.pass(time.Hour)
	w.state(unused.ID, Lapsed, "")
	w.state(undecided.ID, Pending, "")
	_, err := w.Lease(t.Context(), alice, "orders", "ro")
	refused(t, err, refusal.NoGrant, "lapsed: not used by", `sallyport request ro@orders --duration 30m --reason "…"`)
	w.clocks.pass(time.Hour) // before any timer
	_, err = w.Approve(t.Context(), bob, undecided.ID, "")
	refused(t, err, refusal.Conflict, "lapsed: nobody decided by")
	w.state(undecided.ID, Lapsed, "")
	w.request(alice, "ro", "orders")
}

func TestOwnRequestEndsBeforeTheTimerMakesRoom(t *testing.T) {
	w := newWorld(t)
	w.approved(alice, "ro", "orders")
	w.lease(alice, "ro", "orders")
	w.clocks.pass(time.Hour)
	if g := w.request(alice, "ro", "orders"); g.State != Approved {
		t.Fatalf("%+v", g)
	}
}

func TestEndings(t *testing.T) {
	ctx := t.Context()
	tests := []struct {
		name   string
		from   State
		do     func(*world, string) (Grant, error)
		to     State
		reason string
		says   string
	}{
		{"deny", Pending, func(w *world, id string) (Grant, error) { return w.Deny(ctx, bob, id, "not today") }, Denied, "", "was denied by Bob: not today"},
		{"revoke a request", Pending, func(w *world, id string) (Grant, error) { return w.Revoke(ctx, carol, id, "no") }, Denied, EndRevoked, "was revoked by Carol: no"},
		{"release a request", Pending, func(w *world, id string) (Grant, error) { return w.Release(ctx, alice, id) }, Withdrawn, EndReleased, "was taken back by Alice"},
		{"release unused", Approved, func(w *world, id string) (Grant, error) { return w.Release(ctx, alice, id) }, Withdrawn, EndReleased, "was taken back by Alice"},
		{"revoke unused", Approved, func(w *world, id string) (Grant, error) { return w.Revoke(ctx, bob, id, "done") }, Ended, EndRevoked, "was revoked by Bob: done"},
		{"release", Active, func(w *world, id string) (Grant, error) { return w.Release(ctx, alice, id) }, Ended, EndReleased, "was given back by Alice"},
		{"revoke by approver", Active, func(w *world, id string) (Grant, error) { return w.Revoke(ctx, bob, id, "done") }, Ended, EndRevoked, "was revoked by Bob: done"},
		{"revoke by permission", Active, func(w *world, id string) (Grant, error) { return w.Revoke(ctx, carol, id, "") }, Ended, EndRevoked, "was revoked by Carol"},
		{"revoke one's own", Active, func(w *world, id string) (Grant, error) { return w.Revoke(ctx, alice, id, "") }, Ended, EndRevoked, "was revoked by Alice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			g := w.request(alice, "app", "orders")
			var l *Lease
			if tt.from != Pending {
				if _, err := w.Approve(ctx, bob, g.ID, ""); err != nil {
					t.Fatal(err)
				}
			}
			if tt.from == Active {
				l = w.lease(alice, "app", "orders")
			}
			if tt.from != tt.to { // the clock does not matter to an ending
				w.clocks.set(-time.Hour)
			}
			got, err := tt.do(w, g.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got.State != tt.to || got.EndReason != tt.reason || got.EndedAt.Before(got.Requested) {
				t.Fatalf("got %+v", got)
			}
			w.state(g.ID, tt.to, tt.reason)
			if l != nil {
				select {
				case <-l.Ended():
				default:
					t.Error("the lease was not ended when the call returned")
				}
				reason, sentence := l.Why()
				if reason != tt.reason || !strings.HasPrefix(sentence, "grant "+g.ID+" "+tt.says) {
					t.Errorf("why: %q %q", reason, sentence)
				}
			}
			w.clocks.set(time.Hour)
			_, err = w.Lease(ctx, alice, "orders", "app")
			refused(t, err, refusal.NoGrant, tt.says)
			for verb, again := range map[string]func() (Grant, error){
				"approve": func() (Grant, error) { return w.Approve(ctx, bob, g.ID, "") },
				"deny":    func() (Grant, error) { return w.Deny(ctx, bob, g.ID, "") },
				"revoke":  func() (Grant, error) { return w.Revoke(ctx, carol, g.ID, "") },
				"release": func() (Grant, error) { return w.Release(ctx, alice, g.ID) },
			} {
				_, err := again()
				refused(t, err, refusal.Conflict, "already")
				if e := w.events(verb + ".refused"); len(e) != 1 || e[0].Grant != g.ID {
					t.Errorf("%s.refused: %+v", verb, e)
				}
			}
		})
	}
}
