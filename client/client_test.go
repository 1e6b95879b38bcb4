package client

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sallyport/client/job"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// failing runs a gateway that misbehaves as told, and a client signed in there.
func failing(t *testing.T, behave http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewTLSServer(behave)
	t.Cleanup(server.Close)
	h := Home{Dir: t.TempDir()}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	err := errors.Join(
		h.write(fileAuthority, ca, 0o644),
		h.writeJSON(fileConfig, settings{Gateway: server.URL, CA: fileAuthority}),
		h.writeJSON(fileToken, oauth2.Token{AccessToken: "good", Expiry: time.Now().Add(time.Hour)}),
	)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(h)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestARefusalKeepsItsWords(t *testing.T) {
	c := failing(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			t.Errorf("authorization %q", r.Header.Get("Authorization"))
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"code":"conflict","message":"it is over","detail":"since noon","hint":"ask again"}`)
	})
	err := c.Do(t.Context(), http.MethodGet, "/v1/x", nil, nil)
	r := refusal.Of(err)
	if r == nil || r.Code != refusal.Conflict || r.Message != "it is over" || r.Detail != "since noon" || r.Hint != "ask again" {
		t.Errorf("%#v", err)
	}
}

func TestWhatIsNoGatewayIsSaidToBeNone(t *testing.T) {
	for name, behave := range map[string]http.HandlerFunc{
		"a page":       func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"another page": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			piece := []byte(strings.Repeat(" ", 1<<20))
			for range maxAnswer>>20 + 2 {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		},
	} {
		var out map[string]any
		if err := failing(t, behave).Do(t.Context(), http.MethodGet, "/v1/x", nil, &out); err == nil || refusal.Of(err) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the client went elsewhere, with the token %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	c := failing(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	if err := c.Do(t.Context(), http.MethodPost, "/v1/x", map[string]string{}, nil); err == nil {
		t.Error("a redirect was taken for an answer")
	}
}

func TestAStreamThatIsCutIsNotWhole(t *testing.T) {
	line := `{"kind":"statement"}` + "\n"
	for name, test := range map[string]struct {
		behave http.HandlerFunc
		whole  bool
	}{
		"whole": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, line, line) }, true},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, line, line)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, false},
		"with a reason": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, line, line, `{"problem":{"code":"recorder_failed","message":"a block is damaged"}}`+"\n")
		}, false},
	} {
		c := failing(t, test.behave)
		n, failed := 0, error(nil)
		for item, err := range Lines[api.Item](t.Context(), c, "/v1/x") {
			if err != nil {
				failed = err
				break
			}
			if item.Kind != "statement" {
				t.Errorf("%s: %+v", name, item)
			}
			n++
		}
		if n != 2 || (failed == nil) != test.whole {
			t.Errorf("%s: %d lines, then %v", name, n, failed)
		}
		if name == "with a reason" && !refusal.Is(failed, refusal.RecorderFailed) {
			t.Errorf("%s: %v", name, failed)
		}
	}
}

func TestAnUntrustedGatewayIsNotTalkedTo(t *testing.T) {
	asked := false
	c := failing(t, func(http.ResponseWriter, *http.Request) { asked = true })
	other, err := httpClient(nil) // the system's authorities, which did not sign the gateway's certificate
	if err != nil {
		t.Fatal(err)
	}
	_, err = send(t.Context(), other, http.MethodGet, c.gateway+"/v1/gateway", "", nil)
	if err == nil || asked || !strings.Contains(err.Error(), "--ca") {
		t.Errorf("asked: %v; %v", asked, err)
	}
}

func TestOpenWithoutSigningIn(t *testing.T) {
	h := Home{Dir: t.TempDir()}
	if _, err := Open(h); !refusal.Is(err, refusal.NotAuthenticated) {
		t.Errorf("no settings: %v", err)
	}
	if err := h.writeJSON(fileConfig, settings{Gateway: "https://gateway.example"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(h); !refusal.Is(err, refusal.NotAuthenticated) {
		t.Errorf("no token: %v", err)
	}
}

func TestAnExpiredSignInSaysSo(t *testing.T) {
	c := failing(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/openid-configuration" {
			t.Errorf("asked for %s", r.URL.Path)
		}
	})
	expired := oauth2.Token{AccessToken: "old", Expiry: time.Now().Add(-time.Minute)}
	if err := c.home.writeJSON(fileToken, expired); err != nil {
		t.Fatal(err)
	}
	if err := c.Do(t.Context(), http.MethodGet, "/v1/me", nil, nil); !refusal.Is(err, refusal.CredentialExpired) {
		t.Errorf("%v", err)
	}
}

// The issuer is the gateway and nothing but the gateway: codes and tokens go nowhere else.
func TestAnIssuerElsewhereIsRefused(t *testing.T) {
	for name, document := range map[string]string{
		"another issuer":   `{"issuer":"https://evil.example","authorization_endpoint":"%[1]s/a","token_endpoint":"%[1]s/t"}`,
		"a token endpoint": `{"issuer":"%[1]s","authorization_endpoint":"%[1]s/a","token_endpoint":"https://evil.example/t"}`,
		"a longer host":    `{"issuer":"%[1]s","authorization_endpoint":"%[1]s/a","token_endpoint":"%[1]s.evil.example/t"}`,
	} {
		c := failing(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, document, "https://"+r.Host) })
		if config, err := discover(t.Context(), c.http, c.gateway); err == nil {
			t.Errorf("%s: %+v", name, config.Endpoint)
		}
	}
}

func TestCancelIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := failing(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if err := c.Do(ctx, http.MethodGet, "/v1/x", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestLoginAddresses(t *testing.T) {
	for _, gateway := range []string{"http://gateway.example", "gateway.example", "https://", "https://gateway.example/console", "ftp://x"} {
		if _, err := Login(t.Context(), Home{Dir: t.TempDir()}, LoginOptions{Gateway: gateway}); !refusal.Is(err, refusal.Invalid) {
			t.Errorf("%s: %v", gateway, err)
		}
	}
}

// What waits for another process of the same home ends with its context: Ctrl-C ends it.
func TestALockIsNotWaitedForForEver(t *testing.T) {
	c := failing(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	held, err := c.home.lock(t.Context(), "lock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Do(ctx, http.MethodGet, "/v1/x", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("while another has the lock: %v", err)
	}
	held()
	// Also the one that was given up lets go of it once it comes.
	if err := c.Do(t.Context(), http.MethodGet, "/v1/x", nil, nil); err != nil {
		t.Error(err)
	}
}

// A run that is interrupted while the gateway files its request gives back what was filed.
func TestAnInterruptedRunGivesBackWhatItAskedFor(t *testing.T) {
	for _, name := range append([]string{"ACTIONS_ID_TOKEN_REQUEST_URL"}, job.Secret...) {
		t.Setenv(name, "")
	}
	asked, released := make(chan struct{}), make(chan string, 1)
	ctx, interrupt := context.WithCancel(t.Context())
	c := failing(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /v1/me":
			fmt.Fprint(w, `{"name":"Alice","expires":"2999-01-01T00:00:00Z"}`)
		case "POST /v1/requests":
			interrupt()
			<-ctx.Done()
			close(asked)
			fmt.Fprint(w, `{"id":"g-1","state":"pending"}`)
		case "POST /v1/grants/g-1/release":
			released <- r.URL.Path
			fmt.Fprint(w, `{}`)
		default:
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
	})
	_, err := Run(ctx, c.home, RunOptions{Accounts: []Account{{"app", "orders"}, {"app", "stock"}}, Reason: "x", Wait: time.Minute, Command: []string{"true"}, Progress: io.Discard})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	<-asked
	select {
	case <-released:
	default:
		t.Error("what was asked for was not given back")
	}
}
