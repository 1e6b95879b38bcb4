package ssh

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/intake"
	"sallyport/recorder/format"
	"sallyport/session"
)

const (
	// farewellTime is how long a cut may take to tell the client; then its connection is closed, read or not.
	farewellTime = 3 * time.Second
	// leaveTime is how long the client may then take to leave by itself, so that it has read what it was told.
	leaveTime = time.Second
)

// link is one session on a target, which all channels of a client's connection share.
type link struct {
	connection *connection
	session    *session.Session
	target     xssh.Conn
	flow       *intake.Flow // of what the target sends
	account    configs.Account
	to         configs.Target

	banner      string // what the target showed at the login
	bannerShown atomic.Bool
	admit       context.Context // never ends: a record that was begun is finished, whatever the client does
	numbers     atomic.Uint32   // of channels in the recording, from 1
	over        chan struct{}   // closed when the library has nothing more from the target's connection
	lost        chan struct{}   // closed when the session has been told so
	told        chan struct{}   // closed when a cut has said all it had to say

	mu       sync.Mutex
	cut      bool
	stands   bool                  // the client is told of a cut on its channels; before, by begin's caller
	channels map[*channel]struct{} // open towards the client
	sessions int                   // channels of kindSession so far
	agent    bool                  // the client asked for forwarding of its agent, and the target does it
	listens  map[string]struct{}   // where the target listens for the client
}

// cutError says that the session is over and why.
type cutError struct{ sentence string }

func (e *cutError) Error() string { return e.sentence }

// begin returns the connection's session on its target, which the first channel makes: lease, recording, connection. A
// refusal is not kept: the next channel on the same connection asks again.
func (c *connection) begin() (*link, error) {
	c.linkMu.Lock()
	defer c.linkMu.Unlock()
	if c.link != nil {
		return c.link, nil
	}
	opening, err := c.lease()
	if err != nil {
		return nil, err
	}
	s, err := c.handler.Sessions.Begin(c.ctx, opening)
	if err != nil {
		return nil, err
	}
	l := &link{
		connection: c, session: s, flow: intake.NewFlow(c.handler.purse), admit: context.WithoutCancel(c.ctx), account: opening.Account, to: opening.Target,
		over: make(chan struct{}), lost: make(chan struct{}), told: make(chan struct{}), channels: map[*channel]struct{}{},
		listens: map[string]struct{}{},
	}
	s.OnCut(l.farewell)
	s.OnPart(l.part)
	err = l.connect(c.ctx, opening.Lease)
	if err == nil && !l.stand() {
		err = &cutError{s.Ending().Sentence}
	}
	if err != nil {
		s.End(session.Ending{Reason: session.EndTargetFailed, Sentence: c.handler.asRefusal(err).Error()})
		if ending := s.Ending(); ending.Reason != session.EndTargetFailed {
			return nil, &cutError{ending.Sentence}
		}
		return nil, err
	}
	c.link = l
	c.spawn(l.watch)
	c.spawn(l.warn)
	return l, nil
}

// lease finds the target and a live grant for it.
func (c *connection) lease() (session.Opening, error) {
	h, a := c.handler, c.address
	if target, ok := h.Grants.Target(a.target); ok && target.Kind != configs.KindSSH {
		r := refusal.New(refusal.Unsupported, "%s is not an SSH target", a.target).
			WithDetail("it is reached with %s", map[string]string{configs.KindPostgres: "psql"}[target.Kind])
		c.audit(a.target, a.account, r)
		return session.Opening{}, r
	}
	lease, err := h.Grants.Lease(grant.WithSource(c.ctx, c.client.RemoteAddr()), c.proof.identity, a.target, a.account)
	if err != nil {
		return session.Opening{}, err
	}
	// The configuration may be another by now; what counts is that both are in it.
	target, ok := h.Grants.Target(a.target)
	account, known := grant.Account(target, a.account)
	if !ok || !known || target.Kind != configs.KindSSH {
		lease.Return()
		return session.Opening{}, refusal.New(refusal.UnknownTarget, "there is no %s here any more", a)
	}
	return session.Opening{
		Protocol: configs.KindSSH, Identity: c.proof.identity, Target: target, Account: account, Lease: lease,
		Client: c.client.RemoteAddr(),
	}, nil
}

