package ssh

import (
	"context"
	"errors"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/interpret"
	"sallyport/protocols/ssh/keep"
	"sallyport/protocols/ssh/rules"
	"sallyport/recorder/format"
)

// maxRefusalNotes is how many refused requests of one channel are recorded; a client can send any number.
const maxRefusalNotes = 64

// asked is what a channel's client has asked for so far. It belongs to the goroutine that handles its requests.
type asked struct {
	environment int  // bytes of it
	terminal    bool // the target gave one
	started     bool // shell, exec or subsystem
	agent       bool // may be forwarded
	noTerminal  bool // one was asked for that may not be had
	variables   []string
	refusals    int
}

// may decides about a client's request: it is passed on, or refused with a reason, or (ignore) neither.
func (a *asked) may(r *xssh.Request) (reason string, ignore bool) {
	switch r.Type {
	case "pty-req":
		if a.started {
			return "the command has been started already", false
		}
	case "env":
		var e struct{ Name, Value string }
		if xssh.Unmarshal(r.Payload, &e) != nil {
			return "malformed", false
		}
		if !rules.Variable(e.Name, a.variables) {
			return "not on the list of variables that pass", false
		}
		if a.environment += len(r.Payload); a.environment > rules.MaxEnvironment {
			return "too large an environment", false
		}
	case "shell", "exec", "subsystem":
		if a.started {
			return "one channel runs one command", false
		}
	case "window-change":
		return "", !a.terminal
	case "signal", "break", "eow@openssh.com":
	case "x11-req":
		return "X11 forwarding is not passed on", false
	case agentRequest:
		if !a.agent {
			return "agent forwarding is not allowed", false
		}
	default:
		return "unknown", false
	}
	return "", false
}

// ask handles one request of the client.
func (c *channel) ask(r *xssh.Request) {
	reason, ignore := "not on a tunnel", false
	if c.kind == kindSession {
		limits := c.link.limits()
		c.asked.agent, c.asked.variables = c.link.agentAllowed(), limits.Environment
		reason, ignore = c.asked.may(r)
		if r.Type == "pty-req" && reason == "" && !limits.TerminalOn() {
			// The client is told in words, when it says what to run; on a bare no OpenSSH's gives up without any, but after it has said so.
			c.asked.noTerminal = true
			c.terminal.Store(true)
			_ = r.Reply(true, nil) // a failed write shows in the connection's end
			return
		}
	}
	if starts(r) && reason == "" {
		denied := c.link.mayRun(r)
		if denied == nil && c.asked.noTerminal {
			denied = refusal.New(refusal.NotPermitted, "%s allows no terminal", c.link.connection.address).WithHint("leave it out: ssh -T")
		}
		if denied != nil {
			c.asked.started = true
			c.noteRefusal(r, denied.Message)
			c.link.connection.audit(c.link.to.Name, c.link.account.Name, denied)
			_ = r.Reply(true, nil) // a failed write shows in the connection's end; so below
			c.answered(true)
			c.deny(denied)
			return
		}
	}
	done, err := false, error(nil)
	switch {
	case ignore:
	case reason != "":
		c.noteRefusal(r, reason)
	default:
		done, err = c.pass(r)
	}
	_ = r.Reply(done && err == nil, nil)
	if starts(r) && reason == "" {
		c.answered(done && err == nil)
	}
}

var errNoAnswer = errors.New("no answer in time")

// starts says that the request starts what the channel is for.
func starts(r *xssh.Request) bool {
	return r.Type == "shell" || r.Type == "exec" || r.Type == "subsystem"
}

// pass admits a request and passes it on; done says that the target did it, or was not asked to say.
func (c *channel) pass(r *xssh.Request) (bool, error) {
	var done bool
	pass, err := c.link.session.Admit(c.link.admit, interpret.Request(c.number, r.Type, r.WantReply, r.Payload))
	if err != nil {
		return false, err
	}
	if r.Type == "shell" && c.terminal.Load() {
		c.showBanner()
	}
	if starts(r) {
		c.prepare(r)
	}
	answered, stop := context.WithTimeout(context.Background(), c.link.connection.handler.AnswerTimeout)
	defer stop()
	sent := make(chan struct{})
	go func() { // it ends with the channel at the latest
		defer close(sent)
		done, err = sendRequest(&pass, c.target, r)
	}()
	select {
	case <-sent:
	case <-answered.Done():
		c.abandon("the target did not answer " + shown(r.Type) + " in time")
		return false, errNoAnswer
	}
	if err != nil {
		return false, err
	}
	if !r.WantReply {
		done = true
	} else if err := c.link.session.Observe(interpret.Reply(c.number, r.Type, done)); err != nil {
		return false, err
	}
	switch {
	case starts(r):
		c.asked.started = done
	case r.Type == agentRequest && done:
		c.link.allowAgent()
	case r.Type == "pty-req":
		c.asked.terminal = c.asked.terminal || done
		c.terminal.Store(c.asked.terminal)
	}
	return done, nil
}

