package ssh

import (
	"net"
	"strconv"
	"strings"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/interpret"
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
	if _, ok := c.handler.Grants.TargetByAddress(host, port); ok || ownSSH(l.to.Address, host, port) {
		return refusal.New(refusal.NotPermitted, "no tunnel to an SSH server: connect to it through the gateway")
	}
	if oddAddress(host) {
		return refusal.New(refusal.NotPermitted, "%s is written as no address is", shown(host)).WithHint("write a name, or an address in full")
	}
	if c.handler.Grants.Dials(host, port) || onItself(host) && c.handler.Grants.Dials(hostOf(l.to.Address), port) {
		return refusal.New(refusal.NotPermitted, "no tunnel to a target of this gateway: connect to it through the gateway")
	}
	return nil
}

// oddAddress reports whether a host is written neither as an address in full nor as a name of the Internet's. Systems take much for
// an address that is not written like one, such as 127.1, 0x7f000001 or "*", and what a destination is compared with must not depend on
// how it is written.
func oddAddress(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if net.ParseIP(host) != nil {
		return false
	}
	if host == "" || strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return true // also an address with a zone, which is the same one without
	}
	last := strings.ToLower(host[strings.LastIndex(host, ".")+1:])
	return strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == ""
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

// ownSSH reports whether host:port, as seen from a target, is the target's own SSH server.
func ownSSH(address, host string, port int) bool {
	_, own, err := net.SplitHostPort(address)
	return err == nil && (port == 22 || strconv.Itoa(port) == own) && onItself(host)
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address) // empty where it has none
	return host
}

// onItself reports whether a host, as seen from a target, is the target itself.
func onItself(host string) bool {
	host = strings.TrimSuffix(host, ".")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}
