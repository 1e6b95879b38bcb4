package ssh

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"

	xssh "golang.org/x/crypto/ssh"
)

// The streams of a channel towards the client.
const (
	stdout = 0
	stderr = 1
)

// clientChannel is the client's end of a channel, with one writer a stream at a time: the target's output and the
// gateway's own words share them.
type clientChannel struct {
	xssh.Channel
	streams [2]sync.Mutex // held while writing, which may wait for the client
	exited  atomic.Bool   // the client was told how the command ended; nobody tells it twice
}

func (c *clientChannel) write(stream int, data []byte) error {
	c.streams[stream].Lock()
	defer c.streams[stream].Unlock()
	var w io.Writer = c.Channel
	if stream == stderr {
		w = c.Stderr()
	}
	_, err := w.Write(data)
	return err
}

// eof says that no more output comes, after what is being written.
func (c *clientChannel) eof() {
	for i := range c.streams {
		c.streams[i].Lock()
		defer c.streams[i].Unlock()
	}
	_ = c.CloseWrite() // fails where the client is gone, which shows elsewhere
}

// notice shows the gateway's own words: on the terminal where there is one, else on stderr, never among a command's output.
func (c *clientChannel) notice(text string, terminal bool) error {
	if terminal {
		return c.write(stdout, []byte(strings.ReplaceAll(text, "\n", "\r\n")))
	}
	return c.write(stderr, []byte(text))
}

// signalled tells the client that what ran was ended by a hang-up and why, unless it was told how it ended (RFC 4254, section
// 6.10). OpenSSH's client ends with 255.
func (c *clientChannel) signalled(why string) {
	if c.exited.CompareAndSwap(false, true) {
		_, _ = c.SendRequest("exit-signal", false, xssh.Marshal(struct {
			Signal        string
			Core          bool
			Message, Lang string
		}{"HUP", false, shown(why), "en"}))
	}
}

// exit tells the client a status of the gateway's own, unless it was told one.
func (c *clientChannel) exit(status uint32) {
	if c.exited.CompareAndSwap(false, true) {
		_, _ = c.SendRequest("exit-status", false, xssh.Marshal(struct{ Status uint32 }{status}))
	}
}
