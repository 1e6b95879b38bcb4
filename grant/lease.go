package grant

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Lease is a live grant as a connection holds it. Safe for concurrent use.
type Lease struct {
	Grant Grant // as it stood when the lease was taken

	clock *clock
	entry *entry
	over  atomic.Bool
	ended chan struct{}

	mu               sync.Mutex
	returned         bool
	reason, sentence string
}

// Lease returns a lease on the identity's live grant for the account, starting its clock if it was only approved, or
// refuses with NoGrant, saying what is missing and the exact command that asks for it. The transition to active is
// audited in the same transaction.
func (s *Service) Lease(ctx context.Context, who authn.Identity, target, account string) (*Lease, error) {
	l, err := s.lease(ctx, who, target, account)
	if err != nil {
		g := Grant{Target: clip(target), Account: clip(account)}
		if e := s.openOf(who, target, account); e != nil {
			g = e.row.Load().grant
		}
		return nil, s.refused(ctx, "session.refused", who, g, err)
	}
	return l, nil
}

func (s *Service) lease(ctx context.Context, who authn.Identity, target, account string) (*Lease, error) {
	if err := inEmergency(who); err != nil {
		return nil, err
	}
	t, a, err := s.rules.Load().find(target, account)
	if err != nil {
		return nil, err
	}
	if err := s.clock.sound(); err != nil {
		return nil, err
	}
	e := s.openOf(who, t.Name, a.Name)
	if e == nil {
		return nil, s.noGrant(ctx, who, t, a.Name)
	}
	if g := e.row.Load().grant; who.Emergency != "" && !g.BreakGlass {
		return nil, refusal.New(refusal.NoGrant, "grant %s for %s is not for emergencies", g.ID, g.name()).
			WithDetail("and you are signed in with an enrolled key, which is good for nothing else").
			WithHint("sign in at your company's provider once it answers; or give the grant back and ask with --break-glass")
	}
	s.learn(ctx, e.row.Load().grant)
	r := e.row.Load()
	if start := r.grant.Start; r.grant.State == Approved && s.clock.stamp().Before(start) {
		return nil, refusal.New(refusal.NoGrant, "grant %s for %s begins at %s", r.grant.ID, r.grant.name(), when(start)).WithHint("connect again then")
	}
	if _, over := s.judgeTime(r); over || r.grant.State == Pending {
		return nil, s.noGrant(ctx, who, t, a.Name)
	}
	if r.grant.State == Approved {
		if err := s.activate(ctx, who, r.grant); err != nil {
			return nil, err
		}
	} else if o := s.rules.Load().objection(r.grant, s.connecting(ctx, who, r.grant)); o.reason != "" {
		return nil, s.changed(ctx, who, r.grant, o)
	}
	l := &Lease{Grant: e.row.Load().grant.clone(), clock: &s.clock, entry: e, ended: make(chan struct{})}
	if !e.take(l) || l.Live() != nil {
		l.Return()
		return nil, s.noGrant(ctx, who, t, a.Name)
	}
	return l, nil
}

// activate starts the clock of an approved grant; of two who try at once, one does and both may go on.
func (s *Service) activate(ctx context.Context, who authn.Identity, g Grant) error {
	var o objection
	_, err := s.change(ctx, g.ID, func(g *Grant) (store.AuditEvent, error) {
		if g.State != Approved {
			return store.AuditEvent{}, nil // what it is now, the caller looks at
		}
		if ended, over := s.judgeTime(s.rowOf(*g)); over {
			*g = ended
			return s.over(*g), nil
		}
		if err := s.clock.sound(); err != nil {
			return store.AuditEvent{}, err
		}
		r := s.rules.Load()
		if o = r.objection(*g, s.connecting(ctx, who, *g)); o.reason != "" {
			return store.AuditEvent{}, nil
		}
		g.State = Active
		g.From, _ = s.clock.read()
		g.Until = r.latest(*g, g.From, g.From.Add(g.Duration))
		if !g.Until.After(g.From) {
			return store.AuditEvent{}, fmt.Errorf("the hours of policy %s end as they begin", g.Policy)
		}
		event := s.event("grant.active", &who, *g)
		event.Fields["until"] = g.Until.Format(time.RFC3339Nano)
		return event, nil
	})
	if err == nil && o.reason != "" {
		return s.changed(ctx, who, g, o)
	}
	return err
}

// changed refuses because the policy does not admit the identity as it is now. That ends the grant, unless what was
// presented is older than the grant: an old certificate with fewer groups must not end what a new one was given. Nor does
// it end where only the circumstances of this connection are at fault.
func (s *Service) changed(ctx context.Context, who authn.Identity, g Grant, o objection) error {
	if o.passing {
		return refusal.New(refusal.NoGrant, "grant %s for %s does not let you in now", g.ID, g.name()).
			WithDetail("%s", o.text).WithHint("connect again when that has changed, or give it back with: sallyport release %s", g.ID)
	}
	g, err := s.change(ctx, g.ID, func(g *Grant) (store.AuditEvent, error) {
		if g.State.Over() || who.SignedIn.Before(g.Identity.SignedIn) {
			return store.AuditEvent{}, nil
		}
		s.object(g, o)
		event := s.event("grant.ended", nil, *g)
		event.Reason, event.Fields["end_reason"] = o.text, o.reason
		return event, nil
	})
	if err != nil {
		return err
	}
	text := o.text
	return refusal.New(refusal.NoGrant, "no live grant for %s", g.name()).
		WithDetail("grant %s does not hold for you as you are signed in now: %s", g.ID, text).
		WithHint("sign in again with sallyport login, then see what you may ask for with: sallyport targets")
}

