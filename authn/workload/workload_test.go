package workload

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"sallyport/authn/federation"
	"sallyport/configs"
)

const audience = "https://gateway.example:8443"

// issuer is a CI system's issuer over TLS.
type issuer struct {
	server *httptest.Server
	ca     string
	keys   atomic.Pointer[jose.JSONWebKeySet]
	asked  atomic.Int64 // for its keys
	broken atomic.Bool
}

func newIssuer(t testing.TB, keys ...jose.JSONWebKey) *issuer {
	t.Helper()
	i := &issuer{}
	mux := http.NewServeMux()
	i.server = httptest.NewTLSServer(mux)
	t.Cleanup(i.server.Close)
	answer := func(w http.ResponseWriter, v any) {
		if i.broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.server.URL, "jwks_uri": i.server.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		answer(w, i.keys.Load())
	})
	i.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(i.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	i.has(keys...)
	return i
}

func (i *issuer) has(keys ...jose.JSONWebKey) {
	set := &jose.JSONWebKeySet{}
	for _, k := range keys {
		if _, symmetric := k.Key.([]byte); !symmetric {
			k = k.Public()
		}
		set.Keys = append(set.Keys, k)
	}
	i.keys.Store(set)
}

func newKey(t testing.TB, id string, algorithm jose.SignatureAlgorithm) jose.JSONWebKey {
	t.Helper()
	var key crypto.Signer
	var err error
	switch algorithm {
	case jose.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(algorithm), Use: "sig"}
}

// sign signs claims; options may add headers.
func sign(t testing.TB, key jose.JSONWebKey, claims map[string]any, options *jose.SignerOptions) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// github are the claims of a good job.
func github(issuer string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": issuer, "aud": audience, "sub": "repo:acme/shop:environment:prod", "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"repository": "acme/shop", "repository_id": "260064828", "repository_owner_id": "1342004", "environment": "prod",
		"event_name": "push", "workflow": "deploy", "run_id": "77", "run_attempt": "1", "check_run_id": "9001",
	}
}

// load reads workloads as the gateway does, so that presets count.
func load(t *testing.T, workloads string) []configs.Workload {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"tls.crt": "x", "tls.key": "x", "sallyport.yaml": `
state: state
url: https://gateway.example:8443
listen: {https: "127.0.0.1:0"}
tls: {certificate: tls.crt, key: tls.key}
provider: {issuer: https://login.example, client_id: sallyport}
workloads:
` + workloads} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config, err := configs.Load(filepath.Join(dir, "sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return config.Workloads
}

func shop(t *testing.T, i *issuer) []configs.Workload {
	return load(t, `
  - name: shop deploy
    preset: github
    issuer: `+i.server.URL+`
    ca: `+i.ca+`
    audience: `+audience+`
    bind:
      repository_id: "260064828"
      repository_owner_id: 1342004
      environment: prod
    groups: [ci-deploy]
`)
}

func TestVerify(t *testing.T) {
	key := newKey(t, "k1", jose.RS256)
	i := newIssuer(t, key)
	issuers := New(shop(t, i), time.Now)
	claims := github(i.server.URL)
	job, err := issuers.Verify(t.Context(), sign(t, key, claims, (&jose.SignerOptions{}).WithType("JWT")))
	if err != nil {
		t.Fatal(err)
	}
	if job.Subject != "shop deploy:repository_id=260064828,run_id=77,run_attempt=1,check_run_id=9001" || job.Name != "shop deploy acme/shop deploy" ||
		job.Issuer != i.server.URL || job.Token != "jti:"+claims["jti"].(string) || job.Workload.Groups[0] != "ci-deploy" {
		t.Errorf("%+v", job)
	}
}

// TestAnyAlgorithm: RSA, ECDSA and Ed25519, with and without a key id.
func TestAnyAlgorithm(t *testing.T) {
	for _, algorithm := range []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.EdDSA} {
		for _, id := range []string{"k1", ""} {
			key := newKey(t, id, algorithm)
			i := newIssuer(t, key)
			if _, err := New(shop(t, i), time.Now).Verify(t.Context(), sign(t, key, github(i.server.URL), nil)); err != nil {
				t.Errorf("%s, key id %q: %v", algorithm, id, err)
			}
		}
	}
}

