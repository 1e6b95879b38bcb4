//go:build unix

package attacks

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
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

	// Strangers are counted: the sums are written once a minute and at the end, not one event a packet.
	t.Run("counted in sums", func(t *testing.T) {
		if err := syscall.Kill(s.pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.Until(time.Minute, "another gateway runs", func() error {
			if pid, err := s.GatewayPID(); err != nil || pid == s.pid {
				return os.ErrExist
			}
			return nil
		})
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

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
