package api

import "time"

// HeldPolicies are policies that may widen access and wait for somebody to confirm them.
type HeldPolicies struct {
	Revision    string             `json:"revision" doc:"The set's hash."`
	Since       time.Time          `json:"since"`
	Confirmed   bool               `json:"confirmed" doc:"It comes into force with the next reload."`
	Widens      []string           `json:"widens" doc:"What may give somebody more than now."`
	Changes     map[string]string  `json:"changes,omitempty" doc:"What was added, removed and changed."`
	Differences []PolicyDifference `json:"differences,omitempty" doc:"The same in full, field by field."`
	MadeBy      string             `json:"made_by,omitempty" doc:"Who made the change, as the configuration says (policy_changes.made_by). They can't confirm it."`
	RejectedBy  string             `json:"rejected_by,omitempty" doc:"It does not come into force as it is."`
	RejectedAt  time.Time          `json:"rejected_at,omitzero"`
	Comment     string             `json:"comment,omitempty" doc:"Why it was rejected."`
}

// PolicyDifference is one thing that two sets of policies have differently.
type PolicyDifference struct {
	What   string `json:"what" doc:"Such as policy deploy."`
	Field  string `json:"field,omitempty" doc:"As in the file; empty: the whole."`
	Before string `json:"before,omitempty" doc:"Empty: it was not there."`
	After  string `json:"after,omitempty" doc:"Empty: it is not there any more."`
}
