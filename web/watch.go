package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"sallyport/grant"
	"sallyport/internal/refusal"
)

// watch follows a live session from its beginning, for as long as it lives, the caller is signed in and has the
// permission. A caller who reads slowly falls behind; the session never waits.
func (s *server) watch(ctx context.Context, who caller, in *identified) (*stream, error) {
	header, _, err := s.Recorder.Read(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.permit(ctx, who, grant.WatchSessions, header.Target); err != nil {
		return nil, err
	}
	if !s.Recorder.Live(in.ID) {
		return nil, refusal.New(refusal.Conflict, "session %s is over", in.ID).WithHint("sallyport replay %s", in.ID)
	}
	event := s.event(who, "recording.watched")
	event.Session, event.Target, event.Account, event.Grant = header.Session, header.Target, header.Account, header.Grant
	if err := s.Store.Audit(ctx, event); err != nil {
		return nil, err
	}
	return &stream{contentType: jsonLines, write: func(ctx context.Context, w io.Writer) error {
		expired := refusal.New(refusal.CredentialExpired, "your sign-in has ended").WithHint("sallyport login")
		if !who.Expires.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, who.Expires, expired)
			defer cancel()
		}
		items, err := s.Recorder.FollowItems(ctx, in.ID)
		if err != nil {
			return err
		}
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		for item, err := range items {
			if err == nil {
				err = s.Grants.May(who.Identity, grant.WatchSessions, header.Target) // which may have been taken away
			}
			if err == nil {
				err = encoder.Encode(item)
			}
			if err == nil {
				err = flush(w)
			}
			if err != nil && errors.Is(context.Cause(ctx), expired) {
				return expired
			}
			if err != nil {
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
