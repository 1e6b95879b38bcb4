// Package refusal is the one type in which every room says no.
//
// A refusal is an answer, not a failure: it names what happened, why, and what to do next, in words that the person
// at the other end of the connection can act on. Each protocol renders it in its own way (a Postgres ErrorResponse, an
// SSH message and exit status, an HTTP problem), and whoever refuses an authenticated identity writes an audit event
// with the same Code.
package refusal

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a stable word for programs; it is part of the audit log's and the API's contract.
type Code string

// The codes. A room that needs another adds it here, so that the list stays whole.
const (
	NotAuthenticated  Code = "not_authenticated"  // no credential, or none that is good here
	CredentialExpired Code = "credential_expired" // was good once
	IdentityDisabled  Code = "identity_disabled"  // the provider or an administrator closed the account
	UnknownTarget     Code = "unknown_target"
	UnknownAccount    Code = "unknown_account"
	NoGrant           Code = "no_grant"        // nobody granted this, or it has ended
	NotPermitted      Code = "not_permitted"   // a permission or policy says no
	Conflict          Code = "conflict"        // the thing is in a state in which this can't be done
	NotFound          Code = "not_found"       // no such grant, session, recording
	Invalid           Code = "invalid"         // what was asked makes no sense as written
	TargetFailed      Code = "target_failed"   // the target could not be reached, or did not prove itself
	RecorderFailed    Code = "recorder_failed" // nothing passes unrecorded, so nothing passes
	Draining          Code = "draining"        // the gateway is shutting down
	TooMany           Code = "too_many"        // a limit on connections or requests
	Unsupported       Code = "unsupported"     // a feature the gateway does not pass on
	ProtocolViolation Code = "protocol_violation"
	Locked            Code = "locked"      // only the recording's recipients can read it, with their own keys
	StepUp            Code = "step_up"     // proven too long ago for this deed
	Unwitnessed       Code = "unwitnessed" // no witness has seen the log for too long, and the configuration wants one
)

// Refusal says no. Message is one short sentence without a full stop; Detail says why; Hint says what to do next, with
// the exact command where there is one. None of them ever contains a secret or bytes that the peer sent unescaped.
type Refusal struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Detail  string `json:"detail,omitempty"`
	Hint    string `json:"hint,omitempty"`
	Cause   error  `json:"-"`
}

// New makes a refusal with a formatted message.
func New(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithDetail returns the refusal with its Detail set.
func (r *Refusal) WithDetail(format string, args ...any) *Refusal {
	r.Detail = fmt.Sprintf(format, args...)
	return r
}

// WithHint returns the refusal with its Hint set.
func (r *Refusal) WithHint(format string, args ...any) *Refusal {
	r.Hint = fmt.Sprintf(format, args...)
	return r
}

// Because returns the refusal with the error that led to it, for the gateway's own log; it is never shown to the peer.
func (r *Refusal) Because(err error) *Refusal {
	r.Cause = err
	return r
}

// Error is all of it on one line.
func (r *Refusal) Error() string {
	parts := []string{r.Message}
	if r.Detail != "" {
		parts = append(parts, r.Detail)
	}
	if r.Hint != "" {
		parts = append(parts, r.Hint)
	}
	return strings.Join(parts, ": ")
}

// Unwrap gives errors.Is and errors.As the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

// Of returns the refusal inside err, or nil if err is none: a failure of the gateway's own.
func Of(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	return nil
}

// Is reports whether err is a refusal with that code.
func Is(err error, code Code) bool {
	r := Of(err)
	return r != nil && r.Code == code
}
