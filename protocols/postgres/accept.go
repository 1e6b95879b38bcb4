package postgres

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"time"

	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/wire"
)

// What strangers do wrong, as it is counted (authn.Unauthenticated); a fixed list.
const (
	strangerStartup     = "postgres: no valid start-up"
	strangerPlaintext   = "postgres: no TLS"
	strangerTLS         = "postgres: TLS handshake failed"
	strangerALPN        = "postgres: direct TLS without ALPN"
	strangerGlued       = "postgres: data before TLS"
	strangerCertificate = "postgres: no valid client certificate"
	strangerPassword    = "postgres: no valid password"
	strangerToken       = "postgres: no valid token"
	strangerPrompt      = "postgres: no sign-in at the prompt"
	strangerDiscovery   = "postgres: asked where to sign in" // which is what psql does first
	strangerCancel      = "postgres: cancel with an unknown key"
)

// client is the client's end of a connection.
type client struct {
	raw   net.Conn    // for deadlines and the last close
	ahead *wire.Ahead // over raw
	conn  net.Conn    // ahead, and once it is up TLS over it
	tls   *tls.ConnectionState
	shown shown // in the TLS handshake
	mute  bool  // nothing more can be said to it

	welcomed  bool            // it was told that it is authenticated
	listening <-chan struct{} // closed when nobody listens any more whether it hangs up; nil before
	early     []byte          // what it said meanwhile
}

func newClient(raw net.Conn) *client {
	ahead := wire.NewAhead(raw)
	return &client{raw: raw, ahead: ahead, conn: ahead}
}

// Arrivals and ReadArrived are those of wire.Ahead.
func (c *client) Arrivals(holding bool, arrived func() (more bool, err error)) error {
	return c.ahead.Arrivals(holding, arrived)
}

func (c *client) ReadArrived(p []byte) (int, error) { return c.ahead.ReadArrived(c.conn, p) }

// stranger is a refusal that also says under which kind it is counted.
type stranger struct {
	*refusal.Refusal
	kind string
}

func (s *stranger) Unwrap() error { return s.Refusal }

func strange(kind string, r *refusal.Refusal) error { return &stranger{r, kind} }

// opening reads the client's first packet that is not about encryption: a StartupMessage, which only comes over TLS, or
// a CancelRequest, which libpq before 17 and others send in clear text.
func (c *client) opening(ctx context.Context, config *tls.Config) (wire.Packet, error) {
	first, err := c.ahead.Peek()
	if err != nil {
		return wire.Packet{}, strange(strangerStartup, refusal.New(refusal.ProtocolViolation, "no startup packet").Because(err))
	}
	if first == tlsHandshakeRecord {
		if err := c.startTLS(ctx, config); err != nil {
			return wire.Packet{}, err
		}
		// A peer that speaks another protocol over TLS must not be led into speaking it to us (ALPACA).
		if c.tls.NegotiatedProtocol != wire.ALPN {
			return wire.Packet{}, strange(strangerALPN, refusal.New(refusal.ProtocolViolation,
				"received direct SSL connection request without ALPN protocol negotiation extension").
				WithHint("use sslnegotiation=postgres, or a client that offers the ALPN protocol %q", wire.ALPN))
		}
	}
	var askedGSS, askedSSL bool
	for {
		packet, err := wire.ReadPacket(c.conn)
		if err != nil {
			return wire.Packet{}, strange(strangerStartup, refusal.New(refusal.ProtocolViolation, "invalid startup packet").Because(err))
		}
		switch {
		case packet.Code == wire.GSSENCCode && !askedGSS && c.tls == nil:
			askedGSS = true
			if err := c.answer('N'); err != nil {
				return wire.Packet{}, err
			}
		case packet.Code == wire.SSLCode && !askedSSL && c.tls == nil:
			askedSSL = true
			if err := c.answer('S'); err != nil {
				return wire.Packet{}, err
			}
			if err := c.startTLS(ctx, config); err != nil {
				return wire.Packet{}, err
			}
		case packet.Code == wire.CancelCode:
			return packet, nil
		case packet.Code>>16 != 3:
			return wire.Packet{}, strange(strangerStartup, refusal.New(refusal.Unsupported,
				"unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", packet.Code>>16, packet.Code&0xffff))
		case c.tls == nil:
			return wire.Packet{}, strange(strangerPlaintext, refusal.New(refusal.NotAuthenticated, "this gateway speaks TLS only").
				WithDetail("The connection was begun without encryption, so nothing was asked for.").
				WithHint("connect with sslmode=verify-full, or by the service entry that sallyport login writes: psql service=TARGET"))
		default:
			return packet, nil
		}
	}
}

// answer sends the one byte that answers a request for encryption, unless more has already come: bytes in clear text
// that would then be taken for a part of what is encrypted (CVE-2021-23214).
func (c *client) answer(yes byte) error {
	if c.ahead.Buffered() > 0 {
		return strange(strangerGlued, refusal.New(refusal.ProtocolViolation, "received unencrypted data after SSL request").
			WithDetail("Bytes in clear text came right after the request for TLS: a mistake in the client, or somebody in the middle."))
	}
	if _, err := c.raw.Write([]byte{yes}); err != nil {
		return strange(strangerStartup, refusal.New(refusal.ProtocolViolation, "the client went away").Because(err))
	}
	return nil
}

const tlsHandshakeRecord = 0x16

func (c *client) startTLS(ctx context.Context, config *tls.Config) error {
	conn := tls.Server(c.ahead, config)
	if err := conn.HandshakeContext(context.WithValue(ctx, shownKey{}, &c.shown)); err != nil {
		// crypto/tls has sent the reason as an alert; clear text after it would only confuse.
		c.mute = true
		return strange(strangerTLS, refusal.New(refusal.NotAuthenticated, "TLS handshake failed").Because(err))
	}
	c.conn = conn
	state := conn.ConnectionState()
	c.tls = &state
	return nil
}

// tell writes a message of the gateway's own before there is a session. It is the last one.
func (c *client) tell(message []byte) {
	if c.mute {
		return
	}
	_, _ = c.conn.Write(message) // a client that is gone needs no answer
}

// lingerTime is how long a client is given to read what it was told before the connection is closed for good.
const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// hangUp ends the gateway's half of the connection: the client sees that it is closed, and has all it was told before.
func (c *client) hangUp() {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // TLS: says that nothing more comes
	}
	if half, ok := c.raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// linger waits for the client to close its end, and throws away what it still sends: a socket that is closed with
// something unread is reset, and a reset can take what the client was told from it.
func (c *client) linger() {
	if c.mute {
		return
	}
	c.hangUp()
	if c.raw.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.raw, lingerBytes))
	}
}
