package web

import (
	"context"
	"net/http"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/web/api"
	"sallyport/web/said"
)

type rotation struct {
	Name string `path:"name" maxLength:"32" doc:"The authority's name."`
	Body api.Rotation
}

func (s *server) registerAuthorities() {
	handle(s, operation("list-authorities", http.MethodGet, "/v1/authorities", "The gateway's certificate authorities and signing keys"), s.listAuthorities)
	handle(s, operation("rotate-authority", http.MethodPost, "/v1/authorities/{name}/rotate", "Give an authority a new key"), s.rotateAuthority)
}

func (s *server) listAuthorities(ctx context.Context, who caller, _ *struct{}) (*body[[]api.Authority], error) {
	if err := s.permit(ctx, who, grant.ManageAuthorities, ""); err != nil {
		return nil, err
	}
	return &body[[]api.Authority]{said.Authorities(s.Authn.Authorities())}, nil
}

func (s *server) rotateAuthority(ctx context.Context, who caller, in *rotation) (*body[[]api.Authority], error) {
	if err := s.permit(ctx, who, grant.ManageAuthorities, ""); err != nil {
		return nil, err
	}
	if err := s.Authn.Rotate(ctx, who.Identity, in.Name, authn.Rotation{Activate: in.Body.Activate, AtOnce: in.Body.AtOnce}); err != nil {
		return nil, err
	}
	return &body[[]api.Authority]{said.Authorities(s.Authn.Authorities())}, nil
}
