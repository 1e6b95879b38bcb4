package web

import (
	"context"
	"errors"
	"strconv"

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

// untilExpired runs a stream until it ends by itself or the caller's sign-in does.
func untilExpired(ctx context.Context, who caller, run func(context.Context) error) error {
	expired := refusal.New(refusal.CredentialExpired, "your sign-in has ended").WithHint("sallyport login")
	if !who.Expires.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, who.Expires, expired)
		defer cancel()
	}
	err := run(ctx)
	if err != nil && errors.Is(context.Cause(ctx), expired) {
		return expired
	}
	return err
}
