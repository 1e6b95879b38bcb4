package authn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/authn/federation"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// ErrUnvouched is in the errors of Standing which say that a person's provider can't be asked now whether they still may; also
// in the refusal that it becomes after credentials.standing_grace. Nothing that a provider has said is among them.
var ErrUnvouched = errors.New("the provider can't be asked whether the person may still sign in")

const (
	// vouchEvery is how long a provider's word counts. With how often a session looks at its identity it makes how long a person
	// who is closed there goes on here: less than a minute.
	vouchEvery = 15 * time.Second
	// vouchAgain is when one that did not answer is asked again, at the earliest.
	vouchAgain = 3 * time.Second
	// vouchTime bounds one question, keepTime how long it may take to write down what came of it.
	vouchTime = 12 * time.Second
	keepTime  = 5 * time.Second
)

// refreshPrefix tells refresh tokens apart from all else that is encrypted with the same key.
const refreshPrefix = "refresh\x00"

// voucher is a refresh token with which a provider is asked whether it still knows a person, and what came of it.
type voucher struct {
	signIn, provider, token string
	vouched, asked          time.Time
	groups                  string // as it last named them, in JSON; "" where that is not known
	groupsIn                federation.Place
}

// keepVoucher keeps the refresh token that the provider gave with a sign-in, encrypted.
func (s *Service) keepVoucher(ctx context.Context, tx *store.Tx, who Identity, signIn string) error {
	if who.refresh == "" {
		return nil
	}
	kept, err := s.seal(who.refresh)
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT INTO vouchers (sign_in, provider, token, vouched, asked, groups, groups_in) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			signIn, who.Issuer, kept, stamp(s.now()), stamp(s.now()), inJSON(who.Groups), who.groupsIn)
	}
	if err != nil {
		return fmt.Errorf("keep the way to ask the provider about %s: %w", who.Key(), err)
	}
	return nil
}

func (s *Service) seal(refresh string) (string, error) {
	return s.issuer.Crypto().Encrypt(refreshPrefix + refresh)
}

func (s *Service) unseal(kept string) (string, error) {
	text, err := s.issuer.Crypto().Decrypt(kept)
	if err != nil {
		return "", err
	}
	token, ok := strings.CutPrefix(text, refreshPrefix)
	if !ok {
		return "", errors.New("it is not a refresh token")
	}
	return token, nil
}

// voucher finds the one of the sign-in that proved who; nil where its provider gave none. For somebody who signed in with an enrolled
// key it is the newest of those at the provider.
func (s *Service) voucher(ctx context.Context, who Identity) (*voucher, error) {
	var v voucher
	var vouched, asked int64
	err := s.store.Read().QueryRowContext(ctx, `SELECT v.sign_in, v.provider, v.token, v.vouched, v.asked, v.groups, v.groups_in FROM vouchers v JOIN sign_ins s ON s.id = v.sign_in
		WHERE s.identity = ? AND (s.at = ? OR ? <> '') AND s.ended = 0 ORDER BY s.at DESC LIMIT 1`, identityID(who.Issuer, who.Subject), stamp(who.SignedIn), who.Emergency).
		Scan(&v.signIn, &v.provider, &v.token, &vouched, &asked, &v.groups, &v.groupsIn)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // not every provider gives one
	}
	if err != nil {
		return nil, fmt.Errorf("look up when the provider last knew %s: %w", who.Key(), err)
	}
	v.vouched, v.asked = unstamp(vouched), unstamp(asked)
	return &v, nil
}

// fresh reports whether the provider's word counts still. Of somebody who signed in with an enrolled key only what it said since then does.
func (v *voucher) fresh(who Identity, now time.Time) bool {
	age := now.Sub(v.vouched)
	return age >= 0 && age < vouchEvery && (who.Emergency == "" || v.vouched.After(who.SignedIn))
}

// vouchedFor returns nil while the person's provider says that they may still sign in, where it gave a refresh token to ask it
// with. A refusal says that it does not, or could not be asked for longer than credentials.standing_grace; ErrUnvouched is in the
// latter, and in any other error which says that it can't be asked now.
func (s *Service) vouchedFor(ctx context.Context, who Identity) error {
	v, err := s.voucher(ctx, who)
	if err == nil && v == nil && who.Emergency != "" {
		return fmt.Errorf("%w: %s signed in with an enrolled key", ErrUnvouched, who.Key())
	}
	if err != nil || v == nil || v.fresh(who, s.now()) {
		return err
	}
	return s.vouching.do(ctx, v.signIn, func(ctx context.Context) error { return s.askToVouch(ctx, who) })
}

