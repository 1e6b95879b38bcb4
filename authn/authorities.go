package authn

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/authn/keyring"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// authorities are the gateway's keys as they are used. They do not change; rotating one replaces them all at once.
type authorities struct {
	*keyring.Keyring
	hostKey, hostCA, loginCA, targetCA ssh.Signer
}

func newAuthorities(keys *keyring.Keyring) (*authorities, error) {
	a := &authorities{Keyring: keys}
	var err error
	for _, k := range []struct {
		to  *ssh.Signer
		key ed25519.PrivateKey
	}{{&a.hostKey, keys.SSHHost}, {&a.hostCA, keys.HostCA}, {&a.loginCA, keys.LoginCA}, {&a.targetCA, keys.TargetCA}} {
		if *k.to, err = ssh.NewSignerFromKey(k.key); err != nil {
			return nil, fmt.Errorf("SSH key: %w", err)
		}
	}
	return a, nil
}

// clients are the authorities whose client certificates are accepted at a time.
func (a *authorities) clients(now time.Time) []*x509.Certificate {
	all := []*x509.Certificate{a.ClientCACertificate}
	for _, old := range a.Old[keyring.ClientCA] {
		if now.Before(old.Until) {
			all = append(all, old.Certificate)
		}
	}
	return all
}

// isLogin tells whether a key signs users' certificates that are accepted at a time. Keys are compared whole, as bytes.
func (a *authorities) isLogin(key ssh.PublicKey, now time.Time) bool {
	given := string(key.Marshal())
	if given == string(a.loginCA.PublicKey().Marshal()) {
		return true
	}
	for _, old := range a.Old[keyring.LoginCA] {
		known, err := ssh.NewPublicKey(old.Public)
		if err == nil && now.Before(old.Until) && given == string(known.Marshal()) {
			return true
		}
	}
	return false
}

// issuers are the public keys of the gateway's issuer at a time, the current one first.
func (a *authorities) issuers(now time.Time) []crypto.PublicKey {
	all := []crypto.PublicKey{a.Issuer.Public()}
	for _, old := range a.Old[keyring.Issuer] {
		if now.Before(old.Until) {
			all = append(all, old.Public)
		}
	}
	return all
}

// published are a published authority's key, and the one that it will have.
func (a *authorities) published(name keyring.Name) []ssh.PublicKey {
	keys := []crypto.PublicKey{a.Current(name).Public()}
	if next := a.Next[name]; next != nil {
		keys = append(keys, next.Public())
	}
	var all []ssh.PublicKey
	for _, key := range keys {
		if k, err := ssh.NewPublicKey(key); err == nil { // Ed25519 keys have a form
			all = append(all, k)
		}
	}
	return all
}

// Authority is one of the gateway's own, for those who run it.
type Authority struct {
	Name        string // as in Rotate
	Purpose     string
	Fingerprint string // of its public key: SHA256:… as ssh prints it
	Since       time.Time
	// Next is the fingerprint of the key that was prepared; empty: none.
	Next string
	// Published tells that others must learn a new key before it is used, so that it is prepared first.
	Published bool
	Old       []OldAuthority
}

// OldAuthority is an earlier key of an authority. What it signed is accepted until then.
type OldAuthority struct {
	Fingerprint string
	Until       time.Time
}

// authorityNames are the authorities as people name them.
var authorityNames = map[string]struct {
	name    keyring.Name
	purpose string
}{
	"ssh-host":   {keyring.HostCA, "certifies the gateway's SSH host key; users' known_hosts trust it"},
	"login":      {keyring.LoginCA, "signs users' SSH certificates; the gateway trusts it"},
	"tls-client": {keyring.ClientCA, "signs users' TLS certificates; the gateway trusts it"},
	"target":     {keyring.TargetCA, "signs the gateway's own logins; targets trust it"},
	"issuer":     {keyring.Issuer, "signs ID tokens of the gateway's issuer; its clients trust it"},
}

// Authorities lists them by name.
func (s *Service) Authorities() []Authority {
	a := s.authorities.Load()
	var all []Authority
	for _, name := range slices.Sorted(maps.Keys(authorityNames)) {
		n := authorityNames[name]
		one := Authority{Name: name, Purpose: n.purpose, Fingerprint: fingerprint(a.Current(n.name).Public()), Since: a.Since(n.name), Published: n.name.Published()}
		if next := a.Next[n.name]; next != nil {
			one.Next = fingerprint(next.Public())
		}
		for _, old := range a.Old[n.name] {
			if s.now().Before(old.Until) {
				one.Old = append(one.Old, OldAuthority{fingerprint(old.Public), old.Until})
			}
		}
		all = append(all, one)
	}
	return all
}

