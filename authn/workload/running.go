package workload

import (
	"encoding/json"

	"sallyport/configs"
)

// handleClaims are the claims that name a job in its provider's API.
var handleClaims = map[string][]string{
	configs.PresetGitHub: {"repository_id", "run_id", "run_attempt", "check_run_id"},
	configs.PresetGitLab: {"project_id", "job_id"},
}

// handle is what the job's provider is asked by.
func handle(w configs.Workload, claims map[string]json.RawMessage) map[string]string {
	if w.Running.URL == "" {
		return nil
	}
	found := map[string]string{}
	for _, name := range handleClaims[w.Preset] {
		if value, ok := scalar(find(claims, name)); ok {
			found[name] = value
		}
	}
	return found
}
