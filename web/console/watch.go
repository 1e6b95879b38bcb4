package console

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"sallyport/internal/refusal"
	"sallyport/recorder/item"
	"sallyport/web/sse"
)

// recheck is how often a browser that follows something is asked again whether it is still signed in.
const recheck = 5 * time.Second

// follower writes server-sent events to a browser as long as it is signed in: a sign-out in another window ends them too.
type follower struct {
	pieces
	server  *server
	v       *visit
	checked time.Time
}

// follow begins a stream of events to the browser.
func (s *server) follow(v *visit) *follower {
	v.w.Header().Set("Content-Type", sse.ContentType)
	v.w.Header().Set("X-Accel-Buffering", "no") // for a proxy that would hold it back
	return &follower{pieces: pieces{w: v.w, control: http.NewResponseController(v.w)}, server: s, v: v, checked: time.Now()}
}

func (f *follower) Write(b []byte) (int, error) {
	if time.Since(f.checked) > recheck {
		if _, err := f.server.visit(f.v.w, f.v.Request); err != nil {
			return 0, err
		}
		f.checked = time.Now()
	}
	return f.pieces.Write(b)
}

// Flush is for package sse.
func (f *follower) Flush() error { return f.control.Flush() }

// lastEvent is the number of the last event that the browser has, where it goes on.
func lastEvent(v *visit) (uint64, error) {
	text := v.Header.Get("Last-Event-ID")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, refusal.New(refusal.Invalid, "Last-Event-ID is none of this stream's ids")
	}
	return n, nil
}

// over ends a stream. Its reader comes again by itself, and hears then whether it may.
func (s *server) over(what string, v *visit, err error) error {
	if err != nil && v.Context().Err() == nil && refusal.Of(err) == nil && !errors.Is(err, errNoSession) {
		s.Log.Debug("a stream to a browser ended", "what", what, "error", err)
	}
	return nil
}

// events tells a page that what it shows may have changed.
func (s *server) events(v *visit) error {
	after, err := lastEvent(v)
	if err != nil {
		return err
	}
	events, err := s.Desk.Events(v.Context(), v.who, after)
	if err != nil {
		return err
	}
	out := s.follow(v)
	for e, err := range events {
		var kind any
		if e.Kind != "" {
			kind = e.Kind
		}
		if err == nil {
			err = sse.Write(out, "", strconv.FormatUint(e.Number, 10), kind)
		}
		if err != nil {
			return s.over("events", v, err)
		}
	}
	return nil
}

// pulseView is how a live session goes, in words.
type pulseView struct {
	Session string `json:"session"`
	Until   string `json:"until"`
	Seen    bool   `json:"seen"`
	Last    string `json:"last"`
	Count   string `json:"count"`
}

// live tells how the live sessions go.
func (s *server) live(v *visit) error {
	lists, err := s.Desk.Live(v.Context(), v.who)
	if err != nil {
		return err
	}
	out := s.follow(v)
	for list, err := range lists {
		if err != nil {
			return s.over("live", v, err)
		}
		var shown any
		if list != nil {
			views := []pulseView{}
			for _, p := range list {
				view := pulseView{Session: p.Session, Seen: p.Seen, Last: plain(p.Last)}
				if !p.Until.IsZero() {
					view.Until = p.Until.UTC().Format(time.RFC3339)
				}
				if p.Seen {
					view.Count = counted(p.Commands, "command") + ", " + size(p.Bytes)
					if p.Rate > 1 {
						view.Count += ", " + strconv.Itoa(p.Rate) + "/s"
					}
				}
				views = append(views, view)
			}
			shown = views
		}
		if err := sse.Write(out, "", "", shown); err != nil {
			return s.over("live", v, err)
		}
	}
	return nil
}

