package ssh

import (
	"context"
	"encoding/binary"
	"net"
	"strconv"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/interpret"
	"sallyport/session"
)

// What has to do with connections that begin at the target: forwarding from it (-R), and its use of the user's agent.
const (
	tcpipForward             = "tcpip-forward"
	cancelTCPIPForward       = "cancel-tcpip-forward"
	streamlocalForward       = "streamlocal-forward@openssh.com"
	cancelStreamlocalForward = "cancel-streamlocal-forward@openssh.com"
	forwardedTCPIP           = "forwarded-tcpip"
	forwardedStreamlocal     = "forwarded-streamlocal@openssh.com"
	directStreamlocal        = "direct-streamlocal@openssh.com"
	agentRequest             = "auth-agent-req@openssh.com"
	agentChannel             = "auth-agent@openssh.com"
)

const (
	// maxListens is how many places on the target one session may have it listen at.
	maxListens = 64
	// maxPath is how long the name of a socket may be; the system's own limit is shorter.
	maxPath = 1024
	// answerTime is how long a target may take to answer a request, unless the options say otherwise.
	answerTime = time.Minute
)

// remoteForward asks the target to listen for the client, or to listen no more; the target's answer is the client's. What
// the role does not allow is refused.
func (c *connection) remoteForward(r *xssh.Request) (done bool, payload []byte) {
	if c.address.target == "" {
		return false, nil
	}
	l, err := c.begin()
	if err != nil {
		return false, nil // the session's channel says why
	}
	place, bound, socket, ok := listenPlace(r)
	if !ok {
		return false, nil
	}
	cancels := r.Type == cancelTCPIPForward || r.Type == cancelStreamlocalForward
	limits := l.limits()
	switch {
	case cancels && !l.listensAt(place):
		return false, nil
	case cancels:
	case !limits.RemoteForward || socket && !limits.UnixSockets || len(limits.Commands) > 0:
		c.audit(l.to.Name, l.account.Name, refusal.New(refusal.NotPermitted, "%s allows no forwarding from the target", c.address))
		return false, nil
	case l.listensFull():
		return false, nil
	}
	pass, err := l.session.Admit(l.admit, interpret.Request(0, r.Type, r.WantReply, r.Payload))
	if err != nil {
		return false, nil
	}
	already := l.listensAt(place) // a target refuses what it does already, and goes on doing it
	if !cancels {
		l.listen(place, true) // a connection can come before the answer is read
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.handler.AnswerTimeout)
	defer cancel()
	var answered bool // not done and payload themselves: it may come while this returns
	var chosen []byte
	if !within(ctx, func() { answered, chosen, err = sendGlobal(&pass, l.target, r) }) {
		l.session.End(session.Ending{Reason: session.EndTargetFailed, Sentence: l.to.Name + " does not answer"})
		return false, nil
	}
	done, payload = answered, chosen
	if err != nil || l.session.Observe(interpret.Reply(0, r.Type, done)) != nil || !done {
		if !cancels && !already {
			l.listen(place, false)
		}
		return false, nil
	}
	if cancels {
		l.listen(place, false)
	} else if bound.Port == 0 && !socket && len(payload) == 4 { // the target chose the port
		l.listen(tcpPlace(bound.Address, binary.BigEndian.Uint32(payload)), true)
		l.listen(place, false)
	}
	return true, payload
}

// listenPlace is where on the target a request is about.
func listenPlace(r *xssh.Request) (place string, bound interpret.ForwardTCPIP, socket, ok bool) {
	switch r.Type {
	case tcpipForward, cancelTCPIPForward:
		if xssh.Unmarshal(r.Payload, &bound) != nil || bound.Port > 65535 || len(bound.Address) > maxName {
			return "", bound, false, false
		}
		return tcpPlace(bound.Address, bound.Port), bound, false, true
	default:
		var f interpret.StreamlocalForward
		if xssh.Unmarshal(r.Payload, &f) != nil || len(f.Path) > maxPath {
			return "", bound, true, false
		}
		return "unix:" + f.Path, bound, true, true
	}
}

func tcpPlace(address string, port uint32) string {
	return "tcp:" + net.JoinHostPort(strings.ToLower(address), strconv.FormatUint(uint64(port), 10))
}

func (l *link) listensAt(place string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.listens[place]
	return ok
}

func (l *link) listensFull() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.listens) >= maxListens
}

func (l *link) listen(place string, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on {
		l.listens[place] = struct{}{}
	} else {
		delete(l.listens, place)
	}
}

func (l *link) allowAgent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agent = true
}

// targetChannels takes what the target wants to open towards the client: only what the client asked for, and the role
// still allows.
func (l *link) targetChannels(channels <-chan xssh.NewChannel) {
	for n := range channels {
		if !l.expected(n) {
			refuseTarget(n, "not allowed through this gateway")
			continue
		}
		c := l.connection
		if c.open.Add(1) > maxChannels {
			c.open.Add(-1)
			refuseTarget(n, "too many channels on one connection")
			continue
		}
		c.spawn(func() {
			defer c.open.Add(-1)
			l.serveTarget(n)
		})
	}
}

func (l *link) expected(n xssh.NewChannel) bool {
	limits := l.limits()
	switch n.ChannelType() {
	case agentChannel:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.agent && l.agentAllowed()
	case forwardedTCPIP:
		var d interpret.ForwardedTCPIP
		return limits.RemoteForward && xssh.Unmarshal(n.ExtraData(), &d) == nil &&
			(l.listensAt(tcpPlace(d.Address, d.Port)) || l.listensAt(tcpPlace(d.Address, 0)))
	case forwardedStreamlocal:
		var d interpret.ForwardedStreamlocal
		return limits.RemoteForward && limits.UnixSockets && xssh.Unmarshal(n.ExtraData(), &d) == nil && l.listensAt("unix:"+d.Path)
	default:
		return false
	}
}
