package postgres

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgproto3/v2"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/wire"
)

// offersTokens tells whether a client that showed no certificate of this gateway's is asked for a token. Those that know
// nothing of tokens would take the other mechanism, ask their user for a password that there is none of, and hide the
// hint: libpq of version 17 and later says who it is by ALPN, others have to ask for it (sallyport.auth=oauth).
func (c *client) offersTokens(s startup) bool {
	return c.tls.NegotiatedProtocol == wire.ALPN || s.own.tokens
}

// ours tells whether the client showed a certificate that this gateway issued, whatever else is wrong with it. Any other is
// as good as none: libpq shows what it finds in the user's home.
func (h *Handler) ours(c *client) bool {
	certificates := c.tls.PeerCertificates
	return len(certificates) > 0 && slices.ContainsFunc(h.authn.ClientAuthorities(), func(authority *x509.Certificate) bool {
		return certificates[0].CheckSignatureFrom(authority) == nil
	})
}

// identifyByToken is who it is by a token that the gateway's own issuer gave to psql for this one connection (RFC 7628).
// psql connects twice: the first time it only asks where to get one.
func (h *Handler) identifyByToken(ctx context.Context, c *client, where address, account string) (authn.Identity, error) {
	target := strings.ToLower(where.target)
	scope, ok := authn.PurposeScope(account, target)
	if !ok {
		return authn.Identity{}, strange(strangerCertificate, h.howToSignIn())
	}
	// An empty id: whoever tries a password without one is led to the end as with any other, and told then.
	proof, err := h.authn.BeginPassword(ctx, "", c.raw.RemoteAddr(), nil)
	if err != nil {
		return authn.Identity{}, asStranger(err)
	}
	mechanism, first, err := c.choose(append([]string{authn.OAuthBearer}, proof.Mechanisms()...))
	if err != nil {
		return authn.Identity{}, err
	}
	if mechanism != authn.OAuthBearer {
		if err := c.converse(proof, mechanism, first); err != nil && refusal.Is(err, refusal.ProtocolViolation) {
			return authn.Identity{}, asStranger(err)
		}
		return authn.Identity{}, strange(strangerPassword, h.howToSignIn())
	}
	token, err := bearerToken(first)
	if err != nil {
		return authn.Identity{}, strange(strangerToken, refusal.New(refusal.ProtocolViolation, "malformed OAUTHBEARER message").WithDetail("%s", err))
	}
	if token != "" {
		who, err := h.authn.PurposeToken(ctx, token, account, target)
		if !refusal.Is(err, refusal.NotAuthenticated) {
			return who, asTokenStranger(err) // words say more than a status would
		}
		return who, errors.Join(c.rejectToken(h.url, scope), asTokenStranger(err))
	}
	if err := c.rejectToken(h.url, scope); err != nil {
		return authn.Identity{}, err
	}
	return authn.Identity{}, strange(strangerDiscovery, h.howToSignIn())
}

// rejectToken tells the client where to get a token and for what (RFC 7628, section 3.2.2), and takes its answer, which
// says nothing.
func (c *client) rejectToken(issuer, scope string) error {
	status, err := json.Marshal(map[string]string{
		"status": "invalid_token", "openid-configuration": strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration", "scope": scope,
	})
	if err != nil {
		return err
	}
	if err := c.ask(&pgproto3.AuthenticationSASLContinue{Data: status}); err != nil {
		return err
	}
	_, err = c.saslMessage()
	return err
}

func asTokenStranger(err error) error {
	if r := refusal.Of(err); r != nil {
		return strange(strangerToken, r)
	}
	return err
}

// howToSignIn is for clients that proved nothing.
func (h *Handler) howToSignIn() *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "no client certificate was presented").
		WithDetail("This gateway knows people by the short-lived certificate that signing in gives them. With nothing installed, psql 18 and later sign in with oauth_issuer=%s oauth_client_id=%s, any other, where the target allows it, as user ACCOUNT+sso; programs by a password: sallyport credentials ACCOUNT@TARGET", h.url, authn.PostgresClient).
		WithHint("sign in with: sallyport login --gateway %s, and connect with: psql service=TARGET; or see %s/connect", h.url, strings.TrimSuffix(h.url, "/"))
}

// bearerToken reads the initial message of OAUTHBEARER (RFC 7628, section 3.1); the token is empty where the client only
// asks where to get one. Errors never repeat what was sent.
func bearerToken(message string) (token string, err error) {
	header, rest, ok := strings.Cut(message, "\x01")
	switch {
	case !ok:
		return "", errors.New("it has no separator after its header")
	case strings.HasPrefix(header, "p"):
		return "", errors.New("it asks for channel binding, which this mechanism does not have")
	case header != "n,," && header != "y,,":
		return "", errors.New("its header is not one without an authorization identity")
	}
	found := false
	for {
		var pair string
		if pair, rest, ok = strings.Cut(rest, "\x01"); !ok {
			return "", errors.New("it is not terminated")
		}
		if pair == "" {
			break
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || strings.Trim(key, letters) != "" {
			return "", errors.New("it has something that is not KEY=VALUE")
		}
		if key != "auth" {
			continue // host and port, and what else there may be
		}
		if found {
			return "", errors.New("it has two auth keys")
		}
		found = true
		if token, err = credentials7235(value); err != nil {
			return "", err
		}
	}
	switch {
	case rest != "":
		return "", errors.New("it goes on after its end")
	case !found:
		return "", errors.New("it has no auth key")
	}
	return token, nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// credentials7235 reads `Bearer TOKEN` (RFC 7235, section 2.1; RFC 6750, section 2.1).
func credentials7235(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	scheme, token, ok := strings.Cut(value, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("its auth is not of the Bearer scheme")
	}
	token = strings.TrimLeft(token, " ")
	if bare := strings.TrimRight(token, "="); bare == "" || strings.Trim(bare, letters+"0123456789-._~+/") != "" {
		return "", errors.New("its token has characters that no token has")
	}
	return token, nil
}
