package federation

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	// askEvery is how often a provider is asked whether it answers, at most, however many want to know.
	askEvery = 3 * time.Second
	// answerTime bounds one such question. What takes longer is no provider that a person could sign in at.
	answerTime = 8 * time.Second
	// redeemPatience is for how long a provider must have redeemed nothing, while it shows its pages, to count as one that does not answer.
	redeemPatience = time.Minute
)

// Answers asks the provider anew, as a person's sign-in would: for its metadata, and at the address to which browsers are sent; and
// where it lately failed to redeem what somebody brought, at the address for that (see redeems). The error wraps ErrUnavailable where
// it is seen not to answer, or only that it fails (500 and above); any other answer of its own is one. Another error is of the
// gateway's own making, and says nothing about the provider. What was found counts for three seconds.
func (p *Provider) Answers(ctx context.Context) error {
	p.asking.Lock() // also while asking: whoever else wants to know waits for the same answer
	defer p.asking.Unlock()
	if age := p.now().Sub(p.asked); !p.asked.IsZero() && age >= 0 && age < askEvery {
		return p.answered
	}
	client, err := Client(p.config.CA, "provider.ca")
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	p.answered = p.ring(asking, client)
	p.asked = p.now()
	return p.answered
}

// ourOwn are failures to ask that say nothing about who is asked: strangers who use up what the gateway has must not make a provider
// look as if it were down.
var ourOwn = []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL}

func (p *Provider) ring(ctx context.Context, client *http.Client) error {
	answer, err := p.get(ctx, client, strings.TrimSuffix(p.config.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var metadata struct {
		Authorize string `json:"authorization_endpoint"`
		Token     string `json:"token_endpoint"`
	}
	plain := func(address string) bool {
		return address == "" || strings.HasPrefix(p.config.Issuer, "https://") && !strings.HasPrefix(address, "https://")
	}
	if answer.StatusCode != http.StatusOK || json.NewDecoder(answer.Body).Decode(&metadata) != nil || plain(metadata.Authorize) {
		return nil // that is some answer
	}
	// The whole request, so that there is nothing in it that a provider may stumble over.
	config := oauth2.Config{ClientID: p.config.ClientID, RedirectURL: p.redirect, Scopes: p.scopes(), Endpoint: oauth2.Endpoint{AuthURL: metadata.Authorize, TokenURL: metadata.Token}}
	page, err := p.get(ctx, client, config.AuthCodeURL(rand.Text(), oauth2.SetAuthURLParam("nonce", rand.Text()), oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	if err != nil {
		return err
	}
	if err := page.Body.Close(); err != nil || plain(metadata.Token) {
		return err
	}
	return p.redeems(ctx, client, config)
}

// redeems asks a provider that failed when it was last to redeem a code or a refresh token whether it still does, by a code that is
// made up: a provider that works refuses it, and whatever it answers below 500 counts. It is seen to fail once it has answered nothing
// else for redeemPatience, whoever asked. So what strangers bring, whose codes may be anything, at most has the gateway ask; and those who
// have it ask so often that the provider takes no more are answered in between.
func (p *Provider) redeems(ctx context.Context, client *http.Client, config oauth2.Config) error {
	since := p.redeeming.failingSince()
	if since.IsZero() {
		return nil
	}
	var err error
	if config.ClientSecret, err = p.secret(ctx); err != nil {
		return fmt.Errorf("the gateway's client secret at the provider: %w", err)
	}
	_, err = config.Exchange(oidc.ClientContext(ctx, client), rand.Text(), oauth2.VerifierOption(oauth2.GenerateVerifier()))
	switch p.heard(ctx, err); {
	case err == nil || redeemed(err):
		return nil
	case isOurOwn(err):
		return fmt.Errorf("ask %s: %w", p.config.Issuer, err)
	case p.now().Sub(since) < redeemPatience:
		return nil
	}
	var no *oauth2.RetrieveError
	if errors.As(err, &no) && no.Response != nil {
		return fmt.Errorf("%w: %s redeems nothing since %s: it answers %s", ErrUnavailable, p.config.Issuer, since.UTC().Format(time.RFC3339), no.Response.Status)
	}
	return fmt.Errorf("%w: %s redeems nothing since %s", ErrUnavailable, p.config.Issuer, since.UTC().Format(time.RFC3339))
}

// redeeming is since when a provider fails to redeem codes and refresh tokens. The zero value is one that does not.
type redeeming struct {
	mu    sync.Mutex
	since time.Time
}

func (r *redeeming) failingSince() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since
}

// heard takes note of what came of asking the provider to redeem something.
func (p *Provider) heard(ctx context.Context, err error) {
	p.redeeming.mu.Lock()
	defer p.redeeming.mu.Unlock()
	switch {
	case err == nil || redeemed(err):
		p.redeeming.since = time.Time{}
	case ctx.Err() != nil || isOurOwn(err): // whoever asked went away, or it was never asked
	case p.redeeming.since.IsZero():
		p.redeeming.since = p.now()
	}
}

// redeemed tells whether the error is an answer of a provider that works.
func redeemed(err error) bool {
	var no *oauth2.RetrieveError
	return errors.As(err, &no) && no.Response != nil && no.Response.StatusCode < http.StatusInternalServerError
}

func isOurOwn(err error) bool {
	return slices.ContainsFunc(ourOwn, func(e error) bool { return errors.Is(err, e) })
}

// get asks for an address. Its error wraps ErrUnavailable.
func (p *Provider) get(ctx context.Context, client *http.Client, address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		if at, ok := errors.AsType[*url.Error](err); ok {
			err = at.Err // without the address
		}
		if isOurOwn(err) {
			return nil, fmt.Errorf("ask %s: %w", p.config.Issuer, err)
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, p.config.Issuer, err)
	}
	if answer.StatusCode >= http.StatusInternalServerError {
		answer.Body.Close()
		return nil, fmt.Errorf("%w: %s answers %s", ErrUnavailable, p.config.Issuer, answer.Status)
	}
	return answer, nil
}
