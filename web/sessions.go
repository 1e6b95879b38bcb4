package web

import (
	"context"
	"net/http"

	"sallyport/grant"
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
			info, err := s.Sessions.Get(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			if info.Identity.Key() != who.Key() {
				if err := s.permit(ctx, who, grant.KillSessions, info.Target); err != nil {
					return nil, err
				}
			}
			if err := s.Sessions.Kill(ctx, in.ID, who.Identity, in.Body.Comment); err != nil {
				return nil, err
			}
			if info, err = s.Sessions.Get(ctx, in.ID); err != nil {
				return nil, err
			}
			return &body[api.Session]{sessionOf(info)}, nil
		})
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
