package configs

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Role bundles what may be done: accounts on targets, with their limits. Policies give roles to groups.
type Role struct {
	Name string `yaml:"name" json:"name"`
	// Accounts are ACCOUNT@TARGET, where either side may be "*" or begin or end in "*"; Labels further narrows the targets.
	Accounts []string          `yaml:"accounts" json:"accounts"`
	Labels   map[string]string `yaml:"labels" json:"labels,omitempty"`
	Limits   RoleLimits        `yaml:"limits" json:"limits,omitzero"`
}

// RoleLimits are what a session may not do, though its account could. The zero value are the defaults.
type RoleLimits struct {
	// ReadOnly keeps Postgres sessions in read-only transactions. It is a seat belt: privileges on the target enforce.
	ReadOnly bool `yaml:"read_only" json:"read_only,omitempty"`
	// Guardrails are classes of statements that are refused (Postgres), of the list Guardrails.
	Guardrails []string  `yaml:"guardrails" json:"guardrails,omitempty"`
	SSH        SSHLimits `yaml:"ssh" json:"ssh,omitzero"`
}

// Guardrails are the classes of statements that a role can refuse.
var Guardrails = []string{
	"drop", "truncate", "update-without-where", "delete-without-where", "ddl", "copy-program", "roles",
}

// SSHLimits are the features of SSH that a role has. Of the pointers nil is the default: all on but Agent, and but Terminal where
// there are Commands.
type SSHLimits struct {
	Shell *bool `yaml:"shell" json:"shell,omitempty"`
	Exec  *bool `yaml:"exec" json:"exec,omitempty"`
	SFTP  *bool `yaml:"sftp" json:"sftp,omitempty"`
	SCP   *bool `yaml:"scp" json:"scp,omitempty"`
	Agent *bool `yaml:"agent" json:"agent,omitempty"`
	// Terminal is whether a session may have a terminal. A command that was meant to do one thing can do others on one: a pager
	// that it starts takes commands. So with Commands the default is off.
	Terminal *bool `yaml:"terminal" json:"terminal,omitempty"`
	// Multiplex is whether one connection may carry more than one session (ControlMaster), one after the other or at once.
	Multiplex *bool `yaml:"multiplex" json:"multiplex,omitempty"`
	// Environment are names of variables that a client may set beside LANG, LC_*, TERM and COLORTERM.
	Environment []string `yaml:"environment" json:"environment,omitempty"`
	// Commands are exact lines that may be executed: when there are any, only these, and nothing else at all (no shell, no
	// other command, no subsystem).
	Commands []string `yaml:"commands" json:"commands,omitempty"`
	// Forward are host:port patterns to which connections may be forwarded (-L); either side may be "*", the host may begin or
	// end in "*", at the end for the rest of an address or of a name up to its next dot. None: none may.
	Forward        []string `yaml:"forward" json:"forward,omitempty"`
	RemoteForward  bool     `yaml:"remote_forward" json:"remote_forward,omitempty"`
	UnixSockets    bool     `yaml:"unix_sockets" json:"unix_sockets,omitempty"`
	DynamicForward bool     `yaml:"dynamic_forward" json:"dynamic_forward,omitempty"`
}

// NoCommand stands in SSHLimits.Commands where no command is left. It is never one.
const NoCommand = ""

// On is what one of the features of SSHLimits is, given its default.
func On(feature *bool, otherwise bool) bool {
	if feature == nil {
		return otherwise
	}
	return *feature
}

// TerminalOn reports whether a session may have a terminal.
func (l SSHLimits) TerminalOn() bool { return On(l.Terminal, len(l.Commands) == 0) }

// IsZero reports whether nothing is limited beyond the defaults.
func (l RoleLimits) IsZero() bool {
	return !l.ReadOnly && len(l.Guardrails) == 0 && l.SSH.IsZero()
}

// IsZero reports whether nothing differs from the defaults.
func (l SSHLimits) IsZero() bool {
	return l.Shell == nil && l.Exec == nil && l.SFTP == nil && l.SCP == nil && l.Agent == nil && l.Terminal == nil && l.Multiplex == nil &&
		len(l.Environment) == 0 && len(l.Commands) == 0 && len(l.Forward) == 0 && !l.RemoteForward && !l.UnixSockets && !l.DynamicForward
}

