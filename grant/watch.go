package grant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/evidence"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
)

const (
	// readers is how many readings of one piece of evidence are made at a time.
	readers = 8
	// readPatience is how long what ends because of evidence waits for what is being read: a little longer than one reading may take.
	readPatience = 6 * time.Second
)

// about is the request that a grant's evidence is about.
func about(g Grant) evidence.About { return aboutAsk(g.Identity, g.Target, g.Account, g.Ticket) }

func aboutAsk(who authn.Identity, target, account, ticket string) evidence.About {
	return evidence.About{Ticket: ticket, Subject: who.Subject, Issuer: who.Issuer, Email: who.Email, Account: account, Target: target, StartedBy: who.StartedBy}
}

// linked is a person that the configuration links to an account elsewhere, as they are known now: without groups where they may
// not sign in any more, or never did. asks is set where they are the one who asks for what evidence is about, or has started the job that
// does. Here an address says it whoever's provider names it, for that of an account elsewhere is nobody's provider's.
func (s *Service) linked(ctx context.Context, p configs.LinkedPerson, about evidence.About) (who authn.Identity, asks bool, err error) {
	who = authn.Identity{Issuer: p.Issuer, Subject: p.Subject, Email: p.Email, Kind: authn.Human}
	asker := authn.Identity{Issuer: about.Issuer, Subject: about.Subject, Email: about.Email, StartedBy: about.StartedBy}
	if err := s.meet(ctx); err != nil {
		return who, false, err
	}
	own := func() bool {
		asked, started := s.rules.Load().persons.Own(asker, who)
		return asked || started || who.Email != "" && strings.EqualFold(who.Email, about.Email)
	}
	if asks = own(); s.groups == nil || s.current == nil {
		return who, asks, nil
	}
	now, err := s.current(ctx, who)
	if refusal.Is(err, refusal.NotFound) {
		return who, asks, nil
	}
	if err != nil {
		return who, asks, err
	}
	who = now
	who.Groups, err = s.groups(ctx, who)
	return who, asks || own(), err
}

