package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"sallyport/internal/store"
)

// signingAlgorithm is what the issuer's ID tokens are signed with.
const signingAlgorithm = jose.ES256

// scopes are those that mean something here; others are left out of what is given.
var scopes = []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail, oidc.ScopeOfflineAccess}

// maxPending bounds sign-ins on their way of each kind, so that strangers can't fill the disk.
const maxPending = 10_000

// storage is how op reaches the tables. It holds no state of its own.
type storage struct{ s *Service }

var _ interface {
	op.Storage
	op.DeviceAuthorizationStorage
} = (*storage)(nil)

// errNotHere answers what op asks of storages that have more than this one.
var errNotHere = errors.New("the gateway's issuer does not have this")

// Health is the store's own business (/readyz).
func (*storage) Health(context.Context) error { return nil }

// cli is the client cliClient as op sees it.
type cli struct{}

func (cli) GetID() string { return cliClient }
func (cli) RedirectURIs() []string {
	return []string{"http://127.0.0.1/callback", "http://[::1]/callback"}
}
func (cli) PostLogoutRedirectURIs() []string     { return nil }
func (cli) ApplicationType() op.ApplicationType  { return op.ApplicationTypeNative }
func (cli) AuthMethod() oidc.AuthMethod          { return oidc.AuthMethodNone }
func (cli) ResponseTypes() []oidc.ResponseType   { return []oidc.ResponseType{oidc.ResponseTypeCode} }
func (cli) LoginURL(id string) string            { return pathLogin + "?id=" + id }
func (cli) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (cli) IDTokenLifetime() time.Duration       { return idTokenLife }
func (cli) DevMode() bool                        { return false }
func (cli) IsScopeAllowed(string) bool           { return false }
func (cli) IDTokenUserinfoClaimsAssertion() bool { return false }
func (cli) ClockSkew() time.Duration             { return 0 }
func (cli) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}
func (cli) RestrictAdditionalIdTokenScopes() func([]string) []string     { return same }
func (cli) RestrictAdditionalAccessTokenScopes() func([]string) []string { return same }

func same(scopes []string) []string { return scopes }

func (st *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	switch id {
	case cliClient:
		return cli{}, nil
	case consoleClient:
		return console{redirect: st.s.consoleRedirect()}, nil
	case PostgresClient:
		return psqlClient{}, nil
	}
	return nil, oidc.ErrInvalidClient().WithDescription("there is no client of that name here; the command line is " + cliClient + ", and psql's oauth_client_id is " + PostgresClient)
}

func (st *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != consoleClient {
		return errors.New("the client has no secret")
	}
	if !st.s.isConsoleSecret(secret) {
		return errors.New("that is not the client's secret")
	}
	return nil
}

// authRequest is a row of auth_requests as op sees it.
type authRequest struct {
	id, client, redirect, state, nonce, challenge, signIn, subject string
	scopes                                                         []string
	browser                                                        []byte
	at                                                             time.Time // of the sign-in
	fresh                                                          int       // 1: the person is to prove themselves anew
}

func (r *authRequest) GetID() string                      { return r.id }
func (r *authRequest) GetACR() string                     { return "" }
func (r *authRequest) GetAMR() []string                   { return nil }
func (r *authRequest) GetAudience() []string              { return []string{r.client} }
func (r *authRequest) GetAuthTime() time.Time             { return r.at }
func (r *authRequest) GetClientID() string                { return r.client }
func (r *authRequest) GetNonce() string                   { return r.nonce }
func (r *authRequest) GetRedirectURI() string             { return r.redirect }
func (r *authRequest) GetResponseType() oidc.ResponseType { return oidc.ResponseTypeCode }
func (r *authRequest) GetResponseMode() oidc.ResponseMode { return "" }
func (r *authRequest) GetScopes() []string                { return r.scopes }
func (r *authRequest) GetState() string                   { return r.state }
func (r *authRequest) GetSubject() string                 { return r.subject }
func (r *authRequest) Done() bool                         { return r.signIn != "" }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: r.challenge, Method: oidc.CodeChallengeMethodS256}
}

