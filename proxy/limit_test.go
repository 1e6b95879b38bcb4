package proxy

import (
	"net"
	"slices"
	"testing"
)

// from is a connection from an address.
type from struct {
	net.Conn
	address string
}

func (f from) Close() error { return nil }
func (f from) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(f.address), Port: 1234}
}

// TestLimiter: the bounds of all connections, of strangers, and of strangers from one source, each by itself; and nothing is left of those
// who are gone.
func TestLimiter(t *testing.T) {
	var refused []string
	l := newLimiter(10, 8, func(kind string, _ net.Addr) { refused = append(refused, kind) })
	take := func(address string) *Conn {
		conn, _ := l.take(from{address: address}).(*Conn)
		return conn
	}
	var open []*Conn
	taken := func(addresses ...string) {
		t.Helper()
		for _, address := range addresses {
			conn := take(address)
			if conn == nil {
				t.Fatalf("%s is turned away: %s", address, refused)
			}
			open = append(open, conn)
		}
	}
	turnedAway := func(address, why string) {
		t.Helper()
		if take(address) != nil || len(refused) != 1 || refused[0] != why {
			t.Fatalf("%s: turned away because of %q, not of %q", address, refused, why)
		}
		refused = nil
	}
	const source, strangers, all = "connections: too many without a proven identity from one address", "connections: too many without a proven identity", "connections: too many at once"
	taken("192.0.2.1", "::ffff:192.0.2.1")
	turnedAway("192.0.2.1", source)
	taken("2001:db8::1", "2001:db8::ffff:1")
	turnedAway("2001:db8::2", source) // the same /64
	taken("2001:db8:0:1::1", "2001:db8:0:2::1", "192.0.2.2", "192.0.2.3")
	turnedAway("192.0.2.4", strangers)
	for _, conn := range open {
		conn.Proven()
		conn.Proven() // counts once
	}
	taken("192.0.2.1", "192.0.2.1")
	turnedAway("192.0.2.9", all)
	open[0].Close()
	open[0].Close() // counts once
	taken("192.0.2.9")
	turnedAway("192.0.2.10", all)
	slices.Reverse(open)
	for _, conn := range open {
		conn.Close()
		conn.Proven() // too late to count
	}
	if l.open != 0 || l.unproven != 0 || len(l.bySource) != 0 {
		t.Errorf("of nobody are left %d connections, %d strangers, %v", l.open, l.unproven, l.bySource)
	}
}
