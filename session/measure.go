package session

import (
	"context"
	"time"

	"sallyport/recorder"
)

// Meter is told how long what matters took. Its methods are called from many goroutines at once and must not wait.
type Meter interface {
	// Waited is how long a command waited for its record to be safe.
	Waited(time.Duration)
	// Cut is how long it took, from the instant at which a session had to end, to tell its user and to stop what ran on the
	// target.
	Cut(time.Duration)
}

// Measure has the sessions that begin from now on tell a meter. It is called before the first begins, if at all.
func (m *Manager) Measure(meter Meter) { m.meter = meter }

// recordMeasured is record, measured where somebody wants to know.
func (s *Session) recordMeasured(ctx context.Context, what []recorder.Event) error {
	meter := s.manager.meter
	if meter == nil {
		return s.record(ctx, what)
	}
	begun := time.Now()
	err := s.record(ctx, what)
	meter.Waited(time.Since(begun))
	return err
}

// LiveByProtocol is how many sessions are open, by protocol.
func (m *Manager) LiveByProtocol() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := map[string]int{}
	for _, s := range m.live {
		live[s.opening.Protocol]++
	}
	return live
}
