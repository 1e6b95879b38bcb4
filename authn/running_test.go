package authn

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authn/federation"
	"sallyport/configs"
	"sallyport/internal/refusal"
)

// jobsAPI is GitLab's, as far as one job goes.
type jobsAPI struct {
	*httptest.Server
	status atomic.Value // of job 5 in project 20
	broken atomic.Bool
}

func newJobsAPI(t *testing.T) *jobsAPI {
	a := &jobsAPI{}
	a.status.Store("running")
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v4/projects/20/jobs/5", func(w http.ResponseWriter, q *http.Request) {
		switch {
		case a.broken.Load():
			http.Error(w, "broken", http.StatusBadGateway)
		case q.Header.Get("Authorization") != "Bearer reads-jobs":
			http.Error(w, "no", http.StatusUnauthorized)
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"id": 5, "status": a.status.Load()})
		}
	})
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

func withRunning(t *testing.T, change ...func(*configs.Config)) (*rig, *ci, *jobsAPI) {
	c, a := newCI(t), newJobsAPI(t)
	t.Setenv("JOBS_TOKEN", "reads-jobs")
	r := newRig(t, append([]func(*configs.Config){func(config *configs.Config) {
		config.Workloads = []configs.Workload{{
			Name: "deploy", Preset: configs.PresetGitLab, Issuer: c.URL, CA: c.ca, Audience: "https://gateway",
			Bind: map[string]configs.Values{"project_id": {"20"}}, Subject: []string{"project_id", "job_id"}, Groups: []string{"ci"},
			MaxAge: configs.Duration(time.Hour), Lasts: configs.Duration(time.Hour),
			Running: configs.Running{URL: a.URL + "/api/v4", Token: "env:JOBS_TOKEN"},
		}}
	}}, change...)...)
	return r, c, a
}

func (c *ci) gitlabJob(r *rig, job, jti string) string {
	return c.token(r, "x", jti, func(claims map[string]any) { claims["project_id"], claims["job_id"] = "20", job })
}

// TestJobIsOver: a job that its provider says is over is not let in, whatever its token says, and one that ends is signed
// out, with its credentials.
func TestJobIsOver(t *testing.T) {
	r, c, a := withRunning(t)
	_, _, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "6", "unknown"), "10.0.0.1")
	refused(t, err, refusal.NotAuthenticated)
	access, who, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.askAboutJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Bearer(t.Context(), access); err != nil {
		t.Fatalf("while it runs: %v", err)
	}
	a.status.Store("success")
	if err := r.askAboutJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = r.Bearer(t.Context(), access)
	refused(t, err, refusal.NotAuthenticated)
	if err := r.Standing(t.Context(), who); refusal.Of(err) == nil {
		t.Errorf("its sessions would go on: %v", err)
	}
	if over := r.events("workload.over"); len(over) != 1 || over[0].Fields["identity"] != who.Key() {
		t.Errorf("%+v", over)
	}
	// The same token again, after the job: no.
	_, _, err = r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	refused(t, err, refusal.NotAuthenticated)
	if events := r.events(kindJobRefused); len(events) != 2 || !strings.Contains(events[1].Reason, "does not run") {
		t.Errorf("%+v", events)
	}
}

// TestJobsProviderIsDown: nobody new is let in then, and those who are in stay for a while.
func TestJobsProviderIsDown(t *testing.T) {
	r, c, a := withRunning(t)
	access, _, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	a.broken.Store(true)
	if _, _, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "b"), "10.0.0.1"); !errors.Is(err, federation.ErrUnavailable) {
		t.Errorf("a new sign-in: %v", err)
	}
	if err := r.askAboutJobs(t.Context()); !errors.Is(err, federation.ErrUnavailable) {
		t.Errorf("nothing is said of it: %v", err)
	}
	if _, err := r.Bearer(t.Context(), access); err != nil {
		t.Errorf("at once: %v", err)
	}
	r.advance(jobGrace + time.Second)
	_ = r.askAboutJobs(t.Context()) // says again that it is down
	_, err = r.Bearer(t.Context(), access)
	refused(t, err, refusal.NotAuthenticated)
}

// TestSlowProviderHoldsUpNoOther: while one workload's provider takes its time, another's jobs that are over are signed out.
func TestSlowProviderHoldsUpNoOther(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	var slow atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if slow.Load() {
			asked <- struct{}{}
			<-answer
		}
		_, _ = w.Write([]byte(`{"status":"running"}`))
	}))
	defer other.Close()
	r, c, a := withRunning(t, func(config *configs.Config) {
		w := config.Workloads[0]
		w.Name, w.Bind, w.Running.URL = "build", map[string]configs.Values{"project_id": {"21"}}, other.URL
		config.Workloads = append([]configs.Workload{w}, config.Workloads...)
	})
	if _, _, err := r.ExchangeWorkload(t.Context(), c.token(r, "x", "slow", func(claims map[string]any) { claims["project_id"], claims["job_id"] = "21", "5" }), "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	r.advance(time.Second) // so that it is asked about first
	access, _, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	slow.Store(true)
	a.status.Store("success")
	done := make(chan error, 1)
	go func() { done <- r.askAboutJobs(t.Context()) }()
	<-asked
	for len(r.events("workload.over")) == 0 {
		select {
		case err := <-done:
			t.Fatalf("it waited for the slow one: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	_, err = r.Bearer(t.Context(), access)
	refused(t, err, refusal.NotAuthenticated)
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestJobsOfOneIdentity: where several jobs are one identity, the end of one is not that of the others.
func TestJobsOfOneIdentity(t *testing.T) {
	r, c, a := withRunning(t)
	one, _, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := r.watchedJobs(t.Context(), "deploy")
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%v, %v", jobs, err)
	}
	two, _, err := r.ExchangeWorkload(t.Context(), c.gitlabJob(r, "5", "a"), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.endJob(t.Context(), jobs[0], "test"); err != nil {
		t.Fatal(err)
	}
	_, err = r.Bearer(t.Context(), one)
	refused(t, err, refusal.NotAuthenticated)
	if _, err := r.Bearer(t.Context(), two); err != nil {
		t.Errorf("the other: %v", err)
	}
	a.status.Store("canceled")
	if err := r.askAboutJobs(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = r.Bearer(t.Context(), two)
	refused(t, err, refusal.NotAuthenticated)
}