// connect dials the target and logs in. Where nothing could prove the target, it is not even dialled.
func (l *link) connect(ctx context.Context, lease *grant.Lease) error {
	h := l.connection.handler
	if _, err := proofOf(l.to); err != nil {
		return err
	}
	var login login
	var conn net.Conn
	var channels <-chan xssh.NewChannel
	var requests <-chan *xssh.Request
	err := l.session.Dial(ctx, func(c net.Conn) (err error) {
		conn = c
		login, err = h.loginFor(ctx, l.to, l.account, loginNote{
			who: l.connection.proof.identity, session: l.session.ID(), grant: lease.Grant.ID, until: lease.Until(), source: sourceOf(l.to, c),
			forwarding: l.forwards(), agent: l.agentAllowed(), noTerminal: !l.limits().TerminalOn(),
		})
		if err != nil {
			return err
		}
		var banner strings.Builder
		login.banner, login.flow = &banner, l.flow
		l.target, channels, requests, err = login.handshake(c)
		l.banner = banner.String()
		return err
	})
	if err != nil {
		return err
	}
	l.connection.spawn(func() {
		defer close(l.over)
		l.targetChannels(channels)
	})
	l.connection.spawn(func() { answerGlobals(requests) })
	return l.session.Connected(format.Connected{
		Local: conn.LocalAddr().String(), Remote: conn.RemoteAddr().String(),
		Serial: login.serial, Server: shown(string(l.target.ServerVersion())),
	})
}

// refuseChannels refuses what the target wants to open towards the client: nothing that was allowed to ask for it.
func refuseChannels(channels <-chan xssh.NewChannel) {
	for n := range channels {
		refuseTarget(n, "not allowed through this gateway")
	}
}

// answerGlobals answers the target's global requests: keepalives get some answer, its host keys are not the gateway's and
// are not passed on.
func answerGlobals(requests <-chan *xssh.Request) {
	for r := range requests {
		answerTarget(r, false)
	}
}

// watch ends the session when the target's connection does. The library's own Wait would be the way to know, but never returns where
// the target sent on after a packet that ended its connection.
func (l *link) watch() {
	<-l.over
	close(l.lost)
	l.session.End(session.Ending{
		Reason: session.EndTargetClosed, Sentence: fmt.Sprintf("the connection to %s was lost", l.to.Name),
	})
}

// stand says that the link is made, or reports false where it has been cut already.
func (l *link) stand() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stands = !l.cut
	return l.stands
}

// add takes a channel among those that a cut tells, or reports false when it is too late.
func (l *link) add(c *channel) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.channels[c] = struct{}{}
	return true
}

// another says whether one more session may run on the connection. Who is told so and does not open it says less.
func (l *link) another() *refusal.Refusal {
	many := configs.On(l.limits().Multiplex, true)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions > 0 && !many {
		return refusal.New(refusal.NotPermitted, "%s allows one session a connection", l.connection.address).
			WithHint("use a connection of its own: ssh -o ControlPath=none")
	}
	l.sessions++
	return nil
}

func (l *link) less() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions--
}

func (l *link) remove(c *channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.channels, c)
}

// farewell is the session's OnCut: it tells the user on every open channel, lets the client leave, and closes its
// connection. A client that does not read cannot hold it up.
func (l *link) farewell(ctx context.Context, why session.Ending) {
	l.mu.Lock()
	l.cut = true
	stands := l.stands
	open := make([]*channel, 0, len(l.channels))
	for c := range l.channels {
		open = append(open, c)
	}
	l.mu.Unlock()
	defer close(l.told)
	if !stands {
		return
	}
	defer l.connection.close()
	if why.Reason == session.EndClientClosed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, farewellTime)
	defer cancel()
	var telling sync.WaitGroup
	for _, c := range open {
		telling.Go(func() {
			defer l.connection.handler.recovered(nil)
			c.farewell(why.Sentence)
		})
	}
	if !within(ctx, telling.Wait) || len(open) == 0 {
		return
	}
	select {
	case <-l.connection.ctx.Done():
	case <-time.After(leaveTime):
	case <-ctx.Done():
	}
}

// part is the session's OnPart: what runs without a terminal is told to stop, as it would not notice that its connection is
// gone; a terminal's hangup sshd sees to itself. A client that leaves by itself leaves its commands as with any sshd.
func (l *link) part(why session.Ending) {
	if why.Reason == session.EndClientClosed || why.Reason == session.EndTargetClosed {
		return
	}
	l.mu.Lock()
	var open []*channel
	for c := range l.channels {
		if c.kind == kindSession && !c.terminal.Load() {
			open = append(open, c)
		}
	}
	l.mu.Unlock()
	for _, c := range open {
		for _, name := range []string{"HUP", "TERM"} {
			signalTarget(c.target, name)
		}
	}
}

// within reports whether f returned before ctx ended.
func within(ctx context.Context, f func()) bool {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		f()
	}()
	select {
	case <-returned:
		return true
	case <-ctx.Done():
		return false
	}
}
