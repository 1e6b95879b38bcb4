package web

import (
	"context"

	"sallyport/grant"
	"sallyport/internal/refusal"
)

// shred destroys a recording before its time. Nobody does that to one of their own sessions.
func (s *server) shred(ctx context.Context, who caller, in *decision) (*struct{}, error) {
	reason, err := oneLine(in.Body.Comment)
	if err != nil {
		return nil, err
	}
	header, _, err := s.Recorder.Read(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.permit(ctx, who, grant.ShredRecordings, header.Target); err != nil {
		return nil, err
	}
	event := s.event(who, "recording.shredded")
	event.Session, event.Target, event.Account, event.Grant = in.ID, header.Target, header.Account, header.Grant
	event.Reason = reason
	switch {
	case reason == "":
		return nil, refusal.New(refusal.Invalid, "say why the recording is to be destroyed").WithHint("--reason")
	case header.Identity.Issuer == who.Issuer && header.Identity.Subject == who.Subject:
		no := refusal.New(refusal.NotPermitted, "this is a session of yours").
			WithDetail("nobody destroys the recording of what they did themselves").WithHint("ask somebody else who has recordings.shred")
		event.Outcome = string(no.Code)
		if err := s.Store.Audit(ctx, event); err != nil {
			return nil, err
		}
		return nil, no
	}
	return nil, s.Recorder.Shred(ctx, in.ID, event)
}