func (st *storage) CreateAuthRequest(ctx context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	now := st.s.now()
	r := &authRequest{
		id: rand.Text(), client: asked.ClientID, redirect: asked.RedirectURI, state: asked.State, nonce: asked.Nonce,
		challenge: asked.CodeChallenge, scopes: asked.Scopes, browser: visitorOf(ctx).browser,
	}
	if slices.Contains(asked.Prompt, oidc.PromptLogin) {
		r.fresh = 1
	}
	if r.browser == nil {
		return nil, oidc.ErrServerError().WithDescription("the browser has no cookie")
	}
	err := st.s.store.Do(ctx, func(tx *store.Tx) error {
		if err := roomFor(ctx, tx, "auth_requests"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO auth_requests (id, browser, client, redirect, scopes, state, nonce, challenge, created, expires, fresh) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.id, r.browser, r.client, r.redirect, strings.Join(r.scopes, " "), r.state, r.nonce, r.challenge, stamp(now), stamp(now.Add(authRequestLife)), r.fresh)
		return err
	})
	return r, st.s.oauthError(err)
}

// roomFor refuses when a table of sign-ins on their way is full.
func roomFor(ctx context.Context, tx *store.Tx, table string) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+table).Scan(&n); err != nil {
		return fmt.Errorf("count %s: %w", table, err)
	}
	if n >= maxPending {
		return oidc.ErrServerError().WithDescription("too many sign-ins are going on at once; try again in some minutes")
	}
	return nil
}

func (st *storage) AuthRequestByID(ctx context.Context, id string) (op.AuthRequest, error) {
	r, err := st.s.authRequest(ctx, id)
	if err != nil {
		return nil, st.s.oauthError(err)
	}
	return r, nil
}

// authRequest looks up a request that is still going on.
func (s *Service) authRequest(ctx context.Context, id string) (*authRequest, error) {
	r, _, _, err := s.findAuthRequest(ctx, `a.id = ? AND a.used = 0 AND a.expires > ?`, id, stamp(s.now()))
	return r, err
}

func (s *Service) findAuthRequest(ctx context.Context, where string, args ...any) (r *authRequest, codeExpires time.Time, used bool, err error) {
	r = &authRequest{}
	var scopes string
	var at, expires int64
	err = s.store.Read().QueryRowContext(ctx, `SELECT a.id, a.browser, a.client, a.redirect, a.scopes, a.state, a.nonce, a.challenge, a.code_expires, a.used <> 0,
		coalesce(s.id, ''), coalesce(s.identity, ''), coalesce(s.at, 0), a.fresh FROM auth_requests a LEFT JOIN sign_ins s ON s.id = a.sign_in WHERE `+where, args...).
		Scan(&r.id, &r.browser, &r.client, &r.redirect, &scopes, &r.state, &r.nonce, &r.challenge, &expires, &used, &r.signIn, &r.subject, &at, &r.fresh)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, time.Time{}, false, oidc.ErrInvalidRequest().WithDescription("this sign-in is over; begin again with sallyport login")
	}
	if err != nil {
		return nil, time.Time{}, false, fmt.Errorf("look up the sign-in: %w", err)
	}
	r.scopes, r.at = strings.Fields(scopes), unstamp(at)
	return r, unstamp(expires), used, nil
}

// SaveAuthCode keeps a request's one code.
func (st *storage) SaveAuthCode(ctx context.Context, id, code string) error {
	return st.s.oauthError(st.s.store.Do(ctx, func(tx *store.Tx) error {
		done, err := tx.ExecContext(ctx, `UPDATE auth_requests SET code = ?, code_expires = ? WHERE id = ? AND sign_in IS NOT NULL AND code IS NULL`,
			hashed(code), stamp(st.s.now().Add(codeLife)), id)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return oidc.ErrInvalidRequest().WithDescription("this sign-in is over; begin again with sallyport login").WithParent(err)
		}
		return nil
	}))
}

// AuthRequestByCode refuses a code's second use, and then also ends what its first use led to (RFC 6749, section 4.1.2).
func (st *storage) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	r, expires, used, err := st.s.findAuthRequest(ctx, `a.code = ?`, hashed(code))
	if err != nil {
		return nil, st.s.oauthError(err)
	}
	if used {
		if err := st.s.endUsedTwice(ctx, usedTwice{aCode, r.signIn, r.id}); err != nil {
			return nil, st.s.oauthError(err)
		}
		return nil, errors.New("the code was used already")
	}
	if !st.s.now().Before(expires) {
		return nil, errors.New("the code has expired")
	}
	return r, nil
}

// DeleteAuthRequest does nothing: CreateAccessToken spends the request, and purge forgets it, so that a code's second use
// is seen as one.
func (*storage) DeleteAuthRequest(context.Context, string) error { return nil }

func (st *storage) CreateAccessToken(ctx context.Context, r op.TokenRequest) (string, time.Time, error) {
	access, _, expires, err := st.s.exchange(ctx, r, false)
	return access, expires, err
}

