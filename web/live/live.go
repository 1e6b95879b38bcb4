// Package live is what people are shown of sessions while they live: batches of what is done in one, the picture of its terminal, and how
// all of them go in a list.
//
// It promises that whoever watches slowly holds up neither the session nor another watcher, and that what is kept for them is bounded
// however much a session does: what is too much is counted (batches), painted over (screens) or cut short (lists). Who may watch is not
// decided here.
package live

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
	"sallyport/web/api"
)

const (
	// PulseEvery is how often the list of live sessions is looked at for those who follow it.
	PulseEvery = time.Second
	// pulseLinger is how long a session is followed on after the last one who looked: a page that is opened again does not
	// make its recording be read from its beginning again.
	pulseLinger = time.Minute
	// mostLast bounds what is shown of the last command, in characters.
	mostLast = 160
	// MostPulses is how many live sessions are followed for one list.
	MostPulses = 500
)

// Pulses follow live sessions for those who look at the list of them: each once, however many look, and only while somebody
// does. Safe for concurrent use.
type Pulses struct {
	follow Follow
	log    *slog.Logger

	mu   sync.Mutex
	each map[string]*Pulse
}

// Follow gives what happens in a session from its beginning, and what hides in a line that is whole what is to be hidden.
type Follow func(ctx context.Context, session string) (items iter.Seq2[item.Item, error], mask func(string) string, err error)

// NewPulses follow sessions by that function.
func NewPulses(follow Follow, log *slog.Logger) *Pulses {
	return &Pulses{follow: follow, log: log, each: map[string]*Pulse{}}
}

// Pulse is what following one session has shown so far.
type Pulse struct {
	stop   context.CancelFunc
	wanted time.Time           // by its owner's lock: when somebody looked last
	mask   func(string) string // hides in a line that is whole what is to be hidden; of whoever follows

	mu       sync.Mutex
	last     string
	lastAt   time.Time
	commands int
	bytes    int64
	second   int64 // the second that rate is of
	rate     int
	before   int // the rate of the second before
	lines    map[uint32]*terminal.Lines
}

// Look returns how a session goes, and follows it from now on.
func (p *Pulses) Look(id string) *Pulse {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.each[id]
	if one == nil {
		ctx, stop := context.WithCancel(context.Background())
		one = &Pulse{stop: stop, lines: map[uint32]*terminal.Lines{}}
		p.each[id] = one
		go p.feed(ctx, id, one)
	}
	one.wanted = time.Now()
	for id, other := range p.each { // those that nobody looks at any more
		if time.Since(other.wanted) > pulseLinger {
			other.stop()
			delete(p.each, id)
		}
	}
	return one
}

func (p *Pulses) feed(ctx context.Context, id string, one *Pulse) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		one.stop()
		if p.each[id] == one {
			delete(p.each, id)
		}
	}()
	items, mask, err := p.follow(ctx, id)
	if err != nil {
		return
	}
	one.mask = mask
	checked := time.Now()
	for it, err := range items {
		if err != nil {
			if ctx.Err() == nil {
				p.log.Error("a live session can't be followed", "session", id, "error", err)
			}
			return
		}
		one.take(it)
		if time.Since(checked) > PulseEvery {
			checked = time.Now()
			p.mu.Lock()
			idle := time.Since(one.wanted) > pulseLinger
			p.mu.Unlock()
			if idle {
				return
			}
		}
	}
}

// take counts one thing that happened.
func (o *Pulse) take(it item.Item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes += max(it.Bytes, int64(len(it.Data)))
	var last string
	switch it.Kind {
	case item.Statement:
		last = it.SQL
	case item.Command:
		if last = it.Command; last == "" {
			last = it.Via
		}
	case item.File:
		last = it.Command + " " + it.Path
	case item.Output:
		if it.Stream != "stdout" && it.Stream != "" {
			return
		}
		lines := o.lines[it.Channel]
		if lines == nil {
			return
		}
		lines.Write(it.Data, func(line string) { o.last, o.lastAt = short(o.mask(line)), it.Time })
		return
	case item.Exit:
		delete(o.lines, it.Channel)
		return
	default:
		return
	}
	if it.Kind == item.Command && it.Via == "shell" {
		o.lines[it.Channel] = new(terminal.Lines) // what is typed into it shows in what it says
	}
	o.bytes += int64(len(it.SQL))
	o.last, o.lastAt = short(terminal.Text(last, false)), it.Time
	o.commands++
	if second := it.Time.Unix(); second != o.second {
		if o.before = 0; second == o.second+1 {
			o.before = o.rate
		}
		o.second, o.rate = second, 0
	}
	o.rate++
}

// short cuts a text to what a list shows of it.
func short(text string) string {
	n := 0
	for i := range text {
		if n++; n > mostLast {
			return text[:i] + "…"
		}
	}
	return text
}

// Tell fills in what is known of a session.
func (o *Pulse) Tell(to *api.Pulse) {
	o.mu.Lock()
	defer o.mu.Unlock()
	to.Seen, to.Last, to.LastAt, to.Commands, to.Bytes = true, o.last, o.lastAt, o.commands, o.bytes
	if age := time.Now().Unix() - o.second; age <= 1 {
		to.Rate = max(o.rate, o.before)
	}
}
