package ssh

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/protocols/ssh/interpret"
)

// TestWhatATargetOpens: a target uses the agent of a client who has asked for that on this connection, and opens connections from where it
// was asked to listen, under a role that allows it now, and not without end; and nothing else that it opens gets through.
func TestWhatATargetOpens(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	on, off := true, false
	user := r.roleAt("agent", "odd", configs.SSHLimits{Agent: &on, RemoteForward: true, UnixSockets: true, DynamicForward: true})
	opened := func(c *xssh.Client, ask bool) string {
		t.Helper()
		s := must(c.NewSession())(t)
		if ask {
			if done, err := s.SendRequest(agentRequest, true, nil); !done || err != nil {
				t.Fatalf("the client may not ask for it: %v, %v", done, err)
			}
		}
		out, err := s.Output("open")
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for line := range strings.Lines(string(out)) {
			if kind, ok := strings.CutSuffix(line, ": <nil>\n"); ok {
				kinds = append(kinds, kind)
			} else if strings.Contains(line, "the client refused it") { // which the library does that knows of no such listener
				kinds = append(kinds, line[:strings.Index(line, ":")])
			} else if !strings.Contains(line, "not allowed through this gateway") {
				t.Errorf("it is told %q", line)
			}
		}
		return strings.Join(kinds, ",")
	}
	accepting := func() *xssh.Client {
		c := r.client(user)
		for _, kind := range []string{agentChannel, forwardedTCPIP, forwardedStreamlocal, "x11", "session", "direct-tcpip", "tun@openssh.com"} {
			channels := c.HandleChannelOpen(kind)
			if channels == nil { // the library has its own
				continue
			}
			go func() {
				for n := range channels {
					if _, requests, err := n.Accept(); err == nil {
						go xssh.DiscardRequests(requests)
					}
				}
			}()
		}
		return c
	}
	c := accepting()
	if kinds := opened(c, false); kinds != "" {
		t.Errorf("before the client has asked, it opens %s", kinds)
	}
	if kinds := opened(c, true); kinds != agentChannel {
		t.Errorf("after the client has asked for its agent to be forwarded, it opens %q", kinds)
	}
	if kinds := opened(accepting(), false); kinds != "" {
		t.Errorf("on another connection it opens %s", kinds)
	}
	if out, err := must(c.NewSession())(t).Output("many"); err != nil || string(out) != fmt.Sprintln(maxChannels-2) { // beside the one from before, and this
		t.Errorf("it opens %q of %d channels, %v", out, 2*maxChannels, err)
	}

	c = accepting()
	tcp := func(port uint32) []byte {
		return xssh.Marshal(interpret.ForwardTCPIP{Address: "127.0.0.1", Port: port})
	}
	socket := xssh.Marshal(interpret.StreamlocalForward{Path: placeSocket})
	global := func(want bool, kind string, payload []byte) {
		t.Helper()
		if done, _, err := c.SendRequest(kind, true, payload); done != want || err != nil {
			t.Errorf("%s %q: %v, %v", kind, payload, done, err)
		}
	}
	global(false, cancelTCPIPForward, tcp(80)) // it does not listen there
	global(true, tcpipForward, tcp(81))
	if kinds := opened(c, false); kinds != "" {
		t.Errorf("from where it was not asked to listen, it opens %s", kinds)
	}
	global(true, tcpipForward, tcp(80))
	global(true, streamlocalForward, socket)
	if kinds := opened(c, false); kinds != forwardedTCPIP+","+forwardedStreamlocal {
		t.Errorf("from where it was asked to listen, it opens %q", kinds)
	}
	global(true, cancelTCPIPForward, tcp(80))
	global(true, cancelStreamlocalForward, socket)
	if kinds := opened(c, false); kinds != "" {
		t.Errorf("from where it was to listen no more, it opens %s", kinds)
	}
	global(true, tcpipForward, tcp(80))
	global(true, streamlocalForward, socket)
	for port := range uint32(maxListens - 3) {
		global(true, tcpipForward, tcp(1000+port))
	}
	global(false, tcpipForward, tcp(999))
	limits := &r.config.Roles[len(r.config.Roles)-1].Limits.SSH
	limits.UnixSockets = false
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	if kinds := opened(c, false); kinds != forwardedTCPIP {
		t.Errorf("without sockets it opens %q", kinds)
	}
	limits.RemoteForward = false
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	if kinds := opened(c, true); kinds != agentChannel {
		t.Errorf("after the role was narrowed, it opens %q", kinds)
	}
	limits.Agent = &off
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	if kinds := opened(c, false); kinds != "" {
		t.Errorf("after the role was narrowed, it opens %s", kinds)
	}
	if done, err := must(c.NewSession())(t).SendRequest(agentRequest, true, nil); done || err != nil {
		t.Errorf("after the role was narrowed, the target is asked: %v, %v", done, err)
	}
}

