package api

import "time"

// HeldPolicies are policies that may widen access and wait for somebody to confirm them.
type HeldPolicies struct {
	Revision  string            `json:"revision" doc:"The set's hash."`
	Since     time.Time         `json:"since"`
	Confirmed bool              `json:"confirmed" doc:"It comes into force with the next reload."`
	Widens    []string          `json:"widens" doc:"What may give somebody more than now."`
	Changes   map[string]string `json:"changes,omitempty" doc:"What was added, removed and changed."`
}
