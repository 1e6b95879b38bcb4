package ssh

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/intake"
	"sallyport/protocols/ssh/interpret"
	"sallyport/protocols/ssh/wire"
)

// jump is a direct-tcpip channel on a connection without a target, which is what ssh -J opens. The gateway does not
// dial: it is itself the SSH server at the other end of the channel, with a host certificate for the name as typed, so
// that nothing passes unrecorded. Every other destination is refused.
func (c *connection) jump(n xssh.NewChannel) {
	h := c.handler
	var d interpret.DirectTCPIP
	if err := xssh.Unmarshal(n.ExtraData(), &d); err != nil || d.Port > 65535 || len(d.Host) > maxName {
		reject(n, xssh.ConnectionFailed, "malformed destination")
		return
	}
	target, ok := h.Grants.TargetByAddress(d.Host, int(d.Port))
	if !ok || target.Kind != configs.KindSSH {
		destination := shown(net.JoinHostPort(d.Host, fmt.Sprint(d.Port)))
		c.audit(destination, "", refusal.New(refusal.UnknownTarget, "%s is not an SSH target of this gateway", destination))
		reject(n, xssh.Prohibited, destination+" is not an SSH target of this gateway, and it connects to nothing else; list them with: sallyport targets")
		return
	}
	config, err := h.innerConfig(c.proof, d.Host)
	if err != nil {
		h.Log.Error("no host certificate for a jump", "target", target.Name, "error", err)
		reject(n, xssh.ConnectionFailed, "the gateway has no host certificate for this name")
		return
	}
	channel, requests, err := n.Accept()
	if err != nil {
		return
	}
	go xssh.DiscardRequests(requests)
	go io.Copy(io.Discard, channel.Stderr()) //nolint:errcheck // it ends with the channel
	conn := &channelConn{Channel: channel, local: c.client.LocalAddr(), remote: c.client.RemoteAddr(), abort: c.close}
	defer conn.Close()
	handshake := time.AfterFunc(h.HandshakeTimeout, func() { conn.Close() })
	flow := intake.NewFlow(h.purse)
	keys := &wire.Rekeyed{Conn: wire.New(conn, flow.Came)}
	client, channels, globals, err := xssh.NewServerConn(keys, keys.Config(config))
	if !handshake.Stop() || err != nil {
		return // the client's own ssh says why
	}
	inner := &connection{
		handler: h, client: client, close: func() { conn.Close() }, flow: flow, proof: c.proof,
		address: address{account: client.User(), target: target.Name},
	}
	keys.Watch(client, h.RekeyTimeout, inner.keysStuck)
	inner.serve(c.ctx, channels, globals)
}

// closeTime is how long closing a channel may wait for a client that does not read.
const closeTime = 2 * time.Second

// channelConn is a channel as a net.Conn with the addresses of the connection it is on. It has no deadlines, for which
// the SSH library has no use.
type channelConn struct {
	xssh.Channel
	local, remote net.Addr
	abort         func() // closes the connection that the channel is on
	once          sync.Once
}

func (c *channelConn) LocalAddr() net.Addr              { return c.local }
func (c *channelConn) RemoteAddr() net.Addr             { return c.remote }
func (c *channelConn) SetDeadline(time.Time) error      { return nil }
func (c *channelConn) SetReadDeadline(time.Time) error  { return nil }
func (c *channelConn) SetWriteDeadline(time.Time) error { return nil }

// Close closes the channel; where that can't be said to the client in time, it closes the connection.
func (c *channelConn) Close() error {
	c.once.Do(func() {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = c.Channel.Close()
		}()
		select {
		case <-closed:
		case <-time.After(closeTime):
			c.abort()
		}
	})
	return nil
}
