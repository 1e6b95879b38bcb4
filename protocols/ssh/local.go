package ssh

import (
	"io"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
)

// localTime is how long a session channel that the gateway answers itself may wait for the client to ask for something.
const localTime = 30 * time.Second

// answer is what the gateway itself says instead of a command.
type answer struct {
	text   string
	no     *refusal.Refusal // instead of text
	output bool             // a terminal apart, it goes to stdout
	status uint32
}

// answerSession accepts a session channel that has no target and answers the first shell, exec or subsystem on it. So a
// user sees words and an exit status, where a refused channel would show a code.
func (c *connection) answerSession(n xssh.NewChannel, respond func(*xssh.Request) answer) {
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
			c.say(client, respond(r), terminal)
		default:
			_ = r.Reply(r.Type == "env", nil)
		}
	}
}

// say writes the answer and closes the channel, in a goroutine of its own: the client may read slowly, or not at all.
func (c *connection) say(client *clientChannel, a answer, terminal bool) {
	c.spawn(func() {
		if a.no != nil {
			a.text = wordsFor(a.no, terminal)
		}
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
	c.answerSession(n, func(*xssh.Request) answer { return answer{no: r, status: exitOf(r)} })
}

// greet answers a session channel on a connection that names no target.
func (c *connection) greet(n xssh.NewChannel) { c.answerSession(n, c.menu) }
