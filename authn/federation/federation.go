// Package federation is the gateway as a client of an OpenID provider of people.
//
// It promises that the claims it returns come from an ID token which that one configured issuer signed for this client,
// for this very sign-in (nonce), and which has not run out; and that the code that led to it was asked for with PKCE, so
// that a stolen one is worth nothing. The provider need not be up when the gateway starts: it is asked when somebody
// signs in. Nothing it answers is read without a bound, and no answer sends the gateway to another host.
package federation

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"sallyport/configs"
)

// ErrUnavailable is in the errors that mean: the provider can't be asked now. Trying again may help.
var ErrUnavailable = errors.New("the company's sign-in provider does not answer")

const (
	// retry is how long a failed discovery is not repeated, so that a flood of sign-ins does not become one on the
	// provider.
	retry = 2 * time.Second
)

// What claims may hold. OpenID Connect Core, section 2, gives the subject 255 characters.
const (
	maxSubject = 255
	maxLabel   = 256
	maxGroups  = 1000
	maxMethods = 16
)

// Claims is who the provider says has signed in.
type Claims struct {
	Issuer, Subject string
	Name, Email     string
	Groups          []string
	// GroupsIn is where the provider named the groups; "" where it named none.
	GroupsIn Place
	// Authenticated, ACR and AMR say when and how (auth_time, acr, amr); Session is the provider's name for its session (sid).
	Authenticated time.Time
	ACR           string
	AMR           []string
	Session       string
	// Others are those of the claims that the configuration names (claims) that have one value.
	Others map[string]string
	// Match is the value of the claim by which the provider's directory knows the person (scim.claim); "" where there is none.
	Match string
	// Refresh is a refresh token, where the provider gives any: Refresh asks with it whether the person may still sign in.
	Refresh string
}

// Provider is the company's provider. Safe for concurrent use.
type Provider struct {
	config   configs.Provider
	redirect string
	secret   func(context.Context) (string, error)
	now      func() time.Time
	keys     *Keys // for what anybody may send

	mu      sync.Mutex
	found   *discovered
	failed  error
	retryAt time.Time

	asking   sync.Mutex // guards what follows
	asked    time.Time  // when Answers asked last
	answered error

	redeeming redeeming
}

// discovered is what discovery led to.
type discovered struct {
	*oidc.Provider
	client *http.Client
}

// New prepares a provider; it opens no connection. redirect is where the provider sends the browser back to, secret
// resolves the client's secret when it is needed.
func New(config configs.Provider, redirect string, secret func(context.Context) (string, error), now func() time.Time) *Provider {
	return &Provider{config: config, redirect: redirect, secret: secret, now: now, keys: NewKeys(config.Issuer, config.CA, "provider.ca", now)}
}

// Issuer is whose people sign in there; Name is what the configuration calls it.
func (p *Provider) Issuer() string { return p.config.Issuer }

// Name is what people choose it by.
func (p *Provider) Name() string { return p.config.Name }

// From checks who the answer to a sign-in says that it comes from (iss, RFC 9207): it must be this provider, and a provider that
// says in its metadata that it always says so must. Any error without ErrUnavailable in it is a mix-up.
func (p *Provider) From(ctx context.Context, iss []string) error {
	d, err := p.discover(ctx)
	if err != nil {
		return err
	}
	var says struct {
		Iss bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := d.Claims(&says); err != nil {
		return fmt.Errorf("the provider's metadata: %w", err)
	}
	switch {
	case len(iss) > 1 || len(iss) == 1 && iss[0] != p.config.Issuer:
		return errors.New("the answer says that it comes from another provider than the sign-in went to (iss)")
	case len(iss) == 0 && says.Iss:
		return errors.New("the answer does not say which provider it comes from (iss), and this one always does")
	}
	return nil
}

// Start is where to send a browser to sign in: code flow with PKCE (RFC 7636). The arguments are secrets of this sign-in.
func (p *Provider) Start(ctx context.Context, state, nonce, verifier string, fresh bool) (string, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)}
	if fresh {
		// Either makes the person prove themselves anew; the latter also makes the provider say when they did.
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	return p.oauth(d, "").AuthCodeURL(state, options...), nil
}

