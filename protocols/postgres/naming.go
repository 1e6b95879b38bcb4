package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
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
