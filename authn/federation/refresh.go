package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// ErrWithdrawn is in the errors that mean: the provider does not vouch for the person any more.
var ErrWithdrawn = errors.New("the provider does not vouch for this sign-in any more")

// maxRefresh bounds a refresh token.
const maxRefresh = 16 << 10

// Renewed is what a provider says of somebody when it is asked again.
type Renewed struct {
	// Claims are as of now; Refresh in them is the token to ask with the next time, set also beside an error, once the one
	// that was asked with is spent. Of when and how the person proved themselves nothing is new.
	Claims
	// Silent is set where it said nothing of groups: those that it named before still count.
	Silent bool
}

// Refresh asks the provider, with a refresh token that it gave, whether the person of that subject may still sign in, and what it
// says of them now (OpenID Connect Core, section 12). was is where it named groups before: not to name them there any more means
// that there are none left, which no list at all is for many providers. The error wraps ErrWithdrawn where the answer is no; with
// any other it is not known.
func (p *Provider) Refresh(ctx context.Context, refresh, subject string, was Place) (Renewed, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return Renewed{}, err
	}
	secret, err := p.secret(ctx)
	if err != nil {
		return Renewed{}, fmt.Errorf("the gateway's client secret at the provider: %w", err)
	}
	asker := ctx
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, d.client), timeout)
	defer cancel()
	token, err := p.oauth(d, secret).TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	p.heard(asker, err)
	if err != nil {
		var no *oauth2.RetrieveError
		if errors.As(err, &no) { // its text may repeat what was sent
			if no.ErrorCode == "invalid_grant" { // RFC 6749, section 5.2; anything else is about the gateway, or for a while
				return Renewed{}, fmt.Errorf("%w: invalid_grant", ErrWithdrawn)
			}
			return Renewed{}, fmt.Errorf("%w: it answers %q", ErrUnavailable, printable(no.ErrorCode, 64))
		}
		return Renewed{}, fmt.Errorf("%w: refresh: %w", ErrUnavailable, err)
	}
	if token.RefreshToken == "" || len(token.RefreshToken) > maxRefresh {
		return Renewed{}, fmt.Errorf("the provider's next refresh token is empty or longer than %d bytes", maxRefresh)
	}
	r := Renewed{Claims: Claims{Refresh: token.RefreshToken}}
	claims := map[string]json.RawMessage{}
	raw, whole := token.Extra("id_token").(string)
	if whole {
		proven, err := d.Verifier(&oidc.Config{ClientID: p.config.ClientID, Now: p.now}).Verify(ctx, raw)
		if err == nil {
			err = proven.Claims(&claims)
		}
		if err != nil {
			return r, fmt.Errorf("the provider's ID token: %w", err)
		}
		if proven.Subject != subject {
			return r, fmt.Errorf("%w: it speaks of somebody else now", ErrWithdrawn)
		}
		if err := p.made(proven, claims); err != nil {
			return r, err
		}
	}
	in, err := p.ask(ctx, d, token, subject, claims)
	if err != nil {
		return r, err
	}
	c, err := p.claims(p.config.Issuer, subject, claims)
	if err != nil {
		return r, err
	}
	c.GroupsIn, c.Refresh = in, token.RefreshToken
	return Renewed{Claims: c, Silent: in == "" && !whole && (was != InUserinfo || d.UserInfoEndpoint() == "")}, nil
}