// TestPitfalls are what CI tokens were got wrong by elsewhere; the good token is the same but for one thing.
func TestPitfalls(t *testing.T) {
	key := newKey(t, "k1", jose.RS256)
	i := newIssuer(t, key)
	issuers := New(shop(t, i), time.Now)
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	tests := []struct {
		name   string
		change map[string]any // nil removes
		why    string
	}{
		{"audience of the provider's default", map[string]any{"aud": "https://github.com/acme"}, "audience"},
		{"audience ours and another", map[string]any{"aud": []string{audience, "https://other.example"}}, "2 audiences"},
		{"no audience", map[string]any{"aud": nil}, "0 audiences"},
		{"no exp", map[string]any{"exp": nil}, "exp"},
		{"no iat", map[string]any{"iat": nil}, "iat"},
		{"exp is text", map[string]any{"exp": "soon"}, ""},
		{"exp far beyond time", map[string]any{"exp": 1e300}, ""},
		{"expired", map[string]any{"iat": at(-10 * time.Minute), "nbf": at(-10 * time.Minute), "exp": at(-61 * time.Second)}, "expired"},
		{"not yet valid", map[string]any{"nbf": at(2 * time.Minute)}, "not good before"},
		{"issued in the future", map[string]any{"iat": at(2 * time.Minute), "nbf": nil}, "in the future"},
		{"too old, though it has not expired", map[string]any{"iat": at(-12 * time.Minute), "exp": at(time.Hour)}, "max_age"},
		{"issuer with a slash", map[string]any{"iss": i.server.URL + "/"}, "none of those"},
		{"issuer in upper case", map[string]any{"iss": strings.ToUpper(i.server.URL)}, "none of those"},
		{"issuer with user", map[string]any{"iss": strings.Replace(i.server.URL, "://", "://x@", 1)}, "none of those"},
		{"same name, other repository (a name taken over)", map[string]any{"repository_id": "1"}, "repository_id"},
		{"other owner", map[string]any{"repository_owner_id": "2"}, "repository_owner_id"},
		{"pull_request_target", map[string]any{"event_name": "pull_request_target"}, "event_name"},
		{"pull_request that names the environment", map[string]any{"event_name": "pull_request"}, "event_name"},
		{"workflow_run", map[string]any{"event_name": "workflow_run"}, "event_name"},
		{"environment in another case", map[string]any{"environment": "Prod"}, "environment"},
		{"environment absent", map[string]any{"environment": nil}, "environment is missing"},
		{"environment null", map[string]any{"environment": json.RawMessage("null")}, "environment"},
		{"environment a list that has it", map[string]any{"environment": []string{"prod"}}, "environment"},
		{"no job id", map[string]any{"check_run_id": nil}, "check_run_id"},
		{"a subject without end", map[string]any{"run_id": strings.Repeat("7", 300)}, "bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			claims := github(i.server.URL)
			maps.Copy(claims, test.change)
			maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
			_, err := issuers.Verify(t.Context(), sign(t, key, claims, nil))
			if err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("got %v, want an error with %q", err, test.why)
			}
		})
	}
}

// TestWhatIsNotRead: whatever sub says, ids decide.
func TestWhatIsNotRead(t *testing.T) {
	key := newKey(t, "k1", jose.RS256)
	i := newIssuer(t, key)
	issuers := New(shop(t, i), time.Now)
	for _, sub := range []string{"repo:acme@1342004/shop@260064828:environment:prod", "repository_owner:acme", ""} {
		claims := github(i.server.URL)
		claims["sub"] = sub
		if _, err := issuers.Verify(t.Context(), sign(t, key, claims, nil)); err != nil {
			t.Errorf("sub %q: %v", sub, err)
		}
	}
}

func encode(v any) string {
	data, _ := json.Marshal(v) // maps of texts
	return base64.RawURLEncoding.EncodeToString(data)
}

// TestSignatures: alg none, HMAC with the public key, keys that the token brings itself, another issuer's key, another
// type of token, and what is no token.
func TestSignatures(t *testing.T) {
	key, other := newKey(t, "k1", jose.RS256), newKey(t, "k1", jose.RS256)
	i, second := newIssuer(t, key), newIssuer(t, other)
	issuers := New(append(shop(t, i), shop(t, second)...), time.Now)
	claims := github(i.server.URL)
	good := sign(t, key, claims, nil)
	if _, err := issuers.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	public, err := x509.MarshalPKIXPublicKey(key.Public().Key)
	if err != nil {
		t.Fatal(err)
	}
	confused := jose.JSONWebKey{Key: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), KeyID: "k1", Algorithm: string(jose.HS256)}
	for name, token := range map[string]string{
		"alg none":                      encode(map[string]string{"alg": "none", "kid": "k1"}) + "." + parts[1] + ".",
		"alg none in another case":      encode(map[string]string{"alg": "nOnE", "kid": "k1"}) + "." + parts[1] + ".",
		"no signature":                  parts[0] + "." + parts[1] + ".",
		"HMAC with the public key":      sign(t, confused, claims, nil),
		"a key of its own (jwk)":        sign(t, other, claims, &jose.SignerOptions{EmbedJWK: true}),
		"an address of keys (jku)":      sign(t, other, claims, (&jose.SignerOptions{}).WithHeader("jku", second.server.URL+"/keys")),
		"another configured issuer's":   sign(t, other, claims, nil),
		"an access token by type":       sign(t, key, claims, (&jose.SignerOptions{}).WithType("at+jwt")),
		"claims changed":                parts[0] + "." + encode(map[string]any{"iss": i.server.URL, "aud": audience}) + "." + parts[2],
		"empty":                         "",
		"two parts":                     parts[0] + "." + parts[1],
		"five parts":                    good + ".a.b",
		"JSON form with two signatures": `{"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]}`,
		"larger than any honest one":    parts[0] + "." + parts[1] + strings.Repeat("A", MaxToken) + "." + parts[2],
	} {
		if job, err := issuers.Verify(t.Context(), token); err == nil {
			t.Errorf("%s: let in as %s", name, job.Subject)
		}
	}
}

