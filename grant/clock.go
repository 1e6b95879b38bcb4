package grant

import (
	"sync"
	"time"

	"sallyport/internal/refusal"
)

// backTolerance is how far the wall clock may go back before nothing is granted any more; time daemons step that much.
const backTolerance = 2 * time.Second

// clock reads both clocks and remembers the latest wall-clock time, which is also kept in the store.
type clock struct {
	now     func() time.Time     // wall clock
	elapsed func() time.Duration // since some instant in this process's life, by a clock that is never set

	mu     sync.Mutex
	high   time.Time     // the latest time that the wall clock has shown, before this process too
	highAt time.Duration // elapsed when it did
}

// begin takes up the latest time that an earlier process has seen.
func (c *clock) begin(high time.Time) { c.high, c.highAt = high, c.elapsed() }

// read returns the time by the wall clock, and the time to judge by and to write down: the same while the wall clock
// runs as it should. Where it was set back, the second is the latest time seen plus what has passed since.
func (c *clock) read() (wall, stamp time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall = c.now().UTC().Round(0)
	if !wall.Before(c.high) {
		c.high, c.highAt = wall, c.elapsed()
		return wall, wall
	}
	return wall, c.high.Add(c.elapsed() - c.highAt)
}

// stamp is the second time that read returns.
func (c *clock) stamp() time.Time {
	_, stamp := c.read()
	return stamp
}

// sound refuses while the wall clock is behind what it has shown before: how much of a grant's time is left, or whether
// a request is still in time, can't be known then.
func (c *clock) sound() error {
	wall := c.now()
	c.mu.Lock()
	high := c.high
	c.mu.Unlock()
	if high.Sub(wall) <= backTolerance {
		return nil
	}
	return refusal.New(refusal.NotPermitted, "nothing can be granted while the gateway's clock is behind").
		WithDetail("it shows %s, but has shown %s before", when(wall), when(high)).
		WithHint("ask the gateway's operator to set its clock right")
}

// when writes a time for people.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
