package client

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"
)

// renewBefore is how long before their end certificates are renewed, at the most; short-lived ones are in their last
// quarter.
const renewBefore = time.Hour

// certificateTimes reads from when to when the home's certificate is good.
func (h Home) certificateTimes() (from, until time.Time, err error) {
	data, err := os.ReadFile(h.Path(fileTLSCertificate))
	if err != nil {
		return from, until, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return from, until, fmt.Errorf("%s holds no certificate; sign in again", h.Path(fileTLSCertificate))
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return from, until, fmt.Errorf("%s: %w; sign in again", h.Path(fileTLSCertificate), err)
	}
	return certificate.NotBefore, certificate.NotAfter, nil
}

// Renew has fresh keys certified if the home's certificates are about to end while the sign-in goes on, or always. It
// returns until when the certificates are good, and whether they are new. Programs that run at the same time renew once.
func (c *Client) Renew(ctx context.Context, out io.Writer, always bool) (until time.Time, renewed bool, err error) {
	due := func() (bool, error) {
		from, end, err := c.home.certificateTimes()
		until = end
		if err != nil || always {
			return always, err
		}
		if time.Until(end) > min(renewBefore, end.Sub(from)/4) {
			return false, nil
		}
		token, err := c.tokens.load()
		if err != nil {
			return false, err
		}
		// A certificate ends with the sign-in at the latest: then another one would end no later.
		return token.Expiry.IsZero() || token.Expiry.Sub(end) > 2*time.Minute, nil
	}
	if yes, err := due(); err != nil || !yes {
		return until, false, err
	}
	unlock, err := c.home.lock(ctx, "renew.lock")
	if err != nil {
		return until, false, err
	}
	defer unlock()
	if yes, err := due(); err != nil || !yes {
		return until, false, err // somebody else has just done it
	}
	if err := c.Certify(ctx, out); err != nil {
		return until, false, err
	}
	_, until, err = c.home.certificateTimes()
	return until, err == nil, err
}

// Stay renews whenever it is due until the context or the sign-in ends. told gets each renewal.
func (c *Client) Stay(ctx context.Context, out io.Writer, told func(until time.Time)) error {
	for {
		until, renewed, err := c.Renew(ctx, out, false)
		if err != nil && ctx.Err() == nil && !time.Now().Before(until) {
			return err
		}
		if renewed {
			told(until)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(time.Minute, max(time.Second, time.Until(until)/8))):
		}
		if !until.IsZero() && !time.Now().Before(until) {
			return errSignInEnded()
		}
	}
}
