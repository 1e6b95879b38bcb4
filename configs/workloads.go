package configs

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Workload says which jobs of a CI system, or pods of a cluster, may sign in with the token that their own issuer gave
// them, and as what. Several entries may have the same issuer; the first whose bindings fit a token wins.
type Workload struct {
	Name string `yaml:"name"`
	// Preset knows a provider: which claims must be bound, and the defaults of Issuer, Bind, Subject, Label and MaxAge. It is
	// "github", "gitlab", "kubernetes" or "generic".
	Preset string `yaml:"preset"`
	// Issuer is compared with the token's iss as it stands; keys are found by OpenID discovery below it.
	Issuer string `yaml:"issuer"`
	// Audience is what the token must be made for, and for nobody else.
	Audience string `yaml:"audience"`
	// CA is a PEM file to trust for the issuer beside the system's authorities.
	CA string `yaml:"ca"`
	// Bind are claims and the values they may have, compared exactly; every one must fit, and a claim that is absent does
	// not. A claim inside another is written with a slash: kubernetes.io/serviceaccount/uid.
	Bind map[string]Values `yaml:"bind"`
	// Subject are the claims that make up who it is. All must be in the token. By default they name one job, so that
	// no two jobs ever share a grant.
	Subject []string `yaml:"subject"`
	// Label are claims for people to read; those that are absent are left out.
	Label []string `yaml:"label"`
	// Groups are what policies know the workload by.
	Groups []string `yaml:"groups"`
	// MaxAge is how old a token may be, from its iat.
	MaxAge Duration `yaml:"max_age"`
	// Lasts is how long a sign-in with a token lasts.
	Lasts Duration `yaml:"lasts"`
}

// Values are the values a claim may have; one alone may be written without brackets. A number or a Boolean in a token
// fits the same written as text.
type Values []string

// The presets.
const (
	PresetGitHub     = "github"
	PresetGitLab     = "gitlab"
	PresetKubernetes = "kubernetes"
	PresetGeneric    = "generic"
)

// preset is what is known of a provider.
type preset struct {
	issuer         string
	required       []string // claims that must be bound: ids that are never given again
	bind           map[string]Values
	subject, label []string
	maxAge         time.Duration
	mutable        []string // claims that say nothing reliable about who it is, and may not be bound
	audience       string   // beginning of audiences that everybody's tokens have
}

