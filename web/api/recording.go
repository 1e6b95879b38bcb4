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

// Hold keeps a recording from being deleted when its time is over.
type Hold struct {
	Session string    `json:"session"`
	Target  string    `json:"target"`
	Account string    `json:"account"`
	Person  string    `json:"person" doc:"Whose session it was."`
	Started time.Time `json:"started"`
	Since   time.Time `json:"since"`
	By      string    `json:"by" doc:"Who put it on hold."`
	Reason  string    `json:"reason"`
}

// Status is how a gateway stands.
type Status struct {
	Version  string         `json:"version"`
	Ready    bool           `json:"ready" doc:"Sessions can begin, as far as their recordings go."`
	Why      string         `json:"why,omitempty" doc:"Why not."`
	Draining bool           `json:"draining"`
	Sessions int            `json:"sessions" doc:"Live ones."`
	Recorder RecorderStatus `json:"recorder"`
	Index    Index          `json:"index"`
	Outbox   int            `json:"outbox" doc:"Audit events that wait to be moved to the audit log."`
}

// RecorderStatus is how the session log stands.
type RecorderStatus struct {
	Durability  string        `json:"durability" doc:"The default level."`
	SyncMedian  time.Duration `json:"sync_median_ns" doc:"How long the disk took to make a small write safe when the gateway was started; 0: not measured."`
	SyncSlowest time.Duration `json:"sync_slowest_ns"`
	Recordings  int           `json:"recordings"`
	Bytes       int64         `json:"bytes" doc:"Of recordings and audit log."`
	Days        []DayUsage    `json:"days" doc:"The last seven days by UTC, today last."`
	Free        int64         `json:"free" doc:"Bytes that can still be written to their disk."`
	Reserve     int64         `json:"reserve" doc:"Bytes that must be free for sessions to begin."`
	Left        time.Duration `json:"left_ns" doc:"How long until no session can begin, if it goes on like on the last six whole days; 0: not known."`
	Holds       int           `json:"holds" doc:"Recordings on hold."`
}

// DayUsage is what was recorded in sessions that began on a day.
type DayUsage struct {
	Day        string `json:"day" doc:"Such as 2026-01-31."`
	Recordings int    `json:"recordings"`
	Bytes      int64  `json:"bytes"`
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
