package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/intake"
	"sallyport/protocols/ssh/rules"
)

const (
	// promptWait is how long a terminal waits for an approval.
	promptWait = 5 * time.Minute
	// keepTyped is how much of what is typed meanwhile is kept for the shell.
	keepTyped = 4 << 10
	// keepAsked is how many requests a channel may make before it says what it wants to run, and keepAskedBytes how large they
	// may be together.
	keepAsked      = 64
	keepAskedBytes = rules.MaxEnvironment + 16<<10
)

// Variables with which a client says what to ask for: ssh -o SetEnv=SALLYPORT_REASON=…. They are for the gateway and go no
// further.
const (
	envReason   = "SALLYPORT_REASON"
	envDuration = "SALLYPORT_DURATION"
	envTicket   = "SALLYPORT_TICKET"
	envPrefix   = "SALLYPORT_"
)

// waitSession answers a session channel for which there is no grant. Where a terminal was asked for there is a person, who
// waits for an approval with the answer to their shell held; everybody else is told at once.
func (c *connection) waitSession(n xssh.NewChannel, no *refusal.Refusal) {
	channel, requests, err := n.Accept()
	if err != nil {
		return
	}
	w := &waiting{connection: c, kind: n.ChannelType(), extra: n.ExtraData(), channel: channel, client: &clientChannel{Channel: channel}, queue: newQueue()}
	w.pipeOut, w.pipeIn = io.Pipe()
	defer w.pipeOut.Close()
	w.input = intake.New(c.flow, channel.Read, func() { w.client.Close() })
	defer c.flow.Remove(w.input)
	defer w.client.Close()
	idle := time.AfterFunc(localTime, func() { w.client.Close() })
	start := w.untilStart(requests)
	idle.Stop()
	if start == nil {
		return
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	c.spawn(func() {
		defer cancel(errClientGone)
		w.queue.feed(requests, func() { w.client.Close() })
	})
	if w.terminal {
		c.spawn(func() { w.listen(cancel) })
		if err := w.lease(ctx); err == nil {
			if l, err := c.begin(); err == nil {
				w.resume(start)
				l.serve(w, kindSession)
				return
			} else {
				no = c.handler.asRefusal(err)
			}
		} else if errors.Is(err, errClientGone) {
			return
		} else if errors.Is(err, errInterrupted) {
			no = refusal.New(refusal.NoGrant, "stopped waiting")
		} else {
			no = c.handler.asRefusal(err)
		}
	} else {
		c.spawn(func() { _, _ = io.Copy(io.Discard, w.input) })
	}
	c.spawn(func() { _, _ = io.Copy(io.Discard, channel.Stderr()) })
	_ = start.Reply(true, nil) // a failed write shows in the connection's end
	c.say(w.client, answer{no: no, status: exitOf(no)}, w.terminal)
	for { // to the end, which the client's own close brings
		r, ok := w.queue.next()
		if !ok {
			return
		}
		_ = r.Reply(false, nil)
	}
}

// waiting is a session channel that was accepted before there was a session. To a link it is a new channel that is yet to be
// accepted.
type waiting struct {
	connection *connection
	kind       string
	extra      []byte
	channel    xssh.Channel
	input      *intake.Stream // reads channel
	client     *clientChannel
	terminal   bool
	ask        grant.Ask
	asked      []*xssh.Request // before the start, in order, without a reply that is still owed
	queue      *queue          // after it
	replay     chan *xssh.Request

	pipeIn  *io.PipeWriter // what is typed
	pipeOut *io.PipeReader
	mu      sync.Mutex
	resumed bool
	typed   []byte
	ended   error // of what is typed
}

// untilStart takes requests up to the one that starts something, and returns that; nil where none comes. Clients wait for
// some answers before they go on, so all but the last get one.
func (w *waiting) untilStart(requests <-chan *xssh.Request) *xssh.Request {
	size := 0
	for r := range requests {
		if starts(r) {
			return r
		}
		keep := len(w.asked) < keepAsked && size+len(r.Payload) <= keepAskedBytes
		switch r.Type {
		case "pty-req":
			w.terminal = true
		case "env":
			var e struct{ Name, Value string }
			if xssh.Unmarshal(r.Payload, &e) != nil {
				keep = false
			} else if strings.HasPrefix(e.Name, envPrefix) {
				keep = false
				w.set(e.Name, e.Value)
			}
		case agentRequest:
		default:
			keep = false
		}
		if keep {
			size += len(r.Payload)
			w.asked = append(w.asked, &xssh.Request{Type: r.Type, Payload: r.Payload})
		}
		_ = r.Reply(keep || r.Type == "env", nil) // a failed write shows in the connection's end
	}
	return nil
}

func (w *waiting) set(name, value string) {
	switch name {
	case envReason:
		w.ask.Reason = value
	case envTicket:
		w.ask.Ticket = value
	case envDuration:
		if d, err := configs.ParseDuration(value); err == nil {
			w.ask.Duration = d.D()
		} else {
			w.ask.Duration = -1 // refused when it is asked for
		}
	}
}

// lease waits until there is a lease to be had.
func (w *waiting) lease(ctx context.Context) error {
	c := w.connection
	ctx = grant.WithSource(ctx, c.client.RemoteAddr())
	lease, err := c.handler.Grants.LeaseOrWait(ctx, c.proof.identity, c.address.target, c.address.account, c.handler.PromptWait, w.ask, func(now grant.Waiting) error {
		text := "sallyport: " + shown(now.Text()) + "\n"
		if now.Grant.ID == "" {
			text += fmt.Sprintf("  Ask here: %s/console/ask?%s\n", strings.TrimSuffix(c.handler.URL, "/"), url.Values{"target": {now.Target}, "account": {now.Account}}.Encode())
		} else {
			text += fmt.Sprintf("  The reason given is: %s\n", shown(now.Grant.Reason))
		}
		text += fmt.Sprintf("  This goes on when it is there; Ctrl-C stops waiting, which ends by itself at %s.\n", now.Until.Local().Format("15:04:05 MST"))
		return w.client.write(stderr, []byte(strings.ReplaceAll(text, "\n", "\r\n"))) // the terminal is raw by now
	})
	if err != nil {
		return err
	}
	lease.Return() // the session takes one of its own
	return nil
}

var errInterrupted = errors.New("the user stopped waiting")

// listen takes what is typed: while nobody else reads it, for the keys that stop the waiting; then for the shell.
func (w *waiting) listen(cancel context.CancelCauseFunc) {
	buf := make([]byte, 32<<10)
	for {
		n, err := w.input.Read(buf)
		if !w.take(buf[:n], err, cancel) && n > 0 {
			if _, broken := w.pipeIn.Write(buf[:n]); broken != nil {
				return
			}
		}
		if err != nil {
			w.mu.Lock()
			resumed := w.resumed
			w.mu.Unlock()
			if resumed {
				w.pipeIn.CloseWithError(err)
			}
			return
		}
	}
}

// take keeps what was typed while it waits, and reports whether it did.
func (w *waiting) take(typed []byte, ended error, cancel context.CancelCauseFunc) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.resumed {
		return false
	}
	w.ended = ended
	if bytes.ContainsAny(typed, "\x03\x04") { // Ctrl-C, Ctrl-D
		cancel(errInterrupted)
	}
	w.typed = append(w.typed, typed[:min(len(typed), keepTyped-len(w.typed))]...)
	return true
}

