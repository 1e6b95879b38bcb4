package ssh

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/intake"
	"sallyport/protocols/ssh/interpret"
	"sallyport/protocols/ssh/keep"
	"sallyport/recorder/format"
	"sallyport/session"
)

// The two ways in which channels are treated: commands, and forwarded connections of any kind.
const (
	kindSession = "session"
	kindTunnel  = "tunnel"
)

const (
	// lingerTime is how long data and requests of a client that has closed its channel may take to reach the target.
	lingerTime = 5 * time.Second
	// statusTime is how long the end of the output waits for the exit status that mostly comes with it.
	statusTime = 50 * time.Millisecond
	// lostTime is how long a target's channel that ended without an exit status is looked at: was it the connection?
	lostTime = 200 * time.Millisecond
)

// channel is one channel, copied both ways. The rule that keeps it whole, for each direction: two goroutines copy the
// streams and one passes requests on in order; when both streams have ended, EOF goes on; when the requests have ended
// too, so does the close. An exit status waits for the output before it (streams.go), and nothing waits for a stuck
// neighbour.
type channel struct {
	link   *link
	number uint32
	kind   string
	client *clientChannel
	target xssh.Channel
	input  *intake.Stream    // from the client
	output [2]*intake.Stream // from the target

	asked    asked
	terminal atomic.Bool // as asked.terminal, for other goroutines

	gate     chan struct{} // closed when data may flow: the command runs, or one side is gone
	openGate func()

	gone       chan struct{} // closed when the target has closed its end
	told       chan struct{} // closed when the client was told how the command ended
	inputEnded atomic.Bool   // the client sends no more data

	mu         sync.Mutex
	starting   bool // the target has not answered yet whether it runs the command
	targetGone bool // as gone
	// How data are recorded; set before the target can know of a command, nil before one was asked for.
	in  *keep.Keeper
	out [2]*keep.Keeper

	whole   atomic.Int64 // what may still be recorded whole of the output
	script  atomic.Int64 // the same of an interpreter's input
	atOnce  int64        // what a terminal's output is recorded whole of while nothing is typed; 0: all
	typed   *keep.Typed  // where typed lines are recorded; else nil. Set before the target can know of a command
	quiet   [2]*quiet
	banners [2]*banner // of a tunnel: from the client, from the target; else nil
}

func (l *link) newChannel(kind string) *channel {
	c := &channel{
		link: l, number: l.numbers.Add(1), kind: kind,
		gate: make(chan struct{}), gone: make(chan struct{}), told: make(chan struct{}), quiet: [2]*quiet{{}, {}},
	}
	c.openGate = sync.OnceFunc(func() { close(c.gate) })
	c.whole.Store(keep.Output)
	c.script.Store(keep.Script)
	if bulk := int64(l.to.Bulk); bulk > 0 {
		c.whole.Store(bulk)
		c.script.Store(bulk)
		c.atOnce = bulk
	}
	return c
}

// serve admits a channel, opens it on the target, accepts it and copies until both sides have closed it.
func (l *link) serve(n xssh.NewChannel, kind string) {
	if kind == kindSession {
		if r := l.another(); r != nil {
			l.connection.audit(l.to.Name, l.account.Name, r)
			reject(n, xssh.Prohibited, oneLine(r))
			return
		}
	}
	c := l.newChannel(kind)
	target, targetRequests, err := c.open(n)
	if err != nil {
		if kind == kindSession {
			l.less()
		}
		c.refuse(n, err)
		return
	}
	accepted, clientRequests, err := n.Accept()
	if err != nil {
		go xssh.DiscardRequests(targetRequests)
		closeChannel(target)
		return
	}
	c.client, c.target = &clientChannel{Channel: accepted}, target
	if kind == kindTunnel {
		c.count()
		c.banners = [2]*banner{{}, {}}
	}
	c.run(clientRequests, targetRequests)
}

