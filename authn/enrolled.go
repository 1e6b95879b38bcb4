package authn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/authn/passkey"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// What a person may enrol.
const (
	maxEnrolled = 8
	maxKeyName  = 64 // characters
)

// EnrolledKey is a WebAuthn key that a person enrolled, to sign in with in an emergency while their provider can't be asked.
type EnrolledKey struct {
	ID, Name string
	From     string // the address that it was enrolled from
	Enrolled time.Time
	Used     time.Time // zero: never
	// Suspended is since when it is not taken any more, because its counter of signatures has not grown: there may be two of it.
	Suspended time.Time
	Synced    bool // it may be in several devices
}

// TakesKeys tells whether the configuration lets people enrol keys.
func (s *Service) TakesKeys() bool { return s.passkeys != nil }

func refuseNoKeys() *refusal.Refusal {
	return refusal.New(refusal.Unsupported, "no keys are enrolled at this gateway").WithHint("it is set under credentials.enrolled_keys in the gateway's configuration")
}

// EnrolledKeys are the person's, oldest first.
func (s *Service) EnrolledKeys(ctx context.Context, who Identity) ([]EnrolledKey, error) {
	rows, err := s.store.Read().QueryContext(ctx, `SELECT id, name, address, enrolled, used, suspended, synced <> 0 FROM enrolled_keys WHERE identity = ? ORDER BY enrolled, id`, identityID(who.Issuer, who.Subject))
	if err != nil {
		return nil, fmt.Errorf("list the enrolled keys of %s: %w", who.Key(), err)
	}
	defer rows.Close()
	list := []EnrolledKey{}
	for rows.Next() {
		var k EnrolledKey
		var enrolled, used, suspended int64
		if err := rows.Scan(&k.ID, &k.Name, &k.From, &enrolled, &used, &suspended, &k.Synced); err != nil {
			return nil, fmt.Errorf("list the enrolled keys of %s: %w", who.Key(), err)
		}
		k.Enrolled, k.Used, k.Suspended = unstamp(enrolled), unstamp(used), unstamp(suspended)
		list = append(list, k)
	}
	return list, rows.Err()
}