// evidenceFor are the names of all that policies which speak of an account ask for.
func (r *rules) evidenceFor(who authn.Identity, t configs.Target, account string) (names []string) {
	for _, p := range r.withEvidence {
		if !p.Covers(t, account) || len(p.Groups) > 0 && !policy.InAny(who.Groups, p.Groups) {
			continue
		}
		for _, name := range p.Policy.Evidence {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// facts are what is known of evidence.
func (r *rules) facts(names []string, about evidence.About) map[string]evidence.Fact {
	if len(names) == 0 {
		return nil
	}
	facts := make(map[string]evidence.Fact, len(names))
	for _, name := range names {
		facts[name] = r.evidence.Known(name, about)
	}
	return facts
}

// known is what is known of the evidence that an open grant hangs on, and of what could forbid it.
func (r *rules) known(g Grant) map[string]evidence.Fact {
	if len(r.withEvidence) == 0 {
		return nil
	}
	return r.facts(r.evidenceFor(g.Identity, r.names[g.Target], g.Account), about(g))
}

// learnFor reads the evidence that a request could need. Decisions look only at what is known then.
func (s *Service) learnFor(ctx context.Context, who authn.Identity, ask Ask) {
	r := s.rules.Load()
	if len(r.withEvidence) == 0 || ask.BreakGlass {
		return
	}
	if t, a, err := r.find(ask.Target, ask.Account); err == nil {
		r.evidence.Learn(ctx, r.evidenceFor(who, t, a.Name), aboutAsk(who, t.Name, a.Name, ask.Ticket))
	}
}

// learn reads the evidence that a grant hangs on. One that was taken in an emergency hangs on none.
func (s *Service) learn(ctx context.Context, g Grant) {
	r := s.rules.Load()
	if len(r.withEvidence) == 0 || g.BreakGlass {
		return
	}
	r.evidence.Learn(ctx, r.evidenceFor(g.Identity, r.names[g.Target], g.Account), about(g))
}

func (s *Service) learnOf(ctx context.Context, id string) {
	s.mu.RLock()
	e := s.open[canonical(id)]
	s.mu.RUnlock()
	if e != nil {
		s.learn(ctx, e.row.Load().grant)
	}
}

// evidenceGone says whether what a grant hangs on is no more. What has not been read yet is waited for, but lets nobody in.
func (r *rules) evidenceGone(p *policy.Policy, c circumstances) objection {
	for _, name := range p.Policy.Evidence {
		f := c.evidence[name]
		if f.Missing == "" || f.Unread && !c.connecting {
			continue
		}
		reason := r.evidence.Ends(name)
		if f.Lost {
			reason = EndEvidenceLost
		}
		return objection{reason: reason, text: "evidence " + name + ": " + f.Missing, passing: c.connecting}
	}
	return objection{}
}

// forbidsUnread reports whether something that forbids can't be worked out only because it has not been read yet, which must
// not end what was let in before.
func (r *rules) forbidsUnread(ask policy.Ask, known map[string]evidence.Fact) bool {
	for _, p := range r.withEvidence {
		if p.Forbids() && p.Covers(ask.Target, ask.Account) && slices.ContainsFunc(p.Policy.Evidence, func(name string) bool { return known[name].Unread }) {
			return true
		}
	}
	return false
}

// watch reads the evidence that open grants hang on again and again until Close, and ends those whose is gone; and those of
// identities that are. It is not the keeper's work, which must not wait for others; and neither does one system wait for another, nor
// what was read for what was not.
func (s *Service) watch() {
	defer close(s.keeper.watched)
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	go func() {
		<-s.keeper.stop
		cancel()
	}()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	var looked time.Duration
	busy := map[string]<-chan struct{}{} // closed when all that was due of the evidence of that name has been read
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r := s.rules.Load()
		var begun []<-chan struct{}
		for _, name := range r.evidence.Names() {
			if before, ok := busy[name]; ok {
				select {
				case <-before:
				default:
					continue // it goes on when that system has answered, or not in time
				}
			}
			done := make(chan struct{})
			busy[name] = done
			begun = append(begun, done)
			reading.Go(func() {
				defer close(done)
				s.reread(ctx, r, name)
			})
		}
		// What is read quickly is known before anything is judged, after the machine was asleep too; what is not, others don't wait for.
		enough := time.NewTimer(readPatience)
		for _, done := range begun {
			select {
			case <-done:
				continue
			case <-enough.C:
			case <-ctx.Done():
			}
			break
		}
		enough.Stop()
		if err := s.judgeEvidence(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("end grants whose evidence is gone", "error", err)
		}
		if now := s.clock.elapsed(); now-looked >= judgeEvery {
			if err := s.lookAround(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("look at identities and reviews", "error", err)
				continue
			}
			looked = now
		}
	}
}

// reread reads what is due of one piece of evidence, for all open grants that hang on it, and waits for its system.
func (s *Service) reread(ctx context.Context, r *rules, name string) {
	var group sync.WaitGroup
	places := make(chan struct{}, readers)
	for _, e := range s.entries() {
		g := e.row.Load().grant
		if g.BreakGlass || !slices.Contains(r.evidenceFor(g.Identity, r.names[g.Target], g.Account), name) {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			r.evidence.Learn(ctx, []string{name}, about(g))
		})
	}
	group.Wait()
}

// rereadEvidence reads what is due of all evidence, and ends what that ends.
func (s *Service) rereadEvidence(ctx context.Context) error {
	r := s.rules.Load()
	var group sync.WaitGroup
	for _, name := range r.evidence.Names() {
		group.Go(func() { s.reread(ctx, r, name) })
	}
	group.Wait()
	return s.judgeEvidence(ctx)
}

// judgeEvidence ends those open grants whose evidence is gone, as far as is known.
func (s *Service) judgeEvidence(ctx context.Context) error {
	r := s.rules.Load()
	if len(r.withEvidence) == 0 {
		return nil
	}
	return s.review(ctx, func(e *row) (Grant, bool) {
		g := e.grant
		if g.BreakGlass || len(r.evidenceFor(g.Identity, r.names[g.Target], g.Account)) == 0 {
			return g, false
		}
		return s.judgeAll(e)
	})
}

// lookAround does what has to be done every minute, and may take a while.
func (s *Service) lookAround(ctx context.Context) error {
	return errors.Join(s.remember(ctx, s.rules.Load()), s.identities(ctx), s.overdue(ctx))
}

// identities ends what identities hold that may have nothing any more, or not that.
func (s *Service) identities(ctx context.Context) error {
	if s.standing == nil {
		return nil
	}
	var failed error
	asked := map[string]bool{}
	for _, e := range s.entries() {
		who := e.row.Load().grant.Identity
		if asked[who.Key()] {
			continue
		}
		asked[who.Key()] = true
		err := s.standing(ctx, who)
		if r := refusal.Of(err); r != nil && r.Code == refusal.IdentityDisabled {
			failed = errors.Join(failed, s.IdentityGone(ctx, who.Key(), r.Message))
			continue
		}
		if s.current == nil || who.Kind != authn.Human {
			continue
		}
		now, err := s.current(ctx, who)
		if err == nil {
			err = s.IdentityChanged(ctx, now)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// IdentityChanged holds what an identity holds or has asked for against the policies, with the groups and the address that it has
// now: what they no longer allow ends, like what a new configuration takes away.
func (s *Service) IdentityChanged(ctx context.Context, who authn.Identity) error {
	err := s.review(ctx, func(r *row) (Grant, bool) {
		if r.grant.Identity.Key() != who.Key() {
			return r.grant, false
		}
		c := s.settled(r.grant)
		c.identity.Groups, c.identity.Email = who.Groups, who.Email
		o := s.rules.Load().objection(r.grant, c)
		if o.reason == "" {
			return r.grant, false
		}
		g := r.grant.clone()
		s.object(&g, o)
		return g, true
	})
	if err != nil {
		return fmt.Errorf("end what %s may not have any more: %w", who.Key(), err)
	}
	return nil
}

// IdentityGone ends all that an identity (authn.Identity.Key) holds or has asked for.
func (s *Service) IdentityGone(ctx context.Context, key, why string) error {
	err := s.review(ctx, func(r *row) (Grant, bool) {
		g := r.grant.clone()
		if g.Identity.Key() != key {
			return g, false
		}
		to := Ended
		if g.State == Pending {
			to = Denied
		}
		g.end(to, s.clock.stamp(), EndIdentityGone, system, why)
		return g, true
	})
	if err != nil {
		return fmt.Errorf("end what %s holds: %w", key, err)
	}
	return nil
}