// serveTarget is serve for a channel that the target wants, which may be refused by the client.
func (l *link) serveTarget(n xssh.NewChannel) {
	c := l.newChannel(kindTunnel)
	s := l.session
	if err := s.Observe(interpret.TargetOpen(c.number, n.ChannelType(), n.ExtraData())); err != nil {
		refuseTarget(n, "the session is over")
		return
	}
	accepted, clientRequests, err := l.connection.client.OpenChannel(n.ChannelType(), n.ExtraData())
	if err != nil {
		_ = s.Observe(interpret.OpenRefused(c.number, uint32(xssh.ConnectionFailed), "the client refused it")) // a failure cuts the session
		refuseTarget(n, "the client refused it")
		return
	}
	target, targetRequests, err := acceptTarget(n)
	if err != nil {
		go xssh.DiscardRequests(clientRequests)
		accepted.Close()
		return
	}
	c.client, c.target = &clientChannel{Channel: accepted}, target
	c.count()
	if n.ChannelType() != agentChannel {
		c.banners = [2]*banner{{}, {}}
	}
	c.run(clientRequests, targetRequests)
}

// count has a forwarded connection recorded by length and hash.
func (c *channel) count() {
	c.in = keep.Counts(c.number, true, "stdin", interpret.WhyForwarded)
	c.out[stdout] = keep.Counts(c.number, false, "stdout", interpret.WhyForwarded)
	c.out[stderr] = keep.Counts(c.number, false, "stderr", interpret.WhyForwarded)
	c.openGate()
}

// run copies until both sides have closed the channel.
func (c *channel) run(clientRequests, targetRequests <-chan *xssh.Request) {
	if c.link.add(c) {
		defer c.link.remove(c)
	} else {
		c.farewell(c.link.session.Ending().Sentence)
	}
	defer c.takeIn()()
	c.copy(clientRequests, targetRequests)
}

// takeIn has what waits to be read accounted for, until the returned function is called.
func (c *channel) takeIn() (end func()) {
	from, to := c.link.connection.flow, c.link.flow
	if _, ok := c.client.Channel.(*resumedChannel); ok {
		from = intake.NewFlow(c.link.connection.handler.purse) // wait.go accounts for it
	}
	flood := func(what string) func() { return func() { c.flooded(what) } }
	c.input = intake.New(from, c.client.Read, flood("the client sends, in small pieces, more than the target takes"))
	for stream, read := range [2]func([]byte) (int, error){c.target.Read, c.target.Stderr().Read} {
		c.output[stream] = intake.New(to, read, flood("the target sends, in small pieces, more than the client takes"))
	}
	c.output[stderr].Shares(c.output[stdout])
	return func() {
		from.Remove(c.input)
		for _, i := range c.output {
			to.Remove(i)
		}
	}
}

// open records the client's wish and passes it on; the target's answer is the client's.
func (c *channel) open(n xssh.NewChannel) (xssh.Channel, <-chan *xssh.Request, error) {
	s := c.link.session
	pass, err := s.Admit(c.link.admit, interpret.Open(c.number, n.ChannelType(), n.ExtraData()))
	if err != nil {
		return nil, nil, err
	}
	target, requests, err := c.opened(&pass, n)
	if err != nil {
		if refused, ok := errors.AsType[*xssh.OpenChannelError](err); ok {
			err = errors.Join(err, s.Observe(interpret.OpenRefused(c.number, uint32(refused.Reason), refused.Message)))
		}
		return nil, nil, err
	}
	return target, requests, s.Observe(format.Event{Type: interpret.TypeOpened, Channel: c.number})
}

