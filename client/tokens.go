package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
)

// clientID is the CLI's at the gateway's issuer: a public client, which proves itself by PKCE.
const clientID = "sallyport-cli"

// scopes ask for a refresh token, so that one sign-in lasts as long as the gateway lets it.
var scopes = []string{"openid", "offline_access"}

// tokens keeps the access token of a home good. A refresh token may be good only once, so refreshing happens under a
// lock that other processes of the same home take too.
type tokens struct {
	home    Home
	gateway string
	http    *http.Client

	mu     sync.Mutex
	cached *oauth2.Token
}

// load reads the token as last kept.
func (t *tokens) load() (*oauth2.Token, error) {
	token, err := t.home.readToken(t.gateway)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusal.New(refusal.NotAuthenticated, "you are not signed in").WithHint("sallyport login")
	}
	if err != nil {
		return nil, err
	}
	return token, nil
}

// access returns an access token; not the one called stale, which the gateway has just refused.
func (t *tokens) access(ctx context.Context, stale string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if usable(t.cached, stale) {
		return t.cached.AccessToken, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout) // also where what the token is for may take for ever
	defer cancel()
	unlock, err := t.home.lock(ctx, "lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	token, err := t.load() // another process may have refreshed it
	if err != nil {
		return "", err
	}
	if !usable(token, stale) {
		if token, err = t.refresh(ctx, token); err != nil {
			return "", err
		}
	}
	t.cached = token
	return token.AccessToken, nil
}

func usable(token *oauth2.Token, stale string) bool {
	return token != nil && token.AccessToken != "" && token.AccessToken != stale &&
		(token.Expiry.IsZero() || time.Until(token.Expiry) > 10*time.Second)
}

func (t *tokens) refresh(ctx context.Context, old *oauth2.Token) (*oauth2.Token, error) {
	signInAgain := errSignInEnded()
	if old.RefreshToken == "" {
		return nil, signInAgain
	}
	config, err := discover(ctx, t.http, t.gateway)
	if err != nil {
		return nil, err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, t.http)
	token, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: old.RefreshToken}).Token()
	var no *oauth2.RetrieveError
	switch {
	case errors.As(err, &no) && (no.Response.StatusCode == http.StatusBadRequest || no.Response.StatusCode == http.StatusUnauthorized):
		return nil, signInAgain
	case err != nil:
		return nil, unreachable(t.gateway, err)
	}
	if token.RefreshToken == "" {
		token.RefreshToken = old.RefreshToken
	}
	if err := t.home.writeToken(t.gateway, token); err != nil {
		return nil, err
	}
	return token, nil
}

// errSignInEnded says that nothing can be renewed any more.
func errSignInEnded() *refusal.Refusal {
	return refusal.New(refusal.CredentialExpired, "your sign-in has ended").WithHint("sallyport login")
}

// discover reads the issuer's addresses. Only such on the gateway itself are taken: the client gives codes and tokens to
// nobody else.
func discover(ctx context.Context, client *http.Client, gateway string) (*oauth2.Config, error) {
	answer, err := send(ctx, client, http.MethodGet, gateway+"/.well-known/openid-configuration", "", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var found struct {
		Issuer string `json:"issuer"`
		Auth   string `json:"authorization_endpoint"`
		Token  string `json:"token_endpoint"`
		Device string `json:"device_authorization_endpoint"`
	}
	if err := decode(answer.Body, &found); err != nil {
		return nil, err
	}
	if found.Issuer != gateway {
		return nil, fmt.Errorf("the gateway's issuer calls itself %q, not %q; sign in with the address it calls itself", found.Issuer, gateway)
	}
	for _, endpoint := range []string{found.Auth, found.Token, found.Device} {
		if endpoint != "" && !strings.HasPrefix(endpoint, gateway+"/") {
			return nil, fmt.Errorf("the gateway's issuer sends to %q, which is not on the gateway", endpoint)
		}
	}
	return &oauth2.Config{
		ClientID: clientID,
		Scopes:   scopes,
		Endpoint: oauth2.Endpoint{AuthURL: found.Auth, TokenURL: found.Token, DeviceAuthURL: found.Device, AuthStyle: oauth2.AuthStyleInParams},
	}, nil
}
