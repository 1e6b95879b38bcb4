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

// Index is how the search index stands.
type Index struct {
	Kept     bool   `json:"kept" doc:"There is an index; without one every search reads the recordings."`
	Sessions int    `json:"sessions" doc:"Recordings that are wholly in it."`
	Live     int    `json:"live" doc:"Live recordings, which are brought in as they go."`
	Behind   int    `json:"behind" doc:"Recordings that wait to be brought in; searches read them meanwhile."`
	Error    string `json:"error,omitempty" doc:"Why there is no index just now."`
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
