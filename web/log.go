package web

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
	"sallyport/web/api"
)

// logStatus is how the log over all recordings stands.
func (s *server) logStatus() api.LogStatus {
	out := api.LogStatus{Witnesses: []api.Witness{}}
	l := s.Recorder.Ledger
	if l == nil {
		out.Warning = "recordings are bound to no log"
		return out
	}
	witnessed := l.Witnessed()
	out.Origin, out.Key, out.Size, out.Signed, out.Witnessed = l.Key().Name(), l.Key().Text, l.Size(), l.Checkpoint().Tree.N, witnessed.Tree.N
	for _, c := range witnessed.Cosigned {
		if c.Time.After(out.WitnessedAt) {
			out.WitnessedAt = c.Time
		}
	}
	failed := ""
	for _, w := range l.Witnesses() {
		out.Witnesses = append(out.Witnesses, api.Witness(w))
		if w.Error != "" {
			failed = fmt.Sprintf("witness %s does not cosign: %s", w.Name, w.Error)
		}
	}
	switch {
	case l.Err() != nil:
		out.Warning = "the log can't be written: " + l.Err().Error()
	case len(out.Witnesses) == 0:
		out.Warning = "no witness is configured: whoever holds the gateway's keys could change what was recorded"
	case failed != "":
		out.Warning = failed
	}
	if len(out.Witnesses) > 0 {
		out.Unwitnessed = l.Unwitnessed()
	}
	if most := s.Config().Recording.MaxUnwitnessed.D(); out.Warning == "" && out.Unwitnessed > most {
		out.Warning = fmt.Sprintf("no witness has seen the newest leaves for %v", out.Unwitnessed.Round(time.Second))
	}
	return out
}

// serveLog answers with the log's checkpoints and tiles, where c2sp.org/tlog-tiles has them below /log/: to anybody if the
// configuration says so, else to who may verify the log.
func (s *server) serveLog(w http.ResponseWriter, r *http.Request) {
	l := s.Recorder.Ledger
	if l == nil {
		s.nothingHere(w, r)
		return
	}
	if !s.Config().Recording.PublicLog {
		if err := s.mayReadLog(r); err != nil {
			write(w, s.fail("read-log", err))
			return
		}
	}
	path := strings.TrimPrefix(r.URL.Path, "/log/")
	if path == transparency.CheckpointFile || path == transparency.WitnessedFile {
		c := l.Checkpoint()
		if path == transparency.WitnessedFile {
			c = l.Witnessed()
		}
		if c.Note == nil {
			s.nothingHere(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(c.Note) // an error is the client going away
		return
	}
	level, n, width, err := transparency.ParsePath(path)
	var data []byte
	switch {
	case err != nil:
	case level < 0:
		data, err = l.Bundle(n, width)
	default:
		data, err = l.Tile(level, n, width)
	}
	if err != nil {
		if errors.Is(err, ledger.ErrDamaged) {
			s.Log.Error("a tile of the log can't be read", "path", path, "error", err)
		}
		s.nothingHere(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	_, _ = w.Write(data) //nolint:gosec // a tile is bytes, and its type says so
}

// mayReadLog is authenticate and permit for what is served as it stands.
func (s *server) mayReadLog(r *http.Request) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		s.Authn.Unauthenticated("http: no access token", remote(r.RemoteAddr))
		return refusal.New(refusal.NotAuthenticated, "you are not signed in").
			WithDetail("the request carries no access token, and this gateway's log is not public").WithHint("sallyport login")
	}
	who, err := s.Authn.Bearer(r.Context(), token)
	if err != nil {
		s.Authn.Unauthenticated("http: bad access token", remote(r.RemoteAddr))
		return err
	}
	proven(r.Context())
	return s.permit(r.Context(), caller{Identity: who, client: r.RemoteAddr}, grant.VerifyLog, "")
}
