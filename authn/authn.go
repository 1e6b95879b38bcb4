// Package authn is who is it: it turns what a connection presents (client certificate, user certificate, access token)
// into an Identity, or refuses.
//
// CONTRACT (to be built here): see the doc comments.
package authn

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/store"
)

var errTODO = errors.New("authn: not built")

// Kind is what sort of identity it is.
type Kind string

// The kinds.
const (
	Human    Kind = "human"
	Workload Kind = "workload"
)

// Identity is a proven person or workload. Issuer and Subject together are its key; everything else is a label or what
// policies look at.
type Identity struct {
	Issuer  string   `json:"issuer"` // the company's provider, not the gateway
	Subject string   `json:"subject"`
	Kind    Kind     `json:"kind"`
	Name    string   `json:"name"`
	Email   string   `json:"email,omitempty"`
	Groups  []string `json:"groups"`
	// SignedIn is when the person last signed in at the provider; Expires when this proof ends.
	SignedIn time.Time `json:"signed_in"`
	Expires  time.Time `json:"expires"`
	// Method is how this connection proved it ("client certificate", "user certificate", "access token"), Credential the
	// id of what it presented, for the audit log and for revocation.
	Method     string `json:"method,omitempty"`
	Credential string `json:"credential,omitempty"`
}

// Key is issuer and subject as one string; equal keys are the same identity.
func (i Identity) Key() string { return i.Issuer + " " + i.Subject }

// Label is the best name for people: name, else e-mail, else subject.
func (i Identity) Label() string {
	for _, s := range []string{i.Name, i.Email} {
		if s != "" {
			return s
		}
	}
	return i.Subject
}

// Service proves identities and issues credentials. Safe for concurrent use.
type Service struct{}

// Open loads or makes the keys in config.State/keys (mode 0600) and prepares sign-in at config.Provider, which need not
// be up yet: it is asked when somebody signs in, and asked again after it failed.
func Open(ctx context.Context, config *configs.Config, s *store.Store, log *slog.Logger) (*Service, error) {
	return nil, errTODO
}

// Handler serves the gateway's own issuer (discovery, authorization code + PKCE, device authorization, token, keys,
// revocation) and the sign-in pages, below the gateway's URL: /.well-known/openid-configuration and /oauth/….
func (s *Service) Handler() http.Handler { return nil }

// Bearer is the identity that an access token of the gateway's issuer stands for.
func (s *Service) Bearer(ctx context.Context, token string) (Identity, error) {
	return Identity{}, errTODO
}

// Keys are the client's public keys to certify; either may be missing.
type Keys struct {
	TLS crypto.PublicKey // ECDSA P-256 or Ed25519
	SSH ssh.PublicKey    // ed25519, ECDSA, or RSA of 3072 bits and more
}

// Certificates are what Certify made.
type Certificates struct {
	ID      string    // of the credential, as in the audit log
	TLS     []byte    // DER
	SSH     string    // authorized_keys form
	Expires time.Time // of both
}

// Certify issues a TLS client certificate and an SSH user certificate, which end with the identity's sign-in or after
// credentials.certificate, whichever is first. The certificates name only the credential's id; the identity stays in
// the store. The audit event "credential.issued" is in the same transaction.
func (s *Service) Certify(ctx context.Context, who Identity, keys Keys) (Certificates, error) {
	return Certificates{}, errTODO
}

// Revoke ends all credentials of the identity ("sallyport logout").
func (s *Service) Revoke(ctx context.Context, who Identity) error { return errTODO }

// ClientCertificate is the identity that a TLS client certificate stands for. chain is what the client sent, leaf first,
// unverified: it is verified here, in full (authority, time, usage, not itself an authority, not revoked).
func (s *Service) ClientCertificate(ctx context.Context, chain []*x509.Certificate) (Identity, error) {
	return Identity{}, errTODO
}

// UserCertificate is the identity that an SSH user certificate stands for, verified in full (type, authority by whole
// key, time, exactly our principal, no critical option we don't know, not revoked).
func (s *Service) UserCertificate(ctx context.Context, certificate *ssh.Certificate) (Identity, error) {
	return Identity{}, errTODO
}

// Standing returns nil while the identity is good: not disabled, not signed out. A refusal says it is not.
func (s *Service) Standing(ctx context.Context, who Identity) error { return errTODO }

// HostKey is the gateway's plain SSH host key.
func (s *Service) HostKey() ssh.Signer { return nil }

// HostCertificate is HostKey certified by the host authority for those names (as typed by the user, without a port).
// Certificates are cached and renewed.
func (s *Service) HostCertificate(names ...string) (ssh.Signer, error) { return nil, errTODO }

// HostAuthority is the host CA's public key, for @cert-authority lines.
func (s *Service) HostAuthority() ssh.PublicKey { return nil }

// TargetLogin describes one login of the gateway on a target.
type TargetLogin struct {
	Principal string // on the target; no comma, blank or control character
	KeyID     string // goes to the target's own log: who, session, grant
	Source    string // source-address option (CIDR), or empty
	Expires   time.Time
	// PortForwarding and AgentForwarding go into the certificate; a pty is always permitted.
	PortForwarding  bool
	AgentForwarding bool
}

// TargetCertificate makes a fresh key with a certificate of the target authority; it lives two minutes at the most and
// never leaves the process. The serial is also in the target's log.
func (s *Service) TargetCertificate(ctx context.Context, login TargetLogin) (signer ssh.Signer, serial uint64, err error) {
	return nil, 0, errTODO
}

// TargetAuthority is the target CA's public key, for targets' TrustedUserCAKeys.
func (s *Service) TargetAuthority() ssh.PublicKey { return nil }

// Secret resolves a reference (env:, file:, command:), without the trailing newline.
func Secret(ctx context.Context, ref configs.SecretRef) (string, error) { return "", errTODO }

// Unauthenticated counts something that a stranger did wrong ("postgres: no TLS", "ssh: garbage"); the counts become one
// audit event "unauthenticated.refused" a minute, and at Close. kind must come from a fixed list in the caller.
func (s *Service) Unauthenticated(kind string, from net.Addr) {}

// Close stops background work and writes the last counts.
func (s *Service) Close(ctx context.Context) error { return nil }
