package ssh

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/protocols/ssh/intake"
	"sallyport/protocols/ssh/sshtest"
	"sallyport/recorder"
	"sallyport/session"
)

// Clients that keep to no protocol, packet by packet.

// odds are message numbers with a meaning somewhere, and some without.
var odds = []byte{1, 2, 3, 4, 5, 6, 7, 8, 19, 20, 21, 22, 30, 31, 32, 33, 34, 49, 50, 51, 52, 53, 60, 61, 62, 66, 79, 80, 81, 82, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 127, 192, 193, 255}

// TestMessagesOutOfPlace (CVE-2018-10933, CVE-2025-32433, CVE-2023-46446): in no state before the login is over does any message open
// anything, be it the server's own "success", a key that was offered and found good, or a message of a later state; and after the login
// a message that is out of place ends its own connection at most.
func TestMessagesOutOfPlace(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	other := r.client("me@web-1")
	if _, err := must(other.NewSession())(t).Output("true"); err != nil {
		t.Fatal(err)
	}
	certificate := r.signer.PublicKey()
	for state, reach := range map[string]func(c *raw){
		"before a service is asked for": func(*raw) {},
		"before a key is shown":         func(c *raw) { c.service() },
		"after a key was found good": func(c *raw) {
			c.service()
			c.send(c.authRequest("me@web-1", false, certificate))
			c.read(rawKeyOK)
		},
	} {
		t.Run(state, func(t *testing.T) {
			for _, number := range odds {
				c := r.raw(t)
				reach(c)
				c.send(append([]byte{number}, openSession(1<<20, 1<<15)[1:]...))
				c.send(openSession(1<<20, 1<<15))
				c.hungUp(rawAuthSuccess, rawGlobalSuccess, rawOpenConfirm, rawData, rawChannelSuccess, rawPong)
			}
		})
	}
	t.Run("after the login", func(t *testing.T) {
		for _, number := range odds {
			c := r.raw(t)
			c.login("nobody@web-1", r.signer)
			c.send(append([]byte{number}, openSession(1<<20, 1<<15)[1:]...))
			c.conn.Close()
		}
	})
	if out, err := must(other.NewSession())(t).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("another connection: %q, %v", out, err)
	}
	if list := must(r.sessions.List(t.Context(), true))(t); len(list) != 1 {
		t.Errorf("%d sessions were begun", len(list))
	}
}

// TestKeysAreNotChanged (CVE-2025-22869): a client begins to change keys and stops, while its command puts out more and more. It costs
// no memory without bound and no other connection; revoking cuts it as it cuts any other; and it is cut in time if nobody does.
func TestKeysAreNotChanged(t *testing.T) {
	// begin logs in, has a command run that puts out without end, and waits for the gateway's own offer of keys.
	begin := func(t *testing.T, r *rig, c *raw, user string) (theirs []byte) {
		t.Helper()
		c.login(user, r.signer)
		c.run(1<<30, 1<<15, "yes")
		c.send(c.offer(r))
		return c.read(rawKexInit)
	}
	t.Run("revoked", func(t *testing.T) {
		r := newRig(t)
		g := r.grant("me", "web-1")
		c := r.raw(t)
		begin(t, r, c, "me@web-1")
		before := heap()
		if out, err := must(r.client("me@web-1").NewSession())(t).Output("head -c 8000000 /dev/zero"); err != nil || string(out) != string(make([]byte, 8_000_000)) {
			t.Errorf("another connection: %d bytes, %v", len(out), err)
		}
		if n := heap() - before; n > 16<<20 {
			t.Errorf("it costs %d bytes", n)
		}
		must(r.grants.Release(t.Context(), r.alice, g.ID))(t)
		eventually(t, "no session is live", func() bool { return r.sessions.Live() == 0 })
		c.hungUp()
		for _, info := range must(r.sessions.List(t.Context(), true))(t) {
			if info.EndReason != "grant_released" {
				t.Errorf("ended %s", info.EndReason)
			}
		}
	})
	t.Run("in time", func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.RekeyTimeout = 2 * time.Second })
		r.grant("me", "web-1")
		good := r.raw(t)
		theirs := begin(t, r, good, "me@web-1")
		good.exchange(r, theirs)
		good.read(rawGlobalRequest) // is it over? It is
		good.send([]byte{rawGlobalFailure})

		early := r.raw(t)
		begin(t, r, early, "me@web-1")
		late := r.raw(t)
		begin(t, r, late, "me@web-1")
		late.send(append([]byte{rawKexECDHInit}, xssh.Marshal(struct{ Q []byte }{bytes.Repeat([]byte{9}, 32)})...))
		outer := must(r.dial("me", r.signer))(t)
		defer outer.Close()
		inner := r.rawOver(t, must(outer.Dial("tcp", "web-1:22"))(t))
		begin(t, r, inner, "me")
		for _, c := range []*raw{early, late, inner} {
			c.hungUp()
		}
		eventually(t, "their sessions end", func() bool { return r.sessions.Live() == 1 })
		for _, info := range must(r.sessions.List(t.Context(), true))(t) {
			if !info.Live && (info.EndReason != session.EndClientClosed || !strings.Contains(info.EndDetail, "change keys")) {
				t.Errorf("ended %s: %s", info.EndReason, info.EndDetail)
			}
		}
		good.send(global("keepalive@openssh.com", nil))
		good.read(rawGlobalSuccess) // who has changed keys goes on
	})
}