// EnrolKey begins to enrol a key for a person whom the provider has proven lately, and as strongly as the configuration asks
// (credentials.enrolled_keys.sign_in). What is returned is what navigator.credentials.create takes, as JSON; it can be answered once,
// within minutes, by KeyEnrolled with the same credential. It refuses with StepUp who has to sign in anew, which is audited.
func (s *Service) EnrolKey(ctx context.Context, who Identity) (options []byte, err error) {
	if err := s.mayEnrol(ctx, who); err != nil {
		return nil, err
	}
	id := identityID(who.Issuer, who.Subject)
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT credential FROM enrolled_keys WHERE identity = ?`, id)
		if err != nil {
			return fmt.Errorf("the enrolled keys of %s: %w", who.Key(), err)
		}
		have, err := column[[]byte](rows)
		if err != nil {
			return fmt.Errorf("the enrolled keys of %s: %w", who.Key(), err)
		}
		if len(have) >= maxEnrolled {
			return refusal.New(refusal.TooMany, "you have %d keys, which is as many as may be", len(have)).WithHint("remove one first")
		}
		var challenge string
		if options, challenge, err = s.passkeys.Make([]byte(id), or(who.Email, who.Label()), who.Label(), have); err != nil {
			return err
		}
		// One at a time: what was asked before is not answered any more.
		if _, err := tx.ExecContext(ctx, `DELETE FROM key_challenges WHERE identity = ?`, id); err != nil {
			return fmt.Errorf("keep a challenge: %w", err)
		}
		return s.keepChallenge(ctx, tx, challenge, keyChallenge{browser: hashed(who.Credential), identity: id})
	})
	return options, err
}

func or(text, otherwise string) string {
	if text != "" {
		return text
	}
	return otherwise
}

// KeyEnrolled enrols the key that a browser has made in answer to EnrolKey, under a name of its owner's. from is the browser's address.
// The audit event "key.enrolled" is in the same transaction.
func (s *Service) KeyEnrolled(ctx context.Context, who Identity, name string, answer []byte, from string) (EnrolledKey, error) {
	if err := s.mayEnrol(ctx, who); err != nil {
		return EnrolledKey{}, err
	}
	name = strings.TrimSpace(name)
	if name == "" || utf8.RuneCountInString(name) > maxKeyName || strings.ContainsFunc(name, func(r rune) bool { return !isPrintable(r) }) || !utf8.ValidString(name) {
		return EnrolledKey{}, refusal.New(refusal.Invalid, "a key's name is 1 to %d printable characters", maxKeyName).WithHint("call it what you will find it by, such as: blue key on my ring")
	}
	id := identityID(who.Issuer, who.Subject)
	said, err := passkey.ReadNew(answer)
	if err != nil {
		return EnrolledKey{}, refuseKey(err)
	}
	k := EnrolledKey{ID: newID("e-"), Name: name, From: from, Enrolled: s.now().UTC()}
	err = s.commitRefusals(ctx, func(tx *store.Tx) error {
		asked, err := s.takeChallenge(ctx, tx, said.Challenge(), hashed(who.Credential))
		if err != nil {
			return err
		}
		if asked.identity != id {
			return refuseKey(errors.New("it was asked of somebody else"))
		}
		made, err := s.passkeys.Made(said, said.Challenge(), []byte(id))
		if err != nil {
			return refuseKey(err)
		}
		k.Synced = made.Synced
		var have, taken int
		if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM enrolled_keys WHERE identity = ?), (SELECT count(*) FROM enrolled_keys WHERE credential = ?)`, id, made.Credential).Scan(&have, &taken); err != nil {
			return fmt.Errorf("enrol a key of %s: %w", who.Key(), err)
		}
		if taken > 0 { // it would stand for two: WebAuthn, section 7.1, step 26
			return refuseKey(errors.New("a key of that id is enrolled already"))
		}
		if have >= maxEnrolled {
			return refusal.New(refusal.TooMany, "you have %d keys, which is as many as may be", have).WithHint("remove one first")
		}
		synced := 0
		if made.Synced {
			synced = 1
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO enrolled_keys (id, identity, credential, public, counter, synced, name, address, enrolled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID, id, made.Credential, made.Public, int64(made.Counter), synced, name, from, stamp(k.Enrolled)); err != nil {
			return fmt.Errorf("enrol a key of %s: %w", who.Key(), err)
		}
		e := event("key.enrolled", who, from)
		e.Fields["key"], e.Fields["name"] = k.ID, name
		return tx.Audit(e)
	})
	if err != nil {
		return EnrolledKey{}, err
	}
	return k, nil
}

// RemoveKey takes one of the person's keys away, and ends what it was used to sign in. It refuses with NotFound where there is none of
// that id. The audit event "key.removed" is in the same transaction.
func (s *Service) RemoveKey(ctx context.Context, who Identity, id, from string) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		rows, err := tx.QueryContext(ctx, `DELETE FROM enrolled_keys WHERE id = ? AND identity = ? RETURNING name`, id, identityID(who.Issuer, who.Subject))
		if err != nil {
			return fmt.Errorf("remove a key: %w", err)
		}
		names, err := column[string](rows)
		if err != nil {
			return fmt.Errorf("remove a key: %w", err)
		}
		if len(names) == 0 {
			return refusal.New(refusal.NotFound, "you have no key %.40q", id).WithHint("see those you have in the console, under Your keys")
		}
		if err := s.endSignIns(ctx, tx, who, `SELECT id FROM sign_ins WHERE emergency = ? AND ended = 0`, id, event("", who, ""), "its key was removed"); err != nil {
			return err
		}
		e := event("key.removed", who, from)
		e.Fields["key"], e.Fields["name"] = id, names[0]
		return tx.Audit(e)
	})
}

