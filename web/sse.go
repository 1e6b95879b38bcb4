package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"sallyport/internal/refusal"
)

// eventStream is the content type of server-sent events (WHATWG HTML, 9.2).
const eventStream = "text/event-stream"

// heartbeat is how often a stream on which nothing happens shows that it is there; proxies give up silent ones.
const heartbeat = 15 * time.Second

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

// sse writes one event; name and id may be empty. A nil v writes a comment that shows the stream is there, and the id.
func sse(w io.Writer, name, id string, v any) error {
	var event bytes.Buffer
	if id != "" {
		fmt.Fprintf(&event, "id: %s\n", id)
	}
	if name != "" {
		fmt.Fprintf(&event, "event: %s\n", name)
	}
	if v == nil {
		event.WriteString(": still here\n\n")
	} else {
		data, err := json.Marshal(v) // without line breaks
		if err != nil {
			return err
		}
		fmt.Fprintf(&event, "data: %s\n\n", data)
	}
	if _, err := w.Write(event.Bytes()); err != nil {
		return err
	}
	return flush(w)
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
	if err != nil && context.Cause(ctx) == error(expired) {
		return expired
	}
	return err
}
