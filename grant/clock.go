package grant

import (
	"sync/atomic"
	"time"

	"sallyport/internal/refusal"
)

// backTolerance is how far the wall clock may go back before nothing is granted any more; time daemons step that much.
const backTolerance = 2 * time.Second

// clock reads both clocks and remembers the latest wall-clock time, which is also kept in the store.
type clock struct {
	now     func() time.Time     // wall clock
	elapsed func() time.Duration // since some instant in this process's life, by a clock that is never set
	high    atomic.Int64         // the latest time that now has said, in nanoseconds since 1970
}

// read returns the wall clock's time, and the time to write down: the same, but never before one already seen.
func (c *clock) read() (wall, stamp time.Time) {
	wall = c.now().UTC().Round(0)
	n := wall.UnixNano()
	for {
		high := c.high.Load()
		if n <= high {
			return wall, time.Unix(0, high).UTC()
		}
		if c.high.CompareAndSwap(high, n) {
			return wall, wall
		}
	}
}

// sound refuses while the wall clock is behind what it has said before: how much of a grant's time is left, or whether
// a request is still in time, can't be known then.
func (c *clock) sound() error {
	wall, stamp := c.read()
	if stamp.Sub(wall) <= backTolerance {
		return nil
	}
	return refusal.New(refusal.NotPermitted, "nothing can be granted while the gateway's clock is behind").
		WithDetail("it shows %s, but %s has been seen before", when(wall), when(stamp)).
		WithHint("ask the gateway's operator to set its clock right")
}

// when writes a time for people.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
