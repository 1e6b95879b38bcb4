package web

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/internal/refusal"
	"sallyport/web/api"
	"sallyport/web/said"
)

// signatureScheme is the description's name for how a webhook proves itself.
const signatureScheme = "webhookSignature"

// signedDecision is a decision by a webhook; docs/approvals.md describes it.
type signedDecision struct {
	Name      string `path:"name" maxLength:"64"`
	ID        string `header:"Webhook-Id"`
	Timestamp string `header:"Webhook-Timestamp"`
	Signature string `header:"Webhook-Signature"`
	RawBody   []byte `contentType:"application/json"`
}

func (s *server) registerApprovals() {
	op := operation("decide-by-webhook", http.MethodPost, "/v1/approvals/webhook/{name}", "A linked person's decision, signed by a webhook; the token is the signature")
	op.Security = []map[string][]string{{signatureScheme: {}}}
	op.Metadata, op.SkipValidateBody = map[string]any{public: true}, true // what the signature is of is read by who checks it
	huma.Register(s.api, op, func(ctx context.Context, in *signedDecision) (*body[api.Grant], error) {
		ctx, cancel := context.WithTimeout(ctx, operationTimeout)
		defer cancel()
		if s.Decide == nil {
			return nil, s.fail(op.OperationID, refusal.New(refusal.NotFound, "no webhook decides here"))
		}
		g, err := s.Decide(ctx, in.Name, in.ID, in.Timestamp, in.Signature, in.RawBody)
		if err != nil {
			if r := refusal.Of(err); r != nil && r.Code == refusal.NotAuthenticated {
				s.Authn.Unauthenticated("http: unsigned decision", peer(ctx))
			}
			return nil, s.fail(op.OperationID, err)
		}
		return wrapGrant(g, nil)
	})
	handle(s, operation("list-notifications", http.MethodGet, "/v1/notifications", "What waits to be told to channels, and what was given up; all: what was told too"),
		func(ctx context.Context, who caller, in *listing) (*body[[]api.Notification], error) {
			return wrap(s.notifications(ctx, who, in.All))
		})
	handle(s, operation("retry-notifications", http.MethodPost, "/v1/notifications/retry", "Have what waits to be told to channels, or was given up, be tried at once and for another day"),
		func(ctx context.Context, who caller, in *struct{ Body api.NotificationRetry }) (*body[[]api.Notification], error) {
			return wrap(s.retryNotifications(ctx, who, in.Body))
		})
}

func (s *server) retryNotifications(ctx context.Context, who caller, in api.NotificationRetry) ([]api.Notification, error) {
	if err := s.permit(ctx, who, grant.RetryNotifications, ""); err != nil {
		return nil, err
	}
	if s.Retry == nil {
		return nil, refusal.New(refusal.NotFound, "no channel is told anything here")
	}
	list, err := s.Retry(ctx, approval.Again{IDs: in.IDs, GivenUp: in.GivenUp, Channel: in.Channel}, s.event(who, "notifications.retried"))
	if err != nil {
		return nil, err
	}
	return said.Notifications(list), nil
}

// notifications are what waits to be told to channels, for who may list all grants; all: what was told too.
func (s *server) notifications(ctx context.Context, who caller, all bool) ([]api.Notification, error) {
	if err := s.permit(ctx, who, grant.ListGrants, ""); err != nil {
		return nil, err
	}
	if s.Notifications == nil {
		return []api.Notification{}, nil
	}
	list, err := s.Notifications(ctx, all)
	if err != nil {
		return nil, err
	}
	return said.Notifications(list), nil
}

func (s *server) registerReviews() {
	handle(s, operation("list-reviews", http.MethodGet, "/v1/reviews", "What was done in emergencies and waits for somebody to look at it; all: what was looked at too"),
		func(ctx context.Context, who caller, in *listing) (*body[[]api.Review], error) {
			return wrap(s.reviews(ctx, who, in.All))
		})
	handle(s, operation("review", http.MethodPost, "/v1/grants/{id}/review", "Say that you have looked at what was done in an emergency; never your own"), decide(s, by(s.Grants.Review)))
	handle(s, operation("withdraw-vote", http.MethodPost, "/v1/requests/{id}/withdraw", "Take your own approval back; what was given by it ends"), decide(s, by(s.Grants.Withdraw)))
}

// reviews are those that the caller may see.
func (s *server) reviews(ctx context.Context, who caller, all bool) ([]api.Review, error) {
	reviews, err := s.Grants.Reviews(ctx, who.Identity, all)
	if err != nil {
		return nil, err
	}
	return said.Reviews(reviews), nil
}
