package ssh

import (
	"fmt"
	"slices"
	"time"

	"sallyport/recorder/format"
)

// settleTime is how long after it was due a warning still makes sense: a grant can be extended or shortened at any time.
const settleTime = 15 * time.Second

// warn tells users on terminals some time before the grant ends, as often as the target says. It looks at the end as it
// stands, which an extension moves.
func (l *link) warn() {
	before := slices.Clone(l.to.Warnings())
	slices.Sort(before)
	slices.Reverse(before)
	told := map[time.Duration]time.Time{} // the end that was told of
	for {
		until := l.session.Opening().Lease.Until()
		wait := settleTime
		for _, ahead := range before {
			due := time.Until(until.Add(-ahead))
			switch {
			case until.IsZero() || told[ahead].Equal(until):
			case due > 0:
				wait = min(wait, due)
			default:
				told[ahead] = until
				if due > -settleTime && time.Until(until) > 0 {
					l.tell(fmt.Sprintf("your grant %s ends in %s", l.session.Opening().Lease.Grant.ID, time.Until(until).Round(time.Second)))
				}
			}
		}
		timer := time.NewTimer(wait)
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
