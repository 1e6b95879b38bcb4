package provider

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

var alice = User{Name: "alice", FullName: "Alice Engineer", Email: "alice@example.com", Groups: []string{"engineers"}, Password: "wonderland"}

// start runs a provider whose relying party is redirected to an address that nobody listens on: the tests stop before.
func start(t *testing.T) (*Provider, *http.Client) {
	t.Helper()
	certificates := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(certificates.Close)
	listener, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(listener, Options{
		Users:  []User{alice},
		Client: Client{ID: "gateway", Secret: "between us", Redirect: "https://gateway.example/oauth/callback"},
		TLS:    certificates.TLS.Clone(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	client := certificates.Client()
	client.Jar, _ = cookiejar.New(nil)
	client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "gateway.example" {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return p, client
}

func relying(t *testing.T, ctx context.Context, p *Provider) (*oidc.Provider, oauth2.Config) {
	t.Helper()
	found, err := oidc.NewProvider(ctx, p.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	return found, oauth2.Config{ClientID: "gateway", ClientSecret: "between us", Endpoint: found.Endpoint(), RedirectURL: "https://gateway.example/oauth/callback", Scopes: []string{"openid", "profile", "email", "groups"}}
}

// submit goes to the authorization endpoint as a browser would and posts the form; the answer is the redirect to the
// relying party, or the page shown again.
func submit(t *testing.T, client *http.Client, address, password string) *http.Response {
	t.Helper()
	page, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	body, _ := io.ReadAll(page.Body)
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindSubmatch(body)
	if id == nil {
		t.Fatalf("no form on the page:\n%s", body)
	}
	answer, err := client.PostForm(page.Request.URL.ResolveReference(&url.URL{Path: "/login"}).String(), url.Values{"id": {string(id[1])}, "name": {"alice"}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

func TestSignIn(t *testing.T) {
	p, client := start(t)
	ctx := oidc.ClientContext(t.Context(), client)
	found, config := relying(t, ctx, p)
	verifier := oauth2.GenerateVerifier()
	answer := submit(t, client, config.AuthCodeURL("state-1", oauth2.S256ChallengeOption(verifier), oidc.Nonce("nonce-1")), "wonderland")
	back, err := answer.Location()
	if err != nil {
		t.Fatalf("%s: %v", answer.Status, err)
	}
	if got := back.Query().Get("state"); got != "state-1" {
		t.Errorf("state came back as %q", got)
	}
	code := back.Query().Get("code")

	if _, err := config.Exchange(ctx, code, oauth2.VerifierOption(oauth2.GenerateVerifier())); err == nil {
		t.Fatal("a code was exchanged with a verifier that is not its own")
	}
	// A failed exchange does not spend the code at this provider; what it gives is checked below.
	tokens, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	id, err := found.Verifier(&oidc.Config{ClientID: "gateway"}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Nonce, Name, Email string
		Groups             []string
	}
	if err := id.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if id.Subject != "alice" || claims.Nonce != "nonce-1" || claims.Name != "Alice Engineer" || claims.Email != "alice@example.com" || !slices.Equal(claims.Groups, []string{"engineers"}) {
		t.Errorf("ID token of %q says %+v", id.Subject, claims)
	}
	if _, err := config.Exchange(ctx, code, oauth2.VerifierOption(verifier)); err == nil {
		t.Error("the code was good twice")
	}
}

func TestWrongPassword(t *testing.T) {
	p, client := start(t)
	ctx := oidc.ClientContext(t.Context(), client)
	_, config := relying(t, ctx, p)
	answer := submit(t, client, config.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())), "looking glass")
	body, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusUnauthorized || !strings.Contains(string(body), errWrong.Error()) {
		t.Errorf("%s:\n%s", answer.Status, body)
	}
}

func TestOnlyTheRegisteredRedirect(t *testing.T) {
	p, client := start(t)
	_, config := relying(t, oidc.ClientContext(t.Context(), client), p)
	config.RedirectURL = "https://gateway.example/elsewhere"
	answer, err := client.Get(config.AuthCodeURL("s"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode < 400 {
		t.Errorf("a foreign redirect address was taken: %s", answer.Status)
	}
}

func TestLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "localhost:0"} {
		l, err := Listen(t.Context(), address)
		if err == nil {
			l.Close()
		}
		if !errors.Is(err, ErrNotLoopback) {
			t.Errorf("Listen(%q) = %v, want ErrNotLoopback", address, err)
		}
	}
}

func TestWorkloadToken(t *testing.T) {
	p, client := start(t)
	ctx := oidc.ClientContext(t.Context(), client)
	ci, err := oidc.NewProvider(ctx, p.CI.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := p.CI.Token("https://gateway.example", time.Minute, map[string]any{"sub": "repo:example/shop:ref:refs/heads/main"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := ci.Verifier(&oidc.Config{ClientID: "https://gateway.example"}).Verify(ctx, raw)
	if err != nil || id.Subject != "repo:example/shop:ref:refs/heads/main" {
		t.Errorf("%v, %v", id, err)
	}
	if _, err := ci.Verifier(&oidc.Config{ClientID: "https://another.example"}).Verify(ctx, raw); err == nil {
		t.Error("a token for another audience was good")
	}
	refused, err := client.Get(p.CI.Issuer + "/token?audience=x")
	if err != nil {
		t.Fatal(err)
	}
	refused.Body.Close()
	if refused.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a request token: %s", refused.Status)
	}
}
