package postgres

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgproto3/v2"

	"sallyport/configs"
)

// warnSlack is by how much an end may have moved without being another one.
const warnSlack = time.Second

// warnBefore tells the client of the session's end in time, as often as its target's configuration says, until stop is
// called.
func (r *relay) warnBefore() (stop func()) {
	opening := r.session.Opening()
	return remind(opening.Target.WarnBefore, opening.Lease.Until, r.warn)
}

// remind calls warn each of these times before the end, until stop is called. An extension moves those that are still to come; what
// should have come before now never does.
func remind(before []configs.Duration, end func() time.Time, warn func(before time.Duration)) (stop func()) {
	var left []time.Duration // to come, the longest before the end first
	for _, d := range before {
		if time.Until(end()) > d.D() {
			left = append(left, d.D())
		}
	}
	if len(left) == 0 {
		return func() {}
	}
	slices.Sort(left)
	slices.Reverse(left)
	var mu sync.Mutex
	var over bool
	var timer *time.Timer
	wait := func() time.Duration { return max(0, time.Until(end())-left[0]) }
	due := func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if wait() <= warnSlack {
			warn(left[0])
			left = left[1:]
		}
		if len(left) > 0 {
			timer.Reset(wait())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(wait(), due)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// warn says that the session ends soon. It comes between two answers and not inside of one.
func (r *relay) warn(before time.Duration) {
	opening := r.session.Opening()
	grant := opening.Lease.Grant
	frame, err := (&pgproto3.NoticeResponse{
		Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "01000",
		Message: clean(fmt.Sprintf("this session ends in %s", before)),
		Detail:  clean(fmt.Sprintf("Grant %s for %s@%s ends at %s.", grant.ID, grant.Account, grant.Target, opening.Lease.Until().UTC().Format("15:04:05 UTC"))),
		Hint:    clean("ask for more time with: sallyport extend " + grant.ID),
	}).Encode(nil)
	if err == nil { // only a text of gigabytes has one
		r.out.tellWhenIdle(frame)
	}
}
