package configs

import "time"

// The presets of workloads.
const (
	PresetGitHub     = "github"
	PresetGitLab     = "gitlab"
	PresetCircleCI   = "circleci"
	PresetBuildkite  = "buildkite"
	PresetKubernetes = "kubernetes"
	PresetGeneric    = "generic"
)

// preset is what is known of a provider.
type preset struct {
	issuer         string
	required       []string // claims that must be bound: ids that are never given again, and what alone tells a fork apart
	bind           map[string]Values
	subject, label []string
	startedBy      string
	maxAge         time.Duration
	mutable        []string // claims that say nothing reliable about who it is, and may not be bound
	audience       string   // beginning of audiences that everybody's tokens have
	running        bool     // its API can be asked whether a job still runs
}

// presets: sources are the providers' documentations of their tokens' claims.
var presets = map[string]preset{
	PresetGitHub: {
		issuer:   "https://token.actions.githubusercontent.com",
		required: []string{"repository_id", "repository_owner_id"},
		// Not pull_request and its like, issue_comment and workflow_run: a stranger can start those.
		bind:      map[string]Values{"event_name": {"push", "workflow_dispatch", "schedule", "release"}},
		subject:   []string{"repository_id", "run_id", "run_attempt", "check_run_id"},
		label:     []string{"repository", "workflow"},
		startedBy: "actor_id",
		maxAge:    10 * time.Minute,
		// The form of sub can be changed by who owns the repository, and names can be taken again by somebody else.
		mutable:  []string{"sub"},
		audience: "https://github.com/",
		running:  true,
	},
	PresetGitLab: {
		issuer:    "https://gitlab.com",
		required:  []string{"project_id", "namespace_id"},
		bind:      map[string]Values{"ref_protected": {"true"}},
		subject:   []string{"project_id", "job_id"},
		label:     []string{"project_path", "ref"},
		startedBy: "user_id",
		maxAge:    time.Hour,
		mutable:   []string{"sub"},
		running:   true,
	},
	// Each organization has an issuer of its own, so the issuer is the owner's id. A build of somebody's fork has all the
	// claims of the project but vcs-origin.
	PresetCircleCI: {
		required: []string{"oidc.circleci.com/project-id", "oidc.circleci.com/vcs-origin"},
		bind:     map[string]Values{"oidc.circleci.com/ssh-rerun": {"false"}}, // true: a person is on the machine
		subject:  []string{"oidc.circleci.com/project-id", "oidc.circleci.com/job-id"},
		label:    []string{"oidc.circleci.com/vcs-origin", "oidc.circleci.com/vcs-ref"},
		maxAge:   time.Hour,
		mutable:  []string{"sub"},
		// The token has the person in its sub alone: org/ID/project/ID/user/ID.
		startedBy: "sub/user",
	},
	// One issuer for all organizations. The ids are in the token if the job asks for them:
	// buildkite-agent oidc request-token --claim organization_id,pipeline_id. Build branches of other people's pull requests
	// can have any name, so the source must be bound too.
	PresetBuildkite: {
		issuer:   "https://agent.buildkite.com",
		required: []string{"organization_id", "pipeline_id", "build_branch"},
		bind:     map[string]Values{"build_source": {"ui", "webhook", "schedule", "api", "trigger_job"}},
		subject:  []string{"pipeline_id", "job_id"},
		label:    []string{"organization_slug", "pipeline_slug", "step_key"},
		maxAge:   10 * time.Minute,
		mutable:  []string{"sub", "organization_slug", "pipeline_slug"},
	},
	PresetKubernetes: {
		required: []string{"kubernetes.io/namespace", "kubernetes.io/serviceaccount/uid"},
		subject:  []string{"kubernetes.io/serviceaccount/uid", "kubernetes.io/pod/uid"},
		label:    []string{"sub"},
		maxAge:   time.Hour,
		audience: "https://kubernetes.default",
	},
	PresetGeneric: {
		subject: []string{"sub"},
		label:   []string{"sub"},
		maxAge:  time.Hour,
	},
}

// listClaims are claims that are lists; such a one fits if one of its elements is what it is bound to. Every other claim
// that is a list fits nothing.
var listClaims = map[string]string{PresetCircleCI: "oidc.circleci.com/context-ids"}

// IsList tells whether a claim of this workload is a list of which one element is to fit.
func (w Workload) IsList(claim string) bool { return claim != "" && listClaims[w.Preset] == claim }
