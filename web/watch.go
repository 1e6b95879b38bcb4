package web

import (
	"context"
	"encoding/json"
	"io"
	"iter"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/web/api"
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
			return &stream{contentType: sse.ContentType, write: func(_ context.Context, w io.Writer) error { return writeBatches(w, batches) }}, nil
		})
	handleStream(s, operation("screen", "GET", "/v1/sessions/{id}/screen", "A terminal of a live session as the player's event source takes it: a picture to begin with, then what is painted"),
		map[string]*huma.MediaType{sse.ContentType: {Schema: &huma.Schema{Type: huma.TypeString}}},
		func(ctx context.Context, who caller, in *screenIn) (*stream, error) {
			frames, err := s.screen(ctx, who, in.ID, in.Channel)
			if err != nil {
				return nil, err
			}
			return &stream{contentType: sse.ContentType, write: func(_ context.Context, w io.Writer) error { return writeFrames(w, frames) }}, nil
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
