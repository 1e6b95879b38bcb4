package postgres

import (
	"strings"

	"github.com/jackc/pgproto3/v2"

	"sallyport/internal/refusal"
)

// SQLSTATEs with which the gateway itself says no (PostgreSQL documentation, appendix A).
const (
	stateInvalidAuthorization = "28000"
	stateInvalidPassword      = "28P01"
	stateProtocolViolation    = "08P01"
	stateUnsupported          = "0A000"
	stateAdminShutdown        = "57P01"
	stateCannotConnectNow     = "57P03"
	stateTooManyConnections   = "53300"
	stateInvalidValue         = "22023"
	stateNotPermitted         = "42501"
	stateIOError              = "58030"
	stateConnectionFailure    = "08006"
	stateInternal             = "XX000"
)

// states says which SQLSTATE carries a refusal. libpq tries the next host of a list after 57P03.
var states = map[refusal.Code]string{
	refusal.NotAuthenticated:  stateInvalidAuthorization,
	refusal.CredentialExpired: stateInvalidAuthorization,
	refusal.IdentityDisabled:  stateInvalidAuthorization,
	refusal.UnknownTarget:     stateInvalidAuthorization,
	refusal.UnknownAccount:    stateInvalidAuthorization,
	refusal.NoGrant:           stateInvalidAuthorization,
	refusal.NotPermitted:      stateNotPermitted,
	refusal.Conflict:          stateCannotConnectNow,
	refusal.NotFound:          stateInvalidAuthorization,
	refusal.Invalid:           stateInvalidValue,
	refusal.TargetFailed:      stateCannotConnectNow,
	refusal.RecorderFailed:    stateIOError,
	refusal.Unwitnessed:       stateCannotConnectNow,
	refusal.Draining:          stateCannotConnectNow,
	refusal.TooMany:           stateTooManyConnections,
	refusal.Unsupported:       stateUnsupported,
	refusal.ProtocolViolation: stateProtocolViolation,
}

// appendRefusal appends a refusal as a FATAL ErrorResponse.
func appendRefusal(b []byte, r *refusal.Refusal) []byte {
	state, ok := states[r.Code]
	if !ok {
		state = stateInternal
	}
	return appendFatal(b, state, r.Message, r.Detail, r.Hint)
}

// clean makes a text fit for a field: a NUL would end it and begin another.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "") }

// appendFatal appends a FATAL ErrorResponse.
func appendFatal(b []byte, state, message, detail, hint string) []byte {
	frame, err := (&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: state,
		Message: clean(message), Detail: clean(detail), Hint: clean(hint),
	}).Encode(b)
	if err != nil {
		return b // only for a text of gigabytes
	}
	return frame
}
