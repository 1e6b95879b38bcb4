package grant

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/authn"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
)

// lookAgain is how often a connection that waits looks by itself, for what comes with time alone.
const lookAgain = 5 * time.Second

// maxWaiting is how many connections of one identity may wait for a grant at once.
const maxWaiting = 16

// Waiting says how a connection that waits for a grant stands.
type Waiting struct {
	// Grant is the request that waits, or is approved for later; its ID is empty where nobody has asked yet.
	Grant           Grant
	Target, Account string
	MayAsk          []Offer // where nobody has asked
	Until           time.Time
}

// Text says it in a sentence.
func (w Waiting) Text() string {
	if w.Grant.ID == "" {
		return fmt.Sprintf("no live grant for %s@%s yet: ask for one, and this connection goes on when you have it", w.Account, w.Target)
	}
	if w.Grant.State == Pending {
		return fmt.Sprintf("grant %s for %s@%s waits for %s", w.Grant.ID, w.Account, w.Target, approvalBy(w.Grant.Standing()))
	}
	return fmt.Sprintf("grant %s for %s@%s is %s, and can't be used yet", w.Grant.ID, w.Account, w.Target, w.Grant.State)
}

// LeaseOrWait is Lease, but where there is no grant and could be one, it waits for it: for an approval, or for a request
// that somebody files elsewhere meanwhile. It files the request itself where ask has a reason. told is called with how
// things stand, first when the wait begins and then when that changes; its error ends the wait. A request that was denied,
// or another end, is the refusal; so is that within has passed, and then the request stands.
func (s *Service) LeaseOrWait(ctx context.Context, who authn.Identity, target, account string, within time.Duration, ask Ask, told func(Waiting) error) (*Lease, error) {
	l, err := s.lease(ctx, who, target, account)
	if err != nil && refusal.Is(err, refusal.NoGrant) && within > 0 {
		l, err = s.waitForLease(ctx, who, target, account, within, ask, told, err)
	}
	if err != nil {
		g := Grant{Target: clip(target), Account: clip(account)}
		if e := s.openOf(who, target, account); e != nil {
			g = e.row.Load().grant
		}
		return nil, s.refused(ctx, "session.refused", who, g, err)
	}
	return l, nil
}

func (s *Service) waitForLease(ctx context.Context, who authn.Identity, target, account string, within time.Duration, ask Ask, told func(Waiting) error, refused error) (*Lease, error) {
	r := s.rules.Load()
	t, a, err := r.find(target, account)
	if err != nil {
		return nil, err
	}
	stirred, stop, ok := s.watchers.watch(who.Key(), owner{who.Key(), t.Name, a.Name})
	if !ok {
		return nil, refusal.New(refusal.TooMany, "%d connections of yours wait for grants, which is as many as may", maxWaiting)
	}
	defer stop()
	if who.Emergency != "" { // they have to ask for it as an emergency, on the command line
		return nil, refused
	}
	if s.openOf(who, t.Name, a.Name) == nil {
		offers := s.offersOf(r, who, t, a.Name)
		if len(offers) == 0 {
			return nil, refused
		}
		if ask.Reason != "" {
			ask.Target, ask.Account = t.Name, a.Name
			if _, err := s.Request(ctx, who, ask); err != nil && !refusal.Is(err, refusal.Conflict) { // conflict: somebody was faster
				return nil, err
			}
		}
	}
	until := time.Now().Add(within)
	timer := time.NewTimer(within)
	defer timer.Stop()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	var last Waiting
	var waited string // the grant that was waited for
	for first := true; ; first = false {
		l, err := s.lease(ctx, who, t.Name, a.Name)
		if err != nil && ctx.Err() != nil { // while it looked
			return nil, fmt.Errorf("wait for a grant: %w", context.Cause(ctx))
		}
		if err == nil || !refusal.Is(err, refusal.NoGrant) {
			return l, err
		}
		now := Waiting{Target: t.Name, Account: a.Name, Until: until}
		if e := s.openOf(who, t.Name, a.Name); e != nil {
			now.Grant = e.row.Load().grant.clone()
		}
		if now.Grant.ID == "" && waited != "" {
			return nil, s.cameTo(ctx, waited, err)
		}
		waited = now.Grant.ID
		if waited == "" {
			now.MayAsk = s.offersOf(s.rules.Load(), who, t, a.Name)
		}
		if first || now.Text() != last.Text() {
			if err := told(now); err != nil {
				return nil, err
			}
			last = now
		}
		select {
		case <-stirred:
		case <-again.C:
		case <-timer.C:
			return nil, timedOut(now, within)
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a grant: %w", context.Cause(ctx))
		}
	}
}

// cameTo is the refusal after a request that was waited for has come to an end.
func (s *Service) cameTo(ctx context.Context, id string, otherwise error) error {
	g, err := load(ctx, s.store.Read(), id)
	switch {
	case errors.Is(err, errNoRow):
		return otherwise
	case err != nil:
		return fmt.Errorf("look up grant %s: %w", id, err)
	}
	r := refusal.New(refusal.NoGrant, "%s", sentence(g))
	if no := refusal.Of(otherwise); no != nil {
		r.WithHint("%s", no.Hint)
	}
	return r
}

func timedOut(w Waiting, within time.Duration) error {
	if w.Grant.ID == "" {
		return refusal.New(refusal.NoGrant, "no live grant for %s@%s", w.Account, w.Target).
			WithDetail("nobody asked for one within %s", policy.Short(within)).WithHint("ask, then connect again")
	}
	return refusal.New(refusal.NoGrant, "no live grant for %s@%s", w.Account, w.Target).
		WithDetail("%s; %s were not enough", w.Text(), policy.Short(within)).WithHint("the request stands: connect again when it is approved, or take it back with: sallyport release %s", w.Grant.ID)
}

// watchers are connections that wait for something to happen to a grant. The zero value is ready.
type watchers struct {
	mu      sync.Mutex
	waiting map[owner]map[chan struct{}]struct{}
	of      map[string]int // by identity
}

func (w *watchers) watch(identity string, key owner) (stirred <-chan struct{}, stop func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[identity] >= maxWaiting {
		return nil, nil, false
	}
	if w.waiting == nil {
		w.waiting, w.of = map[owner]map[chan struct{}]struct{}{}, map[string]int{}
	}
	if w.waiting[key] == nil {
		w.waiting[key] = map[chan struct{}]struct{}{}
	}
	c := make(chan struct{}, 1)
	w.waiting[key][c] = struct{}{}
	w.of[identity]++
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waiting[key], c)
		if len(w.waiting[key]) == 0 {
			delete(w.waiting, key)
		}
		if w.of[identity]--; w.of[identity] == 0 {
			delete(w.of, identity)
		}
	}, true
}

// Waiting is how many connections wait for a grant.
func (s *Service) Waiting() (n int) {
	s.watchers.mu.Lock()
	defer s.watchers.mu.Unlock()
	for _, of := range s.watchers.of {
		n += of
	}
	return n
}

// stir wakes those who wait for that grant.
func (w *watchers) stir(key owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.waiting[key] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
