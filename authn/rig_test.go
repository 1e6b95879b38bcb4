package authn

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// alice is somebody whom the provider has proven.
var alice = Identity{Issuer: "https://login.example", Subject: "alice", Kind: Human, Name: "Alice Engineer", Email: "alice@example.com", Groups: []string{"engineers"}}

// rig is a gateway's authn with its store, its HTTPS server and the company's provider.
type rig struct {
	*Service
	t       *testing.T
	server  *httptest.Server
	company *company
	ahead   atomic.Int64 // how far the gateway's clock is ahead
	still   atomic.Pointer[time.Time]
	cfg     *configs.Config
}

func (r *rig) advance(d time.Duration) { r.ahead.Add(int64(d)) }

// stand stops the gateway's clock but for advance, where what a test does must not take time.
func (r *rig) stand() {
	now := time.Now()
	r.still.Store(&now)
}

func (r *rig) clock() time.Time {
	now := time.Now()
	if still := r.still.Load(); still != nil {
		now = *still
	}
	return now.Add(time.Duration(r.ahead.Load()))
}

func newRig(t *testing.T, change ...func(*configs.Config)) *rig {
	t.Helper()
	r := &rig{t: t, company: newCompany(t)}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { r.Handler().ServeHTTP(w, q) }))
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	r.company.redirect = r.server.URL + "/oauth/callback"
	t.Setenv("AUTHN_TEST_SECRET", r.company.secret)
	r.cfg = &configs.Config{
		State: filepath.Join(t.TempDir(), "state"), URL: r.server.URL,
		Provider: configs.Provider{
			Issuer: r.company.URL, ClientID: "gateway", ClientSecret: "env:AUTHN_TEST_SECRET", CA: r.company.ca,
			Scopes: []string{"openid", "profile", "email"},
		},
		Credentials: configs.Credentials{SignIn: configs.Duration(12 * time.Hour), Certificate: configs.Duration(10 * time.Hour), StandingGrace: configs.Duration(10 * time.Minute)},
	}
	for _, f := range change {
		f(r.cfg)
	}
	if r.cfg.URL != r.server.URL { // a name, by which the test server's own client finds it too
		r.server.URL, r.company.redirect = r.cfg.URL, r.cfg.URL+"/oauth/callback"
	}
	st := storetest.New(t, r.cfg.State)
	var err error
	r.Service, err = open(t.Context(), r.cfg, st, slog.New(slog.DiscardHandler), r.clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

// events are the audit events of that kind so far.
func (r *rig) events(kind string) (found []store.AuditEvent) {
	r.t.Helper()
	all, err := r.store.Outbox(r.t.Context(), 0, 10_000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range all {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// must returns v, or ends the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused insists on a refusal of that code.
func refused(t testing.TB, err error, code refusal.Code) *refusal.Refusal {
	t.Helper()
	if !refusal.Is(err, code) {
		t.Fatalf("got %v, want a refusal with code %s", err, code)
	}
	return refusal.Of(err)
}

// browser keeps cookies and follows redirects, but not to the program that waits on loopback.
type browser struct {
	*http.Client
	r *rig
}

func (r *rig) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	transport := r.server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs.AddCert(r.company.Certificate())
	r.t.Cleanup(transport.CloseIdleConnections)
	return &browser{r: r, Client: &http.Client{Transport: transport, Jar: jar, Timeout: time.Minute, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if next.URL.Path == "/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

// page is an answer that was read.
type page struct {
	*http.Response
	text string
}

func (b *browser) do(request *http.Request) page {
	b.r.t.Helper()
	answer, err := b.Do(request)
	if err != nil {
		b.r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.r.t.Fatal(err)
	}
	return page{answer, string(text)}
}

func (b *browser) get(address string) page {
	b.r.t.Helper()
	return b.do(must(http.NewRequest(http.MethodGet, address, nil))(b.r.t))
}

func (b *browser) post(address string, form url.Values) page {
	b.r.t.Helper()
	request := must(http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode())))(b.r.t)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(request)
}

var requestField = regexp.MustCompile(`name="request" value="([^"]+)"`)

var goOnLink = regexp.MustCompile(`href="(/oauth/login/go[^"]+)"`)

// goOn says that the person began the sign-in themselves, where p asks that.
func (b *browser) goOn(p page) page {
	b.r.t.Helper()
	if link := goOnLink.FindStringSubmatch(p.text); link != nil {
		return b.get(b.r.server.URL + link[1])
	}
	return p
}

// fill signs a person in at the provider's form, which p is.
func (b *browser) fill(p page, person string) page {
	b.r.t.Helper()
	p = b.goOn(p)
	found := requestField.FindStringSubmatch(p.text)
	if found == nil {
		b.r.t.Fatalf("no form of the provider at %s: %s\n%s", p.Request.URL, p.Status, p.text)
	}
	return b.post(b.r.company.URL+"/signin", url.Values{"request": {found[1]}, "person": {person}})
}

// flow is a command line that signs in.
type flow struct {
	config   oauth2.Config
	verifier string
}

func (r *rig) flow() flow {
	at := r.server.URL
	return flow{verifier: oauth2.GenerateVerifier(), config: oauth2.Config{
		ClientID: "sallyport-cli", RedirectURL: "http://127.0.0.1:45678/callback", Scopes: []string{"openid", "offline_access"},
		Endpoint: oauth2.Endpoint{AuthURL: at + "/oauth/authorize", TokenURL: at + "/oauth/token", DeviceAuthURL: at + "/oauth/device_authorization", AuthStyle: oauth2.AuthStyleInParams},
	}}
}

func (f flow) address() string {
	return f.config.AuthCodeURL("the state", oauth2.S256ChallengeOption(f.verifier))
}

// code insists that p is the redirect to the command line, and takes the code from it.
func (r *rig) code(p page) string {
	r.t.Helper()
	back, err := p.Location()
	if err != nil || !strings.HasPrefix(back.String(), "http://127.0.0.1:45678/callback?") || back.Query().Get("state") != "the state" || back.Query().Get("code") == "" {
		r.t.Fatalf("the sign-in ended at %s with %s to %v:\n%s", p.Request.URL, p.Status, back, p.text)
	}
	return back.Query().Get("code")
}

func (r *rig) oauthContext() context.Context {
	return context.WithValue(r.t.Context(), oauth2.HTTPClient, r.server.Client())
}

// signedIn goes the whole way for a person.
func (r *rig) signedIn(person string) (flow, *oauth2.Token) {
	r.t.Helper()
	b, f := r.browser(), r.flow()
	code := r.code(b.fill(b.get(f.address()), person))
	return f, must(f.config.Exchange(r.oauthContext(), code, oauth2.VerifierOption(f.verifier)))(r.t)
}

// form posts to the issuer as a program, and returns status and JSON.
func (r *rig) form(path string, form url.Values) (int, map[string]any) {
	r.t.Helper()
	answer := must(r.server.Client().PostForm(r.server.URL+path, form))(r.t)
	defer answer.Body.Close()
	data := must(io.ReadAll(answer.Body))(r.t)
	body := map[string]any{}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &body); err != nil && string(data) != "null\n" {
			r.t.Fatalf("%s: %s: %v in %s", path, answer.Status, err, data)
		}
	}
	return answer.StatusCode, body
}

var somewhere = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 999}