func (st *storage) CreateAccessAndRefreshTokens(ctx context.Context, r op.TokenRequest, _ string) (string, string, time.Time, error) {
	return st.s.exchange(ctx, r, true)
}

func (st *storage) TokenRequestByRefreshToken(ctx context.Context, token string) (op.RefreshTokenRequest, error) {
	r, err := st.s.refresh(ctx, token)
	if err != nil {
		return nil, st.s.oauthError(err)
	}
	return r, nil
}

func (st *storage) GetRefreshTokenInfo(ctx context.Context, client, token string) (subject, id string, err error) {
	err = st.s.store.Read().QueryRowContext(ctx, `SELECT s.identity, t.id FROM tokens t JOIN sign_ins s ON s.id = t.sign_in WHERE t.hash = ? AND t.kind = ? AND t.client = ?`,
		hashed(token), kindRefresh, client).Scan(&subject, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", op.ErrInvalidRefreshToken
	}
	return subject, id, st.s.oauthError(err)
}

// RevokeToken revokes an access token, or with a refresh token its whole family (RFC 7009). token is the id that
// GetRefreshTokenInfo gave or the secret from inside an access token; subject is empty if op could make neither of what
// it was sent, and then nothing happens.
func (st *storage) RevokeToken(ctx context.Context, token, subject, client string) *oidc.Error {
	if subject == "" {
		return nil
	}
	var who standing
	var kind, family, id string
	err := who.scan(st.s, st.s.store.Read().QueryRowContext(ctx, `SELECT `+standingColumns+`, t.kind, t.family, t.id FROM tokens t
		JOIN sign_ins s ON s.id = t.sign_in JOIN identities i ON i.id = s.identity
		WHERE (t.id = ? AND t.kind = ? OR t.hash = ? AND t.kind = ?) AND i.id = ? AND t.client = ? AND t.revoked = 0`,
		token, kindRefresh, hashed(token), kindAccess, subject, client), &kind, &family, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil && kind == kindRefresh {
		err = st.s.endFamily(ctx, who, family, "revoked by the client")
	} else if err == nil {
		err = st.s.store.Do(ctx, func(tx *store.Tx) error {
			if _, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked = ? WHERE id = ?`, stamp(st.s.now()), id); err != nil {
				return err
			}
			e := event("credential.revoked", who.Identity, visitorOf(ctx).address)
			e.Reason = "revoked by the client"
			e.Fields["credential"], e.Fields["identity"] = id, who.Key()
			return tx.Audit(e)
		})
	}
	if err != nil {
		st.s.log.Error("a token could not be revoked", "err", err)
		return oidc.ErrServerError().WithDescription("the token could not be revoked; try again")
	}
	return nil
}

func (*storage) TerminateSession(context.Context, string, string) error { return errNotHere }

// signingKey and publicKey are the issuer's keys as op sees them.
type signingKey struct{ key *ecdsa.PrivateKey }

func (k signingKey) ID() string                                { return keyIDOf(k.key.Public()) }
func (signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return signingAlgorithm }
func (k signingKey) Key() any                                  { return k.key }

type publicKey struct{ key crypto.PublicKey }

func (k publicKey) ID() string                       { return keyIDOf(k.key) }
func (publicKey) Algorithm() jose.SignatureAlgorithm { return signingAlgorithm }
func (publicKey) Use() string                        { return oidc.KeyUseSignature }
func (k publicKey) Key() any                         { return k.key }

func (st *storage) SigningKey(context.Context) (op.SigningKey, error) {
	return signingKey{st.s.authorities.Load().Issuer}, nil
}

func (st *storage) KeySet(context.Context) (all []op.Key, err error) {
	for _, key := range st.s.authorities.Load().issuers(st.s.now()) {
		all = append(all, publicKey{key})
	}
	return all, nil
}

func (*storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{signingAlgorithm}, nil
}

// SetUserinfoFromToken tells a client who is signed in with it.
func (st *storage) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, token, subject, _ string) error {
	who, err := st.s.access(ctx, token, subject)
	if err != nil {
		return st.s.oauthError(err)
	}
	info.Subject, info.Name, info.Email = subject, who.Label(), who.Email
	info.AppendClaims("groups", who.Groups)
	return nil
}

// SetUserinfoFromScopes adds nothing to ID tokens but the subject, which op takes from here: they prove a sign-in, and who
// it was is told by userinfo.
func (*storage) SetUserinfoFromScopes(_ context.Context, info *oidc.UserInfo, subject, _ string, _ []string) error {
	info.Subject = subject
	return nil
}

func (*storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (*storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errNotHere
}

func (*storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotHere
}

func (*storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNotHere
}
