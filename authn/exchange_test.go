package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

// ci is a CI system's issuer with one key.
type ci struct {
	*httptest.Server
	ca  string
	key jose.JSONWebKey
}

func newCI(t *testing.T) *ci {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c := &ci{key: jose.JSONWebKey{Key: must(private, err)(t), KeyID: "k1", Algorithm: string(jose.ES256)}, ca: filepath.Join(t.TempDir(), "ci.pem")}
	mux := http.NewServeMux()
	c.Server = httptest.NewTLSServer(mux)
	t.Cleanup(c.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": c.URL, "jwks_uri": c.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{c.key.Public()}})
	})
	if err := os.WriteFile(c.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// token is a job's, good for five minutes from the rig's now.
func (c *ci) token(r *rig, job, jti string, change func(claims map[string]any)) string {
	r.t.Helper()
	now := r.now()
	claims := map[string]any{"iss": c.URL, "aud": "https://gateway", "sub": "job-" + job, "project": "7", "job": job, "jti": jti,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	if change != nil {
		change(claims)
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: c.key}, nil))(r.t)
	return must(jwt.Signed(signer).Claims(claims).Serialize())(r.t)
}

func withCI(t *testing.T) (*rig, *ci) {
	c := newCI(t)
	r := newRig(t, func(config *configs.Config) {
		config.Workloads = []configs.Workload{{
			Name: "deploy", Preset: configs.PresetGeneric, Issuer: c.URL, CA: c.ca, Audience: "https://gateway",
			Bind: map[string]configs.Values{"project": {"7"}}, Subject: []string{"job"}, Label: []string{"sub"}, Groups: []string{"ci"},
			MaxAge: configs.Duration(time.Hour), Lasts: configs.Duration(30 * time.Minute),
		}}
	})
	return r, c
}

// exchange is a token exchange over HTTP (RFC 8693).
func (r *rig) exchange(token string, change func(url.Values)) (status int, answer map[string]any) {
	r.t.Helper()
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {token}, "subject_token_type": {tokenTypeJWT}}
	if change != nil {
		change(form)
	}
	response := must(r.server.Client().PostForm(r.server.URL+pathToken, form))(r.t)
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, answer
}

// TestExchange: a job's token becomes an access token, with which everything works that works for people, for as long
// as the workload's configuration says.
func TestExchange(t *testing.T) {
	r, c := withCI(t)
	status, answer := r.exchange(c.token(r, "1", "a", nil), nil)
	if status != http.StatusOK || answer["token_type"] != "Bearer" || answer["issued_token_type"] != tokenTypeAccess || answer["expires_in"].(float64) > 1800 {
		t.Fatalf("%d %v", status, answer)
	}
	access := answer["access_token"].(string)
	who := must(r.Bearer(t.Context(), access))(t)
	if who.Kind != Workload || who.Issuer != c.URL || who.Subject != "deploy:job=1" || who.Name != "deploy job-1" || len(who.Groups) != 1 || who.Groups[0] != "ci" {
		t.Errorf("%+v", who)
	}
	if life := who.Expires.Sub(who.SignedIn); life != 30*time.Minute {
		t.Errorf("the sign-in lasts %s", life)
	}
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	issued := must(r.Certify(t.Context(), who, Keys{TLS: private.Public()}))(t)
	if issued.Expires.After(who.Expires) {
		t.Errorf("the certificate outlives the sign-in: %s, %s", issued.Expires, who.Expires)
	}
	if err := r.Standing(t.Context(), who); err != nil {
		t.Error(err)
	}
	told := r.events("workload.exchanged")
	if len(told) != 1 || told[0].Fields["token"] != "jti:a" || told[0].Fields["token_uses"] != "1" || told[0].Fields["workload"] != "deploy" || told[0].Client == "" {
		t.Errorf("%+v", told)
	}
	r.advance(31 * time.Minute)
	_, err := r.Bearer(t.Context(), access)
	refused(t, err, refusal.CredentialExpired)
}

// TestReuse: the same job may exchange its token again until that runs out, and each time is recorded; another job may
// not use a token of the same id.
func TestReuse(t *testing.T) {
	r, c := withCI(t)
	token := c.token(r, "1", "a", nil)
	for range 3 {
		if status, answer := r.exchange(token, nil); status != http.StatusOK {
			t.Fatalf("%d %v", status, answer)
		}
	}
	if told := r.events("workload.exchanged"); len(told) != 3 || told[2].Fields["token_uses"] != "3" {
		t.Errorf("%+v", told)
	}
	if status, _ := r.exchange(c.token(r, "2", "a", nil), nil); status != http.StatusBadRequest {
		t.Errorf("another job with that jti: %d", status)
	}
	if told := r.events("workload.refused"); len(told) != 1 || !strings.Contains(told[0].Reason, "another job") {
		t.Errorf("%+v", told)
	}
	// What purge forgets must not come back to life.
	r.advance(10 * time.Minute)
	if err := r.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, _ := r.exchange(token, nil); status != http.StatusBadRequest {
		t.Errorf("an expired token after the purge: %d", status)
	}
}

