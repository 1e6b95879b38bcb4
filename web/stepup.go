package web

import (
	"context"
	"slices"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant/policy"
	"sallyport/internal/refusal"
)

// fresh refuses a deed on a target for which the configuration asks that the caller has proven themselves lately (step_up),
// and audits that. Where the provider does not say when somebody did, nobody has.
func (s *server) fresh(ctx context.Context, who caller, deed, target string) error {
	no := s.stale(who.Identity, deed, target)
	if no == nil {
		return nil
	}
	event := s.event(who, "api.refused")
	event.Target, event.Outcome = target, string(refusal.StepUp)
	event.Fields = map[string]string{"permission": deed}
	if err := s.Store.Audit(ctx, event); err != nil {
		return err
	}
	return no
}

// stale is fresh without the audit; nil: the proof is as fresh as it has to be.
func (s *server) stale(who authn.Identity, deed, target string) *refusal.Refusal {
	config := s.Config()
	var labels map[string]string
	if t, ok := s.Grants.Target(target); ok {
		labels = t.Labels
	}
	var within time.Duration
	for _, step := range config.StepUp {
		// What is of no target, or of many, is as guarded as the target that is guarded most.
		if slices.Contains(step.For, deed) && (target == "" || policy.Labelled(labels, step.Labels)) && (within == 0 || step.Within.D() < within) {
			within = step.Within.D()
		}
	}
	if within == 0 {
		return nil
	}
	// A provider's clock may be some seconds before ours.
	if age := time.Since(who.AuthTime); !who.AuthTime.IsZero() && age <= within && age > -time.Minute {
		return nil
	}
	no := refusal.New(refusal.StepUp, "you must have signed in within the last %s for this", configs.Duration(within))
	if who.AuthTime.IsZero() {
		no = no.WithDetail("your company's provider did not say when you proved yourself")
	} else {
		no = no.WithDetail("you proved yourself at %s", who.AuthTime.UTC().Format(time.RFC3339))
	}
	return no.WithHint("sign in again and repeat it: in the console by the button, on the command line with sallyport login")
}

// freshVote is fresh for the approving of a request.
func (s *server) freshVote(ctx context.Context, who caller, id string) error {
	if len(s.Config().StepUp) == 0 {
		return nil
	}
	g, err := s.Grants.Get(ctx, who.Identity, id)
	if err != nil {
		return err
	}
	return s.fresh(ctx, who, configs.Approving, g.Target)
}
