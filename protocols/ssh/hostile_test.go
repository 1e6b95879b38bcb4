package ssh

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/protocols/ssh/interpret"
	"sallyport/protocols/ssh/sshtest"
)

// oddTarget is an SSH server that misbehaves: it never answers the command "stuck", floods the channel of "flood", sends
// a broken exit status for "broken", and tries to open channels towards the client for "open"; "deaf" reads nothing before it is
// sent a signal, and "drip" sends a byte a packet; what is returned is closed when it has. "asks" asks the gateway things, "many" opens many
// channels to the agent, "heard" says what the gateway has asked of the connection, "twice" says more than once how it ended, "vanishes" never, "mute" has it answer the next channel never, "silent"
// no request about the connection from then on, and "alive" asks whether the client is there.
func (r *rig) oddTarget(t *testing.T) <-chan struct{} {
	t.Helper()
	dripped := make(chan struct{})
	host := newSigner(t)
	config := &xssh.ServerConfig{PublicKeyCallback: func(xssh.ConnMetadata, xssh.PublicKey) (*xssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(host)
	address := sshtest.Listen(t, func(conn net.Conn) {
		c, channels, requests, err := xssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		o := &oddConn{Conn: c, dripped: dripped}
		go func() {
			for r := range requests {
				o.mu.Lock()
				o.heard = append(o.heard, r.Type)
				o.mu.Unlock()
				if !o.silent.Load() {
					r.Reply(true, nil)
				}
			}
		}()
		for n := range channels {
			if o.mute.Swap(false) {
				r.held.Store(true)
				continue
			}
			channel, requests, err := n.Accept()
			if err != nil {
				return
			}
			go o.session(channel, requests)
		}
	})
	r.config.Targets = append(r.config.Targets, configs.Target{
		Name: "odd", Kind: configs.KindSSH, Address: address, HostKeys: []string{line(host.PublicKey())},
		Accounts: []configs.Account{{Name: "me"}},
	})
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("me", "odd")
	return dripped
}

// place is what a target says of a connection to a place where it listens, or says so; placeSocket is another place.
var place = xssh.Marshal(interpret.ForwardedTCPIP{Address: "127.0.0.1", Port: 80, OriginHost: "127.0.0.1", OriginPort: 1})

const placeSocket = "/tmp/socket"

type oddConn struct {
	xssh.Conn
	dripped chan<- struct{}
	ended   atomic.Bool
	mu      sync.Mutex
	heard   []string
	mute    atomic.Bool // the next channel is not answered
	silent  atomic.Bool // requests about the connection are not
}

func (c *oddConn) session(channel xssh.Channel, requests <-chan *xssh.Request) {
	hear := make(chan struct{})
	heard := sync.OnceFunc(func() { close(hear) })
	exit := func() {
		channel.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
		channel.Close()
	}
	for r := range requests {
		if r.Type == "signal" {
			heard()
		}
		if r.Type != "exec" {
			r.Reply(true, nil)
			continue
		}
		command := string(r.Payload[4:])
		if command == "stuck" {
			continue
		}
		r.Reply(true, nil)
		switch command {
		case "flood":
			for range 100 * maxQueued {
				if _, err := channel.SendRequest("exit-status", false, []byte{0, 0, 0, 3}); err != nil {
					return
				}
			}
		case "broken":
			channel.SendRequest("exit-status", false, []byte{1})
			channel.SendRequest("exit-signal", false, []byte{0, 0, 0, 200, 1})
			channel.Close()
		case "deaf":
			go func() {
				<-hear
				data, err := io.ReadAll(channel)
				c.ended.Store(err == nil)
				sum := 0
				for _, b := range data {
					sum += int(b)
				}
				fmt.Fprintln(channel, len(data), sum)
				exit()
			}()
		case "answers":
			for range 10_000 {
				r.Reply(true, nil)
			}
			fmt.Fprintln(channel, "answered")
			exit()
		case "mute":
			c.mute.Store(true)
			exit()
		case "silent":
			c.silent.Store(true)
			exit()
		case "alive":
			_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
			_, err2 := channel.SendRequest("keepalive@openssh.com", true, nil)
			fmt.Fprintln(channel, map[bool]string{true: "answered"}[err == nil], map[bool]string{true: "answered"}[err2 == nil])
			exit()
		case "ended":
			fmt.Fprintln(channel, c.ended.Load())
			exit()
		case "drip":
			go func() {
				for range stuckAfter / (32 << 10) { // until somebody is stuck
					channel.Write(make([]byte, 32<<10))
				}
				for range tiny {
					channel.Write([]byte{1})
				}
				close(c.dripped)
				exit()
			}()
		case "asks":
			for _, kind := range []string{"keepalive@openssh.com", "hello@example.com"} {
				done, err := channel.SendRequest(kind, true, nil)
				fmt.Fprintln(channel, kind, done, err)
			}
			for _, kind := range []string{"keepalive@openssh.com", "hostkeys-00@openssh.com", tcpipForward} {
				done, _, err := c.SendRequest(kind, true, nil)
				fmt.Fprintln(channel, kind, done, err)
			}
			exit()
		case "many":
			opened := 0
			for range 2 * maxChannels {
				if _, _, err := c.OpenChannel(agentChannel, nil); err == nil {
					opened++
				}
			}
			fmt.Fprintln(channel, opened)
			exit()
		case "heard":
			c.mu.Lock()
			fmt.Fprintln(channel, c.heard)
			c.mu.Unlock()
			exit()
		case "twice":
			channel.SendRequest("exit-status", false, []byte{0, 0, 0, 3})
			channel.SendRequest("exit-signal", false, xssh.Marshal(struct {
				Signal            string
				Core              bool
				Message, Language string
			}{"TERM", false, "", ""}))
			exit()
		case "vanishes":
			channel.Close()
		case "open":
			for _, kind := range []string{"forwarded-tcpip", "forwarded-streamlocal@openssh.com", "auth-agent@openssh.com", "x11", "session", "direct-tcpip", "tun@openssh.com"} {
				extra := place
				if kind == forwardedStreamlocal {
					extra = xssh.Marshal(interpret.ForwardedStreamlocal{Path: placeSocket})
				}
				_, _, err := c.OpenChannel(kind, extra)
				fmt.Fprintf(channel, "%s: %v\n", kind, err)
			}
			exit()
		default:
			fmt.Fprintln(channel, command)
			exit()
		}
	}
}

// TestStuckChannelHoldsNobodyUp: one command's answer never comes, and requests pile up behind it.
func TestStuckChannelHoldsNobodyUp(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	c := r.client("me@odd")
	stuck, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		xssh.DiscardRequests(requests)
		close(closed)
	}()
	go stuck.SendRequest("exec", true, xssh.Marshal(struct{ C string }{"stuck"}))
	for range 40 {
		if _, err := stuck.SendRequest("signal", false, xssh.Marshal(struct{ S string }{"INT"})); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		out, err := must(c.NewSession())(t).Output(fmt.Sprint("hello ", i))
		if err != nil || string(out) != fmt.Sprintf("hello %d\n", i) {
			t.Fatalf("%q, %v", out, err)
		}
	}
	for range 2 * maxQueued { // too many: the channel is given up, and only that
		if _, err := stuck.SendRequest("signal", false, xssh.Marshal(struct{ S string }{"INT"})); err != nil {
			break
		}
	}
	select {
	case <-closed:
	case <-time.After(deadline):
		t.Fatal("a flooded channel stays open")
	}
	if out, err := must(c.NewSession())(t).Output("still here"); err != nil || string(out) != "still here\n" {
		t.Fatalf("%q, %v", out, err)
	}
}

func TestHostileTarget(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	c := r.client("me@odd")
	out, err := must(c.NewSession())(t).Output("open")
	if n := strings.Count(string(out), "not allowed through this gateway"); err != nil || n != 7 {
		t.Errorf("a target opened channels towards the client: %q, %v", out, err)
	}
	if err := must(c.NewSession())(t).Run("broken"); err == nil {
		t.Error("a broken exit status is passed on")
	}
	must(c.NewSession())(t).Run("flood") // how it ends is the target's doing; that it ends counts
	if out, err := must(c.NewSession())(t).Output("still here"); err != nil || string(out) != "still here\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestStrangers: whoever proves nothing is sent away, in time, and the gateway goes on.
func TestStrangers(t *testing.T) {
	r := newRig(t, func(o *Options) { o.HandshakeTimeout = 3 * time.Second })
	t.Run("all at once", func(t *testing.T) { strangers(t, r) })
	if out, errs, _ := r.ssh("", "-T", "me@gw"); !strings.Contains(out, "Alice") {
		t.Errorf("afterwards: %q, %s", out, errs)
	}
}

func strangers(t *testing.T, r *rig) {
	t.Run("a silent connection inside another", func(t *testing.T) {
		t.Parallel()
		outer := must(r.dial("me", r.signer))(t)
		defer outer.Close()
		conn := must(outer.Dial("tcp", "web-1:22"))(t)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_, _ = io.Copy(io.Discard, conn)
		}()
		select {
		case <-closed:
		case <-time.After(deadline):
			t.Errorf("still open after %s", deadline)
		}
	})
	for name, say := range map[string]string{
		"garbage":         strings.Repeat("\xff\x00garbage\n", 1200),
		"http":            "GET / HTTP/1.1\r\n\r\n",
		"silence":         "",
		"half a version":  "SSH-2.0-",
		"no key exchange": "SSH-2.0-test\r\n",
		"huge packet":     "SSH-2.0-test\r\n\x7f\xff\xff\xff\x04" + strings.Repeat("x", 100),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := must(net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port)))(t)
			defer conn.Close()
			if _, err := io.WriteString(conn, say); err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(time.Now().Add(deadline))
			got, err := io.ReadAll(conn)
			if timeout := (net.Error)(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatalf("still open after %s, having said %q", deadline, got)
			}
		})
	}
}