// fingerprint names a public key as OpenSSH does.
func fingerprint(key crypto.PublicKey) string {
	if k, err := ssh.NewPublicKey(key); err == nil {
		return ssh.FingerprintSHA256(k)
	}
	return "unknown"
}

// Rotation says how to rotate an authority.
type Rotation struct {
	// Activate makes a key that was prepared the one that is used. Only authorities that are published are prepared.
	Activate bool
	// AtOnce leaves out every overlap, for a key that is no longer secret: what the old one signed is refused from now on,
	// and where others must trust the new one they do not yet.
	AtOnce bool
}

// Rotate gives an authority a new key. Where others must learn it first it is only prepared, and published beside the old
// one, until Activate; else it is used at once, and what the old one signed is accepted for as long as it can be good. Each
// step is in the audit log before it is taken. It refuses what makes no sense as it stands with Conflict or Invalid.
func (s *Service) Rotate(ctx context.Context, who Identity, name string, how Rotation) error {
	n, ok := authorityNames[name]
	if !ok {
		return refusal.New(refusal.NotFound, "there is no authority %q", printable(name, 32)).WithHint("see which there are with: sallyport ca list")
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	a := s.authorities.Load()
	prepare := n.name.Published() && !how.Activate && !how.AtOnce
	switch {
	case how.Activate && !n.name.Published():
		return refusal.New(refusal.Invalid, "authority %s is rotated in one step", name).WithHint("sallyport ca rotate %s", name)
	case how.Activate && a.Next[n.name] == nil:
		return refusal.New(refusal.Conflict, "no next key of authority %s was prepared", name).WithHint("sallyport ca rotate %s", name)
	case prepare && a.Next[n.name] != nil:
		return refusal.New(refusal.Conflict, "the next key of authority %s is prepared already", name).
			WithHint("when everybody trusts it: sallyport ca rotate %s --activate", name)
	}
	e := event("authority.rotated", who, "")
	e.Fields["authority"], e.Fields["old"] = name, fingerprint(a.Current(n.name).Public())
	until := s.now()
	if prepare {
		e.Kind = "authority.prepared"
	} else {
		if !how.AtOnce {
			until = until.Add(s.overlap(n.name))
		}
		e.Fields["old_until"] = until.UTC().Format(time.RFC3339)
	}
	if err := s.store.Audit(ctx, e); err != nil {
		return err
	}
	keys, err := s.rotateKeys(a.Keyring, n.name, prepare, how.AtOnce, until)
	var changed *authorities
	if err == nil {
		changed, err = newAuthorities(keys)
	}
	if err != nil {
		failed := e
		failed.Outcome, failed.Reason = "failed", err.Error()
		if err := s.store.Audit(ctx, failed); err != nil {
			s.log.Error("a failed rotation could not be audited", "authority", name, "err", err)
		}
		return err
	}
	s.authorities.Store(changed)
	s.hosts.forget()
	s.log.Info("an authority was rotated", "authority", name, "prepared", prepare, "key", fingerprint(changed.Current(n.name).Public()))
	return nil
}

func (s *Service) rotateKeys(keys *keyring.Keyring, name keyring.Name, prepare, atOnce bool, until time.Time) (*keyring.Keyring, error) {
	if prepare {
		return keys.Prepare(name)
	}
	rotated, err := keys.Rotate(name, until)
	if err == nil && atOnce {
		rotated, err = rotated.Refuse(name)
	}
	return rotated, err
}

// overlap is how long what an authority signed can be good.
func (s *Service) overlap(name keyring.Name) time.Duration {
	switch name {
	case keyring.LoginCA, keyring.ClientCA:
		return s.config.Credentials.Certificate.D() + clockSkew
	case keyring.HostCA:
		return hostCertificateLife
	case keyring.TargetCA:
		return targetCertificateLife
	}
	return idTokenLife + time.Hour // and for as long as clients keep a key set
}

// auditHostCertificate records that one was issued.
func (s *Service) auditHostCertificate(c *ssh.Certificate) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return s.store.Audit(ctx, store.AuditEvent{Kind: "credential.issued", Actor: system.Actor, Fields: map[string]string{
		"host_certificate": fmt.Sprint(c.Serial), "names": printable(fmt.Sprint(c.ValidPrincipals), 1024),
		"expires": time.Unix(int64(c.ValidBefore), 0).UTC().Format(time.RFC3339),
	}})
}

// keyIDOf is an issuer key's own hash, so that a new key never goes by an old one's name.
func keyIDOf(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // a P-256 key has a form
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
