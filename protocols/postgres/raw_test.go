package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"sallyport/protocols/postgres/wire"
	"sallyport/session"
)

// rawClient says what no driver would.
type rawClient struct {
	h    *house
	conn net.Conn
	key  wire.Cancel
}

// overheard keeps what came over a connection.
type overheard struct {
	net.Conn
	heard bytes.Buffer
}

func (o *overheard) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	o.heard.Write(p[:n])
	return n, err
}

func (h *house) dial(address string) *rawClient {
	h.t.Helper()
	conn, err := net.Dial("tcp", address)
	h.must(err)
	h.must(conn.SetDeadline(time.Now().Add(30 * time.Second)))
	h.t.Cleanup(func() { conn.Close() })
	return &rawClient{h: h, conn: conn}
}

// dialTLS asks for TLS and presents alice's certificate; change may spoil the configuration.
func (h *house) dialTLS(address string, change func(*tls.Config)) *rawClient {
	h.t.Helper()
	c := h.dial(address)
	c.write(wire.AppendRequest(nil, wire.SSLCode))
	if got := c.bytes(1); got != "S" {
		h.t.Fatalf("asked for TLS and got %q", got)
	}
	c.tls(change)
	return c
}

func (c *rawClient) tls(change func(*tls.Config)) {
	c.h.t.Helper()
	ca, err := os.ReadFile(c.h.ca)
	c.h.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", Certificates: []tls.Certificate{c.h.alice.pair}}
	if change != nil {
		change(config)
	}
	conn := tls.Client(c.conn, config)
	c.h.must(conn.Handshake())
	c.conn = conn
}

func (c *rawClient) write(b []byte) {
	c.h.t.Helper()
	_, err := c.conn.Write(b)
	c.h.must(err)
}

func (c *rawClient) bytes(n int) string {
	c.h.t.Helper()
	b := make([]byte, n)
	n, err := io.ReadFull(c.conn, b)
	if err != nil {
		c.h.t.Logf("read %q: %v", b[:n], err)
	}
	return string(b[:n])
}

func (c *rawClient) frame() (byte, []byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, err := io.ReadFull(c.conn, body)
	return head[0], body, err
}

// fatal reads up to an error and returns its code and message.
func (c *rawClient) fatal() string {
	c.h.t.Helper()
	for {
		t, body, err := c.frame()
		if err != nil {
			return err.Error()
		}
		if t == 'E' {
			e, err := wire.DecodeError(body)
			c.h.must(err)
			if n, err := c.conn.Read(make([]byte, 1)); err == nil || n > 0 {
				c.h.t.Error("the connection goes on after a FATAL")
			}
			return e.Severity + " " + e.Code + " " + e.Message
		}
	}
}

