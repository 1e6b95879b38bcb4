package api

import "time"

// Event is something that happened to a grant or session, or another event of the control plane; one of /v1/events. What is
// beside kind, time and the ids is for those who may read the audit log.
type Event struct {
	Number  uint64      `json:"number" doc:"Its number in the audit log; the id to resume by."`
	Time    time.Time   `json:"time"`
	Kind    string      `json:"kind"`
	Target  string      `json:"target,omitempty"`
	Account string      `json:"account,omitempty"`
	Grant   string      `json:"grant,omitempty"`
	Session string      `json:"session,omitempty"`
	Outcome string      `json:"outcome"`
	Audit   *AuditEvent `json:"audit,omitempty" doc:"All of it, for those who may read the audit log."`
}

// Pulse is how a live session goes; /v1/sessions/live gives all of them as often as they change.
type Pulse struct {
	Session string    `json:"session"`
	Until   time.Time `json:"until" doc:"When its grant ends."`
	// The rest is for those who may watch the session.
	Seen     bool      `json:"seen" doc:"What follows is known: the caller may watch the session, and its recording has been read so far."`
	Last     string    `json:"last,omitempty" doc:"The last statement, command or operation on a file; of a shell, the last line it showed. On one harmless line, bounded."`
	LastAt   time.Time `json:"last_at,omitzero"`
	Commands int       `json:"commands" doc:"Statements, commands and operations on files so far."`
	Bytes    int64     `json:"bytes" doc:"Of what was said and shown so far, as far as its recording tells."`
	Rate     int       `json:"rate" doc:"Statements, commands and operations in the last second."`
}

// Batch is what happened in a live session since the last one; /v1/sessions/{id}/stream gives them a few times a second,
// whatever the session does.
type Batch struct {
	Items   []Item `json:"items" doc:"The newest, oldest first."`
	Skipped int    `json:"skipped" doc:"Items before them that are left out here; the recording has them."`
	Total   int    `json:"total" doc:"Statements, commands and operations on files so far."`
	Over    bool   `json:"over,omitempty" doc:"The session has ended."`
}
