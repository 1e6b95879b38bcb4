package console

import (
	"context"
	"net"
	"net/http"
	"time"

	"sallyport/authn"
)

// keysPath is the page of one's enrolled keys.
const keysPath = "/console/keys"

// newsLasts is how long the first page tells of a key that was enrolled: long enough that somebody who comes once a week sees it.
const newsLasts = 8 * 24 * time.Hour

// enrolledKeys shows the keys that somebody has enrolled for emergencies.
func (s *server) enrolledKeys(v *visit) error {
	list, err := s.Authn.EnrolledKeys(v.Context(), v.who.Identity)
	if err != nil {
		return err
	}
	body := struct {
		Keys  []authn.EnrolledKey
		Taken bool // the gateway takes any
	}{list, s.Authn.TakesKeys()}
	s.show(v, http.StatusOK, "keys.html", page{Title: "Your keys", Path: keysPath, Body: body})
	return nil
}

// newKey asks for a key's name and has the browser make one. Its answer is good once, and for minutes.
func (s *server) newKey(v *visit) error {
	options, err := s.Authn.EnrolKey(v.Context(), v.who.Identity)
	if err != nil {
		return err
	}
	s.show(v, http.StatusOK, "newkey.html", page{Title: "Enrol a key", Path: keysPath, Keys: true, Body: string(options)})
	return nil
}

// enrol takes the key that a browser has made.
func (s *server) enrol(v *visit) error {
	if _, err := s.Authn.KeyEnrolled(v.Context(), v.who.Identity, v.PostForm.Get("name"), []byte(v.PostForm.Get("answer")), addressOf(v.who)); err != nil {
		return err
	}
	return v.redirect(keysPath, "key-enrolled")
}

func (s *server) removeKey(v *visit) error {
	if err := s.Authn.RemoveKey(v.Context(), v.who.Identity, v.PathValue("id"), addressOf(v.who)); err != nil {
		return err
	}
	return v.redirect(keysPath, "key-removed")
}

// addressOf is where somebody asks from, without the port.
func addressOf(who Caller) string {
	if host, _, err := net.SplitHostPort(who.Client); err == nil {
		return host
	}
	return who.Client
}

// keyNews are the keys of somebody's that they should hear of: enrolled lately, perhaps by another, or suspended.
func (s *server) keyNews(ctx context.Context, who authn.Identity) (news []authn.EnrolledKey, err error) {
	list, err := s.Authn.EnrolledKeys(ctx, who)
	for _, k := range list {
		if !k.Suspended.IsZero() || time.Since(k.Enrolled) < newsLasts {
			news = append(news, k)
		}
	}
	return news, err
}
