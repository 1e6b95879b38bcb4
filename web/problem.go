package web

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// statuses are the HTTP statuses of the refusals' codes.
var statuses = map[refusal.Code]int{
	refusal.NotAuthenticated:  http.StatusUnauthorized,
	refusal.CredentialExpired: http.StatusUnauthorized,
	refusal.IdentityDisabled:  http.StatusForbidden,
	refusal.UnknownTarget:     http.StatusNotFound,
	refusal.UnknownAccount:    http.StatusNotFound,
	refusal.NoGrant:           http.StatusForbidden,
	refusal.NotPermitted:      http.StatusForbidden,
	refusal.Conflict:          http.StatusConflict,
	refusal.NotFound:          http.StatusNotFound,
	refusal.Invalid:           http.StatusUnprocessableEntity,
	refusal.TargetFailed:      http.StatusBadGateway,
	refusal.RecorderFailed:    http.StatusServiceUnavailable,
	refusal.Draining:          http.StatusServiceUnavailable,
	refusal.TooMany:           http.StatusTooManyRequests,
	refusal.Unsupported:       http.StatusNotImplemented,
	refusal.Locked:            http.StatusConflict,
	refusal.Unwitnessed:       http.StatusServiceUnavailable,
	refusal.StepUp:            http.StatusUnauthorized, // RFC 9470
	refusal.ProtocolViolation: http.StatusBadRequest,
	api.Changed:               http.StatusPreconditionFailed,
	api.Internal:              http.StatusInternalServerError,
}

// problem is the refusal as the API says it.
func problem(r *refusal.Refusal) *api.Problem {
	status, ok := statuses[r.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	return &api.Problem{
		Type:    "urn:sallyport:problem:" + string(r.Code),
		Title:   http.StatusText(status),
		Status:  status,
		Code:    string(r.Code),
		Message: r.Message,
		Detail:  r.Detail,
		Hint:    r.Hint,
	}
}

// fail turns what a handler returned into a problem. What is no refusal is logged and not shown: it may hold a path, an
// address or an SQL text that is nobody's business outside.
func (s *server) fail(operation string, err error) *api.Problem {
	if r := refusal.Of(err); r != nil {
		if r.Cause != nil {
			s.Log.Warn("refused", "operation", operation, "code", r.Code, "cause", r.Cause)
		}
		return problem(r)
	}
	s.Log.Error("failed", "operation", operation, "error", err)
	return problem(internal())
}

// write sends a problem outside of huma.
func write(w http.ResponseWriter, p *api.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // an error is the client going away
}

// huma's own errors (a body that is no JSON, an unknown parameter) take the same form. It repeats the values that were
// sent; these are left out.
func init() {
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		code := refusal.Invalid
		if status >= http.StatusInternalServerError {
			code = api.Internal
		}
		p := problem(refusal.New(code, "%s", message))
		p.Status, p.Title = status, http.StatusText(status)
		for _, err := range errs {
			var detail huma.ErrorDetailer
			if !errors.As(err, &detail) {
				continue
			}
			d := detail.ErrorDetail()
			p.Errors = append(p.Errors, d.Location+": "+d.Message)
		}
		return p
	}
}
