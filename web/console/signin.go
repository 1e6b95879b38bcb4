package console

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sallyport/internal/refusal"
)

// signInCookie holds what a browser needs on its way to the issuer and back: state, PKCE verifier and where it wanted to go.
const signInCookie = "__Host-sallyport-console-sign-in"

// signInLife is how long that way may take.
const signInLife = 15 * time.Minute

// mostNext bounds an address to come back to.
const mostNext = 1000

// home is where nobody wanted to go anywhere else.
const home = "/console/"

// safeNext is an address of the console's own pages; whatever else it is asked for becomes home, so that a link to the
// sign-in leads nowhere else.
func safeNext(next string) string {
	u, err := url.Parse(next)
	if err != nil || len(next) > mostNext || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" ||
		!strings.HasPrefix(u.Path, home) || path.Clean(u.Path)+"/" != strings.TrimSuffix(u.Path, "/")+"/" ||
		strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(u.Path, home+"sign-") || strings.HasPrefix(u.Path, home+"callback") {
		return home
	}
	u.Fragment = ""
	return u.String()
}

func (s *server) signInPage(w http.ResponseWriter, r *http.Request) {
	next := safeNext(r.URL.Query().Get("next"))
	s.show(&visit{Request: r, w: w}, http.StatusOK, "signin.html", page{Title: "Sign in", Body: struct {
		Next string
		Out  bool
	}{next, r.URL.Query().Get("out") != ""}})
}

// startSignIn sends the browser to the gateway's issuer.
func (s *server) startSignIn(w http.ResponseWriter, r *http.Request) {
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	next := base64.RawURLEncoding.EncodeToString([]byte(safeNext(r.URL.Query().Get("next"))))
	http.SetCookie(w, &http.Cookie{
		Name: signInCookie, Value: state + "." + verifier + "." + next, Path: "/", MaxAge: int(signInLife / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, // sent when the provider sends the browser back
	})
	http.Redirect(w, r, s.Authn.ConsoleSignIn(state, oauth2.S256ChallengeFromVerifier(verifier), r.URL.Query().Get("fresh") != ""), http.StatusSeeOther) //nolint:gosec // to the gateway itself
}

// callback is where the issuer sends the browser back to, with a code.
func (s *server) callback(w http.ResponseWriter, r *http.Request) {
	v, q := &visit{Request: r, w: w}, r.URL.Query()
	state, verifier, next, err := returning(r)
	if err != nil || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
		s.Authn.Unauthenticated("console: a sign-in that was not begun here", remote(r.RemoteAddr))
		s.problem(v, s.Desk.Problem("sign in", refusal.New(refusal.NotAuthenticated, "this sign-in is over, or was begun in another browser").
			WithHint("begin again")))
		return
	}
	clearCookie(w, signInCookie)
	if no := q.Get("error"); no != "" {
		s.problem(v, s.Desk.Problem("sign in", refusal.New(refusal.NotAuthenticated, "you were not signed in").
			WithDetail("%.300s", q.Get("error_description")).WithHint("begin again")))
		return
	}
	cookie, err := s.signIn(r, q.Get("code"), verifier)
	if err != nil {
		if refusal.Of(err) != nil {
			s.Authn.Unauthenticated("console: a code that is none", remote(r.RemoteAddr))
		}
		p := s.Desk.Problem("sign in", err)
		if refusal.Is(err, refusal.NotAuthenticated) {
			p.Hint = "begin again"
		}
		s.problem(v, p)
		return
	}
	if err := s.forget(r); err != nil { // who was signed in here before
		s.Log.Error("a session of the console could not be ended", "error", err)
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: cookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // safeNext leads nowhere else
}

// returning reads what startSignIn left with the browser.
func returning(r *http.Request) (state, verifier, next string, err error) {
	cookie, err := r.Cookie(signInCookie)
	if err != nil {
		return "", "", "", err
	}
	parts := strings.Split(cookie.Value, ".")
	if len(parts) != 3 || parts[0] == "" {
		return "", "", "", errors.New("the cookie is not one of ours")
	}
	decoded, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return "", "", "", err
	}
	return parts[0], parts[1], safeNext(string(decoded)), nil
}

// signIn turns a code into a session and returns its cookie.
func (s *server) signIn(r *http.Request, code, verifier string) (string, error) {
	token, err := s.Authn.RedeemConsole(r.Context(), code, verifier)
	if err != nil {
		return "", err
	}
	who, err := s.Authn.Bearer(r.Context(), token)
	if err != nil {
		return "", err
	}
	return s.Sessions.begin(r.Context(), token, who.Expires)
}

// forget ends the session that the browser's cookie stands for, if any, and the token behind it.
func (s *server) forget(r *http.Request) error {
	cookie, missing := r.Cookie(sessionCookie)
	if missing != nil {
		return nil //nolint:nilerr // nobody was signed in
	}
	token, keys, err := s.Sessions.find(r.Context(), cookie.Value, false)
	if errors.Is(err, errNoSession) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(s.Authn.EndConsole(r.Context(), token), s.Sessions.end(r.Context(), keys))
}

// signOut ends this browser's session; the command line's goes on.
func (s *server) signOut(v *visit) error {
	if err := s.forget(v.Request); err != nil {
		return err
	}
	clearCookie(v.w, sessionCookie)
	http.Redirect(v.w, v.Request, "/console/sign-in?out=1", http.StatusSeeOther)
	return nil
}

// signOutEverywhere ends all that the person was given, as `sallyport logout` does.
func (s *server) signOutEverywhere(v *visit) error {
	if err := s.Authn.Revoke(v.Context(), v.who.Identity); err != nil {
		return err
	}
	return s.signOut(v)
}
