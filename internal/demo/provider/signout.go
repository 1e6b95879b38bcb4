package provider

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// logoutLifetime is what section 2.4 of OpenID Connect Back-Channel Logout 1.0 recommends at the most.
const logoutLifetime = 2 * time.Minute

// signOut ends everything of a person who posts name and password, and tells the relying party so. It answers with 204 once
// that has taken it, else with 502.
type signOut struct {
	issuer  string
	storage *storage
	client  Client
	http    *http.Client
}

func newSignOut(issuer string, storage *storage, client Client, roots *x509.CertPool) *signOut {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	transport.DisableKeepAlives = true // it is used once in a while only
	return &signOut{issuer: issuer, storage: storage, client: client, http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

func (s *signOut) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("name")
	if err := s.storage.known(name, r.PostFormValue("password")); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	if err := s.storage.TerminateSession(r.Context(), name, s.client.ID); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if err := s.tell(r.Context(), name); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// tell sends a logout token of that person to the relying party, if it wants any.
func (s *signOut) tell(ctx context.Context, subject string) error {
	if s.client.BackChannel == "" {
		return nil
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: s.storage.key.key, KeyID: s.storage.key.id}},
		(&jose.SignerOptions{}).WithType("logout+jwt"))
	if err != nil {
		return fmt.Errorf("sign the logout token: %w", err)
	}
	now := time.Now()
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": s.issuer, "sub": subject, "aud": s.client.ID, "iat": now.Unix(), "exp": now.Add(logoutLifetime).Unix(), "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}).Serialize()
	if err != nil {
		return fmt.Errorf("sign the logout token: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.client.BackChannel, strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
	if err != nil {
		return fmt.Errorf("tell of the logout: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := s.http.Do(request)
	if err != nil {
		return fmt.Errorf("tell of the logout: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("tell of the logout: the relying party answers %s", answer.Status)
	}
	return nil
}
