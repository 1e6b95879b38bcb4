package authn

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// accessToken is the Method of an identity proven by an access token.
const accessToken = "access token"

// The kinds of token.
const (
	kindAccess  = "access"
	kindRefresh = "refresh"
)

// What is good once, as usedTwice names it.
const (
	aCode         = "a code"
	aRefreshToken = "a refresh token"
)

// maxToken bounds what is looked at as a token; ours have some 250 bytes.
const maxToken = 2048

// Bearer is the identity that an access token of the gateway's issuer stands for. A token is opaque: it says nothing
// outside the gateway, and is good for as long as the sign-in it came from, unless it is revoked. One of a sign-in with an enrolled
// key is refused, see EmergencyBearer.
func (s *Service) Bearer(ctx context.Context, token string) (Identity, error) {
	who, err := s.EmergencyBearer(ctx, token)
	if err == nil && who.Emergency != "" {
		return Identity{}, s.auditEmergency(ctx, who)
	}
	return who, err
}

// auditEmergency refuses somebody who signed in with an enrolled key what is no emergency, and writes that down.
func (s *Service) auditEmergency(ctx context.Context, who Identity) error {
	no := refuseEmergency()
	e := event("key.refused", who, "")
	e.Outcome, e.Reason = string(no.Code), no.Message
	e.Fields["key"], e.Fields["credential"] = who.Emergency, who.Credential
	if err := s.store.Audit(ctx, e); err != nil {
		return err
	}
	return no
}

// EmergencyBearer is Bearer for the few things that somebody may do who signed in with an enrolled key (Identity.Emergency): ask for
// a grant in an emergency, see and give back what they have, have their own keys certified for it, sign out.
func (s *Service) EmergencyBearer(ctx context.Context, token string) (Identity, error) {
	secret, subject, err := s.openToken(accessToken, token)
	if err != nil {
		return Identity{}, err
	}
	st, err := s.access(ctx, secret, subject)
	if err == nil {
		st, err = s.asNow(ctx, st)
	}
	return st.Identity, err
}

// openToken finds the secret and the identity's id in a token; what it is called is for the refusal.
func (s *Service) openToken(what, token string) (secret, subject string, err error) {
	if token == "" || len(token) > maxToken {
		return "", "", refuseNot(what, errors.New("it has not the length of one"))
	}
	content, err := s.issuer.Crypto().Decrypt(token)
	if err != nil {
		return "", "", refuseNot(what, err)
	}
	secret, subject, ok := strings.Cut(content, ":")
	if !ok { // a code of ours, which is of the same make
		return "", "", refuseNot(what, errors.New("it is no access token"))
	}
	return secret, subject, nil
}

// access looks up an access token by the secret in it. Those of PostgresClient open nothing but a database.
func (s *Service) access(ctx context.Context, secret, subject string) (standing, error) {
	var st standing
	var id string
	var revoked bool
	err := st.scan(s, s.store.Read().QueryRowContext(ctx, `SELECT `+standingColumns+`, t.id, t.revoked <> 0
		FROM tokens t JOIN sign_ins s ON s.id = t.sign_in JOIN identities i ON i.id = s.identity WHERE t.hash = ? AND t.kind = ? AND i.id = ? AND t.client <> ?`,
		hashed(secret), kindAccess, subject, PostgresClient), &id, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return standing{}, refuseNot(accessToken, errors.New("it is not known"))
	}
	if err != nil {
		return standing{}, fmt.Errorf("look up the access token: %w", err)
	}
	if err := st.good(s.now()); err != nil {
		return standing{}, err
	}
	if revoked {
		return standing{}, refuseNot(accessToken, fmt.Errorf("token %s is revoked", id))
	}
	st.Method, st.Credential = accessToken, id
	return st, nil
}

