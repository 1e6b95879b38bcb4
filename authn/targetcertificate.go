package authn

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/netip"
	"time"
	"unicode"

	"golang.org/x/crypto/ssh"

	"sallyport/authn/keyring"
	"sallyport/internal/refusal"
)

// TargetLogin describes one login of the gateway on a target.
type TargetLogin struct {
	Principal string // on the target; no comma, blank or control character
	KeyID     string // goes to the target's own log: who, session, grant
	Source    string // source-address option (CIDR), or empty
	Expires   time.Time
	// What the certificate permits, so that the target enforces it a second time; a terminal unless NoTerminal.
	PortForwarding  bool
	AgentForwarding bool
	NoTerminal      bool
}

const (
	targetCertificateLife = 2 * time.Minute // sshd looks at it once, at the login
	maxPrincipal          = 255
	maxKeyID              = 256
)

// TargetAuthority is the target CA's public key, for targets' TrustedUserCAKeys.
func (s *Service) TargetAuthority() ssh.PublicKey { return s.authorities.Load().targetCA.PublicKey() }

// TargetAuthorities are TargetAuthority and the one that it will be, if a rotation has been prepared.
func (s *Service) TargetAuthorities() []ssh.PublicKey {
	return s.authorities.Load().published(keyring.TargetCA)
}

// TargetCertificate makes a fresh key with a certificate of the target authority; it lives two minutes at the most and
// never leaves the process. The serial is also in the target's log. A principal that sshd could read as several, or as
// anybody, is refused as Invalid (OpenSSH CVE-2026-35414).
func (s *Service) TargetCertificate(ctx context.Context, login TargetLogin) (signer ssh.Signer, serial uint64, err error) {
	if !isPrincipal(login.Principal) {
		return nil, 0, refusal.New(refusal.Invalid, "%q can't be the principal of a login", printable(login.Principal, 64)).
			WithDetail("a principal has 1 to %d printable characters, and no blank or comma", maxPrincipal)
	}
	options := map[string]string{}
	if login.Source != "" {
		if _, err := netip.ParsePrefix(login.Source); err != nil {
			if _, err := netip.ParseAddr(login.Source); err != nil {
				return nil, 0, refusal.New(refusal.Invalid, "the source of a login is not an address or network").Because(err)
			}
		}
		options["source-address"] = login.Source
	}
	now := s.now()
	before := now.Add(targetCertificateLife)
	if login.Expires.Before(before) {
		before = login.Expires
	}
	before = before.Truncate(time.Second)
	if !now.Before(before) {
		return nil, 0, refusal.New(refusal.Invalid, "the login on the target would end before it begins")
	}
	extensions := map[string]string{}
	if !login.NoTerminal {
		extensions["permit-pty"] = ""
	}
	if login.PortForwarding {
		extensions["permit-port-forwarding"] = ""
	}
	if login.AgentForwarding {
		extensions["permit-agent-forwarding"] = ""
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, 0, fmt.Errorf("key for the target: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, 0, fmt.Errorf("key for the target: %w", err)
	}
	c := &ssh.Certificate{
		Key:             key,
		Serial:          newSerial(),
		CertType:        ssh.UserCert,
		KeyId:           printable(login.KeyID, maxKeyID),
		ValidPrincipals: []string{login.Principal},
		ValidAfter:      uint64(now.Add(-clockSkew).Unix()),
		ValidBefore:     uint64(before.Unix()),
		Permissions:     ssh.Permissions{CriticalOptions: options, Extensions: extensions},
	}
	if err := c.SignCert(rand.Reader, s.authorities.Load().targetCA); err != nil {
		return nil, 0, fmt.Errorf("sign the certificate for the target: %w", err)
	}
	plain, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, 0, fmt.Errorf("key for the target: %w", err)
	}
	if signer, err = ssh.NewCertSigner(c, plain); err != nil {
		return nil, 0, fmt.Errorf("certificate for the target: %w", err)
	}
	return signer, c.Serial, nil
}

func isPrincipal(s string) bool {
	if s == "" || len(s) > maxPrincipal {
		return false
	}
	for _, r := range s {
		if r == ',' || r == ' ' || !isPrintable(r) {
			return false
		}
	}
	return true
}

// isPrintable excludes control and format characters and every blank but the plain one, and bytes that are not UTF-8.
func isPrintable(r rune) bool { return r != unicode.ReplacementChar && unicode.IsPrint(r) }
