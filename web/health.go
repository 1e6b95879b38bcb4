package web

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"sallyport/internal/refusal"
)

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
