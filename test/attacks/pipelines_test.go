//go:build unix

package attacks

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// ci is an issuer of tokens that the test holds the key of.
type ci struct {
	*httptest.Server
	key   jose.JSONWebKey
	asked atomic.Int64 // for its keys
}

func newCI(t *testing.T) *ci {
	t.Helper()
	c := &ci{key: newKey(t, "k1")}
	mux := http.NewServeMux()
	c.Server = httptest.NewTLSServer(mux)
	t.Cleanup(c.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": c.URL, "jwks_uri": c.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		c.asked.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{c.key.Public()}})
	})
	return c
}

func newKey(t *testing.T, id string) jose.JSONWebKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}
}

// sign signs a job's token. change alters its claims; nil as a value leaves one out.
func sign(t *testing.T, key jose.JSONWebKey, claims, change map[string]any, o *jose.SignerOptions) string {
	t.Helper()
	claims = maps.Clone(claims)
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// api talks to the gateway over HTTPS.
func (s *scene) api() *http.Client {
	s.t.Helper()
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(read(s.t, s.Env["SALLYPORT_CA"])) {
		s.t.Fatal("SALLYPORT_CA names no certificate")
	}
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12}}}
}

// restart starts the gateway again, with what its configuration says now.
func (s *scene) restart() {
	s.t.Helper()
	s.EndGateway(syscall.SIGTERM)
	s.Ready()
	s.arrive()
}