// TestStrangersSayLittle: who has proven nothing is not listened to for long.
func TestStrangersSayLittle(t *testing.T) {
	r := newRig(t)
	c := r.raw(t)
	nothing := append([]byte{2}, xssh.Marshal(struct{ Data []byte }{make([]byte, 8<<10)})...) // an ignored message
	for sent := 0; ; sent += len(nothing) {
		if _, err := c.conn.Write(c.packet(nothing)); err != nil {
			break
		}
		if sent > 64<<20 { // far beyond what sockets hold
			t.Fatal("it listens on and on")
		}
	}
	eventually(t, "the connection is over", func() bool { return r.serving.Load() == 0 })
}

// TestForeignCertificates: only the gateway's own authority vouches for anybody.
func TestForeignCertificates(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	good := r.signer.PublicKey().(*xssh.Certificate)
	for name, change := range map[string]func(*xssh.Certificate) xssh.Signer{
		"another authority": func(*xssh.Certificate) xssh.Signer { return newSigner(t) },
		"signed by itself":  func(*xssh.Certificate) xssh.Signer { return r.signer },
		"the host authority's key type": func(c *xssh.Certificate) xssh.Signer {
			c.CertType = xssh.HostCert
			return newSigner(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			forged := *good
			if err := forged.SignCert(rand.Reader, plainSigner(change(&forged))); err != nil {
				t.Fatal(err)
			}
			r.write("forged-cert.pub", line(&forged)+"\n")
			cmd := r.command("ssh")
			cmd.Args = []string{"ssh", "-F", "none", "-i", filepath.Join(r.dir, "key"), "-o", "CertificateFile=" + filepath.Join(r.dir, "forged-cert.pub"),
				"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "HostKeyAlias=" + gatewayHost,
				"-o", "UserKnownHostsFile=" + filepath.Join(r.dir, "known_hosts"), "-p", fmt.Sprint(r.port), "me@web-1@127.0.0.1", "id"}
			// The good certificate beside the key is offered too unless it is away.
			r.hide("key-cert.pub", func() {
				if out, errs, status := run(t, cmd, ""); status != 255 || out != "" || !strings.Contains(errs, "Permission denied") {
					t.Errorf("status %d, stdout %q, stderr %q", status, out, errs)
				}
			})
		})
	}
}

// plainSigner signs with the key of a certificate instead of the certificate.
func plainSigner(s xssh.Signer) xssh.Signer { return keyOnly{s} }

type keyOnly struct{ xssh.Signer }

func (k keyOnly) PublicKey() xssh.PublicKey {
	if c, ok := k.Signer.PublicKey().(*xssh.Certificate); ok {
		return c.Key
	}
	return k.Signer.PublicKey()
}
