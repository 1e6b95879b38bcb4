package web

import (
	"context"
	"net/http"

	"sallyport/web/api"
)

func (s *server) registerReviews() {
	handle(s, operation("list-reviews", http.MethodGet, "/v1/reviews", "What was done in emergencies and waits for somebody to look at it; all: what was looked at too"),
		func(ctx context.Context, who caller, in *listing) (*body[[]api.Review], error) {
			return wrap(s.reviews(ctx, who, in.All))
		})
	handle(s, operation("review", http.MethodPost, "/v1/grants/{id}/review", "Say that you have looked at what was done in an emergency; never your own"), decide(s, s.Grants.Review))
	handle(s, operation("withdraw-vote", http.MethodPost, "/v1/requests/{id}/withdraw", "Take your own approval back; what was given by it ends"), decide(s, s.Grants.Withdraw))
}

// reviews are those that the caller may see.
func (s *server) reviews(ctx context.Context, who caller, all bool) ([]api.Review, error) {
	reviews, err := s.Grants.Reviews(ctx, who.Identity, all)
	if err != nil {
		return nil, err
	}
	out := []api.Review{}
	for _, r := range reviews {
		out = append(out, api.Review{Grant: grantOf(r.Grant), Groups: orEmpty(r.Groups), Due: r.Due, Done: r.Done, By: r.By, Comment: r.Comment})
	}
	return out, nil
}