// opened asks the target for the channel and waits for its answer, but not for ever: a target that does not answer holds the
// client's channel and nothing else, and what it opens too late is closed.
func (c *channel) opened(pass *session.Pass, n xssh.NewChannel) (xssh.Channel, <-chan *xssh.Request, error) {
	type answer struct {
		channel  xssh.Channel
		requests <-chan *xssh.Request
		err      error
	}
	answered := make(chan answer, 1)
	c.link.connection.spawn(func() {
		channel, requests, err := openChannel(pass, c.link.target, n.ChannelType(), n.ExtraData())
		answered <- answer{channel, requests, err}
	})
	late := time.NewTimer(c.link.connection.handler.AnswerTimeout)
	defer late.Stop()
	select {
	case a := <-answered:
		return a.channel, a.requests, a.err
	case <-late.C:
	}
	c.link.connection.spawn(func() {
		if a := <-answered; a.err == nil {
			go xssh.DiscardRequests(a.requests)
			closeChannel(a.channel)
		}
	})
	return nil, nil, &xssh.OpenChannelError{Reason: xssh.ConnectionFailed, Message: "the target did not answer in time"}
}

// refuse passes a target's refusal on as it is, and says otherwise why the session takes no more channels.
func (c *channel) refuse(n xssh.NewChannel, err error) {
	if refused, ok := errors.AsType[*xssh.OpenChannelError](err); ok {
		reject(n, refused.Reason, refused.Message)
		return
	}
	select {
	case <-c.link.session.Done():
		reject(n, xssh.Prohibited, c.link.session.Ending().Sentence)
	default:
		reject(n, xssh.ConnectionFailed, "the target did not open the channel")
	}
}

// begun says how the command is recorded that the target is about to hear of.
func (c *channel) begun(in *keep.Keeper, out [2]*keep.Keeper) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in, c.out, c.starting = in, out, true
}

// answered is called when the client has been told whether the command runs. Only then data flow: the answer comes first,
// also where the target was done and gone before it was passed on.
func (c *channel) answered(runs bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.starting = false
	if runs || c.targetGone {
		c.openGate()
	}
}

// targetClosed is called when the target has closed its end.
func (c *channel) targetClosed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.targetGone = true
	close(c.gone)
	if !c.starting {
		c.openGate()
	}
}

// keepers waits for data to flow and returns how they are recorded.
func (c *channel) keepers() (in *keep.Keeper, out [2]*keep.Keeper) {
	<-c.gate
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in, c.out
}

// copy runs the channel until both sides have closed it.
func (c *channel) copy(clientRequests, targetRequests <-chan *xssh.Request) {
	var (
		all, up, down, output sync.WaitGroup
		fromClient            = newQueue()
		fromTarget            = newQueue()
		clientClosed          = make(chan struct{})
	)
	run := func(f func(), groups ...*sync.WaitGroup) {
		for _, g := range groups {
			g.Add(1)
		}
		all.Go(func() {
			defer c.link.connection.handler.recovered(c.link.connection.close)
			defer func() {
				for _, g := range groups {
					g.Done()
				}
			}()
			f()
		})
	}
	// From the client to the target.
	run(func() {
		defer close(clientClosed)
		fromClient.feed(clientRequests, func() { c.abandon("too many requests wait for the target") })
	})
	run(func() {
		defer c.openGate()
		each(fromClient, c.ask)
	}, &up)
	run(c.copyUp, &up)
	run(func() { _, _ = io.Copy(io.Discard, c.client.Stderr()) }) // nothing is sent that way, but it counts
	run(func() {
		<-clientClosed
		ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
		defer cancel()
		within(ctx, up.Wait)
		closeChannel(c.target)
	})
	// From the target to the client.
	run(func() {
		defer c.targetClosed()
		fromTarget.feed(targetRequests, func() { c.abandon("the target sends too many requests") })
	}, &down)
	run(func() { each(fromTarget, c.tell) }, &down)
	run(func() { c.copyDown(stdout) }, &down, &output)
	run(func() { c.copyDown(stderr) }, &down, &output)
	run(func() { output.Wait(); c.endOutput() }, &down)
	run(func() { down.Wait(); c.closeClient() })
	all.Wait()
}

