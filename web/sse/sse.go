// Package sse writes server-sent events (WHATWG HTML, 9.2), which browsers take up again by id where they were cut.
package sse

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// ContentType is that of a stream of events.
const ContentType = "text/event-stream"

// Heartbeat is how often a stream on which nothing happens shows that it is there; proxies give up silent ones.
const Heartbeat = 15 * time.Second

// Write writes one event and flushes where w has a Flush; name and id may be empty. A nil v writes a comment that shows the
// stream is there, and the id.
func Write(w io.Writer, name, id string, v any) error {
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
	if b, ok := w.(interface{ Flush() error }); ok {
		return b.Flush()
	}
	return nil
}
