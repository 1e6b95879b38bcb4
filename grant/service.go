package grant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// Service decides and keeps grants. Safe for concurrent use.
type Service struct {
	store *store.Store
	log   *slog.Logger
	clock clock
	rules atomic.Pointer[rules]

	// reloading is held while another configuration comes into force, and while somebody decides whether one may. It is taken before
	// transitions.
	reloading sync.Mutex

	// transitions is held over every transaction that writes grants and over what follows its commit, so that rows
	// arrive in memory in the order in which they were committed. It is taken before mu, and never by Lease.Live.
	transitions sync.Mutex

	mu    sync.RWMutex // guards the maps; held for moments only
	open  map[string]*entry
	owned map[owner]*entry

	keeper   *keeper
	watchers watchers // see LeaseOrWait
	standing func(ctx context.Context, who authn.Identity) error
	members  func(ctx context.Context, groups []string) ([]authn.Identity, error)
	current  func(ctx context.Context, who authn.Identity) (authn.Identity, error)
	groups   func(ctx context.Context, who authn.Identity) ([]string, error)
}

// owner is what at most one open grant has.
type owner struct{ identity, target, account string }

// entry is one open grant in memory. It stays with the leases that point to it after it has left the maps.
type entry struct {
	row   atomic.Pointer[row]
	rules *atomic.Pointer[rules] // the service's

	clock  *clock
	mu     sync.Mutex
	leases map[*Lease]struct{}
	// idleSince is when, by clock.elapsed, the last lease was given back, or the grant began.
	idleSince time.Duration
}

// row is a grant as last committed; it is never changed, only replaced.
type row struct {
	grant Grant
	entry *entry
	// deadline is Until on the clock that does not jump; set when the grant becomes active or is loaded as such.
	deadline time.Duration
}

// Options configure OpenWith.
type Options struct {
	Config *configs.Config
	Store  *store.Store
	Log    *slog.Logger
	// Now is the wall clock, Elapsed the time since some instant in this process's life by a clock that is never set.
	// They are there for tests; default: the system's.
	Now     func() time.Time
	Elapsed func() time.Duration
	// Standing refuses with refusal.IdentityDisabled where an identity may have nothing any more, which ends what it has. It is
	// authn's; nil: nobody is asked.
	Standing func(ctx context.Context, who authn.Identity) error
	// Members are the people who are known to be in groups; it is authn's, and asked where the configuration says
	// approvals.known.
	Members func(ctx context.Context, groups []string) ([]authn.Identity, error)
	// Current is an identity with its groups as they are known now; it is authn's. With it, what an identity holds ends when the
	// groups are gone for which it was given. nil: grants are held against the groups of when they were asked for.
	Current func(ctx context.Context, who authn.Identity) (authn.Identity, error)
	// Groups are those that somebody is in now, none where they may not sign in any more; it is authn's. With it, a vote falls when
	// its voter's right does; nil: they are held against the groups of when they voted.
	Groups func(ctx context.Context, who authn.Identity) ([]string, error)
}

// Open loads the grants, ends what has run out, and starts the timers.
func Open(ctx context.Context, config *configs.Config, s *store.Store, log *slog.Logger) (*Service, error) {
	return OpenWith(ctx, Options{Config: config, Store: s, Log: log})
}

// OpenWith is Open with other clocks.
func OpenWith(ctx context.Context, o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Elapsed == nil {
		start := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(start) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		store: o.Store, log: o.Log, clock: clock{now: o.Now, elapsed: o.Elapsed},
		open: map[string]*entry{}, owned: map[owner]*entry{}, keeper: newKeeper(), standing: o.Standing, members: o.Members, current: o.Current, groups: o.Groups,
	}
	rules, err := index(o.Config, s.clock.stamp, nil, s.linked)
	if err != nil {
		return nil, err
	}
	s.rules.Store(rules)
	if err := s.load(ctx, o.Config); err != nil {
		return nil, fmt.Errorf("open the grants: %w", err)
	}
	go s.keep()
	go s.watch()
	return s, nil
}

// load reads the open grants and ends those that are over by now, before anybody can ask.
func (s *Service) load(ctx context.Context, config *configs.Config) error {
	if err := s.store.Migrate(ctx, "grant", migrations()); err != nil {
		return err
	}
	high, err := loadHigh(ctx, s.store.Read())
	if err != nil {
		return err
	}
	s.clock.begin(high)
	if err := s.endRestored(ctx); err != nil {
		return err
	}
	if err := s.holdAtStart(ctx, config); err != nil {
		return err
	}
	if err := s.remember(ctx, s.rules.Load()); err != nil {
		return err
	}
	grants, err := query(ctx, s.store.Read(), math.MaxInt32, `WHERE `+isOpen)
	if err != nil {
		return err
	}
	for _, g := range grants {
		s.install(g)
	}
	wall, _ := s.clock.read()
	back, age := s.clock.sound() != nil, wall.Sub(high)
	return s.review(ctx, func(r *row) (Grant, bool) {
		if g, over := s.judgeTime(r); over {
			return g, true
		}
		g := r.grant.clone()
		switch {
		case back && g.State == Active:
			g.end(Ended, s.clock.stamp(), EndClockWentBack, system, "how much of its time was left is not known")
		case age > trustStore && (g.State == Active || g.State == Approved):
			g.end(Ended, s.clock.stamp(), EndStoreLost, system, "the gateway was off, or its store is a copy, since "+when(high)+"; what has ended since is not known")
		default:
			return s.judgeAll(r)
		}
		return g, true
	})
}

