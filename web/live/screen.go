package live

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
	"sallyport/web/api"
	"sallyport/web/sse"
)

const (
	// frameEvery is how often what a terminal paints is sent on.
	frameEvery = 50 * time.Millisecond
	// mostPast is how much of what was painted before is painted again for somebody who begins to watch.
	mostPast = 256 << 10
	// mostFrame is how much one frame paints; of more, only the last is worth seeing.
	mostFrame = 512 << 10
	// mostFrames is how many wait for a reader.
	mostFrames = 200
)

// Frame is one piece of what a terminal shows: a picture to begin with, something painted, or a new size.
type Frame struct {
	At   time.Duration
	Kind string // "begin", "o", "r", "end"; empty: nothing, but the stream is there
	Text string
	Columns,
	Lines int
}

// painter gathers what a terminal paints between two frames.
type painter struct {
	mu       sync.Mutex
	joined   time.Time
	channel  uint32
	chosen   bool
	begun    bool
	columns  int
	lines    int
	at       time.Duration
	caughtUp bool
	moved    bool // since the last look
	filter   terminal.Filter
	rest     []byte // of a character that is not whole yet
	past     []byte
	frames   []Frame
	over     bool
	err      error
}

// add takes one item in.
func (p *painter) add(it api.Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = true
	if !it.Time.Before(p.joined) {
		p.caughtUp = true
	}
	switch {
	case it.Kind == item.Command && it.Columns > 0 && !p.chosen:
		p.channel, p.chosen = it.Channel, true
	case it.Kind == item.Output && !p.chosen:
		p.channel, p.chosen = it.Channel, true
	}
	if !p.chosen || it.Channel != p.channel {
		return
	}
	p.at = it.At
	switch it.Kind {
	case item.Command, item.Resize:
		if it.Columns > 0 && it.Lines > 0 {
			p.columns, p.lines = min(it.Columns, 1000), min(it.Lines, 1000)
			if p.begun {
				p.resize(it.At)
			}
		}
	case item.Output:
		p.paint(it.At, p.filter.Append(nil, it.Data))
	}
}

// resize tells a new size. A reader who falls behind by too many begins anew.
func (p *painter) resize(at time.Duration) {
	if len(p.frames) < mostFrames {
		p.frames = append(p.frames, Frame{At: at, Kind: "r", Text: fmt.Sprintf("%dx%d", p.columns, p.lines)})
		return
	}
	for _, f := range p.frames {
		if f.Kind == "o" {
			p.past = append(p.past, f.Text...)
		}
	}
	p.past = append(p.past[:0:0], p.past[max(0, len(p.past)-mostPast):]...)
	p.begun, p.frames = false, nil
}

func (p *painter) paint(at time.Duration, data []byte) {
	if !p.begun {
		p.past = append(p.past, data...)
		if len(p.past) > 2*mostPast {
			p.past = append(p.past[:0:0], p.past[len(p.past)-mostPast:]...)
		}
		return
	}
	data = append(p.rest, data...)
	whole := len(data)
	for back := 1; back < utf8.UTFMax && back <= len(data); back++ {
		if c := data[len(data)-back]; utf8.RuneStart(c) {
			if !utf8.FullRune(data[len(data)-back:]) {
				whole -= back
			}
			break
		}
	}
	text := strings.ToValidUTF8(string(data[:whole]), "\uFFFD")
	p.rest = append(p.rest[:0:0], data[whole:]...)
	if n := len(p.frames); n > 0 && p.frames[n-1].Kind == "o" {
		last := &p.frames[n-1]
		if last.Text += text; len(last.Text) > mostFrame {
			last.Text = strings.ToValidUTF8(last.Text[len(last.Text)-mostFrame:], "\uFFFD")
		}
	} else if text != "" {
		p.frames = append(p.frames, Frame{At: at, Kind: "o", Text: text})
	}
}

func (p *painter) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over, p.err = true, err
}

// take returns what there is to show. It begins when what was before has been read.
func (p *painter) take() ([]Frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	quiet := !p.moved
	p.moved = false
	var out []Frame
	if !p.begun && (p.chosen || p.over) && (p.caughtUp || quiet || p.over) {
		p.begun = true
		if p.columns == 0 {
			p.columns, p.lines = 80, 24
		}
		out = append(out, Frame{At: p.at, Kind: "begin", Text: recent(p.past), Columns: p.columns, Lines: p.lines})
		p.past = nil
	}
	out = append(out, p.frames...)
	p.frames = nil
	if p.over && p.err == nil {
		out = append(out, Frame{Kind: "end"})
	}
	return out, p.err
}

// recent is the end of what was painted, from the beginning of a line where some of it is left out.
func recent(past []byte) string {
	if len(past) > mostPast {
		past = past[len(past)-mostPast:]
		if i := bytes.IndexByte(past, '\n'); i >= 0 {
			past = past[i+1:]
		}
	}
	return strings.ToValidUTF8(string(past), "\uFFFD")
}

// Screen is what a live session's terminal shows: that of the channel, or for 0 the first with a terminal, or else the first with output.
// stop is called at the end; it ends the items.
func Screen(ctx context.Context, items iter.Seq2[api.Item, error], stop func(), channel uint32) iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		defer stop()
		p := &painter{joined: time.Now(), channel: channel, chosen: channel != 0}
		go func() {
			for it, err := range items {
				if err != nil {
					p.end(err)
					return
				}
				p.add(it)
			}
			p.end(nil)
		}()
		pace := time.NewTicker(frameEvery)
		defer pace.Stop()
		for silent := time.Now(); ; {
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
			frames, err := p.take()
			for _, f := range frames {
				if !yield(f, nil) || f.Kind == "end" {
					return
				}
				silent = time.Now()
			}
			if err != nil {
				yield(Frame{}, err)
				return
			}
			if time.Since(silent) > sse.Heartbeat {
				if !yield(Frame{}, nil) {
					return
				}
				silent = time.Now()
			}
		}
	}
}

// WriteFrames writes frames as the player's event source takes them.
func WriteFrames(w io.Writer, frames iter.Seq2[Frame, error]) error {
	for f, err := range frames {
		if err != nil {
			return err
		}
		switch f.Kind {
		case "begin":
			err = sse.Write(w, "", "", map[string]any{"cols": f.Columns, "rows": f.Lines, "time": f.At.Seconds(), "init": f.Text})
		case "end":
			return sse.Write(w, "done", "", struct{}{})
		case "":
			err = sse.Write(w, "", "", nil)
		default:
			err = sse.Write(w, "", "", []any{f.At.Seconds(), f.Kind, f.Text})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
