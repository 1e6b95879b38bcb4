package web

import (
	"context"
	"net/http"

	"sallyport/grant"
	"sallyport/web/api"
)

type heldRevision struct {
	Revision string `path:"revision" minLength:"12" maxLength:"64" pattern:"^[0-9a-f]+$" doc:"The set's hash, or its first twelve characters or more."`
}

func (s *server) registerPolicies() {
	handle(s, operation("list-held-policies", http.MethodGet, "/v1/policies/held", "Policies that wait for a second person"), s.listHeldPolicies)
	handle(s, operation("confirm-policies", http.MethodPost, "/v1/policies/{revision}/confirm", "Let policies that may widen access come into force"), s.confirmPolicies)
}

func heldPolicies(h grant.Held) api.HeldPolicies {
	return api.HeldPolicies{Revision: h.Revision, Since: h.Since.UTC(), Confirmed: h.Confirmed, Widens: h.Widens, Changes: h.Changes}
}

func (s *server) listHeldPolicies(ctx context.Context, who caller, _ *struct{}) (*body[[]api.HeldPolicies], error) {
	if err := s.permit(ctx, who, grant.ConfirmPolicies, ""); err != nil {
		return nil, err
	}
	all := []api.HeldPolicies{}
	h, waits, err := s.Grants.HeldPolicies(ctx)
	if waits {
		all = append(all, heldPolicies(h))
	}
	return &body[[]api.HeldPolicies]{all}, err
}

func (s *server) confirmPolicies(ctx context.Context, who caller, in *heldRevision) (*body[api.HeldPolicies], error) {
	if err := s.permit(ctx, who, grant.ConfirmPolicies, ""); err != nil {
		return nil, err
	}
	h, err := s.Grants.ConfirmPolicies(ctx, who.Identity, in.Revision)
	if err != nil {
		return nil, err
	}
	if s.Reload != nil {
		s.Reload()
	}
	return &body[api.HeldPolicies]{heldPolicies(h)}, nil
}
