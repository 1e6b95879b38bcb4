package replay

import (
	"fmt"
	"iter"
	"math"
	"strings"
	"time"

	"sallyport/recorder/item"
)

// Point is a place in a recording: so long after its beginning, a time of day, or a date and time. The zero value is no
// place.
type Point struct {
	kind   pointKind
	offset time.Duration // since the beginning, or of the day
	when   time.Time
}

type pointKind uint8

const (
	nowhere pointKind = iota
	sinceBeginning
	ofDay
	exactly
)

// ParsePoint reads a Point: "90s" or "1h2m" since the beginning, "14:05" or "14:05:30" as the time of day, or a date and
// time such as "2026-01-31T14:05" or RFC 3339's; the latter in the zone, where they name none.
func ParsePoint(text string, zone *time.Location) (Point, error) {
	if d, err := time.ParseDuration(strings.TrimPrefix(text, "+")); err == nil && d >= 0 {
		return Point{kind: sinceBeginning, offset: d}, nil
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return Point{kind: ofDay, offset: t.Sub(t.Truncate(24 * time.Hour))}, nil
		}
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return Point{kind: exactly, when: t}, nil
		}
	}
	return Point{}, fmt.Errorf("%q is no place in a recording; write it like 90s, 14:05:30 or 2026-01-31T14:05", text)
}

// at is how long after its beginning the place is in a recording that began then. A time of day is the first one that
// comes.
func (p Point) at(began time.Time, zone *time.Location) (time.Duration, bool) {
	switch p.kind {
	case sinceBeginning:
		return p.offset, true
	case exactly:
		return p.when.Sub(began), true
	case ofDay:
		local := began.In(zone)
		day := func(after int) time.Time {
			return time.Date(local.Year(), local.Month(), local.Day()+after, 0, 0, 0, int(p.offset), zone)
		}
		when := day(0)
		if when.Before(began.Truncate(time.Minute)) {
			when = day(1)
		}
		return max(0, when.Sub(began)), true
	}
	return 0, false
}

// Since is how long after its beginning the place is in a recording that began then; 0 for no place.
func (p Point) Since(began time.Time, zone *time.Location) time.Duration {
	at, _ := p.at(began, zone)
	return max(at, 0)
}

// NeedsBeginning reports whether Since needs to know when the recording began.
func (p Point) NeedsBeginning() bool { return p.kind == ofDay || p.kind == exactly }

// window is the part of a recording that Options ask for.
type window struct {
	options  Options
	from, to time.Duration
}

func (o Options) window() *window { return &window{options: o, to: math.MaxInt64} }

// begin resolves the window when the first item has told when the recording began.
func (w *window) begin(it item.Item) {
	if it.Header == nil {
		return
	}
	zone := w.options.zone()
	if from, ok := w.options.From.at(it.Header.Started, zone); ok {
		w.from = from
	}
	if to, ok := w.options.To.at(it.Header.Started, zone); ok {
		w.to = to
	}
}

func (o Options) zone() *time.Location {
	if o.Zone == nil {
		return time.UTC
	}
	return o.Zone
}

// Within leaves of a recording what is within Options.From and To, and its start.
func Within(items iter.Seq2[item.Item, error], o Options) iter.Seq2[item.Item, error] {
	return func(yield func(item.Item, error) bool) {
		w := o.window()
		for it, err := range items {
			if err == nil && it.Kind == item.Start {
				w.begin(it)
			} else if err == nil && it.At < w.from {
				continue
			} else if err == nil && it.At > w.to {
				return
			}
			if !yield(it, err) {
				return
			}
		}
	}
}

// Marker is a place to seek to: a command or a statement.
type Marker struct {
	At   time.Duration `json:"at_ns"`
	Time time.Time     `json:"time"`
	// Label is the command or statement, on one harmless line.
	Label string `json:"label"`
}

// Markers are the commands and statements of a recording within Options.From and To.
func Markers(items iter.Seq2[item.Item, error], o Options) iter.Seq2[Marker, error] {
	return func(yield func(Marker, error) bool) {
		for it, err := range Within(items, o) {
			if err != nil {
				yield(Marker{}, err)
				return
			}
			label := ""
			switch it.Kind {
			case item.Statement:
				label = it.SQL
			case item.Command:
				if label = it.Command; label == "" {
					label = it.Via
				}
			}
			if label = strings.Join(strings.Fields(label), " "); label == "" {
				continue
			}
			label = safe(short(label))
			if it.Guess() {
				label += " " + item.Guessed
			}
			if !yield(Marker{At: it.At, Time: it.Time, Label: label}, nil) {
				return
			}
		}
	}
}

// Offset is how --from takes a marker's place.
func (m Marker) Offset() string { return m.At.Truncate(time.Millisecond).String() }