// TestTheGatewayAsksNobody: what a role does not allow is refused by the gateway itself, to which a target that would do anything makes
// no difference.
func TestTheGatewayAsksNobody(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	r.config.Targets[5].Address = "203.0.113.9:5432" // orders, which is Postgres
	on := true
	all := configs.SSHLimits{Agent: &on, RemoteForward: true, UnixSockets: true, DynamicForward: true, Forward: []string{"*:*"}}
	commands := all
	commands.Commands = []string{"heard"}
	allowed, narrow, nothing := r.roleAt("all", "odd", all), r.roleAt("commands", "odd", commands), r.roleAt("nothing", "odd", configs.SSHLimits{})
	tcp := func(host string, port uint32) []byte {
		return xssh.Marshal(interpret.DirectTCPIP{Host: host, Port: port})
	}
	for user, opens := range map[string]bool{allowed: true, narrow: false, nothing: false} {
		c := r.client(user)
		for kind, extra := range map[string][]byte{"direct-tcpip": tcp("example.com", 80), directStreamlocal: xssh.Marshal(interpret.DirectStreamlocal{Path: placeSocket})} {
			ch, _, err := c.OpenChannel(kind, extra)
			if (err == nil) != opens {
				t.Errorf("%s: %s: %v", user, kind, err)
			}
			if err == nil {
				ch.Close()
			}
		}
		if ch, _, err := c.OpenChannel("direct-tcpip", tcp("203.0.113.9", 5432)); err == nil {
			ch.Close()
			t.Errorf("%s: a tunnel to another target", user)
		}
		for kind, payload := range map[string][]byte{
			tcpipForward:       xssh.Marshal(interpret.ForwardTCPIP{Address: "127.0.0.1", Port: 80}),
			streamlocalForward: xssh.Marshal(interpret.StreamlocalForward{Path: placeSocket}),
		} {
			if done, _, err := c.SendRequest(kind, true, payload); done != opens || err != nil {
				t.Errorf("%s: %s: %v, %v", user, kind, done, err)
			}
		}
		s := must(c.NewSession())(t)
		if done, err := s.SendRequest(agentRequest, true, nil); done != opens || err != nil {
			t.Errorf("%s: agent: %v, %v", user, done, err)
		}
		if out, err := s.Output("heard"); err != nil || (string(out) == "[]\n") == opens {
			t.Errorf("%s: the target has heard %q, %v", user, out, err)
		}
	}
}

// oneCommand: a channel runs one, whatever the target would do.
func oneCommand(t *testing.T, r *rig) {
	c := r.raw(t)
	c.login("me@odd", r.signer)
	number := c.run(1<<20, 1<<15, "deaf")
	for _, kind := range []string{"exec", "shell", "subsystem", "pty-req"} {
		c.send(append([]byte{rawChannelRequest}, xssh.Marshal(struct {
			Number  uint32
			Kind    string
			Reply   bool
			Command string
		}{number, kind, true, "hello"})...))
		if p := c.read(rawChannelSuccess, rawChannelFailure); p[0] != rawChannelFailure {
			t.Errorf("a second %s: %q", kind, p)
		}
	}
}

// ends: of how a command ended the client hears once, and only what is well formed.
func ends(t *testing.T, r *rig) {
	for command, want := range map[string]int{"broken": 0, "twice": 1, "hello": 1, "vanishes": 0} {
		c := r.raw(t)
		c.login("me@odd", r.signer)
		c.run(1<<20, 1<<15, command)
		told := 0
		for p := c.read(rawChannelRequest, rawChannelClose); p[0] == rawChannelRequest; p = c.read(rawChannelRequest, rawChannelClose) {
			if !bytes.Contains(p, []byte("exit-")) {
				t.Errorf("%s: the client hears %q", command, p)
			}
			told++
		}
		if told != want {
			t.Errorf("%s: the client hears %d times how it ended", command, told)
		}
		c.conn.Close()
	}
}

// answeredByTheGateway: what a target asks is answered by the gateway, one way or the other, and the client hears nothing of it: a target's keys are not the
// gateway's, and whether the client lives is the gateway's business. Of the client's own such requests the target hears nothing.
func answeredByTheGateway(t *testing.T, r *rig) {
	c := r.raw(t)
	c.login("me@odd", r.signer)
	for _, kind := range []string{"keepalive@openssh.com", "hostkeys-prove-00@openssh.com", "hello@example.com", "no-more-sessions@openssh.com"} {
		c.send(global(kind, nil))
		if p := c.read(rawGlobalSuccess, rawGlobalFailure); (p[0] == rawGlobalSuccess) != (kind == "keepalive@openssh.com" || kind == "no-more-sessions@openssh.com") {
			t.Errorf("%s is answered with %q", kind, p)
		}
	}
	c.conn.Close()
	client := r.client("me@odd")
	out, err := must(client.NewSession())(t).Output("asks")
	if n := strings.Count(string(out), "false <nil>\n"); err != nil || n != 5 {
		t.Errorf("it was answered %q, %v", out, err)
	}
	out, err = must(client.NewSession())(t).Output("heard")
	if err != nil || string(out) != "[]\n" {
		t.Errorf("it has heard %q, %v", out, err)
	}
	// The client's side of it, in which the library's client would hide requests.
	c = r.raw(t)
	c.login("me@odd", r.signer)
	c.run(1<<20, 1<<15, "asks")
	for {
		p := c.read(rawGlobalRequest, rawChannelOpen, rawChannelRequest, rawChannelClose)
		if p[0] == rawChannelClose {
			break
		}
		if p[0] != rawChannelRequest || !bytes.Contains(p, []byte("exit-status")) {
			t.Errorf("the client hears %q", p)
		}
	}
}

