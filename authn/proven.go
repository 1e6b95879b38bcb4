package authn

import (
	"crypto/tls"
	"net"
)

// Proven tells the front door that the other end of the connection has proven an identity, so that the connection no
// longer counts as a stranger's. On a connection that the front door does not count it does nothing.
func Proven(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case interface{ Proven() }:
			c.Proven()
			return
		case *tls.Conn:
			conn = c.NetConn()
		default:
			return
		}
	}
}
