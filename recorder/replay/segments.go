package replay

import (
	"fmt"
	"io"
	"iter"
	"time"

	"encoding/json"

	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
)

// The player's segmented source (asciinema-player 3.18): an index of pieces of a recording, each of which has a picture to
// begin with, so that any place of it is shown without what came before.

// Segments are where the pieces of a recording begin, in order, the first at 0, and when the last ends.
type Segments struct {
	Starts   []time.Duration
	Duration time.Duration
}

// leastSegment is how long a piece is at least, so that a busy recording is not cut into thousands.
const leastSegment = 10 * time.Millisecond

// Divide makes segments of a recording that lasted so long, from the places at which it is quickly read from.
func Divide(keys []time.Duration, lasted time.Duration) Segments {
	s := Segments{Starts: []time.Duration{0}, Duration: max(lasted, time.Millisecond)}
	for _, at := range keys {
		// Just behind a key: what is as late as the key itself belongs to the piece before it.
		if at += time.Microsecond; at >= s.Starts[len(s.Starts)-1]+leastSegment && at < s.Duration {
			s.Starts = append(s.Starts, at)
		}
	}
	return s
}

// Bounds are where a segment begins and ends; false where there is no such segment.
func (s Segments) Bounds(n int) (from, to time.Duration, ok bool) {
	if n < 0 || n >= len(s.Starts) {
		return 0, 0, false
	}
	if n+1 < len(s.Starts) {
		return s.Starts[n], s.Starts[n+1], true
	}
	return s.Starts[n], s.Duration, true
}

// Index is the index as the player takes it; address is that of a segment.
func (s Segments) Index(columns, lines int, markers []Marker, address func(n int) string) any {
	type segment struct {
		Start float64 `json:"start"`
		URL   string  `json:"url"`
	}
	segments := []segment{}
	for n, start := range s.Starts {
		segments = append(segments, segment{start.Seconds(), address(n)})
	}
	marks := [][2]any{}
	for _, m := range markers {
		if m.At <= s.Duration {
			marks = append(marks, [2]any{m.At.Seconds(), m.Label})
		}
	}
	return map[string]any{
		"version": 1, "duration": s.Duration.Seconds(), "term": map[string]int{"cols": columns, "rows": lines}, "markers": marks, "segments": segments,
	}
}

// Segment writes one segment of a channel's terminal, from items that begin at or before it.
func (s Segments) Segment(items iter.Seq2[item.Item, error], w io.Writer, n int, channel uint32) error {
	from, to, ok := s.Bounds(n)
	if !ok {
		return fmt.Errorf("there is no segment %d", n)
	}
	last := n == len(s.Starts)-1
	picture := terminal.NewPicture(80, 24)
	columns, lines := 80, 24
	var filter terminal.Filter
	var text decoder
	out := segmentWriter{w: w}
	begin := func() {
		out.raw(fmt.Sprintf(`{"snapshot":{"cols":%d,"rows":%d,"init":`, columns, lines))
		out.json(decodeAll(picture.Paint()))
		out.raw(`},"events":[`)
		out.event(from, "o", "")
	}
	for it, err := range items {
		if err != nil {
			return err
		}
		if it.At >= to && !last {
			break
		}
		at := min(it.At, to)
		if it.Channel != channel {
			continue
		}
		if at >= from && !out.begun && (it.Kind == item.Output && it.Via != item.Picture || it.Kind == item.Resize) {
			begin()
		}
		switch {
		case it.Kind == item.Command && it.Columns > 0 && !out.begun:
			columns, lines = it.Columns, it.Lines
			picture = terminal.NewPicture(columns, lines)
		case (it.Kind == item.Command || it.Kind == item.Resize) && it.Columns > 0 && it.Lines > 0:
			columns, lines = it.Columns, it.Lines
			if picture.Resize(columns, lines); out.begun {
				out.event(at, "r", fmt.Sprintf("%dx%d", columns, lines))
			}
		case it.Kind == item.Output && !out.begun:
			if it.Columns > 0 && it.Lines > 0 {
				columns, lines = it.Columns, it.Lines
				picture.Resize(columns, lines)
			}
			picture.Write(it.Data)
		case it.Kind == item.Output:
			if said := text.decode(filter.Append(nil, it.Data)); said != "" {
				out.event(at, "o", said)
			}
		}
	}
	if !out.begun {
		begin()
	}
	if last {
		out.event(to, "o", text.finish())
	}
	out.raw("]}\n")
	return out.err
}

// decodeAll is text that may not be UTF-8.
func decodeAll(b []byte) string {
	var d decoder
	return d.decode(b) + d.finish()
}

// segmentWriter writes a segment's JSON.
type segmentWriter struct {
	w     io.Writer
	begun bool
	some  bool
	err   error
}

func (s *segmentWriter) raw(text string) {
	if s.begun = true; s.err == nil {
		_, s.err = io.WriteString(s.w, text)
	}
}

func (s *segmentWriter) json(v any) {
	b, err := json.Marshal(v)
	if s.err == nil {
		s.err = err
	}
	s.raw(string(b))
}

func (s *segmentWriter) event(at time.Duration, code, text string) {
	if s.some {
		s.raw(",")
	}
	s.some = true
	s.json([]any{at.Seconds(), code, text})
}
