package web_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/demo/provider"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/recorder/transparency/ledger"
	"sallyport/session"
	"sallyport/web"
	"sallyport/web/api"
	"sallyport/web/console"
	"sallyport/web/idempotency"
)

// rig is a whole gateway but for the protocols: a real provider, issuer, store, recorder, grants and sessions behind the
// handler under test. Sessions are begun without a target, which none of this needs.
type rig struct {
	recipients []string // that sessions begun from now on are locked to
	mask       *format.Mask
	t          *testing.T
	url        string
	config     *configs.Config
	store      *store.Store
	recorder   *recorder.Recorder
	grants     *grant.Service
	sessions   *session.Manager
	tls        *tls.Config
	tokens     map[string]string // by person
	options    web.Options
}

const configuration = `
state: state
url: https://%[1]s
listen: {https: "127.0.0.1:0", postgres: "127.0.0.1:0", ssh: "127.0.0.1:0"}
tls: {certificate: cert.pem, key: key.pem, ca: cert.pem}
provider:
  issuer: %[2]s
  client_id: gateway
  client_secret: env:WEB_TEST_SECRET
  scopes: [openid, profile, email, groups]
  ca: cert.pem
recording: {durability: written, reserve: 1MiB}
targets:
  - name: orders
    kind: postgres
    address: 127.0.0.1:1
    listen: 127.0.0.1:0
    database: shop
    tls: {mode: "off"}
    accounts: [{name: app}, {name: report}]
  - name: stock
    kind: postgres
    labels: {tier: low}
    address: 127.0.0.1:1
    tls: {mode: "off"}
    accounts: [{name: app}]
  - name: web-1
    kind: ssh
    address: 127.0.0.1:1
    aliases: ["10.0.0.5:2200"]
    host_ca: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJHHc6xL1b3G6dBYbC1pQZ7VYCC8pqU5J7h0h5JYV0m9
    accounts: [{name: deploy}]
policies:
  - name: reports
    groups: [engineers]
    accounts: ["report@orders", "*@stock", "*@web-1"]
    max_duration: 1h
    approve: {auto: true}
  - name: orders
    groups: [engineers]
    accounts: ["app@orders"]
    max_duration: 8h
    reason_length: 5
    approve: {groups: [approvers]}
permissions:
  - {groups: [security], may: ["*"]}
  - {groups: [approvers], may: [recordings.read, sessions.list], labels: {tier: low}}
`

var people = []provider.User{
	{Name: "alice", FullName: "Alice Engineer", Email: "alice@example.com", Groups: []string{"engineers"}, Password: "a"},
	{Name: "bob", FullName: "Bob Approver", Email: "bob@example.com", Groups: []string{"approvers"}, Password: "b"},
	{Name: "carol", FullName: "Carol Security", Email: "carol@example.com", Groups: []string{"security"}, Password: "c"},
}

