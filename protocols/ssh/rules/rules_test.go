package rules

import (
	"strings"
	"testing"

	"sallyport/configs"
)

func TestRuns(t *testing.T) {
	off := false
	for name, test := range map[string]struct {
		limits        configs.SSHLimits
		request, line string
		want          bool
	}{
		"default shell":                 {configs.SSHLimits{}, "shell", "", true},
		"default exec":                  {configs.SSHLimits{}, "exec", "id", true},
		"default sftp":                  {configs.SSHLimits{}, "subsystem", "sftp", true},
		"default scp":                   {configs.SSHLimits{}, "exec", "scp -t /tmp", true},
		"no shell":                      {configs.SSHLimits{Shell: &off}, "shell", "", false},
		"no shell, command":             {configs.SSHLimits{Shell: &off}, "exec", "id", true},
		"no exec":                       {configs.SSHLimits{Exec: &off}, "exec", "id", false},
		"no exec, empty":                {configs.SSHLimits{Exec: &off}, "exec", "", false},
		"no exec, shell":                {configs.SSHLimits{Exec: &off}, "shell", "", true},
		"no exec, other subsystem":      {configs.SSHLimits{Exec: &off}, "subsystem", "netconf", false},
		"no exec, scp":                  {configs.SSHLimits{Exec: &off}, "exec", "scp -r -p -t -- /tmp/x", true},
		"no exec, scp and more":         {configs.SSHLimits{Exec: &off}, "exec", "scp -t /tmp; id", false},
		"no exec, scp and more lines":   {configs.SSHLimits{Exec: &off}, "exec", "scp -t /tmp\nid", false},
		"no exec, scp with a program":   {configs.SSHLimits{Exec: &off}, "exec", "scp -S /tmp/x -t /tmp", false},
		"no exec, scp substituting":     {configs.SSHLimits{Exec: &off}, "exec", "scp -t $(id)", false},
		"no exec, another scp":          {configs.SSHLimits{Exec: &off}, "exec", "/tmp/scp -t /tmp", false},
		"no exec, rsync":                {configs.SSHLimits{Exec: &off}, "exec", "rsync --server . x", false},
		"no sftp":                       {configs.SSHLimits{SFTP: &off}, "subsystem", "sftp", false},
		"no scp":                        {configs.SSHLimits{SCP: &off}, "exec", "scp -f /etc/passwd", false},
		"no scp, combined flags":        {configs.SSHLimits{SCP: &off}, "exec", "scp -rpt /etc", false},
		"no scp, by path":               {configs.SSHLimits{SCP: &off}, "exec", "/usr/bin/scp -v -t /etc", false},
		"no scp, rsync":                 {configs.SSHLimits{SCP: &off}, "exec", "rsync --server --sender . x", false},
		"no scp, command":               {configs.SSHLimits{SCP: &off}, "exec", "scp", true},
		"certain command":               {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "systemctl restart shop", true},
		"certain command and more":      {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "systemctl restart shop; id", false},
		"certain command and a blank":   {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "systemctl restart shop ", false},
		"certain command, shell":        {configs.SSHLimits{Commands: []string{"x"}}, "shell", "", false},
		"certain command, sftp":         {configs.SSHLimits{Commands: []string{"sftp"}}, "subsystem", "sftp", false},
		"certain command, scp":          {configs.SSHLimits{Commands: []string{"x"}}, "exec", "scp -t /tmp", false},
		"certain command, in quotes":    {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "'systemctl' restart shop", false},
		"certain command, variable":     {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "LD_PRELOAD=/tmp/x systemctl restart shop", false},
		"certain command, by env":       {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "env systemctl restart shop", false},
		"certain command, NUL":          {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "systemctl restart shop\x00", false},
		"certain command, line":         {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "exec", "systemctl restart shop\nid", false},
		"certain command, subsystem":    {configs.SSHLimits{Commands: []string{"systemctl restart shop"}}, "subsystem", "systemctl restart shop", false},
		"certain command named like it": {configs.SSHLimits{Commands: []string{""}}, "shell", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			if reason := Runs(test.limits, test.request, test.line); (reason == "") != test.want {
				t.Errorf("%q", reason)
			}
		})
	}
}

func TestForwardMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, host string
		port          int
		want          bool
	}{
		{"db.example:5432", "db.example", 5432, true},
		{"db.example:5432", "DB.example.", 5432, true},
		{"db.example:5432", "db.example", 5433, false},
		{"db.example:*", "db.example", 1, true},
		{"*:5432", "anything", 5432, true},
		{"*.example:80", "a.example", 80, true},
		{"*.example:80", "aexample", 80, false},
		{"10.0.*:80", "10.0.1.2", 80, true},
		{"10.0.*:80", "10.0.evil.example", 80, false},
		{"db-*:80", "db-7", 80, true},
		{"db-*:80", "db-7.evil.example", 80, false},
		{"db.*:80", "db.internal", 80, true},
		{"db.*:80", "db.evil.example", 80, false},
		{"fd00:*:80", "fd00::7", 80, true},
		{"[::1]:80", "::1", 80, true},
		{"nonsense", "nonsense", 80, false},
	} {
		if got := ForwardMatches(test.pattern, test.host, test.port); got != test.want {
			t.Errorf("%s with %s:%d: %v", test.pattern, test.host, test.port, got)
		}
	}
}

func TestVariable(t *testing.T) {
	for name, want := range map[string]bool{
		"LANG": true, "LC_ALL": true, "LC_CTYPE": true, "TERM": true, "COLORTERM": true,
		"": false, "LC_": false, "LC_a": false, "LC_ALL=x": false, "LC_A\x00": false, "LC_A\nB": false, "LANGUAGE": false,
		"APP_ENV": true, "APP_EN": false, "LD_PRELOAD": false, "BASH_ENV": false, "GIT_SSH_COMMAND": false, "PATH": false, "LC_" + strings.Repeat("A", 65): false,
	} {
		if got := Variable(name, []string{"APP_ENV"}); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestOwnSSH(t *testing.T) {
	for _, test := range []struct {
		address, host string
		port          int
		want          bool
	}{
		{"10.0.0.1:22", "localhost", 22, true},
		{"10.0.0.1:2222", "127.0.0.1", 2222, true},
		{"10.0.0.1:2222", "::1", 22, true},
		{"10.0.0.1:22", "0.0.0.0", 22, true},
		{"10.0.0.1:22", "LOCALHOST.", 22, true},
		{"10.0.0.1:22", "127.0.0.1", 5432, false},
		{"10.0.0.1:22", "db", 22, false},
	} {
		if got := OwnSSH(test.address, test.host, test.port); got != test.want {
			t.Errorf("%s:%d from %s: %v", test.host, test.port, test.address, got)
		}
	}
}