// global is a request about the connection that wants an answer.
func global(kind string, payload []byte) []byte {
	return append(append([]byte{rawGlobalRequest}, xssh.Marshal(struct {
		Kind string
		Want bool
	}{kind, true})...), payload...)
}

// TestAnswersKeepTheirOrder (RFC 4254, section 4): answers to requests about the connection have no name on them; so one that the gateway
// gives itself does not overtake one that the target must give first.
func TestAnswersKeepTheirOrder(t *testing.T) {
	r := newRig(t)
	user := r.role("all", configs.SSHLimits{RemoteForward: true})
	c := r.raw(t)
	c.login(user, r.signer)
	forward := global(tcpipForward, xssh.Marshal(struct {
		Address string
		Port    uint32
	}{"127.0.0.1", 0}))
	for range 5 {
		c.send(forward)
		c.send(global("keepalive@openssh.com", nil))
		c.send(global("hello@example.com", nil))
	}
	for i := range 5 {
		port := c.read(rawGlobalSuccess, rawGlobalFailure)
		alive := c.read(rawGlobalSuccess, rawGlobalFailure)
		unknown := c.read(rawGlobalSuccess, rawGlobalFailure)
		if port[0] != rawGlobalSuccess || len(port) != 5 || binary.BigEndian.Uint32(port[1:]) == 0 || alive[0] != rawGlobalSuccess || len(alive) != 1 || unknown[0] != rawGlobalFailure {
			t.Fatalf("round %d: %q, %q, %q", i, port, alive, unknown)
		}
	}
}

// noMoreSessions: who says that no more sessions come, and then asks for one, is not who said it: the connection ends.
func noMoreSessions(t *testing.T, r *rig) {
	c := r.raw(t)
	c.login("me@odd", r.signer)
	c.run(1<<20, 1<<15, "deaf")
	c.send(global("no-more-sessions@openssh.com", nil))
	c.read(rawGlobalSuccess)
	c.send(openSession(1<<20, 1<<15))
	c.hungUp(rawOpenConfirm)
	r.ended()
}

// TestCommandsArePassedAsTheyAre: byte for byte, and ended as the target says: with a signal's name, or without any word.
func TestCommandsArePassedAsTheyAre(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	r.grant("me", "web-1")
	odd, web := r.client("me@odd"), r.client("me@web-1")
	for name, command := range map[string]string{
		"nothing": "", "NUL and lines": "a\x00b\nc\r\n\xff\xfe", "quotes": `'"\$(id)` + "`id`;&|", "64 KiB": strings.Repeat("0123456789abcdef", 4<<10),
	} {
		if out, err := must(odd.NewSession())(t).Output(command); err != nil || string(out) != command+"\n" {
			t.Errorf("%s: %d bytes arrive as %d, %v", name, len(command), len(out)-1, err)
		}
	}
	var exit *xssh.ExitError
	if err := must(web.NewSession())(t).Run("kill -TERM $$"); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("killed by a signal: %v", err)
	}
	if err := must(odd.NewSession())(t).Run("vanishes"); !errors.As(err, new(*xssh.ExitMissingError)) {
		t.Errorf("without an exit status: %v", err)
	}
	s := must(web.NewSession())(t)
	s.Stdin = strings.NewReader("tty; exit 3\n")
	var out bytes.Buffer
	s.Stdout = &out
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 3 || !strings.Contains(out.String(), "not a tty") {
		t.Errorf("a shell without a terminal: %q, %v", &out, err)
	}
}

// TestLostTargetsAreNoticed: a target that is gone without a word (its machine, or the way there) is noticed, as the system asks it now
// and then whether it is there.
func TestLostTargetsAreNoticed(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	if _, err := must(r.client("me@web-1").NewSession())(t).Output("true"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile("/proc/net/tcp"); err != nil {
		t.Skip("only Linux tells: ", err)
	}
	eventually(t, "the target is asked whether it is there", func() bool {
		for line := range strings.Lines(string(must(os.ReadFile("/proc/net/tcp"))(t))) {
			f := strings.Fields(line) // sl local remote st queues tr:when …
			if len(f) > 5 && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", r.sshd.port)) && f[3] == "01" && strings.HasPrefix(f[5], "02:") {
				return true // and what is sent has been acknowledged: before, the timer is for that
			}
		}
		return false
	})
}