// Finish exchanges the code that came back and verifies what it is worth.
func (p *Provider) Finish(ctx context.Context, code, nonce, verifier string) (Claims, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return Claims{}, err
	}
	secret, err := p.secret(ctx)
	if err != nil {
		return Claims{}, fmt.Errorf("the gateway's client secret at the provider: %w", err)
	}
	asker := ctx
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, d.client), timeout)
	defer cancel()
	token, err := p.oauth(d, secret).Exchange(ctx, code, oauth2.VerifierOption(verifier))
	p.heard(asker, err)
	if err != nil {
		var no *oauth2.RetrieveError
		if redeemed(err) && errors.As(err, &no) { // its text may repeat what was sent
			return Claims{}, fmt.Errorf("the provider refused the code: %s", printable(no.ErrorCode, 64))
		}
		return Claims{}, fmt.Errorf("%w: exchange the code: %w", ErrUnavailable, err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Claims{}, errors.New("the provider's answer holds no ID token; is openid among provider.scopes?")
	}
	proven, err := d.Verifier(&oidc.Config{ClientID: p.config.ClientID, Now: p.now}).Verify(ctx, raw)
	if err != nil {
		return Claims{}, fmt.Errorf("the provider's ID token: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(proven.Nonce), []byte(nonce)) != 1 {
		return Claims{}, errors.New("the provider's ID token is for another sign-in (nonce)")
	}
	if proven.AccessTokenHash != "" {
		if err := proven.VerifyAccessToken(token.AccessToken); err != nil {
			return Claims{}, fmt.Errorf("the provider's access token: %w", err)
		}
	}
	var claims map[string]json.RawMessage
	if err := proven.Claims(&claims); err != nil {
		return Claims{}, fmt.Errorf("the provider's ID token: %w", err)
	}
	if err := p.made(proven, claims); err != nil {
		return Claims{}, err
	}
	in, err := p.ask(ctx, d, token, proven.Subject, claims)
	if err != nil {
		return Claims{}, err
	}
	c, err := p.claims(proven.Issuer, proven.Subject, claims)
	c.GroupsIn, c.Refresh = in, token.RefreshToken
	if len(c.Refresh) > maxRefresh {
		return Claims{}, fmt.Errorf("the provider's refresh token is longer than %d bytes", maxRefresh)
	}
	return c, err
}

// made refuses an ID token for several audiences that does not name this client as the one it was made for (OpenID Connect
// Core, section 3.1.3.7).
func (p *Provider) made(proven *oidc.IDToken, claims map[string]json.RawMessage) error {
	if azp := text(claims["azp"]); azp != p.config.ClientID && (azp != "" || len(proven.Audience) > 1) {
		return errors.New("the provider's ID token was made for another client (azp)")
	}
	return nil
}

// Place is where a provider names somebody's groups.
type Place string

// The places.
const (
	InIDToken  Place = "id_token"
	InUserinfo Place = "userinfo"
)

// ask adds what the ID token lacks from the userinfo endpoint, where there is one, and returns where the groups were named.
func (p *Provider) ask(ctx context.Context, d *discovered, token *oauth2.Token, subject string, claims map[string]json.RawMessage) (Place, error) {
	lacks := func(claim string) bool { return claims[claim] == nil }
	var in Place
	if !lacks(p.groups()) {
		in = InIDToken
	}
	wanted := []string{p.groups(), p.name(), p.email()}
	if claim := p.match(); claim != "" && claim != "sub" {
		wanted = append(wanted, claim)
	}
	wanted = append(wanted, p.config.Claims...)
	if d.UserInfoEndpoint() == "" || !slices.ContainsFunc(wanted, lacks) {
		return in, nil
	}
	info, err := d.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return in, fmt.Errorf("%w: userinfo: %w", ErrUnavailable, err)
	}
	if info.Subject != subject {
		return in, errors.New("the provider's userinfo is about somebody else than its ID token")
	}
	var more map[string]json.RawMessage
	if err := info.Claims(&more); err != nil {
		return in, fmt.Errorf("the provider's userinfo: %w", err)
	}
	for name, value := range more {
		if lacks(name) {
			claims[name] = value
		}
	}
	if in == "" && !lacks(p.groups()) {
		in = InUserinfo
	}
	return in, nil
}

