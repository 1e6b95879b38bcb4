package authn

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"sallyport/authn/federation"
	"sallyport/authn/pages"
	"sallyport/authn/passkey"
	"sallyport/authn/throttle"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// emergencyLife is how long a sign-in with an enrolled key lasts: no longer than a grant that is taken in an emergency may.
const emergencyLife = time.Hour

// The kinds of what strangers do wrong with enrolled keys.
const (
	strangeKey     = "http: an enrolled key that did not prove itself"
	strangeKeyUp   = "http: an enrolled key while the provider answers"
	strangeKeyWait = "http: too many enrolled keys that did not prove themselves"
)

func refuseEmergency() *refusal.Refusal {
	return refusal.New(refusal.NotPermitted, "a sign-in with an enrolled key is good for emergencies alone").
		WithHint("ask with: sallyport request ACCOUNT@TARGET --break-glass --reason \"…\"; for anything else sign in at your company's provider once it answers")
}

// offerKey shows, where the provider can't be asked, that the person may prove themselves by an enrolled key instead; false where
// there is nothing to offer, and nothing was shown. Whether the provider answers is seen by asking it anew: it is what the gateway
// sees of it now that counts, not what it knows of it.
func (s *Service) offerKey(w http.ResponseWriter, r *http.Request, t trip, provider *federation.Provider) (shown bool, err error) {
	ctx := r.Context()
	if s.passkeys == nil || r.URL.Query().Get("anyway") != "" {
		return false, nil
	}
	down, err := s.unreachable(ctx, provider)
	if err != nil || !down {
		return false, err
	}
	again := r.URL.Query()
	again.Set("anyway", "1")
	page := pages.ProviderDown{Host: hostOf(provider.Issuer()), Again: r.URL.Path + "?" + again.Encode()}
	if t.authRequest != "" {
		request, err := s.authRequest(ctx, t.authRequest)
		if err != nil {
			return false, err
		}
		page.Console = request.client == consoleClient // which has nothing for emergencies
	}
	if !page.Console {
		options, challenge, err := s.passkeys.Ask()
		if err != nil {
			return false, err
		}
		t.provider = provider.Issuer()
		page.Options = string(options)
		err = s.store.Do(ctx, func(tx *store.Tx) error {
			return s.keepChallenge(ctx, tx, challenge, keyChallenge{browser: visitorOf(ctx).browser, trip: t})
		})
		if err != nil {
			return false, err
		}
	}
	pages.RetryAfter(w.Header(), 5*time.Second)
	pages.Show(w, http.StatusServiceUnavailable, page)
	return true, nil
}

// unreachable asks the provider whether it answers. An error is a failure of the gateway's own, and no reason to do without it.
func (s *Service) unreachable(ctx context.Context, provider *federation.Provider) (bool, error) {
	err := provider.Answers(ctx)
	if errors.Is(err, federation.ErrUnavailable) {
		s.log.Warn("the company's provider can't be asked", "err", err)
		return true, nil
	}
	return false, err
}

func hostOf(issuer string) string {
	if u, err := url.Parse(issuer); err == nil {
		return u.Host
	}
	return issuer
}

// keyAnswer takes what a person's enrolled key says, while their provider can't be asked, and goes on where the sign-in came from. The
// sign-in that it makes is good for emergencies alone (Identity.Emergency).
func (s *Service) keyAnswer(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	source := visitorOf(ctx).source
	if s.passkeys == nil {
		refuse(w, r, http.StatusNotFound, refuseNoKeys())
		return
	}
	if s.failures.Blocked(source, "", s.now()) != throttle.Nobody {
		s.unauthenticated(strangeKeyWait, r)
		pages.RetryAfter(w.Header(), throttle.Window)
		refuse(w, r, http.StatusTooManyRequests, refusal.New(refusal.TooMany, "too many keys from your address did not prove themselves").WithHint("wait a minute, then begin again"))
		return
	}
	t, who, err := s.provenByKey(r)
	if err != nil {
		if refusal.Is(err, refusal.NotAuthenticated) {
			s.failures.Add(source, "", s.now()) // whose it is is not known
			s.unauthenticated(strangeKey, r)
			s.logStranger(r, "an enrolled key was refused", refusal.Of(err).Cause)
		}
		s.fail(w, r, err)
		return
	}
	if next, done := s.goOn(w, r, t, who); done {
		pages.Show(w, http.StatusOK, pages.Emergency{Who: who.Label(), Until: s.now().Add(emergencyLife), Next: next})
	}
}

