package ssh

import (
	"net"
	"strconv"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/interpret"
	"sallyport/protocols/ssh/rules"
)

// tunnel is a direct-tcpip channel inside a session, which connects from the target onwards. It is refused unless the
// account allows it, and always where an SSH server would be at its end: what passes there could not be recorded.
func (c *connection) tunnel(n xssh.NewChannel) {
	l, err := c.begin()
	if err != nil {
		reject(n, xssh.Prohibited, c.handler.asRefusal(err).Error())
		return
	}
	var d interpret.DirectTCPIP
	if err := xssh.Unmarshal(n.ExtraData(), &d); err != nil || d.Port > 65535 || len(d.Host) > maxName {
		reject(n, xssh.ConnectionFailed, "malformed destination")
		return
	}
	if r := c.mayTunnel(l, d.Host, int(d.Port)); r != nil {
		c.audit(l.to.Name, l.account.Name, r)
		reject(n, xssh.Prohibited, r.Message)
		return
	}
	l.serve(n, kindTunnel)
}

func (c *connection) mayTunnel(l *link, host string, port int) *refusal.Refusal {
	if !l.mayForward(host, port) {
		return refusal.New(refusal.NotPermitted, "%s allows no forwarding to %s", c.address, shown(net.JoinHostPort(host, strconv.Itoa(port))))
	}
	if _, ok := c.handler.Grants.TargetByAddress(host, port); ok || rules.OwnSSH(l.to.Address, host, port) {
		return refusal.New(refusal.NotPermitted, "no tunnel to an SSH server: connect to it through the gateway")
	}
	if rules.OddAddress(host) {
		return refusal.New(refusal.NotPermitted, "%s is written as no address is", shown(host)).WithHint("write a name, or an address in full")
	}
	if c.handler.Grants.Dials(host, port) || rules.OnItself(host) && c.handler.Grants.Dials(hostOf(l.to.Address), port) {
		return refusal.New(refusal.NotPermitted, "no tunnel to a target of this gateway: connect to it through the gateway")
	}
	return nil
}

// socketTunnel is a channel to a socket on the target.
func (c *connection) socketTunnel(n xssh.NewChannel) {
	l, err := c.begin()
	if err != nil {
		reject(n, xssh.Prohibited, c.handler.asRefusal(err).Error())
		return
	}
	var d interpret.DirectStreamlocal
	if err := xssh.Unmarshal(n.ExtraData(), &d); err != nil || len(d.Path) > maxPath {
		reject(n, xssh.ConnectionFailed, "malformed path")
		return
	}
	if limits := l.limits(); !limits.UnixSockets || len(limits.Commands) > 0 {
		r := refusal.New(refusal.NotPermitted, "%s allows no forwarding to sockets", c.address)
		c.audit(l.to.Name, l.account.Name, r)
		reject(n, xssh.Prohibited, r.Message)
		return
	}
	l.serve(n, kindTunnel)
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address) // empty where it has none
	return host
}
