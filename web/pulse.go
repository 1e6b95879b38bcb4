package web

import (
	"context"
	"io"
	"iter"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/recorder/item"
	"sallyport/recorder/terminal"
	"sallyport/session"
	"sallyport/web/api"
	"sallyport/web/sse"
)

const (
	// pulseEvery is how often the list of live sessions is looked at for those who follow it.
	pulseEvery = time.Second
	// pulseLinger is how long a session is followed on after the last one who looked: a page that is opened again does not
	// make its recording be read from its beginning again.
	pulseLinger = time.Minute
	// mostLast bounds what is shown of the last command, in characters.
	mostLast = 160
	// mostPulses is how many live sessions are followed for one list.
	mostPulses = 500
)

// pulses follow live sessions for those who look at the list of them: each once, however many look, and only while somebody
// does. Safe for concurrent use.
type pulses struct {
	server *server

	mu   sync.Mutex
	each map[string]*pulse
}

// pulse is what following one session has shown so far.
type pulse struct {
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

// look returns how a session goes, and follows it from now on.
func (p *pulses) look(id string) *pulse {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.each[id]
	if one == nil {
		ctx, stop := context.WithCancel(context.Background())
		one = &pulse{stop: stop, lines: map[uint32]*terminal.Lines{}}
		p.each[id] = one
		go p.follow(ctx, id, one)
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

func (p *pulses) follow(ctx context.Context, id string, one *pulse) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		one.stop()
		if p.each[id] == one {
			delete(p.each, id)
		}
	}()
	items, mask, err := p.server.Recorder.FollowLines(ctx, id)
	if err != nil {
		return
	}
	one.mask = mask
	checked := time.Now()
	for it, err := range items {
		if err != nil {
			if ctx.Err() == nil {
				p.server.Log.Error("a live session can't be followed", "session", id, "error", err)
			}
			return
		}
		one.take(it)
		if time.Since(checked) > pulseEvery {
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
func (o *pulse) take(it item.Item) {
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

// tell fills in what is known of a session.
func (o *pulse) tell(to *api.Pulse) {
	o.mu.Lock()
	defer o.mu.Unlock()
	to.Seen, to.Last, to.LastAt, to.Commands, to.Bytes = true, o.last, o.lastAt, o.commands, o.bytes
	if age := time.Now().Unix() - o.second; age <= 1 {
		to.Rate = max(o.rate, o.before)
	}
}

func (s *server) registerLive() {
	op := operation("follow-live-sessions", http.MethodGet, "/v1/sessions/live", "How the live sessions go that you may see, as server-sent events: the whole list, whenever it has changed")
	handleStream(s, op, map[string]*huma.MediaType{sse.ContentType: s.media([]api.Pulse{})},
		func(ctx context.Context, who caller, _ *struct{}) (*stream, error) {
			lists, err := s.live(ctx, who)
			if err != nil {
				return nil, err
			}
			return &stream{contentType: sse.ContentType, write: func(_ context.Context, w io.Writer) error {
				for list, err := range lists {
					if err != nil {
						return err
					}
					var data any
					if list != nil {
						data = list
					}
					if err := sse.Write(w, "", "", data); err != nil {
						return err
					}
				}
				return nil
			}}, nil
		})
}

// live follows the live sessions that the caller may see, until ctx or the sign-in ends. What somebody does in them is for
// those who may watch them, and that they looked is audited once. A nil list says only that the stream is there.
func (s *server) live(ctx context.Context, who caller) (iter.Seq2[[]api.Pulse, error], error) {
	if s.permitSomeQuietly(who.Identity, grant.WatchSessions) {
		if err := s.Store.Audit(ctx, s.event(who, "sessions.watched")); err != nil {
			return nil, err
		}
	}
	return func(yield func([]api.Pulse, error) bool) {
		err := s.whileGood(ctx, who, func(ctx context.Context, asKnown func() caller) error {
			tick := time.NewTicker(pulseEvery)
			defer tick.Stop()
			var before []api.Pulse
			for shown, silent := false, 0; ; silent++ {
				now, err := s.pulsesOf(ctx, asKnown())
				if err != nil {
					return err
				}
				switch {
				case !shown || !reflect.DeepEqual(before, now):
					if !yield(now, nil) {
						return nil
					}
					before, shown, silent = now, true, 0
				case time.Duration(silent)*pulseEvery >= sse.Heartbeat:
					if !yield(nil, nil) {
						return nil
					}
					silent = 0
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		})
		if err != nil && ctx.Err() == nil {
			yield(nil, err)
		}
	}, nil
}

func (s *server) pulsesOf(ctx context.Context, who caller) ([]api.Pulse, error) {
	live, err := s.findSessions(ctx, who, session.Filter{Live: true, Limit: mostPulses})
	if err != nil {
		return nil, err
	}
	now := []api.Pulse{}
	for _, one := range live {
		p := api.Pulse{Session: one.ID}
		if until, ok := s.Sessions.Until(one.ID); ok {
			p.Until = until.UTC()
		}
		if s.Grants.May(who.Identity, grant.WatchSessions, one.Target) == nil && s.stale(who.Identity, string(grant.WatchSessions), one.Target) == nil {
			s.pulses.look(one.ID).tell(&p)
		}
		now = append(now, p)
	}
	return now, nil
}

// permitSomeQuietly says whether somebody has a permission for everything or for any target there is.
func (s *server) permitSomeQuietly(who authn.Identity, permission grant.Permission) bool {
	if s.Grants.May(who, permission, "") == nil {
		return true
	}
	for _, target := range s.Config().Targets {
		if s.Grants.May(who, permission, target.Name) == nil {
			return true
		}
	}
	return false
}
