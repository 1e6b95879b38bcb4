package web

import (
	"context"
	"net/http"
	"time"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// freshConfirm is how long ago somebody may have proven themselves who decides on policies, where the configuration says nothing
// else (step_up for policies.confirm).
const freshConfirm = 15 * time.Minute

type heldRevision struct {
	Revision string `path:"revision" minLength:"12" maxLength:"64" pattern:"^[0-9a-f]+$" doc:"The set's hash, or its first twelve characters or more."`
}

type rejection struct {
	Revision string `path:"revision" minLength:"12" maxLength:"64" pattern:"^[0-9a-f]+$" doc:"As for confirming."`
	Body     api.Decision
}

func (s *server) registerPolicies() {
	handle(s, operation("list-held-policies", http.MethodGet, "/v1/policies/held", "Policies that wait for a second person"),
		func(ctx context.Context, who caller, _ *struct{}) (*body[[]api.HeldPolicies], error) {
			held, err := s.heldPolicies(ctx, who)
			return &body[[]api.HeldPolicies]{held}, err
		})
	handle(s, operation("confirm-policies", http.MethodPost, "/v1/policies/{revision}/confirm", "Let policies that may widen access come into force"),
		func(ctx context.Context, who caller, in *heldRevision) (*body[api.HeldPolicies], error) {
			held, err := s.confirmPolicies(ctx, who, in.Revision)
			return &body[api.HeldPolicies]{held}, err
		})
	handle(s, operation("reject-policies", http.MethodPost, "/v1/policies/{revision}/reject", "Have policies that may widen access not come into force"),
		func(ctx context.Context, who caller, in *rejection) (*body[api.HeldPolicies], error) {
			held, err := s.rejectPolicies(ctx, who, in.Revision, in.Body.Comment)
			return &body[api.HeldPolicies]{held}, err
		})
}

func heldOf(h grant.Held) api.HeldPolicies {
	held := api.HeldPolicies{
		Revision: h.Revision, Since: h.Since.UTC(), Confirmed: h.Confirmed, Widens: h.Widens, Changes: h.Changes,
		MadeBy: h.MadeBy, RejectedBy: h.Rejected, RejectedAt: h.RejectedAt, Comment: h.Comment,
	}
	for _, d := range h.Differences {
		held.Differences = append(held.Differences, api.PolicyDifference(d))
	}
	return held
}

// heldPolicies is what waits, none or one.
func (s *server) heldPolicies(ctx context.Context, who caller) ([]api.HeldPolicies, error) {
	// Looking asks for no fresh proof; deciding does.
	if err := s.may(ctx, who, grant.ConfirmPolicies, ""); err != nil {
		return nil, err
	}
	all := []api.HeldPolicies{}
	h, waits, err := s.Grants.HeldPolicies(ctx)
	if waits {
		all = append(all, heldOf(h))
	}
	return all, err
}

func (s *server) confirmPolicies(ctx context.Context, who caller, revision string) (api.HeldPolicies, error) {
	if err := s.mayDecidePolicies(ctx, who); err != nil {
		return api.HeldPolicies{}, err
	}
	h, err := s.Grants.ConfirmPolicies(ctx, who.Identity, revision)
	if err != nil {
		return api.HeldPolicies{}, err
	}
	if s.Reload != nil {
		s.Reload()
	}
	return heldOf(h), nil
}

func (s *server) rejectPolicies(ctx context.Context, who caller, revision, comment string) (api.HeldPolicies, error) {
	if err := s.mayDecidePolicies(ctx, who); err != nil {
		return api.HeldPolicies{}, err
	}
	h, err := s.Grants.RejectPolicies(ctx, who.Identity, revision, comment)
	if err != nil {
		return api.HeldPolicies{}, err
	}
	return heldOf(h), nil
}

// mayDecidePolicies takes the permission and a fresh sign-in, also where step_up asks for none.
func (s *server) mayDecidePolicies(ctx context.Context, who caller) error {
	if err := s.permit(ctx, who, grant.ConfirmPolicies, ""); err != nil {
		return err
	}
	proven := who.SignedIn
	if !who.AuthTime.IsZero() {
		proven = who.AuthTime
	}
	if time.Since(proven) <= freshConfirm {
		return nil
	}
	event := s.event(who, "api.refused")
	event.Outcome = string(refusal.StepUp)
	event.Fields = map[string]string{"permission": string(grant.ConfirmPolicies)}
	if err := s.Store.Audit(ctx, event); err != nil {
		return err
	}
	return refusal.New(refusal.StepUp, "you must have signed in within the last %s for this", "15m").
		WithDetail("you proved yourself at %s", proven.UTC().Format(time.RFC3339)).
		WithHint("sign in again and repeat it: in the console by the button, on the command line with sallyport login")
}
