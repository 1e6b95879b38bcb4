package provider

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// How long things live. A request is a browser standing on the login page; a token is only used to read userinfo.
const (
	requestLifetime = 10 * time.Minute
	tokenLifetime   = 5 * time.Minute
	idTokenLifetime = time.Hour
	maxRequests     = 10_000
)

// signingKey is an RSA key, because RS256 is what every relying party must understand (OpenID Connect Core, 15.1).
type signingKey struct {
	id  string
	key *rsa.PrivateKey
}

func newSigningKey() (*signingKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make the provider's key: %w", err)
	}
	return &signingKey{id: rand.Text(), key: key}, nil
}

func (k *signingKey) ID() string                                  { return k.id }
func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k *signingKey) Key() any                                    { return k.key }

// publicKey is the half of a signingKey that the key set shows.
type publicKey struct{ *signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.key.PublicKey }

// storage is what pkg/op asks for: requests in flight, codes and tokens, in memory. It implements op.Storage; what the
// demo does not offer (introspection, JWT profile) refuses.
type storage struct {
	key    *signingKey
	client Client

	mu       sync.Mutex
	users    map[string]User
	requests map[string]*request // by id
	codes    map[string]string   // code to request id
	tokens   map[string]token
	fresh    map[string]refreshing // by refresh token
}

// request is an authorization request, from the redirect to the exchange of its code. It is replaced, not changed, when
// the user has signed in, so that pkg/op may read it without a lock.
type request struct {
	id       string
	asked    oidc.AuthRequest
	created  time.Time
	subject  string
	signedIn time.Time
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAudience() []string              { return []string{r.asked.ClientID} }
func (r *request) GetAuthTime() time.Time             { return r.signedIn }
func (r *request) GetClientID() string                { return r.asked.ClientID }
func (r *request) GetNonce() string                   { return r.asked.Nonce }
func (r *request) GetRedirectURI() string             { return r.asked.RedirectURI }
func (r *request) GetResponseType() oidc.ResponseType { return r.asked.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.asked.ResponseMode }
func (r *request) GetScopes() []string                { return r.asked.Scopes }
func (r *request) GetState() string                   { return r.asked.State }
func (r *request) GetSubject() string                 { return r.subject }
func (r *request) Done() bool                         { return r.subject != "" }
func (r *request) GetAMR() []string {
	if r.Done() {
		return []string{"pwd"}
	}
	return nil
}

func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.asked.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.asked.CodeChallenge, Method: r.asked.CodeChallengeMethod}
}

type token struct {
	subject string
	scopes  []string
	expires time.Time
}

func newStorage(key *signingKey, client Client, users []User) *storage {
	s := &storage{key: key, client: client, users: make(map[string]User), requests: make(map[string]*request), codes: make(map[string]string), tokens: make(map[string]token), fresh: make(map[string]refreshing)}
	for _, u := range users {
		s.users[u.Name] = u
	}
	return s
}

var (
	errNoRequest   = errors.New("this sign-in is not known here or took too long; start it again")
	errWrong       = errors.New("name or password is wrong")
	errDisabled    = errors.New("this account is disabled")
	errUnsupported = errors.New("the demo's provider does not offer this")
)

// known checks a password, whether or not the person may still sign in.
func (s *storage) known(name, password string) error {
	s.mu.Lock()
	user, known := s.users[name]
	s.mu.Unlock()
	if subtle.ConstantTimeCompare([]byte(user.Password), []byte(password)) != 1 || !known {
		return errWrong
	}
	return nil
}

// signIn checks a password and marks the request as done.
func (s *storage) signIn(id, name, password string) error {
	if err := s.known(name, password); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[name].Disabled {
		return errDisabled
	}
	r, err := s.request(id)
	if err != nil {
		return err
	}
	done := *r
	done.subject, done.signedIn = name, time.Now()
	s.requests[id] = &done
	return nil
}

// request finds one that is still good. The caller holds mu.
func (s *storage) request(id string) (*request, error) {
	r, ok := s.requests[id]
	if !ok || time.Since(r.created) > requestLifetime {
		return nil, errNoRequest
	}
	return r, nil
}