// counted is a number of things.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// watch is the page on which somebody watches a live session.
func (s *server) watch(v *visit) error {
	id := v.PathValue("id")
	info, err := s.Desk.Session(v.Context(), v.who, id)
	if err != nil {
		return err
	}
	view := s.sessionView(v.who, info)
	if info.Live && !view.Looks {
		return refusal.New(refusal.NotPermitted, "you do not have the permission sessions.watch for target %q", info.Target).
			WithHint("it is given under permissions in the gateway's configuration")
	}
	if !info.Live {
		http.Redirect(v.w, v.Request, "/console/sessions/"+info.ID, http.StatusSeeOther)
		return nil
	}
	terminal := info.Protocol == "ssh"
	s.show(v, http.StatusOK, "watch.html", page{
		Title: "Watching " + info.Account + "@" + info.Target, Path: "/console/sessions", Player: terminal && hasPlayer(), Watch: true,
		Body: struct {
			S         sessionView
			Terminal  bool
			HasPlayer bool
		}{view, terminal, hasPlayer()},
	})
	return nil
}

// screen is a live terminal for the player.
func (s *server) screen(v *visit) error {
	channel, err := number(v, "channel", 0)
	if err != nil {
		return err
	}
	write, err := s.Desk.Screen(v.Context(), v.who, v.PathValue("id"), uint32(channel))
	if err != nil {
		return err
	}
	return s.over("screen", v, write(s.follow(v)))
}

// seen is a moment as the page that watches gets it, or how one that it has ended.
type seen struct {
	Number  int      `json:"number"`
	At      string   `json:"at"`
	Kind    string   `json:"kind,omitempty"`
	Text    string   `json:"text,omitempty"`
	Cut     bool     `json:"cut,omitempty"`
	Params  []string `json:"params,omitempty"`
	Outcome string   `json:"outcome,omitempty"`
	Failed  bool     `json:"failed,omitempty"`
	Marks   []string `json:"marks,omitempty"`
}

func tell(m *moment) seen {
	t := seen{Number: m.Number, At: clock(m.At), Kind: string(m.Kind), Text: m.Text, Cut: m.Cut, Params: m.Params, Outcome: m.Outcome, Failed: m.Failed}
	if m.Outcome != "" && m.Took > 0 {
		t.Outcome += " · " + took(m.Took)
	}
	if m.Writes {
		t.Marks = append(t.Marks, "write")
	}
	if m.Schema {
		t.Marks = append(t.Marks, "definition")
	}
	return t
}

// stream tells what happens in a live session, in batches.
func (s *server) stream(v *visit) error {
	after, err := lastEvent(v)
	if err != nil {
		return err
	}
	id := v.PathValue("id")
	info, err := s.Desk.Session(v.Context(), v.who, id)
	if err != nil {
		return err
	}
	batches, err := s.Desk.Batches(v.Context(), v.who, id, int(after))
	if err != nil {
		return err
	}
	out := s.follow(v)
	open := map[int]*moment{} // told without an outcome so far
	for batch, err := range batches {
		if err != nil {
			return s.over("stream", v, err)
		}
		message := struct {
			Moments []seen `json:"moments"`
			Ended   []seen `json:"ended"`
			Skipped int    `json:"skipped"`
			Total   int    `json:"total"`
		}{Moments: []seen{}, Ended: []seen{}, Skipped: batch.Skipped, Total: batch.Total}
		var fresh []*moment
		last := ""
		for _, it := range batch.Items {
			last = strconv.Itoa(it.Number)
			if m := open[it.Ref]; m != nil && (it.Kind == item.Result || it.Kind == item.Exit) {
				delete(open, it.Ref)
				m.end(it)
				if len(fresh) == 0 || m.Number < fresh[0].Number {
					message.Ended = append(message.Ended, tell(m))
				}
				continue
			}
			if it.Kind == item.Result || it.Kind == item.Exit {
				continue // of a statement that was left out
			}
			m := momentOf(it, info.Protocol)
			if m == nil {
				continue
			}
			fresh = append(fresh, m)
			if m.waits && len(open) < mostOpen {
				open[m.ref] = m
			}
		}
		for _, m := range fresh {
			message.Moments = append(message.Moments, tell(m))
		}
		if err := sse.Write(out, "", last, message); err != nil {
			return s.over("stream", v, err)
		}
		if batch.Over {
			return s.over("stream", v, sse.Write(out, "done", "", struct{}{}))
		}
	}
	return nil
}
