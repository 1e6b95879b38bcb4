package ssh

import (
	"fmt"
	"io"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
)

// localTime is how long a session channel that the gateway answers itself may wait for the client to ask for something.
const localTime = 30 * time.Second

// answer is what the gateway itself says instead of a command.
type answer struct {
	text   string
	output bool // a terminal apart, it goes to stdout
	status uint32
}

// answerSession accepts a session channel that has no target and answers the first shell, exec or subsystem on it. So a
// user sees words and an exit status, where a refused channel would show a code.
func (c *connection) answerSession(n xssh.NewChannel, respond func(request string) answer) {
	channel, requests, err := n.Accept()
	if err != nil {
		return
	}
	client := &clientChannel{Channel: channel}
	defer client.Close()
	idle := time.AfterFunc(localTime, func() { client.Close() })
	defer idle.Stop()
	c.spawn(func() { _, _ = io.Copy(io.Discard, channel) })
	c.spawn(func() { _, _ = io.Copy(io.Discard, channel.Stderr()) })
	terminal, answered := false, false
	for r := range requests { // to the end, which the client's own close brings
		switch r.Type {
		case "pty-req":
			terminal = true
			_ = r.Reply(true, nil) // a failed write shows in the connection's end; so below
		case "shell", "exec", "subsystem":
			_ = r.Reply(!answered, nil)
			if answered {
				continue
			}
			answered = true
			c.say(client, respond(r.Type), terminal)
		default:
			_ = r.Reply(r.Type == "env", nil)
		}
	}
}

// say writes the answer and closes the channel, in a goroutine of its own: the client may read slowly, or not at all.
func (c *connection) say(client *clientChannel, a answer, terminal bool) {
	c.spawn(func() {
		if a.output && !terminal {
			_ = client.write(stdout, []byte(a.text))
		} else {
			_ = client.notice(a.text, terminal)
		}
		client.exit(a.status)
		client.eof()
		client.Close()
	})
}

// refuseSession says why there is no session on the target.
func (c *connection) refuseSession(n xssh.NewChannel, r *refusal.Refusal) {
	c.answerSession(n, func(string) answer { return answer{text: words(r, "\n"), status: exitOf(r)} })
}

// greet answers a session channel on a connection that names no target.
func (c *connection) greet(n xssh.NewChannel) {
	c.answerSession(n, func(request string) answer {
		if request != "shell" {
			return answer{status: exitRefused, text: words(refusal.New(refusal.UnknownTarget, "which target?").
				WithDetail("the user name is ACCOUNT@TARGET").
				WithHint("ssh ACCOUNT@TARGET@%s", c.handler.Host), "\n")}
		}
		text, err := c.greeting()
		if err != nil {
			c.handler.Log.Error("an SSH greeting failed", "error", err)
			return answer{status: exitFailed, text: "sallyport: the gateway could not look up what you may do; try again in a minute\n"}
		}
		return answer{text: text, output: true}
	})
}

// greeting is who the user is, what they may reach, and how.
func (c *connection) greeting() (string, error) {
	who := c.proof.identity
	offers, err := c.handler.Grants.Offers(c.ctx, who)
	if err != nil {
		return "", fmt.Errorf("list offers: %w", err)
	}
	grants, err := c.handler.Grants.List(c.ctx, who, false)
	if err != nil {
		return "", fmt.Errorf("list grants: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Signed in as %s", shown(who.Label()))
	if who.Email != "" && who.Email != who.Label() {
		fmt.Fprintf(&b, " (%s)", shown(who.Email))
	}
	fmt.Fprintf(&b, " until %s.\n", who.Expires.Local().Format("2006-01-02 15:04 MST"))
	live := 0
	for _, g := range grants {
		if g.Identity.Key() != who.Key() || g.State != grant.Active && g.State != grant.Approved {
			continue
		}
		if live++; live == 1 {
			b.WriteString("\nYour grants:\n")
		}
		until := "not used yet"
		if g.State == grant.Active {
			until = "until " + g.Until.Local().Format("15:04 MST")
		}
		fmt.Fprintf(&b, "  %-32s %s  %s\n", shown(g.Account+"@"+g.Target), g.ID, until)
	}
	ssh := 0
	for _, o := range offers {
		if o.Kind != configs.KindSSH {
			continue
		}
		if ssh++; ssh == 1 {
			b.WriteString("\nYou may ask for:\n")
		}
		how := "approved by policy"
		if !o.Auto {
			how = "approved by " + strings.Join(o.MayApprove, ", ")
		}
		fmt.Fprintf(&b, "  %-32s up to %s, %s\n", shown(o.Account+"@"+o.Target), o.MaxDuration, shown(how))
	}
	if ssh == 0 {
		b.WriteString("\nThere is no SSH target that you may ask for.\n")
		return b.String(), nil
	}
	fmt.Fprintf(&b, "\nAsk with:      sallyport request ACCOUNT@TARGET --duration 30m --reason \"…\"\n")
	fmt.Fprintf(&b, "Connect with:  ssh ACCOUNT@TARGET@%s\n", shown(c.handler.Host))
	return b.String(), nil
}
