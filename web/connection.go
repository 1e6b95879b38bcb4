package web

import (
	"context"
	"net"

	"sallyport/authn"
)

type connectionKey struct{}

// WithConnection is the http.Server's ConnContext: it lets an authenticated request take its connection off the
// strangers' count.
func WithConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// peer is the other end of the request's connection; nil where that is not known.
func peer(ctx context.Context) net.Addr {
	if conn, ok := ctx.Value(connectionKey{}).(net.Conn); ok {
		return conn.RemoteAddr()
	}
	return nil
}

// proven notes that the request's connection belongs to a proven identity.
func proven(ctx context.Context) {
	if conn, ok := ctx.Value(connectionKey{}).(net.Conn); ok {
		authn.Proven(conn)
	}
}
