package provider

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// refreshLifetime is how long a refresh token is good, maxRefreshing how many there are at a time.
const (
	refreshLifetime = 24 * time.Hour
	maxRefreshing   = 10_000
)

// refreshing is what a refresh token stands for. It stays the same for as long as it is good, so that whoever is killed between an
// answer and keeping it has lost nothing.
type refreshing struct {
	subject  string
	client   string
	scopes   []string
	signedIn time.Time
	expires  time.Time
}

func (r *refreshing) GetAMR() []string                 { return []string{"pwd"} }
func (r *refreshing) GetAudience() []string            { return []string{r.client} }
func (r *refreshing) GetAuthTime() time.Time           { return r.signedIn }
func (r *refreshing) GetClientID() string              { return r.client }
func (r *refreshing) GetScopes() []string              { return r.scopes }
func (r *refreshing) GetSubject() string               { return r.subject }
func (r *refreshing) SetCurrentScopes(scopes []string) { r.scopes = scopes }

// CreateAccessAndRefreshTokens makes a refresh token for a sign-in that asked for one (offline_access), or gives back the one that
// was asked with.
func (s *storage) CreateAccessAndRefreshTokens(ctx context.Context, r op.TokenRequest, current string) (string, string, time.Time, error) {
	access, expires, err := s.CreateAccessToken(ctx, r)
	if err != nil || current != "" {
		return access, current, expires, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(s.fresh, func(_ string, one refreshing) bool { return now.After(one.expires) })
	if len(s.fresh) >= maxRefreshing {
		return "", "", time.Time{}, errors.New("too many refresh tokens at once")
	}
	one := refreshing{subject: r.GetSubject(), client: s.client.ID, scopes: slices.Clone(r.GetScopes()), signedIn: now, expires: now.Add(refreshLifetime)}
	if of, ok := r.(op.AuthRequest); ok {
		one.signedIn = of.GetAuthTime()
	}
	token := rand.Text()
	s.fresh[token] = one
	return access, token, expires, nil
}

// TokenRequestByRefreshToken refuses for who is disabled, and where the token is not good.
func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.fresh[token]
	if !ok || time.Now().After(one.expires) || s.users[one.subject].Disabled {
		return nil, oidc.ErrInvalidGrant()
	}
	return &one, nil
}

func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.fresh[token]
	if !ok {
		return "", "", op.ErrInvalidRefreshToken
	}
	return one.subject, token, nil
}

// forgetRefreshing drops the refresh tokens of somebody. The caller holds mu.
func (s *storage) forgetRefreshing(user string) {
	maps.DeleteFunc(s.fresh, func(_ string, one refreshing) bool { return one.subject == user })
}