// newToken keeps a token of which only the hash of secret is kept.
func newToken(ctx context.Context, tx *store.Tx, kind, secret, family, client string, scopes []string, st standing, now time.Time) error {
	id := newID("t-")
	if end := now.Add(purposeLife); client == PostgresClient && end.Before(st.Expires) {
		st.Expires = end
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO tokens (id, hash, kind, family, sign_in, client, scopes, issued, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, hashed(secret), kind, family, st.signIn, client, strings.Join(scopes, " "), stamp(now), stamp(st.Expires)); err != nil {
		return fmt.Errorf("keep the token: %w", err)
	}
	e := event("credential.issued", st.Identity, "")
	e.Fields["credential"], e.Fields["sign_in"], e.Fields["token"] = id, st.signIn, kind
	e.Fields["expires"] = st.Expires.Format(time.RFC3339)
	if purpose := purposeOf(scopes); purpose != "" {
		e.Fields["for"] = purpose
	}
	return tx.Audit(e)
}

// exchange turns what op verified (a code, a device's approval, a refresh token) into tokens, once: what was exchanged is
// spent in the same transaction. withRefresh also makes a refresh token. It returns the secret inside the access token.
func (s *Service) exchange(ctx context.Context, request op.TokenRequest, withRefresh bool) (access, refresh string, expires time.Time, err error) {
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		st, family, client, err := s.spend(ctx, tx, request)
		if err != nil {
			return err
		}
		now := s.now()
		if err := st.good(now); err != nil {
			return err
		}
		expires = st.Expires
		if end := now.Add(purposeLife); client == PostgresClient && end.Before(expires) {
			expires = end
		}
		access = rand.Text()
		if err := newToken(ctx, tx, kindAccess, access, family, client, request.GetScopes(), st, now); err != nil || !withRefresh {
			return err
		}
		refresh = rand.Text() + rand.Text()
		return newToken(ctx, tx, kindRefresh, refresh, family, client, request.GetScopes(), st, now)
	})
	if twice := (*usedTwice)(nil); errors.As(err, &twice) { // at the same time as the use that came first
		if err := s.endUsedTwice(ctx, *twice); err != nil {
			return "", "", time.Time{}, s.oauthError(err)
		}
		return "", "", time.Time{}, oidc.ErrInvalidGrant().WithDescription("it was used already")
	}
	if err != nil {
		return "", "", time.Time{}, s.oauthError(err)
	}
	return access, refresh, expires, nil
}

// usedTwice is something good once, a code or a refresh token, that was used again: it is in two hands.
type usedTwice struct{ what, signIn, family string }

func (u *usedTwice) Error() string { return u.what + " was used twice" }

// endUsedTwice ends what its first use led to (RFC 6749, sections 4.1.2 and 10.4).
func (s *Service) endUsedTwice(ctx context.Context, u usedTwice) error {
	var who standing
	err := who.scan(s, s.store.Read().QueryRowContext(ctx, `SELECT `+standingColumns+` FROM sign_ins s JOIN identities i ON i.id = s.identity WHERE s.id = ?`, u.signIn))
	if err == nil {
		err = s.endFamily(ctx, who, u.family, u.Error())
	}
	if err != nil {
		return fmt.Errorf("end what %s led to that was used twice: %w", u.what, err)
	}
	return nil
}

// spend uses up what a request stands on, and returns the sign-in behind it.
func (s *Service) spend(ctx context.Context, tx *store.Tx, request op.TokenRequest) (st standing, family, client string, err error) {
	now := stamp(s.now())
	var done sql.Result
	var signIn, what string
	switch r := request.(type) {
	case *authRequest:
		what, signIn, family, client = aCode, r.signIn, r.id, r.client
		done, err = tx.ExecContext(ctx, `UPDATE auth_requests SET used = ? WHERE id = ? AND used = 0`, now, r.id)
	case *refreshRequest:
		what, signIn, family, client = aRefreshToken, r.signIn, r.family, r.client
		done, err = tx.ExecContext(ctx, `UPDATE tokens SET used = ? WHERE id = ? AND used = 0 AND revoked = 0`, now, r.id)
	case *op.DeviceAuthorizationState: // spent when it was read (GetDeviceAuthorizatonState)
		issuer, subject, err := identityByID(ctx, tx, r.Subject)
		if err != nil {
			return st, "", "", err
		}
		who := Identity{Issuer: issuer, Subject: subject}
		// Which key they signed in with, if any: neither kind of sign-in stands for the other.
		err = tx.QueryRowContext(ctx, `SELECT emergency FROM sign_ins WHERE identity = ? AND at = ?`, r.Subject, stamp(r.AuthTime)).Scan(&who.Emergency)
		if err != nil {
			return st, "", "", fmt.Errorf("look up the device's sign-in: %w", err)
		}
		st, err = s.latest(ctx, tx, who)
		return st, newID("f-"), r.ClientID, err
	default:
		return st, "", "", oidc.ErrUnsupportedGrantType()
	}
	if err != nil {
		return st, "", "", fmt.Errorf("spend what was exchanged: %w", err)
	}
	n, err := done.RowsAffected()
	if err != nil {
		return st, "", "", fmt.Errorf("spend what was exchanged: %w", err)
	}
	if n != 1 {
		return st, "", "", &usedTwice{what, signIn, family}
	}
	err = st.scan(s, tx.QueryRowContext(ctx, `SELECT `+standingColumns+` FROM sign_ins s JOIN identities i ON i.id = s.identity WHERE s.id = ?`, signIn))
	return st, family, client, err
}

