package grant

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/configs"
)

// Real requests are asked again of other policies, with what was known when they were asked: those alone are named that would have gone
// another way, and how.
func TestWhatIf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "duty.yaml")
	if err := os.WriteFile(file, []byte("subjects: [sub-alice]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := hanging(t, configs.Evidence{Name: "oncall", Kind: configs.KindOnCall, File: file}, func(c *configs.Config) {
		c.Policies[1].When = `identity.subject in evidence.oncall.subjects`
	})
	ctx := t.Context()
	night := w.clocks.now()
	duty, err := read(w, "OPS-7")
	if err != nil {
		t.Fatal(err)
	}
	write := w.request(alice, "app", "orders")
	ship := w.request(dave, "deploy", "web-1")
	w.pass(time.Hour)
	// What the evidence says since then does not matter.
	if err := os.WriteFile(file, []byte("subjects: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{duty.ID: "duty", write.ID: "write", ship.ID: "ship"}
	for name, test := range map[string]struct {
		change func(c *configs.Config)
		want   map[string]string
		since  time.Time
	}{
		"nothing":                            {func(*configs.Config) {}, nil, night},
		"later":                              {func(c *configs.Config) { c.Policies = nil }, nil, night.Add(time.Minute)},
		"shorter":                            {func(c *configs.Config) { c.Policies[0].MaxDuration = minutes(5) }, map[string]string{"write": NowDenied}, night},
		"on duty only, by another condition": {func(c *configs.Config) { c.Policies[1].When = `!(identity.subject in evidence.oncall.subjects)` }, map[string]string{"duty": NowDenied}, night},
		"at once":                            {func(c *configs.Config) { c.Policies[0].Approve = configs.Approve{Auto: true} }, map[string]string{"write": NowAtOnce}, night},
		"fewer":                              {func(c *configs.Config) { c.Policies[2].Approve.Count = 1 }, map[string]string{"ship": NowFewer}, night},
		"more":                               {func(c *configs.Config) { c.Policies[0].Approve.Count = 2 }, map[string]string{"write": NowMore}, night},
		"others":                             {func(c *configs.Config) { c.Policies[0].Approve.Groups = []string{"security"} }, map[string]string{"write": NowOthers}, night},
		"in another order":                   {func(c *configs.Config) { c.Policies[2].Approve.Groups = []string{"security", "leads"} }, nil, night},
		"renamed":                            {func(c *configs.Config) { c.Policies[0].Name = "new" }, map[string]string{"write": NowAnother}, night},
		"forbidden": {func(c *configs.Config) {
			c.Policies = append(c.Policies, configs.Policy{Name: "no", Effect: configs.Forbid, Accounts: []string{"*@web-1"}})
		}, map[string]string{"ship": NowDenied}, night},
		"target gone":              {func(c *configs.Config) { c.Targets = c.Targets[:1] }, map[string]string{"ship": NowDenied}, night},
		"the hours of the request": {func(c *configs.Config) { c.Policies[0].Hours = []string{"tue 12:00-12:30 UTC"} }, nil, night},
	} {
		c := example()
		c.Evidence = w.config.Evidence
		c.Policies[1] = w.config.Policies[1]
		test.change(c)
		found, asked, err := WhatIfs(ctx, c, w.db.Read(), test.since)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := map[string]string{}
		for _, f := range found {
			got[names[f.Grant.ID]] = f.Change
			if f.Was == "" || f.Now == "" {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) || asked != 3 && test.since.Equal(night) {
			t.Errorf("%s: %v of %d, want %v", name, got, asked, test.want)
		}
	}
}
