package configs

import (
	"slices"
	"testing"
)

// TestEnvironmentSecrets: wherever a reference to the environment stands in the configuration, its name is known.
func TestEnvironmentSecrets(t *testing.T) {
	c := &Config{
		Store: "env:STORE", Provider: Provider{ClientSecret: "env:CLIENT"}, Providers: []Provider{{ClientSecret: "env:CLIENT"}, {ClientSecret: "file:/x"}},
		Targets:   []Target{{Accounts: []Account{{Password: "env:PASSWORD", Key: "command:fetch env:NOT"}}}},
		Workloads: []Workload{{}}, Evidence: []Evidence{{Token: "env:EVIDENCE"}},
		Approvals: Approvals{Slack: []Slack{{AppToken: "env:APP"}}, Webhooks: []Webhook{{Secret: "env:HOOK", DecisionSecret: "env:DECISION"}}},
	}
	if got, want := c.EnvironmentSecrets(), []string{"APP", "CLIENT", "DECISION", "EVIDENCE", "HOOK", "PASSWORD", "STORE"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
