package ssh

import (
	"slices"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/rules"
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
	if reason := rules.Runs(limits, r.Type, line.Value); reason != "" {
		no := refusal.New(refusal.NotPermitted, "%s allows %s", l.connection.address, reason)
		if len(limits.Commands) > 0 && limits.Commands[0] != configs.NoCommand {
			no = no.WithDetail("only: %s", strings.Join(limits.Commands, "; "))
		}
		return no
	}
	return nil
}

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
		slices.ContainsFunc(limits.Forward, func(pattern string) bool { return rules.ForwardMatches(pattern, host, port) })
}
