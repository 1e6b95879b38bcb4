package web

import (
	"context"
	"net/http"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

type named struct {
	Name string `path:"name" maxLength:"253" doc:"The target's name."`
}

func (s *server) registerTargets() {
	handle(s, inEmergency(operation("list-targets", http.MethodGet, "/v1/targets", "What you may ask for")),
		func(ctx context.Context, who caller, _ *struct{}) (*body[[]api.Offer], error) {
			return wrap(s.offers(ctx, who))
		})
	handle(s, operation("set-up-target", http.MethodGet, "/v1/targets/{name}/setup", "What a target needs, as text to paste"),
		func(ctx context.Context, who caller, in *named) (*body[api.Setup], error) {
			target, err := s.managed(ctx, who, in.Name, s.Setup != nil)
			if err != nil {
				return nil, err
			}
			return wrap(s.Setup(ctx, target))
		})
	handle(s, operation("check-target", http.MethodPost, "/v1/targets/{name}/check", "Log in to a target with every account and look"),
		func(ctx context.Context, who caller, in *named) (*body[api.Check], error) {
			target, err := s.managed(ctx, who, in.Name, s.Check != nil)
			if err != nil {
				return nil, err
			}
			return wrap(s.Check(ctx, who.Identity, target))
		})
	handle(s, operation("trust-target", http.MethodGet, "/v1/targets/{name}/trust", "The keys a target proves itself with now, to be compared and pinned"),
		func(ctx context.Context, who caller, in *named) (*body[api.Trust], error) {
			target, err := s.managed(ctx, who, in.Name, s.Trust != nil)
			if err != nil {
				return nil, err
			}
			return wrap(s.Trust(ctx, who.Identity, target))
		})
}

// managed finds a target for somebody who may manage it.
func (s *server) managed(ctx context.Context, who caller, name string, can bool) (configs.Target, error) {
	if err := s.permit(ctx, who, grant.ManageTargets, name); err != nil {
		return configs.Target{}, err
	}
	target, ok := s.Grants.Target(name)
	if !ok {
		return target, refusal.New(refusal.UnknownTarget, "there is no target %q", name).WithHint("sallyport targets")
	}
	if !can {
		return target, refusal.New(refusal.Unsupported, "this gateway can't do that for %s targets", target.Kind)
	}
	return target, nil
}

// wrap puts what a function returned into an answer.
func wrap[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}