func newRig(t *testing.T) *rig {
	t.Helper()
	ctx := t.Context()
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	dir := t.TempDir()

	server := httptest.NewUnstartedServer(nil)
	address := server.Listener.Addr().String()
	certificates := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	t.Cleanup(certificates.Close)
	writePEM(t, dir, certificates.TLS.Certificates[0])

	listener, err := provider.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("WEB_TEST_SECRET", "between us")
	p, err := provider.Start(listener, provider.Options{
		Users:  people,
		Client: provider.Client{ID: "gateway", Secret: "between us", Redirect: "https://" + address + "/oauth/callback"},
		TLS:    certificates.TLS.Clone(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })

	file := filepath.Join(dir, "sallyport.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, address, p.Issuer), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, url: "https://" + address, tokens: map[string]string{}}
	if r.config, err = configs.Load(file); err != nil {
		t.Fatal(err)
	}
	r.store = storetest.New(t, r.config.State)
	signer, key, err := ledger.LoadKey(filepath.Join(r.config.State, "keys"), "gateway.example/log")
	if err != nil {
		t.Fatal(err)
	}
	bound, err := ledger.Open(ctx, ledger.Options{Dir: r.config.State, Signer: signer, Key: key, Interval: time.Millisecond, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bound.Close(context.Background()) })
	r.recorder, err = recorder.Open(ctx, recorder.Options{
		Ledger: bound,
		Dir:    r.config.State, Config: r.config.Recording, Store: r.store, Version: "test", Log: log,
		Index: filepath.Join(r.config.State, "index.db"), Recipients: func(string) []string { return r.recipients }, Mask: func(string) *format.Mask { return r.mask },
		Interpreters: map[string]func(format.Header) recorder.Interpreter{
			configs.KindPostgres: func(format.Header) recorder.Interpreter { return plain{} },
			configs.KindSSH:      func(format.Header) recorder.Interpreter { return plain{} },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.recorder.Close(context.Background()) })
	who, err := authn.Open(ctx, r.config, r.store, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { who.Close(context.Background()) })
	if r.grants, err = grant.Open(ctx, r.config, r.store, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.grants.Close() })
	r.sessions, err = session.Open(ctx, session.Options{Store: r.store, Recorder: r.recorder, Authn: who, Config: r.config, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	browsers, err := console.OpenSessions(ctx, r.store)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := idempotency.Open(ctx, r.store)
	if err != nil {
		t.Fatal(err)
	}
	server.Config.ConnContext = web.WithConnection
	r.options = web.Options{
		URL: r.url, Version: "test", Authn: who, Grants: r.grants, Sessions: r.sessions, Recorder: r.recorder, Store: r.store, Console: browsers, Keys: keys,
		Config: func() *configs.Config { return r.config },
		Bound: func(listener string) string {
			return map[string]string{"postgres": "127.0.0.1:5432", "postgres/orders": "127.0.0.1:5433", "ssh": "127.0.0.1:2222"}[listener]
		},
		Setup: func(_ context.Context, t configs.Target) (api.Setup, error) {
			return api.Setup{Target: t.Name, Kind: t.Kind, Parts: []api.SetupPart{{Name: "sql", Title: "SQL", Text: "CREATE ROLE app"}}}, nil
		},
		Check: func(_ context.Context, _ authn.Identity, t configs.Target) (api.Check, error) {
			return api.Check{Target: t.Name, OK: true, Steps: []api.CheckStep{}}, nil
		},
		Trust: func(_ context.Context, _ authn.Identity, t configs.Target) (api.Trust, error) {
			return api.Trust{Target: t.Name, Keys: []api.HostKey{}}, nil
		},
		Log: log,
	}
	server.Config.Handler = web.New(r.options)
	server.TLS = certificates.TLS.Clone()
	server.StartTLS()
	t.Cleanup(server.Close)
	r.tls = certificates.Client().Transport.(*http.Transport).TLSClientConfig
	for _, person := range people {
		r.tokens[person.Name] = r.signIn(person.Name)
	}
	return r
}

// plain takes what was said for a statement, as text, and what was answered for output.
type plain struct{}

func (plain) Interpret(e recorder.Event, emit func(recorder.Item)) {
	switch e.Type {
	case format.TypeSaid:
		emit(recorder.Item{At: e.At, Kind: recorder.ItemStatement, SQL: string(e.Data)})
	case format.TypeAnswered:
		emit(recorder.Item{At: e.At, Kind: recorder.ItemOutput, Stream: "stdout", Data: e.Data})
	}
}
func (plain) Finish(func(recorder.Item)) {}

// client is a browser: it keeps cookies and does not follow the redirect to the program that signs in.
func (r *rig) client() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: r.tls.Clone()}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Jar: jar, Timeout: time.Minute, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if next.URL.Path == "/callback" && next.URL.Scheme == "http" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// signIn signs a person in at the gateway's issuer, by way of the provider's form, and returns an access token.
func (r *rig) signIn(person string) string {
	r.t.Helper()
	client := r.client()
	ctx := context.WithValue(r.t.Context(), oauth2.HTTPClient, client)
	var found struct {
		Auth  string `json:"authorization_endpoint"`
		Token string `json:"token_endpoint"`
	}
	answer, err := client.Get(r.url + "/.well-known/openid-configuration")
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil {
		r.t.Fatal(err)
	}
	config := oauth2.Config{
		ClientID: "sallyport-cli", RedirectURL: "http://127.0.0.1:1/callback", Scopes: []string{"openid", "offline_access"},
		Endpoint: oauth2.Endpoint{AuthURL: found.Auth, TokenURL: found.Token, AuthStyle: oauth2.AuthStyleInParams},
	}
	verifier := oauth2.GenerateVerifier()
	page, err := client.Get(config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		r.t.Fatal(err)
	}
	if page.Request.URL.Path == "/oauth/login" { // did you start this yourself?
		page.Body.Close()
		if page, err = client.Get(page.Request.URL.JoinPath("go").String()); err != nil {
			r.t.Fatal(err)
		}
	}
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindSubmatch(text)
	if id == nil {
		r.t.Fatalf("no form at %s (%s):\n%s", page.Request.URL, page.Status, text)
	}
	done, err := client.PostForm(page.Request.URL.ResolveReference(&url.URL{Path: "/login"}).String(),
		url.Values{"id": {string(id[1])}, "name": {person}, "password": {person[:1]}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer done.Body.Close()
	back, err := done.Location()
	if err != nil {
		rest, _ := io.ReadAll(done.Body)
		r.t.Fatalf("signing in as %s ended at %s with %s:\n%s", person, done.Request.URL, done.Status, rest)
	}
	token, err := config.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		r.t.Fatalf("%s: %v (%s)", person, err, back)
	}
	return token.AccessToken
}

// call sends a request as a person ("" as nobody) and returns status and body.
func (r *rig) call(person, method, path string, in any) (int, []byte) {
	r.t.Helper()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			r.t.Fatal(err)
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if person != "" {
		request.Header.Set("Authorization", "Bearer "+r.tokens[person])
	}
	answer, err := r.client().Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, data
}

// must is call for what has to succeed.
func (r *rig) must(person, method, path string, in, out any) {
	r.t.Helper()
	status, data := r.call(person, method, path, in)
	if status/100 != 2 {
		r.t.Fatalf("%s %s as %s: %d %s", method, path, person, status, data)
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, data)
		}
	}
}

// request files alice's request for app@orders, in the place of any that there is.
func (r *rig) request() api.Grant {
	r.t.Helper()
	for _, path := range []string{"/v1/requests", "/v1/grants"} {
		var open []api.Grant
		r.must("alice", "GET", path, nil, &open)
		for _, g := range open {
			if g.Account == "app" && g.Target == "orders" {
				r.must("alice", "POST", "/v1/grants/"+g.ID+"/release", nil, nil)
			}
		}
	}
	var g api.Grant
	r.must("alice", "POST", "/v1/requests", api.GrantRequest{Target: "orders", Account: "app", Duration: "30m", Reason: "INC-42 slow"}, &g)
	return g
}

// begin opens a session of alice's on the target, says something in it and returns it.
func (r *rig) begin(target, account string, said ...string) *session.Session {
	r.t.Helper()
	var me api.Identity
	r.must("alice", "GET", "/v1/me", nil, &me)
	alice := authn.Identity{Issuer: me.Issuer, Subject: me.Subject, Kind: authn.Human, Name: me.Name, Email: me.Email, Groups: me.Groups, SignedIn: me.SignedIn, Expires: me.Expires}
	lease, err := r.grants.Lease(r.t.Context(), alice, target, account)
	if err != nil {
		if _, err = r.grants.Request(r.t.Context(), alice, grant.Ask{Target: target, Account: account, Reason: "for a test"}); err != nil {
			r.t.Fatal(err)
		}
		if lease, err = r.grants.Lease(r.t.Context(), alice, target, account); err != nil {
			r.t.Fatal(err)
		}
	}
	t, _ := r.grants.Target(target)
	a, _ := grant.Account(t, account)
	s, err := r.sessions.Begin(r.t.Context(), session.Opening{
		Protocol: t.Kind, Identity: alice, Target: t, Account: a, Lease: lease, Client: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.End(session.Ending{Reason: "client_closed"}) })
	for _, text := range said {
		if _, err := s.Admit(r.t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte(text)}); err != nil {
			r.t.Fatal(err)
		}
	}
	return s
}

// finished is begin with an ended session, as an id.
func (r *rig) finished(target, account string, said ...string) string {
	r.t.Helper()
	s := r.begin(target, account, said...)
	s.End(session.Ending{Reason: "client_closed"})
	return s.ID()
}

// audited returns the kinds and outcomes of the audit events so far that name the person.
func (r *rig) audited(person string) []string {
	r.t.Helper()
	var kinds []string
	for line := range strings.Lines(r.audit("carol")) {
		var e api.AuditEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatalf("%v in %s", err, line)
		}
		if strings.EqualFold(strings.Fields(e.ActorName + " -")[0], person) {
			kinds = append(kinds, e.Kind+" "+e.Outcome)
		}
	}
	return kinds
}

func (r *rig) audit(person string) string {
	r.t.Helper()
	status, data := r.call(person, "GET", "/v1/audit", nil)
	if status != http.StatusOK {
		r.t.Fatalf("audit: %d %s", status, data)
	}
	return string(data)
}

func writePEM(t *testing.T, dir string, c tls.Certificate) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	for _, name := range []string{"cert.pem", "key.pem"} { // the gateway's listener is not under test: its key is not needed
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// testWriter shows the gateway's log with the test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil { // the test still runs
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}
