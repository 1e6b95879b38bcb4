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
	// Preset knows a provider: which claims must be bound, and the defaults of Issuer, Bind, Subject, Label, StartedBy and
	// MaxAge. It is "github", "gitlab", "circleci", "buildkite", "kubernetes" or "generic".
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
	// StartedBy is the claim with the id of the person who started the job, one that its provider never gives again. Who
	// that is here is in People: their e-mail address or their subject at people's provider, by that id. Nobody is given
	// anything by it; policies take from that person the right to approve what they started.
	StartedBy string            `yaml:"started_by"`
	People    map[string]string `yaml:"people"`
	// Running is where the gateway asks whether a job still runs; without a URL it does not.
	Running Running `yaml:"running"`
	// Groups are what policies know the workload by.
	Groups []string `yaml:"groups"`
	// Claims are those that conditions of policies may look at, as identity.claims; written as in Bind.
	Claims []string `yaml:"claims"`
	// MaxAge is how old a token may be, from its iat.
	MaxAge Duration `yaml:"max_age"`
	// Lasts is how long a sign-in with a token lasts.
	Lasts Duration `yaml:"lasts"`
}

// Running is the API of a job's provider, asked when a job signs in and then while it is signed in. Only presets github and
// gitlab know one.
type Running struct {
	// URL is the API's address: https://api.github.com, https://gitlab.example.com/api/v4.
	URL string `yaml:"url"`
	// Token is one that may read the jobs and nothing else.
	Token SecretRef `yaml:"token"`
}

// Values are the values a claim may have; one alone may be written without brackets. A number or a Boolean in a token
// fits the same written as text.
type Values []string

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
	if w.StartedBy == "" {
		w.StartedBy = p.startedBy
	}
	bind := maps.Clone(p.bind)
	if bind == nil {
		bind = map[string]Values{}
	}
	maps.Copy(bind, w.Bind)
	w.Bind = bind
}

// maxClaims is how many claims conditions may look at.
const maxClaims = 20

func validateClaims(at reporter, path string, claims []string) {
	if len(claims) > maxClaims {
		at(path, "there are %d claims; at most %d are kept", len(claims), maxClaims)
	}
	for i, name := range claims {
		if !legible(name, 128) || slices.Contains(claims[:i], name) {
			at(fmt.Sprintf("%s[%d]", path, i), "%q is no claim's name, or stands there twice", name)
		}
	}
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
		validateWorkloadIssuer(at, w, c.AllProviders())
		validateClaims(at, ".claims", w.Claims)
		switch {
		case w.Audience == "":
			at(".audience", "audience is missing; write what jobs ask their token for, best the gateway's url (%s)", c.URL)
		case p.audience != "" && strings.HasPrefix(w.Audience, p.audience):
			at(".audience", "audience %q is one that tokens for others have too; have jobs ask for one of the gateway's own, best its url (%s)", w.Audience, c.URL)
		}
		if w.Preset == PresetCircleCI && w.Audience != "" && strings.HasSuffix(w.Issuer, "/"+w.Audience) {
			at(".audience", "audience %q is the organization's, which its tokens have for everybody; have jobs ask for one of the gateway's own, best its url (%s)", w.Audience, c.URL)
		}
		validateRunning(at, w, p)
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

func validateWorkloadIssuer(at reporter, w Workload, people []Provider) {
	u, err := url.Parse(w.Issuer)
	switch {
	case w.Issuer == "":
		at(".issuer", "issuer is missing; write the iss of the tokens, exactly as it stands there")
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))):
		at(".issuer", "issuer is %q; write an https:// address", w.Issuer)
	case slices.ContainsFunc(people, func(p Provider) bool { return p.Issuer == w.Issuer }):
		at(".issuer", "issuer is people's provider too; a person's token must not pass for a workload's")
	}
}

func validateRunning(at reporter, w Workload, p preset) {
	switch u, err := url.Parse(w.Running.URL); {
	case w.Running == (Running{}):
	case !p.running:
		at(".running", "running is for presets %s and %s; of others it is not known how to ask whether a job still runs", PresetGitHub, PresetGitLab)
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))):
		at(".running.url", "running.url is %q; write the https:// address of the provider's API, such as https://api.github.com", w.Running.URL)
	case w.Running.Token == "":
		at(".running", "running.token is missing; it names a token that may read jobs: env:NAME or file:PATH")
	default:
		checkSecret(at, ".running.token", w.Running.Token)
	}
	if len(w.People) > 0 && w.StartedBy == "" {
		at(".people", "people is by the ids of claim started_by, which is missing")
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
