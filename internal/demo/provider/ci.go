package provider

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// CI issues ID tokens to workloads, as a CI system does to its jobs: discovery and key set over HTTP, and a token
// endpoint in the manner of GitHub Actions (GET /token?audience=…, a bearer request token, an answer {"value": JWT}).
type CI struct {
	Issuer string
	// RequestToken is what a job presents at the token endpoint.
	RequestToken string

	key    *signingKey
	signer jose.Signer
	mux    *http.ServeMux
}

// RepositoryID and OwnerID are what a gateway binds the job to.
const (
	RepositoryID = "260064828"
	OwnerID      = "1342004"
)

// workload is the job that the token endpoint speaks for, in GitHub's claims.
var workload = map[string]any{
	"sub":                 "repo:example/shop:ref:refs/heads/main",
	"repository":          "example/shop",
	"repository_id":       RepositoryID,
	"repository_owner":    "example",
	"repository_owner_id": OwnerID,
	"ref":                 "refs/heads/main",
	"workflow":            "deploy",
	"event_name":          "push",
	"run_id":              "77",
	"run_attempt":         "1",
	"check_run_id":        "9001",
}

func newCI(issuer string) (*CI, error) {
	key, err := newSigningKey()
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key.key, KeyID: key.id}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("make the CI issuer: %w", err)
	}
	c := &CI{Issuer: issuer, RequestToken: rand.Text(), key: key, signer: signer, mux: http.NewServeMux()}
	c.mux.HandleFunc("GET /.well-known/openid-configuration", c.discovery)
	c.mux.HandleFunc("GET /keys", c.keys)
	c.mux.HandleFunc("GET /token", c.token)
	return c, nil
}

func (c *CI) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// Token signs an ID token for that audience, good for lifetime, with the claims beside the registered ones (of which sub
// may be overridden).
func (c *CI) Token(audience string, lifetime time.Duration, claims map[string]any) (string, error) {
	now := time.Now()
	all := map[string]any{"iss": c.Issuer, "aud": audience, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(), "jti": rand.Text()}
	maps.Copy(all, claims)
	return jwt.Signed(c.signer).Claims(all).Serialize()
}

func (c *CI) discovery(w http.ResponseWriter, _ *http.Request) {
	reply(w, map[string]any{
		"issuer":                                c.Issuer,
		"jwks_uri":                              c.Issuer + "/keys",
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	})
}

func (c *CI) keys(w http.ResponseWriter, _ *http.Request) {
	reply(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &c.key.key.PublicKey, KeyID: c.key.id, Algorithm: "RS256", Use: "sig"}}})
}

func (c *CI) token(w http.ResponseWriter, r *http.Request) {
	presented := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if subtle.ConstantTimeCompare([]byte(presented), []byte(c.RequestToken)) != 1 {
		http.Error(w, "the request token is not this job's", http.StatusUnauthorized)
		return
	}
	audience := r.URL.Query().Get("audience")
	if audience == "" {
		http.Error(w, "audience is missing: it names who the token is for", http.StatusBadRequest)
		return
	}
	value, err := c.Token(audience, 5*time.Minute, workload)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, map[string]string{"value": value})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
}
