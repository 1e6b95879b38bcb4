package proxy

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// checkInterval is how often, at most, a handshake looks whether the certificate's files have changed.
const checkInterval = 5 * time.Second

// Certificate is the server certificate, read from PEM files and read again when they change, so that renewing it needs
// no restart. While the new files are broken the old certificate is served.
type Certificate struct {
	certificateFile, keyFile string
	log                      *slog.Logger

	manager *autocert.Manager // with ACME, in the place of the files
	names   func() []string

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]time.Time // modification times of the files read last
	checked time.Time
}

// LoadCertificate reads the files; they must be good at the start.
func LoadCertificate(certificateFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certificateFile: certificateFile, keyFile: keyFile, log: log}
	return c, c.Reload()
}

// Reload reads the files now.
func (c *Certificate) Reload() error {
	if c.manager != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reload()
}

func (c *Certificate) reload() error {
	stamp := c.stamps()
	pair, err := tls.LoadX509KeyPair(c.certificateFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("server certificate %s with key %s: %w", c.certificateFile, c.keyFile, err)
	}
	c.current, c.stamp, c.checked = &pair, stamp, time.Now()
	return nil
}

func (c *Certificate) stamps() (stamp [2]time.Time) {
	for i, name := range []string{c.certificateFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			stamp[i] = info.ModTime()
		}
	}
	return stamp
}

// Get is a tls.Config's GetCertificate.
func (c *Certificate) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.manager != nil {
		return c.managed(hello)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) > checkInterval {
		c.checked = time.Now()
		if c.stamps() != c.stamp {
			if err := c.reload(); err != nil {
				c.log.Error("the server certificate's files changed and are no good; serving the old one", "error", err)
			} else {
				c.log.Info("the server certificate was reloaded", "expires", c.current.Leaf.NotAfter)
			}
		}
	}
	return c.current, nil
}

// TLS is the server side for all listeners: TLS 1.2 and up, this certificate.
func (c *Certificate) TLS() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Get}
	if c.manager != nil {
		config.NextProtos = []string{acme.ALPNProto} // for the authority alone; a server adds what it speaks
	}
	return config
}
