package ssh

import (
	"fmt"
	"slices"
	"time"

	"sallyport/recorder/format"
)

const (
	// settleTime is how long after it was due a warning still makes sense.
	settleTime = 30 * time.Second
	// lookTime is how often at least the grant's end is looked at: it can be extended or shortened at any time.
	lookTime = 15 * time.Second
)

// warnings are those of one session.
type warnings struct {
	before []time.Duration             // the end, the earliest first
	told   map[time.Duration]time.Time // the end that was told of
}

func newWarnings(before []time.Duration) *warnings {
	before = slices.Clone(before)
	slices.Sort(before)
	slices.Reverse(before)
	return &warnings{before, map[time.Duration]time.Time{}}
}

// look says which warnings are due now, each once for an end as it stands, and when to look again.
func (w *warnings) look(until, now time.Time) (due []time.Duration, again time.Duration) {
	again = lookTime
	if until.IsZero() {
		return nil, again
	}
	for _, ahead := range w.before {
		in := until.Add(-ahead).Sub(now)
		switch {
		case w.told[ahead].Equal(until):
		case in > 0:
			again = min(again, in)
		default:
			w.told[ahead] = until
			if in > -settleTime && until.After(now) {
				due = append(due, ahead)
			}
		}
	}
	return due, again
}

// warn tells users on terminals some time before the grant ends, as often as the target says. It looks at the end as it
// stands, which an extension moves.
func (l *link) warn() {
	w := newWarnings(l.to.Warnings())
	for {
		lease := l.session.Opening().Lease
		until := lease.Until()
		due, again := w.look(until, time.Now())
		if len(due) > 0 {
			l.tell(fmt.Sprintf("your grant %s ends in %s", lease.Grant.ID, time.Until(until).Round(time.Second)))
		}
		timer := time.NewTimer(again)
		select {
		case <-l.session.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// tell shows a line on every terminal of the session. Commands without one are left alone: their errors may be read by
// programs.
func (l *link) tell(sentence string) {
	_ = l.session.Observe(format.JSON(format.TypeNote, 0, format.Note{Kind: "warned", Text: sentence})) // a failure cuts the session
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.channels {
		if c.kind != kindSession || !c.terminal.Load() {
			continue
		}
		l.connection.spawn(func() { // it may have to wait for the client
			_ = c.client.notice("\nsallyport: "+shown(sentence)+"\n", true) // fails where the client is gone
		})
	}
}
