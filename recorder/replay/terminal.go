package replay

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// resetTerminal brings a terminal that a recording left half-way in some mode back to plain text: main screen, cursor
// shown, no colours, lines wrapped, plain character set.
const resetTerminal = "\x1b[?1049l\x1b[?25h\x1b[?7h\x1b[0m\x0f\x1b(B"

// source is one stream of output.
type source struct {
	channel uint32
	name    string
}

// Terminal replays the output of a session with its timing; what else happened is told in lines between. It returns early,
// with ctx's error, when ctx ends.
func Terminal(ctx context.Context, items iter.Seq2[item.Item, error], w io.Writer, o Options) error {
	wait := o.wait
	if wait == nil {
		wait = pause
	}
	filters := map[source]*terminal.Filter{}
	fresh := true // at the beginning of a line
	painted := false
	part := o.window()
	var last time.Duration
	var buf []byte
	for it, err := range items {
		if err == nil && it.Kind == item.Start {
			part.begin(it)
			last = part.from
		}
		over := err == nil && it.At > part.to
		if err == nil && !over {
			err = wait(ctx, o.pause(it.At-last))
		}
		if err != nil || over {
			if painted && !o.Raw {
				io.WriteString(w, resetTerminal)
			}
			return err
		}
		last = max(last, it.At)
		if it.Kind == item.Output {
			from := source{it.Channel, it.Stream}
			if filters[from] == nil {
				filters[from] = new(terminal.Filter)
			}
			if buf = buf[:0]; o.Raw {
				buf = append(buf, it.Data...)
			} else {
				buf = filters[from].Append(buf, it.Data)
			}
			if len(buf) > 0 {
				if _, err := w.Write(buf); err != nil {
					return err
				}
				fresh, painted = buf[len(buf)-1] == '\n', true
			}
			continue
		}
		line := tellTerminal(it, o)
		if line == "" {
			continue
		}
		lead := ""
		if it.Kind == item.End && painted && !o.Raw {
			lead = resetTerminal
		}
		if !fresh {
			lead += "\r\n"
		}
		if _, err := io.WriteString(w, lead+line+"\r\n"); err != nil {
			return err
		}
		fresh = true
	}
	return nil
}

// pause is how long to wait for what happened that much later.
func (o Options) pause(later time.Duration) time.Duration {
	if o.Live {
		return 0
	}
	if o.Speed > 0 {
		later = time.Duration(float64(later) / o.Speed)
	}
	if o.IdleLimit > 0 {
		later = min(later, o.IdleLimit)
	}
	return max(later, 0)
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tellTerminal says in a line what happened beside output, or nothing.
func tellTerminal(it item.Item, o Options) string {
	switch it.Kind {
	case item.Start:
		return strings.Join(opening(it, o), "\r\n")
	case item.Input, item.Resize, item.Bulk:
		return ""
	}
	if what := o.tell(it); what != "" {
		return "── " + what
	}
	return ""
}

func (o Options) masked(line string) string {
	if o.Mask == nil {
		return line
	}
	return o.Mask(line)
}

// Text writes a recording as plain text, without timing: terminal output in lines, without escape sequences, and what else
// happened between them, each line with when it was.
func Text(ctx context.Context, items iter.Seq2[item.Item, error], w io.Writer, o Options) error {
	lines := map[source]*terminal.Lines{}
	var order []source
	var failed error
	print := func(at time.Duration, text string) {
		if _, err := fmt.Fprintf(w, "%s  %s\n", clock(at), text); err != nil && failed == nil {
			failed = err
		}
	}
	for it, err := range items {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
		if it.Kind == item.Output {
			from := source{it.Channel, it.Stream}
			if lines[from] == nil {
				lines[from] = new(terminal.Lines)
				order = append(order, from)
			}
			lines[from].Write(it.Data, func(line string) { print(it.At, o.masked(line)) })
			continue
		}
		if it.Kind == item.Exit || it.Kind == item.End {
			for _, from := range order {
				if it.Kind == item.End || from.channel == it.Channel {
					lines[from].Finish(func(line string) { print(it.At, o.masked(line)) })
				}
			}
		}
		for _, line := range o.lines(it) {
			if it.Kind == item.Start {
				fmt.Fprintln(w, line)
			} else {
				print(it.At, line)
			}
		}
	}
	return failed
}
