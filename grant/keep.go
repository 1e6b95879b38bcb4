package grant

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/grant/policy"
	"sallyport/internal/store"
)

const (
	// poll is how often the wall clock is looked at while grants are open: a clock set forward moves no timer.
	poll = time.Second
	// saveEvery is how often the time is written down while grants are open. A crash together with a clock set back can
	// lengthen a grant by no more than this.
	saveEvery = 5 * time.Second
	// storeGrace is how long leases live on when that writing fails: what was revoked can't be known then.
	storeGrace = 30 * time.Second
	// judgeEvery is how often open grants are held against the policies again: what a policy forbids can begin at a time.
	judgeEvery = time.Minute
	// batch is how many grants end in one transaction.
	batch = 500
)

// keeper is the one goroutine that ends what the time has ended.
type keeper struct {
	stop, stopped chan struct{}
	watched       chan struct{} // closed when watch has stopped
	stopOnce      sync.Once
	wake          chan struct{} // has room for one
	// unfinished is set when a configuration was read anew but not all grants that it ends could be written.
	unfinished atomic.Bool
	// lastSaved is when, by clock.elapsed, the store last took something, or nothing was open; lastTried when the time was
	// last to be written down.
	lastSaved  atomic.Int64
	lastTried  atomic.Int64
	lastJudged atomic.Int64 // when, by clock.elapsed, all grants were held against the policies
}

func newKeeper() *keeper {
	return &keeper{stop: make(chan struct{}), stopped: make(chan struct{}), watched: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// nudge makes the keeper look at the deadlines again.
func (k *keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// keep runs until Close.
func (s *Service) keep() {
	defer close(s.keeper.stopped)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-s.keeper.stop
		cancel()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.keeper.stop:
			return
		case <-s.keeper.wake:
		case <-timer.C:
		}
		err := s.tick(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("end grants whose time is over", "error", err)
		}
		timer.Reset(s.pause(err != nil))
	}
}

// tick ends what is over, and writes the time down now and then.
func (s *Service) tick(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, saveEvery)
	defer cancel()
	judge, now := s.judgeTime, int64(s.clock.elapsed())
	all := s.keeper.unfinished.Load() || now-s.keeper.lastJudged.Load() >= int64(judgeEvery)
	if all {
		judge = s.judgeAll
	}
	err := s.review(ctx, judge)
	if err == nil && all {
		s.keeper.unfinished.Store(false)
		s.keeper.lastJudged.Store(now)
	}
	return errors.Join(err, s.saveTime(ctx))
}

// saveTime writes the latest time seen, and cuts all leases when the store has not taken it for too long.
func (s *Service) saveTime(ctx context.Context) error {
	k, now := s.keeper, s.clock.elapsed()
	entries := s.entries()
	if len(entries) == 0 {
		k.lastSaved.Store(int64(now))
		k.lastTried.Store(int64(now))
		return nil
	}
	if now-time.Duration(k.lastTried.Load()) < saveEvery {
		return nil
	}
	k.lastTried.Store(int64(now))
	err := s.store.Do(ctx, func(tx *store.Tx) error { return saveHigh(ctx, tx, s.clock.stamp()) })
	if err == nil {
		k.lastSaved.Store(int64(now))
		return nil
	}
	if s.clock.elapsed()-time.Duration(k.lastSaved.Load()) > storeGrace {
		for _, e := range entries {
			e.cut(EndStoreLost, "the gateway lost its store, so it cannot know whether grant "+e.row.Load().grant.ID+" still holds")
		}
	}
	return err
}

