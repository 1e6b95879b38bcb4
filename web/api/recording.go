package api

import (
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// Item is one thing that happened in a session; a line of /v1/sessions/{id}/items.
type Item = item.Item

// Match is one place where a search found its text; a line of /v1/search.
type Match struct {
	Session string        `json:"session"`
	Header  format.Header `json:"header"`
	Item    Item          `json:"item"`
	Line    string        `json:"line"`
}

// AuditEvent is one event of the control plane; a line of /v1/audit.
type AuditEvent struct {
	Number    uint64            `json:"number"`
	Time      time.Time         `json:"time"`
	Kind      string            `json:"kind"`
	Actor     string            `json:"actor"`
	ActorName string            `json:"actor_name,omitempty"`
	Client    string            `json:"client,omitempty"`
	Target    string            `json:"target,omitempty"`
	Account   string            `json:"account,omitempty"`
	Grant     string            `json:"grant,omitempty"`
	Session   string            `json:"session,omitempty"`
	Outcome   string            `json:"outcome"`
	Reason    string            `json:"reason,omitempty"`
	Fields    map[string]string `json:"fields,omitempty"`
}
