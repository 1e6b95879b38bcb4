package authn

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// idAlphabet is lower-case base 32 without padding: ids are typed, and are principals and URI parts.
var idAlphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID makes an id that nobody can guess (130 bits), though none is a secret.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// identityID is the same for the same issuer and subject. It is the subject of the gateway's own tokens, which must not
// hold a colon as the provider's subject may.
func identityID(issuer, subject string) string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return "u-" + idAlphabet.EncodeToString(sum[:16])
}

// stamp and unstamp are how times stand in the tables.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func unstamp(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// system is the actor of what the gateway does by itself, or its operator by hand.
var system = store.AuditEvent{Actor: "system"}

// event begins an audit event of what somebody did from that address ("" where it is not known).
func event(kind string, who Identity, from string) store.AuditEvent {
	return store.AuditEvent{Kind: kind, Actor: who.Key(), ActorName: who.Label(), Client: from, Fields: map[string]string{}}
}

// SignIn records that the company's provider has just proven who, and returns them with their new sign-in's times. from
// is the address of the browser, for the audit log. It is what every way of signing in ends with; a disabled identity is
// refused, which is audited.
func (s *Service) SignIn(ctx context.Context, who Identity, from string) (Identity, error) {
	var signedIn Identity
	err := s.commitRefusals(ctx, func(tx *store.Tx) (err error) {
		signedIn, _, err = s.signIn(ctx, tx, who, from)
		return err
	})
	return signedIn, err
}

