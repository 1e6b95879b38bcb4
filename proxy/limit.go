package proxy

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// limiter counts open connections, and those of them that have proven nothing yet by source network.
type limiter struct {
	all       int // most connections at once
	strangers int // most unproven connections at once; a quarter of it from one source
	refused   func(kind string, from net.Addr)

	mu       sync.Mutex
	open     int
	unproven int
	bySource map[netip.Prefix]int
}

func newLimiter(all, strangers int, refused func(kind string, from net.Addr)) *limiter {
	return &limiter{all: all, strangers: strangers, refused: refused, bySource: map[netip.Prefix]int{}}
}

// take counts the connection in, or returns nil if it is one too many.
func (l *limiter) take(conn net.Conn) net.Conn {
	source := sourceOf(conn.RemoteAddr())
	l.mu.Lock()
	kind := ""
	switch {
	case l.open >= l.all:
		kind = "connections: too many at once"
	case l.unproven >= l.strangers:
		kind = "connections: too many without a proven identity"
	case l.bySource[source] >= max(1, l.strangers/4):
		kind = "connections: too many without a proven identity from one address"
	default:
		l.open++
		l.unproven++
		l.bySource[source]++
	}
	l.mu.Unlock()
	if kind != "" {
		l.refused(kind, conn.RemoteAddr())
		return nil
	}
	return &Conn{Conn: conn, limit: l, source: source}
}

func (l *limiter) proven(source netip.Prefix) {
	l.unproven--
	if l.bySource[source]--; l.bySource[source] <= 0 {
		delete(l.bySource, source)
	}
}

// sourceOf is what one stranger can be told apart by: an IPv4 address, or an IPv6 /64.
func sourceOf(address net.Addr) netip.Prefix {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits) // the bits fit the address
	return prefix
}

// Conn is a client's connection, counted.
type Conn struct {
	net.Conn
	limit  *limiter
	source netip.Prefix

	mu             sync.Mutex
	proven, closed bool
}

// Proven takes the connection off the strangers' count. It may be called more than once.
func (c *Conn) Proven() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proven || c.closed {
		return
	}
	c.proven = true
	c.limit.mu.Lock()
	defer c.limit.mu.Unlock()
	c.limit.proven(c.source)
}

// Close counts the connection out.
func (c *Conn) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.limit.mu.Lock()
		c.limit.open--
		if !c.proven {
			c.limit.proven(c.source)
		}
		c.limit.mu.Unlock()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite ends the writing half, for protocols that say goodbye in halves.
func (c *Conn) CloseWrite() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return c.Conn.Close()
}

// SyscallConn is the socket itself, for those who wait for it in their own way. What reads from it reads what Read would.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if socket, ok := c.Conn.(syscall.Conn); ok {
		return socket.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