// TestJobTokens presents tokens of pipelines that are no good here.
func TestJobTokens(t *testing.T) {
	s := newScene(t)
	c, elsewhere := newCI(t), newCI(t)
	authority := filepath.Join(t.TempDir(), "ci.pem")
	write(t, authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}))
	var workloads strings.Builder
	workloads.WriteString("workloads:\n")
	for name, issuer := range map[string]string{"attacked": c.URL, "another": elsewhere.URL} {
		workloads.WriteString("  - {name: " + name + ", preset: generic, issuer: \"" + issuer + "\", audience: https://ours.example, ca: \"" + authority +
			"\", bind: {project: \"7\"}, subject: [job], groups: [ci]}\n")
	}
	write(t, s.Path("sallyport.yaml"), []byte(strings.Replace(s.configuration(), "workloads:\n", workloads.String(), 1)))
	s.restart()

	client := s.api()
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	claims := map[string]any{"iss": c.URL, "aud": "https://ours.example", "sub": "a job", "project": "7", "job": "1", "iat": at(0), "exp": at(5 * time.Minute)}
	present := func(t *testing.T, token string) (status int, answer map[string]any) {
		t.Helper()
		form := url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token}, "subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Env["SALLYPORT_URL"]+"/oauth/token", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Accept", "application/json")
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, answer
	}
	good := sign(t, c.key, claims, nil, nil)
	status, answer := present(t, good)
	access, _ := answer["access_token"].(string)
	if status != http.StatusOK || access == "" {
		t.Fatalf("a good token: %d %v", status, answer)
	}
	parts := strings.Split(good, ".")
	header := func(h map[string]any) string {
		text, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	public, err := x509.MarshalPKIXPublicKey(c.key.Key.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	secret := jose.JSONWebKey{Key: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), KeyID: "k1", Algorithm: string(jose.HS256)}
	own := newKey(t, "k1")
	for name, token := range map[string]string{
		"alg none":                          header(map[string]any{"alg": "none"}) + "." + parts[1] + ".",
		"alg none, signed":                  header(map[string]any{"alg": "none", "kid": "k1"}) + "." + parts[1] + "." + parts[2],
		"HMAC with the issuer's public key": sign(t, secret, claims, nil, nil),
		"a key of its own (jwk)":            sign(t, own, claims, nil, &jose.SignerOptions{EmbedJWK: true}),
		"an address of its own keys (jku)":  sign(t, own, claims, nil, (&jose.SignerOptions{}).WithHeader("jku", elsewhere.URL+"/keys")),
		"another configured issuer's key":   sign(t, elsewhere.key, claims, nil, nil),
		"another configured issuer's name":  sign(t, c.key, claims, map[string]any{"iss": elsewhere.URL}, nil),
		"an issuer that is not configured":  sign(t, c.key, claims, map[string]any{"iss": "https://issuer.example"}, nil),
		"the issuer's name with a slash":    sign(t, c.key, claims, map[string]any{"iss": c.URL + "/"}, nil),
		"for another audience":              sign(t, c.key, claims, map[string]any{"aud": "https://theirs.example"}, nil),
		"for ours and another audience":     sign(t, c.key, claims, map[string]any{"aud": []string{"https://ours.example", "https://theirs.example"}}, nil),
		"expired":                           sign(t, c.key, claims, map[string]any{"iat": at(-time.Hour / 2), "exp": at(-2 * time.Minute)}, nil),
		"without an end":                    sign(t, c.key, claims, map[string]any{"exp": nil}, nil),
		"not yet valid":                     sign(t, c.key, claims, map[string]any{"nbf": at(5 * time.Minute)}, nil),
		"issued in the future":              sign(t, c.key, claims, map[string]any{"iat": at(5 * time.Minute), "exp": at(10 * time.Minute)}, nil),
		"of another project":                sign(t, c.key, claims, map[string]any{"project": "8"}, nil),
		"an access token (at+jwt)":          sign(t, c.key, claims, nil, (&jose.SignerOptions{}).WithType("at+jwt")),
		"oversized":                         sign(t, c.key, claims, map[string]any{"more": strings.Repeat("x", 17<<10)}, nil),
		"far oversized":                     strings.Repeat("A", 1<<20),
		"deep inside":                       header(map[string]any{"alg": "ES256"}) + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("[", 9000))) + ".AAAA",
		"garbage":                           "\x00\xff.\x00.\x00",
		"the gateway's own access token":    access,
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := present(t, token)
			if status/100 != 4 || answer["access_token"] != nil || answer["error"] == nil {
				t.Errorf("%d %v", status, answer)
			}
			if said, _ := answer["error_description"].(string); strings.Contains(said, "project") || strings.Contains(said, "attacked") {
				t.Errorf("a stranger is told of the configuration: %s", said)
			}
		})
	}
	s.undisturbed()
	s.audited("workload.refused", "claim project is")
	s.audited("workload.exchanged", "attacked:job=1")

	t.Run("use after it was revoked", func(t *testing.T) {
		whoami := func() int {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Env["SALLYPORT_URL"]+"/v1/me", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Authorization", "Bearer "+access)
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			return response.StatusCode
		}
		if status := whoami(); status != http.StatusOK {
			t.Fatalf("before: %d", status)
		}
		response, err := client.PostForm(s.Env["SALLYPORT_URL"]+"/oauth/revoke", url.Values{"token": {access}, "client_id": {"sallyport-cli"}})
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("revoke: %v, %v", response, err)
		}
		response.Body.Close()
		if status := whoami(); status != http.StatusUnauthorized {
			t.Errorf("after: %d", status)
		}
	})

	t.Run("a storm of unknown keys", func(t *testing.T) {
		before := c.asked.Load()
		for range 150 {
			if status, answer := present(t, sign(t, newKey(t, rand.Text()), claims, nil, nil)); status/100 != 4 {
				t.Fatalf("%d %v", status, answer)
			}
		}
		// Once in thirty seconds, and a storm on a busy machine may take a minute.
		if n := c.asked.Load() - before; n > 3 {
			t.Errorf("150 tokens with made-up keys had the issuer asked %d times", n)
		}
		// The storm has used up what this address may ask in a second.
		s.Until(20*time.Second, "a good token is still taken", func() error {
			if status, answer := present(t, good); status != http.StatusOK {
				return fmt.Errorf("%d %v", status, answer)
			}
			return nil
		})
		s.undisturbed()
	})
}

