// Package console is the gateway's face in a browser: ask, approve, watch, replay, find.
//
// It promises that it has no way to anything but Desk, the functions that the API stands on: what somebody sees and does
// here takes the same permissions and leaves the same audit events as through the API. A browser is signed in at the
// gateway's own issuer, by authorization code and PKCE, and holds one cookie that no script can read; a form is taken only
// from the console's own pages (origin and token both). Pages are rendered on the server by templates that escape by
// themselves; what was recorded is never anything but text in them, and a terminal's output is drawn by a player that is
// served from here too. Nothing is loaded from elsewhere, and the policy that browsers are told forbids it. Without
// scripts all but the terminal player and the enrolling of keys works.
package console

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"sallyport/authn"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// Options configure New. All are required.
type Options struct {
	Desk     Desk
	Authn    *authn.Service
	Sessions *Sessions
	// Proven takes a request's connection off the strangers' count.
	Proven func(context.Context)
	Log    *slog.Logger
}

// sessionCookie holds the secret of a browser that is signed in. The prefix makes browsers insist on Secure, on this host,
// for all paths.
const sessionCookie = "__Host-sallyport-console"

// patience is how long a page may take to be made: searching and verifying read what may be a lot.
const patience = 10 * time.Minute

// writeTimeout is how long a browser may take to read a page, or one piece of a recording.
const writeTimeout = 60 * time.Second

type server struct {
	Options
	origin *http.CrossOriginProtection
}

// visit is one request of somebody who is signed in.
type visit struct {
	*http.Request
	w    http.ResponseWriter
	who  Caller
	keys keys
}

// New makes the handler of everything below /console/.
func New(o Options) http.Handler {
	s := &server{Options: o, origin: http.NewCrossOriginProtection()}
	mux := http.NewServeMux()
	for pattern, do := range s.open() {
		mux.HandleFunc(pattern, do)
	}
	for pattern, do := range s.guarded() {
		mux.HandleFunc(pattern, s.signedIn(pattern, do))
	}
	return secure(mux)
}

// Patterns are all that the console answers to: what it gives to anybody, and what only to those who are signed in.
func Patterns() (anybody, signedIn []string) {
	s := &server{}
	return slices.Sorted(maps.Keys(s.open())), slices.Sorted(maps.Keys(s.guarded()))
}

// open are the handlers of what anybody may ask for.
func (s *server) open() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /console/sign-in":       s.signInPage,
		"GET /console/sign-in/start": s.startSignIn,
		"GET /console/callback":      s.callback,
		"GET /console/assets/{file}": s.asset,
	}
}

// guarded are the handlers of what takes a sign-in.
func (s *server) guarded() map[string]func(*visit) error {
	return map[string]func(*visit) error{
		"GET /console/{$}":                              s.access,
		"GET /console/ask":                              s.askForm,
		"POST /console/requests":                        s.ask,
		"GET /console/requests/{id}":                    s.request,
		"POST /console/requests/{id}/{verb}":            s.decide,
		"GET /console/inbox":                            s.inbox,
		"GET /console/sessions":                         s.sessions,
		"GET /console/sessions/{id}":                    s.session,
		"GET /console/sessions/{id}/watch":              s.watch,
		"GET /console/sessions/{id}/stream":             s.stream,
		"GET /console/sessions/{id}/screen":             s.screen,
		"GET /console/events":                           s.events,
		"GET /console/live":                             s.live,
		"GET /console/sessions/{id}/cast":               s.cast,
		"GET /console/sessions/{id}/proof":              s.proof,
		"GET /console/sessions/{id}/segments":           s.segments,
		"GET /console/sessions/{id}/segments/{n}":       s.segment,
		"POST /console/sessions/{id}/evidence":          s.evidence,
		"POST /console/sessions/{id}/kill":              s.kill,
		"GET /console/search":                           s.search,
		"GET /console/grants":                           s.grants,
		"GET /console/policies":                         s.policies,
		"GET /console/policies/held":                    s.held,
		"POST /console/policies/held/{revision}/{verb}": s.decideHeld,
		"GET /console/health":                           s.health,
		"GET /console/audit":                            s.audit,
		"GET /console/keys":                             s.enrolledKeys,
		"POST /console/keys":                            s.enrol,
		"POST /console/keys/new":                        s.newKey,
		"POST /console/keys/{id}/remove":                s.removeKey,
		"GET /console/verify":                           s.verify,
		"POST /console/verify":                          s.verify,
		"POST /console/sign-out":                        s.signOut,
		"POST /console/sign-out-everywhere":             s.signOutEverywhere,
		"GET /console/":                                 s.nothing,
	}
}

