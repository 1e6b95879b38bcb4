//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"sallyport/configs"
	"sallyport/recorder/transparency"
	"sallyport/recorder/transparency/ledger"
)

// openLedger opens the log over all recordings.
func openLedger(ctx context.Context, config *configs.Config, log *slog.Logger) (*ledger.Log, error) {
	signer, key, err := ledger.LoadKey(filepath.Join(config.State, "keys"), logOrigin(config))
	if err != nil {
		return nil, err
	}
	witnesses, err := witnessesOf(config)
	if err != nil {
		return nil, err
	}
	if len(witnesses) == 0 {
		log.Warn(noWitness)
	}
	return ledger.Open(ctx, ledger.Options{Dir: config.State, Signer: signer, Key: key, Witnesses: witnesses, Log: log})
}

const noWitness = "no witness is configured (recording.witnesses): whoever holds this gateway's keys could change what was recorded, and only " +
	"checkpoints that auditors kept would tell"

// logOrigin names a new log: the gateway's address without the scheme, as c2sp.org/tlog-checkpoint advises.
func logOrigin(config *configs.Config) string {
	if u, err := url.Parse(config.URL); err == nil && u.Host != "" {
		return u.Host + "/log"
	}
	return "sallyport/log"
}

// witnessesOf reads the configured witnesses' keys and authorities.
func witnessesOf(config *configs.Config) ([]ledger.Witness, error) {
	var all []ledger.Witness
	for i, w := range config.Recording.Witnesses {
		key, err := transparency.ParseWitnessKey(w.Key)
		if err != nil {
			return nil, fmt.Errorf("recording.witnesses[%d]: %w", i, err)
		}
		witness := ledger.Witness{URL: w.URL, Key: key}
		if w.CA != "" {
			pem, err := os.ReadFile(w.CA)
			if err != nil {
				return nil, fmt.Errorf("recording.witnesses[%d]: %w", i, err)
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("recording.witnesses[%d]: %s has no certificate", i, w.CA)
			}
			witness.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Proxy: http.ProxyFromEnvironment}}
		}
		all = append(all, witness)
	}
	return all, nil
}
