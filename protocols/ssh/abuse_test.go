package ssh

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/protocols/ssh/interpret"
	"sallyport/recorder"
)

// What people do who mean no good, as known from the advisories about other servers. Each test says what happened there.

// mallory has signed in as well, with a key and a certificate of her own, and may do nothing.
func (r *rig) mallory(t *testing.T) xssh.Signer {
	t.Helper()
	who := must(r.authn.SignIn(t.Context(), authn.Identity{
		Issuer: "https://login.example", Subject: "mallory", Kind: authn.Human, Name: "Mallory", Groups: []string{"engineers"},
	}, "127.0.0.1"))(t)
	key := newSigner(t)
	issued := must(r.authn.Certify(t.Context(), who, authn.Keys{SSH: key.PublicKey()}))(t)
	certificate, _, _, _, err := xssh.ParseAuthorizedKey([]byte(issued.SSH))
	if err != nil {
		t.Fatal(err)
	}
	return must(xssh.NewCertSigner(certificate.(*xssh.Certificate), key))(t)
}

// dial is a connection of the library's client with any signer.
func (r *rig) dial(user string, signer xssh.Signer, change ...func(*xssh.ClientConfig)) (*xssh.Client, error) {
	config := &xssh.ClientConfig{
		User: user, Auth: []xssh.AuthMethod{xssh.PublicKeys(signer)}, HostKeyCallback: xssh.FixedHostKey(r.authn.HostKey().PublicKey()),
		HostKeyAlgorithms: []string{r.authn.HostKey().PublicKey().Type()}, Timeout: deadline,
	}
	for _, f := range change {
		f(config)
	}
	return xssh.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)), config)
}

// turncoat offers one key, and once that is welcome signs with another.
type turncoat struct {
	xssh.Signer
	offered xssh.PublicKey
}

func (s turncoat) PublicKey() xssh.PublicKey {
	return &turncoatKey{PublicKey: s.Signer.PublicKey(), offered: s.offered}
}

type turncoatKey struct {
	xssh.PublicKey
	offered xssh.PublicKey
	shown   int
}

func (k *turncoatKey) Marshal() []byte {
	if k.shown++; k.shown <= 2 { // in the question, and in looking at its answer
		return k.offered.Marshal()
	}
	return k.PublicKey.Marshal()
}

// imposter shows a key and signs with another.
type imposter struct {
	xssh.Signer
	shown xssh.PublicKey
}

func (s imposter) PublicKey() xssh.PublicKey { return s.shown }

// TestOfferedKeyIsNoProof (CVE-2024-45337, CVE-2023-42818): whoever offers alice's certificate and signs with her own is herself; and
// alice's certificate with anybody else's signature is nothing.
func TestOfferedKeyIsNoProof(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	mallory := r.mallory(t)
	c, err := r.dial("mallory", turncoat{mallory, r.signer.PublicKey()})
	if err != nil {
		t.Fatalf("a key that is proven is not taken after another was offered: %v", err)
	}
	defer c.Close()
	if out, err := must(c.NewSession())(t).Output("whoami"); err != nil || !strings.Contains(string(out), "Mallory") || strings.Contains(string(out), "Alice") {
		t.Errorf("she is taken for %q, %v", out, err)
	}
	inside, err := r.dial("me@web-1", turncoat{mallory, r.signer.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if out, err := must(inside.NewSession())(t).CombinedOutput("id"); err == nil || strings.Contains(string(out), "uid=") {
		t.Errorf("she has alice's grant: %q", out)
	}
	if c, err := r.dial("me@web-1", imposter{mallory, r.signer.PublicKey()}); err == nil {
		c.Close()
		t.Error("alice's certificate is taken with somebody else's signature")
	}
}

// injected is a client's connection into which somebody in between puts a packet before the first key exchange.
type injected struct {
	net.Conn
	once sync.Once
}

func (c *injected) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(p, []byte("SSH-")) {
		c.once.Do(func() {
			ignore := []byte{0, 0, 0, 12, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			_, _ = c.Conn.Write(ignore) // its failure shows in the next
		})
	}
	return c.Conn.Write(p)
}

// TestStrictKeyExchange (Terrapin, CVE-2023-48795): both of the gateway's legs ask for strict key exchange, and hold to it: a packet
// that somebody puts in before the keys are made ends the connection.
func TestStrictKeyExchange(t *testing.T) {
	r := newRig(t)
	t.Run("towards clients", func(t *testing.T) {
		conn := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))))(t)
		defer conn.Close()
		if !bytes.Contains(firstPacket(t, conn), []byte("kex-strict-s-v00@openssh.com")) {
			t.Error("it is not asked for")
		}
	})
	t.Run("towards targets", func(t *testing.T) {
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		defer l.Close()
		go func() {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return
			}
			defer conn.Close()
			_, _, _, _ = login{target: "x", version: "SSH-2.0-" + r.handler.Version}.handshake(conn) // it is cut
		}()
		conn := must(l.Accept())(t)
		defer conn.Close()
		if !bytes.Contains(firstPacket(t, conn), []byte("kex-strict-c-v00@openssh.com")) {
			t.Error("it is not asked for")
		}
	})
	for _, inject := range []bool{false, true} {
		conn := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))))(t)
		defer conn.Close()
		var wire net.Conn = conn
		if inject {
			wire = &injected{Conn: conn}
		}
		_, _, _, err := xssh.NewClientConn(wire, gatewayHost, &xssh.ClientConfig{
			User: "me", Auth: []xssh.AuthMethod{xssh.PublicKeys(r.signer)}, HostKeyCallback: xssh.FixedHostKey(r.authn.HostKey().PublicKey()),
			HostKeyAlgorithms: []string{r.authn.HostKey().PublicKey().Type()},
		})
		if (err != nil) != inject {
			t.Errorf("with a packet put in (%v): %v", inject, err)
		}
	}
}

