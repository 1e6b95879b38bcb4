package console

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sallyport/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

const (
	// idleLife is how long a browser stays signed in while nobody does anything. What a page does by itself does not count.
	idleLife = time.Hour
	// longestLife is how long a browser stays signed in at most; the sign-in itself may end before.
	longestLife = 12 * time.Hour
	// mostKept bounds the browsers that are signed in; each has a person's sign-in at the provider behind it.
	mostKept = 100_000
)

// Sessions are the browsers that are signed in to the console. Safe for concurrent use.
type Sessions struct {
	store *store.Store
	now   func() time.Time
}

// OpenSessions prepares the table.
func OpenSessions(ctx context.Context, s *store.Store) (*Sessions, error) {
	return openSessions(ctx, s, time.Now)
}

// openSessions is OpenSessions with a clock, so that tests can let a session run out.
func openSessions(ctx context.Context, s *store.Store, now func() time.Time) (*Sessions, error) {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	if err := s.Migrate(ctx, "console", migrations); err != nil {
		return nil, err
	}
	return &Sessions{store: s, now: now}, nil
}

// errNoSession says that a cookie stands for no session, or for one that is over.
var errNoSession = errors.New("there is no such session of the console")

// secretSize is that of what a browser holds, in bytes.
const secretSize = 32

// keys are made from a browser's secret, each for one purpose.
type keys struct{ id, seal, csrf []byte }

func keysOf(cookie string) (keys, error) {
	secret, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || len(secret) != secretSize {
		return keys{}, errNoSession
	}
	var k keys
	for purpose, to := range map[string]*[]byte{"id": &k.id, "seal": &k.seal, "csrf": &k.csrf} {
		if *to, err = hkdf.Key(sha256.New, secret, nil, "sallyport console "+purpose, 32); err != nil {
			return keys{}, fmt.Errorf("derive the session's keys: %w", err)
		}
	}
	return k, nil
}

func (k keys) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.seal)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// token is what every form of the session carries.
func (k keys) token() string { return base64.RawURLEncoding.EncodeToString(k.csrf) }

// isToken compares in constant time.
func (k keys) isToken(sent string) bool {
	return subtle.ConstantTimeCompare([]byte(sent), []byte(k.token())) == 1
}

// begin keeps a session that stands for an access token, until expires at the latest, and returns the cookie's value.
func (s *Sessions) begin(ctx context.Context, accessToken string, expires time.Time) (string, error) {
	secret := make([]byte, secretSize)
	rand.Read(secret)
	cookie := base64.RawURLEncoding.EncodeToString(secret)
	k, err := keysOf(cookie)
	if err != nil {
		return "", err
	}
	aead, err := k.aead()
	if err != nil {
		return "", fmt.Errorf("seal the session's token: %w", err)
	}
	sealed := aead.Seal(nil, nil, []byte(accessToken), k.id) //nolint:gosec // it makes its own random nonce
	now := s.now()
	if end := now.Add(longestLife); expires.IsZero() || expires.After(end) {
		expires = end
	}
	return cookie, s.store.Do(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM console_sessions WHERE expires <= ? OR seen <= ?`, now.UnixMilli(), now.Add(-idleLife).UnixMilli()); err != nil {
			return fmt.Errorf("forget old sessions: %w", err)
		}
		var kept int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM console_sessions`).Scan(&kept); err != nil {
			return fmt.Errorf("count the sessions: %w", err)
		}
		if kept >= mostKept {
			return fmt.Errorf("%d browsers are signed in to the console already", kept)
		}
		if _, err := tx.Exec(`INSERT INTO console_sessions (id, token, began, seen, expires) VALUES (?, ?, ?, ?, ?)`,
			k.id, sealed, now.UnixMilli(), now.UnixMilli(), expires.UnixMilli()); err != nil {
			return fmt.Errorf("keep the session: %w", err)
		}
		return nil
	})
}

// find returns the access token that a cookie stands for, and its keys. active says that a person did something, which
// keeps the session from ending for want of that.
func (s *Sessions) find(ctx context.Context, cookie string, active bool) (string, keys, error) {
	k, err := keysOf(cookie)
	if err != nil {
		return "", keys{}, err
	}
	now := s.now()
	var sealed []byte
	var seen int64
	err = s.store.Read().QueryRowContext(ctx, `SELECT token, seen FROM console_sessions WHERE id = ? AND expires > ? AND seen > ?`,
		k.id, now.UnixMilli(), now.Add(-idleLife).UnixMilli()).Scan(&sealed, &seen)
	if errors.Is(err, sql.ErrNoRows) {
		return "", keys{}, errNoSession
	}
	if err != nil {
		return "", keys{}, fmt.Errorf("look up the console's session: %w", err)
	}
	aead, err := k.aead()
	if err != nil {
		return "", keys{}, fmt.Errorf("open the session's token: %w", err)
	}
	accessToken, err := aead.Open(nil, nil, sealed, k.id)
	if err != nil {
		return "", keys{}, errNoSession // the row was not made for this cookie
	}
	if active && now.Sub(time.UnixMilli(seen)) > time.Minute {
		err := s.store.Do(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE console_sessions SET seen = ? WHERE id = ?`, now.UnixMilli(), k.id)
			return err
		})
		if err != nil {
			return "", keys{}, fmt.Errorf("keep the console's session alive: %w", err)
		}
	}
	return string(accessToken), k, nil
}

// end forgets a session.
func (s *Sessions) end(ctx context.Context, k keys) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM console_sessions WHERE id = ?`, k.id)
		return err
	})
}