// TestUnknownKeys: a storm of tokens with made-up keys asks the issuer once in a while only, and never keeps a good token
// out; a new key is found; a key that was withdrawn is not good for ever.
func TestUnknownKeys(t *testing.T) {
	old, fresh := newKey(t, "old", jose.ES256), newKey(t, "new", jose.ES256)
	i := newIssuer(t, old)
	var ahead atomic.Int64
	issuers := New(shop(t, i), func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	verify := func(key jose.JSONWebKey) error {
		claims := github(i.server.URL)
		for _, c := range []string{"iat", "nbf", "exp"} {
			claims[c] = claims[c].(int64) + ahead.Load()/int64(time.Second)
		}
		_, err := issuers.Verify(t.Context(), sign(t, key, claims, nil))
		return err
	}
	if err := verify(old); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if verify(newKey(t, rand.Text(), jose.ES256)) == nil {
			t.Fatal("a made-up key was taken")
		}
	}
	if n := i.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times within %s", n, federation.Refetch)
	}
	i.has(old, fresh)
	ahead.Add(int64(federation.Refetch))
	if err := verify(fresh); err != nil {
		t.Errorf("a new key, after %s: %v", federation.Refetch, err)
	}
	i.has(fresh)
	ahead.Add(int64(2 * time.Hour))
	if verify(old) == nil {
		t.Error("a key that was withdrawn is still good after two hours")
	}
	i.broken.Store(true)
	ahead.Add(int64(2 * time.Hour))
	if err := verify(fresh); err != nil {
		t.Errorf("an issuer that is down for a while: %v", err)
	}
	ahead.Add(int64(23 * time.Hour))
	if err := verify(fresh); !errors.Is(err, federation.ErrUnavailable) {
		t.Errorf("an issuer that is down for a day: got %v", err)
	}
}

// TestSecretAndWeakKeys in an issuer's set are as if they were not there.
func TestSecretAndWeakKeys(t *testing.T) {
	secret := jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "s", Algorithm: string(jose.HS256)}
	good := newKey(t, "k1", jose.ES256)
	forEncryption := newKey(t, "enc", jose.ES256)
	forEncryption.Use = "enc"
	i := newIssuer(t, secret, forEncryption, good)
	issuers := New(shop(t, i), time.Now)
	if _, err := issuers.Verify(t.Context(), sign(t, good, github(i.server.URL), nil)); err != nil {
		t.Error(err)
	}
	for _, key := range []jose.JSONWebKey{secret, forEncryption} {
		if _, err := issuers.Verify(t.Context(), sign(t, key, github(i.server.URL), nil)); err == nil {
			t.Errorf("key %s was taken", key.KeyID)
		}
	}
}

// TestClaimsInside: Kubernetes nests its claims; CircleCI has slashes in names.
func TestClaimsInside(t *testing.T) {
	claims := map[string]json.RawMessage{
		"kubernetes.io": json.RawMessage(`{"namespace":"shop","serviceaccount":{"uid":"e6a8"},"pod":null}`),
		"a/b/c":         json.RawMessage(`"whole"`),
		"a":             json.RawMessage(`{"b":{"c":"inside"}}`),
		"no":            json.RawMessage(`"text"`),
	}
	for name, want := range map[string]string{
		"kubernetes.io/namespace": "shop", "kubernetes.io/serviceaccount/uid": "e6a8", "kubernetes.io/pod/uid": "", "a/b/c": "whole",
		"a/b": "", "no/thing": "", "/": "", "kubernetes.io/": "", "": "",
	} {
		if got, _ := scalar(find(claims, name)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := newKey(f, "k1", jose.ES256)
	f.Add(sign(f, key, github("https://issuer.example"), nil))
	f.Add("a.b.c")
	i := newIssuer(f, newKey(f, "k1", jose.ES256))
	issuers := New([]configs.Workload{{Name: "x", Issuer: i.server.URL, CA: i.ca, Audience: audience}}, time.Now)
	f.Add(sign(f, key, github(i.server.URL), nil))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := issuers.Verify(t.Context(), token); err == nil {
			t.Error("let in")
		}
	})
}
