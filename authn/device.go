package authn

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"

	"sallyport/authn/pages"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// What a device's request becomes.
const (
	deviceApproved = "approved"
	deviceDenied   = "denied"
	deviceTaken    = "taken" // the token was handed out
)

// The kinds of what strangers do wrong with devices.
const (
	strangeCode    = "http: unknown device code"
	strangeConfirm = "http: unknown confirmation of a device"
)

// StoreDeviceAuthorization keeps what a device asks for, with where it asks from, for the person to see.
func (st *storage) StoreDeviceAuthorization(ctx context.Context, client, code, userCode string, expires time.Time, wanted []string) error {
	v := visitorOf(ctx)
	scopes, err := asked(client, wanted)
	if err != nil {
		return err
	}
	return st.s.oauthError(st.s.store.Do(ctx, func(tx *store.Tx) error {
		if err := roomFor(ctx, tx, "devices"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO devices (code, user_code, client, scopes, address, agent, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			hashed(code), userCode, client, strings.Join(scopes, " "), v.address, v.agent, stamp(st.s.now()), stamp(expires))
		return err
	}))
}

// GetDeviceAuthorizatonState is what a device's poll finds. What was approved is handed out once; who polls faster than
// they were told to is told to slow down, which op does where the error is a missed deadline.
func (st *storage) GetDeviceAuthorizatonState(ctx context.Context, client, code string) (*op.DeviceAuthorizationState, error) {
	state := &op.DeviceAuthorizationState{ClientID: client, Audience: []string{client}}
	var tooFast bool
	err := st.s.store.Do(ctx, func(tx *store.Tx) error {
		var scopes, decision string
		var expires, polled, at int64
		err := tx.QueryRowContext(ctx, `SELECT d.scopes, d.expires, d.polled, d.decision, coalesce(s.identity, ''), coalesce(s.at, 0)
			FROM devices d LEFT JOIN sign_ins s ON s.id = d.sign_in WHERE d.code = ? AND d.client = ?`, hashed(code), client).
			Scan(&scopes, &expires, &polled, &decision, &state.Subject, &at)
		if errors.Is(err, sql.ErrNoRows) {
			return refusal.New(refusal.NotAuthenticated, "there is no such device code, or it is long over")
		}
		if err != nil {
			return fmt.Errorf("look up the device: %w", err)
		}
		now := st.s.now()
		state.Scopes, state.Expires, state.AuthTime = strings.Fields(scopes), unstamp(expires), unstamp(at)
		switch {
		case decision == deviceDenied:
			state.Denied = true
			return nil
		case decision == deviceTaken:
			return refusal.New(refusal.NotAuthenticated, "the device code was used already")
		case !now.Before(state.Expires):
			return nil
		case decision == deviceApproved:
			state.Done = true
			_, err := tx.ExecContext(ctx, `UPDATE devices SET decision = ? WHERE code = ?`, deviceTaken, hashed(code))
			return err
		}
		tooFast = now.Sub(unstamp(polled)) < devicePoll-500*time.Millisecond // the network is not that even
		_, err = tx.ExecContext(ctx, `UPDATE devices SET polled = ? WHERE code = ?`, stamp(now), hashed(code))
		return err
	})
	if err == nil && tooFast {
		err = fmt.Errorf("polled too fast: %w", context.DeadlineExceeded)
	}
	return state, st.s.oauthError(err)
}

// waiting is a device that nobody has decided about.
type waiting struct {
	code []byte
	pages.Device
}

// waitingDevice looks up a device by what its person typed.
func (s *Service) waitingDevice(ctx context.Context, q query, typed string) (waiting, error) {
	return s.findDevice(ctx, q, `user_code = ?`, userCode(typed))
}

func (s *Service) findDevice(ctx context.Context, q query, where string, key any) (waiting, error) {
	var d waiting
	var created int64
	var scopes string
	err := q.QueryRowContext(ctx, `SELECT code, user_code, address, agent, created, scopes FROM devices WHERE `+where+` AND decision = '' AND expires > ?`, key, stamp(s.now())).
		Scan(&d.code, &d.Code, &d.Address, &d.Agent, &created, &scopes)
	if errors.Is(err, sql.ErrNoRows) {
		return d, refusal.New(refusal.NotFound, "no device waits with this code").WithHint("begin again in the terminal; codes last ten minutes")
	}
	if err != nil {
		return d, fmt.Errorf("look up the device: %w", err)
	}
	d.Asked, d.For = unstamp(created), purposeOf(strings.Fields(scopes))
	if d.For != "" && d.Agent == "" {
		d.Agent = "psql, or another program on libpq, which does not say its name"
	}
	d.Next = pathDeviceLogin + "?user_code=" + url.QueryEscape(d.Code)
	return d, nil
}

// userCode is the form in which codes are kept: people type them in lower case and leave the dash out.
func userCode(typed string) string {
	if len(typed) > 32 {
		return ""
	}
	letters := strings.Map(func(r rune) rune {
		if strings.ContainsRune(op.CharSetBase20, r) {
			return r
		}
		return -1
	}, strings.ToUpper(typed))
	if len(letters) != op.UserCodeBase20.CharAmount {
		return ""
	}
	return letters[:op.UserCodeBase20.DashInterval] + "-" + letters[op.UserCodeBase20.DashInterval:]
}

// device shows the form for a code, or what waits with the code.
func (s *Service) device(w http.ResponseWriter, r *http.Request) {
	typed := r.URL.Query().Get("user_code")
	if typed == "" {
		pages.Show(w, http.StatusOK, pages.Enter{})
		return
	}
	d, err := s.waitingDevice(r.Context(), s.store.Read(), typed)
	if refusal.Of(err) != nil {
		s.unauthenticated(strangeCode, r)
		pages.Show(w, http.StatusNotFound, pages.Enter{Problem: "No device waits with this code. Codes last ten minutes."})
		return
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	pages.Show(w, http.StatusOK, d.Device)
}

// deviceLogin sends the person to the company's provider; askDevice follows.
func (s *Service) deviceLogin(w http.ResponseWriter, r *http.Request) {
	d, err := s.waitingDevice(r.Context(), s.store.Read(), r.URL.Query().Get("user_code"))
	if err != nil {
		if refusal.Of(err) != nil {
			s.unauthenticated(strangeCode, r)
		}
		s.fail(w, r, err)
		return
	}
	visitorOf(r.Context()).remember(w)
	s.travel(w, r, trip{device: d.code})
}

// askDevice asks a person whom the provider has just proven whether the device may act as them. Nothing is given before
// they say so, in the same browser, with the form's one-time secret.
func (s *Service) askDevice(w http.ResponseWriter, r *http.Request, t trip, who Identity) {
	ctx := r.Context()
	token := rand.Text()
	var d waiting
	packed, err := s.pack(who)
	if err == nil {
		err = s.store.Do(ctx, func(tx *store.Tx) (err error) {
			if d, err = s.findDevice(ctx, tx, `code = ?`, t.device); err != nil {
				return err
			}
			return s.keepTrip(ctx, tx, token, visitorOf(ctx).browser, trip{device: t.device, identity: packed}, confirmLife)
		})
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	pages.Show(w, http.StatusOK, pages.Confirm{Device: d.Device, Who: who.Label(), Email: who.Email, Token: token})
}

// deviceConfirm takes the person's answer.
func (s *Service) deviceConfirm(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, refusal.New(refusal.Invalid, "the form can't be read"))
		return
	}
	approve := r.PostForm.Get("decision") == "approve"
	known := false
	err := s.commitRefusals(ctx, func(tx *store.Tx) error {
		t, err := s.back(ctx, tx, r.PostForm.Get("confirm"), true)
		if err != nil {
			return err
		}
		if t.device == nil { // of another kind
			return refuseOver()
		}
		known = true
		who, err := s.unpack(t.identity)
		if err != nil {
			return fmt.Errorf("who confirms the device: %w", err)
		}
		d, err := s.findDevice(ctx, tx, `code = ?`, t.device)
		if err != nil {
			return err
		}
		if !approve {
			if _, err := tx.ExecContext(ctx, `UPDATE devices SET decision = ? WHERE code = ?`, deviceDenied, d.code); err != nil {
				return fmt.Errorf("deny the device: %w", err)
			}
			e := event("login.refused", who, visitorOf(ctx).address)
			e.Outcome, e.Reason = string(refusal.NotPermitted), "the person denied the device"
			e.Fields["device"] = d.Address
			return tx.Audit(e)
		}
		_, signIn, err := s.signIn(ctx, tx, who, visitorOf(ctx).address)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE devices SET decision = ?, sign_in = ? WHERE code = ?`, deviceApproved, signIn, d.code); err != nil {
			return fmt.Errorf("approve the device: %w", err)
		}
		e := event("login.device", who, visitorOf(ctx).address)
		e.Fields["device"], e.Fields["agent"], e.Fields["sign_in"] = d.Address, d.Agent, signIn
		if d.For != "" {
			e.Fields["for"] = d.For
		}
		return tx.Audit(e)
	})
	if err != nil {
		if refusal.Of(err) != nil && !known {
			s.unauthenticated(strangeConfirm, r)
		}
		s.fail(w, r, err)
		return
	}
	if approve {
		pages.Show(w, http.StatusOK, pages.Message{Title: "Signed in.", Detail: "Close this page and go on in the terminal."})
		return
	}
	pages.Show(w, http.StatusOK, pages.Message{Title: "Not signed in.", Detail: "The program was told no. If you did not start it yourself, tell those who run the gateway: somebody tried to be signed in as you."})
}
