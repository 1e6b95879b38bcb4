package authn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/crypto/ssh"

	"sallyport/authn/pages"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// strangeHold is what strangers do wrong with waits.
const strangeHold = "http: unknown or ended wait for a sign-in"

// connection is what the pages say of a wait.
func (s *Service) connection(ctx context.Context, h *held) pages.Connection {
	p := h.purpose
	c := pages.Connection{
		For: p.Account + "@" + p.Target, Protocol: p.Protocol, Address: h.address, Agent: p.Client, Asked: h.asked,
		Next: pathHoldLogin + "?id=" + h.link,
	}
	if here := visitorOf(ctx).address; here != h.address {
		c.Elsewhere = here
	}
	if p.Key != nil {
		c.Key, c.KeyLasts = ssh.FingerprintSHA256(p.Key), s.config.Credentials.SSHKey.String()
	}
	return c
}

// hold shows what waits behind a link. It says nothing that the terminal does not say, and gives nothing.
func (s *Service) hold(w http.ResponseWriter, r *http.Request) {
	h, err := s.waitsFor(holdID(r.URL.Query().Get("id")))
	if err != nil {
		s.unauthenticated(strangeHold, r)
		refuse(w, r, http.StatusNotFound, refusal.Of(err))
		return
	}
	pages.Show(w, http.StatusOK, s.connection(r.Context(), h))
}

// holdLogin sends the person to the company's provider; askHold follows.
func (s *Service) holdLogin(w http.ResponseWriter, r *http.Request) {
	id := holdID(r.URL.Query().Get("id"))
	if _, err := s.waitsFor(id); err != nil {
		s.unauthenticated(strangeHold, r)
		refuse(w, r, http.StatusNotFound, refusal.Of(err))
		return
	}
	visitorOf(r.Context()).remember(w)
	s.travel(w, r, trip{hold: id})
}

// askHold asks a person whom the provider has just proven whether the connection is theirs: they have to type the code that
// only its terminal shows.
func (s *Service) askHold(w http.ResponseWriter, r *http.Request, t trip, who Identity, problem string) {
	ctx := r.Context()
	h, err := s.waitsFor(t.hold)
	token := rand.Text()
	if err == nil {
		var packed string
		if packed, err = s.pack(who); err == nil {
			err = s.store.Do(ctx, func(tx *store.Tx) error {
				return s.keepTrip(ctx, tx, token, visitorOf(ctx).browser, trip{hold: t.hold, identity: packed}, confirmLife)
			})
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	pages.Show(w, http.StatusOK, pages.ConfirmConnection{Connection: s.connection(ctx, h), Who: who.Label(), Email: who.Email, Token: token, Problem: problem})
}

// holdConfirm takes the person's answer.
func (s *Service) holdConfirm(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, refusal.New(refusal.Invalid, "the form can't be read"))
		return
	}
	var t trip
	err := s.store.Do(ctx, func(tx *store.Tx) (err error) {
		t, err = s.back(ctx, tx, r.PostForm.Get("confirm"), true)
		return err
	})
	if err != nil || t.hold == "" {
		if err == nil {
			err = refuseOver()
		}
		if refusal.Of(err) != nil {
			s.unauthenticated(strangeConfirm, r)
		}
		s.fail(w, r, err)
		return
	}
	who, err := s.unpack(t.identity)
	if err != nil {
		s.fail(w, r, fmt.Errorf("who confirms a connection: %w", err))
		return
	}
	h, err := s.waitsFor(t.hold)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if r.PostForm.Get("decision") != "approve" {
		s.denyHold(w, r, h, who, "the person said no")
		return
	}
	right, left := h.guess(r.PostForm.Get("code"))
	switch {
	case !right && left > 0:
		s.unauthenticated(strangeHold, r)
		s.askHold(w, r, t, who, fmt.Sprintf("That is not the code. Tries left: %d.", left))
		return
	case !right:
		s.denyHold(w, r, h, who, "the wrong code was typed three times")
		return
	}
	if !h.take() {
		s.fail(w, r, refuseOver())
		return
	}
	err = s.commitRefusals(ctx, func(tx *store.Tx) error { return s.complete(ctx, tx, h, who) })
	if err != nil {
		no := refusal.Of(err)
		if no == nil {
			no = refusal.New(refusal.NotAuthenticated, "the gateway failed to record the sign-in").WithHint("connect again")
		}
		h.finish(Identity{}, no)
		s.fail(w, r, err)
		return
	}
	pages.Show(w, http.StatusOK, pages.Message{Title: "Signed in.", Detail: "Close this page and go on in the terminal."})
}

// denyHold ends a wait to which a known person said no, and writes it down.
func (s *Service) denyHold(w http.ResponseWriter, r *http.Request, h *held, who Identity, why string) {
	ctx := r.Context()
	h.finish(Identity{}, refusal.New(refusal.NotAuthenticated, "the sign-in was denied").WithDetail("%s", why).WithHint("connect again, and type the code from your terminal"))
	e := event("login.refused", who, visitorOf(ctx).address)
	e.Outcome, e.Reason = string(refusal.NotPermitted), why
	e.Fields["client"], e.Fields["for"], e.Fields["protocol"] = h.address, h.purpose.Account+"@"+h.purpose.Target, h.purpose.Protocol
	if err := s.store.Audit(ctx, e); err != nil {
		s.fail(w, r, errors.Join(errors.New("a refused sign-in could not be audited"), err))
		return
	}
	pages.Show(w, http.StatusOK, pages.Message{Title: "Not signed in.", Detail: "The connection was told no. If you did not start it yourself, tell those who run the gateway: somebody tried to be signed in as you."})
}
