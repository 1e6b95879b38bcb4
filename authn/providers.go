package authn

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"sallyport/authn/federation"
	"sallyport/authn/pages"
	"sallyport/authn/secrets"
	"sallyport/internal/refusal"
)

// newProviders prepares the providers of people. Each has a redirect address of its own, so that an answer which one of them
// had another one give can't be taken for its own (RFC 9700, section 4.4.2.2); RFC 9207's iss is for the same, and not known to all.
func (s *Service) newProviders() {
	at := strings.TrimSuffix(s.config.URL, "/") + pathCallback
	for i, config := range s.config.AllProviders() {
		redirect := at
		if i > 0 {
			redirect += "/" + config.Name
		}
		s.providers = append(s.providers, federation.New(config, redirect, func(ctx context.Context) (string, error) {
			if config.ClientSecret == "" {
				return "", nil // a public client
			}
			return secrets.Resolve(ctx, config.ClientSecret)
		}, s.now))
	}
}

// providerAt is the provider whose address (redirect, logout) r came to; nil for none's.
func (s *Service) providerAt(r *http.Request) *federation.Provider {
	name := r.PathValue("provider")
	if name == "" {
		return s.providers[0]
	}
	return named(s.providers[1:], name)
}

// providerOf is the one with that issuer; nil for none.
func (s *Service) providerOf(issuer string) *federation.Provider {
	for _, p := range s.providers {
		if p.Issuer() == issuer {
			return p
		}
	}
	return nil
}

func named(providers []*federation.Provider, name string) *federation.Provider {
	for _, p := range providers {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// chosen is the provider at which the person wants to sign in; nil where they have not said it yet.
func (s *Service) chosen(r *http.Request) (*federation.Provider, error) {
	if len(s.providers) == 1 {
		return s.providers[0], nil
	}
	name := r.URL.Query().Get("provider")
	if name == "" {
		return nil, nil //nolint:nilnil // neither chosen nor wrong
	}
	p := named(s.providers, name)
	if p == nil {
		return nil, refusal.New(refusal.NotFound, "there is no provider of that name here").WithHint("begin again: sallyport login")
	}
	return p, nil
}

// choices asks for it, and goes on where r is.
func (s *Service) choices(r *http.Request) (c pages.Choose) {
	for _, p := range s.providers {
		q := r.URL.Query()
		q.Set("provider", p.Name())
		host := p.Issuer()
		if u, err := url.Parse(host); err == nil {
			host = u.Host
		}
		c.Choices = append(c.Choices, pages.Choice{Name: p.Name(), Host: host, Next: r.URL.Path + "?" + q.Encode()})
	}
	return c
}

func refuseMixUp(why string) *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "the answer is not the provider's that you signed in at").WithDetail("%s", why).
		WithHint("begin again: sallyport login; if it persists, tell those who run the gateway")
}
