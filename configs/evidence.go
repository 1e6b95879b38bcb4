package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Evidence is something that another system knows and that policies can ask for: a ticket, who is on call, a job.
type Evidence struct {
	Name string `yaml:"name"`
	// Kind says why a grant ended that lost it: KindTicket, KindOnCall, KindJob or KindOther.
	Kind string `yaml:"kind"`

	// One of these is where it is read: a file (YAML or JSON), an address that answers with JSON, or the name of a site under
	// approvals.jira, where the ticket of the request is looked up.
	File string `yaml:"file"`
	URL  string `yaml:"url"`
	Jira string `yaml:"jira"`

	// Key is, for a file, the key under which it is; default: the whole file. In Key and URL stand {ticket}, {subject},
	// {email}, {account} and {target} for what the request says.
	Key string `yaml:"key"`
	// Token is sent as a bearer's with the request to URL. CA is a PEM file to trust beside the system's authorities.
	Token SecretRef `yaml:"token"`
	CA    string    `yaml:"ca"`
	// Until names a field with a time (RFC 3339) until which it holds.
	Until string `yaml:"until"`
	// ApprovedStatus are states of an issue in Jira, by name or id: it counts only if it was moved into one of them, by somebody who
	// is linked under approvals.people, is in one of the groups ApprovedBy now, and neither asks nor started the job that does.
	ApprovedStatus []string `yaml:"approved_status"`
	ApprovedBy     []string `yaml:"approved_by"`

	// Every is how often it is read again while a grant hangs on it; default 30s. Tolerance is how long what was read last
	// counts while it can't be read; default 5m.
	Every     Duration `yaml:"every"`
	Tolerance Duration `yaml:"tolerance"`
}

// The kinds of evidence.
const (
	KindTicket = "ticket"
	KindOnCall = "oncall"
	KindJob    = "job"
	KindOther  = "other"
)

func (e *Evidence) setDefaults() {
	set(&e.Every, Duration(30*time.Second))
	set(&e.Tolerance, Duration(5*time.Minute))
	set(&e.Kind, KindOther)
}

var (
	evidenceName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`) // it is written in conditions
	placeholder  = regexp.MustCompile(`\{[^}]*\}?`)
)

// Placeholders are what may stand in the key and address of evidence.
var Placeholders = []string{"{ticket}", "{subject}", "{email}", "{account}", "{target}"}

func validateEvidence(at reporter, c *Config) {
	names := map[string]bool{}
	for i, e := range c.Evidence {
		path := fmt.Sprintf("evidence[%d]", i)
		if !evidenceName.MatchString(e.Name) {
			at(path+".name", "evidence is named with lower-case letters, digits and underscores, for conditions know it by that; got %q", e.Name)
		}
		if names[e.Name] {
			at(path+".name", "there is other evidence named %q", e.Name)
		}
		names[e.Name] = true
		if !slices.Contains([]string{KindTicket, KindOnCall, KindJob, KindOther}, e.Kind) {
			at(path+".kind", "kind is %q; it is %s, %s, %s or %s", e.Kind, KindTicket, KindOnCall, KindJob, KindOther)
		}
		sources := 0
		for _, s := range []string{e.File, e.URL, e.Jira} {
			if s != "" {
				sources++
			}
		}
		if sources != 1 {
			at(path, "evidence is read from one of file, url and jira")
		}
		if e.URL != "" {
			checkHTTPS(at, path+".url", placeholder.ReplaceAllString(e.URL, "x"))
			if host, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(e.URL, "https://"), "http://"), "/"); strings.Contains(host, "{") {
				at(path+".url", "what a request says must not choose the host: %s", e.URL)
			}
		}
		for _, p := range append(placeholder.FindAllString(e.URL, -1), placeholder.FindAllString(e.Key, -1)...) {
			if !slices.Contains(Placeholders, p) {
				at(path, "%s stands for nothing; there are %s", p, strings.Join(Placeholders, ", "))
			}
		}
		if e.Key != "" && e.File == "" {
			at(path+".key", "key is for a file")
		}
		if e.Jira != "" && !slices.ContainsFunc(c.Approvals.Jira, func(j Jira) bool { return j.Name == e.Jira }) {
			at(path+".jira", "there is no site %q; write it under approvals.jira", e.Jira)
		}
		if len(e.ApprovedStatus) > 0 && e.Jira == "" {
			at(path+".approved_status", "approved_status is for issues in Jira")
		}
		if len(e.ApprovedStatus) > 0 != (len(e.ApprovedBy) > 0) {
			at(path+".approved_by", "approved_status and approved_by go together: who can move an issue is not yet who may approve")
		}
		if (e.Token != "" || e.CA != "") && e.URL == "" {
			at(path, "token and ca go with url")
		}
		checkSecret(at, path+".token", e.Token)
		checkFile(at, path+".ca", e.CA)
		if e.Every.D() < 5*time.Second || e.Every.D() > time.Hour {
			at(path+".every", "every is %s; between 5s and 1h", e.Every)
		}
		if e.Tolerance.D() > time.Hour {
			at(path+".tolerance", "tolerance is %s; at most 1h", e.Tolerance)
		}
	}
}
