package authn

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/store"
)

// Key is a plain SSH key that stands for a person for a time, because they signed in while a connection with it waited.
type Key struct {
	ID          string
	Fingerprint string
	Source      string // from where it is good: an IPv4 address or an IPv6 /64
	Issued      time.Time
	Expires     time.Time
}

// bindKey has the key of a wait stand for who, until credentials.ssh_key is over or the sign-in is.
func (s *Service) bindKey(ctx context.Context, tx *store.Tx, h *held, who Identity, signIn string) (Identity, error) {
	sum, err := fingerprintSSH(h.purpose.Key)
	if err != nil {
		return who, err
	}
	now := s.now()
	expires := who.Expires
	if end := now.Add(s.config.Credentials.SSHKey.D()); end.Before(expires) {
		expires = end
	}
	id, fingerprint := newID("k-"), ssh.FingerprintSHA256(h.purpose.Key)
	// One key, one person: what it stood for before is over.
	if _, err := tx.ExecContext(ctx, `UPDATE ssh_keys SET revoked = ? WHERE ssh_key = ? AND source = ? AND revoked = 0`, stamp(now), sum, h.source); err != nil {
		return who, fmt.Errorf("bind the SSH key: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO ssh_keys (id, sign_in, ssh_key, source, fingerprint, issued, expires) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		id, signIn, sum, h.source, fingerprint, stamp(now), stamp(expires)); err != nil {
		return who, fmt.Errorf("bind the SSH key: %w", err)
	}
	e := event("credential.issued", who, visitorOf(ctx).address)
	e.Fields["credential"], e.Fields["sign_in"], e.Fields["kind"] = id, signIn, sshKey
	e.Fields["ssh_key"], e.Fields["source"], e.Fields["expires"] = fingerprint, h.source, expires.Format(time.RFC3339)
	who.Method, who.Credential, who.Expires = sshKey, id, expires
	return who, tx.Audit(e)
}

// ErrUnboundKey is UserKey's answer for a key that stands for nobody from there.
var ErrUnboundKey = errors.New("the key stands for nobody")

// UserKey is the identity that a plain SSH key stands for when it is used from there, or ErrUnboundKey. That the client
// holds the key is for the caller to have verified.
func (s *Service) UserKey(ctx context.Context, key ssh.PublicKey, from net.Addr) (Identity, error) {
	sum := sha256.Sum256(key.Marshal())
	var st standing
	var id string
	var expires int64
	err := st.scan(s, s.store.Read().QueryRowContext(ctx, `SELECT `+standingColumns+`, k.id, k.expires
		FROM ssh_keys k JOIN sign_ins s ON s.id = k.sign_in JOIN identities i ON i.id = s.identity
		WHERE k.ssh_key = ? AND k.source = ? AND k.revoked = 0 AND k.expires > ? ORDER BY k.expires DESC LIMIT 1`, sum[:], sourceOf(from), stamp(s.now())), &id, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return Identity{}, ErrUnboundKey
	}
	if err != nil {
		return Identity{}, fmt.Errorf("look up an SSH key: %w", err)
	}
	if st.closed {
		return Identity{}, refuseDisabled(st.Identity)
	}
	if st.good(s.now()) != nil {
		return Identity{}, ErrUnboundKey // signed out: they may sign in again
	}
	if end := unstamp(expires); end.Before(st.Expires) {
		st.Expires = end
	}
	st.Method, st.Credential = sshKey, id
	return st.Identity, nil
}

// UsableKey tells whether a plain key is one that UserKey and Hold take: a good type and long enough.
func UsableKey(key ssh.PublicKey) bool {
	_, err := fingerprintSSH(key)
	return err == nil
}

// Keys are the plain SSH keys that stand for the identity now, oldest first.
func (s *Service) Keys(ctx context.Context, who Identity) ([]Key, error) {
	rows, err := s.store.Read().QueryContext(ctx, `SELECT k.id, k.fingerprint, k.source, k.issued, k.expires FROM ssh_keys k
		JOIN sign_ins s ON s.id = k.sign_in JOIN identities i ON i.id = s.identity
		WHERE i.id = ? AND k.revoked = 0 AND k.expires > ? AND s.ended = 0 AND s.at > i.signed_out ORDER BY k.issued`, identityID(who.Issuer, who.Subject), stamp(s.now()))
	if err != nil {
		return nil, fmt.Errorf("list the SSH keys of %s: %w", who.Key(), err)
	}
	defer rows.Close()
	list := []Key{}
	for rows.Next() {
		var k Key
		var issued, expires int64
		if err := rows.Scan(&k.ID, &k.Fingerprint, &k.Source, &issued, &expires); err != nil {
			return nil, fmt.Errorf("list the SSH keys of %s: %w", who.Key(), err)
		}
		k.Issued, k.Expires = unstamp(issued), unstamp(expires)
		list = append(list, k)
	}
	return list, rows.Err()
}