func (s *storage) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if len(asked.Prompt) == 1 && asked.Prompt[0] == oidc.PromptNone {
		return nil, oidc.ErrLoginRequired()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.requests {
		if time.Since(r.created) > requestLifetime {
			s.forget(id)
		}
	}
	for id, t := range s.tokens {
		if time.Now().After(t.expires) {
			delete(s.tokens, id)
		}
	}
	if len(s.requests) >= maxRequests {
		return nil, oidc.ErrServerError().WithDescription("too many sign-ins at once")
	}
	r := &request{id: rand.Text(), asked: *asked, created: time.Now()}
	s.requests[r.id] = r
	return r, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.request(id)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *storage) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	id, ok := s.codes[code]
	s.mu.Unlock()
	if !ok {
		return nil, errNoRequest
	}
	return s.AuthRequestByID(ctx, id)
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(id)
	return nil
}

// forget drops a request and its code. The caller holds mu.
func (s *storage) forget(id string) {
	delete(s.requests, id)
	for code, of := range s.codes {
		if of == id {
			delete(s.codes, code)
		}
	}
}

func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := rand.Text()
	t := token{subject: r.GetSubject(), scopes: r.GetScopes(), expires: time.Now().Add(tokenLifetime)}
	s.tokens[id] = t
	return id, t.expires, nil
}

func (s *storage) TerminateSession(_ context.Context, user, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetRefreshing(user)
	for id, t := range s.tokens {
		if t.subject == user {
			delete(s.tokens, id)
		}
	}
	return nil
}

func (s *storage) RevokeToken(_ context.Context, id, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, id)
	return nil
}

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) { return []op.Key{publicKey{s.key}}, nil }

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.client.ID {
		return nil, errors.New("no such client")
	}
	return relyingParty{s.client}, nil
}

func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if subtle.ConstantTimeCompare([]byte(s.client.Secret), []byte(secret)) != 1 || id != s.client.ID {
		return errors.New("client id or secret is wrong")
	}
	return nil
}

// SetUserinfoFromScopes has nothing to do: SetUserinfoFromRequest does it for ID tokens.
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest puts the claims of the scopes into the ID token, where the gateway reads them.
func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	return s.describe(info, r.GetSubject(), scopes)
}

func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	s.mu.Lock()
	t, ok := s.tokens[id]
	s.mu.Unlock()
	if !ok || t.subject != subject || time.Now().After(t.expires) {
		return errors.New("the token is not good any more")
	}
	return s.describe(info, subject, t.scopes)
}

func (s *storage) describe(info *oidc.UserInfo, subject string, scopes []string) error {
	s.mu.Lock()
	user, ok := s.users[subject]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("no user %q", subject)
	}
	for _, scope := range scopes {
		switch scope {
		case oidc.ScopeOpenID:
			info.Subject = user.Name
		case oidc.ScopeProfile:
			info.Name, info.PreferredUsername = user.FullName, user.Name
		case oidc.ScopeEmail:
			info.Email, info.EmailVerified = user.Email, true
		case "groups":
			info.AppendClaims("groups", user.Groups)
		}
	}
	return nil
}

func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errUnsupported
}

func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errUnsupported
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errUnsupported
}

func (s *storage) Health(context.Context) error { return nil }

// relyingParty is the Client as pkg/op wants it: a web application with a secret, code flow and refresh tokens only.
type relyingParty struct{ Client }

func (c relyingParty) GetID() string                       { return c.ID }
func (c relyingParty) RedirectURIs() []string              { return []string{c.Redirect} }
func (c relyingParty) PostLogoutRedirectURIs() []string    { return nil }
func (c relyingParty) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c relyingParty) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodBasic }
func (c relyingParty) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c relyingParty) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}
func (c relyingParty) LoginURL(id string) string           { return "/login?id=" + id }
func (c relyingParty) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeBearer }
func (c relyingParty) IDTokenLifetime() time.Duration      { return idTokenLifetime }
func (c relyingParty) DevMode() bool                       { return false }
func (c relyingParty) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c relyingParty) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c relyingParty) IsScopeAllowed(scope string) bool { return scope == "groups" }

// IDTokenUserinfoClaimsAssertion puts profile and e-mail into the ID token, so that one round trip is enough.
func (c relyingParty) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c relyingParty) ClockSkew() time.Duration             { return 0 }
