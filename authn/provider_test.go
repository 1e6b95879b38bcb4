package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// company is the company's OpenID provider: authorization code flow with PKCE, a form to sign in, ID tokens signed with
// ES256, userinfo. It is strict about its client, and its claims can be made wrong.
type company struct {
	*httptest.Server
	t      *testing.T
	key    *ecdsa.PrivateKey
	secret string
	ca     string // file

	mu       sync.Mutex
	redirect string
	down     bool
	mute     bool // it shows its pages, and redeems nothing
	asked    int  // discoveries
	requests map[string]url.Values
	codes    map[string]given
	tokens   map[string]string // access token to person
	claims   map[string]map[string]any
	spoil    func(map[string]any)        // of ID tokens
	sign     func(map[string]any) string // instead of the right key
	userinfo func(map[string]any)
	refresh  bool                      // it gives refresh tokens
	fresh    map[string]string         // those that are good, to person
	closed   map[string]bool           // people who are disabled
	refused  string                    // an OAuth error instead of an answer to a refresh
	renewing func()                    // called with each answer to a refresh, before it is sent
	again    bool                      // it answers refreshes with ID tokens too
	frozen   bool                      // in which stands what did at the sign-in
	then     map[string]map[string]any // claims by refresh token, as they were at the sign-in
	iss      string                    // what answers say that they come from (RFC 9207); "" for nothing
}

type given struct {
	person, challenge, nonce, redirect string
}

func newCompany(t *testing.T) *company {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &company{t: t, key: key, secret: rand.Text(), requests: map[string]url.Values{}, codes: map[string]given{}, tokens: map[string]string{}, claims: map[string]map[string]any{
		"alice": {"name": "Alice Engineer", "email": "alice@example.com", "groups": []string{"engineers", "oncall"}},
		"bob":   {"name": "Bob Approver", "email": "bob@example.com", "groups": []string{"approvers"}},
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked++
		if c.down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		c.reply(w, map[string]any{
			"authorization_response_iss_parameter_supported": c.iss != "",
			"issuer": c.URL, "authorization_endpoint": c.URL + "/authorize", "token_endpoint": c.URL + "/token",
			"jwks_uri": c.URL + "/keys", "userinfo_endpoint": c.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		c.reply(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: c.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /authorize", c.authorize)
	mux.HandleFunc("POST /signin", c.signIn)
	mux.HandleFunc("POST /token", c.token)
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		person := c.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		if person == "" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		info := map[string]any{"sub": person}
		if c.userinfo != nil {
			c.userinfo(info)
		}
		c.reply(w, info)
	})
	c.Server = httptest.NewTLSServer(mux)
	t.Cleanup(c.Close)
	c.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(c.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *company) reply(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		c.t.Error(err)
	}
}

func (c *company) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.Get("client_id") != "gateway" || q.Get("redirect_uri") != c.redirect || q.Get("response_type") != "code" ||
		q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("state") == "" || !strings.Contains(q.Get("scope"), "openid") {
		http.Error(w, "the client asked wrongly: "+r.URL.RawQuery, http.StatusBadRequest)
		return
	}
	id := rand.Text()
	c.requests[id] = q
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte(`<form method="post" action="/signin"><input name="request" value="` + id + `"></form>`))
}

func (c *company) signIn(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.requests[r.PostFormValue("request")]
	delete(c.requests, r.PostFormValue("request"))
	person := r.PostFormValue("person")
	back := url.Values{"state": {q.Get("state")}}
	if c.iss != "" {
		back.Set("iss", c.iss)
	}
	if c.claims[person] == nil {
		back.Set("error", "access_denied")
	} else {
		code := rand.Text()
		c.codes[code] = given{person, q.Get("code_challenge"), q.Get("nonce"), q.Get("redirect_uri")}
		back.Set("code", code)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (c *company) token(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, secret, ok := r.BasicAuth()
	if !ok {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if c.down || c.mute {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	if r.PostFormValue("grant_type") == "refresh_token" {
		c.renew(w, r, id == "gateway" && secret == c.secret)
		return
	}
	g, known := c.codes[r.PostFormValue("code")]
	delete(c.codes, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if id != "gateway" || secret != c.secret || !known || g.redirect != r.PostFormValue("redirect_uri") || base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge {
		w.WriteHeader(http.StatusBadRequest)
		c.reply(w, map[string]string{"error": "invalid_grant"})
		return
	}
	access := rand.Text()
	c.tokens[access] = g.person
	now := time.Now()
	hash := sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": c.URL, "sub": g.person, "aud": "gateway", "nonce": g.nonce, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(hash[:16]),
	}
	maps.Copy(claims, c.claims[g.person])
	if c.spoil != nil {
		c.spoil(claims)
	}
	sign := func(claims map[string]any) string { return signES256(c.t, c.key, claims) }
	if c.sign != nil {
		sign = c.sign
	}
	answer := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": sign(claims)}
	if c.refresh {
		answer["refresh_token"] = c.newRefresh(g.person, maps.Clone(c.claims[g.person]))
	}
	c.reply(w, answer)
}

func (c *company) newRefresh(person string, claims map[string]any) string {
	if c.fresh == nil {
		c.fresh, c.then = map[string]string{}, map[string]map[string]any{}
	}
	token := "refresh-" + rand.Text()
	c.fresh[token], c.then[token] = person, claims
	return token
}

// renew answers a refresh token with the next one; each is good once.
func (c *company) renew(w http.ResponseWriter, r *http.Request, client bool) {
	person := c.fresh[r.PostFormValue("refresh_token")]
	no := c.refused
	if no == "" && (!client || person == "" || c.closed[person]) {
		no = "invalid_grant"
	}
	if no != "" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		c.reply(w, map[string]string{"error": no})
		return
	}
	then := c.then[r.PostFormValue("refresh_token")]
	delete(c.fresh, r.PostFormValue("refresh_token"))
	access := rand.Text()
	c.tokens[access] = person
	answer := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "refresh_token": c.newRefresh(person, then)}
	if c.again {
		now := time.Now()
		claims := map[string]any{"iss": c.URL, "sub": person, "aud": "gateway", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
		if c.frozen {
			maps.Copy(claims, then)
		} else {
			maps.Copy(claims, c.claims[person])
		}
		answer["id_token"] = signES256(c.t, c.key, claims)
	}
	if c.renewing != nil {
		c.renewing()
	}
	c.reply(w, answer)
}

func signES256(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Error(err)
	}
	return token
}

// set changes how the provider behaves.
func (c *company) set(f func(*company)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}
