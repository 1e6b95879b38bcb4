package federation

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/configs"
)

// TestAnswers: what counts as a provider that does not answer, and how often it is asked.
func TestAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		metadata, authorize int
		down                bool
	}{
		"both answer":               {200, 200, false},
		"it sends browsers on":      {200, 302, false},
		"it does not like the form": {200, 400, false},
		"no metadata there":         {404, 200, false},
		"the metadata fail":         {502, 200, true},
		"nobody can sign in":        {200, 503, true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			mux := http.NewServeMux()
			server := httptest.NewTLSServer(mux)
			t.Cleanup(server.Close)
			mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.WriteHeader(test.metadata)
				_, _ = w.Write([]byte(`{"authorization_endpoint":` + strconv.Quote(server.URL+"/authorize") + `}`))
			})
			mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); q.Get("client_id") != "gateway" || q.Get("redirect_uri") != "https://gateway.example/back" || q.Get("code_challenge") == "" || q.Get("state") == "" || q.Get("scope") != "openid" {
					t.Errorf("it was asked %s", r.URL)
				}
				w.WriteHeader(test.authorize)
			})
			now := time.Now()
			p := New(configs.Provider{Issuer: server.URL, ClientID: "gateway", CA: authority(t, server)}, "https://gateway.example/back", nil, func() time.Time { return now })
			for range 5 {
				if err := p.Answers(t.Context()); errors.Is(err, ErrUnavailable) != test.down || (err != nil) != test.down {
					t.Fatal(err)
				}
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("it was asked %d times at once", n)
			}
			now = now.Add(askEvery)
			if server.Close(); !errors.Is(p.Answers(t.Context()), ErrUnavailable) {
				t.Error("a provider that is gone answers")
			}
		})
	}
}

// TestRedeems: a provider that shows its pages and redeems nothing does not answer, once that has gone on for a minute and it fails at
// what the gateway itself has made up too; neither what a stranger's code does to it nor one failure is such a sign.
func TestRedeems(t *testing.T) {
	var status, asked atomic.Int32
	status.Store(503)
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"issuer":` + strconv.Quote(server.URL) + `,"authorization_endpoint":` + strconv.Quote(server.URL+"/authorize") + `,"token_endpoint":` + strconv.Quote(server.URL+"/token") + `}`))
	})
	mux.HandleFunc("/authorize", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.FormValue("code") == "poison" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
	})
	now := time.Now()
	secret := func(context.Context) (string, error) { return "secret", nil }
	p := New(configs.Provider{Issuer: server.URL, ClientID: "gateway", CA: authority(t, server)}, "https://gateway.example/back", secret, func() time.Time { return now })
	answers := func(want bool, when string) {
		t.Helper()
		now = now.Add(askEvery)
		if err := p.Answers(t.Context()); errors.Is(err, ErrUnavailable) == want || (err == nil) != want {
			t.Errorf("%s: %v", when, err)
		}
	}
	fails := func(code string) {
		t.Helper()
		if _, err := p.Finish(t.Context(), code, "nonce", "verifier"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("%v", err)
		}
	}
	answers(true, "nobody has asked it for anything")
	if asked.Load() != 0 {
		t.Error("what nobody failed at is asked")
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	_, _ = p.Finish(gone, "code", "nonce", "verifier")
	answers(true, "somebody went away")
	if !p.redeeming.failingSince().IsZero() {
		t.Error("who went away has it fail")
	}
	fails("code")
	answers(true, "it has failed once, just now")
	now = now.Add(redeemPatience)
	answers(false, "for a minute")
	status.Store(400)
	answers(true, "it refuses again what is made up")
	now = now.Add(2 * redeemPatience)
	for range 5 {
		fails("poison")
		now = now.Add(redeemPatience)
		answers(true, "it fails at what strangers bring")
	}
	// What answers anybody in between answers.
	status.Store(503)
	fails("code")
	now = now.Add(redeemPatience - 2*askEvery)
	answers(true, "for less than a minute")
	status.Store(400)
	if _, err := p.Refresh(t.Context(), "token", "alice", ""); !errors.Is(err, ErrWithdrawn) {
		t.Fatal(err)
	}
	status.Store(503)
	fails("code")
	now = now.Add(2 * askEvery)
	answers(true, "it answered somebody")
	now = now.Add(redeemPatience)
	answers(false, "nobody since")
}

func authority(t *testing.T, server *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestStarvedGatewaySeesNoOutage: what the gateway itself lacks is no word about the provider.
func TestStarvedGatewaySeesNoOutage(t *testing.T) {
	p := New(configs.Provider{Issuer: "https://login.example", CA: filepath.Join(t.TempDir(), "none")}, "", nil, time.Now)
	if err := p.Answers(t.Context()); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("without its authorities: %v", err)
	}
	for _, no := range ourOwn {
		client := &http.Client{Transport: failing{no}}
		if _, err := p.get(context.Background(), client, "https://login.example"); !errors.Is(err, no) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%v: %v", no, err)
		}
	}
	client := &http.Client{Transport: failing{syscall.ECONNREFUSED}}
	if _, err := p.get(context.Background(), client, "https://login.example"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("nobody listens there: %v", err)
	}
}

type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &os.SyscallError{Syscall: "socket", Err: f.err}
}