// Reload takes a new configuration in, at once and whole; grants whose policy, target or account is gone end, and those
// that it forbids. One whose policies have mistakes (configs.Problems), or have to wait (Hold), changes nothing.
func (s *Service) Reload(ctx context.Context, config *configs.Config) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if err := s.Hold(ctx, config); err != nil {
		return err
	}
	rules, err := index(config, s.clock.stamp, s.rules.Load(), s.linked)
	if err != nil {
		return err
	}
	if err := rules.persons.Learn(ctx, s.current); err != nil {
		s.log.Warn("who is one person is looked up when somebody decides", "error", err)
	}
	s.rules.Store(rules) // whatever becomes of the store: it may take something away
	if err := errors.Join(s.remember(ctx, rules), s.review(ctx, s.judgeAll)); err != nil {
		s.keeper.unfinished.Store(true) // the keeper goes on trying; the leases are cut already
		return fmt.Errorf("end grants that the new configuration does not allow: %w", err)
	}
	return nil
}

// Close stops the timers and writes the time down. It does not close the store.
func (s *Service) Close() error {
	var err error
	s.keeper.stopOnce.Do(func() {
		close(s.keeper.stop)
		<-s.keeper.stopped
		<-s.keeper.watched
		ctx, cancel := context.WithTimeout(context.Background(), saveEvery)
		defer cancel()
		err = s.store.Do(ctx, func(tx *store.Tx) error { return saveHigh(ctx, tx, s.clock.stamp()) })
	})
	<-s.keeper.stopped
	if err != nil {
		return fmt.Errorf("close the grants: %w", err)
	}
	return nil
}

// lastCall is how long before its end a grant is extended at the latest. Leases are cut at the end that is in force, whatever is being
// written then; so an extension needs the time to come into force before.
const lastCall = time.Second

// left is how much of an active grant's time is left, by the clock by which it is less.
func (s *Service) left(g Grant) time.Duration {
	return min(g.Until.Sub(s.clock.stamp()), s.rowOf(g).deadline-s.clock.elapsed())
}

// change makes one transition: decide gets the grant as it stands in the transaction, changes it and names the event.
// It may be called although nothing comes of it; an event without a kind changes nothing.
func (s *Service) change(ctx context.Context, id string, decide func(*Grant) (store.AuditEvent, error)) (Grant, error) {
	s.transitions.Lock()
	defer s.transitions.Unlock()
	var after Grant
	err := s.store.Do(ctx, func(tx *store.Tx) error {
		old, err := load(ctx, tx, id)
		if err != nil {
			return err
		}
		g := old.clone()
		event, err := decide(&g)
		if err != nil {
			return err
		}
		if event.Kind == "" {
			after = old
			return nil
		}
		if after, err = s.commit(ctx, tx, old, g, event); err != nil {
			return err
		}
		if note, wanted := ctx.Value(noteKey{}).(func(*store.Tx, Grant) error); wanted && event.Actor != system {
			if err := note(tx, after); err != nil {
				return err
			}
		}
		return saveHigh(ctx, tx, s.clock.stamp())
	})
	switch {
	case err == nil:
		return after.clone(), nil
	case errors.Is(err, errNoRow):
		return Grant{}, noSuch(id)
	case errors.Is(err, errStale):
		return Grant{}, refusal.New(refusal.Conflict, "grant %s has just been changed by somebody else", id).
			WithHint("look at it with sallyport grants, and try again").Because(err)
	case refusal.Of(err) != nil:
		return Grant{}, err
	}
	s.refresh(id)
	return Grant{}, fmt.Errorf("change grant %s: %w", id, err)
}

// commit writes a transition and its event, and lets memory follow once they are durable.
func (s *Service) commit(ctx context.Context, tx *store.Tx, old, g Grant, event store.AuditEvent) (Grant, error) {
	if extended(old, g) && s.left(old) < lastCall {
		return Grant{}, refusal.New(refusal.Conflict, "it is too late to extend grant %s", g.ID).
			WithDetail("it ends at %s", when(old.Until)).WithHint("ask for another with: %s", command(g.Target, g.Account, g.Duration, 1, g.Ticket))
	}
	g, err := save(ctx, tx, old, g)
	if err != nil {
		return Grant{}, err
	}
	if err := errors.Join(tx.Audit(event), announce(ctx, tx, event, g)); err != nil {
		return Grant{}, err
	}
	tx.AfterCommit(func() { s.install(g) })
	return g, nil
}