// firstPacket says hello and reads the peer's first packet, which is its offer of algorithms in clear.
func firstPacket(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "SSH-2.0-test\r\n"); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	for one[0] != '\n' {
		if _, err := io.ReadFull(conn, one); err != nil {
			t.Fatal(err)
		}
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	size := binary.BigEndian.Uint32(head)
	if size > 35000 {
		t.Fatalf("a packet of %d bytes", size)
	}
	packet := make([]byte, size)
	if _, err := io.ReadFull(conn, packet); err != nil {
		t.Fatal(err)
	}
	return packet
}

// TestNothingWorksBeforeTheLogin (CVE-2018-10933, CVE-2025-32433): no message opens anything before its sender is proven; the
// server's own "success" sent by a client is none, and any message that is out of place ends the connection.
func TestNothingWorksBeforeTheLogin(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	before := len(must(r.sessions.List(t.Context(), true))(t))
	for number := 1; number < 256; number++ {
		if number == 20 || number == 21 || number >= 30 && number <= 49 || number <= 4 {
			continue // key exchange, and what may be ignored
		}
		conn := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))))(t)
		firstPacket(t, conn)
		body := append([]byte{byte(number)}, xssh.Marshal(struct {
			Kind                   string
			Number, Window, Packet uint32
		}{"session", 0, 1 << 20, 1 << 15})...)
		padding := 8 - (5+len(body))%8
		if padding < 4 {
			padding += 8
		}
		packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(body)+padding))
		packet = append(append(append(packet, byte(padding)), body...), make([]byte, padding)...)
		if _, err := conn.Write(packet); err == nil {
			if rest, err := io.ReadAll(conn); len(rest) > 0 && err == nil && rest[5] != 1 { // 1: disconnected
				t.Errorf("message %d before any key is answered with %q", number, rest)
			}
		}
		conn.Close()
	}
	if after := len(must(r.sessions.List(t.Context(), true))(t)); after != before {
		t.Errorf("%d sessions were begun", after-before)
	}
}

