package web

import (
	"context"
	"net/http"
	"time"

	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
	"sallyport/web/said"
)

// freshConfirm is how long ago somebody who decides on policies may have proven themselves at most. The configuration can ask for less
// (step_up for policies.confirm), and not for more: who confirms a wider set confirms all that can be had by it.
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

// heldPolicies is what waits, none or one.
func (s *server) heldPolicies(ctx context.Context, who caller) ([]api.HeldPolicies, error) {
	// Looking asks for no fresh proof; deciding does.
	if err := s.may(ctx, who, grant.ConfirmPolicies, ""); err != nil {
		return nil, err
	}
	all := []api.HeldPolicies{}
	h, waits, err := s.Grants.HeldPolicies(ctx)
	if waits {
		all = append(all, said.Held(h))
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
	return said.Held(h), nil
}

func (s *server) rejectPolicies(ctx context.Context, who caller, revision, comment string) (api.HeldPolicies, error) {
	if err := s.mayDecidePolicies(ctx, who); err != nil {
		return api.HeldPolicies{}, err
	}
	h, err := s.Grants.RejectPolicies(ctx, who.Identity, revision, comment)
	if err != nil {
		return api.HeldPolicies{}, err
	}
	return said.Held(h), nil
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

func (s *server) registerPolicy() {
	handle(s, operation("explain", http.MethodPost, "/v1/policy/explain", "What the policies would answer to a request, and why; nothing is asked for"),
		func(ctx context.Context, who caller, in *body[api.GrantRequest]) (*body[api.Explanation], error) {
			return wrap(s.explain(ctx, who, in.Body))
		})
}

// explain is what the policies would answer to a request as somebody typed it.
func (s *server) explain(ctx context.Context, who caller, in api.GrantRequest) (out api.Explanation, err error) {
	ask := grant.Ask{Target: in.Target, Account: in.Account, Reason: in.Reason, Ticket: in.Ticket, BreakGlass: in.BreakGlass}
	if in.Start != nil {
		ask.Start = in.Start.UTC()
	}
	if in.Duration != "" {
		if ask.Duration, err = duration(in.Duration); err != nil {
			return out, err
		}
	}
	e, err := s.Grants.Explain(ctx, who.Identity, ask)
	if err != nil {
		return out, err
	}
	return said.Explanation(e), nil
}
