package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"sallyport/configs"
)

// LoadACME makes a certificate that an authority issues and renews (RFC 8555), kept in cache (mode 0600). names are those it
// may be for; a handshake for any other gets the first one's, so that strangers can't have certificates asked for. The
// authority's questions are answered at the listeners that use TLS, and by the handler of Challenges.
func LoadACME(c configs.ACME, names func() []string, cache string, log *slog.Logger) (*Certificate, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificate authorities: %w", err)
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.acme.ca: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.acme.ca: %s holds no certificate in PEM form", c.CA)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	manager := &autocert.Manager{
		Prompt: autocert.AcceptTOS, // configs insists on accept_terms
		Cache:  autocert.DirCache(cache),
		Email:  c.Email,
		HostPolicy: func(_ context.Context, host string) error {
			if name, _, err := net.SplitHostPort(host); err == nil { // as the authority's own questions name it on another port than 80
				host = name
			}
			if !slices.Contains(names(), strings.ToLower(host)) {
				return fmt.Errorf("%q is no name of the gateway's", host)
			}
			return nil
		},
		Client: &acme.Client{DirectoryURL: c.Directory, HTTPClient: &http.Client{Transport: transport, Timeout: time.Minute}, UserAgent: "sallyport"},
	}
	return &Certificate{log: log, manager: manager, names: names}, nil
}

// Challenges answers the authority's questions over HTTP (HTTP-01), and sends everybody else to HTTPS. It is nil without ACME.
func (c *Certificate) Challenges() http.Handler {
	if c.manager == nil {
		return nil
	}
	return c.manager.HTTPHandler(nil)
}

// Obtain asks for the certificates that are missing, one after the other. What fails is logged, and tried again when somebody
// needs it.
func (c *Certificate) Obtain() {
	if c.manager == nil {
		return
	}
	for _, name := range c.names() {
		certificate, err := c.manager.GetCertificate(&tls.ClientHelloInfo{ServerName: name, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
		if err != nil {
			c.log.Error("the server certificate could not be had", "name", name, "error", err)
			continue
		}
		c.log.Info("the server certificate is there", "name", name, "expires", certificate.Leaf.NotAfter)
	}
}

// managed is Get with ACME.
func (c *Certificate) managed(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	names := c.names()
	asked := *hello
	if len(names) > 0 && !slices.Contains(names, strings.ToLower(hello.ServerName)) {
		asked.ServerName = names[0]
	}
	return c.manager.GetCertificate(&asked)
}