// Narrow is what both l and other allow: a grant keeps the limits that it was given with, and a configuration read since
// can take from them but add nothing.
func (l RoleLimits) Narrow(other RoleLimits) RoleLimits {
	return RoleLimits{
		ReadOnly:   l.ReadOnly || other.ReadOnly,
		Guardrails: union(l.Guardrails, other.Guardrails),
		SSH:        l.SSH.narrow(other.SSH),
	}
}

func (l SSHLimits) narrow(other SSHLimits) SSHLimits {
	both := SSHLimits{
		Shell: and(l.Shell, other.Shell, true), Exec: and(l.Exec, other.Exec, true), SFTP: and(l.SFTP, other.SFTP, true),
		SCP: and(l.SCP, other.SCP, true), Agent: and(l.Agent, other.Agent, false),
		Multiplex: and(l.Multiplex, other.Multiplex, true), Environment: intersection(l.Environment, other.Environment),
		Commands: l.Commands, Forward: intersection(l.Forward, other.Forward),
		RemoteForward: l.RemoteForward && other.RemoteForward, UnixSockets: l.UnixSockets && other.UnixSockets,
		DynamicForward: l.DynamicForward && other.DynamicForward,
	}
	if l.Terminal != nil || other.Terminal != nil { // what nil stands for depends on whose it is
		terminal := l.TerminalOn() && other.TerminalOn()
		both.Terminal = &terminal
	}
	switch {
	case len(l.Commands) == 0:
		both.Commands = other.Commands
	case len(other.Commands) > 0:
		if both.Commands = intersection(l.Commands, other.Commands); len(both.Commands) == 0 {
			// No command is left, but none at all would mean any, and let an account forward that may: so it is one that
			// can't be written.
			off := false
			return SSHLimits{Shell: &off, Exec: &off, SFTP: &off, SCP: &off, Agent: &off, Commands: []string{NoCommand}}
		}
	}
	return both
}

func and(a, b *bool, otherwise bool) *bool {
	if a == nil && b == nil {
		return nil
	}
	on := On(a, otherwise) && On(b, otherwise)
	return &on
}

func union(a, b []string) []string {
	all := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}

func intersection(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(x string) bool { return !slices.Contains(b, x) })
}

// Words says in short what the limits are, for people; empty where there are none.
func (l RoleLimits) Words() []string {
	var words []string
	add := func(is bool, word string) {
		if is {
			words = append(words, word)
		}
	}
	add(l.ReadOnly, "read only")
	if len(l.Guardrails) > 0 {
		words = append(words, "not: "+strings.Join(l.Guardrails, ", "))
	}
	s := l.SSH
	if len(s.Commands) > 0 {
		if s.Commands[0] == NoCommand {
			return append(words, "no command")
		}
		words = append(words, "only: "+strings.Join(s.Commands, "; "))
		add(s.TerminalOn(), "on a terminal")
		add(!On(s.Multiplex, true), "one session a connection")
		return words
	}
	add(!On(s.Shell, true), "no shell")
	add(!On(s.Exec, true), "no commands")
	add(!On(s.SFTP, true), "no sftp")
	add(!On(s.SCP, true), "no scp")
	add(!s.TerminalOn(), "no terminal")
	add(!On(s.Multiplex, true), "one session a connection")
	if len(s.Environment) > 0 {
		words = append(words, "variables "+strings.Join(s.Environment, ", "))
	}
	add(On(s.Agent, false), "agent forwarding")
	if len(s.Forward) > 0 {
		words = append(words, "forwarding to "+strings.Join(s.Forward, ", "))
	}
	add(s.RemoteForward, "remote forwarding")
	add(s.UnixSockets, "unix sockets")
	add(s.DynamicForward, "dynamic forwarding")
	return words
}

