//go:build !forwardfirst

package session

import (
	"context"

	"sallyport/recorder"
)

// record returns when the events are safe at the recording's level.
func (s *Session) record(ctx context.Context, what []recorder.Event) error {
	return s.recording.Record(ctx, what...)
}
