package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

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
	Expires time.Time // of both, in whole seconds
}

// maxCredentials is how many of an identity's credentials may be good at once: more is a loop in somebody's script.
const maxCredentials = 256

// clockSkew is how far in the past certificates begin, for peers whose clock is a little behind.
const clockSkew = time.Minute

// Certify issues a TLS client certificate and an SSH user certificate, which end with the identity's sign-in or after
// credentials.certificate, whichever is first. The certificates name only the credential's id; the identity stays in
// the store. The audit event "credential.issued" is in the same transaction. It refuses keys that are too weak with
// Invalid, and identities whose sign-in is over.
func (s *Service) Certify(ctx context.Context, who Identity, keys Keys) (Certificates, error) {
	tlsKey, err := fingerprintTLS(keys.TLS)
	if err != nil {
		return Certificates{}, err
	}
	sshKey, err := fingerprintSSH(keys.SSH)
	if err != nil {
		return Certificates{}, err
	}
	if tlsKey == nil && sshKey == nil {
		return Certificates{}, refusal.New(refusal.Invalid, "no key to certify")
	}
	var issued Certificates
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		st, err := s.latest(ctx, tx, who)
		if err != nil {
			return err
		}
		now := s.now()
		expires := now.Add(s.config.Credentials.Certificate.D())
		for _, end := range []time.Time{st.Expires, who.Expires} { // who may stand for an earlier sign-in
			if !end.IsZero() && end.Before(expires) {
				expires = end
			}
		}
		expires = expires.UTC().Truncate(time.Second)
		if !now.Before(expires) {
			return refuseExpired("the sign-in of %s ran out at %s", st.Label(), expires.Format(time.RFC3339))
		}
		var live int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM credentials WHERE revoked = 0 AND expires > ? AND sign_in IN (SELECT id FROM sign_ins WHERE identity = ?)`, stamp(now), st.id).Scan(&live); err != nil {
			return fmt.Errorf("count the credentials of %s: %w", who.Key(), err)
		}
		if live >= maxCredentials {
			return refusal.New(refusal.TooMany, "%s has %d credentials that are still good", st.Label(), live).WithHint("end them: sallyport logout")
		}
		issued = Certificates{ID: newID("c-"), Expires: expires}
		var tlsSerial *big.Int
		var sshSerial uint64
		if tlsKey != nil {
			if issued.TLS, tlsSerial, err = s.signClient(issued.ID, st.Label(), keys.TLS, now, expires); err != nil {
				return fmt.Errorf("sign the client certificate: %w", err)
			}
		}
		if sshKey != nil {
			if issued.SSH, sshSerial, err = s.signUser(issued.ID, keys.SSH, now, expires); err != nil {
				return fmt.Errorf("sign the user certificate: %w", err)
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO credentials (id, sign_in, tls_key, ssh_key, issued, expires) VALUES (?, ?, ?, ?, ?, ?)`,
			issued.ID, st.signIn, tlsKey, sshKey, stamp(now), stamp(expires)); err != nil {
			return fmt.Errorf("record the credential: %w", err)
		}
		e := event("credential.issued", st.Identity, "")
		e.Fields["credential"] = issued.ID
		e.Fields["sign_in"] = st.signIn
		e.Fields["expires"] = expires.Format(time.RFC3339)
		if tlsKey != nil {
			e.Fields["tls_serial"] = tlsSerial.Text(16)
			e.Fields["tls_key"] = fmt.Sprintf("sha256:%x", tlsKey)
		}
		if sshKey != nil {
			e.Fields["ssh_serial"] = strconv.FormatUint(sshSerial, 10)
			e.Fields["ssh_key"] = ssh.FingerprintSHA256(keys.SSH)
		}
		return tx.Audit(e)
	})
	if err != nil {
		return Certificates{}, err
	}
	return issued, nil
}

// fingerprintTLS checks that a key is one that we certify and hashes it; nil for none.
func fingerprintTLS(key crypto.PublicKey) ([]byte, error) {
	switch k := key.(type) {
	case nil:
		return nil, nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return nil, refusal.New(refusal.Invalid, "the TLS key is not an Ed25519 key")
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, refusal.New(refusal.Invalid, "the TLS key is on another curve than P-256")
		}
	default:
		return nil, refusal.New(refusal.Invalid, "the TLS key is neither ECDSA P-256 nor Ed25519")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil { // not on the curve
		return nil, refusal.New(refusal.Invalid, "the TLS key is damaged").Because(err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

// fingerprintSSH is fingerprintTLS for SSH keys.
func fingerprintSSH(key ssh.PublicKey) ([]byte, error) {
	if key == nil {
		return nil, nil
	}
	switch key.Type() { // the type first: a certificate is a key too, and must not be certified
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	case ssh.KeyAlgoRSA:
		k, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return nil, refusal.New(refusal.Invalid, "the SSH key is damaged")
		}
		if r, ok := k.CryptoPublicKey().(*rsa.PublicKey); !ok || r.N.BitLen() < 3072 || r.N.BitLen() > 8192 {
			return nil, refusal.New(refusal.Invalid, "the SSH key is RSA of less than 3072 or more than 8192 bits").WithHint("make a better one: ssh-keygen -t ed25519")
		}
	default:
		return nil, refusal.New(refusal.Invalid, "the SSH key is not one of ed25519, ECDSA and RSA").WithHint("make one: ssh-keygen -t ed25519")
	}
	sum := sha256.Sum256(key.Marshal())
	return sum[:], nil
}

// column names of a credential's two keys.
const (
	tlsKeyColumn = "tls_key"
	sshKeyColumn = "ssh_key"
)

// credential looks up who a verified certificate stands for. Beside the certificate's own signature it insists that this
// credential was issued for this very key, and that neither it nor its sign-in has ended. what is for the user.
func (s *Service) credential(ctx context.Context, what, id, keyColumn string, key []byte) (Identity, error) {
	var st standing
	var certified []byte
	var expires int64
	var revoked bool
	err := st.scan(s, s.store.Read().QueryRowContext(ctx, `SELECT `+standingColumns+`, c.`+keyColumn+`, c.expires, c.revoked <> 0
		FROM credentials c JOIN sign_ins s ON s.id = c.sign_in JOIN identities i ON i.id = s.identity WHERE c.id = ?`, id), &certified, &expires, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return Identity{}, refuseNot(what, fmt.Errorf("credential %s is not known", id))
	}
	if err != nil {
		return Identity{}, fmt.Errorf("look up credential %s: %w", id, err)
	}
	if subtle.ConstantTimeCompare(certified, key) != 1 {
		return Identity{}, refuseNot(what, fmt.Errorf("credential %s was not issued for that key", id))
	}
	if st.closed {
		return Identity{}, refuseDisabled(st.Identity)
	}
	if revoked {
		return Identity{}, refuseNot(what, fmt.Errorf("credential %s is revoked", id)).WithDetail("it was revoked, for example by sallyport logout")
	}
	if err := st.good(s.now()); err != nil {
		return Identity{}, err
	}
	if end := unstamp(expires); !s.now().Before(end) {
		return Identity{}, refuseExpired("the %s ran out at %s", what, end.Format(time.RFC3339))
	} else if end.Before(st.Expires) {
		st.Expires = end
	}
	st.Method, st.Credential = what, id
	return st.Identity, nil
}
