package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/configs"
)

func TestTable(t *testing.T) {
	c := &configs.Config{
		Targets: []configs.Target{{Name: "orders", Kind: configs.KindPostgres, Labels: map[string]string{"env": "prod"}, Accounts: []configs.Account{{Name: "app"}}}},
		Policies: []configs.Policy{
			{Name: "on duty", Groups: []string{"eng"}, Accounts: []string{"app@orders"}, MaxDuration: hours(1), ReasonLength: 50, Ticket: "OPS-[0-9]+",
				When: `identity.age < duration("8h") && cidr("10.0.0.0/8").containsIP(source.address)`, Hours: []string{"mon-fri 08:00-19:00 UTC"}, Approve: configs.Approve{Auto: true}},
			{Name: "own", Groups: []string{"own"}, Accounts: []string{"app@orders"}, MaxDuration: hours(1), Approve: configs.Approve{Stages: []configs.Stage{{Name: "1", Groups: []string{"leads"}, Count: 1}, {Name: "2", Groups: []string{"sec", "dba"}, Count: 2}}}},
			{Name: "frozen", Effect: configs.Forbid, Accounts: []string{"*@*"}, When: `request.time >= timestamp("2026-12-18T00:00:00Z")`},
		},
	}
	policies := compiled(t, c.Policies...)
	for _, tt := range []struct{ test, got, fails string }{
		{`{identity: {groups: [eng]}, account: app@orders, ticket: OPS-1, source: 10.0.0.1, expect: permit on duty}`, "permit on duty", ""},
		{`{identity: {groups: [eng], age: 9h}, account: app@orders, ticket: OPS-1, source: 10.0.0.1, expect: none}`, "none", ""},
		{`{identity: {groups: [eng]}, account: app@orders, ticket: OPS-1, expect: permit on duty}`, "none", ""},
		{`{identity: {groups: [eng]}, account: app@orders, ticket: OPS-1, source: 10.0.0.1, reason: short, expect: none}`, "none", ""},
		{`{identity: {groups: [eng]}, account: app@orders, ticket: OPS-1, source: 10.0.0.1, time: "2026-01-05T20:00:00+01:00", expect: none}`, "none", ""},
		{`{identity: {groups: [eng]}, account: app@orders, ticket: OPS-1, source: 10.0.0.1, time: "2026-12-24T10:00:00Z", expect: forbid frozen}`, "forbid frozen", ""},
		{`{identity: {groups: [eng]}, account: app@orders, ticket: OPS-1, source: 10.0.0.1, duration: 2h, expect: none}`, "none", ""},
		{`{identity: {groups: [own]}, account: app@orders, expect: permit own}`, "permit own", ""},
		{`{identity: {groups: [own]}, account: app@orders, expect: permit own, stages: [1 of leads, 2 of sec or dba]}`, "permit own, approved by 1 of leads, then 2 of sec or dba", ""},
		{`{identity: {groups: [own]}, account: app@orders, expect: permit own, stages: [1 of leads]}`, "permit own, approved by 1 of leads, then 2 of sec or dba", ""},
		{`{identity: {groups: [eng]}, account: app@orders, ticket: OPS-1, source: 10.0.0.1, expect: permit on duty, stages: [auto]}`, "permit on duty, approved by auto", ""},
		{`{account: app@orders, expect: permit}`, "", "write permit POLICY"},
		{`{account: app@orders, expect: permit nobody}`, "", `"nobody"`},
		{`{account: ro@orders, expect: none}`, "", `no account "ro"`},
		{`{account: app, expect: none}`, "", "not ACCOUNT@TARGET"},
		{`{account: app@orders, time: noon, expect: none}`, "", "time"},
		{`{account: app@orders, identity: {kind: cat}, expect: none}`, "", "identity.kind"},
	} {
		file := filepath.Join(t.TempDir(), "tests.yaml")
		if err := os.WriteFile(file, []byte("# what must hold\ntests:\n  - "+tt.test+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		tests, err := ReadTests(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := tests[0].Run(c, policies)
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) || !strings.HasPrefix(err.Error(), file+":3:") {
				t.Errorf("%s: %v", tt.test, err)
			}
			continue
		}
		if err != nil || r.Got != tt.got || r.Passed() != (r.Wanted() == tt.got) {
			t.Errorf("%s: %s, %v", tt.test, r.Got, err)
		}
	}
	// What stands beside the request itself: evidence, the strength of the sign-in, a later start, an emergency.
	c.Evidence = []configs.Evidence{{Name: "oncall"}, {Name: "job"}}
	c.Policies = []configs.Policy{
		{Name: "incident", Groups: []string{"eng"}, Accounts: []string{"app@orders"}, MaxDuration: hours(1), Evidence: []string{"oncall"}, When: `identity.subject in evidence.oncall.subjects && evidence.oncall.level <= 1`,
			SignIn: configs.SignIn{MaxAge: hours(8), AMR: []string{"hwk"}, ACR: []string{"phr"}}, Ahead: hours(24), Approve: configs.Approve{Auto: true}},
		{Name: "glass", BreakGlass: true, Groups: []string{"eng"}, Accounts: []string{"app@orders"}, MaxDuration: hours(1), Approve: configs.Approve{Auto: true}, Review: configs.Review{Groups: []string{"sec"}}},
		{Name: "job runs", Effect: configs.Forbid, Groups: []string{"ops"}, Accounts: []string{"app@orders"}, Evidence: []string{"job"}, When: `evidence.job.state == "running"`},
	}
	policies, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	const me = `identity: {groups: [eng], subject: u1, amr: [pwd, hwk], acr: phr}`
	for _, tt := range []struct{ test, got, fails string }{
		{`{` + me + `, account: app@orders, evidence: {oncall: {subjects: [u1], level: 1}}, expect: permit incident}`, "permit incident", ""},
		{`{` + me + `, account: app@orders, evidence: {oncall: {subjects: [u2], level: 1}}, expect: none}`, "none", ""},
		{`{` + me + `, account: app@orders, evidence: {oncall: {subjects: [u1], level: 2}}, expect: none}`, "none", ""},
		{`{` + me + `, account: app@orders, evidence: {oncall: null}, expect: none}`, "none", ""},
		{`{` + me + `, account: app@orders, expect: none}`, "none", ""},
		{`{identity: {groups: [eng], subject: u1, amr: [pwd], acr: phr}, account: app@orders, evidence: {oncall: {subjects: [u1], level: 1}}, expect: none}`, "none", ""},
		{`{identity: {groups: [eng], subject: u1, amr: [hwk], acr: low}, account: app@orders, evidence: {oncall: {subjects: [u1], level: 1}}, expect: none}`, "none", ""},
		{`{identity: {groups: [eng], subject: u1, amr: [hwk], acr: phr, age: 9h}, account: app@orders, evidence: {oncall: {subjects: [u1], level: 1}}, expect: none}`, "none", ""},
		{`{` + me + `, account: app@orders, start: "2026-01-06T11:00:00Z", evidence: {oncall: {subjects: [u1], level: 1}}, expect: permit incident}`, "permit incident", ""},
		{`{` + me + `, account: app@orders, start: "2026-01-07T12:00:00Z", evidence: {oncall: {subjects: [u1], level: 1}}, expect: none}`, "none", ""},
		{`{identity: {groups: [eng]}, account: app@orders, break_glass: true, expect: permit glass}`, "permit glass", ""},
		{`{identity: {groups: [ops, eng]}, account: app@orders, expect: forbid job runs}`, "forbid job runs", ""}, // what can't be read forbids
		{`{identity: {groups: [ops, eng]}, account: app@orders, evidence: {job: {state: done}}, expect: none}`, "none", ""},
		{`{identity: {groups: [ops, eng]}, account: app@orders, break_glass: true, expect: permit glass}`, "permit glass", ""},
		{`{account: app@orders, evidence: {nothing: {}}, expect: none}`, "", `evidence "nothing"`},
		{`{account: app@orders, start: soon, expect: none}`, "", "start"},
	} {
		file := filepath.Join(t.TempDir(), "tests.yaml")
		if err := os.WriteFile(file, []byte("tests:\n  - "+tt.test+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		tests, err := ReadTests(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := tests[0].Run(c, policies)
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: %v", tt.test, err)
			}
			continue
		}
		if err != nil || r.Got != tt.got || !r.Passed() {
			t.Errorf("%s: %s, %v; %s", tt.test, r.Got, err, r.Explanation.Detail())
		}
	}
	for _, text := range []string{"tests: []\n", "test: []\n", "tests:\n  - {acount: x}\n", "tests: [\n"} {
		file := filepath.Join(t.TempDir(), "tests.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if tests, err := ReadTests(file); err == nil || !strings.HasPrefix(err.Error(), file) {
			t.Errorf("%q reads as %+v, %v", text, tests, err)
		}
	}
}