func each(q *queue, f func(*xssh.Request)) {
	for {
		r, ok := q.next()
		if !ok {
			return
		}
		f(r)
	}
}

// Buffers begin small, as most channels are quiet, and grow when they are filled.
const (
	firstBuffer   = 4 << 10
	largestBuffer = 128 << 10
)

// grown is a buffer for the next read.
func grown(buf []byte, n int) []byte {
	if n == len(buf) && n < largestBuffer {
		return make([]byte, 2*n)
	}
	return buf
}

// copyUp passes the client's data on, each read admitted before it goes. When the session or the target takes no more,
// it goes on reading, so that the client can finish.
func (c *channel) copyUp() {
	in, _ := c.keepers()
	dead := in == nil // no command was started
	buf := make([]byte, firstBuffer)
	for {
		n, err := c.input.Read(buf)
		if n > 0 && !dead {
			dead = c.up(in, buf[:n]) != nil
		}
		if err != nil {
			dead = dead || errors.Is(err, intake.ErrFlooded)
			break
		}
		buf = grown(buf, n)
	}
	c.inputEnded.Store(true)
	if dead {
		return
	}
	if b := c.banners[0]; b != nil && len(b.rest()) > 0 && c.sendUp(in, b.rest()) != nil {
		return
	}
	pass, err := c.link.session.Admit(c.link.admit, append(in.Last(), format.Event{Type: interpret.TypeEOF, Channel: c.number})...)
	if err == nil {
		_ = sendEOF(&pass, c.target) // fails where the target has closed the channel
	}
}

var errTunnel = errors.New("a tunnel to an SSH server would go around the recording")

func (c *channel) up(in *keep.Keeper, data []byte) error {
	if b := c.banners[0]; b != nil {
		pass, found := b.take(data)
		if found {
			c.abandon(errTunnel.Error())
			return errTunnel
		}
		data = pass
	}
	return c.sendUp(in, data)
}

func (c *channel) sendUp(in *keep.Keeper, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if c.atOnce > 0 && c.terminal.Load() {
		c.whole.Store(c.atOnce)
	}
	pass, err := c.link.session.Admit(c.link.admit, in.Events(data)...)
	if err != nil {
		return err
	}
	if c.typed != nil {
		c.typed.Typed(data)
	}
	return sendData(&pass, c.target, data)
}

// copyDown passes one stream of the target's on, each read recorded before the client sees it. When the client takes no
// more, it goes on reading, so that the target can finish.
func (c *channel) copyDown(stream int) {
	defer c.quiet[stream].end()
	_, outs := c.keepers()
	out := outs[stream]
	dead := out == nil
	buf := make([]byte, firstBuffer)
	for {
		n, err := c.quiet[stream].read(c.output[stream].Read, buf)
		if n > 0 && !dead {
			dead = c.down(stream, out, buf[:n]) != nil
		}
		if err != nil {
			break
		}
		buf = grown(buf, n)
	}
	if dead {
		return
	}
	if b := c.banners[1]; b != nil && stream == stdout && len(b.rest()) > 0 && c.sendDown(stream, out, b.rest()) != nil {
		return
	}
	last := out.Last()
	if c.typed != nil && stream == stdout {
		last = append(last, c.typed.Last()...)
	}
	if len(last) > 0 {
		_ = c.link.session.Observe(last...) // a failure cuts the session
	}
}

func (c *channel) down(stream int, out *keep.Keeper, data []byte) error {
	if b := c.banners[1]; b != nil && stream == stdout {
		pass, found := b.take(data)
		if found {
			c.abandon(errTunnel.Error())
			return errTunnel
		}
		data = pass
	}
	return c.sendDown(stream, out, data)
}

func (c *channel) sendDown(stream int, out *keep.Keeper, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	events := out.Events(data)
	if c.typed != nil {
		events = append(events, c.typed.Shown(data)...)
	}
	if err := c.link.session.Observe(events...); err != nil {
		return err
	}
	return c.client.write(stream, data)
}