// pause is how long nothing has to be done.
func (s *Service) pause(failed bool) time.Duration {
	entries := s.entries()
	if len(entries) == 0 {
		return time.Hour // a new grant nudges
	}
	wait := poll
	if failed {
		return wait
	}
	wall, elapsed := s.clock.now(), s.clock.elapsed()
	for _, e := range entries {
		switch r := e.row.Load(); r.grant.State {
		case Pending:
			wait = min(wait, r.grant.DecideBy.Sub(wall))
		case Approved:
			wait = min(wait, r.grant.ActivateBy.Sub(wall))
		case Active:
			wait = min(wait, r.grant.Until.Sub(wall), r.deadline-elapsed)
		}
	}
	return max(wait, time.Millisecond)
}

// review ends the grants that judge says are over. Their leases are cut first, which waits for nothing.
func (s *Service) review(ctx context.Context, judge func(*row) (Grant, bool)) error {
	type ending struct{ old, g Grant }
	var endings []ending
	for _, e := range s.entries() {
		r := e.row.Load()
		g, over := judge(r)
		if !over {
			continue
		}
		if r.grant.State == Active { // from there all ways lead to ended
			e.cut(g.EndReason, sentence(g))
		}
		endings = append(endings, ending{r.grant, g})
	}
	for some := range slices.Chunk(endings, batch) {
		s.transitions.Lock()
		err := s.store.Do(ctx, func(tx *store.Tx) error {
			for _, e := range some {
				_, err := s.commit(ctx, tx, e.old, e.g, s.over(e.g))
				if errors.Is(err, errStale) { // somebody else was faster
					err = s.judgeAgain(ctx, tx, e.old.ID, judge)
				}
				if err != nil {
					return err
				}
			}
			return saveHigh(ctx, tx, s.clock.stamp())
		})
		s.transitions.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// judgeAgain judges a grant as the store has it, which is not as it was when it was judged: what has become of it meanwhile may have to
// end all the same, and memory may not know of it, where the answer to a commit got lost.
func (s *Service) judgeAgain(ctx context.Context, tx *store.Tx, id string, judge func(*row) (Grant, bool)) error {
	now, err := load(ctx, tx, id)
	if err != nil {
		return err
	}
	if !now.State.Over() {
		if g, over := judge(s.rowOf(now)); over {
			_, err := s.commit(ctx, tx, now, g, s.over(g))
			return err
		}
	}
	tx.AfterCommit(func() { s.install(now) })
	return nil
}

// judgeTime says whether the time has ended a grant, and how it then stands.
func (s *Service) judgeTime(r *row) (Grant, bool) {
	stamp, g := s.clock.stamp(), r.grant
	past := func(t time.Time) bool { return !stamp.Before(t) }
	switch {
	case g.State == Pending && past(g.DecideBy):
		g.end(Lapsed, stamp, "", system, "nobody decided by "+when(g.DecideBy))
	case g.State == Approved && past(g.ActivateBy):
		g.end(Lapsed, stamp, "", system, "not used by "+when(g.ActivateBy))
	case g.State == Active && (past(g.Until) || s.clock.elapsed() >= r.deadline):
		g.expire(stamp)
	case g.State == Active && r.entry.idle():
		g.end(Ended, stamp, EndIdle, system, "it had no session for "+policy.Short(g.Idle))
	case g.State == Active && !s.rules.Load().open(g.Policy, stamp):
		g.end(Ended, stamp, EndWindowClosed, system, "the hours of policy "+g.Policy+" are over")
	default:
		return g, false
	}
	return g, true
}

// judgeAll says whether time or configuration have ended a grant, and how it then stands.
func (s *Service) judgeAll(r *row) (Grant, bool) {
	if g, over := s.judgeTime(r); over {
		return g, true
	}
	o := s.rules.Load().objection(r.grant, s.settled(r.grant))
	if o.reason == "" {
		return r.grant, false
	}
	g := r.grant
	s.object(&g, o)
	return g, true
}

// object ends a grant that the configuration no longer allows.
func (s *Service) object(g *Grant, o objection) {
	to := Ended
	if g.State == Pending {
		to = Denied
	}
	g.end(to, s.clock.stamp(), o.reason, system, o.text)
}