// TestPurgeForgetsJobs: jobs are identities that would pile up.
func TestPurgeForgetsJobs(t *testing.T) {
	r, c := withCI(t)
	must(r.SignIn(t.Context(), alice, ""))(t)
	r.exchange(c.token(r, "1", "a", nil), nil)
	r.advance(40 * 24 * time.Hour)
	if err := r.purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	var kinds string
	if err := r.store.Read().QueryRowContext(t.Context(), `SELECT min(kind) || max(kind) || count(*) FROM identities`).Scan(&kinds); err != nil || kinds != "humanhuman1" {
		t.Errorf("%q, %v", kinds, err)
	}
}

// TestExchangeRefusals: what is refused says so by RFC 6749's codes, tells strangers nothing of the configuration, and is
// audited where the token's issuer knows who it was.
func TestExchangeRefusals(t *testing.T) {
	r, c := withCI(t)
	good := c.token(r, "1", "a", nil)
	for name, test := range map[string]struct {
		token  string
		change func(url.Values)
		code   string
	}{
		"garbage":             {token: "x", code: "invalid_grant"},
		"nothing":             {token: "", code: "invalid_grant"},
		"other project":       {token: c.token(r, "1", "b", func(m map[string]any) { m["project"] = "8" }), code: "invalid_grant"},
		"oversized":           {token: good + strings.Repeat("A", 20<<10), code: "invalid_grant"},
		"type of a SAML one":  {token: good, change: func(v url.Values) { v.Set("subject_token_type", "urn:ietf:params:oauth:token-type:saml2") }, code: "invalid_request"},
		"wants a refresh":     {token: good, change: func(v url.Values) { v.Set("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token") }, code: "invalid_request"},
		"acts for another":    {token: good, change: func(v url.Values) { v.Set("actor_token", good) }, code: "invalid_request"},
		"for another service": {token: good, change: func(v url.Values) { v.Set("audience", "https://elsewhere") }, code: "invalid_target"},
		"two tokens":          {token: good, change: func(v url.Values) { v.Add("subject_token", good) }, code: "invalid_request"},
		"another client":      {token: good, change: func(v url.Values) { v.Set("client_id", "x") }, code: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := r.exchange(test.token, test.change)
			if status/100 != 4 || answer["error"] != test.code || answer["access_token"] != nil {
				t.Errorf("%d %v, want %s", status, answer, test.code)
			}
			if text, _ := answer["error_description"].(string); strings.Contains(text, "project") || strings.Contains(text, "deploy") {
				t.Errorf("a stranger is told of the configuration: %s", text)
			}
		})
	}
	told := r.events("workload.refused")
	if len(told) != 1 || !strings.Contains(told[0].Reason, "claim project is \"8\"") || told[0].Actor != c.URL+" job-1" {
		t.Errorf("%+v", told)
	}
	if n := len(r.events("workload.exchanged")); n != 0 {
		t.Errorf("%d were let in", n)
	}
	// Anybody with an account at the issuer can have tokens that are its own; they must not fill the log.
	for range 100 {
		r.exchange(c.token(r, "1", rand.Text(), func(m map[string]any) { m["project"] = "8" }), nil)
		r.advance(100 * time.Millisecond) // the issuer's own rate
	}
	if n := len(r.events("workload.refused")); n > 40 {
		t.Errorf("%d refusals of strangers were audited one by one", n)
	}
}

// TestStrangersHideNoJob: what anybody can send without proof does not use up what the audit log has for jobs that are refused.
func TestStrangersHideNoJob(t *testing.T) {
	r, c := withCI(t)
	for range 50 {
		r.exchange("x", nil)
		r.advance(100 * time.Millisecond) // the issuer's own rate
	}
	r.exchange(c.token(r, "1", "a", func(m map[string]any) { m["project"] = "8" }), nil)
	if told := r.events("workload.refused"); len(told) != 1 {
		t.Errorf("of a job that was refused: %+v", told)
	}
}

// TestExchangeWithoutIssuer: an issuer that is down lets nobody in and says that it is that.
func TestExchangeWithoutIssuer(t *testing.T) {
	r, c := withCI(t)
	token := c.token(r, "1", "a", nil)
	c.Close()
	if status, answer := r.exchange(token, nil); status != http.StatusServiceUnavailable || answer["error"] != "temporarily_unavailable" {
		t.Errorf("%d %v", status, answer)
	}
}

