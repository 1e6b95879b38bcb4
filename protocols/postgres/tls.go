package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"

	"github.com/xdg-go/scram"
)

// naming is the clients' TLS configuration, which names the authorities whose certificates are accepted: it says which
// certificate to choose, and a client may send none where its own is of none of them. Whether one is good, identify decides.
type naming struct {
	config      *tls.Config
	authorities func() []*x509.Certificate

	mu     sync.Mutex
	named  []*x509.Certificate
	latest *tls.Config
}

// now is the configuration with the authorities of this moment.
func (n *naming) now() *tls.Config {
	authorities := n.authorities()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest == nil || !slices.Equal(n.named, authorities) {
		n.named, n.latest = authorities, n.config.Clone()
		n.latest.ClientCAs = x509.NewCertPool()
		for _, authority := range authorities {
			n.latest.ClientCAs.AddCert(authority)
		}
	}
	return n.latest
}

// shown is the certificate that the gateway showed in a connection's TLS handshake, which crypto/tls does not tell.
type shown struct{ certificate *x509.Certificate }

type shownKey struct{}

// remember has a server's TLS configuration note which certificate it shows, where the handshake's context asks for it.
func remember(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := get(hello)
		if to, ok := hello.Context().Value(shownKey{}).(*shown); ok && err == nil && pair != nil {
			to.certificate = pair.Leaf
			if pair.Leaf == nil && len(pair.Certificate) > 0 {
				to.certificate, _ = x509.ParseCertificate(pair.Certificate[0]) // without it there is no channel binding
			}
		}
		return pair, err
	}
}

// endpoint is the connection's channel binding tls-server-end-point; nil where the certificate's signature names no hash
// (Ed25519), for which RFC 5929 has none.
func (c *client) endpoint() []byte {
	if c.shown.certificate == nil {
		return nil
	}
	binding, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.shown.certificate}})
	if err != nil {
		return nil
	}
	return binding.Data
}
