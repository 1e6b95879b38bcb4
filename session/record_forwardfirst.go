//go:build forwardfirst

package session

import (
	"context"

	"sallyport/recorder"
)

// record in this build is the mistake the whole product exists to avoid: it returns before the events are safe, so the
// bytes are forwarded first. test/faults builds it to show that the kill storm finds the mistake; nothing else does.
func (s *Session) record(_ context.Context, what []recorder.Event) error {
	return s.recording.Note(what...)
}