// commitRefusals is store.Do, but commits also where f returns a refusal, of which it has written the event.
func (s *Service) commitRefusals(ctx context.Context, f func(*store.Tx) error) error {
	var refused error
	err := s.store.Do(ctx, func(tx *store.Tx) error {
		err := f(tx)
		if refusal.Of(err) != nil {
			refused, err = err, nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return refused
}

// signIn is SignIn in the caller's transaction; it also returns the sign-in's id. Where it returns a refusal it has
// written that event, so the transaction is to be committed.
func (s *Service) signIn(ctx context.Context, tx *store.Tx, who Identity, from string) (Identity, string, error) {
	return s.signInAs(ctx, tx, who, from, kinds{"login.succeeded", "login.refused"}, s.config.Credentials.SignIn.D(), nil)
}

// kinds are the kinds of a sign-in's audit events.
type kinds struct{ succeeded, refused string }

// signInAs is signIn for a sign-in that lasts as long as given and is audited as kinds, with more fields.
func (s *Service) signInAs(ctx context.Context, tx *store.Tx, who Identity, from string, kinds kinds, lasts time.Duration, more map[string]string) (Identity, string, error) {
	if who.Emergency != "" {
		return s.signInByKey(ctx, tx, who, from, more)
	}
	if who.Issuer == "" || who.Subject == "" {
		return Identity{}, "", refusal.New(refusal.NotAuthenticated, "the provider did not say who signed in")
	}
	if who.Groups == nil {
		who.Groups = []string{}
	}
	groups, err := json.Marshal(who.Groups)
	if err != nil {
		return Identity{}, "", fmt.Errorf("groups of %s: %w", who.Key(), err)
	}
	id := identityID(who.Issuer, who.Subject)
	var disabled, signedOut int64
	known, err := s.known(ctx, tx, who)
	if err != nil {
		return Identity{}, "", err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO identities (id, issuer, subject, kind, name, email, groups, matched, directory, closed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, name = excluded.name, email = excluded.email, groups = excluded.groups,
			matched = excluded.matched, directory = excluded.directory, closed = excluded.closed, withdrawn = 0
		RETURNING CASE WHEN disabled = 0 THEN closed ELSE disabled END, signed_out`,
		id, who.Issuer, who.Subject, who.Kind, who.Name, who.Email, groups, known.match, inJSON(known.groups), known.closed).Scan(&disabled, &signedOut)
	if err != nil {
		return Identity{}, "", fmt.Errorf("record who signed in: %w", err)
	}
	if disabled != 0 {
		e := event(kinds.refused, who, from)
		e.Outcome = string(refusal.IdentityDisabled)
		maps.Copy(e.Fields, more)
		if err := tx.Audit(e); err != nil {
			return Identity{}, "", err
		}
		return Identity{}, "", refuseDisabled(who)
	}
	at := max(stamp(s.now()), signedOut+1) // a clock set back must not make it older than the last sign-out
	who.SignedIn = unstamp(at)
	who.Expires = who.SignedIn.Add(lasts)
	signIn := newID("s-")
	starter := []byte{}
	if who.StartedBy != (Starter{}) {
		if starter, err = json.Marshal(who.StartedBy); err != nil {
			return Identity{}, "", fmt.Errorf("who started %s: %w", who.Key(), err)
		}
	}
	methods, err := json.Marshal(append([]string{}, who.AMR...))
	if err != nil {
		return Identity{}, "", fmt.Errorf("methods of %s: %w", who.Key(), err)
	}
	claims := []byte{}
	if len(who.Claims) > 0 {
		if claims, err = json.Marshal(who.Claims); err != nil {
			return Identity{}, "", fmt.Errorf("claims of %s: %w", who.Key(), err)
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO sign_ins (id, identity, at, expires, acr, amr, auth_time, session, started_by, claims) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		signIn, id, at, stamp(who.Expires), who.ACR, methods, stamp(who.AuthTime), who.session, string(starter), string(claims)); err != nil {
		return Identity{}, "", fmt.Errorf("record the sign-in: %w", err)
	}
	if err := s.keepVoucher(ctx, tx, who, signIn); err != nil {
		return Identity{}, "", err
	}
	who.refresh, who.groupsIn, who.match = "", "", ""
	who.Groups = merged(who.Groups, known.groups)
	e := event(kinds.succeeded, who, from)
	maps.Copy(e.Fields, more)
	if who.ACR != "" {
		e.Fields["acr"] = who.ACR
	}
	if len(who.AMR) > 0 {
		e.Fields["amr"] = strings.Join(who.AMR, " ")
	}
	who.Groups = s.withFile(who)
	e.Fields["sign_in"] = signIn
	e.Fields["expires"] = who.Expires.Format(time.RFC3339)
	if len(starter) > 0 {
		e.Fields["started_by"] = string(starter)
	}
	if len(claims) > 0 {
		e.Fields["claims"] = string(claims)
	}
	return who, signIn, tx.Audit(e)
}

// query is what both the pool of readers and a transaction do.
type query interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// standing is an identity's row and the sign-in through which it was reached.
type standing struct {
	Identity
	id     string
	signIn string
	ended  bool // the sign-in was
	closed bool // the identity is disabled
}

// standingColumns reads a standing out of sign_ins AS s JOIN identities AS i.
const standingColumns = `i.id, i.issuer, i.subject, i.kind, i.name, i.email, i.groups, i.directory, i.disabled <> 0 OR i.closed <> 0, s.id, s.at, s.expires, s.acr, s.amr, s.auth_time, s.ended <> 0 OR s.at <= i.signed_out, s.started_by, s.claims, s.emergency, s.known`

// scan reads the columns of standingColumns, and then more. The groups are those of the provider and of the file.
func (st *standing) scan(s *Service, row *sql.Row, more ...any) error {
	var groups, directory, methods []byte
	var starter, claims string
	var at, expires, proved, known int64
	if err := row.Scan(append([]any{&st.id, &st.Issuer, &st.Subject, &st.Kind, &st.Name, &st.Email, &groups, &directory, &st.closed, &st.signIn, &at, &expires, &st.ACR, &methods, &proved, &st.ended, &starter, &claims, &st.Emergency, &known}, more...)...); err != nil {
		return err
	}
	st.SignedIn, st.Expires, st.AuthTime, st.Known = unstamp(at), unstamp(expires), unstamp(proved), unstamp(known)
	if err := json.Unmarshal(methods, &st.AMR); err != nil {
		return fmt.Errorf("methods of %s: %w", st.Key(), err)
	}
	if err := st.name(groups, directory); err != nil {
		return err
	}
	st.Groups = s.withFile(st.Identity)
	if starter != "" {
		if err := json.Unmarshal([]byte(starter), &st.StartedBy); err != nil {
			return fmt.Errorf("who started %s: %w", st.Key(), err)
		}
	}
	if claims != "" {
		if err := json.Unmarshal([]byte(claims), &st.Claims); err != nil {
			return fmt.Errorf("claims of %s: %w", st.Key(), err)
		}
	}
	return nil
}

// good refuses where the sign-in no longer proves anything.
func (st *standing) good(now time.Time) error {
	switch {
	case st.closed:
		return refuseDisabled(st.Identity)
	case st.ended:
		return refuseSignedOut()
	case !now.Before(st.Expires):
		return refuseExpired("the sign-in of %s ran out at %s", st.Label(), st.Expires.Format(time.RFC3339))
	}
	return nil
}

// latest is the identity's sign-in that lasts longest of those that are good now: of those at the provider, or for somebody who
// signed in with an enrolled key, of those with that key. Neither stands for the other.
func (s *Service) latest(ctx context.Context, q query, who Identity) (standing, error) {
	var st standing
	err := st.scan(s, q.QueryRowContext(ctx, `SELECT `+standingColumns+` FROM sign_ins s JOIN identities i ON i.id = s.identity
		WHERE i.id = ? AND s.emergency = ? AND s.ended = 0 AND s.at > i.signed_out ORDER BY s.expires DESC LIMIT 1`, identityID(who.Issuer, who.Subject), who.Emergency))
	if errors.Is(err, sql.ErrNoRows) {
		return standing{}, refuseSignedOut()
	}
	if err != nil {
		return standing{}, fmt.Errorf("look up the sign-in of %s: %w", who.Key(), err)
	}
	return st, st.good(s.now())
}

// LinkedAccount is the Method of an identity for whom another system speaks: the person is signed in here, but has not shown
// that for what is done now.
const LinkedAccount = "linked account"

// SignedIn returns somebody as they are signed in now, for those who speak for them where no credential of theirs can: a
// chat account or another system's that was linked to issuer and subject. It refuses where they never signed in here, have
// signed out or were disabled, or their sign-in has run out: what they may do is what their groups were then. through is
// who speaks for them ("webhook chatops"), for the audit log.
func (s *Service) SignedIn(ctx context.Context, issuer, subject, through string) (Identity, error) {
	st, err := s.latest(ctx, s.store.Read(), Identity{Issuer: issuer, Subject: subject})
	if err != nil {
		return Identity{}, err
	}
	who := st.Identity
	who.Method, who.Credential = LinkedAccount, through
	return who, nil
}

// Standing returns nil while the identity is good: not disabled, not signed out since it was proven, the sign-in that proved it
// not ended, and its provider vouching for it, which is asked where it gave a refresh token. A refusal says it is not, or
// was not known for too long. Any other error means that it is not known. ErrUnvouched is in either where that is because of the
// provider; and always for somebody who signed in with an enrolled key, unless the provider says yes or no to their last sign-in there.
func (s *Service) Standing(ctx context.Context, who Identity) error {
	var disabled, signedOut, ended int64
	err := s.store.Read().QueryRowContext(ctx, `SELECT CASE WHEN disabled = 0 THEN closed ELSE disabled END, signed_out, (SELECT count(*) FROM sign_ins s WHERE s.identity = i.id AND s.at = ? AND s.ended <> 0)
		FROM identities i WHERE id = ?`, stamp(who.SignedIn), identityID(who.Issuer, who.Subject)).Scan(&disabled, &signedOut, &ended)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return refusal.New(refusal.NotAuthenticated, "%s never signed in here", who.Label()).WithHint("sign in: sallyport login")
	case err != nil:
		return fmt.Errorf("look up the standing of %s: %w", who.Key(), err)
	case disabled != 0:
		return refuseDisabled(who)
	case stamp(who.SignedIn) <= signedOut || ended > 0:
		return refuseSignedOut()
	}
	return s.vouchedFor(ctx, who)
}

// Revoke ends all sign-ins and credentials of the identity ("sallyport logout"). Each credential that was still good gets
// an audit event of its own, and the logout one, all in the same transaction.
func (s *Service) Revoke(ctx context.Context, who Identity) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		if err := s.end(ctx, tx, who, event("", who, ""), "logout"); err != nil {
			return err
		}
		return tx.Audit(event("logout", who, ""))
	})
}

// end ends everything that the identity was given. by holds the actor.
func (s *Service) end(ctx context.Context, tx *store.Tx, who Identity, by store.AuditEvent, reason string) error {
	id, now := identityID(who.Issuer, who.Subject), stamp(s.now())
	var newest int64 // a clock set back since must not leave it good
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(at), 0) FROM sign_ins WHERE identity = ?`, id).Scan(&newest); err != nil {
		return fmt.Errorf("sign %s out: %w", who.Key(), err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE identities SET signed_out = ? WHERE id = ? AND signed_out < ?`, max(now, newest), id, max(now, newest)); err != nil {
		return fmt.Errorf("sign %s out: %w", who.Key(), err)
	}
	return s.endSignIns(ctx, tx, who, `SELECT id FROM sign_ins WHERE identity = ?`, id, by, reason)
}

// endSignIns ends those sign-ins of the identity that a query with one argument finds, and all that hangs on them.
func (s *Service) endSignIns(ctx context.Context, tx *store.Tx, who Identity, which, argument string, by store.AuditEvent, reason string) error {
	tx.AfterCommit(func() { s.changes.stir(who.Key()) })
	now := stamp(s.now())
	var ended []string
	for _, kind := range []struct{ table, name string }{{"credentials", "credentials"}, {"passwords", "passwords"}, {"ssh_keys", "SSH keys"}} {
		rows, err := tx.QueryContext(ctx, `UPDATE `+kind.table+` SET revoked = ? WHERE revoked = 0 AND expires > ? AND sign_in IN (`+which+`) RETURNING id`, now, now, argument)
		if err != nil {
			return fmt.Errorf("revoke the %s of %s: %w", kind.name, who.Key(), err)
		}
		ids, err := column[string](rows)
		if err != nil {
			return fmt.Errorf("revoke the %s of %s: %w", kind.name, who.Key(), err)
		}
		ended = append(ended, ids...)
	}
	for _, credential := range ended {
		if err := tx.Audit(store.AuditEvent{
			Kind: "credential.revoked", Actor: by.Actor, ActorName: by.ActorName, Reason: reason,
			Fields: map[string]string{"credential": credential, "identity": who.Key()},
		}); err != nil {
			return err
		}
	}
	for _, statement := range []string{
		`UPDATE tokens SET revoked = ? WHERE revoked = 0 AND sign_in IN (` + which + `)`,
		`UPDATE sign_ins SET ended = ? WHERE ended = 0 AND id IN (` + which + `)`,
	} {
		if _, err := tx.ExecContext(ctx, statement, now, argument); err != nil {
			return fmt.Errorf("end the sign-ins of %s: %w", who.Key(), err)
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM vouchers WHERE sign_in IN (`+which+`)`, argument); err != nil {
		return fmt.Errorf("end the sign-ins of %s: %w", who.Key(), err)
	}
	return nil
}

// column reads rows of one column and closes them.
func column[T any](rows *sql.Rows) (all []T, err error) {
	defer rows.Close()
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// Disable closes an identity (Identity.Key) on the gateway, whatever its provider says: its sign-ins and credentials end,
// and it can't sign in until Enable. It refuses with NotFound where the identity never signed in.
func (s *Service) Disable(ctx context.Context, key string) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		who, err := s.setDisabled(ctx, tx, key, stamp(s.now()))
		if err != nil {
			return err
		}
		return s.end(ctx, tx, who, system, "identity disabled")
	})
}

// Enable lets an identity that was disabled sign in again.
func (s *Service) Enable(ctx context.Context, key string) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		_, err := s.setDisabled(ctx, tx, key, 0)
		return err
	})
}

