package web

import (
	"context"
	"net/http"

	"sallyport/grant"
	"sallyport/grant/policy"
	"sallyport/web/api"
)

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
	return ExplanationOf(e), nil
}

// ExplanationOf is an answer of the policies as the API says it.
func ExplanationOf(e policy.Explanation) api.Explanation {
	out := api.Explanation{Outcome: "none", Forbidden: []api.Forbidden{}, Candidates: []api.Candidate{}, MayApprove: []string{}, Stages: []api.Stage{}}
	for _, f := range e.Forbidden {
		out.Outcome = "forbid"
		out.Forbidden = append(out.Forbidden, api.Forbidden{Policy: f.Name, Text: f.Text})
	}
	if p := e.Winner; p != nil {
		out.Outcome, out.Policy, out.Duration = "permit", p.Name, e.Duration
		out.Role, out.Limits = e.Role.Name, e.Role.Limits.Words()
		out.Ends = p.Ends(e.Duration)
		out.Needed, out.MayApprove = policy.Needed(p.Policy), orEmpty(policy.Approving(p.Policy))
		for i, s := range policy.Stages(p.Policy) {
			out.Stages = append(out.Stages, api.Stage{Number: i + 1, Name: s.Name, Groups: orEmpty(s.Groups), Needed: s.Count, By: []string{}})
		}
	}
	for _, c := range e.Candidates {
		candidate := api.Candidate{Policy: c.Name, Misses: []api.Miss{}}
		for _, m := range c.Misses {
			candidate.Misses = append(candidate.Misses, api.Miss{Clause: string(m.Clause), Text: m.Text})
		}
		out.Candidates = append(out.Candidates, candidate)
	}
	return out
}
