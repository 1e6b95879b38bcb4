package web

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/session"
	"sallyport/web/api"
	"sallyport/web/live"
	"sallyport/web/sse"
)

// watchIn is which live session somebody watches, and from where.
type watchIn struct {
	ID          string `path:"id" maxLength:"64"`
	LastEventID string `header:"Last-Event-ID" maxLength:"20"`
	After       uint64 `query:"after" doc:"Only what has a higher number."`
}

// screenIn is which terminal of a live session somebody watches.
type screenIn struct {
	ID      string `path:"id" maxLength:"64"`
	Channel uint32 `query:"channel" doc:"Of an SSH connection; 0: the first with a terminal, or else the first with output."`
}

func (s *server) registerWatching() {
	handleStream(s, operation("watch", "GET", "/v1/sessions/{id}/watch", "What happens in a live session, as soon as its record is safe, until it ends"),
		map[string]*huma.MediaType{jsonLines: s.media(api.Item{})}, s.watch)
	handleStream(s, operation("stream", "GET", "/v1/sessions/{id}/stream", "What happens in a live session, in batches a few times a second that stay readable whatever it does, as server-sent events"),
		map[string]*huma.MediaType{sse.ContentType: s.media(api.Batch{})},
		func(ctx context.Context, who caller, in *watchIn) (*stream, error) {
			after, err := resumed{in.LastEventID, in.After}.from()
			if err != nil {
				return nil, err
			}
			batches, err := s.batches(ctx, who, in.ID, int(after))
			if err != nil {
				return nil, err
			}
			return &stream{contentType: sse.ContentType, write: func(_ context.Context, w io.Writer) error { return live.WriteBatches(w, batches) }}, nil
		})
	handleStream(s, operation("screen", "GET", "/v1/sessions/{id}/screen", "A terminal of a live session as the player's event source takes it: a picture to begin with, then what is painted"),
		map[string]*huma.MediaType{sse.ContentType: {Schema: &huma.Schema{Type: huma.TypeString}}},
		func(ctx context.Context, who caller, in *screenIn) (*stream, error) {
			frames, err := s.screen(ctx, who, in.ID, in.Channel)
			if err != nil {
				return nil, err
			}
			return &stream{contentType: sse.ContentType, write: func(_ context.Context, w io.Writer) error { return live.WriteFrames(w, frames) }}, nil
		})
}

// follow opens a live session for somebody who may watch it, and audits that. The items come from its beginning, for as long
// as it lives, the caller is signed in and has the permission. A caller who reads slowly falls behind; the session never
// waits.
func (s *server) follow(ctx context.Context, who caller, id string) (format.Header, iter.Seq2[api.Item, error], error) {
	header, _, err := s.Recorder.Read(ctx, id)
	if err != nil {
		return header, nil, err
	}
	if err := s.permit(ctx, who, grant.WatchSessions, header.Target); err != nil {
		return header, nil, err
	}
	if !s.Recorder.Live(id) {
		return header, nil, refusal.New(refusal.Conflict, "session %s is over", id).WithHint("sallyport replay %s", id)
	}
	event := s.event(who, "recording.watched")
	event.Session, event.Target, event.Account, event.Grant = header.Session, header.Target, header.Account, header.Grant
	if err := s.Store.Audit(ctx, event); err != nil {
		return header, nil, err
	}
	return header, func(yield func(api.Item, error) bool) {
		err := s.whileGood(ctx, who, func(ctx context.Context, now func() caller) error {
			items, err := s.Recorder.FollowItems(ctx, id)
			if err != nil {
				return err
			}
			for item, err := range items {
				if err == nil {
					err = s.Grants.May(now().Identity, grant.WatchSessions, header.Target) // which may have been taken away
				}
				if err != nil {
					return err
				}
				if !yield(item, nil) {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			yield(api.Item{}, err)
		}
	}, nil
}

// batches are what happens in a live session, for somebody who may watch it.
func (s *server) batches(ctx context.Context, who caller, id string, after int) (iter.Seq2[api.Batch, error], error) {
	following, stop := context.WithCancel(ctx)
	_, items, err := s.follow(following, who, id)
	if err != nil {
		stop()
		return nil, err
	}
	return live.Batches(ctx, items, stop, after), nil
}

// screen is what a live session's terminal shows, for somebody who may watch it.
func (s *server) screen(ctx context.Context, who caller, id string, channel uint32) (iter.Seq2[live.Frame, error], error) {
	following, stop := context.WithCancel(ctx)
	_, items, err := s.follow(following, who, id)
	if err != nil {
		stop()
		return nil, err
	}
	return live.Screen(ctx, items, stop, channel), nil
}

// watch follows a live session from its beginning as JSON Lines.
func (s *server) watch(ctx context.Context, who caller, in *identified) (*stream, error) {
	_, items, err := s.follow(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	return &stream{contentType: jsonLines, write: func(_ context.Context, w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		for item, err := range items {
			if err != nil {
				return err
			}
			if err := encoder.Encode(item); err != nil {
				return err
			}
			if err := flush(w); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// flush sends what has been written so far.
func flush(w io.Writer) error {
	if b, ok := w.(interface{ Flush() error }); ok {
		return b.Flush()
	}
	return nil
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
			tick := time.NewTicker(live.PulseEvery)
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
				case time.Duration(silent)*live.PulseEvery >= sse.Heartbeat:
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
	found, err := s.findSessions(ctx, who, session.Filter{Live: true, Limit: live.MostPulses})
	if err != nil {
		return nil, err
	}
	now := []api.Pulse{}
	for _, one := range found {
		p := api.Pulse{Session: one.ID}
		if until, ok := s.Sessions.Until(one.ID); ok {
			p.Until = until.UTC()
		}
		if s.Grants.May(who.Identity, grant.WatchSessions, one.Target) == nil && s.stale(who.Identity, string(grant.WatchSessions), one.Target) == nil {
			s.pulses.Look(one.ID).Tell(&p)
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