// TestPasswords guesses passwords, uses them after their end and for something else, and looks for them where they must
// not stand.
func TestPasswords(t *testing.T) {
	s := newScene(t)
	type credential struct {
		ID       string `json:"id"`
		User     string `json:"user"`
		Password string `json:"password"`
	}
	var ended, good credential
	s.Ask(&ended, "alice", "credentials", "app@orders", "--duration", "1h")
	s.Ask(&good, "alice", "credentials", "app@orders", "--duration", "1h")
	try := func(user, password string, more ...string) (code int, text string) {
		var words []string
		for word := range strings.FieldsSeq(s.Env["SALLYPORT_PG"]) {
			if !strings.HasPrefix(word, "sslcert=") && !strings.HasPrefix(word, "sslkey=") && !strings.HasPrefix(word, "user=") {
				words = append(words, word)
			}
		}
		words = append(append(words, "user="+user), more...)
		out := s.Run([]string{"PGPASSWORD=" + password}, "psql", "-X", "-w", "-At", "-c", "SELECT 6*7", strings.Join(words, " "))
		return out.Code, out.Text()
	}
	must := func(code int, text, word string) {
		t.Helper()
		if code == 0 || !strings.Contains(text, word) {
			t.Errorf("exit %d, want it refused with %q:\n%s", code, word, text)
		}
	}
	if code, text := try(ended.User, ended.Password, "channel_binding=require"); code != 0 || !strings.Contains(text, "42") {
		t.Fatalf("a good password: %s", text)
	}
	if out := s.As("bob", "credentials", "revoke", ended.ID); out.Code == 0 {
		t.Error("bob ended alice's password")
	}
	if out := s.As("alice", "credentials", "revoke", ended.ID); out.Code != 0 {
		t.Fatal(out.Text())
	}
	code, text := try(ended.User, ended.Password)
	must(code, text, "it was revoked")
	code, text = try("postgres+"+good.ID, good.Password)
	must(code, text, "this password is for app@orders only")
	code, text = try(good.User, good.Password, "sslmode=disable")
	must(code, text, "speaks TLS only")

	// What is wrong is not told, and after a while nothing is any more.
	const wrong = "password authentication failed"
	code, text = try("app+aaaaaaaaaa", good.Password)
	must(code, text, wrong)
	for range 40 {
		if code, text = try(good.User, "guess"); code == 0 {
			t.Fatal("a guess was let in")
		}
		if strings.Contains(text, "too many wrong passwords") {
			break
		}
		must(code, text, wrong)
	}
	must(code, text, "too many wrong passwords")
	code, text = try(good.User, good.Password)
	must(code, text, "too many wrong passwords")
	s.undisturbed() // certificates are let in from there all the same
	if out := s.PSQL("SALLYPORT_PG", "-c", "SELECT 1"); out.Code != 0 {
		t.Error(out.Text())
	}

	// The passwords stand nowhere: not in the store, its write-ahead log, the logs, the recordings, nor in what anybody is
	// shown.
	s.audited("credential.issued", good.ID)
	looked := 0
	err := filepath.WalkDir(s.Path(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return ignoreGone(err)
		}
		data, err := os.ReadFile(path)
		looked++
		if bytes.Contains(data, []byte(good.Password)) || bytes.Contains(data, []byte(ended.Password)) {
			t.Errorf("a password stands in %s", path)
		}
		return ignoreGone(err)
	})
	if err != nil || looked < 20 {
		t.Errorf("%d files were looked at, %v", looked, err)
	}
	for _, out := range []string{s.As("alice", "credentials", "list", "--json").Text(), s.As("carol", "audit", "--json").Text()} {
		if strings.Contains(out, good.Password) || strings.Contains(out, ended.Password) {
			t.Error("a password is shown a second time")
		}
	}
}

// ignoreGone: files come and go while a gateway and a database run.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
