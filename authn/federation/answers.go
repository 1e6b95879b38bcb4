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
	"syscall"
	"time"

	"golang.org/x/oauth2"
)

const (
	// askEvery is how often a provider is asked whether it answers, at most, however many want to know.
	askEvery = 3 * time.Second
	// answerTime bounds one such question. What takes longer is no provider that a person could sign in at.
	answerTime = 8 * time.Second
)

// Answers asks the provider anew, as a person's sign-in would: for its metadata, and at the address to which browsers are sent. The
// error wraps ErrUnavailable where it is seen not to answer, or only that it fails (500 and above); any other answer of its own is
// one. Another error is of the gateway's own making, and says nothing about the provider. What was found counts for three seconds.
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
	}
	if answer.StatusCode != http.StatusOK || json.NewDecoder(answer.Body).Decode(&metadata) != nil || metadata.Authorize == "" ||
		strings.HasPrefix(p.config.Issuer, "https://") && !strings.HasPrefix(metadata.Authorize, "https://") {
		return nil // that is some answer
	}
	// The whole request, so that there is nothing in it that a provider may stumble over.
	config := oauth2.Config{ClientID: p.config.ClientID, RedirectURL: p.redirect, Scopes: p.scopes(), Endpoint: oauth2.Endpoint{AuthURL: metadata.Authorize}}
	page, err := p.get(ctx, client, config.AuthCodeURL(rand.Text(), oauth2.SetAuthURLParam("nonce", rand.Text()), oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	if err != nil {
		return err
	}
	return page.Body.Close()
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
		if slices.ContainsFunc(ourOwn, func(e error) bool { return errors.Is(err, e) }) {
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
