package web

import (
	"context"
	"net/http"

	"sallyport/web/api"
)

func (s *server) registerKeys() {
	handle(s, operation("list-keys", http.MethodGet, "/v1/keys", "Plain SSH keys that stand for you now"),
		func(ctx context.Context, who caller, _ *struct{}) (*body[[]api.Key], error) {
			list, err := s.Authn.Keys(ctx, who.Identity)
			if err != nil {
				return nil, err
			}
			out := make([]api.Key, 0, len(list))
			for _, k := range list {
				out = append(out, api.Key(k))
			}
			return &body[[]api.Key]{out}, nil
		})
}
