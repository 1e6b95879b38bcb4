package federation

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// timeout bounds every question to an issuer, maxResponse every answer.
const (
	timeout     = 10 * time.Second
	maxResponse = 1 << 20
)

// Client makes an HTTP client for an issuer of tokens: it trusts the system's authorities and those in the PEM file ca ("":
// none; setting is its name in the configuration, for errors), follows no redirect, and bounds time and answers.
func Client(ca, setting string) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificate authorities: %w", err)
	}
	if ca != "" {
		data, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		if !roots.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s: %s holds no certificate in PEM form", setting, ca)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	transport.MaxIdleConnsPerHost = 4
	return &http.Client{
		Transport:     bounded{transport},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// bounded cuts answers off at maxResponse.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxResponse), answer.Body}
	}
	return answer, err
}