// endOutput passes the end of the target's output on. A client whose own input has ended answers with a close, and the
// library answers that with a close of its own, after which no exit status can be told. So the end waits for the status,
// unless the client may still have to say something, for which it may wait for this very end. When the target has
// closed the channel or is gone, closing says it all, and there may be something left to say before.
func (c *channel) endOutput() {
	if c.kind == kindTunnel {
		c.client.eof()
		return
	}
	soon := time.NewTimer(statusTime)
	defer soon.Stop()
	for {
		select {
		case <-c.told:
			c.client.eof()
			return
		case <-c.gone:
			return
		case <-c.link.session.Done():
			return
		case <-soon.C:
			if !c.inputEnded.Load() {
				c.client.eof()
				return
			}
		}
	}
}

// closeClient closes the client's end after the target has closed its own. When that was because the whole session has
// ended, the user is told first, by the session's farewell.
func (c *channel) closeClient() {
	l := c.link
	if c.kind == kindSession && !c.client.exited.Load() {
		select {
		case <-l.lost:
		case <-l.session.Done():
		case <-time.After(lostTime):
		}
	}
	select {
	case <-l.lost:
		<-l.told
	case <-l.session.Done():
		<-l.told
	default:
		_ = l.session.Observe(format.Event{Type: interpret.TypeClosed, Channel: c.number}) // a failure cuts the session
	}
	c.client.Close()
}

// abandon gives a channel up: it is noted, and both ends are closed, without waiting for either.
func (c *channel) abandon(why string) {
	_ = c.link.session.Observe(format.JSON(format.TypeNote, c.number, format.Note{Kind: "abandoned", Text: why})) // a failure cuts the session
	go func() {
		closeChannel(c.target)
		c.client.Close()
	}()
}

// flooded gives a channel up of which more was sent than the other side takes and the gateway keeps. The client is told, if
// it listens.
func (c *channel) flooded(what string) {
	defer c.link.connection.handler.recovered(c.link.connection.close)
	_ = c.link.session.Observe(format.JSON(format.TypeNote, c.number, format.Note{Kind: "abandoned", Text: what})) // a failure cuts the session
	go closeChannel(c.target)
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	within(ctx, func() { c.farewell(what) })
	c.client.Close()
}

// deny answers a command that the gateway does not let pass: the client is told in words, as a command would, and with an
// exit status; a failed request would show a code and none of the reason.
func (c *channel) deny(r *refusal.Refusal) {
	terminal := c.terminal.Load()
	_ = c.client.notice(wordsFor(r, terminal), terminal) // fails where the client is gone
	c.client.exit(exitOf(r))
	c.client.eof()
	closeChannel(c.target)
	c.client.Close()
}

// showBanner shows what the target said at the gateway's login, once a session and on a terminal only: by then the client is
// past its own login, where a banner would stand, and what reads a command's errors expects none there.
func (c *channel) showBanner() {
	if c.link.banner == "" || c.link.bannerShown.Swap(true) {
		return
	}
	lines := strings.Split(strings.ReplaceAll(strings.TrimRight(c.link.banner, "\r\n"), "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = shown(strings.ReplaceAll(line, "\t", "    "))
	}
	text := strings.Join(lines, "\n") + "\n"
	if c.link.session.Observe(format.JSON(format.TypeNote, c.number, format.Note{Kind: "banner", Text: text})) == nil {
		_ = c.client.notice(text, true) // fails where the client is gone
	}
}

// farewell tells the user why the session ends, in a line and in the signal that ended what ran, and closes the client's end.
func (c *channel) farewell(sentence string) {
	if c.kind == kindSession {
		terminal := c.terminal.Load()
		text := "sallyport: " + shown(sentence) + "\n"
		if terminal {
			text = "\n" + text
		}
		_ = c.client.notice(text, terminal) // fails where the client is gone
		c.client.signalled(sentence)
	}
	c.client.eof()
	c.client.Close()
}
