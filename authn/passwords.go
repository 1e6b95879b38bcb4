package authn

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// password is the Method of an identity proven by a password of the gateway's.
const password = "password"

const (
	// passwordIterations is SCRAM's count. More would protect passwords that people think up; these are 130 random bits.
	passwordIterations = 4096
	passwordIDLength   = 10 // 50 bits: no secret, but nothing to be guessed either
)

// Password is one that IssuePassword made: good for one account on one target, for its identity alone.
type Password struct {
	ID      string // stands behind the plus sign in ACCOUNT+ID
	Target  string
	Account string
	Issued  time.Time
	Expires time.Time
}

// User is the name to log in with.
func (p Password) User() string { return p.Account + "+" + p.ID }

// IssuePassword makes a password for an account on a target, for programs that can't hold a certificate. It ends with the
// identity's sign-in or after lasts, whichever is first (0: with the sign-in), and opens nothing that the identity has no
// grant for. The secret is returned once and not kept. Whether there is such an account is for the caller to know. The
// audit event "credential.issued" is in the same transaction.
func (s *Service) IssuePassword(ctx context.Context, who Identity, target, account string, lasts time.Duration) (p Password, secret string, err error) {
	if lasts < 0 {
		return p, "", refusal.New(refusal.Invalid, "a password for %s makes no sense", lasts)
	}
	if who.Emergency != "" {
		return p, "", s.auditEmergency(ctx, who)
	}
	secret = strings.ToLower(rand.Text()) // 26 characters, 130 bits
	salt := rand.Text()[:16]
	keys, err := scramKeys(secret, salt)
	if err != nil {
		return p, "", err
	}
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		st, err := s.latest(ctx, tx, who)
		if err != nil {
			return err
		}
		now := s.now()
		expires := st.Expires
		if !who.Expires.IsZero() && who.Expires.Before(expires) { // who may stand for an earlier sign-in
			expires = who.Expires
		}
		if end := now.Add(lasts); lasts > 0 && end.Before(expires) {
			expires = end
		}
		var live int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM passwords WHERE revoked = 0 AND expires > ? AND sign_in IN (SELECT id FROM sign_ins WHERE identity = ?)`, stamp(now), st.id).Scan(&live); err != nil {
			return fmt.Errorf("count the passwords of %s: %w", who.Key(), err)
		}
		if live >= maxCredentials {
			return refusal.New(refusal.TooMany, "%s has %d passwords that are still good", st.Label(), live).
				WithHint("one is enough for any number of connections; end some: sallyport credentials revoke ID")
		}
		p = Password{ID: strings.ToLower(rand.Text()[:passwordIDLength]), Target: target, Account: account, Issued: now.UTC(), Expires: expires.UTC()}
		if _, err := tx.ExecContext(ctx, `INSERT INTO passwords (id, sign_in, target, account, salt, iterations, stored_key, server_key, issued, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			p.ID, st.signIn, target, account, []byte(salt), passwordIterations, keys.StoredKey, keys.ServerKey, stamp(now), stamp(expires)); err != nil {
			return fmt.Errorf("keep the password: %w", err)
		}
		e := event("credential.issued", st.Identity, "")
		e.Target, e.Account = target, account
		e.Fields["credential"], e.Fields["sign_in"], e.Fields["kind"] = p.ID, st.signIn, password
		e.Fields["expires"] = expires.Format(time.RFC3339)
		return tx.Audit(e)
	})
	if err != nil {
		return Password{}, "", err
	}
	return p, secret, nil
}

// scramKeys is what is kept of a password.
func scramKeys(secret, salt string) (scram.StoredCredentials, error) {
	client, err := scram.SHA256.NewClient("", secret, "")
	if err != nil {
		return scram.StoredCredentials{}, fmt.Errorf("derive keys from a password: %w", err)
	}
	keys, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: salt, Iters: passwordIterations})
	if err != nil {
		return scram.StoredCredentials{}, fmt.Errorf("derive keys from a password: %w", err)
	}
	return keys, nil
}

// Passwords are the identity's that are still good, oldest first.
func (s *Service) Passwords(ctx context.Context, who Identity) ([]Password, error) {
	rows, err := s.store.Read().QueryContext(ctx, `SELECT p.id, p.target, p.account, p.issued, p.expires FROM passwords p
		JOIN sign_ins s ON s.id = p.sign_in JOIN identities i ON i.id = s.identity
		WHERE i.id = ? AND p.revoked = 0 AND p.expires > ? AND s.ended = 0 AND s.at > i.signed_out ORDER BY p.issued`, identityID(who.Issuer, who.Subject), stamp(s.now()))
	if err != nil {
		return nil, fmt.Errorf("list the passwords of %s: %w", who.Key(), err)
	}
	defer rows.Close()
	list := []Password{}
	for rows.Next() {
		var p Password
		var issued, expires int64
		if err := rows.Scan(&p.ID, &p.Target, &p.Account, &issued, &expires); err != nil {
			return nil, fmt.Errorf("list the passwords of %s: %w", who.Key(), err)
		}
		p.Issued, p.Expires = unstamp(issued), unstamp(expires)
		list = append(list, p)
	}
	return list, rows.Err()
}

// RevokeCredential ends one of the identity's own passwords, certificates or SSH keys. It refuses with NotFound where there is none
// of that id that is still good.
func (s *Service) RevokeCredential(ctx context.Context, who Identity, id string) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		now, identity := stamp(s.now()), identityID(who.Issuer, who.Subject)
		var ended int64
		for _, table := range []string{"credentials", "passwords", "ssh_keys"} {
			done, err := tx.ExecContext(ctx, `UPDATE `+table+` SET revoked = ? WHERE id = ? AND revoked = 0 AND expires > ? AND sign_in IN (SELECT id FROM sign_ins WHERE identity = ?)`, now, id, now, identity)
			if err != nil {
				return fmt.Errorf("revoke credential: %w", err)
			}
			n, err := done.RowsAffected()
			if err != nil {
				return fmt.Errorf("revoke credential: %w", err)
			}
			ended += n
		}
		if ended == 0 {
			return refusal.New(refusal.NotFound, "you have no credential %.32q that is still good", id).WithHint("see those you have: sallyport credentials list")
		}
		e := event("credential.revoked", who, "")
		e.Reason, e.Fields["credential"], e.Fields["identity"] = "revoked by its owner", id, who.Key()
		return tx.Audit(e)
	})
}

// passwordRow is a password as kept, and who has it.
type passwordRow struct {
	standing
	Password
	keys    scram.StoredCredentials
	revoked bool
}

// findPassword looks a password up by its id; nil where there is none.
func (s *Service) findPassword(ctx context.Context, id string) (*passwordRow, error) {
	p := &passwordRow{Password: Password{ID: id}}
	var salt []byte
	var issued, expires int64
	err := p.scan(s, s.store.Read().QueryRowContext(ctx, `SELECT `+standingColumns+`, p.target, p.account, p.salt, p.iterations, p.stored_key, p.server_key, p.issued, p.expires, p.revoked <> 0
		FROM passwords p JOIN sign_ins s ON s.id = p.sign_in JOIN identities i ON i.id = s.identity WHERE p.id = ?`, id),
		&p.Target, &p.Account, &salt, &p.keys.Iters, &p.keys.StoredKey, &p.keys.ServerKey, &issued, &expires, &p.revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up a password: %w", err)
	}
	p.keys.Salt, p.Issued, p.Password.Expires = string(salt), unstamp(issued), unstamp(expires)
	return p, nil
}
