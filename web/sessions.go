package web

import (
	"context"
	"net/http"
	"strings"
	"unicode"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/session"
	"sallyport/web/api"
)

func (s *server) registerSessions() {
	handle(s, operation("list-sessions", http.MethodGet, "/v1/sessions", "Sessions: yours, and with the permission those on a target"),
		func(ctx context.Context, who caller, in *listing) (*body[[]api.Session], error) {
			sessions, err := s.Sessions.List(ctx, in.All)
			if err != nil {
				return nil, err
			}
			out := []api.Session{}
			for _, info := range sessions {
				if info.Identity.Key() == who.Key() || s.Grants.May(who.Identity, grant.ListSessions, info.Target) == nil {
					out = append(out, sessionOf(info))
				}
			}
			return &body[[]api.Session]{out}, nil
		})
	handle(s, operation("kill-session", http.MethodPost, "/v1/sessions/{id}/kill", "Cut a live session"),
		func(ctx context.Context, who caller, in *decision) (*body[api.Session], error) {
			reason, err := oneLine(in.Body.Comment)
			if err != nil {
				return nil, err
			}
			info, err := s.Sessions.Get(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			if info.Identity.Key() != who.Key() {
				if err := s.permit(ctx, who, grant.KillSessions, info.Target); err != nil {
					return nil, err
				}
			}
			if err := s.Sessions.Kill(ctx, in.ID, who.Identity, reason); err != nil {
				return nil, err
			}
			if info, err = s.Sessions.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			return &body[api.Session]{sessionOf(info)}, nil
		})
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

// sessionOf is a session as the API says it.
func sessionOf(i session.Info) api.Session {
	out := api.Session{
		ID:        i.ID,
		Protocol:  i.Protocol,
		Identity:  identity(i.Identity),
		Target:    i.Target,
		Account:   i.Account,
		Grant:     i.Grant,
		Reason:    i.Reason,
		Approvers: orEmpty(i.Approvers),
		Client:    i.Client,
		Started:   i.Started,
		EndReason: i.EndReason,
		EndDetail: i.EndDetail,
		Live:      i.Live,
	}
	if !i.Ended.IsZero() {
		out.Ended = &i.Ended
	}
	return out
}