// TestKeysAreChangedFromAllSides: client, gateway and target change keys again and again, each when it likes to, with data on their
// way both ways.
func TestKeysAreChangedFromAllSides(t *testing.T) {
	clients, targets := clientAlgorithms.RekeyThreshold, targetAlgorithms.RekeyThreshold
	t.Cleanup(func() { clientAlgorithms.RekeyThreshold, targetAlgorithms.RekeyThreshold = clients, targets })
	clientAlgorithms.RekeyThreshold, targetAlgorithms.RekeyThreshold = 150<<10, 170<<10
	r := newRig(t)
	text := must(os.ReadFile(filepath.Join(r.dir, "sshd_config")))(t)
	port := freePort(t)
	changed := strings.Replace(string(text), fmt.Sprintf("Port %d", r.sshd.port), fmt.Sprintf("Port %d\nRekeyLimit 190K", port), 1)
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", r.write("sshd_config_2", changed))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address := fmt.Sprintf("127.0.0.1:%d", port)
	eventually(t, "sshd listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	r.config.Targets[0].Address = address
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("me", "web-1")
	c := must(r.dial("me@web-1", r.signer, func(config *xssh.ClientConfig) { config.RekeyThreshold = 130 << 10 }))(t)
	defer c.Close()
	content := make([]byte, 2_000_000)
	rand.Read(content)
	s := must(c.NewSession())(t)
	s.Stdin = bytes.NewReader(content)
	if out, err := s.Output("cat"); err != nil || !bytes.Equal(out, content) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// TestOddClients: each does what no client should, and harms nobody else.
func TestOddClients(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	for name, test := range map[string]func(*testing.T, *rig){
		"more than it may": moreThanItMay, "tiny windows": tinyWindows, "extended data": extendedData, "pings": pings,
		"no more sessions": noMoreSessions, "one command": oneCommand, "ends": ends, "answered by the gateway": answeredByTheGateway,
	} {
		t.Run(name, func(t *testing.T) { test(t, r) })
	}
}

// moreThanItMay: a client sends more than its window, or more than a packet may have. Its connection ends, and its recording is
// closed as it should.
func moreThanItMay(t *testing.T, r *rig) {
	for name, piece := range map[string]int{"than its window": 32 << 10, "than a packet may have": 32<<10 + 1} {
		t.Run(name, func(t *testing.T) {
			c := r.raw(t)
			c.login("me@odd", r.signer)
			number := c.run(1<<20, 1<<15, "deaf")
			id := r.last().ID
			for sent := 0; sent < 8<<20; sent += piece { // the target takes a window, the gateway another
				c.send(c.data(number, 0, make([]byte, piece)))
			}
			c.hungUp()
			if info := r.ended(); info.ID != id || info.EndReason != session.EndClientClosed {
				t.Errorf("%s ended %s", info.ID, info.EndReason)
			}
			r.items(id) // whole
		})
	}
}

// tinyWindows: a client takes nothing for now, and then a few bytes at a time. Nothing hangs, and nothing is lost.
func tinyWindows(t *testing.T, r *rig) {
	c := r.raw(t)
	c.login("me@odd", r.signer)
	number := c.run(0, 9, "twenty bytes of text")
	c.send(global("keepalive@openssh.com", nil))
	if p := c.read(rawGlobalSuccess, rawData); p[0] == rawData {
		t.Fatalf("it sends %q to a window of nothing", p)
	}
	var got []byte
	for more := uint32(3); len(got) < 21; more = 100 {
		c.send(append([]byte{rawWindowAdjust}, xssh.Marshal(struct{ Number, More uint32 }{number, more})...))
		for p := c.read(rawData); ; p = c.read(rawData) {
			data := p[9:]
			if len(data) > 9 || more == 3 && len(data) > 3 {
				t.Fatalf("%d bytes in a packet", len(data))
			}
			if got = append(got, data...); len(got) == 3 || len(got) >= 21 {
				break
			}
		}
	}
	if string(got) != "twenty bytes of text\n" {
		t.Errorf("%q", got)
	}
	c.read(rawChannelClose)
}

// extendedData: a client has one stream; what it sends on others is counted as received and goes nowhere.
func extendedData(t *testing.T, r *rig) {
	c := r.raw(t)
	c.login("me@odd", r.signer)
	number := c.run(1<<20, 1<<15, "deaf")
	for range 3 * intake.WindowSize / (16 << 10) {
		c.send(c.data(number, 2, make([]byte, 16<<10)))
	}
	for range intake.WindowSize / 2 / (16 << 10) {
		c.send(c.data(number, 1, make([]byte, 16<<10)))
	}
	c.send(c.data(number, 0, []byte{1, 2, 3}))
	c.send(append([]byte{rawChannelRequest}, xssh.Marshal(struct {
		Number uint32
		Kind   string
		Want   bool
		Name   string
	}{number, "signal", false, "USR1"})...)) // hear
	c.send(binary.BigEndian.AppendUint32([]byte{rawEOF}, number))
	if p := c.read(rawData); string(p[9:]) != "3 6\n" {
		t.Errorf("the target had %q", p[9:])
	}
}

// pings (CVE-2025-26466; the keystrokes that OpenSSH pretends are pings): each is answered, none is recorded as input, and a flood
// of them costs nobody else anything.
func pings(t *testing.T, r *rig) {
	c := r.raw(t)
	c.login("me@odd", r.signer)
	c.run(1<<20, 1<<15, "deaf")
	id := r.last().ID
	const many = 20_000
	go func() {
		for i := range many {
			c.send(append([]byte{rawPing}, xssh.Marshal(struct{ Data []byte }{binary.BigEndian.AppendUint32(nil, uint32(i))})...))
		}
	}()
	for i := range many {
		if p := c.read(rawPong); binary.BigEndian.Uint32(p[5:]) != uint32(i) {
			t.Fatalf("ping %d is answered with %q", i, p)
		}
	}
	goesOn(t, r.client("me@odd"))
	c.conn.Close()
	eventually(t, "the session ends", func() bool { return !must(r.sessions.Get(t.Context(), id))(t).Live })
	for _, item := range r.items(id) {
		if item.Kind == recorder.ItemInput || item.Kind == recorder.ItemBulk && item.Stream == "stdin" {
			t.Errorf("recorded: %+v", item)
		}
	}
}

// TestWhatComesAfterTheEnd: a client that sends on after a packet that ends its connection holds nothing of the gateway's, whoever it is and
// however far it has come; nor does a target. The library reads on for a peer that nobody listens to any more, and waits for that reader
// when it is told to close.
func TestWhatComesAfterTheEnd(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	for state, reach := range map[string]func(c *raw){
		"a stranger": func(*raw) {},
		"logged in":  func(c *raw) { c.login("me@odd", r.signer) },
		"a session": func(c *raw) {
			c.login("me@odd", r.signer)
			c.run(1<<20, 1<<15, "deaf")
		},
	} {
		t.Run(state, func(t *testing.T) {
			c := r.raw(t)
			reach(c)
			_, _ = c.conn.Write(afterTheEnd(c)) // it may have hung up meanwhile
			c.hungUp()
			eventually(t, "the connection is over", func() bool { return r.serving.Load() == 0 })
		})
	}
	host := newSigner(t)
	var atOnce atomic.Bool
	address := sshtest.Listen(t, func(conn net.Conn) {
		c := rawTarget(t, conn, host)
		if c == nil {
			return
		}
		if !atOnce.Load() {
			c.upTo(rawChannelOpen)
		}
		_, _ = conn.Write(afterTheEnd(c)) // it may have hung up meanwhile
		_, _ = io.Copy(io.Discard, conn)
	})
	target := configs.Target{
		Name: "babbling", Kind: configs.KindSSH, Address: address, HostKeys: []string{line(host.PublicKey())}, Accounts: []configs.Account{{Name: "me"}},
	}
	r.config.Targets = append(r.config.Targets, target)
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("me", "babbling")
	t.Run("a target", func(t *testing.T) {
		c := r.client("me@babbling")
		if s, err := c.NewSession(); err == nil {
			t.Error("it has a session", s.Wait())
		}
		eventually(t, "the session is over", func() bool { return r.sessions.Live() == 0 })
		eventually(t, "the connection is over", func() bool { return r.serving.Load() == 0 })
		if info := r.last(); info.Target != "babbling" || info.EndReason != session.EndTargetClosed {
			t.Errorf("%+v", info)
		}
	})
	t.Run("a target that is checked", func(t *testing.T) {
		atOnce.Store(true)
		checked := make(chan struct{})
		go func() {
			defer close(checked)
			_, _ = r.handler.Check(t.Context(), r.alice, target, target.Accounts[0]) // whether it came to its end is open
		}()
		select {
		case <-checked:
		case <-time.After(deadline):
			t.Error("the check waits for ever")
		}
	})
}

// afterTheEnd are many packets that would end the connection each, as they stand on the wire: in one write, so that they are all there when
// the first is read.
func afterTheEnd(c *raw) (all []byte) {
	for range 200 {
		all = append(all, c.packet(c.data(77, 0, []byte("for a channel that there is not")))...)
	}
	return all
}
