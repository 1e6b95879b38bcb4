// Package client is the user's side of Sallyport: the API's client, signing in, and the keys and files in the user's home
// that let stock psql and ssh through the gateway.
//
// It promises that a private key never leaves the machine it was made on, that secrets are kept in files only their
// owner can read, and that of the user's own files nothing changes but the marked block that login writes and logout
// removes. It trusts the gateway's certificate by the authority it was given when signing in, never on first use.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// Bounds on what a gateway can make a client hold, and on how long it can make it wait for anything but a stream.
const (
	maxAnswer   = 32 << 20
	maxLine     = 32 << 20
	callTimeout = 90 * time.Second
)

// Client talks to the gateway as the person who signed in. Safe for concurrent use.
type Client struct {
	home    Home
	gateway string
	http    *http.Client
	tokens  *tokens
}

// Open makes the client of a home in which somebody has signed in; a refusal (NotAuthenticated) says that nobody has.
func Open(home Home) (*Client, error) {
	s, err := home.settings()
	if err != nil {
		return nil, err
	}
	var authority []byte
	if s.CA != "" {
		if authority, err = os.ReadFile(home.Path(s.CA)); err != nil {
			return nil, fmt.Errorf("read the gateway's authority: %w; sign in again with --ca FILE", err)
		}
	}
	plain, err := httpClient(authority)
	if err != nil {
		return nil, err
	}
	t := &tokens{home: home, gateway: s.Gateway, http: plain}
	if _, err := t.load(); err != nil {
		return nil, err
	}
	return &Client{home: home, gateway: s.Gateway, http: plain, tokens: t}, nil
}

// Gateway is the gateway's address.
func (c *Client) Gateway() string { return c.gateway }

// httpClient trusts only the given authority, or the system's where there is none given.
func httpClient(authority []byte) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(authority) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(authority) {
			return nil, errors.New("the gateway's authority is no certificate in PEM; sign in again with --ca FILE")
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &http.Client{
		Transport: transport,
		// The API never redirects; following one could carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// Do calls the API: in, where not nil, is sent as JSON, and the answer is read into out, where not nil. A refusal of the
// gateway's is returned as *refusal.Refusal.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.call(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if out == nil {
		return nil
	}
	return decode(answer.Body, out)
}

// call sends a request with the access token; when the gateway no longer takes it, it is refreshed once.
func (c *Client) call(ctx context.Context, method, path string, in any) (*http.Response, error) {
	token, err := c.tokens.access(ctx, "")
	if err != nil {
		return nil, err
	}
	answer, err := send(ctx, c.http, method, c.gateway+path, token, in)
	if refusal.Is(err, refusal.NotAuthenticated) || refusal.Is(err, refusal.CredentialExpired) {
		fresh, failed := c.tokens.access(ctx, token)
		if failed != nil {
			return nil, failed
		}
		answer, err = send(ctx, c.http, method, c.gateway+path, fresh, in)
	}
	return answer, err
}

// send sends one request and turns every answer but success into an error.
func send(ctx context.Context, client *http.Client, method, address, token string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, unreachable(address, err)
	}
	if answer.StatusCode/100 == 2 {
		return answer, nil
	}
	defer answer.Body.Close()
	return nil, refused(answer)
}

// refused reads why the gateway said no.
func refused(answer *http.Response) error {
	kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	var p api.Problem
	if kind != "application/problem+json" || decode(answer.Body, &p) != nil || p.Code == "" {
		return fmt.Errorf("the gateway answered %s instead of what was asked for; is %s really a sallyport gateway?", answer.Status, answer.Request.URL.Host)
	}
	return refusalOf(&p)
}

func refusalOf(p *api.Problem) *refusal.Refusal {
	r := &refusal.Refusal{Code: refusal.Code(p.Code), Message: p.Message, Detail: p.Detail, Hint: p.Hint}
	if r.Detail == "" {
		r.Detail = strings.Join(p.Errors, "; ")
	}
	return r
}

// unreachable says what to do about a gateway that can't be talked to.
func unreachable(address string, err error) error {
	host := address
	if u, parsed := url.Parse(address); parsed == nil {
		host = u.Host
	}
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &untrusted):
		return fmt.Errorf("the certificate of %s is not to be trusted: %w; if the gateway has an authority of its own, sign in with --ca FILE", host, untrusted.Err)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the address, which has been said
	}
	return fmt.Errorf("reach the gateway at %s: %w; is the address right and the gateway up?", host, err)
}

func decode(r io.Reader, v any) error {
	data, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	if len(data) > maxAnswer {
		return errors.New("the gateway's answer is longer than any honest one")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}
