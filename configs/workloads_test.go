package configs

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const workloads = `workloads:
  - name: shop deploy
    preset: github
    audience: https://gateway.example:8443
    bind:
      repository_id: 260064828
      repository_owner_id: "1342004"
    groups: [ci]
  - name: cluster
    preset: kubernetes
    issuer: https://oidc.example/prod
    audience: https://gateway.example:8443
    bind:
      kubernetes.io/namespace: shop
      kubernetes.io/serviceaccount/uid: [e6a8, e6a9]
    groups: [ci]
    max_age: 10m
`

func TestWorkloads(t *testing.T) {
	c, err := Load(write(t, with(good+workloads)))
	if err != nil {
		t.Fatal(err)
	}
	github, cluster := c.Workloads[0], c.Workloads[1]
	if github.Issuer != "https://token.actions.githubusercontent.com" || github.MaxAge.D() != 10*time.Minute || github.Lasts.D() != time.Hour ||
		!slices.Contains(github.Subject, "check_run_id") || !slices.Equal(github.Bind["repository_id"], Values{"260064828"}) {
		t.Errorf("%+v", github)
	}
	if events := github.Bind["event_name"]; !slices.Contains(events, "push") || slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "pull_request") }) {
		t.Errorf("events by default: %v", events)
	}
	if !slices.Equal(cluster.Bind["kubernetes.io/serviceaccount/uid"], Values{"e6a8", "e6a9"}) || cluster.MaxAge.D() != 10*time.Minute {
		t.Errorf("%+v", cluster)
	}
}

// TestDefaultsAreNotShared: what one workload binds does not change the next one's defaults.
func TestDefaultsAreNotShared(t *testing.T) {
	one, two := Workload{Preset: PresetGitLab, Bind: map[string]Values{"ref_protected": {"false"}, "x": {"y"}}}, Workload{Preset: PresetGitLab}
	one.setDefaults()
	two.setDefaults()
	if !slices.Equal(one.Bind["ref_protected"], Values{"false"}) || !slices.Equal(two.Bind["ref_protected"], Values{"true"}) || two.Bind["x"] != nil {
		t.Errorf("%v, %v", one.Bind, two.Bind)
	}
}

func TestWorkloadProblems(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"no such preset", "preset: github", "preset: jenkins", `sallyport.yaml:35:13: preset is "jenkins"; it is one of: buildkite, circleci, generic, github, gitlab, kubernetes`},
		{"no audience", "    audience: https://gateway.example:8443\n    bind:\n      repository_id", "    bind:\n      repository_id", "sallyport.yaml:34:5: audience is missing"},
		{"the provider's own audience", "preset: github\n    audience: https://gateway.example:8443", "preset: github\n    audience: https://github.com/acme", "sallyport.yaml:36:15: audience \"https://github.com/acme\" is one that tokens for others have too"},
		{"no owner's id", "      repository_owner_id: \"1342004\"\n", "", "sallyport.yaml:38:7: bind lacks repository_owner_id"},
		{"a pattern", `"1342004"`, `"134*"`, "there are no patterns"},
		{"by sub", `repository_owner_id: "1342004"`, "repository_owner_id: \"1342004\"\n      sub: repo:acme/shop:ref:refs/heads/main", "bind has sub, whose form"},
		{"by aud", `repository_owner_id: "1342004"`, "repository_owner_id: \"1342004\"\n      aud: x", `bind has "aud"`},
		{"no uid", "      kubernetes.io/serviceaccount/uid: [e6a8, e6a9]\n", "", "bind lacks kubernetes.io/serviceaccount/uid"},
		{"a map for a value", "repository_id: 260064828", "repository_id: {a: b}", "expected a text or a list of texts"},
		{"people's issuer", "https://oidc.example/prod", "https://login.example", "sallyport.yaml:43:13: issuer is people's provider too"},
		{"issuer in clear text", "https://oidc.example/prod", "http://oidc.example/prod", "write an https:// address"},
		{"no groups", "    groups: [ci]\n    max_age", "    max_age", "groups is missing"},
		{"no such key", "max_age", "maxage", "sallyport.yaml:49:5: unknown key \"maxage\"; in workloads the keys are: audience, bind"},
		{"too old", "max_age: 10m", "max_age: 7d", "max_age is 168h; between 1m and 24h"},
		{"twice", "name: cluster", "name: shop deploy", "there is another workload named"},
		{"one issuer, two authorities", "preset: kubernetes\n    issuer: https://oidc.example/prod", "preset: kubernetes\n    ca: tls.crt\n    issuer: https://token.actions.githubusercontent.com", "ca differs from that of another workload"},
		{"CircleCI without its origin", "preset: kubernetes\n    issuer: https://oidc.example/prod", "preset: circleci\n    issuer: https://oidc.circleci.com/org/6f1e", "bind lacks oidc.circleci.com/vcs-origin"},
		{"CircleCI's own audience", "preset: kubernetes\n    issuer: https://oidc.example/prod\n    audience: https://gateway.example:8443", "preset: circleci\n    issuer: https://oidc.circleci.com/org/6f1e\n    audience: 6f1e", "is the organization's"},
		{"Buildkite without its organization", "preset: kubernetes\n    issuer: https://oidc.example/prod", "preset: buildkite", "bind lacks organization_id"},
		{"Buildkite by its pipeline's name", "preset: kubernetes\n    issuer: https://oidc.example/prod\n    audience: https://gateway.example:8443\n    bind:", "preset: buildkite\n    audience: x\n    bind:\n      pipeline_slug: shop", "bind has pipeline_slug"},
		{"whether a pod runs", "max_age: 10m", "running: {url: \"https://api.example\", token: \"env:T\"}", "running is for presets github and gitlab"},
		{"asking in clear text", "preset: github", "preset: github\n    running: {url: \"http://api.example\", token: \"env:T\"}", "write the https:// address of the provider's API"},
		{"asking without a token", "preset: github", "preset: github\n    running: {url: \"https://api.example\"}", "running.token is missing"},
		{"people of nobody", "max_age: 10m", "people: {\"1\": alice@example.com}", "people is by the ids of claim started_by"},
		{"generic without anything", "preset: kubernetes", "preset: generic\n  - name: third\n    preset: generic", "bind is missing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			whole := good + workloads
			changed := strings.Replace(whole, test.old, test.new, 1)
			if changed == whole {
				t.Fatal("the test changes nothing")
			}
			_, err := Load(write(t, with(changed)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got:\n%v\nwant it to contain %q", err, test.want)
			}
		})
	}
}
