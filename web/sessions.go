package web

import (
	"context"
	"net/http"
	"strings"
	"time"
	"unicode"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/session"
	"sallyport/web/api"
	"sallyport/web/said"
)

type sessionListing struct {
	All      bool      `query:"all" doc:"Those that are over too."`
	Person   string    `query:"person" maxLength:"320" doc:"Part of a name, an e-mail address or a subject."`
	Target   string    `query:"target" maxLength:"253"`
	Account  string    `query:"account" maxLength:"128"`
	Protocol string    `query:"protocol" maxLength:"32"`
	Grant    string    `query:"grant" maxLength:"64"`
	Since    time.Time `query:"since" doc:"Began at or after."`
	Until    time.Time `query:"until" doc:"Began before."`
	Page
}

func (s *server) registerSessions() {
	handle(s, operation("list-sessions", http.MethodGet, "/v1/sessions", "Sessions: yours, and with the permission those on a target; newest first"),
		func(ctx context.Context, who caller, in *sessionListing) (*listed[api.Session], error) {
			found, err := s.findSessions(ctx, who, session.Filter{
				Live: !in.All, Person: in.Person, Target: in.Target, Account: in.Account, Protocol: in.Protocol, Grant: in.Grant,
				Since: in.Since, Until: in.Until, Before: in.Before, Limit: in.limit() + 1,
			})
			if err != nil {
				return nil, err
			}
			out := &listed[api.Session]{Body: found}
			if len(found) > in.limit() {
				out.Body = found[:in.limit()]
				out.Link = in.next(found[in.limit()-1].ID)
			}
			return out, nil
		})
	handle(s, operation("get-session", http.MethodGet, "/v1/sessions/{id}", "One session"),
		func(ctx context.Context, who caller, in *identified) (*body[api.Session], error) {
			return wrap(s.session(ctx, who, in.ID))
		})
	handle(s, operation("kill-session", http.MethodPost, "/v1/sessions/{id}/kill", "Cut a live session"),
		func(ctx context.Context, who caller, in *decision) (*body[api.Session], error) {
			return wrap(s.kill(ctx, who, in.ID, in.Body.Comment))
		})
}

// findSessions finds sessions of those that the caller may see.
func (s *server) findSessions(ctx context.Context, who caller, f session.Filter) ([]api.Session, error) {
	f.Visible = nil
	if s.Grants.May(who.Identity, grant.ListSessions, "") != nil {
		f.Visible = &session.Visible{Owner: who.Key()}
		for _, t := range s.Config().Targets {
			if s.Grants.May(who.Identity, grant.ListSessions, t.Name) == nil {
				f.Visible.Targets = append(f.Visible.Targets, t.Name)
			}
		}
	}
	found, err := s.Sessions.Find(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]api.Session, 0, len(found))
	for _, info := range found {
		out = append(out, said.Session(info))
	}
	return out, nil
}

// session is one session that the caller may see.
func (s *server) session(ctx context.Context, who caller, id string) (api.Session, error) {
	info, err := s.Sessions.Get(ctx, id)
	if err != nil {
		return api.Session{}, err
	}
	if info.Identity.Key() != who.Key() {
		if err := s.permit(ctx, who, grant.ListSessions, info.Target); err != nil {
			return api.Session{}, err
		}
	}
	return said.Session(info), nil
}

// kill cuts a session for somebody who may.
func (s *server) kill(ctx context.Context, who caller, id, comment string) (api.Session, error) {
	reason, err := oneLine(comment)
	if err != nil {
		return api.Session{}, err
	}
	info, err := s.Sessions.Get(ctx, id)
	if err != nil {
		return api.Session{}, err
	}
	if info.Identity.Key() != who.Key() { // everybody may end their own, and in a hurry
		if err := s.permit(ctx, who, grant.KillSessions, info.Target); err != nil {
			return api.Session{}, err
		}
	}
	if err := s.Sessions.Kill(ctx, id, who.Identity, reason); err != nil {
		return api.Session{}, err
	}
	if info, err = s.Sessions.Get(ctx, id); err != nil {
		return api.Session{}, err
	}
	return said.Session(info), nil
}

// oneLine makes one line of what somebody wrote, or refuses: the one whose session is cut reads it on their terminal, so it
// has nothing in it that a terminal obeys.
func oneLine(text string) (string, error) {
	line := strings.Join(strings.Fields(text), " ")
	for _, r := range line {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			return "", refusal.New(refusal.Invalid, "the comment has a character in it that is no text: %U", r)
		}
	}
	return line, nil
}