const (
	maxCommands = 100  // of a role
	maxCommand  = 1000 // bytes of one

	maxVariables = 100 // of a role
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// runsPrograms says that a variable of that name makes programs run others, or is the gateway's own, so no client sets it. The list
// is of the well-known ones; who adds a name to a role answers for it.
func runsPrograms(name string) bool {
	switch name {
	case "PATH", "IFS", "ENV", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "PS4", "PROMPT_COMMAND", "SHELL", "HOME", "CDPATH", "EDITOR", "VISUAL", "PAGER", "BROWSER",
		"LESSOPEN", "LESSCLOSE", "MANPAGER", "SYSTEMD_PAGER", "NODE_OPTIONS", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "TERMINFO",
		"TERMINFO_DIRS", "TERMCAP", "LOCPATH", "NLSPATH", "GCONV_PATH", "HOSTALIASES", "RES_OPTIONS", "LOCALDOMAIN", "TMPDIR", "SUDO_ASKPASS", "SSH_ASKPASS", "SSH_AUTH_SOCK":
		return true
	}
	return slices.ContainsFunc([]string{"LD_", "DYLD_", "GIT_", "PERL", "PYTHON", "BASH_FUNC_", "SALLYPORT_"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

func validateEnvironment(at reporter, names []string) {
	if len(names) > maxVariables {
		at("limits.ssh.environment", "environment has %d names; at most %d", len(names), maxVariables)
	}
	for i, name := range names {
		where := fmt.Sprintf("limits.ssh.environment[%d]", i)
		switch {
		case !variableName.MatchString(name):
			at(where, "%q is not the name of a variable: letters, digits and _, at most 64", name)
		case runsPrograms(name):
			at(where, "%s makes programs run others, so no client may set it", name)
		}
	}
}

func (l *loader) validateRoles(c *Config) {
	names := map[string]bool{}
	for i, r := range c.Roles {
		where := l.roles[i]
		at := func(path, format string, args ...any) { l.at(where.file, where.path+"."+path, format, args...) }
		if !policyName.MatchString(r.Name) {
			at("name", "a role needs a name of letters, digits, blanks, dots and dashes, at most 63; got %q", r.Name)
		}
		if names[r.Name] {
			at("name", "there is another role named %q", r.Name)
		}
		names[r.Name] = true
		if len(r.Accounts) == 0 {
			at("accounts", "accounts is missing; write ACCOUNT@TARGET, where * stands for any")
		}
		for j, account := range r.Accounts {
			checkPattern(at, fmt.Sprintf("accounts[%d]", j), account, c.Targets)
		}
		for j, g := range r.Limits.Guardrails {
			if !slices.Contains(Guardrails, g) {
				at(fmt.Sprintf("limits.guardrails[%d]", j), "unknown guardrail %q; they are: %s", g, strings.Join(Guardrails, ", "))
			}
		}
		validateSSHLimits(at, r.Limits.SSH)
	}
}

func validateSSHLimits(at reporter, s SSHLimits) {
	if len(s.Commands) > maxCommands {
		at("limits.ssh.commands", "commands has %d lines; at most %d", len(s.Commands), maxCommands)
	}
	for i, line := range s.Commands {
		if line == "" || len(line) > maxCommand || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			at(fmt.Sprintf("limits.ssh.commands[%d]", i), "a command is one line of 1 to %d bytes, exactly as it will be sent", maxCommand)
		}
	}
	if len(s.Commands) > 0 {
		features := map[string]bool{
			"shell": On(s.Shell, false), "exec": !On(s.Exec, true), "sftp": On(s.SFTP, false), "scp": On(s.SCP, false), "agent": On(s.Agent, false),
			"environment": len(s.Environment) > 0, "forward": len(s.Forward) > 0, "remote_forward": s.RemoteForward, "unix_sockets": s.UnixSockets, "dynamic_forward": s.DynamicForward,
		}
		for _, key := range slices.Sorted(maps.Keys(features)) {
			if features[key] {
				at("limits.ssh."+key, "%s goes not with commands, which allow these lines and nothing else", key)
			}
		}
	}
	validateEnvironment(at, s.Environment)
	for i, text := range s.Forward {
		host, port, err := net.SplitHostPort(text)
		n, number := strconv.Atoi(port)
		if err != nil || host == "" || strings.ContainsAny(host, " /@,") || port != "*" && (number != nil || n < 1 || n > 65535) {
			at(fmt.Sprintf("limits.ssh.forward[%d]", i), "%q is not host:port, where * stands for any", text)
		}
	}
}