// claims reads what was collected, and refuses what can't be kept whole.
func (p *Provider) claims(issuer, subject string, claims map[string]json.RawMessage) (Claims, error) {
	c := Claims{
		Issuer: issuer, Subject: subject,
		Name: printable(text(claims[p.name()]), maxLabel), Email: printable(text(claims[p.email()]), maxLabel),
	}
	if !plain(c.Subject, maxSubject) {
		return Claims{}, errors.New("the provider's subject is empty, longer than 255 bytes or not printable")
	}
	if string(claims["email_verified"]) == "false" {
		c.Email = ""
	}
	switch claim := p.match(); claim {
	case "":
	case "sub":
		c.Match = subject
	case "email", p.email():
		c.Match = c.Email // only where it is not known to be unverified
	default:
		if c.Match = text(claims[claim]); !plain(c.Match, maxLabel) {
			c.Match = ""
		}
	}
	for _, name := range p.config.Claims {
		if value, one := single(claims[name]); one && plain(value, maxLabel) { // cut or changed, it might be another one
			if c.Others == nil {
				c.Others = map[string]string{}
			}
			c.Others[name] = value
		}
	}
	c.ACR, c.Session = text(claims["acr"]), text(claims["sid"])
	if c.ACR != "" && !plain(c.ACR, maxLabel) || c.Session != "" && !plain(c.Session, maxLabel) {
		return Claims{}, fmt.Errorf("the provider's acr or sid is longer than %d bytes or not printable", maxLabel)
	}
	if raw := claims["amr"]; raw != nil && (json.Unmarshal(raw, &c.AMR) != nil || len(c.AMR) > maxMethods || slices.ContainsFunc(c.AMR, func(m string) bool { return !plain(m, maxLabel) })) {
		return Claims{}, fmt.Errorf("the provider's amr is not a list of up to %d texts", maxMethods)
	}
	var at int64
	if json.Unmarshal(claims["auth_time"], &at) == nil && at > 0 && at < 1<<40 {
		c.Authenticated = time.Unix(at, 0).UTC()
	}
	if raw := claims[p.groups()]; raw != nil && string(raw) != "null" {
		if err := json.Unmarshal(raw, &c.Groups); err != nil {
			var one string
			if json.Unmarshal(raw, &one) != nil {
				return Claims{}, fmt.Errorf("the provider's claim %q is not a list of texts", p.groups())
			}
			c.Groups = []string{one}
		}
	}
	if len(c.Groups) > maxGroups {
		return Claims{}, fmt.Errorf("the provider names %d groups; the most that is taken is %d: have it send fewer", len(c.Groups), maxGroups)
	}
	if only := p.config.Groups; len(only) > 0 {
		c.Groups = slices.DeleteFunc(c.Groups, func(group string) bool { return !slices.Contains(only, group) })
	}
	for _, group := range c.Groups {
		if !plain(group, maxLabel) { // cut or changed, it might be another group's name
			return Claims{}, fmt.Errorf("the provider names a group that is empty, longer than %d bytes or not printable", maxLabel)
		}
	}
	return c, nil
}

func (p *Provider) groups() string { return or(p.config.GroupsClaim, "groups") }
func (p *Provider) name() string   { return or(p.config.NameClaim, "name") }
func (p *Provider) email() string  { return or(p.config.EmailClaim, "email") }

func (p *Provider) match() string {
	if p.config.SCIM == nil {
		return ""
	}
	return or(p.config.SCIM.Claim, "sub")
}

func or(s, fallback string) string {
	if s != "" {
		return s
	}
	return fallback
}

func (p *Provider) oauth(d *discovered, secret string) *oauth2.Config {
	return &oauth2.Config{ClientID: p.config.ClientID, ClientSecret: secret, Endpoint: d.Endpoint(), RedirectURL: p.redirect, Scopes: p.scopes()}
}

func (p *Provider) scopes() []string {
	if slices.Contains(p.config.Scopes, oidc.ScopeOpenID) {
		return p.config.Scopes
	}
	return append([]string{oidc.ScopeOpenID}, p.config.Scopes...)
}

// discover reads the provider's description once; a failure is remembered for a moment only.
func (p *Provider) discover(ctx context.Context) (*discovered, error) {
	p.mu.Lock() // also while asking: whoever else wants to sign in now waits for the same answer
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	if p.failed != nil && p.now().Before(p.retryAt) {
		return nil, p.failed
	}
	client, err := Client(p.config.CA, "provider.ca") // made anew until it succeeds, so that a corrected CA file helps
	if err == nil {
		// Whoever asked first may go away; those who wait for the same answer should still get it.
		asking, cancel := context.WithTimeout(oidc.ClientContext(context.WithoutCancel(ctx), client), timeout)
		defer cancel()
		var provider *oidc.Provider
		if provider, err = oidc.NewProvider(asking, p.config.Issuer); err == nil {
			p.found, p.failed = &discovered{provider, client}, nil
			return p.found, nil
		}
	}
	p.failed, p.retryAt = fmt.Errorf("%w: discovery at %s: %w", ErrUnavailable, p.config.Issuer, err), p.now().Add(retry)
	return nil, p.failed
}

// text is a claim that is a text, else nothing.
func text(raw json.RawMessage) (s string) {
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// single is the value of a claim that is one text, number or Boolean.
func single(raw json.RawMessage) (value string, one bool) {
	switch raw = bytes.TrimSpace(raw); {
	case len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || string(raw) == "null":
		return "", false
	case raw[0] == '"':
		return text(raw), true
	}
	return string(raw), true
}

// plain tells whether s can be kept and shown as it is.
func plain(s string, limit int) bool {
	return s != "" && len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// printable makes a label for people out of s.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