// presets: sources are the providers' documentations of their tokens' claims.
var presets = map[string]preset{
	PresetGitHub: {
		issuer:   "https://token.actions.githubusercontent.com",
		required: []string{"repository_id", "repository_owner_id"},
		// Not pull_request and its like, issue_comment and workflow_run: a stranger can start those.
		bind:    map[string]Values{"event_name": {"push", "workflow_dispatch", "schedule", "release"}},
		subject: []string{"repository_id", "run_id", "run_attempt", "check_run_id"},
		label:   []string{"repository", "workflow"},
		maxAge:  10 * time.Minute,
		// The form of sub can be changed by who owns the repository, and names can be taken again by somebody else.
		mutable:  []string{"sub"},
		audience: "https://github.com/",
	},
	PresetGitLab: {
		issuer:   "https://gitlab.com",
		required: []string{"project_id", "namespace_id"},
		bind:     map[string]Values{"ref_protected": {"true"}},
		subject:  []string{"project_id", "job_id"},
		label:    []string{"project_path", "ref"},
		maxAge:   time.Hour,
		mutable:  []string{"sub"},
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

// setDefaults fills in what the file left out, from the preset.
func (w *Workload) setDefaults() {
	set(&w.Lasts, Duration(time.Hour))
	p, known := presets[w.Preset]
	if !known {
		return // validation says so
	}
	set(&w.Issuer, p.issuer)
	set(&w.MaxAge, Duration(p.maxAge))
	if len(w.Subject) == 0 {
		w.Subject = p.subject
	}
	if len(w.Label) == 0 {
		w.Label = p.label
	}
	bind := maps.Clone(p.bind)
	if bind == nil {
		bind = map[string]Values{}
	}
	maps.Copy(bind, w.Bind)
	w.Bind = bind
}

func validateWorkloads(at reporter, c *Config) {
	names, authorities := map[string]bool{}, map[string]string{}
	for i, w := range c.Workloads {
		prefix := fmt.Sprintf("workloads[%d]", i)
		at := func(path, format string, args ...any) { at(prefix+path, format, args...) }
		if !policyName.MatchString(w.Name) {
			at(".name", "a workload needs a name of letters, digits, blanks, dots and dashes, at most 63; got %q", w.Name)
		}
		if names[w.Name] {
			at(".name", "there is another workload named %q", w.Name)
		}
		names[w.Name] = true
		p, known := presets[w.Preset]
		if !known {
			at(".preset", "preset is %q; it is one of: %s", w.Preset, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
			continue
		}
		validateWorkloadIssuer(at, w, c.Provider.Issuer)
		switch {
		case w.Audience == "":
			at(".audience", "audience is missing; write what jobs ask their token for, best the gateway's url (%s)", c.URL)
		case p.audience != "" && strings.HasPrefix(w.Audience, p.audience):
			at(".audience", "audience %q is one that tokens for others have too; have jobs ask for one of the gateway's own, best its url (%s)", w.Audience, c.URL)
		}
		if len(w.Groups) == 0 {
			at(".groups", "groups is missing; policies know a workload by its groups")
		}
		for _, claim := range p.required {
			if len(w.Bind[claim]) == 0 {
				at(".bind", "bind lacks %s, which preset %s needs: names can be taken over by others, ids can't", claim, w.Preset)
			}
		}
		if len(w.Bind) == 0 {
			at(".bind", "bind is missing; without it everything that the issuer signs for would be let in")
		}
		validateBind(at, w, p)
		if len(w.Subject) > 8 {
			at(".subject", "subject has %d claims; at most 8", len(w.Subject))
		}
		if d := w.MaxAge.D(); d < time.Minute || d > 24*time.Hour {
			at(".max_age", "max_age is %s; between 1m and 24h", w.MaxAge)
		}
		if d := w.Lasts.D(); d < time.Minute || d > 24*time.Hour {
			at(".lasts", "lasts is %s; between 1m and 24h", w.Lasts)
		}
		checkFile(at, ".ca", w.CA)
		if ca, before := authorities[w.Issuer]; before && ca != w.CA {
			at(".ca", "ca differs from that of another workload with this issuer; its keys are asked for once, so it must be the same")
		}
		authorities[w.Issuer] = w.CA
	}
}

func validateWorkloadIssuer(at reporter, w Workload, people string) {
	u, err := url.Parse(w.Issuer)
	switch {
	case w.Issuer == "":
		at(".issuer", "issuer is missing; write the iss of the tokens, exactly as it stands there")
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))):
		at(".issuer", "issuer is %q; write an https:// address", w.Issuer)
	case w.Issuer == people:
		at(".issuer", "issuer is people's provider too; a person's token must not pass for a workload's")
	}
}

func validateBind(at reporter, w Workload, p preset) {
	for _, claim := range slices.Sorted(maps.Keys(w.Bind)) {
		if claim == "" || slices.Contains([]string{"iss", "aud", "exp", "nbf", "iat", "jti"}, claim) {
			at(".bind", "bind has %q, which is checked anyway or says nothing of who it is", claim)
		}
		if slices.Contains(p.mutable, claim) {
			at(".bind", "bind has %s, whose form those who own the project can change; bind %s instead", claim, strings.Join(p.required, " and "))
		}
		values := w.Bind[claim]
		if len(values) == 0 || len(values) > 100 {
			at(".bind", "%s has %d values; write 1 to 100", claim, len(values))
		}
		for _, value := range values {
			if value == "" || strings.ContainsAny(value, "*?") {
				at(".bind", "%s is bound to %q; values are compared exactly, there are no patterns: list each", claim, value)
			}
		}
	}
}