func startupPacket(code uint32, params ...string) []byte {
	body := ""
	if len(params) > 0 {
		body = strings.Join(params, "\x00") + "\x00\x00"
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

// startup logs in and returns the types of the messages up to ReadyForQuery.
func (c *rawClient) startup(params ...string) string {
	c.h.t.Helper()
	return c.startupAs(wire.Version30, params...)
}

func (c *rawClient) startupAs(version uint32, params ...string) string {
	c.h.t.Helper()
	c.write(startupPacket(version, params...))
	types := ""
	for !strings.HasSuffix(types, "Z") {
		t, body, err := c.frame()
		c.h.must(err)
		if t == 'E' {
			c.h.t.Fatalf("refused: %q", body)
		}
		if t == 'K' {
			c.key, err = wire.KeyData(body)
			c.h.must(err)
		}
		types += string(rune(t))
	}
	return types
}

func TestBeginnings(t *testing.T) {
	h := newHouse(t)
	ssl, gss := wire.AppendRequest(nil, wire.SSLCode), wire.AppendRequest(nil, wire.GSSENCCode)
	hello := startupPacket(wire.Version30, "user", "writer", "database", "postgres")
	noALPN := func(c *tls.Config) { c.NextProtos = nil }
	withALPN := func(c *tls.Config) { c.NextProtos = []string{wire.ALPN} }
	tests := []struct {
		name string
		talk func(*rawClient) string
		want string // beginning of the answer
	}{
		{"A1: GSSENC, then SSL, then startup", func(c *rawClient) string {
			c.write(gss)
			if got := c.bytes(1); got != "N" {
				return got
			}
			c.write(ssl)
			if got := c.bytes(1); got != "S" {
				return got
			}
			c.tls(nil)
			return c.startup("user", "writer", "database", "postgres")[:2]
		}, "RS"},
		{"A2: SSLRequest twice", func(c *rawClient) string {
			c.write(ssl)
			c.bytes(1)
			c.tls(nil)
			c.write(ssl)
			return c.fatal()
		}, "FATAL 0A000 unsupported frontend protocol 1234.5679"},
		{"A3: bytes glued to the SSLRequest", func(c *rawClient) string {
			c.write(append(bytes.Clone(ssl), hello...))
			return c.fatal()
		}, "FATAL 08P01 received unencrypted data after SSL request"},
		{"A6: direct TLS with ALPN", func(c *rawClient) string {
			c.tls(withALPN)
			return c.startup("user", "writer", "database", "postgres")[:2]
		}, "RS"},
		{"A6: direct TLS without ALPN", func(c *rawClient) string {
			c.tls(noALPN)
			return c.fatal()
		}, "FATAL 08P01 received direct SSL connection request without ALPN"},
		{"A7: startup in clear text", func(c *rawClient) string {
			c.write(hello)
			return c.fatal()
		}, "FATAL 28000 this gateway speaks TLS only"},
		{"A8: a length of 2 GiB", func(c *rawClient) string {
			c.write([]byte("\x7f\xff\xff\xff\x00\x03\x00\x00"))
			return c.fatal()
		}, "FATAL 08P01 invalid startup packet"},
		{"A8: a length of 4", func(c *rawClient) string {
			c.write([]byte("\x00\x00\x00\x04\x00\x03\x00\x00"))
			return c.fatal()
		}, "FATAL 08P01 invalid startup packet"},
		{"garbage", func(c *rawClient) string {
			c.write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			return c.fatal()
		}, "FATAL 08P01 invalid startup packet"},
		{"2.0", func(c *rawClient) string {
			c.write(startupPacket(2 << 16))
			return c.fatal()
		}, "FATAL 0A000 unsupported frontend protocol 2.0"},
		{"A11: no user", func(c *rawClient) string {
			c.write(ssl)
			c.bytes(1)
			c.tls(nil)
			c.write(startupPacket(wire.Version30, "database", "x"))
			return c.fatal()
		}, "FATAL 28000 no PostgreSQL user name"},
		{"A11: layout", func(c *rawClient) string {
			c.write(ssl)
			c.bytes(1)
			c.tls(nil)
			c.write([]byte("\x00\x00\x00\x0e\x00\x03\x00\x00user\x00x"))
			return c.fatal()
		}, "FATAL 08P01 invalid startup packet layout"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.talk(h.dial(h.own)); !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestProtocolVersions(t *testing.T) {
	h := newHouse(t)
	rows, err := h.cluster.asSuperuser("select current_setting('server_version_num')::int < 180000")
	h.must(err)
	old := rows[0][0] == "t" // such a server speaks 3.0 alone, and so does the gateway before it
	keys := map[bool]int{true: 32, false: 4}
	tests := []struct {
		name    string
		version uint32
		option  string
		tell    bool
		keySize int
	}{
		{"3.0", wire.Version30, "", false, 4},
		{"3.2", wire.Version32, "", old, keys[!old]},
		{"3.9999", 3<<16 | 9999, "", true, keys[!old]},
		{"3.0 with an option", wire.Version30, "_pq_.x", true, 4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			params := []string{"user", "writer", "database", "postgres"}
			if test.option != "" {
				params = append(params, test.option, "1")
			}
			c := h.dialTLS(h.own, nil)
			types := c.startupAs(test.version, params...)
			if strings.Count(types, "v") != map[bool]int{true: 1}[test.tell] || test.tell && types[0] != 'v' || len(c.key.Key) != test.keySize {
				t.Errorf("got %q and a key of %d bytes", types, len(c.key.Key))
			}
		})
	}
}

// TestSilence has clients that begin and say nothing more: one deadline ends them all.
func TestSilence(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.HandshakeTimeout = 300 * time.Millisecond })
	for name, begin := range map[string]func(*rawClient){
		"nothing at all":       func(*rawClient) {},
		"half a packet":        func(c *rawClient) { c.write([]byte{0, 0, 0}) },
		"an SSLRequest":        func(c *rawClient) { c.write(wire.AppendRequest(nil, wire.SSLCode)) },
		"a start of TLS":       func(c *rawClient) { c.write([]byte{0x16, 3, 1}) },
		"TLS and nothing more": func(c *rawClient) { c.write(wire.AppendRequest(nil, wire.SSLCode)); c.bytes(1); c.tls(nil) },
	} {
		c := h.dial(h.own)
		begin(c)
		if _, err := io.Copy(io.Discard, c.conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: it is still open", name)
		}
	}
}

func TestCancelWithAWrongKey(t *testing.T) {
	h := newHouse(t)
	victim := h.dialTLS(h.own, nil)
	victim.startup("user", "writer", "database", "postgres")
	victim.write(query("select pg_sleep(2)"))
	h.active("select pg_sleep(2)")
	for _, key := range [][]byte{{1, 2, 3, 4}, append(bytes.Clone(victim.key.Key), 0), victim.key.Key[:3], bytes.Repeat([]byte{1}, 256)} {
		c := h.dial(h.own)
		c.write(wire.AppendCancel(nil, wire.Cancel{PID: victim.key.PID, Key: key}))
		if b, err := io.ReadAll(c.conn); err != nil || len(b) != 0 {
			t.Errorf("a wrong key was answered %q, %v", b, err)
		}
	}
	for {
		kind, _, err := victim.frame()
		h.must(err)
		if kind == 'E' {
			t.Fatal("cancelled with a wrong key")
		}
		if kind == 'Z' {
			break
		}
	}
	victim.write(query("select pg_sleep(60)"))
	h.active("select pg_sleep(60)")
	c := h.dial(h.own) // over TLS, as libpq 17 does
	c.write(wire.AppendRequest(nil, wire.SSLCode))
	c.bytes(1)
	line := &overheard{Conn: c.conn}
	c.conn = line
	c.tls(func(c *tls.Config) { c.Certificates, c.MaxVersion = nil, tls.VersionTLS12 }) // in which an alert can be told from data
	line.heard.Reset()
	c.write(wire.AppendCancel(nil, victim.key))
	if b, err := io.ReadAll(c.conn); err != nil || len(b) != 0 {
		t.Errorf("got %q, %v", b, err)
	}
	const alert = 0x15
	if heard := line.heard.Bytes(); len(heard) == 0 || heard[0] != alert {
		t.Errorf("the connection ended with %x, and not with TLS's close_notify, so libpq says that it could not cancel", heard)
	}
	if kind, _, err := victim.frame(); err != nil || kind != 'T' && kind != 'E' {
		t.Errorf("got %c, %v", kind, err)
	}
}

// TestBrokenFraming has an authenticated client break the framing: it is told, and nothing of it reaches the target.
func TestBrokenFraming(t *testing.T) {
	h := newHouse(t)
	for name, bad := range map[string][]byte{
		"unknown type":        message('z', ""),
		"length 3":            []byte("Q\x00\x00\x00\x03"),
		"length -1":           []byte("Q\xff\xff\xff\xff"),
		"a Sync of 12,288":    []byte("S\x00\x00\x30\x00"),
		"a password after it": message('p', "x\x00"),
	} {
		c := h.dialTLS(h.own, nil)
		c.startup("user", "writer", "database", "postgres")
		c.write(bad)
		if got := c.fatal(); !strings.HasPrefix(got, "FATAL 08P01") {
			t.Errorf("%s: got %q", name, got)
		}
		info := h.ended()
		if info.EndReason != session.EndProtocolViolation || len(h.statements(info.ID)) != 0 {
			t.Errorf("%s: ended as %s", name, info.EndReason)
		}
	}
}

// TestFarewellNotInsideAFrame cuts a session while a large row is half-way to the client, which then finds the connection
// closed and no error in the middle of the row.
func TestFarewellNotInsideAFrame(t *testing.T) {
	h := newHouse(t)
	c := h.dialTLS(h.own, nil)
	c.startup("user", "writer", "database", "postgres")
	c.write(query("select repeat('x', 200000000)"))
	kind, _, err := c.frame()
	h.must(err)
	head := c.bytes(5)
	if kind != 'T' || head[0] != 'D' {
		t.Fatalf("got %c and %q", kind, head)
	}
	list, err := h.sessions.List(context.Background(), false)
	h.must(err)
	h.must(h.sessions.Kill(context.Background(), list[0].ID, h.alice.Identity, "test"))
	rest, _ := io.ReadAll(c.conn)
	if len(rest) >= 200_000_000 || bytes.Contains(rest, []byte("57P01")) {
		t.Errorf("%d bytes came, an error among them: %v", len(rest), bytes.Contains(rest, []byte("57P01")))
	}
}