// mayEnrol refuses, and audits, who has not proven themselves as the configuration asks.
func (s *Service) mayEnrol(ctx context.Context, who Identity) error {
	if s.passkeys == nil {
		return refuseNoKeys()
	}
	no := s.weak(who, s.config.Credentials.EnrolledKeys.SignIn)
	if no == nil {
		return nil
	}
	e := event("key.refused", who, "")
	e.Outcome, e.Reason = string(no.Code), no.Message
	if no.Detail != "" {
		e.Reason += ": " + no.Detail
	}
	if err := s.store.Audit(ctx, e); err != nil {
		return err
	}
	return no
}

// weak says what a person's sign-in lacks; nil: nothing.
func (s *Service) weak(who Identity, want configs.SignIn) *refusal.Refusal {
	proved := who.AuthTime
	if proved.IsZero() {
		proved = who.SignedIn
	}
	age := s.now().Sub(proved)
	switch {
	case who.Kind != Human || who.Method == LinkedAccount:
		return refusal.New(refusal.NotPermitted, "keys are enrolled by people, in the console")
	case who.Emergency != "":
		return refuseEmergency()
	case age > want.MaxAge.D() || age < -time.Minute: // a provider's clock may be a little ahead
		return refusal.New(refusal.StepUp, "you must have signed in within the last %s to enrol a key", want.MaxAge).
			WithDetail("you proved yourself at %s", proved.UTC().Format(time.RFC3339)).WithHint("sign in again and repeat it")
	case len(want.ACR) > 0 && !slices.Contains(want.ACR, who.ACR):
		return refusal.New(refusal.StepUp, "a key is enrolled after a sign-in of class %s", strings.Join(want.ACR, " or ")).
			WithDetail("the provider says of yours: %q", printable(who.ACR, 64)).WithHint("sign in again with what your company's provider asks for that")
	case len(want.AMR) > 0 && !slices.ContainsFunc(want.AMR, func(m string) bool { return slices.Contains(who.AMR, m) }):
		return refusal.New(refusal.StepUp, "a key is enrolled after a sign-in with %s", strings.Join(want.AMR, " or ")).
			WithDetail("the provider says of yours: %q", printable(strings.Join(who.AMR, " "), 64)).WithHint("sign in again with a second factor")
	}
	return nil
}

func refuseKey(cause error) *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "the key is not accepted here").WithDetail("it answered something else than it was asked, or too late").
		WithHint("begin again").Because(cause)
}

// keyChallenge is a row of key_challenges.
type keyChallenge struct {
	browser  []byte
	identity string // who enrols; "" for a sign-in, which trip is the way of
	trip
}

func (s *Service) keepChallenge(ctx context.Context, tx *store.Tx, challenge string, c keyChallenge) error {
	if err := roomFor(ctx, tx, "key_challenges"); err != nil {
		return err
	}
	var authRequest any
	if c.authRequest != "" {
		authRequest = c.authRequest
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO key_challenges (challenge, browser, identity, provider, auth_request, device, hold, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		hashed(challenge), c.browser, c.identity, c.provider, authRequest, c.device, c.hold, stamp(s.now().Add(passkey.Patience))); err != nil {
		return fmt.Errorf("keep a challenge: %w", err)
	}
	return nil
}

// takeChallenge uses a challenge up, for the browser that it was given to.
func (s *Service) takeChallenge(ctx context.Context, tx *store.Tx, challenge string, browser []byte) (c keyChallenge, err error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM key_challenges WHERE challenge = ? AND browser = ? AND expires > ? RETURNING identity, provider, coalesce(auth_request, ''), device, hold`,
		hashed(challenge), browser, stamp(s.now()))
	if err != nil {
		return c, fmt.Errorf("look up a challenge: %w", err)
	}
	defer rows.Close()
	if !rows.Next() {
		return c, errors.Join(refuseKey(errors.New("that challenge was not given to this browser, or it was used, or is too old")), rows.Err())
	}
	if err := rows.Scan(&c.identity, &c.provider, &c.authRequest, &c.device, &c.hold); err != nil {
		return c, fmt.Errorf("look up a challenge: %w", err)
	}
	return c, rows.Err()
}
