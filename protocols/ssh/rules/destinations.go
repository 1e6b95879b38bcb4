package rules

import (
	"net"
	"strconv"
	"strings"
)

// ForwardMatches matches host:port with a pattern in which either side may be "*", and the host may begin or end in it. At the end
// it stands for the rest of an address, or of a name up to its next dot.
func ForwardMatches(pattern, host string, port int) bool {
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

// OddAddress reports whether a host is written neither as an address in full nor as a name of the Internet's. Systems take much for
// an address that is not written like one, such as 127.1, 0x7f000001 or "*", and what a destination is compared with must not depend on
// how it is written.
func OddAddress(host string) bool {
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

// OwnSSH reports whether host:port, as seen from a target, is the target's own SSH server.
func OwnSSH(address, host string, port int) bool {
	_, own, err := net.SplitHostPort(address)
	return err == nil && (port == 22 || strconv.Itoa(port) == own) && OnItself(host)
}

// OnItself reports whether a host, as seen from a target, is the target itself.
func OnItself(host string) bool {
	host = strings.TrimSuffix(host, ".")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}
