package ssh

import (
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

// limits are what the grant's role allows at this moment; a configuration read anew can have narrowed them.
func (l *link) limits() configs.SSHLimits { return l.session.Opening().Lease.Limits().SSH }

// mayRun decides about a shell, exec or subsystem by the role's limits. Whether something is recorded is not decided here:
// everything is.
func (l *link) mayRun(r *xssh.Request) *refusal.Refusal {
	limits := l.limits()
	var line struct{ Value string }
	if r.Type != "shell" && xssh.Unmarshal(r.Payload, &line) != nil {
		return refusal.New(refusal.NotPermitted, "malformed %s request", r.Type)
	}
	if reason := runs(limits, r.Type, line.Value); reason != "" {
		no := refusal.New(refusal.NotPermitted, "%s allows %s", l.connection.address, reason)
		if len(limits.Commands) > 0 && limits.Commands[0] != configs.NoCommand {
			no = no.WithDetail("only: %s", strings.Join(limits.Commands, "; "))
		}
		return no
	}
	return nil
}

// runs is what the limits do not allow of a request, in words; empty: it may go on.
func runs(limits configs.SSHLimits, request, line string) string {
	if len(limits.Commands) > 0 {
		switch {
		case request == "exec" && line != configs.NoCommand && slices.Contains(limits.Commands, line):
			return ""
		case request == "exec":
			return "not this command"
		default:
			return "nothing but certain commands"
		}
	}
	switch {
	case request == "shell":
		if !configs.On(limits.Shell, true) {
			return "no shell"
		}
	case request == "subsystem" && line == "sftp":
		if !configs.On(limits.SFTP, true) {
			return "no sftp, and no scp that uses it"
		}
	case request == "exec" && copies(line):
		if !configs.On(limits.SCP, true) {
			return "no scp and no rsync"
		}
		if !configs.On(limits.Exec, true) && !plainSCP.MatchString(line) {
			return "no commands"
		}
	default:
		if !configs.On(limits.Exec, true) {
			return "no commands"
		}
	}
	return ""
}

// copies says that the command is the far end of scp or rsync. Somebody who may run commands can copy in other ways too;
// the limit is a rail for them, not a wall.
func copies(line string) bool {
	words := strings.Fields(line)
	if len(words) < 2 {
		return false
	}
	switch path.Base(words[0]) {
	case "scp":
		return slices.ContainsFunc(words[1:], func(w string) bool {
			return strings.HasPrefix(w, "-") && strings.ContainsAny(w, "tf")
		})
	case "rsync":
		return slices.Contains(words[1:], "--server")
	}
	return false
}

// plainSCP is scp's far end and certainly nothing else: for roles that may copy and not run commands, so it knows no
// character in which a shell sees more than a name.
var plainSCP = regexp.MustCompile(`^scp( -[vrpdq]+)* -[tf]( --)? [A-Za-z0-9_./~@%+=:,][A-Za-z0-9_./~@%+=:,-]*$`)

// agentAllowed says whether the user's agent may be forwarded.
func (l *link) agentAllowed() bool {
	limits := l.limits()
	return len(limits.Commands) == 0 && configs.On(limits.Agent, false)
}

// forwards says whether any kind of forwarding is allowed.
func (l *link) forwards() bool {
	limits := l.limits()
	return len(limits.Commands) == 0 &&
		(l.account.Forwarding || len(limits.Forward) > 0 || limits.DynamicForward || limits.RemoteForward || limits.UnixSockets)
}

// mayForward says whether connections from the target to host:port are allowed. On the wire -L and -D are the same, so a
// role with dynamic forwarding may go anywhere.
func (l *link) mayForward(host string, port int) bool {
	limits := l.limits()
	if len(limits.Commands) > 0 {
		return false
	}
	return l.account.Forwarding || limits.DynamicForward ||
		slices.ContainsFunc(limits.Forward, func(pattern string) bool { return forwardMatches(pattern, host, port) })
}

// forwardMatches matches host:port with a pattern in which either side may be "*", and the host may begin or end in it. At the end
// it stands for the rest of an address, or of a name up to its next dot.
func forwardMatches(pattern, host string, port int) bool {
	i := strings.LastIndex(pattern, ":")
	if i < 0 {
		return false
	}
	wantHost, wantPort := strings.ToLower(strings.Trim(pattern[:i], "[]")), pattern[i+1:]
	if wantPort != "*" && wantPort != strconv.Itoa(port) {
		return false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	switch {
	case wantHost == "*" || wantHost == host:
		return true
	case strings.HasPrefix(wantHost, "*"):
		return strings.HasSuffix(host, wantHost[1:])
	case strings.HasSuffix(wantHost, "*"):
		// 10.0.* is a network, not the beginning of a name such as 10.0.evil.example.
		prefix := wantHost[:len(wantHost)-1]
		if strings.Trim(prefix, "0123456789.") == "" {
			return net.ParseIP(host) != nil && strings.HasPrefix(host, prefix)
		}
		// db-* are hosts, and not what anybody can have of that beginning in a zone of their own.
		rest, ok := strings.CutPrefix(host, prefix)
		return ok && !strings.Contains(rest, ".")
	}
	return false
}
