package authn

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/authn/keyring"
	"sallyport/internal/refusal"
)

// Host certificates are good for a week and renewed after half of it, so that a client never meets one about to end.
const (
	hostCertificateLife  = 7 * 24 * time.Hour
	hostCertificateSkew  = time.Hour // for clients whose clock is behind
	maxHostCertificates  = 1024      // cached
	maxHostNames         = 64        // of one certificate
	maxHostNameLength    = 253       // RFC 1035
	hostCertificateKeyID = "sallyport host"
)

// hostCertificates caches them by their names.
type hostCertificates struct {
	mu    sync.Mutex
	byKey map[string]hostCertificateEntry
}

type hostCertificateEntry struct {
	signer ssh.Signer
	renew  time.Time
}

// forget has all made anew.
func (h *hostCertificates) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.byKey = nil
}

// HostKey is the gateway's plain SSH host key.
func (s *Service) HostKey() ssh.Signer { return s.authorities.Load().hostKey }

// HostAuthority is the host CA's public key, for @cert-authority lines.
func (s *Service) HostAuthority() ssh.PublicKey { return s.authorities.Load().hostCA.PublicKey() }

// HostAuthorities are HostAuthority and the one that it will be, if a rotation has been prepared.
func (s *Service) HostAuthorities() []ssh.PublicKey {
	return s.authorities.Load().published(keyring.HostCA)
}

// HostCertificate is HostKey certified by the host authority for those names (as typed by the user, without a port).
// It is the same key on purpose: OpenSSH falls back to the key in the certificate where it does not know the authority,
// and would warn of an attack if that were another one than the plain key. Certificates are cached and renewed. A name
// that can't be a host's is refused as Invalid.
func (s *Service) HostCertificate(names ...string) (ssh.Signer, error) {
	if len(names) == 0 || len(names) > maxHostNames {
		return nil, refusal.New(refusal.Invalid, "a host certificate is for one to %d names", maxHostNames)
	}
	var principals []string
	for _, name := range names {
		if !isHostName(name) {
			return nil, refusal.New(refusal.Invalid, "%q is not the name of a host", printable(name, 64))
		}
		principals = append(principals, name, strings.ToLower(name)) // OpenSSH compares the lower-case form, others what was typed
	}
	slices.Sort(principals)
	principals = slices.Compact(principals)
	key := strings.Join(principals, ",")

	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	now := s.now()
	if entry, ok := s.hosts.byKey[key]; ok && now.Before(entry.renew) {
		return entry.signer, nil
	}
	a := s.authorities.Load()
	c := &ssh.Certificate{
		Key:             a.hostKey.PublicKey(),
		Serial:          newSerial(),
		CertType:        ssh.HostCert,
		KeyId:           hostCertificateKeyID,
		ValidPrincipals: principals,
		ValidAfter:      uint64(now.Add(-hostCertificateSkew).Unix()),
		ValidBefore:     uint64(now.Add(hostCertificateLife).Unix()),
	}
	if err := c.SignCert(rand.Reader, a.hostCA); err != nil {
		return nil, fmt.Errorf("sign the host certificate: %w", err)
	}
	if err := s.auditHostCertificate(c); err != nil {
		return nil, fmt.Errorf("record the host certificate: %w", err)
	}
	signer, err := ssh.NewCertSigner(c, a.hostKey)
	if err != nil {
		return nil, fmt.Errorf("host certificate: %w", err)
	}
	if s.hosts.byKey == nil || len(s.hosts.byKey) >= maxHostCertificates {
		s.hosts.byKey = map[string]hostCertificateEntry{} // making them again is cheap; keeping count of use is not
	}
	s.hosts.byKey[key] = hostCertificateEntry{signer: signer, renew: now.Add(hostCertificateLife / 2)}
	return signer, nil
}

// isHostName accepts names and addresses as they are typed, and none of what a certificate or a known_hosts file would
// read as a list or a pattern.
func isHostName(name string) bool {
	if name == "" || len(name) > maxHostNameLength {
		return false
	}
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-', r == '_', r == ':':
		default:
			return false
		}
	}
	return true
}