func (s *Service) setDisabled(ctx context.Context, tx *store.Tx, key string, since int64) (Identity, error) {
	issuer, subject, _ := strings.Cut(key, " ")
	who := Identity{Issuer: issuer, Subject: subject}
	err := tx.QueryRowContext(ctx, `UPDATE identities SET disabled = ? WHERE id = ? RETURNING name`, since, identityID(issuer, subject)).Scan(&who.Name)
	if errors.Is(err, sql.ErrNoRows) {
		return who, refusal.New(refusal.NotFound, "no identity %q ever signed in here", key)
	}
	if err != nil {
		return who, fmt.Errorf("identity %s: %w", key, err)
	}
	kind := "identity.enabled"
	if since != 0 {
		kind = "identity.disabled"
	}
	return who, tx.Audit(store.AuditEvent{Kind: kind, Actor: system.Actor, Fields: map[string]string{"identity": key, "name": who.Name}})
}

// purge forgets what is long over. Credentials stay a while, so that a late use is told apart from a forgery.
func (s *Service) purge(ctx context.Context) error {
	now := s.now()
	return s.store.Do(ctx, func(tx *store.Tx) error {
		for _, statement := range []string{
			`DELETE FROM trips WHERE expires < ?`,
			`DELETE FROM auth_requests WHERE expires < ?`,
			`DELETE FROM devices WHERE expires < ?`,
			`DELETE FROM workload_tokens WHERE expires < ?`,
			`DELETE FROM logout_tokens WHERE expires < ?`,
			`DELETE FROM key_challenges WHERE expires < ?`,
		} {
			if _, err := tx.ExecContext(ctx, statement, stamp(now.Add(-time.Minute))); err != nil {
				return fmt.Errorf("forget what is over: %w", err)
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sign_ins WHERE expires < ?`, stamp(now.Add(-30*24*time.Hour))); err != nil { // and what hangs on them
			return fmt.Errorf("forget what is over: %w", err)
		}
		// Every job is an identity of its own; people's rows stay, because they may be disabled.
		if _, err := tx.ExecContext(ctx, `DELETE FROM identities WHERE kind = ? AND disabled = 0 AND NOT EXISTS (SELECT 1 FROM sign_ins s WHERE s.identity = identities.id)`, Workload); err != nil {
			return fmt.Errorf("forget what is over: %w", err)
		}
		return nil
	})
}

// refuseNot refuses what proves nothing here. cause is for the gateway's own log.
func refuseNot(what string, cause error) *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "the %s is not accepted here", what).WithHint("sign in: sallyport login").Because(cause)
}

func refuseExpired(detail string, args ...any) *refusal.Refusal {
	return refusal.New(refusal.CredentialExpired, "your sign-in has expired").WithDetail(detail, args...).WithHint("sign in again: sallyport login")
}

func refuseSignedOut() *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "you are signed out").WithHint("sign in: sallyport login")
}

func refuseDisabled(who Identity) *refusal.Refusal {
	return refusal.New(refusal.IdentityDisabled, "%s is disabled", who.Label()).WithHint("ask an administrator of the gateway")
}
