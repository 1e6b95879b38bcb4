//go:build unix

package attacks

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestStrangers is everything that somebody can do who has proven nothing.
func TestStrangers(t *testing.T) {
	s := newScene(t)
	// The gateway's own deadline for a handshake is 10 s.
	const patience = 20 * time.Second

	t.Run("no TLS", func(t *testing.T) {
		plain := strings.Replace(s.Env["SALLYPORT_PG"], "sslmode=verify-full", "sslmode=disable", 1)
		s.tells(s.Run(nil, "psql", "-X", "-w", plain, "-c", "SELECT 1"), "FATAL:", "TLS", "sslmode=verify-full", "sallyport login")
		s.undisturbed()
	})

	t.Run("no certificate", func(t *testing.T) {
		var words []string
		for word := range strings.FieldsSeq(s.Env["SALLYPORT_PG"]) {
			if !strings.HasPrefix(word, "sslcert=") && !strings.HasPrefix(word, "sslkey=") {
				words = append(words, word)
			}
		}
		bare := strings.Join(append(words, "sslcert=/nonexistent", "sslkey=/nonexistent"), " ")
		s.tells(s.Run(nil, "psql", "-X", "-w", bare, "-c", "SELECT 1"), "FATAL:", "certificate", "sallyport login --gateway https://")
		out := s.Run(nil, "ssh", "-F", s.Env["SALLYPORT_SSH_DIRECT_CONFIG"], "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", port(s.ssh), "-l", "deploy@web-1", "web-1", "true")
		s.tells(out, "sallyport login --gateway https://")
		s.undisturbed()
	})

	t.Run("garbage", func(t *testing.T) {
		noise := make([]byte, 4096)
		random := rand.NewChaCha8([32]byte{1})
		for _, address := range []string{s.postgres, s.orders, s.ssh, s.https} {
			for range 5 {
				if _, err := random.Read(noise); err != nil {
					t.Fatal(err)
				}
				exchange(t, address, noise, patience)
			}
		}
		s.undisturbed()
	})

	t.Run("10,000 bytes of start-up", func(t *testing.T) {
		// A StartupMessage whose length says so, in clear text; what is read of it must be bounded before it is kept.
		long := binary.BigEndian.AppendUint32(nil, 10_000)
		long = binary.BigEndian.AppendUint32(long, 3<<16)
		long = append(long, "user\x00"...)
		long = append(long, bytes.Repeat([]byte("x"), 10_000-len(long)-2)...)
		long = append(long, 0, 0)
		for _, address := range []string{s.postgres, s.orders} {
			answer := exchange(t, address, long, patience)
			if len(answer) == 0 || answer[0] != 'E' || !bytes.Contains(answer, []byte("SFATAL\x00")) {
				t.Errorf("%s answered %q instead of an ErrorResponse", address, answer)
			}
		}
		// One that claims two gigabytes and one that claims nothing.
		for _, size := range []uint32{1<<31 - 1, 0, 4, 7} {
			exchange(t, s.orders, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, size), 3<<16), patience)
		}
		// The same as an SSH identification line and as an HTTP header.
		exchange(t, s.ssh, bytes.Repeat([]byte("x"), 10_000), patience)
		exchange(t, s.https, bytes.Repeat([]byte("x"), 10_000), patience)
		s.undisturbed()
	})

	t.Run("half a handshake, then silence", func(t *testing.T) {
		halves := map[string][]byte{
			"postgres: nothing":        nil,
			"postgres: half a length":  {0, 0},
			"postgres: SSLRequest":     {0, 0, 0, 8, 4, 210, 22, 47},
			"postgres: half a TLS":     {0x16, 3, 1, 2, 0, 1, 0},
			"ssh: nothing":             nil,
			"ssh: half a line":         []byte("SSH-2.0-Open"),
			"ssh: a line":              []byte("SSH-2.0-OpenSSH_9.2\r\n"),
			"ssh: half a key exchange": []byte("SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x04\x00\x05\x14"),
			"https: nothing":           nil,
			"https: half a TLS":        {0x16, 3, 1, 2, 0, 1, 0},
		}
		var all sync.WaitGroup
		for name, half := range halves {
			address := map[byte]string{'p': s.orders, 's': s.ssh, 'h': s.https}[name[0]]
			all.Go(func() { exchange(t, address, half, 2*patience) })
		}
		// While they hold their connections, everybody else is served.
		s.undisturbed()
		if out := s.PSQL("SALLYPORT_PG", "-c", "SELECT 1"); out.Code != 0 {
			t.Error(out.Text())
		}
		if out := s.SSH("true"); out.Code != 0 {
			t.Error(out.Text())
		}
		all.Wait()
		s.undisturbed()
	})

	t.Run("many at once", func(t *testing.T) {
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() { exchange(t, s.orders, []byte{0, 0, 0, 8, 4, 210, 22, 47}, 2*patience) })
		}
		if out := s.PSQL("SALLYPORT_PG", "-c", "SELECT 1"); out.Code != 0 {
			t.Error(out.Text())
		}
		all.Wait()
		s.undisturbed()
	})

	// A resumed TLS session would speak with the certificate of whoever began it.
	t.Run("TLS resumption", func(t *testing.T) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cache := tls.NewLRUClientSessionCache(8)
			for range 3 {
				s.resume(t, &tls.Config{ServerName: "localhost", RootCAs: s.roots(), ClientSessionCache: cache, MinVersion: version, MaxVersion: version})
			}
		}
	})

	cut := s.drips(t, 3*patience) // while the others go on
	t.Cleanup(cut)

	// Nobody is asked to stand in front of the gateway, so no header says where somebody comes from.
	t.Run("a PROXY header", func(t *testing.T) {
		const elsewhere = "203.0.113.99"
		binaryHeader := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 203, 0, 113, 99, 203, 0, 113, 1, 1, 2, 3, 4)
		var all sync.WaitGroup
		for _, address := range []string{s.postgres, s.orders, s.ssh, s.https} {
			for _, header := range [][]byte{[]byte("PROXY TCP4 " + elsewhere + " 203.0.113.1 1111 2222\r\n"), binaryHeader} {
				all.Go(func() {
					answer := exchange(t, address, append(slices.Clone(header), 0, 0, 0, 8, 4, 210, 22, 47), patience)
					if bytes.HasPrefix(answer, []byte("S")) && !bytes.HasPrefix(answer, []byte("SSH-")) {
						t.Errorf("%s goes on after the header: %q", address, answer)
					}
				})
			}
		}
		all.Wait()
		if strings.Contains(s.As("carol", "audit", "--json").Stdout, elsewhere) {
			t.Error("what the header says stands in the audit log")
		}
		s.undisturbed()
	})

	// Where the gateway is and who asks is what it knows, not what a request says: no link, redirect, cookie or address that it gives
	// away leads to a host that somebody named.
	t.Run("host headers", func(t *testing.T) {
		const evil = "evil.example"
		query := url.Values{
			"client_id": {"sallyport-cli"}, "redirect_uri": {"http://127.0.0.1:45678/callback"}, "response_type": {"code"}, "scope": {"openid"}, "state": {"x"},
			"code_challenge": {strings.Repeat("x", 43)}, "code_challenge_method": {"S256"},
		}.Encode()
		for _, path := range []string{"/", "/connect", "/console/", "/download", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server", "/oauth/authorize?" + query, "/oauth/nothing", "/v1/me", "/openapi.json", "//" + "localhost/..", "/nothing"} {
			for name, request := range map[string]string{
				"another host":           "GET " + path + " HTTP/1.1\r\nHost: " + evil + "\r\n",
				"a proxy's word":         "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: " + evil + "\r\nForwarded: host=" + evil + "\r\nX-Forwarded-Server: " + evil + "\r\n",
				"a whole address":        "GET https://" + evil + path + " HTTP/1.1\r\nHost: localhost\r\n",
				"another host's port":    "GET " + path + " HTTP/1.1\r\nHost: localhost:1@" + evil + "\r\n",
				"two hosts":              "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nHost: " + evil + "\r\n",
				"a host folded over two": "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n " + evil + "\r\n",
				"without a host":         "GET " + path + " HTTP/1.0\r\nX-Forwarded-Host: " + evil + "\r\n",
			} {
				answer := s.raw(t, request+"Connection: close\r\n\r\n")
				if !strings.HasPrefix(answer, "HTTP/1.") || strings.Contains(answer, evil) {
					t.Errorf("%s at %s:\n%.2000s", name, path, answer)
				}
			}
		}
		s.undisturbed()
	})

	t.Run("requests with two ends", s.smuggle)
	t.Run("pages of other sites", s.origins)
	t.Run("ways out of a folder", s.traverse)

	// Logout tokens that the provider did not make; authn's own tests have those that it made for something else.
	t.Run("signing others out", func(t *testing.T) {
		now := time.Now()
		claims := map[string]any{
			"iss": s.Env["SALLYPORT_ISSUER"], "sub": "alice", "aud": "sallyport-gateway", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": "1",
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"logout+jwt"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload) + "."
		client := s.api()
		for name, token := range map[string]string{
			"not signed":       unsigned,
			"of another key":   sign(t, newKey(t, "1"), claims, nil, nil),
			"with its own key": sign(t, newKey(t, "1"), claims, nil, &jose.SignerOptions{EmbedJWK: true}),
			"a megabyte":       strings.Repeat("x", 1<<20),
			"none":             "",
		} {
			answer, err := client.PostForm(s.Env["SALLYPORT_URL"]+"/oauth/backchannel-logout", url.Values{"logout_token": {token}})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %s", name, answer.Status)
			}
		}
		if out := s.As("alice", "whoami"); out.Code != 0 {
			t.Errorf("alice is signed out: %s", out.Text())
		}
		s.undisturbed()
	})

	t.Run("byte by byte, without an end", func(t *testing.T) {
		cut()
		s.undisturbed()
	})

	// Strangers are counted: the sums are written once a minute and at the end, not one event a packet.
	t.Run("counted in sums", func(t *testing.T) {
		s.EndGateway(syscall.SIGTERM)
		s.Ready()
		for _, kind := range []string{"postgres: no TLS", "postgres: no valid client certificate", "postgres: no valid start-up", "ssh: ", "http: bad logout token"} {
			s.audited("unauthenticated.refused", kind)
		}
		events := strings.Count(s.As("carol", "audit", "--json").Stdout, "unauthenticated.refused")
		if events > 20 {
			t.Errorf("%d events for what strangers did: that is not a sum", events)
		}
	})
}

