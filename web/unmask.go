package web

import (
	"context"
	"iter"
	"time"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// Unmasking asks for what is hidden, too.
type Unmasking struct {
	Unmasked bool   `query:"unmasked" doc:"With what masking hides, too: takes the permission recordings.unmask and a reason."`
	Reason   string `query:"reason" maxLength:"500" doc:"Why what masking hides is to be seen; it goes to the audit log."`
}

// unmask lets somebody see what is hidden in a recording, who may and says why, and audits that before anything is read.
func (s *server) unmask(ctx context.Context, who caller, id, reason string) error {
	header, _, err := s.Recorder.Read(ctx, id)
	if err != nil {
		return err
	}
	if err := s.permit(ctx, who, grant.UnmaskRecordings, header.Target); err != nil {
		return err
	}
	if reason, err = oneLine(reason); err != nil {
		return err
	}
	if reason == "" {
		return refusal.New(refusal.Invalid, "say why what is masked in the recording is to be seen").WithHint("--reason")
	}
	event := s.event(who, "recording.unmasked")
	event.Session, event.Target, event.Account, event.Grant, event.Reason = id, header.Target, header.Account, header.Grant, reason
	return s.Store.Audit(ctx, event)
}

// unmaskStored is unmask for a file that has everything: one that is not locked, of a recording in which something is hidden.
func (s *server) unmaskStored(ctx context.Context, who caller, id, reason string) error {
	header, _, err := s.Recorder.Read(ctx, id)
	if err != nil || header.Lock != nil || !s.Recorder.Masked(header) {
		return err
	}
	return s.unmask(ctx, who, id, reason)
}

// replayUnmasked is replay with nothing hidden.
func (s *server) replayUnmasked(ctx context.Context, who caller, in *replaying) (iter.Seq2[api.Item, error], error) {
	if err := s.read(ctx, who, grant.ReadRecordings, in.ID, "recording.replayed", opened); err != nil {
		return nil, err
	}
	if err := s.unmask(ctx, who, in.ID, in.Reason); err != nil {
		return nil, err
	}
	return s.Recorder.UnmaskedItems(ctx, in.ID, time.Duration(in.From))
}
