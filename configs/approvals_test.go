package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApprovalsAndForbid(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cert.pem", "key.pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const base = `state: state
url: https://gateway.example
listen: {https: "127.0.0.1:0"}
tls: {certificate: cert.pem, key: key.pem}
provider: {issuer: https://login.example, client_id: x}
`
	const permit = `policies: [{name: p, groups: [g], accounts: ["*@*"], max_duration: 1h, approve: {auto: true}, `
	for text, want := range map[string]string{
		`approvals: {people: [{subject: s, email: a@b.c}], webhooks: [{name: w, url: "https://x.example", secret: "env:A", decision_secret: "env:B"}]}`: "",
		`approvals: {people: [{email: a@b.c}]}`:                                                                               "subject is missing",
		`approvals: {people: [{subject: s}]}`:                                                                                 "email, slack, jira and also are missing",
		`approvals: {people: [{subject: s, email: a@b.c}, {subject: t, email: A@b.c}]}`:                                       "linked to subject s already",
		`approvals: {people: [{subject: s, also: ["https://p.example 4711", "https://p.example a b"]}]}`:                      "",
		`approvals: {people: [{subject: s, also: [4711]}]}`:                                                                   "is no identity",
		`approvals: {people: [{subject: s, also: ["https://p.example 1"]}, {subject: t, also: ["https://p.example 1"]}]}`:     "is linked already",
		`approvals: {people: [{subject: s, also: ["https://p.example 1"]}, {subject: t, also: ["https://login.example s"]}]}`: "is linked already",
		`approvals: {people: [{subject: s, also: ["https://login.example s"]}]}`:                                              "is linked already",
		`workloads: [{name: w, preset: kubernetes, claims: [a, a]}]`:                                                          "no claim's name",
		`approvals: {webhooks: [{name: W, url: "https://x.example", secret: "env:A"}]}`:                                       "lower-case",
		`approvals: {webhooks: [{name: w, url: "http://x.example", secret: "env:A"}]}`:                                        "https:// address",
		`approvals: {webhooks: [{name: w, url: "https://u:p@x.example", secret: "env:A"}]}`:                                   "https:// address",
		`approvals: {webhooks: [{name: w, url: "https://x.example"}]}`:                                                        "secret is missing",
		`approvals: {webhooks: [{name: w, url: "https://x.example", secret: hunter2}]}`:                                       "not a reference",
		`approvals: {webhooks: [{name: w, url: "https://x.example", secret: "env:A", decision_secret: "env:A"}]}`:             "is the same as secret",
		`approvals: {webhooks: [{name: w, url: "https://x.example", secret: "env:A", events: [never]}]}`:                      "unknown event",
		permit + `hours: ["mon-fri 08:00-19:00 Europe/Berlin"], ticket: "OPS-[0-9]+", max_total: 2h, idle: 5m}]`:              "",
		permit + `hours: [daily]}]`:  "are no hours",
		permit + `ticket: "["}]`:     "no regular expression",
		permit + `ticket: "a)|(b"}]`: "no regular expression",
		permit + `max_total: 30m}]`:  "shorter than max_duration",
		permit + `message: no}]`:     "message is for",
		permit + `effect: maybe}]`:   "it is permit",
		`policies: [{name: p, effect: forbid, accounts: ["*@*"], message: "Not now."}]`:    "",
		`policies: [{name: p, effect: forbid, accounts: ["*@*"], max_duration: 1h}]`:       "which give nothing",
		`policies: [{name: p, effect: forbid, accounts: ["*@*"], approve: {groups: [g]}}]`: "which give nothing",
		`policies: [{name: p, effect: forbid}]`:                                            "accounts is missing",
	} {
		file := filepath.Join(dir, "sallyport.yaml")
		if err := os.WriteFile(file, []byte(base+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), file+":6:") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s:\n\t%v, want %q", text, err, want)
		}
	}
}