// provenByKey is who proves themselves by an enrolled key in r, and the way they are on.
func (s *Service) provenByKey(r *http.Request) (t trip, who Identity, err error) {
	ctx := r.Context()
	v := visitorOf(ctx)
	if v.browser == nil {
		return t, who, refuseOver()
	}
	if err := r.ParseForm(); err != nil {
		return t, who, refusal.New(refusal.Invalid, "the form can't be read")
	}
	answer, err := passkey.Read([]byte(r.PostForm.Get("answer")))
	if err != nil {
		return t, who, refuseKey(err)
	}
	var asked keyChallenge
	err = s.commitRefusals(ctx, func(tx *store.Tx) (err error) {
		asked, err = s.takeChallenge(ctx, tx, answer.Challenge(), v.browser)
		return err
	})
	if err != nil {
		return t, who, err
	}
	t = asked.trip
	if asked.identity != "" { // it was to enrol a key
		return t, who, refuseKey(errors.New("that challenge was for something else"))
	}
	provider := s.providerOf(t.provider)
	if provider == nil {
		return t, who, refuseOver()
	}
	down, err := s.unreachable(ctx, provider)
	if err != nil {
		return t, who, err
	}
	if !down {
		s.unauthenticated(strangeKeyUp, r)
		return t, who, refusal.New(refusal.Conflict, "your company's sign-in provider answers again").
			WithDetail("an enrolled key is only taken while it does not").WithHint("begin again and sign in there: sallyport login")
	}
	err = s.commitRefusals(ctx, func(tx *store.Tx) error {
		who, err = s.useKey(ctx, tx, answer, t.provider, v.address)
		return err
	})
	return t, who, err
}

// useKey verifies an answer with the key that it says to be made with. Where it refuses somebody who has proven themselves it has
// written that event, so the transaction is to be committed.
func (s *Service) useKey(ctx context.Context, tx *store.Tx, answer passkey.Answer, provider, from string) (Identity, error) {
	var id, identity string
	var counter int64
	key := passkey.Key{Credential: answer.Credential()}
	err := tx.QueryRowContext(ctx, `SELECT id, identity, public, counter, synced <> 0 FROM enrolled_keys WHERE credential = ?`, key.Credential).
		Scan(&id, &identity, &key.Public, &counter, &key.Synced)
	if errors.Is(err, sql.ErrNoRows) {
		return Identity{}, refuseKey(errors.New("it is not enrolled"))
	}
	if err != nil {
		return Identity{}, fmt.Errorf("look up an enrolled key: %w", err)
	}
	key.Counter = uint32(counter)
	next, err := s.passkeys.Proven(answer, answer.Challenge(), []byte(identity), key)
	cloned := errors.Is(err, passkey.ErrCloned)
	if err != nil && !cloned {
		return Identity{}, refuseKey(fmt.Errorf("key %s: %w", id, err))
	}
	// From here on it is known who it is.
	k, err := s.findKey(ctx, tx, id)
	if err != nil {
		return Identity{}, err
	}
	if cloned {
		return Identity{}, s.suspendKey(ctx, tx, k, from)
	}
	if err := s.keyGood(k, provider); err != nil {
		return Identity{}, s.keyRefused(ctx, tx, k, from, err, nil)
	}
	now := stamp(s.now())
	if _, err := tx.ExecContext(ctx, `UPDATE enrolled_keys SET counter = ?, used = ? WHERE id = ?`, int64(next), now, id); err != nil {
		return Identity{}, fmt.Errorf("count the use of key %s: %w", id, err)
	}
	return k.Identity, nil
}

// enrolled is an enrolled key with its owner, as far as the gateway knows them without the provider.
type enrolled struct {
	Identity
	called    string // by its owner
	suspended bool
	closed    bool // the identity is disabled here or in the provider's directory
	withdrawn bool // the provider does not vouch for them any more
}