// noGrant refuses a connection, and says what would let it in.
func (s *Service) noGrant(ctx context.Context, who authn.Identity, t configs.Target, account string) error {
	r := refusal.New(refusal.NoGrant, "no live grant for %s@%s", account, t.Name)
	if who.Emergency != "" {
		return r.WithDetail("you are signed in with an enrolled key, which is good for emergencies alone").
			WithHint("ask with: sallyport request %s@%s --break-glass --reason \"…\"", account, t.Name)
	}
	newest, err := query(ctx, s.store.Read(), 1, `WHERE issuer = ? AND subject = ? AND target = ? AND account = ? ORDER BY requested DESC, id`,
		who.Issuer, who.Subject, t.Name, account)
	if err != nil {
		return fmt.Errorf("look for a grant: %w", err)
	}
	r.WithDetail("you have not asked for one")
	if len(newest) == 1 {
		r.WithDetail("%s", s.describe(newest[0]))
		if newest[0].State == Pending {
			return r.WithHint("%s", next(newest[0], who))
		}
	}
	policies := s.rules.Load().policies
	e := policy.Decide(policies, policy.Ask{Identity: who, Target: t, Account: account, Time: s.clock.stamp(), Source: source(ctx)})
	// Asked without a reason and for the default duration: what is still missing then is not for the next command to mend.
	if offers := s.offersOf(s.rules.Load(), who, t, account); len(offers) > 0 && len(e.Forbidden) == 0 {
		p, _ := s.rules.Load().policy(offers[0].Policy)
		return r.WithHint("%s", command(t.Name, account, p.MaxDuration.D(), p.ReasonLength, p.Policy.Ticket))
	}
	if len(newest) == 0 || len(e.Forbidden) > 0 {
		r.WithDetail("no policy lets you ask for one: %s", e.Detail())
	}
	return r.WithHint("%s", s.nearest(e, who, t.Name, account))
}

// take registers a lease, unless the grant is not active any more.
func (e *entry) take(l *Lease) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.row.Load().grant.State != Active || e.idleNow() {
		return false
	}
	e.leases[l] = struct{}{}
	return true
}

// cut ends all leases on the grant.
func (e *entry) cut(reason, sentence string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for l := range e.leases {
		l.end(reason, sentence)
	}
	if len(e.leases) > 0 {
		e.idleSince = e.clock.elapsed()
	}
	clear(e.leases)
}

// begin is called when the grant becomes active, or is loaded as such.
func (e *entry) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idleSince = e.clock.elapsed()
}

// idle reports whether the grant has had no lease for longer than it may. Then it gets none any more.
func (e *entry) idle() bool {
	if e == nil { // a row that is not open
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.idleNow()
}

func (e *entry) idleNow() bool {
	most := e.row.Load().grant.Idle
	return most > 0 && len(e.leases) == 0 && e.clock.elapsed()-e.idleSince >= most
}

// end ends one lease; the first reason stays.
func (l *Lease) end(reason, sentence string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason != "" || l.returned {
		return
	}
	l.reason, l.sentence = reason, sentence
	l.over.Store(true)
	close(l.ended)
}

var errReturned = errors.New("the lease was given back")

// Live returns nil while the lease gives access. It is a pure function of the grant's row as last committed and of the
// time by both clocks, the earlier of which cuts; it takes no lock that a database call holds, and allocates nothing
// while live. Once it has said no it never says yes again.
func (l *Lease) Live() error {
	if r := l.entry.row.Load(); !l.over.Load() && r.grant.State == Active &&
		l.clock.now().Before(r.grant.Until) && l.clock.elapsed() < r.deadline {
		return nil
	}
	return l.dead()
}

// dead ends the lease, and says why as a refusal.
func (l *Lease) dead() error {
	g := l.entry.row.Load().grant
	if !g.State.Over() { // the timer comes later
		g.expire(g.Until)
	}
	l.end(g.EndReason, sentence(g))
	_, why := l.Why()
	if why == "" {
		return errReturned
	}
	return refusal.New(refusal.NoGrant, "%s", why).
		WithHint("ask again with: %s", command(g.Target, g.Account, g.Duration, 1, g.Ticket))
}

// Limits are what holds for the lease now: the limits of the grant's role as they were when it was asked for, narrowed by
// what the configuration says of that role since. The zero value are the defaults.
func (l *Lease) Limits() configs.RoleLimits {
	g := l.entry.row.Load().grant
	if g.Role == "" {
		return g.Terms.Limits
	}
	role, found := l.entry.rules.Load().roles[g.Role]
	if !found {
		return g.Terms.Limits // the grant is on its way to its end
	}
	return g.Terms.Limits.Narrow(role.Limits)
}

// Ended is closed when the lease has ended, by time or by a transition.
func (l *Lease) Ended() <-chan struct{} { return l.ended }

// Why says how it ended: the end reason, and a sentence for the user ("grant g-7k3mq2 was revoked by Bob: done"). Both
// are empty before.
func (l *Lease) Why() (reason, sentence string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason, l.sentence
}

// Until is when the lease ends at the latest, as it stands; an extension moves it.
func (l *Lease) Until() time.Time { return l.entry.row.Load().grant.Until }

// Return gives the lease up; the grant goes on. Ended is not closed by it.
func (l *Lease) Return() {
	l.entry.mu.Lock()
	if _, held := l.entry.leases[l]; held {
		delete(l.entry.leases, l)
		if len(l.entry.leases) == 0 {
			l.entry.idleSince = l.clock.elapsed()
		}
	}
	l.entry.mu.Unlock()
	l.mu.Lock()
	l.returned = true
	l.mu.Unlock()
	l.over.Store(true)
}
