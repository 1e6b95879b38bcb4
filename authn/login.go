package authn

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/oauth2"

	"sallyport/authn/federation"
	"sallyport/authn/pages"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// The kinds of what strangers do wrong while signing in.
const (
	strangeRequest = "http: oversized request to sign in"
	strangeBrowser = "http: sign-in from another browser than it began in"
	strangeState   = "http: sign-in with an unknown state"
	strangeProof   = "http: sign-in that the provider did not prove"
)

// authorize begins the authorization code flow: op checks the request and sends the browser on to login. The whole
// request is bounded here, for op logs and repeats parts of what it refuses.
func (s *Service) authorize(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.RawQuery) > maxAuthorize {
		s.unauthenticated(strangeRequest, r)
		refuse(w, r, http.StatusRequestURITooLong, refusal.New(refusal.Invalid, "the request is longer than %d bytes", maxAuthorize))
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxAuthorize)
	visitorOf(r.Context()).remember(w)
	op.Authorize(w, r, s.issuer)
}

// begun looks up the request that the browser is on its way with, and refuses any other browser.
func (s *Service) begun(r *http.Request) (*authRequest, error) {
	request, err := s.authRequest(r.Context(), r.FormValue("id"))
	if known := (*oidc.Error)(nil); errors.As(err, &known) {
		return nil, refuseOver()
	}
	if err != nil {
		return nil, err
	}
	if !visitorOf(r.Context()).is(request.browser) {
		s.unauthenticated(strangeBrowser, r)
		return nil, refuseOver().WithDetail("it was begun in another browser, or this one keeps no cookies")
	}
	return request, nil
}

func refuseOver() *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "this sign-in is over, or was never begun").WithHint("begin again: sallyport login")
}

