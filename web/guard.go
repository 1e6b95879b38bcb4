package web

import (
	"errors"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"sallyport/authn/scim"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// maxBody bounds every request's body but those of SCIM, which has a bound of its own. The largest honest one is a certificate request of some kilobytes.
const maxBody = 64 << 10

// writeTimeout is how long a client may take to read an answer, or one piece of a stream.
const writeTimeout = 60 * time.Second

// guard wraps every answer: security headers, the bound on bodies, and a plain answer where a handler panics.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		// The sign-in pages set a policy of their own; nothing else is for a browser to run.
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			s.Log.Debug("no write deadline", "error", err)
		}
		most := int64(maxBody)
		if strings.HasPrefix(r.URL.Path, "/scim/") {
			most = scim.MaxBody // a group with all its members; nothing is read before the provider has proven itself
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		answer := &answerWriter{ResponseWriter: w}
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause) // a stream that had to be cut short
			}
			s.Log.Error("a request panicked", "path", r.URL.Path, "cause", cause, "stack", string(debug.Stack()))
			if answer.begun {
				panic(http.ErrAbortHandler) // the client sees it cut short
			}
			write(w, problem(internal()))
		}()
		next.ServeHTTP(answer, r)
	})
}

// answerWriter is a ResponseWriter that knows whether the answer has begun.
type answerWriter struct {
	http.ResponseWriter
	begun bool
}

func (w *answerWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *answerWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// nothingHere answers what no route takes.
func (s *server) nothingHere(w http.ResponseWriter, r *http.Request) {
	no := refusal.New(refusal.NotFound, "there is nothing at this address").WithHint("the API is described at /openapi.json")
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		s.Authn.Unauthenticated("http: unknown address", remote(r.RemoteAddr))
	}
	write(w, problem(no))
}

// internal is what the other side hears of a failure of the gateway's own.
func internal() *refusal.Refusal {
	return refusal.New(api.Internal, "the gateway failed to do this").
		WithDetail("its log says why").
		WithHint("try again; if it persists, tell those who run the gateway the time of this message")
}