// prepare decides how the command's data are recorded, before any can come.
func (c *channel) prepare(r *xssh.Request) {
	var line struct{ Value string }
	if r.Type != "shell" && xssh.Unmarshal(r.Payload, &line) != nil {
		line.Value = "" // the target will say what it thinks of it
	}
	if interpret.SFTP(r.Type, line.Value) {
		// On a terminal too: what is sent there are requests, not what somebody types.
		in, out := keep.SFTP(c.number)
		c.begun(in, [2]*keep.Keeper{out, keep.Whole(c.number, format.TypeAnsweredError, "stderr", &c.whole)})
		return
	}
	if c.asked.terminal && c.link.account.RecordInput {
		c.typed = keep.NewTyped(c.number)
	}
	if c.asked.terminal && c.atOnce > 0 {
		c.begun(keep.Counts(c.number, true, "stdin", interpret.WhyTyped), [2]*keep.Keeper{
			keep.Shown(c.number, format.TypeAnswered, "stdout", &c.whole), keep.Shown(c.number, format.TypeAnsweredError, "stderr", &c.whole),
		})
		return
	}
	if c.asked.terminal {
		c.begun(keep.Counts(c.number, true, "stdin", interpret.WhyTyped), [2]*keep.Keeper{
			keep.All(c.number, format.TypeAnswered), keep.All(c.number, format.TypeAnsweredError),
		})
		return
	}
	if _, _, ok := interpret.SCP(r.Type, line.Value); ok {
		in, out := keep.SCP(c.number)
		c.begun(in, [2]*keep.Keeper{out, keep.Whole(c.number, format.TypeAnsweredError, "stderr", &c.whole)})
		return
	}
	in := keep.Counts(c.number, true, "stdin", interpret.WhyInput)
	if interpret.Interprets(r.Type, line.Value) {
		in = keep.Input(c.number, &c.script)
	}
	out := [2]*keep.Keeper{
		keep.Whole(c.number, format.TypeAnswered, "stdout", &c.whole), keep.Whole(c.number, format.TypeAnsweredError, "stderr", &c.whole),
	}
	c.begun(in, out)
}

// noteRefusal records what was not passed on.
func (c *channel) noteRefusal(r *xssh.Request, reason string) {
	if c.asked.refusals++; c.asked.refusals > maxRefusalNotes {
		return
	}
	_ = c.link.session.Observe(format.JSON(format.TypeNote, c.number, format.Note{ // a failure cuts the session
		Kind: "refused", Text: reason, Fields: map[string]string{"request": shown(r.Type)},
	}))
}

// tell handles one request of the target.
func (c *channel) tell(r *xssh.Request) {
	switch r.Type {
	case "exit-status", "exit-signal":
		<-c.gate // the answer to the command comes first
		settle(c.quiet[:], c.link.session.Done())
		c.forward(r)
	case "eow@openssh.com", "xon-xoff":
		<-c.gate
		c.forward(r)
	default: // keepalive@openssh.com wants any answer at all
		answerTarget(r, false)
	}
}

// wellFormed says that a request of the target is what its name says (RFC 4254, section 6.10); others are not passed on.
func wellFormed(r *xssh.Request) bool {
	switch r.Type {
	case "exit-status":
		return len(r.Payload) == 4
	case "exit-signal":
		var e struct {
			Signal            string
			Core              bool
			Message, Language string
		}
		return xssh.Unmarshal(r.Payload, &e) == nil
	default:
		return len(r.Payload) <= 1
	}
}

// forward records a request of the target and passes it on to the client.
func (c *channel) forward(r *xssh.Request) {
	if c.link.session.Observe(interpret.TargetRequest(c.number, r.Type, r.WantReply, r.Payload)) != nil {
		return
	}
	if !wellFormed(r) {
		answerTarget(r, false)
		return
	}
	ends := r.Type == "exit-status" || r.Type == "exit-signal"
	if ends && !c.client.exited.CompareAndSwap(false, true) {
		return
	}
	_, _ = c.client.SendRequest(r.Type, false, r.Payload) // a failed write shows in the connection's end
	if ends {
		close(c.told)
	}
	answerTarget(r, true)
}
