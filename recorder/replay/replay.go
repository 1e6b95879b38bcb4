// Package replay shows recordings to people: a terminal with its timing, a Postgres session as a timeline.
//
// It works on the items that a recording means, wherever they come from, so that the gateway and its clients show the
// same. What it prints has passed sallyport/recorder/terminal and is harmless to the terminal it is printed on, unless
// Options.Raw asks for the bytes as they were.
package replay

import (
	"context"
	"io"
	"iter"
	"time"

	"sallyport/recorder/item"
)

// Options say how to show a recording. The zero value shows it at the speed at which it happened.
type Options struct {
	// Speed is how many times faster than it happened; 0 means 1.
	Speed float64
	// IdleLimit is the longest pause, as shown; 0 means no limit.
	IdleLimit time.Duration
	// Raw shows terminal output as it was, with all that it may do to the viewer's terminal.
	Raw bool
	// From and To are the part to show. Of a terminal, what came before is painted at once, so that it looks as it did then.
	From, To Point
	// Live shows everything as soon as it comes.
	Live bool
	// Mask hides in a terminal's line, which Text puts together, what is to be hidden; nil: nothing is. Items are masked before.
	Mask func(line string) string
	// Zone is in which times are printed and times of day are meant; nil means UTC.
	Zone *time.Location

	// wait waits for a pause to pass; tests set it.
	wait func(ctx context.Context, pause time.Duration) error
}

// Play shows a recording as suits it: with its timing if it has a terminal's output, else as a timeline at once.
func Play(ctx context.Context, items iter.Seq2[item.Item, error], w io.Writer, o Options) error {
	next, stop := iter.Pull2(items)
	defer stop()
	first, err, ok := next()
	if err != nil || !ok {
		return err
	}
	all := func(yield func(item.Item, error) bool) {
		for it, err := first, err; ok; it, err, ok = next() {
			if !yield(it, err) {
				return
			}
		}
	}
	if first.Header != nil && first.Header.Protocol == "ssh" {
		return Terminal(ctx, all, w, o)
	}
	return Timeline(ctx, all, w, o)
}