func identityByID(ctx context.Context, q query, id string) (issuer, subject string, err error) {
	if err := q.QueryRowContext(ctx, `SELECT issuer, subject FROM identities WHERE id = ?`, id).Scan(&issuer, &subject); err != nil {
		return "", "", fmt.Errorf("look up identity %s: %w", id, err)
	}
	return issuer, subject, nil
}

// refreshRequest is a refresh token as op sees it.
type refreshRequest struct {
	id, family, signIn, subject, client string
	scopes                              []string
	at                                  time.Time
}

func (r *refreshRequest) GetAMR() []string                 { return nil }
func (r *refreshRequest) GetAudience() []string            { return []string{r.client} }
func (r *refreshRequest) GetAuthTime() time.Time           { return r.at }
func (r *refreshRequest) GetClientID() string              { return r.client }
func (r *refreshRequest) GetScopes() []string              { return r.scopes }
func (r *refreshRequest) GetSubject() string               { return r.subject }
func (r *refreshRequest) SetCurrentScopes(scopes []string) { r.scopes = scopes }

// refresh looks up a refresh token. One that was used before is in two hands: its whole family ends.
func (s *Service) refresh(ctx context.Context, token string) (*refreshRequest, error) {
	r := &refreshRequest{}
	var st standing
	var scopes string
	var used, revoked bool
	err := st.scan(s, s.store.Read().QueryRowContext(ctx, `SELECT `+standingColumns+`, t.id, t.family, t.client, t.scopes, t.used <> 0, t.revoked <> 0
		FROM tokens t JOIN sign_ins s ON s.id = t.sign_in JOIN identities i ON i.id = s.identity WHERE t.hash = ? AND t.kind = ?`,
		hashed(token), kindRefresh), &r.id, &r.family, &r.client, &scopes, &used, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, op.ErrInvalidRefreshToken
	}
	if err != nil {
		return nil, fmt.Errorf("look up the refresh token: %w", err)
	}
	if used && !revoked {
		if err := s.endFamily(ctx, st, r.family, (&usedTwice{what: aRefreshToken}).Error()); err != nil {
			return nil, err
		}
	}
	if used || revoked {
		return nil, op.ErrInvalidRefreshToken
	}
	r.signIn, r.subject, r.at, r.scopes = st.signIn, st.id, st.SignedIn, strings.Fields(scopes)
	return r, st.good(s.now())
}

// endFamily revokes what one exchange began.
func (s *Service) endFamily(ctx context.Context, st standing, family, reason string) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		rows, err := tx.QueryContext(ctx, `UPDATE tokens SET revoked = ? WHERE family = ? AND revoked = 0 RETURNING id`, stamp(s.now()), family)
		if err != nil {
			return fmt.Errorf("revoke tokens: %w", err)
		}
		ids, err := column[string](rows)
		if err != nil {
			return fmt.Errorf("revoke tokens: %w", err)
		}
		for _, id := range ids {
			e := event("credential.revoked", st.Identity, visitorOf(ctx).address)
			e.Reason = reason
			e.Fields["credential"], e.Fields["identity"] = id, st.Key()
			if err := tx.Audit(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// oauthError makes an answer for a client of the issuer out of an error: refusals in words, failures without.
func (s *Service) oauthError(err error) error {
	var known *oidc.Error
	switch no := refusal.Of(err); {
	case err == nil:
		return nil
	case no != nil:
		return oidc.ErrInvalidGrant().WithDescription("%s", no.Message).WithParent(err)
	case errors.As(err, &known), errors.Is(err, op.ErrInvalidRefreshToken), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	s.log.Error("the issuer failed", "err", err)
	return oidc.ErrServerError().WithDescription("the gateway failed to do this; its log says why")
}