// login sends the browser to the company's provider. Where a program on the person's machine asked for it, which anybody can
// have a browser do by a link, they are asked first: only their own browser knows the address behind it (id).
func (s *Service) login(w http.ResponseWriter, r *http.Request) {
	request, err := s.begun(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if request.client == cliClient && r.URL.Path != pathLoginGo {
		pages.Show(w, http.StatusOK, pages.Program{Address: request.redirect, Asked: s.now(), Next: pathLoginGo + "?id=" + url.QueryEscape(request.id)})
		return
	}
	s.travel(w, r, trip{authRequest: request.id, fresh: request.fresh != 0})
}

// trip is a row of trips.
type trip struct {
	authRequest string
	device      []byte
	hold        string // of a connection that waits; see holds
	provider    string // the issuer of the one that the browser was sent to
	nonce       string
	verifier    string
	identity    string
	fresh       bool // the person is to prove themselves anew; not kept
}

// travel sends the browser to the provider, with a state, a nonce and a verifier of its own.
func (s *Service) travel(w http.ResponseWriter, r *http.Request, t trip) {
	ctx := r.Context()
	provider, err := s.chosen(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if provider == nil {
		pages.Show(w, http.StatusOK, s.choices(r))
		return
	}
	if shown, err := s.offerKey(w, r, t, provider); shown || err != nil {
		if err != nil {
			s.fail(w, r, err)
		}
		return
	}
	state := rand.Text()
	t.provider, t.nonce, t.verifier = provider.Issuer(), rand.Text(), oauth2.GenerateVerifier()
	to, err := provider.Start(ctx, state, t.nonce, t.verifier, t.fresh)
	if err == nil {
		err = s.store.Do(ctx, func(tx *store.Tx) error { return s.keepTrip(ctx, tx, state, visitorOf(ctx).browser, t, tripLife) })
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, to, http.StatusFound) //nolint:gosec // to the provider that the configuration names
}

func (s *Service) keepTrip(ctx context.Context, tx *store.Tx, state string, browser []byte, t trip, life time.Duration) error {
	if err := roomFor(ctx, tx, "trips"); err != nil {
		return err
	}
	var authRequest any
	if t.authRequest != "" {
		authRequest = t.authRequest
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO trips (state, browser, nonce, verifier, auth_request, device, hold, provider, identity, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		hashed(state), browser, t.nonce, t.verifier, authRequest, t.device, t.hold, t.provider, t.identity, stamp(s.now().Add(life)))
	if err != nil {
		return fmt.Errorf("keep the way to the provider: %w", err)
	}
	return nil
}

// back ends the trip that the state belongs to; a state is good once, and only in the browser that set out. proven says
// whether it is one that waits for its confirmation, which must not be taken for one that comes from the provider.
func (s *Service) back(ctx context.Context, tx *store.Tx, state string, proven bool) (trip, error) {
	v := visitorOf(ctx)
	if v.browser == nil || state == "" || len(state) > maxParameter {
		return trip{}, refuseOver()
	}
	var t trip
	var authRequest sql.NullString
	err := tx.QueryRowContext(ctx, `DELETE FROM trips WHERE state = ? AND browser = ? AND expires > ? AND (identity <> '') = ? RETURNING auth_request, device, hold, provider, nonce, verifier, identity`,
		hashed(state), v.browser, stamp(s.now()), proven).Scan(&authRequest, &t.device, &t.hold, &t.provider, &t.nonce, &t.verifier, &t.identity)
	if errors.Is(err, sql.ErrNoRows) {
		return trip{}, refuseOver()
	}
	if err != nil {
		return trip{}, fmt.Errorf("look up the way to the provider: %w", err)
	}
	t.authRequest = authRequest.String
	return t, nil
}

// callback is where the company's provider sends the browser back to.
func (s *Service) callback(w http.ResponseWriter, r *http.Request) {
	ctx, q := r.Context(), r.URL.Query()
	var t trip
	err := s.store.Do(ctx, func(tx *store.Tx) (err error) {
		t, err = s.back(ctx, tx, q.Get("state"), false)
		return err
	})
	if err != nil {
		if refusal.Of(err) != nil {
			s.unauthenticated(strangeState, r)
		}
		s.fail(w, r, err)
		return
	}
	who, err := s.proven(r, q, t)
	if err != nil {
		if !errors.Is(err, federation.ErrUnavailable) {
			s.unauthenticated(strangeProof, r)
		}
		s.turnBack(w, r, t, err)
		return
	}
	if next, done := s.goOn(w, r, t, who); done {
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
}

// goOn takes somebody who has proven themselves further on the way that they came: to the page that asks whether they mean it, or to
// the end of the sign-in. next is where the browser goes then; where it is not done, the answer has been given.
func (s *Service) goOn(w http.ResponseWriter, r *http.Request, t trip, who Identity) (next string, done bool) {
	switch {
	case t.device != nil:
		s.askDevice(w, r, t, who)
		return "", false
	case t.hold != "":
		s.askHold(w, r, t, who, "")
		return "", false
	}
	if err := s.finish(r.Context(), t, who); err != nil {
		s.turnBack(w, r, t, err)
		return "", false
	}
	return pathAuthorized + "?id=" + url.QueryEscape(t.authRequest), true
}

// finish records a sign-in and gives it to the client's request that t is the way of.
func (s *Service) finish(ctx context.Context, t trip, who Identity) error {
	return s.commitRefusals(ctx, func(tx *store.Tx) error {
		_, signIn, err := s.signIn(ctx, tx, who, visitorOf(ctx).address)
		if err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, `UPDATE auth_requests SET sign_in = ? WHERE id = ? AND sign_in IS NULL AND expires > ?`, signIn, t.authRequest, stamp(s.now()))
		if err != nil {
			return fmt.Errorf("finish the sign-in: %w", err)
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(errSignInOver, err)
		}
		return nil
	})
}

// errSignInOver undoes a sign-in whose request has ended meanwhile.
var errSignInOver = errors.New("the client's request ended while the person signed in")

// proven asks the provider what the code that came back is worth.
func (s *Service) proven(r *http.Request, q url.Values, t trip) (Identity, error) {
	ctx := r.Context()
	provider := s.providerAt(r)
	if provider == nil || provider.Issuer() != t.provider {
		return Identity{}, refuseMixUp("the answer came to the address of another provider than the sign-in went to")
	}
	if err := provider.From(ctx, q["iss"]); err != nil {
		if errors.Is(err, federation.ErrUnavailable) {
			return Identity{}, err
		}
		return Identity{}, refuseMixUp(err.Error())
	}
	if q.Get("error") != "" || q.Get("code") == "" || len(q.Get("code")) > 4*maxParameter {
		return Identity{}, refusal.New(refusal.NotAuthenticated, "the company's provider did not sign you in").
			WithDetail("it says: %q", printable(q.Get("error"), 64)).WithHint("begin again: sallyport login")
	}
	claims, err := provider.Finish(ctx, q.Get("code"), t.nonce, t.verifier)
	if err != nil {
		return Identity{}, err
	}
	who := Identity{Issuer: claims.Issuer, Subject: claims.Subject, Kind: Human, Name: claims.Name, Email: claims.Email, Groups: claims.Groups,
		AuthTime: claims.Authenticated, ACR: claims.ACR, AMR: claims.AMR, session: claims.Session, refresh: claims.Refresh, groupsIn: claims.GroupsIn, match: claims.Match, Claims: claims.Others}
	if who.Groups == nil {
		who.Groups = []string{}
	}
	return who, nil
}

// turnBack ends a sign-in that failed: the client that waits is told, through its redirect, or the person by a page.
func (s *Service) turnBack(w http.ResponseWriter, r *http.Request, t trip, err error) {
	unavailable := errors.Is(err, federation.ErrUnavailable)
	no := refusal.Of(err)
	switch {
	case no != nil || unavailable:
	case errors.Is(err, errSignInOver):
		no = refuseOver()
	default:
		no = refusal.New(refusal.NotAuthenticated, "the company's provider did not prove who you are").
			WithHint("begin again: sallyport login; if it persists, tell those who run the gateway: its log says why").Because(err)
		s.log.Warn("a sign-in at the company's provider failed", "err", err)
	}
	request, lookup := s.authRequest(r.Context(), t.authRequest)
	switch {
	case lookup != nil && unavailable:
		s.fail(w, r, err)
	case lookup != nil:
		s.fail(w, r, no)
	case unavailable:
		s.log.Warn("the company's provider can't be asked", "err", err)
		op.AuthRequestError(w, r, request, oidc.ErrServerError().WithDescription("the company's sign-in provider does not answer; try again"), s.issuer)
	default:
		description := no.Message
		if no.Detail != "" {
			description += ": " + no.Detail
		}
		op.AuthRequestError(w, r, request, oidc.ErrAccessDenied().WithDescription("%s", description), s.issuer)
	}
}

// authorized hands the code to the client, which op does; this insists on the browser.
func (s *Service) authorized(w http.ResponseWriter, r *http.Request) {
	if _, err := s.begun(r); err != nil {
		s.fail(w, r, err)
		return
	}
	op.AuthorizeCallback(w, r, s.issuer)
}

// pack and unpack are how an identity waits in a trip for its confirmation.
func (s *Service) pack(who Identity) (string, error) {
	p := packed{Identity: who, Session: who.session, GroupsIn: who.groupsIn, Match: who.match}
	if who.refresh != "" {
		kept, err := s.seal(who.refresh)
		if err != nil {
			return "", err
		}
		p.Refresh = kept
	}
	data, err := json.Marshal(p)
	return string(data), err
}

func (s *Service) unpack(data string) (Identity, error) {
	var p packed
	err := json.Unmarshal([]byte(data), &p)
	p.Identity.session, p.Identity.groupsIn, p.Identity.match = p.Session, p.GroupsIn, p.Match
	if err == nil && p.Refresh != "" {
		p.Identity.refresh, err = s.unseal(p.Refresh)
	}
	return p.Identity, err
}

type packed struct {
	Identity Identity
	Session  string
	Refresh  string // encrypted
	GroupsIn federation.Place
	Match    string
}