// askToVouch asks. Only one does at a time for a sign-in, for a refresh token is mostly good once.
func (s *Service) askToVouch(ctx context.Context, who Identity) error {
	v, err := s.voucher(ctx, who)
	if err != nil || v == nil || v.fresh(who, s.now()) {
		return err
	}
	now := s.now()
	if since := now.Sub(v.asked); v.asked.After(v.vouched) && since >= 0 && since < vouchAgain {
		return s.unvouched(who, v, errors.New("it was asked a moment ago"))
	}
	token, err := s.unseal(v.token)
	if err != nil {
		return s.withdraw(ctx, who, v, "the way to ask its provider can't be read any more")
	}
	provider := s.providerOf(v.provider)
	if provider == nil {
		return s.withdraw(ctx, who, v, "its provider is not configured any more")
	}
	now = s.now() // what it says is no older than this
	renewed, err := provider.Refresh(ctx, token, who.Subject, v.groupsIn)
	// What it gave is kept, however long it took: the token that it was asked with may be spent.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
	defer cancel()
	if errors.Is(err, federation.ErrWithdrawn) {
		s.log.Info("a sign-in ended because its provider does not vouch for it any more", "identity", who.Key(), "cause", err)
		return s.withdraw(ctx, who, v, "its provider does not vouch for it any more")
	}
	if renewed.Refresh != "" {
		kept, failed := s.seal(renewed.Refresh)
		if failed != nil {
			return fmt.Errorf("keep the way to ask the provider about %s: %w", who.Key(), failed)
		}
		v.token = kept
	}
	if err != nil {
		s.log.Warn("a provider can't be asked whether somebody may still sign in", "identity", who.Key(), "err", err)
		if _, failed := s.exec(ctx, `UPDATE vouchers SET token = ?, asked = ? WHERE sign_in = ?`, v.token, stamp(now), v.signIn); failed != nil {
			err = errors.Join(err, failed)
		}
		return s.unvouched(who, v, err)
	}
	return s.renew(ctx, who, v, renewed, now)
}

func (s *Service) exec(ctx context.Context, statement string, args ...any) (n int64, err error) {
	err = s.store.Do(ctx, func(tx *store.Tx) error {
		done, err := tx.ExecContext(ctx, statement, args...)
		if err != nil {
			return fmt.Errorf("note what the provider said: %w", err)
		}
		n, err = done.RowsAffected()
		return err
	})
	return n, err
}

// unvouched is what Standing says while it is not known: what is open goes on for standing_grace.
func (s *Service) unvouched(who Identity, v *voucher, cause error) error {
	grace := s.config.Credentials.StandingGrace.D()
	if s.now().Sub(v.vouched) <= grace {
		return fmt.Errorf("%w: %s: %w", ErrUnvouched, who.Key(), cause)
	}
	return refusal.New(refusal.NotAuthenticated, "your company's sign-in provider could not be asked for %s whether you may go on", grace).
		WithHint("connect again once it answers").Because(fmt.Errorf("%w: %w", ErrUnvouched, cause))
}

// withdraw ends the sign-in. It refuses even where that can't be written down.
func (s *Service) withdraw(ctx context.Context, who Identity, v *voucher, why string) error {
	err := s.store.Do(ctx, func(tx *store.Tx) error {
		if err := s.endSignIns(ctx, tx, who, `SELECT id FROM sign_ins WHERE id = ?`, v.signIn, system, why); err != nil {
			return err
		}
		if err := s.bar(ctx, tx, who, why); err != nil {
			return err
		}
		return tx.Audit(store.AuditEvent{Kind: "login.withdrawn", Actor: system.Actor, Reason: why, Fields: map[string]string{
			"identity": who.Key(), "name": who.Label(), "sign_in": v.signIn,
		}})
	})
	if err != nil {
		s.log.Error("a sign-in that is withdrawn could not be ended", "identity", who.Key(), "err", err)
	}
	return refusal.New(refusal.IdentityDisabled, "your company's sign-in provider does not vouch for you any more").
		WithHint("sign in again: sallyport login").Because(err)
}

// flights has one question at a time for a key; those who come meanwhile get the same answer. The zero value is ready.
type flights struct {
	mu     sync.Mutex
	of     map[string]*flight
	closed bool
}

type flight struct {
	landed chan struct{}
	err    error
}

// errClosing is that nothing is asked any more.
var errClosing = errors.New("the gateway is about to end")

// do runs f, or waits for it. f goes on when ctx is over, for what it began with the provider must be kept.
func (f *flights) do(ctx context.Context, key string, ask func(context.Context) error) error {
	f.mu.Lock()
	one := f.of[key]
	if one == nil && f.closed {
		f.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUnvouched, errClosing)
	}
	if one == nil {
		one = &flight{landed: make(chan struct{})}
		if f.of == nil {
			f.of = map[string]*flight{}
		}
		f.of[key] = one
		go func() {
			asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), vouchTime)
			defer cancel()
			one.err = ask(asking)
			f.mu.Lock()
			delete(f.of, key)
			f.mu.Unlock()
			close(one.landed)
		}()
	}
	f.mu.Unlock()
	select {
	case <-one.landed:
		return one.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnvouched, context.Cause(ctx))
	}
}

// close lets no more questions begin, and waits for those that were: what the provider answers has to be written down before the store
// closes, or the next gateway asks with a token that is spent, which ends the person's sign-in.
func (f *flights) close(ctx context.Context) error {
	f.mu.Lock()
	f.closed = true
	under := slices.Collect(maps.Values(f.of))
	f.mu.Unlock()
	for _, one := range under {
		select {
		case <-one.landed:
		case <-ctx.Done():
			return fmt.Errorf("wait for what providers say of people: %w", context.Cause(ctx))
		}
	}
	return nil
}