// raw sends a request over TLS as it is, and returns the whole answer.
func (s *scene) raw(t *testing.T, request string) string {
	t.Helper()
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 20 * time.Second}, Config: &tls.Config{RootCAs: s.roots(), ServerName: "localhost", NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.https)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 1<<22))
	if err != nil && len(answer) == 0 {
		t.Fatal(err)
	}
	return string(answer)
}

func (s *scene) roots() *x509.CertPool {
	s.t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read(s.t, s.Env["SALLYPORT_CA"])) {
		s.t.Fatal("SALLYPORT_CA names no certificate")
	}
	return roots
}

// resume speaks TLS to a database's listener until the gateway has said something in it, by when a ticket would have come.
func (s *scene) resume(t *testing.T, config *tls.Config) {
	t.Helper()
	raw, err := net.Dial("tcp", s.orders)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := raw.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(raw, answer); err != nil || answer[0] != 'S' {
		t.Fatalf("%q, %v", answer, err)
	}
	conn := tls.Client(raw, config)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if conn.ConnectionState().DidResume {
		t.Errorf("a session of %s was resumed", tls.VersionName(config.MinVersion))
	}
	start := []byte("\x00\x03\x00\x00user\x00app\x00database\x00orders\x00\x00")
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(start)+4)), start...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatalf("the gateway says nothing: %v", err)
	}
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
