package web

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
	"sallyport/web/said"
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
	return said.Archive(*a), nil
}

// health is the answer of /healthz and /readyz.
type health struct {
	Status string `json:"status"` // "ok" or what is not
}

// healthz says that the process is up and answers. Restarting it would not help whatever else is wrong.
func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, "ok")
}

// readyz says whether new sessions can begin here: the recorder records, the store answers, the gateway stays up.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.Sessions.Draining() {
		answer(w, http.StatusServiceUnavailable, "draining")
		return
	}
	if err := s.Recorder.Ready(); err != nil {
		s.Log.Warn("not ready", "error", err)
		answer(w, http.StatusServiceUnavailable, string(refusal.RecorderFailed))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	var one int
	if err := s.Store.Read().QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		s.Log.Warn("not ready", "error", err)
		answer(w, http.StatusServiceUnavailable, "store_failed")
		return
	}
	answer(w, http.StatusOK, "ok")
}

func answer(w http.ResponseWriter, status int, word string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(health{Status: word}) // an error is the client going away
}