func (s *Service) findKey(ctx context.Context, q query, id string) (k enrolled, err error) {
	var groups, directory []byte
	var suspended, withdrawn, proved, vouched int64
	var claims string
	err = q.QueryRowContext(ctx, `SELECT i.issuer, i.subject, i.kind, i.name, i.email, i.groups, i.directory, i.disabled <> 0 OR i.closed <> 0, i.withdrawn, k.name, k.suspended,
		(SELECT coalesce(max(s.at), 0) FROM sign_ins s WHERE s.identity = i.id AND s.emergency = ''),
		(SELECT coalesce(max(v.vouched), 0) FROM vouchers v JOIN sign_ins s ON s.id = v.sign_in WHERE s.identity = i.id),
		coalesce((SELECT s.claims FROM sign_ins s WHERE s.identity = i.id AND s.emergency = '' ORDER BY s.at DESC LIMIT 1), '')
		FROM enrolled_keys k JOIN identities i ON i.id = k.identity WHERE k.id = ?`, id).
		Scan(&k.Issuer, &k.Subject, &k.Kind, &k.Name, &k.Email, &groups, &directory, &k.closed, &withdrawn, &k.called, &suspended, &proved, &vouched, &claims)
	if errors.Is(err, sql.ErrNoRows) {
		return k, refuseKey(errors.New("it was removed"))
	}
	if err != nil {
		return k, fmt.Errorf("look up key %s: %w", id, err)
	}
	if err := k.Identity.name(groups, directory); err != nil {
		return k, err
	}
	if claims != "" {
		if err := json.Unmarshal([]byte(claims), &k.Claims); err != nil {
			return k, fmt.Errorf("claims of %s: %w", k.Key(), err)
		}
	}
	k.Groups = s.withFile(k.Identity)
	k.suspended, k.withdrawn = suspended != 0, withdrawn != 0
	k.Emergency, k.Known = id, unstamp(max(proved, vouched))
	return k, nil
}

// keyGood says whether a key that has proven itself is good for its owner now.
func (s *Service) keyGood(k enrolled, provider string) error {
	known := s.config.Credentials.EnrolledKeys.Known
	switch {
	case k.closed:
		return refuseDisabled(k.Identity)
	case k.withdrawn:
		return refusal.New(refusal.IdentityDisabled, "your company's sign-in provider did not vouch for you any more when it last could be asked").
			WithHint("sign in there once it answers")
	case k.suspended:
		return refusal.New(refusal.NotPermitted, "this key is suspended: there may be two of it").
			WithDetail("its counter of signatures did not grow once").WithHint("remove it and enrol another when the provider answers")
	case k.Issuer != provider:
		return refusal.New(refusal.NotPermitted, "you sign in at %s, and it is not that provider which does not answer", hostOf(k.Issuer)).WithHint("begin again and choose that one")
	case s.now().Sub(k.Known) > known.D():
		return refusal.New(refusal.NotPermitted, "you have not signed in at your company's provider for longer than %s", known).
			WithDetail("after that an enrolled key is not taken, for nobody knows whether you still may").WithHint("sign in there once it answers")
	}
	return nil
}

// keyRefused writes down why somebody who has proven themselves by a key is not signed in, and returns that.
func (s *Service) keyRefused(ctx context.Context, tx *store.Tx, k enrolled, from string, no error, more map[string]string) error {
	r := refusal.Of(no)
	if r == nil {
		return no
	}
	e := event("login.refused", k.Identity, from)
	e.Outcome, e.Reason = string(r.Code), r.Message
	maps.Copy(e.Fields, more)
	e.Fields["key"], e.Fields["key_name"] = k.Emergency, k.called
	if err := tx.Audit(e); err != nil {
		return err
	}
	return no
}

