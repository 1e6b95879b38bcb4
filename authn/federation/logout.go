package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// MaxLogout bounds a logout token.
const MaxLogout = 16 << 10

// What a logout token's iat may be away from now. Section 2.4 of the specification wants tokens that live for two minutes at
// the most; a provider's queue may be slower, and its clock off.
const (
	logoutAge  = 10 * time.Minute
	logoutSkew = time.Minute
)

// logoutEvent names what a logout token is about.
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// Logout is what the provider says has ended: all of a person's sessions, or the one of that name.
type Logout struct {
	Issuer  string
	Subject string // may be empty where Session is not
	Session string // sid; empty: all of Subject's
	// ID is the token's own (jti). Until is when Logout takes no such token any more, so that it need not be remembered longer.
	ID    string
	Until time.Time
}

// Logout verifies a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6) but for its jti's newness, which the
// caller remembers. Anybody may send one: only an error with ErrUnavailable in it is not the sender's.
func (p *Provider) Logout(ctx context.Context, raw string) (Logout, error) {
	if raw == "" || len(raw) > MaxLogout {
		return Logout{}, fmt.Errorf("the logout token is empty or longer than %d bytes", MaxLogout)
	}
	token, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		return Logout{}, fmt.Errorf("the logout token: %w", err)
	}
	// The recommended type is logout+jwt; one that says to be something else is that.
	typ, _ := token.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string)
	if typ = strings.TrimPrefix(strings.ToLower(typ), "application/"); typ != "" && typ != "jwt" && typ != "logout+jwt" {
		return Logout{}, fmt.Errorf("the token is not a logout token but %q", printable(typ, 64))
	}
	d, err := p.discover(ctx)
	if err != nil {
		return Logout{}, err
	}
	if err := p.keys.Ready(ctx); err != nil {
		return Logout{}, err
	}
	proven, err := oidc.NewVerifier(p.config.Issuer, p.keys, &oidc.Config{
		ClientID: p.config.ClientID, SupportedSigningAlgs: d.algorithms(), Now: p.now,
	}).VerifyLogout(ctx, raw)
	if err != nil {
		return Logout{}, fmt.Errorf("the logout token: %w", err)
	}
	var claims struct {
		Events map[string]json.RawMessage `json:"events"`
	}
	if err := proven.Claims(&claims); err != nil {
		return Logout{}, fmt.Errorf("the logout token: %w", err)
	}
	now := p.now()
	switch event := bytes.TrimSpace(claims.Events[logoutEvent]); {
	case !bytes.HasPrefix(event, []byte("{")):
		return Logout{}, errors.New("the logout token is about another event than a logout")
	case proven.IssuedAt.Before(now.Add(-logoutAge)) || proven.IssuedAt.After(now.Add(logoutSkew)):
		return Logout{}, errors.New("the logout token was not made just now (iat)")
	case !plain(proven.TokenID, maxSubject),
		proven.Subject != "" && !plain(proven.Subject, maxSubject),
		proven.SessionID != "" && !plain(proven.SessionID, maxLabel):
		return Logout{}, errors.New("the logout token's jti, sub or sid is too long or not printable")
	}
	return Logout{
		Issuer: p.config.Issuer, Subject: proven.Subject, Session: proven.SessionID,
		ID: proven.TokenID, Until: proven.IssuedAt.Add(logoutAge),
	}, nil
}

// algorithms are those with which the provider says that it signs, as far as they may be used; RS256 where it says nothing
// (OpenID Connect Core, section 15.1).
func (d *discovered) algorithms() []string {
	var says struct {
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if d.Claims(&says) != nil || len(says.Algorithms) == 0 {
		return []string{oidc.RS256}
	}
	may := Algorithms()
	return slices.DeleteFunc(says.Algorithms, func(name string) bool { return !slices.Contains(may, name) })
}
