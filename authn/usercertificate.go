package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// userCertificate is the Method of an identity proven by an SSH user certificate.
const userCertificate = "user certificate"

// newSerial is a random serial number; it is never 0, which OpenSSH takes for none.
func newSerial() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// signUser signs a user certificate. Its only principal is the credential's id, which is nobody's name on any machine, so
// a host that trusted this authority by mistake would still let nobody in.
func (s *Service) signUser(id string, key ssh.PublicKey, now, expires time.Time) (line string, serial uint64, err error) {
	c := &ssh.Certificate{
		Key:             key,
		Serial:          newSerial(),
		CertType:        ssh.UserCert,
		KeyId:           id,
		ValidPrincipals: []string{id},
		ValidAfter:      uint64(now.Add(-clockSkew).Unix()),
		ValidBefore:     uint64(expires.Unix()),
	}
	if err := c.SignCert(rand.Reader, s.authorities.Load().loginCA); err != nil {
		return "", 0, err
	}
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(c)), "\n"), c.Serial, nil
}

// UserCertificate is the identity that an SSH user certificate stands for, verified in full (type, authority by whole
// key, time, exactly our principal, no critical option, not revoked). That the client holds the key is for the caller to
// have verified, or to verify before it believes the identity.
func (s *Service) UserCertificate(ctx context.Context, certificate *ssh.Certificate) (Identity, error) {
	if certificate == nil {
		return Identity{}, refuseNot(userCertificate, errors.New("none"))
	}
	if err := s.checkUser(certificate); err != nil {
		return Identity{}, refuseNot(userCertificate, err)
	}
	now, from, until := s.now(), time.Unix(int64(certificate.ValidAfter), 0), time.Unix(int64(certificate.ValidBefore), 0)
	if !now.Before(until) {
		return Identity{}, refuseExpired("the %s ran out at %s", userCertificate, until.UTC().Format(time.RFC3339))
	}
	if now.Before(from) {
		return Identity{}, refuseNot(userCertificate, fmt.Errorf("it begins at %s", from.UTC().Format(time.RFC3339))).WithDetail("it is not good yet; is the gateway's clock right?")
	}
	key := sha256.Sum256(certificate.Key.Marshal())
	return s.credential(ctx, userCertificate, certificate.KeyId, sshKeyColumn, key[:])
}

// checkUser checks everything but time and store. The authority comes first, so that nothing a stranger wrote is looked
// at further, and is compared as bytes, so that no type of key can pass for another (a certificate in the place of the
// signature key was the hole in other gateways).
func (s *Service) checkUser(c *ssh.Certificate) error {
	if c.Key == nil || c.SignatureKey == nil || c.Signature == nil {
		return errors.New("it is not whole")
	}
	if _, nested := c.SignatureKey.(*ssh.Certificate); nested {
		return errors.New("it is signed by a certificate")
	}
	if _, nested := c.Key.(*ssh.Certificate); nested {
		return errors.New("its key is a certificate")
	}
	if !s.authorities.Load().isLogin(c.SignatureKey, s.now()) {
		return errors.New("it was not issued by this gateway")
	}
	if c.CertType != ssh.UserCert {
		return errors.New("it is not a user's certificate")
	}
	if len(c.ValidPrincipals) != 1 || c.ValidPrincipals[0] != c.KeyId || !strings.HasPrefix(c.KeyId, "c-") {
		return errors.New("its principal is not one credential")
	}
	const latest = 1 << 40 // far beyond any time we issue, far below what overflows
	if c.ValidAfter >= c.ValidBefore || c.ValidBefore > latest {
		return errors.New("its times are not ones we issue")
	}
	// The library checks signature and critical options, of which we know none. It looks at the time first; ours is
	// checked by the caller, after the signature, so that only a certificate of ours is ever called expired.
	checker := ssh.CertChecker{Clock: func() time.Time { return time.Unix(int64(c.ValidAfter), 0) }}
	return checker.CheckCert(c.KeyId, c)
}
