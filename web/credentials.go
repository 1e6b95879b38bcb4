package web

import (
	"context"
	"net/http"
	"slices"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/web/api"
	"sallyport/web/said"
)

func (s *server) registerCredentials() {
	issue := operation("issue-credential", http.MethodPost, "/v1/credentials", "A password for one account on a Postgres target, shown once")
	issue.Metadata = map[string]any{answeredOnce: true}
	handle(s, issue, s.issueCredential)
	handle(s, operation("list-credentials", http.MethodGet, "/v1/credentials", "Your passwords that are still good"),
		func(ctx context.Context, who caller, _ *struct{}) (*body[[]api.Credential], error) {
			list, err := s.Authn.Passwords(ctx, who.Identity)
			if err != nil {
				return nil, err
			}
			out := make([]api.Credential, 0, len(list))
			for _, p := range list {
				out = append(out, said.Credential(p))
			}
			return &body[[]api.Credential]{out}, nil
		})
	handle(s, operation("revoke-credential", http.MethodDelete, "/v1/credentials/{id}", "End one of your passwords, certificates or SSH keys"),
		func(ctx context.Context, who caller, in *identified) (*struct{}, error) {
			return nil, s.Authn.RevokeCredential(ctx, who.Identity, in.ID)
		})
}

func (s *server) issueCredential(ctx context.Context, who caller, in *body[api.CredentialRequest]) (*body[api.IssuedCredential], error) {
	ask := in.Body
	var lasts configs.Duration
	if ask.Duration != "" {
		var err error
		if lasts, err = configs.ParseDuration(ask.Duration); err != nil || lasts <= 0 {
			return nil, refusal.New(refusal.Invalid, "duration %.32q makes no sense", ask.Duration).WithDetail("write it as 30m, 8h or 1d").Because(err)
		}
	}
	// What nobody offers and what is not there sound the same, so that names can't be tried out.
	offers, err := s.Grants.Offers(ctx, who.Identity)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(offers, func(o grant.Offer) bool { return o.Target == ask.Target && o.Account == ask.Account }) {
		return nil, refusal.New(refusal.UnknownAccount, "there is no account %.64q on a target %.64q that you may ask for", ask.Account, ask.Target).
			WithHint("see which there are with: sallyport targets")
	}
	target, ok := s.Grants.Target(ask.Target)
	if !ok || target.Kind != configs.KindPostgres {
		return nil, refusal.New(refusal.Unsupported, "passwords are for PostgreSQL targets").WithHint("for SSH the certificates of sallyport login are the way in")
	}
	out := api.IssuedCredential{}
	if out.Gateway, err = s.gateway(); err != nil {
		return nil, err
	}
	out.Connection = s.connection(target, []string{ask.Account}, out.Gateway)
	if out.Connection.Port == 0 {
		return nil, refusal.New(refusal.Unsupported, "this gateway has no listener for target %s", target.Name)
	}
	issued, secret, err := s.Authn.IssuePassword(ctx, who.Identity, target.Name, ask.Account, lasts.D())
	if err != nil {
		return nil, err
	}
	out.Credential, out.Password = said.Credential(issued), secret
	return &body[api.IssuedCredential]{out}, nil
}

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
