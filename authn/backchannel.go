package authn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sallyport/authn/federation"
	"sallyport/authn/pages"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// strangeLogout is the kind of what strangers do wrong with logout tokens.
const strangeLogout = "http: bad logout token"

// errLoggedOut is that a logout token was acted upon before.
var errLoggedOut = errors.New("the logout token was used before (jti)")

// backChannelLogout is where the company's provider says that somebody is signed out there (OpenID Connect Back-Channel
// Logout 1.0). What hangs on the sign-ins ends in the same transaction, their sessions when they are next looked at.
func (s *Service) backChannelLogout(w http.ResponseWriter, r *http.Request) {
	no := func(status int, code, description string) {
		reply(w, status, map[string]string{"error": code, "error_description": description})
	}
	if err := r.ParseForm(); err != nil || len(r.PostForm["logout_token"]) != 1 || r.URL.Query().Has("logout_token") {
		s.unauthenticated(strangeLogout, r)
		no(http.StatusBadRequest, "invalid_request", "there is not exactly one logout_token in the form, or it is too long")
		return
	}
	provider := s.providerAt(r)
	if provider == nil {
		s.unauthenticated(strangeLogout, r)
		no(http.StatusNotFound, "invalid_request", "there is no provider of that name")
		return
	}
	told, err := provider.Logout(r.Context(), r.PostForm.Get("logout_token"))
	if err == nil {
		err = s.logOut(r.Context(), told, visitorOf(r.Context()).address)
	} else if !errors.Is(err, federation.ErrUnavailable) {
		err = refusal.New(refusal.NotAuthenticated, "the logout token is not accepted").Because(err)
	}
	switch bad := refusal.Of(err); {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case bad != nil:
		s.unauthenticated(strangeLogout, r)
		s.logStranger(r, "a logout token was refused", bad.Cause)
		no(http.StatusBadRequest, "invalid_request", bad.Message)
	case errors.Is(err, federation.ErrUnavailable):
		s.log.Warn("a logout token can't be verified, because the company's provider can't be asked", "err", err)
		pages.RetryAfter(w.Header(), 5*time.Second)
		no(http.StatusServiceUnavailable, "temporarily_unavailable", "the provider can't be asked for what is needed to verify the token")
	default:
		s.log.Error("a logout by the company's provider failed", "err", err)
		no(http.StatusInternalServerError, "server_error", "the gateway failed to do this; its log says why")
	}
}

// logOut ends what a verified logout token is about. Nobody by that name being signed in is no error: there is nothing to end.
func (s *Service) logOut(ctx context.Context, told federation.Logout, from string) error {
	return s.store.Do(ctx, func(tx *store.Tx) error {
		done, err := tx.ExecContext(ctx, `INSERT INTO logout_tokens (issuer, token, expires) VALUES (?, ?, ?) ON CONFLICT (issuer, token) DO NOTHING`,
			told.Issuer, told.ID, stamp(told.Until))
		if err != nil {
			return fmt.Errorf("remember the logout token: %w", err)
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(refusal.New(refusal.NotAuthenticated, "the logout token is not accepted").Because(errLoggedOut), err)
		}
		if err := s.forgetTrips(ctx, tx, told); err != nil {
			return err
		}
		people := []Identity{{Issuer: told.Issuer, Subject: told.Subject}}
		if told.Subject == "" {
			if people, err = ofSession(ctx, tx, told); err != nil {
				return err
			}
		}
		for _, who := range people {
			if err := s.logOutOf(ctx, tx, who, told.Session, from); err != nil {
				return err
			}
		}
		return nil
	})
}

// ofSession are the people who signed in during a session of the provider's. There should be one.
func ofSession(ctx context.Context, tx *store.Tx, told federation.Logout) (people []Identity, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT DISTINCT i.subject FROM sign_ins s JOIN identities i ON i.id = s.identity WHERE s.session = ? AND s.ended = 0 AND i.issuer = ? AND i.kind = ?`,
		told.Session, told.Issuer, Human)
	if err != nil {
		return nil, fmt.Errorf("find whose session ended: %w", err)
	}
	subjects, err := column[string](rows)
	if err != nil {
		return nil, fmt.Errorf("find whose session ended: %w", err)
	}
	for _, subject := range subjects {
		people = append(people, Identity{Issuer: told.Issuer, Subject: subject})
	}
	return people, nil
}

// logOutOf ends a person's sign-ins: all, or those of the provider's session. One of which the provider did not say to which
// of its sessions it belongs counts to each.
func (s *Service) logOutOf(ctx context.Context, tx *store.Tx, who Identity, session, from string) error {
	id := identityID(who.Issuer, who.Subject)
	err := tx.QueryRowContext(ctx, `SELECT name, email, kind FROM identities WHERE id = ? AND kind = ?`, id, Human).Scan(&who.Name, &who.Email, &who.Kind)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // never signed in here
	}
	if err != nil {
		return fmt.Errorf("look up who signed out: %w", err)
	}
	const reason = "signed out at the company's provider"
	rows, err := tx.QueryContext(ctx, `SELECT s.id, s.session FROM sign_ins s JOIN identities i ON i.id = s.identity
		WHERE i.id = ? AND s.ended = 0 AND s.at > i.signed_out AND s.expires > ?`, id, stamp(s.now()))
	if err != nil {
		return fmt.Errorf("find the sign-ins of %s: %w", who.Key(), err)
	}
	var meant []string
	others := false
	err = func() error {
		defer rows.Close()
		for rows.Next() {
			var signIn, of string
			if err := rows.Scan(&signIn, &of); err != nil {
				return err
			}
			if session == "" || of == "" || of == session {
				meant = append(meant, signIn)
			} else {
				others = true
			}
		}
		return rows.Err()
	}()
	if err != nil {
		return fmt.Errorf("find the sign-ins of %s: %w", who.Key(), err)
	}
	by := event("", who, "")
	if err = s.bar(ctx, tx, who, reason); err == nil && !others {
		err = s.end(ctx, tx, who, by, reason)
	}
	for _, signIn := range meant {
		if others && err == nil {
			err = s.endSignIns(ctx, tx, who, `SELECT id FROM sign_ins WHERE id = ?`, signIn, by, reason)
		}
	}
	if err != nil {
		return err
	}
	e := event("logout", who, from)
	e.Reason = reason
	e.Fields["sign_ins"] = strconv.Itoa(len(meant))
	if session != "" {
		e.Fields["session"] = session
	}
	return tx.Audit(e)
}

// forgetTrips ends those sign-ins that the provider has proven and that wait for the person's word.
func (s *Service) forgetTrips(ctx context.Context, tx *store.Tx, told federation.Logout) error {
	rows, err := tx.QueryContext(ctx, `SELECT identity FROM trips WHERE identity <> '' AND expires > ?`, stamp(s.now()))
	if err != nil {
		return fmt.Errorf("look for sign-ins on their way: %w", err)
	}
	waiting, err := column[string](rows)
	if err != nil {
		return fmt.Errorf("look for sign-ins on their way: %w", err)
	}
	for _, kept := range waiting {
		who, err := s.unpack(kept)
		if err != nil {
			return fmt.Errorf("a sign-in on its way: %w", err)
		}
		if who.Issuer != told.Issuer || told.Subject != "" && who.Subject != told.Subject ||
			told.Session != "" && who.session != told.Session && (told.Subject == "" || who.session != "") {
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM trips WHERE identity = ?`, kept); err != nil {
			return fmt.Errorf("end a sign-in on its way: %w", err)
		}
	}
	return nil
}