// TestDiscoveryNamesExchange, so that clients can find it.
func TestDiscoveryNamesExchange(t *testing.T) {
	r, _ := withCI(t)
	response := must(r.server.Client().Get(r.server.URL + pathDiscovery))(t)
	defer response.Body.Close()
	var found struct {
		Grants []string `json:"grant_types_supported"`
	}
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil || !strings.Contains(strings.Join(found.Grants, " "), "token-exchange") {
		t.Errorf("%v, %v", found.Grants, err)
	}
}

// TestStartedBy: who started a job stays with its sign-in, and tells that person from others.
func TestStartedBy(t *testing.T) {
	r, c := withCI(t)
	changed := *r.cfg
	changed.Workloads = slices.Clone(changed.Workloads)
	changed.Workloads[0].StartedBy, changed.Workloads[0].People = "actor", map[string]string{"42": "alice@example.com"}
	if err := r.Reload(t.Context(), &changed); err != nil {
		t.Fatal(err)
	}
	by := func(actor string) Identity {
		access, _, err := r.ExchangeWorkload(t.Context(), c.token(r, "job-"+actor, rand.Text(), func(claims map[string]any) { claims["actor"] = actor }), "10.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return must(r.Bearer(t.Context(), access))(t)
	}
	alice, bob := Identity{Kind: Human, Subject: "a", Email: "Alice@Example.com"}, Identity{Kind: Human, Subject: "alice@example.com-not", Email: "bob@example.com"}
	who := by("42")
	if who.StartedBy != (Starter{ID: "42", Person: "alice@example.com"}) || !who.StartedBy.Is(alice) || who.StartedBy.Is(bob) {
		t.Errorf("%+v", who.StartedBy)
	}
	if other := by("43"); other.StartedBy != (Starter{ID: "43"}) || other.StartedBy.Is(alice) || other.StartedBy.Is(Identity{Kind: Human}) {
		t.Errorf("%+v", other.StartedBy)
	}
	// So do the claims that the configuration names.
	changed.Workloads = slices.Clone(changed.Workloads)
	changed.Workloads[0].Claims = []string{"environment", "deep/ref", "project", "absent", "list"}
	if err := r.Reload(t.Context(), &changed); err != nil {
		t.Fatal(err)
	}
	access, _, err := r.ExchangeWorkload(t.Context(), c.token(r, "claims", rand.Text(), func(claims map[string]any) {
		claims["environment"], claims["deep"], claims["list"] = "production", map[string]any{"ref": "main"}, []string{"a"}
	}), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if who := must(r.Bearer(t.Context(), access))(t); !maps.Equal(who.Claims, map[string]string{"environment": "production", "deep/ref": "main", "project": "7"}) {
		t.Errorf("%q", who.Claims)
	}
	if (Starter{Email: "ci@example.com"}).Is(Identity{Kind: Workload, Email: "ci@example.com"}) {
		t.Error("a workload is taken for a person")
	}
}

// TestReloadWorkloads: a workload that stays as it is keeps its jobs, one that changes or goes loses them at once, and a new
// one needs no restart.
func TestReloadWorkloads(t *testing.T) {
	r, c := withCI(t)
	access, _, err := r.ExchangeWorkload(t.Context(), c.token(r, "1", "a", nil), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	who := must(r.Bearer(t.Context(), access))(t)
	changed := *r.cfg
	changed.Workloads = append(slices.Clone(changed.Workloads), changed.Workloads[0])
	changed.Workloads[1].Name, changed.Workloads[1].Bind = "deploy other", map[string]configs.Values{"project": {"8"}}
	if err := r.Reload(t.Context(), &changed); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Bearer(t.Context(), access); err != nil {
		t.Errorf("a workload that did not change lost its job: %v", err)
	}
	other, _, err := r.ExchangeWorkload(t.Context(), c.token(r, "2", "b", func(claims map[string]any) { claims["project"] = "8" }), "10.0.0.1")
	if err != nil {
		t.Fatalf("a new workload: %v", err)
	}
	changed.Workloads = slices.Clone(changed.Workloads[1:])
	if err := r.Reload(t.Context(), &changed); err != nil {
		t.Fatal(err)
	}
	_, err = r.Bearer(t.Context(), access)
	refused(t, err, refusal.NotAuthenticated)
	if err := r.Standing(t.Context(), who); err == nil {
		t.Error("a job of a workload that is gone still stands, and so would its sessions")
	}
	if _, err := r.Bearer(t.Context(), other); err != nil {
		t.Errorf("the other workload's job: %v", err)
	}
	_, _, err = r.ExchangeWorkload(t.Context(), c.token(r, "1", "c", nil), "10.0.0.1")
	refused(t, err, refusal.NotAuthenticated)
}
