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
	"sallyport/web/said"
)

type (
	identified struct {
		ID string `path:"id" maxLength:"64"`
	}
	decision struct {
		ID   string       `path:"id" maxLength:"64"`
		Body api.Decision `required:"false"`
	}
	// decisionOn is a decision on what somebody has looked at.
	decisionOn struct {
		ID      string       `path:"id" maxLength:"64"`
		Body    api.Decision `required:"false"`
		IfMatch string       `header:"If-Match" maxLength:"200" doc:"The ETag of GET /v1/grants/{id}: decide only if it is still that."`
	}
	extension struct {
		ID   string `path:"id" maxLength:"64"`
		Body api.ExtensionRequest
	}
	listing struct {
		All bool `query:"all" doc:"Those that are over too."`
	}
	grantListing struct {
		All bool `query:"all" doc:"Those that are over too."`
		Page
		Mine    bool   `query:"mine" doc:"Only your own."`
		Target  string `query:"target" maxLength:"253"`
		Account string `query:"account" maxLength:"128"`
	}
)

func (s *server) registerGrants() {
	handle(s, inEmergency(operation("request", http.MethodPost, "/v1/requests", "Ask for a grant")),
		func(ctx context.Context, who caller, in *body[api.GrantRequest]) (*body[api.Grant], error) {
			return wrapGrant(s.request(ctx, who, in.Body))
		})
	handle(s, inEmergency(operation("list-requests", http.MethodGet, "/v1/requests", "Requests that wait for a decision: yours, and those you may decide")),
		func(ctx context.Context, who caller, in *grantListing) (*listed[api.Grant], error) {
			return s.listGrants(ctx, who, in, func(g grant.Grant) bool { return in.All || g.State == grant.Pending || g.Extension != nil })
		})
	handle(s, inEmergency(operation("list-grants", http.MethodGet, "/v1/grants", "Grants: yours, those you may decide on, and all with the permission")),
		func(ctx context.Context, who caller, in *grantListing) (*listed[api.Grant], error) {
			return s.listGrants(ctx, who, in, func(g grant.Grant) bool { return g.State != grant.Pending })
		})
	handle(s, inEmergency(operation("get-grant", http.MethodGet, "/v1/grants/{id}", "One request or grant")),
		func(ctx context.Context, who caller, in *identified) (*body[api.Grant], error) {
			return wrapGrant(s.Grants.Get(ctx, who.Identity, in.ID))
		})
	handle(s, operation("approve", http.MethodPost, "/v1/requests/{id}/approve", "Approve a request; never your own"), decide(s, s.approve))
	handle(s, operation("deny", http.MethodPost, "/v1/requests/{id}/deny", "Deny a request"), decide(s, by(s.Grants.Deny)))
	handle(s, operation("revoke", http.MethodPost, "/v1/grants/{id}/revoke", "End a grant and its sessions at once"), decide(s, by(s.Grants.Revoke)))
	handle(s, operation("extend", http.MethodPost, "/v1/grants/{id}/extend", "Ask that your own active grant end later"),
		func(ctx context.Context, who caller, in *extension) (*body[api.Grant], error) {
			return wrapGrant(s.extend(ctx, who, in.ID, in.Body))
		})
	handle(s, inEmergency(operation("keep-grant", http.MethodPost, "/v1/grants/{id}/keep", "Say that you work under your own active grant, so that it is not idle while no session is open")),
		func(ctx context.Context, who caller, in *identified) (*struct{}, error) {
			return nil, s.Grants.InUse(ctx, who.Identity, in.ID)
		})
	handle(s, inEmergency(operation("release", http.MethodPost, "/v1/grants/{id}/release", "Give your own grant back, or withdraw your request")),
		func(ctx context.Context, who caller, in *identified) (*body[api.Grant], error) {
			return wrapGrant(s.Grants.Release(ctx, who.Identity, in.ID))
		})
}

// request files a request as somebody typed it.
func (s *server) request(ctx context.Context, who caller, in api.GrantRequest) (g grant.Grant, err error) {
	ask := grant.Ask{Target: in.Target, Account: in.Account, Reason: in.Reason, Ticket: in.Ticket, BreakGlass: in.BreakGlass}
	if in.Start != nil {
		ask.Start = in.Start.UTC()
	}
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
func decide(s *server, do func(ctx context.Context, who caller, id, comment string) (grant.Grant, error)) func(context.Context, caller, *decisionOn) (*body[api.Grant], error) {
	return func(ctx context.Context, who caller, in *decisionOn) (*body[api.Grant], error) {
		if err := s.unchangedGrant(ctx, who, in.ID, in.IfMatch); err != nil {
			return nil, err
		}
		return wrapGrant(do(ctx, who, in.ID, in.Body.Comment))
	}
}

// by is one of the grants' transitions as decide takes it.
func by(do func(ctx context.Context, who authn.Identity, id, comment string) (grant.Grant, error)) func(context.Context, caller, string, string) (grant.Grant, error) {
	return func(ctx context.Context, who caller, id, comment string) (grant.Grant, error) {
		return do(ctx, who.Identity, id, comment)
	}
}

// approve approves a request for somebody who has proven themselves as lately as step_up asks.
func (s *server) approve(ctx context.Context, who caller, id, comment string) (grant.Grant, error) {
	if err := s.freshVote(ctx, who, id); err != nil {
		return grant.Grant{}, err
	}
	return s.Grants.Approve(ctx, who.Identity, id, comment)
}

// unchangedGrant refuses to decide on a grant that is not any more what the caller looked at. What a request asks for never
// changes once it is filed, so that nothing slips in between this look and the decision.
func (s *server) unchangedGrant(ctx context.Context, who caller, id, ifMatch string) error {
	if ifMatch == "" {
		return nil
	}
	g, err := s.Grants.Get(ctx, who.Identity, id)
	if err != nil {
		return err
	}
	return unchanged(ifMatch, said.Grant(g))
}

func (s *server) listGrants(ctx context.Context, who caller, in *grantListing, keep func(grant.Grant) bool) (*listed[api.Grant], error) {
	out, more, err := s.findGrants(ctx, who, grant.Filter{
		All: in.All, Mine: in.Mine, Target: in.Target, Account: in.Account, Keep: keep, Before: in.Before, Limit: in.limit(),
	})
	if err != nil {
		return nil, err
	}
	answer := &listed[api.Grant]{Body: out}
	if more {
		answer.Link = in.next(out[len(out)-1].ID)
	}
	return answer, nil
}

// findGrants finds grants of those that the caller may see.
func (s *server) findGrants(ctx context.Context, who caller, f grant.Filter) ([]api.Grant, bool, error) {
	grants, more, err := s.Grants.Find(ctx, who.Identity, f)
	if err != nil {
		return nil, false, err
	}
	out := make([]api.Grant, 0, len(grants))
	for _, g := range grants {
		out = append(out, said.Grant(g))
	}
	return out, more, nil
}

func wrapGrant(g grant.Grant, err error) (*body[api.Grant], error) {
	if err != nil {
		return nil, err
	}
	return &body[api.Grant]{said.Grant(g)}, nil
}