// refresh reads a grant again after a transaction that failed, which may have been committed all the same. Called with
// transitions held.
func (s *Service) refresh(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	g, err := load(ctx, s.store.Read(), id)
	if err != nil {
		s.log.Error("read a grant again after a failed change", "grant", id, "error", err)
		return
	}
	s.install(g)
}

// install takes a committed row into memory; from here on Lease.Live sees it. Called with transitions held.
func (s *Service) install(g Grant) {
	key := owner{g.Identity.Key(), g.Target, g.Account}
	s.mu.Lock()
	e := s.open[g.ID]
	if e == nil {
		if g.State.Over() {
			s.mu.Unlock()
			return
		}
		e = &entry{rules: &s.rules, clock: &s.clock, leases: map[*Lease]struct{}{}}
		s.open[g.ID], s.owned[key] = e, e
	}
	r := &row{grant: g, entry: e}
	if g.State == Active {
		if before := e.row.Load(); before != nil && before.grant.State == Active {
			r.deadline = before.deadline + g.Until.Sub(before.grant.Until)
		} else {
			r.deadline = s.clock.elapsed() + g.Until.Sub(s.clock.stamp())
			e.begin()
		}
	}
	e.row.Store(r)
	if g.State.Over() {
		delete(s.open, g.ID)
		delete(s.owned, key)
	}
	s.mu.Unlock()
	if g.State.Over() {
		e.cut(g.EndReason, sentence(g))
	}
	s.watchers.stir(key)
	s.keeper.lastSaved.Store(int64(s.clock.elapsed()))
	s.keeper.nudge()
}

// openOf returns the open grant of an identity for an account, or nil.
func (s *Service) openOf(who authn.Identity, target, account string) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.owned[owner{who.Key(), target, account}]
}

// entries returns all open grants.
func (s *Service) entries() []*entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*entry, 0, len(s.open))
	for _, e := range s.open {
		all = append(all, e)
	}
	return all
}

// OpenByState is how many grants and requests are not over, by state.
func (s *Service) OpenByState() map[string]int {
	count := map[string]int{string(Pending): 0, string(Approved): 0, string(Active): 0} // a zero is a word, too
	for _, e := range s.entries() {
		count[string(e.row.Load().grant.State)]++
	}
	return count
}

// trustStore is how old the store's last word may be for what it says of grants to be believed at a start. While grants
// are open it speaks every saveEvery, so it is older only after a longer outage, or when it is an old backup, in which
// grants live on that were used up or revoked since.
const trustStore = 10 * time.Minute

// system is who acts when nobody does.
const system = "system"

// event begins an audit event about a grant; a nil actor is the gateway itself.
func (s *Service) event(kind string, actor *authn.Identity, g Grant) store.AuditEvent {
	e := store.AuditEvent{
		Time: s.clock.stamp(), Kind: kind, Actor: system, Target: g.Target, Account: g.Account, Grant: g.ID,
		Fields: map[string]string{"policy": g.Policy, "requester": g.Identity.Key(), "duration": g.Duration.String()},
	}
	if g.Role != "" {
		e.Fields["role"] = g.Role
	}
	if digest := s.rules.Load().digests[g.Policy]; digest != "" {
		e.Fields["policy_digest"] = digest
	}
	if actor != nil {
		e.Actor, e.ActorName = actor.Key(), actor.Label()
		e.Fields["groups"] = strings.Join(actor.Groups, ",")
		if actor.Credential != "" {
			e.Fields["credential"] = actor.Credential
		}
	}
	return e
}

// refused audits err if it is a refusal, and returns it.
func (s *Service) refused(ctx context.Context, kind string, who authn.Identity, g Grant, err error) error {
	r := refusal.Of(err)
	if r == nil {
		return err
	}
	event := s.event(kind, &who, g)
	event.Outcome, event.Reason = string(r.Code), r.Message
	if r.Detail != "" {
		event.Reason += ": " + r.Detail
	}
	if err := s.store.Audit(context.WithoutCancel(ctx), event); err != nil {
		s.log.Error("audit a refusal", "kind", kind, "actor", who.Key(), "code", r.Code, "error", err)
	}
	return err
}

// proven refuses an identity that is none, or that is one for emergencies alone.
func proven(who authn.Identity) error {
	if who.Emergency != "" {
		return refusal.New(refusal.NotPermitted, "you are signed in with an enrolled key, which is good for emergencies alone").
			WithHint("ask with: sallyport request ACCOUNT@TARGET --break-glass --reason \"…\"; for anything else sign in at your company's provider once it answers")
	}
	return inEmergency(who)
}

// inEmergency is proven for what somebody may do too who signed in with an enrolled key (authn.Identity.Emergency).
func inEmergency(who authn.Identity) error {
	if who.Issuer == "" || who.Subject == "" {
		return refusal.New(refusal.NotAuthenticated, "nobody is signed in").WithHint("sign in with: sallyport login")
	}
	return nil
}
