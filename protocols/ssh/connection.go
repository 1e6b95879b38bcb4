package ssh

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/intake"
	"sallyport/session"
)

// maxChannels is how many channels one client connection may have open at once.
const maxChannels = 64

// connection is one client's connection whose identity is proven: one from outside, or one inside it (jump.go).
type connection struct {
	handler *Handler
	client  *xssh.ServerConn
	close   func() // closes what the connection runs on, without waiting for the client
	flow    *intake.Flow
	address address
	proof   *proof

	ctx            context.Context // ends with the connection
	open           atomic.Int32    // channels
	running        sync.WaitGroup  // goroutines of channels
	noMoreSessions bool            // the client asked for it; belongs to serve
	globals        *queue          // global requests that wait for their answer, in order

	linkMu sync.Mutex // held while a link is made
	link   *link      // the session on the target; nil before the first channel needs it
}

// serve answers the client's channels and global requests until the connection ends.
func (c *connection) serve(ctx context.Context, channels <-chan xssh.NewChannel, requests <-chan *xssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	c.ctx, c.globals = ctx, newQueue()
	c.spawn(func() { each(c.globals, c.globalRequest) })
	defer func() {
		c.client.Close()
		cancel()
		c.globals.end()
		c.linkMu.Lock()
		l := c.link
		c.linkMu.Unlock()
		if l != nil {
			l.session.End(session.Ending{Reason: session.EndClientClosed, Sentence: "the client closed the connection"})
		}
		c.running.Wait()
	}()
	for channels != nil || requests != nil {
		select {
		case n, ok := <-channels:
			if !ok {
				channels = nil
				continue
			}
			c.newChannel(n)
		case r, ok := <-requests:
			if !ok {
				requests = nil
				continue
			}
			// The library hands over channels and requests apart from each other. What the client asked for before this
			// request is already waiting, and is taken first: OpenSSH asks for its session and then for no more of them.
			c.waitingChannels(channels)
			if r.Type == "no-more-sessions@openssh.com" {
				c.noMoreSessions = true
			}
			if !c.globals.add(r) {
				c.close() // so many at once nobody has a use for
			}
		}
	}
}

func (c *connection) waitingChannels(channels <-chan xssh.NewChannel) {
	for {
		select {
		case n, ok := <-channels:
			if !ok {
				return
			}
			c.newChannel(n)
		default:
			return
		}
	}
}

// globalRequest answers what the client asks of the connection. Only forwarding from the target is passed on; the rest is
// between the client and its server, which is the gateway. Answers keep the requests' order, so one waits for another.
func (c *connection) globalRequest(r *xssh.Request) {
	switch r.Type {
	case "no-more-sessions@openssh.com", "keepalive@openssh.com":
		_ = r.Reply(true, nil) // a failed write shows in the connection's end; so below
	case tcpipForward, cancelTCPIPForward, streamlocalForward, cancelStreamlocalForward:
		done, payload := c.remoteForward(r)
		_ = r.Reply(done, payload)
	default:
		_ = r.Reply(false, nil)
	}
}

// newChannel starts a channel, or refuses it. It does not wait for targets.
func (c *connection) newChannel(n xssh.NewChannel) {
	if c.open.Add(1) > maxChannels {
		c.open.Add(-1)
		reject(n, xssh.ResourceShortage, "too many channels on one connection")
		return
	}
	var serve func(xssh.NewChannel)
	switch kind := n.ChannelType(); {
	case kind == "session" && c.noMoreSessions:
		reject(n, xssh.Prohibited, "no more sessions were to come on this connection")
		c.open.Add(-1)
		c.close()
		return
	case kind == "session" && c.address.target == "":
		serve = c.greet
	case kind == "session":
		serve = c.session
	case kind == "direct-tcpip" && c.address.target == "":
		serve = c.jump
	case kind == "direct-tcpip":
		serve = c.tunnel
	case kind == directStreamlocal && c.address.target != "":
		serve = c.socketTunnel
	case kind == directStreamlocal || kind == "tun@openssh.com":
		serve = func(n xssh.NewChannel) { reject(n, xssh.Prohibited, "the gateway does not pass "+kind+" on") }
	default:
		// With the code that sshd has for it.
		serve = func(n xssh.NewChannel) { reject(n, xssh.ConnectionFailed, "unknown channel type") }
	}
	c.spawn(func() {
		defer c.open.Add(-1)
		serve(n)
	})
}

// spawn runs f beside the others of the connection; a panic in it ends the connection.
func (c *connection) spawn(f func()) {
	c.running.Go(func() {
		defer c.handler.recovered(c.close)
		f()
	})
}

// session is a session channel to a target.
func (c *connection) session(n xssh.NewChannel) {
	l, err := c.begin()
	if err != nil {
		no := c.handler.asRefusal(err)
		if cut := (*cutError)(nil); no.Code == refusal.NoGrant && !errors.As(err, &cut) {
			c.waitSession(n, no)
			return
		}
		c.refuseSession(n, no)
		return
	}
	l.serve(n, kindSession)
}

// audit tells the audit log what was refused to an identity by a rule of this protocol. target and account may be what the
// client typed.
func (c *connection) audit(target, account string, r *refusal.Refusal) {
	c.handler.Sessions.Refused(c.proof.identity, c.client.RemoteAddr(), clipped(target), clipped(account), r)
}

// maxName is how much of a name that somebody typed is repeated.
const maxName = 255

func clipped(s string) string { return s[:min(len(s), maxName)] }

// reject refuses a channel; a failed write shows in the connection's end.
func reject(n xssh.NewChannel, reason xssh.RejectionReason, message string) {
	_ = n.Reject(reason, shown(message))
}

// rekeyTime is how long a client may take to change keys, unless the options say otherwise. What was on its way to it before
// comes first, on a slow line too.
const rekeyTime = 5 * time.Minute

// keysStuck ends a connection whose client does not go through with a change of keys.
func (c *connection) keysStuck() {
	defer c.close()
	c.linkMu.Lock()
	l := c.link
	c.linkMu.Unlock()
	if l != nil {
		l.session.End(session.Ending{Reason: session.EndClientClosed, Sentence: "the client began to change keys and did not go on"})
	}
}
