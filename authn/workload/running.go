package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"sallyport/authn/federation"
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

// Asked tells whether the workload's provider is asked about its jobs.
func (j Job) Asked() bool { return j.Workload.Running.URL != "" }

// Asked are the workloads about whose jobs a provider is asked.
func (i *Issuers) Asked() (asked []configs.Workload) {
	for _, w := range i.workloads {
		if w.Running.URL != "" {
			asked = append(asked, w)
		}
	}
	return asked
}

// Runs asks the workload's provider whether a job runs now. token is what Running.Token names. The error wraps
// federation.ErrUnavailable where that can't be known; a job that the provider does not know does not run.
func Runs(ctx context.Context, w configs.Workload, token string, handle map[string]string) (bool, error) {
	unavailable := func(err error) error {
		return fmt.Errorf("%w: whether a job of workload %s runs: %w", federation.ErrUnavailable, w.Name, err)
	}
	path, over := question(w.Preset, handle)
	if path == "" {
		return false, unavailable(fmt.Errorf("its token lacks the ids by which to ask"))
	}
	client, err := federation.Client(w.CA, "workloads.ca")
	if err != nil {
		return false, unavailable(err)
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(w.Running.URL, "/")+path, nil)
	if err != nil {
		return false, unavailable(err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := client.Do(request)
	if err != nil {
		return false, unavailable(err)
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound: // also what both answer to a token that may not look, which then lets nobody in
		return false, nil
	default:
		return false, unavailable(fmt.Errorf("%s answers %s", request.URL.Host, answer.Status))
	}
	var job struct {
		Status string `json:"status"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&job); err != nil || job.Status == "" {
		return false, unavailable(fmt.Errorf("%s answers something else than a job", request.URL.Host))
	}
	return !over(job.Status), nil
}

// question is where to ask about a job, and which answers mean that it is over. GitHub: REST API, "Get a job for a workflow
// run" and "Get a workflow run attempt", by the repository's id; GitLab: "Get a single job" of the jobs API.
func question(preset string, handle map[string]string) (path string, over func(status string) bool) {
	part := func(name string) string { return url.PathEscape(handle[name]) }
	switch {
	case preset == configs.PresetGitHub && handle["repository_id"] != "" && handle["check_run_id"] != "":
		path = "/repositories/" + part("repository_id") + "/actions/jobs/" + part("check_run_id")
	case preset == configs.PresetGitHub && handle["repository_id"] != "" && handle["run_id"] != "" && handle["run_attempt"] != "":
		path = "/repositories/" + part("repository_id") + "/actions/runs/" + part("run_id") + "/attempts/" + part("run_attempt")
	case preset == configs.PresetGitLab && handle["project_id"] != "" && handle["job_id"] != "":
		path = "/projects/" + part("project_id") + "/jobs/" + part("job_id")
	}
	if preset == configs.PresetGitHub {
		return path, func(status string) bool { return status != "in_progress" }
	}
	return path, func(status string) bool { return status != "running" }
}