func TestSlackIsChecked(t *testing.T) {
	const ok = good + `approvals:
  people:
    - {subject: "1", slack: T012AB3C4/U061F7AUR}
  slack:
    - {name: ops, app_token: "env:A", bot_token: "env:B", channel: C024BE91L, channels: [{groups: [security], channel: C024BE92M}]}
`
	c, err := Load(write(t, with(ok)))
	if err != nil || c.Approvals.Slack[0].API != "https://slack.com/api/" {
		t.Fatal(c, err)
	}
	for _, tt := range []struct{ old, new, want string }{
		{"T012AB3C4/U061F7AUR", "bob", "write the ids of workspace and member"},
		{`, slack: T012AB3C4/U061F7AUR`, "", "email, slack, jira and also are missing"},
		{`app_token: "env:A", `, "", "app_token is missing"},
		{`"env:B"`, `"xoxb-1"`, "not a reference to a secret"},
		{"C024BE91L", "approvals", "write the channel's id"},
		{"groups: [security], ", "", "it has groups"},
		{"name: ops", "name: Ops!", "lower-case letters"},
	} {
		_, err := Load(write(t, with(strings.Replace(ok, tt.old, tt.new, 1))))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.new, err, tt.want)
		}
	}
}

// What other systems are asked is checked: whom, by what, and who counts for them.
func TestEvidenceIsChecked(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cert.pem", "key.pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const base = `state: state
url: https://gateway.example
listen: {https: "127.0.0.1:0"}
tls: {certificate: cert.pem, key: key.pem}
provider: {issuer: https://login.example, client_id: x}
approvals: {jira: [{name: acme, url: "https://jira.example", token: "env:A", projects: [OPS]}]}
evidence:
`
	for text, want := range map[string]string{
		`{name: ticket, kind: ticket, jira: acme, approved_status: [Approved, "10001"], approved_by: [leads]}`: "",
		`{name: ticket, jira: acme, approved_status: [Approved]}`:                                              "approved_status and approved_by go together",
		`{name: ticket, jira: acme, approved_by: [leads]}`:                                                     "approved_status and approved_by go together",
		`{name: ticket, url: "https://x.example", approved_status: [A], approved_by: [g]}`:                     "is for issues in Jira",
		`{name: ticket, jira: other}`:                                                                          `no site "other"`,
		`{name: ticket, jira: acme, file: /x}`:                                                                 "read from one of",
		`{name: ticket}`:                                                                                       "read from one of",
		`{name: Ticket, file: /x}`:                                                                             "lower-case",
		`{name: a, file: /x}, {name: a, file: /y}`:                                                             `other evidence named "a"`,
		`{name: a, url: "http://x.example/{subject}"}`:                                                         "https:// address",
		`{name: a, url: "https://{target}.example/"}`:                                                          "must not choose the host",
		`{name: a, url: "https://x.example/{secret}"}`:                                                         "{secret} stands for nothing",
		`{name: a, url: "https://x.example/{subject}?t={ticket}"}`:                                             "",
		`{name: a, url: "https://x.example/", key: x}`:                                                         "key is for a file",
		`{name: a, file: /x, token: "env:A"}`:                                                                  "token and ca go with url",
		`{name: a, url: "https://x.example/", token: hunter2}`:                                                 "not a reference",
		`{name: a, file: /x, kind: mood}`:                                                                      `kind is "mood"`,
		`{name: a, file: /x, every: 1s}`:                                                                       "every is 1s",
		`{name: a, file: /x, tolerance: 2h}`:                                                                   "tolerance is 2h",
		`{name: a, file: /x, key: "{target}", until: until, every: 30s}`:                                       "",
	} {
		file := filepath.Join(dir, "sallyport.yaml")
		if err := os.WriteFile(file, []byte(base+"  ["+text+"]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), file+":8:") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s:\n\t%v, want %q", text, err, want)
		}
	}
}
