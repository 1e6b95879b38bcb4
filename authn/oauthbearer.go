package authn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// PostgresClient is the issuer's client for libpq 18 and later, which signs in by the device flow (RFC 8628) and shows the
// token by the SASL mechanism OAUTHBEARER (RFC 7628). It is public, and its tokens are for nothing else: each is good once,
// for minutes, for the one account that the person saw when they said yes.
const PostgresClient = "sallyport-psql"

// OAuthBearer is the SASL mechanism's name.
const OAuthBearer = "OAUTHBEARER"

// oauthToken is the Method of an identity that PurposeToken proved.
const oauthToken = "OAuth token"

// purposeLife is how long a token for one purpose may wait for its connection, which libpq opens at once.
const purposeLife = 2 * time.Minute

// purposeScope begins the scope that asks for such a token: "pg:app@orders". Scopes have no blanks, quotes or backslashes
// (RFC 6749, section 3.3), and names of accounts and targets neither.
const purposeScope = "pg:"

var purposePattern = regexp.MustCompile(`^pg:[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}@[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// PurposeScope is the OAuth scope of a token for one account on one target; false where they are no such names.
func PurposeScope(account, target string) (string, bool) {
	scope := purposeScope + account + "@" + target
	return scope, purposePattern.MatchString(scope)
}

// psqlClient is the client PostgresClient as op sees it.
type psqlClient struct{ cli }

func (psqlClient) GetID() string                { return PostgresClient }
func (psqlClient) RedirectURIs() []string       { return nil }
func (psqlClient) GrantTypes() []oidc.GrantType { return []oidc.GrantType{oidc.GrantTypeDeviceCode} }

var _ op.Client = psqlClient{}

// asked are the scopes that a device of that client may have of those it asks for.
func asked(client string, wanted []string) ([]string, error) {
	if client != PostgresClient {
		return slices.DeleteFunc(slices.Clone(wanted), func(scope string) bool { return !slices.Contains(scopes, scope) }), nil
	}
	if len(wanted) != 1 || !purposePattern.MatchString(wanted[0]) {
		return nil, oidc.ErrInvalidScope().WithDescription("a token of %s is for one account on one target, such as %sapp@orders; leave oauth_scope out of the connection string and the gateway names it", PostgresClient, purposeScope)
	}
	return wanted, nil
}

// purposeOf is the account and target that scopes are for, as a person reads it; empty for other scopes.
func purposeOf(scopes []string) string {
	if len(scopes) == 1 {
		if purpose, ok := strings.CutPrefix(scopes[0], purposeScope); ok {
			return purpose
		}
	}
	return ""
}

// PurposeToken is the identity that proves itself by a token of PostgresClient, which is for that account on that target
// and is used up by this. A token for something else, used before, run out or of another client is refused.
func (s *Service) PurposeToken(ctx context.Context, token, account, target string) (Identity, error) {
	scope, ok := PurposeScope(account, target)
	if !ok {
		return Identity{}, refuseNot(oauthToken, errors.New("it can be for no such account"))
	}
	secret, subject, err := s.openToken(oauthToken, token)
	if err != nil {
		return Identity{}, err
	}
	var who Identity
	err = s.commitRefusals(ctx, func(tx *store.Tx) error {
		var st standing
		var id, client, scopes string
		var expires int64
		var used, revoked bool
		err := st.scan(s, tx.QueryRowContext(ctx, `SELECT `+standingColumns+`, t.id, t.client, t.scopes, t.expires, t.used <> 0, t.revoked <> 0
			FROM tokens t JOIN sign_ins s ON s.id = t.sign_in JOIN identities i ON i.id = s.identity WHERE t.hash = ? AND t.kind = ? AND i.id = ?`,
			hashed(secret), kindAccess, subject), &id, &client, &scopes, &expires, &used, &revoked)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return refuseNot(oauthToken, errors.New("it is not known"))
		case err != nil:
			return fmt.Errorf("look up the token: %w", err)
		case client != PostgresClient:
			return refuseNot(oauthToken, fmt.Errorf("token %s was issued to client %s", id, client))
		case st.closed:
			return refuseDisabled(st.Identity)
		case used || revoked:
			return refuseNot(oauthToken, fmt.Errorf("token %s was used or revoked before", id))
		case !s.now().Before(unstamp(expires)):
			return refuseExpired("the token was not used in time")
		case scopes != scope:
			return refusal.New(refusal.NotPermitted, "this sign-in was for %s, not for %s@%s", purposeOf(strings.Fields(scopes)), account, target).
				WithHint("leave oauth_scope out of the connection string; the gateway names it")
		}
		if err := st.good(s.now()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tokens SET used = ? WHERE id = ? AND used = 0`, stamp(s.now()), id); err != nil {
			return fmt.Errorf("use the token up: %w", err)
		}
		st.Method, st.Credential = oauthToken, id
		who = st.Identity
		return nil
	})
	return who, err
}
