package web

import (
	"context"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/web/api"
)

// holds lists those on recordings that the caller may hold.
func (s *server) holds(ctx context.Context, who caller, _ *struct{}) (*body[[]api.Hold], error) {
	if err := s.permitSome(ctx, who, grant.HoldRecordings); err != nil {
		return nil, err
	}
	all, err := s.Recorder.Holds(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Hold{}
	for _, h := range all {
		hold, err := s.holdOf(ctx, h)
		if err != nil {
			s.Log.Error("a recording on hold cannot be read", "session", h.Session, "error", err)
			continue
		}
		if s.Grants.May(who.Identity, grant.HoldRecordings, hold.Target) == nil {
			out = append(out, hold)
		}
	}
	return &body[[]api.Hold]{out}, nil
}

func (s *server) holdOf(ctx context.Context, h recorder.Hold) (api.Hold, error) {
	header, _, err := s.Recorder.Read(ctx, h.Session)
	return api.Hold{
		Session: h.Session, Target: header.Target, Account: header.Account, Person: header.Identity.Name, Started: header.Started,
		Since: h.Since, By: h.By, Reason: h.Reason,
	}, err
}

func (s *server) hold(ctx context.Context, who caller, in *decision) (*body[api.Hold], error) {
	reason, err := s.mayHold(ctx, who, in)
	if err != nil {
		return nil, err
	}
	if reason == "" {
		return nil, refusal.New(refusal.Invalid, "say why the recording is to be kept").WithHint("--reason")
	}
	event := s.event(who, "recording.held")
	event.Reason = reason
	held, err := s.Recorder.Hold(ctx, in.ID, event)
	if err != nil {
		return nil, err
	}
	hold, err := s.holdOf(ctx, held)
	return &body[api.Hold]{hold}, err
}

func (s *server) unhold(ctx context.Context, who caller, in *decision) (*struct{}, error) {
	reason, err := s.mayHold(ctx, who, in)
	if err != nil {
		return nil, err
	}
	event := s.event(who, "recording.released")
	event.Reason = reason
	return nil, s.Recorder.Release(ctx, in.ID, event)
}

// mayHold asks for the permission on the recording's target, and reads why.
func (s *server) mayHold(ctx context.Context, who caller, in *decision) (string, error) {
	reason, err := oneLine(in.Body.Comment)
	if err != nil {
		return "", err
	}
	header, _, err := s.Recorder.Read(ctx, in.ID)
	if err != nil {
		return "", err
	}
	return reason, s.permit(ctx, who, grant.HoldRecordings, header.Target)
}

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