// suspendKey has a key count no more of which there may be two, and makes noise.
func (s *Service) suspendKey(ctx context.Context, tx *store.Tx, k enrolled, from string) error {
	if _, err := tx.ExecContext(ctx, `UPDATE enrolled_keys SET suspended = ? WHERE id = ? AND suspended = 0`, stamp(s.now()), k.Emergency); err != nil {
		return fmt.Errorf("suspend key %s: %w", k.Emergency, err)
	}
	if err := s.endSignIns(ctx, tx, k.Identity, `SELECT id FROM sign_ins WHERE emergency = ? AND ended = 0`, k.Emergency, system, "its key may be in two hands"); err != nil {
		return err
	}
	s.log.Error("an enrolled key may be in two hands: its counter of signatures has not grown; it is suspended", "identity", k.Key(), "key", k.Emergency, "from", from)
	no := refusal.New(refusal.NotPermitted, "this key is suspended: there may be two of it").
		WithDetail("its counter of signatures did not grow").WithHint("if you did not copy it, somebody else did: tell those who run the gateway")
	e := event("key.cloned", k.Identity, from)
	e.Outcome, e.Reason = string(no.Code), "its counter of signatures has not grown since it was last used; it is suspended"
	e.Fields["key"], e.Fields["key_name"] = k.Emergency, k.called
	if err := tx.Audit(e); err != nil {
		return err
	}
	return no
}

// signInByKey is signIn for somebody who has proven themselves by an enrolled key: they are who they were when the provider last said
// so, and what is known of them is left as it is. more are fields of the audit event.
func (s *Service) signInByKey(ctx context.Context, tx *store.Tx, who Identity, from string, more map[string]string) (Identity, string, error) {
	k, err := s.findKey(ctx, tx, who.Emergency)
	if err != nil {
		return Identity{}, "", err
	}
	if k.Key() != who.Key() {
		return Identity{}, "", refuseKey(errors.New("it is somebody else's"))
	}
	if s.passkeys == nil {
		return Identity{}, "", refuseNoKeys()
	}
	if err := s.keyGood(k, k.Issuer); err != nil {
		return Identity{}, "", s.keyRefused(ctx, tx, k, from, err, more)
	}
	who = k.Identity
	id := identityID(who.Issuer, who.Subject)
	var signedOut int64
	if err := tx.QueryRowContext(ctx, `SELECT signed_out FROM identities WHERE id = ?`, id).Scan(&signedOut); err != nil {
		return Identity{}, "", fmt.Errorf("record the sign-in: %w", err)
	}
	at := max(stamp(s.now()), signedOut+1)
	who.SignedIn = unstamp(at)
	who.Expires = who.SignedIn.Add(min(emergencyLife, s.config.Credentials.SignIn.D()))
	signIn := newID("s-")
	claims := []byte{}
	if len(who.Claims) > 0 {
		if claims, err = json.Marshal(who.Claims); err != nil {
			return Identity{}, "", fmt.Errorf("claims of %s: %w", who.Key(), err)
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO sign_ins (id, identity, at, expires, claims, emergency, known) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		signIn, id, at, stamp(who.Expires), string(claims), who.Emergency, stamp(who.Known)); err != nil {
		return Identity{}, "", fmt.Errorf("record the sign-in: %w", err)
	}
	e := event("login.emergency", who, from)
	maps.Copy(e.Fields, more)
	e.Reason = "the provider can't be asked; with an enrolled key, on what it said at " + who.Known.Format(time.RFC3339)
	e.Fields["key"], e.Fields["key_name"], e.Fields["sign_in"], e.Fields["expires"] = who.Emergency, k.called, signIn, who.Expires.Format(time.RFC3339)
	s.log.Warn("somebody signs in with an enrolled key, for the provider can't be asked", "identity", who.Key(), "key", who.Emergency, "from", from)
	return who, signIn, tx.Audit(e)
}

// bar has a person's enrolled keys count no more until they sign in at the provider again, which has said that they may not, and ends
// what they were used to sign in.
func (s *Service) bar(ctx context.Context, tx *store.Tx, who Identity, why string) error {
	id := identityID(who.Issuer, who.Subject)
	if _, err := tx.ExecContext(ctx, `UPDATE identities SET withdrawn = ? WHERE id = ?`, stamp(s.now()), id); err != nil {
		return fmt.Errorf("withdraw what %s may do: %w", who.Key(), err)
	}
	return s.endSignIns(ctx, tx, who, `SELECT id FROM sign_ins WHERE identity = ? AND emergency <> '' AND ended = 0`, id, system, why)
}