// resume gives the shell what was typed and asked meanwhile, and then what comes.
func (w *waiting) resume(start *xssh.Request) {
	w.replay = make(chan *xssh.Request)
	done := w.connection.ctx.Done()
	w.connection.spawn(func() {
		defer close(w.replay)
		for _, r := range append(w.asked, start) {
			select {
			case w.replay <- r:
			case <-done:
				return
			}
		}
		for {
			r, ok := w.queue.next()
			if !ok {
				return
			}
			select {
			case w.replay <- r:
			case <-done:
				return
			}
		}
	})
	w.mu.Lock() // so that nothing overtakes what was typed before
	w.resumed = true
	w.connection.spawn(func() {
		defer w.mu.Unlock()
		if len(w.typed) > 0 {
			_, _ = w.pipeIn.Write(w.typed) // nobody reads it when the channel is gone
		}
		if w.ended != nil {
			w.pipeIn.CloseWithError(w.ended)
		}
	})
}

// Accept, Reject, ChannelType and ExtraData are xssh.NewChannel.
func (w *waiting) Accept() (xssh.Channel, <-chan *xssh.Request, error) {
	return &resumedChannel{w.channel, w.pipeOut}, w.replay, nil
}

// Reject says why the channel leads nowhere after all, and waits until the client has closed it: what was said on a channel that is
// closed too soon is lost.
func (w *waiting) Reject(_ xssh.RejectionReason, message string) error {
	said := false
	for r := range w.replay {
		first := starts(r) && !said
		_ = r.Reply(first, nil) // a failed write shows in the connection's end
		if first {
			said = true
			w.connection.say(w.client, answer{text: "sallyport: " + message + "\n", status: exitFailed}, w.terminal)
		}
	}
	return nil
}

func (w *waiting) ChannelType() string { return w.kind }
func (w *waiting) ExtraData() []byte   { return w.extra }

// resumedChannel reads what was typed by way of listen.
type resumedChannel struct {
	xssh.Channel
	typed *io.PipeReader
}

func (c *resumedChannel) Read(b []byte) (int, error) { return c.typed.Read(b) }
