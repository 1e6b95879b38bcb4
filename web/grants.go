package web

import (
	"context"
	"net/http"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

type (
	identified struct {
		ID string `path:"id" maxLength:"64"`
	}
	decision struct {
		ID   string       `path:"id" maxLength:"64"`
		Body api.Decision `required:"false"`
	}
	extension struct {
		ID   string `path:"id" maxLength:"64"`
		Body api.ExtensionRequest
	}
	listing struct {
		All bool `query:"all" doc:"Those that are over too."`
	}
)

func (s *server) registerGrants() {
	handle(s, operation("request", http.MethodPost, "/v1/requests", "Ask for a grant"),
		func(ctx context.Context, who caller, in *body[api.GrantRequest]) (*body[api.Grant], error) {
			return wrapGrant(s.request(ctx, who, in.Body))
		})
	handle(s, operation("list-requests", http.MethodGet, "/v1/requests", "Requests that wait for a decision: yours, and those you may decide"),
		func(ctx context.Context, who caller, in *listing) (*body[[]api.Grant], error) {
			return s.listGrants(ctx, who, in.All, func(g grant.Grant) bool { return in.All || g.State == grant.Pending || g.Extension != nil })
		})
	handle(s, operation("list-grants", http.MethodGet, "/v1/grants", "Grants: yours, those you may decide on, and all with the permission"),
		func(ctx context.Context, who caller, in *listing) (*body[[]api.Grant], error) {
			return s.listGrants(ctx, who, in.All, func(g grant.Grant) bool { return g.State != grant.Pending })
		})
	handle(s, operation("get-grant", http.MethodGet, "/v1/grants/{id}", "One request or grant"),
		func(ctx context.Context, who caller, in *identified) (*body[api.Grant], error) {
			return wrapGrant(s.Grants.Get(ctx, who.Identity, in.ID))
		})
	handle(s, operation("approve", http.MethodPost, "/v1/requests/{id}/approve", "Approve a request; never your own"), decide(s.Grants.Approve))
	handle(s, operation("deny", http.MethodPost, "/v1/requests/{id}/deny", "Deny a request"), decide(s.Grants.Deny))
	handle(s, operation("revoke", http.MethodPost, "/v1/grants/{id}/revoke", "End a grant and its sessions at once"), decide(s.Grants.Revoke))
	handle(s, operation("extend", http.MethodPost, "/v1/grants/{id}/extend", "Ask that your own active grant end later"),
		func(ctx context.Context, who caller, in *extension) (*body[api.Grant], error) {
			return wrapGrant(s.extend(ctx, who, in.ID, in.Body))
		})
	handle(s, operation("release", http.MethodPost, "/v1/grants/{id}/release", "Give your own grant back, or withdraw your request"),
		func(ctx context.Context, who caller, in *identified) (*body[api.Grant], error) {
			return wrapGrant(s.Grants.Release(ctx, who.Identity, in.ID))
		})
}

// request files a request as somebody typed it.
func (s *server) request(ctx context.Context, who caller, in api.GrantRequest) (g grant.Grant, err error) {
	ask := grant.Ask{Target: in.Target, Account: in.Account, Reason: in.Reason, Ticket: in.Ticket}
	if in.Duration != "" {
		if ask.Duration, err = duration(in.Duration); err != nil {
			return g, err
		}
	}
	return s.Grants.Request(ctx, who.Identity, ask)
}

// extend asks for more time as somebody typed it.
func (s *server) extend(ctx context.Context, who caller, id string, in api.ExtensionRequest) (g grant.Grant, err error) {
	by, err := duration(in.Duration)
	if err != nil {
		return g, err
	}
	return s.Grants.Extend(ctx, who.Identity, id, by, in.Reason)
}

// duration reads one as a person types it.
func duration(text string) (time.Duration, error) {
	d, err := configs.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, refusal.New(refusal.Invalid, "duration %.32q makes no sense", text).WithDetail("write it as 30m, 8h or 1d").Because(err)
	}
	return d.D(), nil
}

// decide is a handler around one of the grants' transitions with a word of explanation.
func decide(do func(ctx context.Context, who authn.Identity, id, comment string) (grant.Grant, error)) func(context.Context, caller, *decision) (*body[api.Grant], error) {
	return func(ctx context.Context, who caller, in *decision) (*body[api.Grant], error) {
		return wrapGrant(do(ctx, who.Identity, in.ID, in.Body.Comment))
	}
}

func (s *server) listGrants(ctx context.Context, who caller, all bool, keep func(grant.Grant) bool) (*body[[]api.Grant], error) {
	grants, err := s.Grants.List(ctx, who.Identity, all)
	if err != nil {
		return nil, err
	}
	out := []api.Grant{}
	for _, g := range grants {
		if keep(g) {
			out = append(out, grantOf(g))
		}
	}
	return &body[[]api.Grant]{out}, nil
}

func wrapGrant(g grant.Grant, err error) (*body[api.Grant], error) {
	if err != nil {
		return nil, err
	}
	return &body[api.Grant]{grantOf(g)}, nil
}

// grantOf is a grant as the API says it; lists are never null.
func grantOf(g grant.Grant) api.Grant {
	out := api.Grant{
		ID:         g.ID,
		State:      string(g.State),
		Identity:   identity(g.Identity),
		Target:     g.Target,
		Account:    g.Account,
		Reason:     g.Reason,
		Ticket:     g.Ticket,
		Policy:     g.Policy,
		Role:       g.Role,
		Limits:     g.Terms.Limits.Words(),
		Duration:   g.Duration,
		Total:      g.Total,
		Idle:       g.Idle,
		Approvers:  orEmpty(g.Approvers()),
		Needed:     g.Needed,
		MayApprove: orEmpty(g.MayApprove),
		Requested:  g.Requested,
		DecideBy:   g.DecideBy,
		ActivateBy: g.ActivateBy,
		From:       g.From,
		Until:      g.Until,
		EndedAt:    g.EndedAt,
		EndReason:  g.EndReason,
		EndedBy:    g.EndedBy,
		EndComment: g.EndComment,
	}
	out.Votes = votes(g.Ballot)
	if e := g.Extension; e != nil {
		out.Extension = &api.Extension{
			Duration: e.Duration, Reason: e.Reason, Requested: e.Requested, Votes: votes(e.Ballot), Needed: e.Needed, MayApprove: orEmpty(e.MayApprove),
		}
	}
	return out
}

func votes(b grant.Ballot) []api.Vote {
	out := []api.Vote{}
	for _, v := range b.Votes {
		out = append(out, api.Vote(v))
	}
	return out
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
