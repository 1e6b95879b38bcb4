package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"
)

// clientCertificate is the Method of an identity proven by a TLS client certificate.
const clientCertificate = "client certificate"

// credentialScheme and credentialPrefix make a credential's id a URI, the only name in a client certificate that counts.
const (
	credentialScheme = "sallyport"
	credentialPrefix = "credential:"
)

// ClientAuthority is the certificate of the authority that signs client certificates.
func (s *Service) ClientAuthority() *x509.Certificate {
	return s.authorities.Load().ClientCACertificate
}

// ClientAuthorities are the certificates of the authorities whose client certificates are accepted now, the one that signs
// new ones first: they are what a listener names in its request for one, so that a client with several certificates picks
// the right one. They change when an authority is rotated, and when an old one's time is over.
func (s *Service) ClientAuthorities() []*x509.Certificate {
	return s.authorities.Load().clients(s.now())
}

// signClient signs a client certificate. The common name is for people who look at it; nothing reads it.
func (s *Service) signClient(id, label string, key any, now, expires time.Time) (der []byte, serial *big.Int, err error) {
	if serial, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	a := s.authorities.Load()
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: printable(label, 64)}, // RFC 5280, ub-common-name
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              expires,
		URIs:                  []*url.URL{{Scheme: credentialScheme, Opaque: credentialPrefix + id}},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, a.ClientCACertificate, key, a.ClientCA)
	return der, serial, err
}

// ClientCertificate is the identity that a TLS client certificate stands for. chain is what the client sent, leaf first,
// unverified: it is verified here, in full (authority, time, usage, not itself an authority, not revoked). Of the chain
// only the leaf counts, for the authority has no others below it. That the client holds the key is TLS's proof.
func (s *Service) ClientCertificate(ctx context.Context, chain []*x509.Certificate) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, refuseNot(clientCertificate, nil).WithDetail("none was sent")
	}
	leaf := chain[0]
	// Who signed it comes first: what a forger wrote as its time is nobody's expired certificate.
	now := s.now()
	roots, err := s.issuedBy(leaf, now)
	if err != nil {
		return Identity{}, refuseNot(clientCertificate, err).WithDetail("it was not issued by this gateway")
	}
	id, err := clientCredential(leaf)
	if err != nil {
		return Identity{}, refuseNot(clientCertificate, err)
	}
	if now.After(leaf.NotAfter) {
		return Identity{}, refuseExpired("the %s ran out at %s", clientCertificate, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return Identity{}, refuseNot(clientCertificate, err)
	}
	key := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return s.credential(ctx, clientCertificate, id, tlsKeyColumn, key[:])
}

// issuedBy finds the authority that signed a certificate among those that are accepted.
func (s *Service) issuedBy(leaf *x509.Certificate, now time.Time) (*x509.CertPool, error) {
	var errs []error
	for _, authority := range s.authorities.Load().clients(now) {
		err := leaf.CheckSignatureFrom(authority)
		if err == nil {
			roots := x509.NewCertPool()
			roots.AddCert(authority)
			return roots, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// clientCredential insists on the form that signClient gives, and returns the credential's id.
func clientCredential(leaf *x509.Certificate) (string, error) {
	switch {
	case leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage&x509.KeyUsageCertSign != 0:
		return "", fmt.Errorf("it is an authority's certificate")
	case !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(leaf.UnknownExtKeyUsage) > 0:
		return "", fmt.Errorf("it is for another use than client authentication")
	case len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses) > 0:
		return "", fmt.Errorf("it has other names than one credential")
	}
	id, ok := strings.CutPrefix(leaf.URIs[0].Opaque, credentialPrefix)
	if !ok || leaf.URIs[0].Scheme != credentialScheme {
		return "", fmt.Errorf("its name is no credential")
	}
	return id, nil
}

// printable is s with what is not a printable character replaced, cut to at most limit bytes.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if !isPrintable(r) {
			r = '_'
		}
		if b.Len()+len(string(r)) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
