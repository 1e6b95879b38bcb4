//go:build unix

package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"sallyport/configs"
	"sallyport/proxy"
)

// loadCertificate is the server certificate, from files or from an authority.
func (g *gateway) loadCertificate(config *configs.Config) (*proxy.Certificate, error) {
	if !config.TLS.ACME.Used() {
		return proxy.LoadCertificate(config.TLS.Certificate, config.TLS.Key, g.log)
	}
	names := func() []string { return g.config.Load().CertifiedNames() }
	return proxy.LoadACME(config.TLS.ACME, names, filepath.Join(config.State, "acme"), g.log)
}

// listenChallenges answers the authority over HTTP where the configuration wants that, and has missing certificates made.
func (g *gateway) listenChallenges(config *configs.Config) error {
	if !config.TLS.ACME.Used() {
		return nil
	}
	if address := config.TLS.ACME.Listen; address != "" {
		l, err := g.front.Listener("acme", address)
		if err != nil {
			return err
		}
		g.log.Info("listening", "for", "acme", "address", l.Addr().String())
		server := &http.Server{
			Handler: g.certificate.Challenges(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
			ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		}
		go func() {
			if err := server.Serve(l); !errors.Is(err, net.ErrClosed) {
				g.log.Error("the listener for ACME ended; certificates may not be renewed", "error", err)
			}
		}()
	}
	go g.certificate.Obtain() // the authority asks at listeners that begin now; nothing waits for it
	return nil
}
