package configs

import (
	"strings"
	"testing"
)

const withRoles = good + `roles:
  - name: look
    accounts: ["app@orders"]
    limits: {read_only: true, guardrails: [drop]}
  - name: restart
    accounts: ["deploy@web-*"]
    limits:
      ssh:
        agent: true
        commands: ["systemctl restart shop"]
        terminal: true
        multiplex: false
        forward: ["db:5432"]
`

func TestRolesAreChecked(t *testing.T) {
	ok := strings.Replace(strings.Replace(withRoles, "        agent: true\n", "", 1), "        forward: [\"db:5432\"]\n", "", 1)
	ok = strings.Replace(ok, `    accounts: ["app@orders", "*@web-*"]`, `    roles: [look, restart]`, 1)
	c, err := Load(write(t, with(ok)))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Roles) != 2 || !c.Roles[0].Limits.ReadOnly || c.Roles[1].Limits.SSH.Commands[0] != "systemctl restart shop" {
		t.Fatalf("%+v", c.Roles)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"what commands exclude", withRoles, "agent goes not with commands"},
		{"what commands exclude too", withRoles, "sallyport.yaml:45:18: forward goes not with commands"},
		{"a guardrail", strings.Replace(ok, "[drop]", "[drop, drip]", 1), `:36:50: unknown guardrail "drip"; they are: drop`},
		{"an account", strings.Replace(ok, `["app@orders"]`, `["nobody@orders"]`, 1), `target orders has no account "nobody"`},
		{"a role that is none", strings.Replace(ok, "roles: [look, restart]", "roles: [look, rest]", 1), `:26:19: there is no role "rest"`},
		{"a role twice", strings.Replace(ok, "name: restart", "name: look", 1), `there is another role named "look"`},
		{"forward", strings.Replace(ok, `commands: ["systemctl restart shop"]`, `forward: ["db"]`, 1), `"db" is not host:port`},
		{"variables and commands", strings.Replace(ok, "        terminal: true\n", "        environment: [APP_ENV]\n", 1), "environment goes not with commands"},
		{"a variable that runs programs", strings.Replace(ok, `commands: ["systemctl restart shop"]`, `environment: [APP_ENV, LD_PRELOAD]`, 1), ":41:32: LD_PRELOAD makes programs run others"},
		{"no name of a variable", strings.Replace(ok, `commands: ["systemctl restart shop"]`, `environment: ["A=B"]`, 1), `"A=B" is not the name of a variable`},
		{"an unknown limit", strings.Replace(ok, "read_only", "readonly", 1), `unknown key "readonly"`},
		{"what forbids", strings.Replace(ok, "    groups: [engineers]\n", "    groups: [engineers]\n    effect: forbid\n", 1), "roles is not for policies with effect: forbid"},
	} {
		_, err := Load(write(t, with(tt.text)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestLimitsOnlyNarrow(t *testing.T) {
	on, off := true, false
	wide := RoleLimits{SSH: SSHLimits{Agent: &on, Forward: []string{"a:1", "b:2"}, RemoteForward: true}}
	tight := RoleLimits{ReadOnly: true, Guardrails: []string{"drop"}, SSH: SSHLimits{Shell: &off, Forward: []string{"b:2"}}}
	for _, n := range []RoleLimits{wide.Narrow(tight), tight.Narrow(wide)} {
		if !n.ReadOnly || len(n.Guardrails) != 1 || On(n.SSH.Shell, true) || On(n.SSH.Agent, false) || n.SSH.RemoteForward ||
			strings.Join(n.SSH.Forward, " ") != "b:2" {
			t.Errorf("%+v", n)
		}
	}
	one, two := SSHLimits{Commands: []string{"a", "b"}}, SSHLimits{Commands: []string{"b"}}
	if got := one.narrow(two); strings.Join(got.Commands, " ") != "b" {
		t.Errorf("%+v", got)
	}
	if got := two.narrow(SSHLimits{}); strings.Join(got.Commands, " ") != "b" {
		t.Errorf("%+v", got)
	}
	// No command in common must not come to mean any command.
	if got := one.narrow(SSHLimits{Commands: []string{"c"}}); On(got.Exec, true) || On(got.Shell, true) || On(got.SFTP, true) || On(got.SCP, true) || len(got.Commands) == 0 {
		t.Errorf("%+v", got)
	}
	if got := (RoleLimits{}).Narrow(RoleLimits{}); !got.IsZero() {
		t.Errorf("%+v", got)
	}
	commands := SSHLimits{Commands: []string{"a"}}
	for _, tt := range []struct {
		a, b SSHLimits
		want bool // a terminal
	}{
		{SSHLimits{}, SSHLimits{}, true},
		{SSHLimits{}, SSHLimits{Terminal: &off}, false},
		{commands, SSHLimits{}, false},
		{commands, SSHLimits{Terminal: &on}, false},
		{SSHLimits{Terminal: &on}, SSHLimits{Commands: commands.Commands, Terminal: &on}, true},
	} {
		for _, got := range []SSHLimits{tt.a.narrow(tt.b), tt.b.narrow(tt.a)} {
			if got.TerminalOn() != tt.want {
				t.Errorf("%+v and %+v: %+v", tt.a, tt.b, got)
			}
		}
	}
	more := SSHLimits{Environment: []string{"A", "B"}}
	if got := more.narrow(SSHLimits{Environment: []string{"B"}, Multiplex: &off}); strings.Join(got.Environment, " ") != "B" || On(got.Multiplex, true) {
		t.Errorf("%+v", got)
	}
	if got := more.narrow(SSHLimits{}); len(got.Environment) > 0 {
		t.Errorf("%+v", got)
	}
	if words := strings.Join((RoleLimits{SSH: SSHLimits{Commands: []string{"a"}, Terminal: &on, Multiplex: &off}}).Words(), ", "); words != "only: a, on a terminal, one session a connection" {
		t.Error(words)
	}
}
