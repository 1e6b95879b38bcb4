package web

import (
	"context"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// status is for those who run the gateway: what readyz says in a word, with what it rests on.
func (s *server) status(ctx context.Context, who caller, _ *struct{}) (*body[api.Status], error) {
	return wrap(s.standing(ctx, who))
}

func (s *server) standing(ctx context.Context, who caller) (out api.Status, err error) {
	if err := s.permit(ctx, who, grant.VerifyLog, ""); err != nil {
		return out, err
	}
	usage, err := s.Recorder.Usage(ctx)
	if err != nil {
		return out, err
	}
	outbox, err := s.Recorder.OutboxDepth(ctx)
	if err != nil {
		return out, err
	}
	holds, err := s.Recorder.Holds(ctx)
	if err != nil {
		return out, err
	}
	latency := s.Recorder.SyncLatency()
	out = api.Status{
		Version: s.Version, Ready: true, Sessions: s.Sessions.Live(), Draining: s.Sessions.Draining(),
		Recorder: api.RecorderStatus{
			Durability: string(s.Recorder.Config.Durability), SyncMedian: latency.Median, SyncSlowest: latency.Slowest,
			Recordings: usage.Recordings, Bytes: usage.Bytes, Free: usage.Free, Reserve: usage.Reserve, Warn: usage.Warn, Left: usage.Left,
			Days: []api.DayUsage{}, Holds: len(holds),
		},
		Log:    s.logStatus(),
		Index:  s.index(),
		Outbox: outbox, Cleanups: []api.Cleanup{},
	}
	if s.Cleanups != nil {
		out.Cleanups = append(out.Cleanups, s.Cleanups()...)
	}
	for _, d := range usage.Days {
		out.Recorder.Days = append(out.Recorder.Days, api.DayUsage{Day: d.Day.Format("2006-01-02"), Recordings: d.Recordings, Bytes: d.Bytes})
	}
	if out.Archive, err = s.archive(ctx); err != nil {
		return out, err
	}
	if err := s.Recorder.Ready(); err != nil {
		out.Ready, out.Why = false, err.Error()
		if r := refusal.Of(err); r != nil {
			out.Why = r.Message + ": " + r.Detail
		}
	}
	return out, nil
}

// archive is how it stands with the archive of recordings; nil without one.
func (s *server) archive(ctx context.Context) (*api.Archive, error) {
	if s.Archive == nil {
		return nil, nil
	}
	a, err := s.Archive(ctx)
	if err != nil || a == nil {
		return nil, err
	}
	out := &api.Archive{
		Place: a.Place, Lock: a.Lock, Waiting: a.Waiting, Oldest: a.Oldest, Archived: a.Archived, Bytes: a.Bytes,
		Checkpoint: a.Checkpoint, CheckpointAt: a.CheckpointAt, Complete: a.Complete, Behind: a.Behind, Error: a.Error, FailedAt: a.FailedAt,
		Shredding: a.Shredding, Shreds: []api.Shred{},
	}
	for _, d := range a.Shreds {
		out.Shreds = append(out.Shreds, api.Shred{Session: d.Session, Object: d.Object, Since: d.Since, Locked: d.Locked, Next: d.Next, Stuck: d.Stuck, Error: d.Error})
	}
	return out, nil
}