// loginAuthority is the gateway's own key for user certificates, to make what it would never make.
func (r *rig) loginAuthority(t *testing.T) xssh.Signer {
	t.Helper()
	key, err := xssh.ParsePrivateKey(must(os.ReadFile(filepath.Join(r.config.State, "keys", "login_ca.pem")))(t))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestHostileUserNames (sshpiper's path traversal, terminal escapes): a user name is no path, is no longer than it is looked at, and
// what is said of it in an answer or in the audit log moves nobody's cursor.
func TestHostileUserNames(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	for _, user := range []string{
		"../../../../etc/passwd@web-1", "me@../../web-1", "me@web-1/../../..", "me@web-1\x00", "\x00me@web-1", "me@web-1\nid", "me\x1b]0;title\x07@web-1", "me@\x1b[2Jweb-1",
		"\u202eem@web-1", "me@web-1\u200f", strings.Repeat("a", 4096) + "@web-1", "me@" + strings.Repeat("web-1", 1000), "@", "@@", "me@", "@web-1", "+", "me+web-1+", "me@WEB-1 ",
		"me;id@web-1", "$(id)@web-1", "-oProxyCommand=id@web-1", "\xff\xfe@web-1",
		strings.Repeat("a", 4096) + "@orders", "me\x1b[2J\n@orders",
	} {
		c, err := r.dial(user, r.signer)
		if err != nil {
			continue // not even let in
		}
		s, err := c.NewSession()
		if err == nil {
			out, err := s.CombinedOutput("id")
			if err == nil || bytes.Contains(out, []byte("uid=")) {
				t.Errorf("%.60q is let in to a target: %q", user, out)
			}
			if bytes.ContainsAny(out, "\x00\x1b\x07") || bytes.Contains(out, []byte("\u202e")) || bytes.Contains(out, []byte("\u200f")) || len(out) > 4096 {
				t.Errorf("%.60q comes back as it was: %d bytes, %.200q", user, len(out), out)
			}
		}
		c.Close()
	}
	if c, err := r.dial("me", r.signer); err != nil {
		t.Fatal(err)
	} else {
		_, _ = c.Dial("tcp", "no\x1b[2J\nsuch.host:22") // refused, and audited
		c.Close()
	}
	audited := 0
	eventually(t, "what was refused is audited", func() bool {
		audited = 0
		for event, err := range r.recorder.Audit(t.Context(), recorder.AuditFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Kind != "session.refused" {
				continue
			}
			audited++
			if len(event.Target) > maxName || len(event.Account) > maxName || len(event.Reason) > 4096 {
				t.Fatalf("audited of a name that is too long: %d bytes, %d bytes, %d bytes", len(event.Target), len(event.Account), len(event.Reason))
			}
			if strings.ContainsAny(event.Reason, "\x1b\n\x00") {
				t.Fatalf("audited as it was typed: %q", event.Reason)
			}
		}
		return audited >= 3
	})
	entries := must(filepath.Glob(filepath.Join(r.config.State, "recordings", "*")))(t)
	for _, e := range entries {
		if strings.Contains(e, "passwd") {
			t.Errorf("a user name became a file: %s", e)
		}
	}
}

// TestRequestFlood: requests that nobody answers pile up neither at the connection nor at a channel; the connection ends or goes on,
// and everybody else's does.
func TestRequestFlood(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	c := r.client("me@web-1")
	other := r.client("me@web-1")
	for range 100 * maxQueued {
		if _, _, err := c.SendRequest("flood@example.com", false, nil); err != nil {
			break
		}
	}
	channel, requests, err := c.OpenChannel("session", nil)
	if err == nil {
		go xssh.DiscardRequests(requests)
		for range 100 * maxQueued {
			if _, err := channel.SendRequest("env", false, xssh.Marshal(struct{ Name, Value string }{"LC_X", "x"})); err != nil {
				break
			}
		}
	}
	if out, err := must(other.NewSession())(t).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestRequestsThatWait: while a target takes its time, requests about the connection wait for their turn, and a client who sends more of them
// than anybody has use for is hung up on.
func TestRequestsThatWait(t *testing.T) {
	r := newRig(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close() // it says nothing
	r.config.Targets = append(r.config.Targets, configs.Target{
		Name: "silent", Kind: configs.KindSSH, Address: l.Addr().String(), HostKeys: r.config.Targets[0].HostKeys, Accounts: r.config.Targets[0].Accounts,
	})
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("me", "silent")
	c := r.raw(t)
	c.login("me@silent", r.signer)
	for range 3 * maxQueued {
		c.send(global(tcpipForward, xssh.Marshal(interpret.ForwardTCPIP{Address: "127.0.0.1"})))
	}
	c.hungUp(rawGlobalSuccess, rawGlobalFailure)
}

// TestRejectedChannelsLeaveNothing (CVE-2026-39827): refused channels do not count among the open ones.
func TestRejectedChannelsLeaveNothing(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	c := r.client("me@web-1")
	for i := range 20 * maxChannels {
		if _, _, err := c.OpenChannel(fmt.Sprintf("x-%d@example.com", i), nil); err == nil {
			t.Fatal("an unknown channel was opened")
		}
	}
	if out, err := must(c.NewSession())(t).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("after many refused channels: %q, %v", out, err)
	}
}

// TestUnknownChannels: with everything allowed that a role can allow, a client opens nothing but sessions and forwarded connections.
func TestUnknownChannels(t *testing.T) {
	r := newRig(t)
	on := true
	c := r.client(r.role("all", configs.SSHLimits{DynamicForward: true, RemoteForward: true, UnixSockets: true, Agent: &on}))
	if out, err := must(c.NewSession())(t).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Fatalf("%q, %v", out, err)
	}
	for _, kind := range []string{"tun@openssh.com", "x11", agentChannel, forwardedTCPIP, forwardedStreamlocal, "hello@example.com", ""} {
		if ch, _, err := c.OpenChannel(kind, place); err == nil {
			ch.Close()
			t.Errorf("%q is opened", kind)
		}
	}
	c.Close()
	for _, item := range r.items(r.ended().ID) {
		if strings.Contains(item.Command, "tun@") || strings.Contains(item.Command, "x11") {
			t.Errorf("the target was asked: %+v", item)
		}
	}
}

// TestNoChannelBeforeTheGrant (GHSA-xm63-rjwf-r3g8, CVE-2023-45140): without a grant no kind of channel and no request reaches the
// target, and each is refused by the same gate.
func TestNoChannelBeforeTheGrant(t *testing.T) {
	r := newRig(t)
	c := r.client("me@web-1")
	tcp := xssh.Marshal(struct {
		Host   string
		Port   uint32
		Origin string
		From   uint32
	}{"127.0.0.1", uint32(r.sshd.port), "127.0.0.1", 1})
	for kind, extra := range map[string][]byte{
		"direct-tcpip": tcp, directStreamlocal: xssh.Marshal(struct {
			Path, Reserved string
			Port           uint32
		}{"/tmp/x", "", 0}),
		forwardedTCPIP: tcp, agentChannel: nil, "x11": tcp, "tun@openssh.com": {0, 0, 0, 1, 0, 0, 0, 0},
	} {
		if ch, _, err := c.OpenChannel(kind, extra); err == nil {
			ch.Close()
			t.Errorf("%s is opened without a grant", kind)
		}
	}
	for _, request := range []string{tcpipForward, streamlocalForward} {
		payload := xssh.Marshal(struct {
			Address string
			Port    uint32
		}{"127.0.0.1", 0})
		if ok, _, err := c.SendRequest(request, true, payload); ok || err != nil {
			t.Errorf("%s without a grant: %v, %v", request, ok, err)
		}
	}
	for _, what := range []string{"exec", "subsystem"} {
		channel, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		var output []byte
		done := make(chan struct{})
		go func() { defer close(done); output, _ = io.ReadAll(channel) }()
		go io.Copy(io.Discard, channel.Stderr())
		go xssh.DiscardRequests(requests)
		if _, err := channel.SendRequest(what, true, xssh.Marshal(struct{ C string }{"sftp"})); err != nil {
			t.Fatal(err)
		}
		<-done
		if len(output) > 0 {
			t.Errorf("%s without a grant says %q", what, output)
		}
	}
	if log := must(os.ReadFile(r.sshd.log))(t); bytes.Contains(log, []byte("Accepted")) {
		t.Errorf("the target let somebody in:\n%s", log)
	}
	if list := must(r.sessions.List(t.Context(), true))(t); len(list) > 0 {
		t.Errorf("sessions were begun: %v", list)
	}
}

// TestRefusedCertificateIsTold (opkssh #513, CVE-2026-35414): of the gateway's own authority, and still none: the principal is exactly
// one, the kind is the user's, and no option is passed over. The client is told.
func TestRefusedCertificateIsTold(t *testing.T) {
	r := newRig(t)
	certificate := *r.signer.PublicKey().(*xssh.Certificate)
	for name, change := range map[string]func(*xssh.Certificate){
		"another principal":  func(c *xssh.Certificate) { c.ValidPrincipals = []string{"root"} },
		"several principals": func(c *xssh.Certificate) { c.ValidPrincipals = append([]string{"root"}, c.ValidPrincipals...) },
		"for hosts":          func(c *xssh.Certificate) { c.CertType = xssh.HostCert },
		"a source address":   func(c *xssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "127.0.0.0/8"} }, // none is issued
		"a forced command":   func(c *xssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "id"} },
		"not valid yet":      func(c *xssh.Certificate) { c.ValidAfter = c.ValidBefore - 60 },
	} {
		t.Run(name, func(t *testing.T) {
			forged := certificate
			forged.ValidPrincipals = append([]string(nil), certificate.ValidPrincipals...)
			change(&forged)
			if err := forged.SignCert(rand.Reader, r.loginAuthority(t)); err != nil {
				t.Fatal(err)
			}
			var banner string
			c, err := r.dial("me", must(xssh.NewCertSigner(&forged, plainSigner(r.signer)))(t), func(config *xssh.ClientConfig) {
				config.BannerCallback = func(message string) error { banner += message; return nil }
			})
			if err == nil {
				c.Close()
				t.Fatal("it is taken")
			}
			if !strings.Contains(banner, "certificate") || !strings.Contains(banner, "sallyport login") {
				t.Errorf("it was told %q", banner)
			}
		})
	}
}