// secure tells browsers to load nothing from elsewhere, to run no script and use no style that stands in a page, and to
// send forms nowhere else.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy(""))
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// policy is the content security policy of the console's pages, with more sources of scripts where a page needs them.
func policy(scripts string) string {
	return "default-src 'none'; script-src 'self'" + scripts + "; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

// signedIn lets a request through whose browser is signed in; a form also has to come from the console itself.
func (s *server) signedIn(pattern string, do func(*visit) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.visit(w, r)
		if err != nil {
			s.turnAway(w, r, pattern, err)
			return
		}
		s.Proven(r.Context())
		if r.Method == http.MethodPost {
			if err := s.genuine(v); err != nil {
				s.Authn.Unauthenticated("console: a form that did not come from it", remote(r.RemoteAddr))
				s.problem(v, s.Desk.Problem(pattern, err))
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		control := http.NewResponseController(w)
		if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
			s.problem(v, s.Desk.Problem(pattern, err))
			return
		}
		v.Request = r.WithContext(ctx)
		if err := do(v); err != nil {
			s.problem(v, s.Desk.Problem(pattern, err))
		}
	}
}

// visit finds out who sends a request.
func (s *server) visit(w http.ResponseWriter, r *http.Request) (*visit, error) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil, errNoSession
	}
	// What a page fetches by itself does not keep a browser signed in that nobody sits at.
	active := r.Method == http.MethodPost || r.Header.Get("Sec-Fetch-Mode") == "navigate"
	token, keys, err := s.Sessions.find(r.Context(), cookie.Value, active)
	if err != nil {
		return nil, err
	}
	who, err := s.Authn.Bearer(r.Context(), token)
	if err != nil {
		return nil, err
	}
	return &visit{Request: r, w: w, who: Caller{Identity: who, Client: r.RemoteAddr}, keys: keys}, nil
}

// turnAway answers a request of nobody who is signed in: a page leads to the sign-in and back.
func (s *server) turnAway(w http.ResponseWriter, r *http.Request, operation string, err error) {
	no := refusal.Of(err)
	if no == nil && !errors.Is(err, errNoSession) {
		s.problem(&visit{Request: r, w: w}, s.Desk.Problem(operation, err))
		return
	}
	if _, sent := r.Cookie(sessionCookie); sent == nil {
		s.Authn.Unauthenticated("console: a session that is over", remote(r.RemoteAddr))
		clearCookie(w, sessionCookie)
	}
	if r.Method == http.MethodGet {
		http.Redirect(w, r, "/console/sign-in?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		return
	}
	if no == nil {
		no = refusal.New(refusal.NotAuthenticated, "you are not signed in")
	}
	p := s.Desk.Problem(operation, no)
	p.Hint = "sign in, then do it again: nothing was changed"
	s.problem(&visit{Request: r, w: w}, p)
}

// genuine refuses a form that the console's own pages did not send.
func (s *server) genuine(v *visit) error {
	foreign := refusal.New(refusal.NotPermitted, "this form did not come from the console").
		WithDetail("it was sent by another site, or from a page that was opened before you signed in").WithHint("open the page again and repeat it")
	if err := s.origin.Check(v.Request); err != nil {
		return foreign.Because(err)
	}
	if err := v.ParseForm(); err != nil {
		return refusal.New(refusal.Invalid, "the form can't be read").WithDetail("it is too large, or was cut short").Because(err)
	}
	if !v.keys.isToken(v.PostForm.Get("csrf")) {
		return foreign
	}
	return nil
}

func (s *server) nothing(*visit) error {
	return refusal.New(refusal.NotFound, "there is nothing at this address")
}

// redirect ends a deed: the browser is sent to a page that says how it went, and reloading that repeats nothing.
func (v *visit) redirect(path, done string) error {
	to := path
	if done != "" {
		to += "?done=" + done
	}
	http.Redirect(v.w, v.Request, to, http.StatusSeeOther) //nolint:gosec // paths are of this package, their parts escaped
	return nil
}

// remote is a request's address as authn counts it.
func remote(address string) net.Addr {
	if a, err := netip.ParseAddrPort(address); err == nil {
		return net.TCPAddrFromAddrPort(a)
	}
	return &net.TCPAddr{}
}

func clearCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// problem shows why something was not done.
func (s *server) problem(v *visit, p *api.Problem) {
	back := home
	if p.Code == string(refusal.StepUp) {
		back = backTo(v.Request)
	}
	s.show(v, p.Status, "problem.html", page{Title: http.StatusText(p.Status), Back: back, Body: p})
}

// backTo is the console's page on which somebody was about to do something.
func backTo(r *http.Request) string {
	if r.Method == http.MethodGet {
		return safeNext(r.URL.RequestURI())
	}
	// The address of a deed is below that of the thing it is done to.
	if strings.HasPrefix(r.URL.Path, "/console/requests/") || strings.HasPrefix(r.URL.Path, "/console/sessions/") {
		return safeNext(path.Dir(r.URL.Path))
	}
	if strings.HasPrefix(r.URL.Path, heldPath+"/") {
		return heldPath
	}
	if r.URL.Path == keysPath || strings.HasPrefix(r.URL.Path, keysPath+"/") {
		return keysPath
	}
	return home
}
