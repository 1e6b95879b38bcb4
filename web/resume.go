package web

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"sallyport/authn"
	"sallyport/internal/refusal"
)

// resumed are the fields by which a stream of events is taken up again where it was cut.
type resumed struct {
	header string
	after  uint64
}

// from is the id of the last event that the reader has: what the browser says comes before what the address says.
func (r resumed) from() (uint64, error) {
	if r.header == "" {
		return r.after, nil
	}
	id, err := strconv.ParseUint(r.header, 10, 64)
	if err != nil {
		return 0, refusal.New(refusal.Invalid, "Last-Event-ID is none of this stream's ids")
	}
	return id, nil
}

// standingEvery is how often it is looked whether who follows a stream may still have anything, and in which groups they are.
var standingEvery = 15 * time.Second

// whileGood runs a stream until it ends by itself or the caller's sign-in does: when its time is over, they signed out, or were
// disabled. now is the caller as they are known at that time; what they may see is to be asked with that.
func (s *server) whileGood(ctx context.Context, who caller, run func(ctx context.Context, now func() caller) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	if !who.Expires.IsZero() {
		expired := refusal.New(refusal.CredentialExpired, "your sign-in has ended").WithHint("sallyport login")
		timer := time.AfterFunc(time.Until(who.Expires), func() { cancel(expired) })
		defer timer.Stop()
	}
	var current atomic.Pointer[caller]
	current.Store(&who)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		ticker := time.NewTicker(standingEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			err := s.Authn.Standing(ctx, who.Identity)
			// That the provider can't be asked ends nothing here, as with every other request: who looks on in an emergency goes on looking.
			if r := refusal.Of(err); r != nil && !errors.Is(err, authn.ErrUnvouched) {
				cancel(r)
				return
			}
			now := who
			if now.Identity, err = s.Authn.Current(ctx, who.Identity); err == nil {
				current.Store(&now)
			} else if ctx.Err() == nil {
				s.Log.Warn("look who follows a stream", "error", err)
			}
		}
	}()
	err := run(ctx, func() caller { return *current.Load() })
	ended := refusal.Of(context.Cause(ctx))
	cancel(nil)
	<-looked
	if err != nil && ended != nil {
		return ended
	}
	return err
}
