package grant

import (
	"context"
	"time"

	"sallyport/authn"
	"sallyport/internal/refusal"
)

// InUse says that the holder works under an active grant of their own though no session is open just now: it is not idle,
// its idle time begins anew. It moves nothing else, and is not written down: after a restart idle time begins anew anyway.
// It refuses with NotPermitted where the grant is another's, and with Conflict where it is not active or has been idle
// for too long already.
func (s *Service) InUse(_ context.Context, who authn.Identity, id string) error {
	s.mu.RLock()
	e := s.open[id]
	s.mu.RUnlock()
	if e == nil {
		return refusal.New(refusal.NotFound, "there is no open grant %.32q", id)
	}
	g := e.row.Load().grant
	if g.Identity.Key() != who.Key() || who.Emergency != "" && !g.BreakGlass {
		return refusal.New(refusal.NotPermitted, "grant %s is not yours", id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.row.Load().grant.State != Active || e.idleNow() {
		return refusal.New(refusal.Conflict, "grant %s is not active", id)
	}
	e.idleSince = e.clock.elapsed()
	return nil
}

// Running says until when a grant gives access at the latest, as it stands, and whether it does.
func (s *Service) Running(id string) (until time.Time, running bool) {
	s.mu.RLock()
	e := s.open[id]
	s.mu.RUnlock()
	if e == nil {
		return time.Time{}, false
	}
	r := e.row.Load()
	if r.grant.State != Active {
		return time.Time{}, false
	}
	if _, over := s.judgeTime(r); over {
		return time.Time{}, false
	}
	return r.grant.Until, true
}
