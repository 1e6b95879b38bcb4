package authn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"sallyport/authn/federation"
	"sallyport/authn/pages"
	"sallyport/authn/workload"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// The token types of RFC 8693, section 3, that are taken.
const (
	tokenTypeJWT    = "urn:ietf:params:oauth:token-type:jwt"
	tokenTypeID     = "urn:ietf:params:oauth:token-type:id_token"
	tokenTypeAccess = "urn:ietf:params:oauth:token-type:access_token"
)

// kindJobRefused is the audit event for a job that its issuer knows and that is not let in.
const kindJobRefused = "workload.refused"

// ExchangeWorkload signs a workload in by the token that its own issuer gave it, and returns an access token of the
// gateway's issuer with who it is. The sign-in lasts as long as the workload's configuration says. from is the address
// that asks. The same job may exchange the same token again until that runs out; each time is audited, with its number.
func (s *Service) ExchangeWorkload(ctx context.Context, token, from string) (access string, who Identity, err error) {
	job, err := s.jobs.Load().Verify(ctx, token)
	if err != nil {
		return "", who, s.refuseJob(ctx, err, from)
	}
	who = Identity{Issuer: job.Issuer, Subject: job.Subject, Kind: Workload, Name: job.Name, Groups: job.Workload.Groups, StartedBy: Starter(job.Starter), Claims: job.Claims}
	if err := s.mustRun(ctx, job, who, from); err != nil {
		return "", who, err
	}
	err = s.commitRefusals(ctx, func(tx *store.Tx) error {
		uses, err := s.useToken(ctx, tx, job, who, from)
		if err != nil {
			return err
		}
		var signIn string
		who, signIn, err = s.signInAs(ctx, tx, who, from, kinds{"workload.exchanged", kindJobRefused}, job.Workload.Lasts.D(), map[string]string{
			"workload": job.Workload.Name, "token": job.Token, "token_uses": strconv.FormatInt(uses, 10),
		})
		if err != nil {
			return err
		}
		if err := s.watchJob(ctx, tx, job, signIn); err != nil {
			return err
		}
		secret := rand.Text()
		st := standing{Identity: who, id: identityID(who.Issuer, who.Subject), signIn: signIn}
		if err := newToken(ctx, tx, kindAccess, secret, newID("f-"), cliClient, nil, st, s.now()); err != nil {
			return err
		}
		access, err = s.issuer.Crypto().Encrypt(secret + ":" + st.id)
		return err
	})
	if err != nil {
		return "", who, err
	}
	return access, who, nil
}

// useToken counts a token's use, and refuses one that another job has used.
func (s *Service) useToken(ctx context.Context, tx *store.Tx, job workload.Job, who Identity, from string) (uses int64, err error) {
	id := identityID(who.Issuer, who.Subject)
	var owner string
	if err := tx.QueryRowContext(ctx, `INSERT INTO workload_tokens (issuer, token, identity, uses, expires) VALUES (?, ?, ?, 1, ?)
		ON CONFLICT (issuer, token) DO UPDATE SET uses = workload_tokens.uses + 1 RETURNING identity, uses`,
		job.Issuer, job.Token, id, stamp(job.Expires.Add(2*time.Minute))).Scan(&owner, &uses); err != nil { // beyond every skew
		return 0, fmt.Errorf("record the token's use: %w", err)
	}
	if owner == id {
		return uses, nil
	}
	e := event(kindJobRefused, who, from)
	e.Outcome, e.Reason = string(refusal.NotAuthenticated), "its token was used by another job"
	e.Fields["token"] = job.Token
	if err := tx.Audit(e); err != nil {
		return 0, err
	}
	return 0, refuseJob(errors.New("the token was used by another job"))
}

// refuseJob makes a refusal out of what workload.Verify says. Who the token's issuer knows is audited, up to a rate that
// everybody shares, because that may be anybody with an account there; everybody else is counted.
func (s *Service) refuseJob(ctx context.Context, err error, from string) error {
	if errors.Is(err, federation.ErrUnavailable) {
		return err
	}
	var known *workload.Refused
	if !errors.As(err, &known) {
		return refuseJob(err)
	}
	r := refuseJob(err)
	if known.Expired {
		r = refusal.New(refusal.CredentialExpired, "the job's token has expired or is too old").
			WithHint("have the job ask for a fresh one right before it is used").Because(err)
	}
	if s.told.AllowN(s.now(), 1) {
		e := event(kindJobRefused, Identity{Issuer: known.Issuer, Subject: known.Subject, Kind: Workload}, from)
		e.Outcome, e.Reason = string(r.Code), known.Why
		if err := s.store.Audit(ctx, e); err != nil {
			return err
		}
	}
	return r
}

func refuseJob(cause error) *refusal.Refusal {
	return refusal.New(refusal.NotAuthenticated, "the job's token is not accepted here").
		WithDetail("it is not signed, not made for this gateway, or no workload of the configuration").
		WithHint("those who run the gateway find the reason in its log and in: sallyport audit").Because(cause)
}

// token is the token endpoint. Token exchange (RFC 8693) is done here, because op's exchanges only the issuer's own tokens;
// everything else by op.
func (s *Service) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("grant_type") != string(oidc.GrantTypeTokenExchange) {
		op.Exchange(w, r, s.issuer)
		return
	}
	refuse := func(status int, code, description string) {
		reply(w, status, map[string]string{"error": code, "error_description": description})
	}
	form := r.PostForm
	for name, values := range form {
		if len(values) > 1 && name != "resource" && name != "audience" {
			refuse(http.StatusBadRequest, "invalid_request", "a parameter is given twice")
			return
		}
	}
	kind, wanted := form.Get("subject_token_type"), form.Get("requested_token_type")
	switch {
	case !s.jobs.Load().Any():
		refuse(http.StatusBadRequest, "unsupported_grant_type", "this gateway has no workloads configured")
	case form.Get("client_id") != "" && form.Get("client_id") != cliClient:
		refuse(http.StatusUnauthorized, "invalid_client", "there is no client of that name here; the command line is "+cliClient)
	case kind != tokenTypeJWT && kind != tokenTypeID:
		refuse(http.StatusBadRequest, "invalid_request", "subject_token_type must be "+tokenTypeJWT+" or "+tokenTypeID)
	case wanted != "" && wanted != tokenTypeAccess:
		refuse(http.StatusBadRequest, "invalid_request", "requested_token_type can only be "+tokenTypeAccess)
	case form.Has("actor_token"):
		refuse(http.StatusBadRequest, "invalid_request", "actor_token is not supported")
	case form.Has("resource") || form.Has("audience"):
		refuse(http.StatusBadRequest, "invalid_target", "tokens are for the gateway itself; leave resource and audience out")
	default:
		s.exchangeForm(w, r, refuse)
	}
}

func (s *Service) exchangeForm(w http.ResponseWriter, r *http.Request, refuse func(status int, code, description string)) {
	access, who, err := s.ExchangeWorkload(r.Context(), r.PostForm.Get("subject_token"), r.RemoteAddr)
	no := refusal.Of(err)
	switch {
	case err == nil:
		reply(w, http.StatusOK, map[string]any{
			"access_token": access, "issued_token_type": tokenTypeAccess, "token_type": "Bearer",
			"expires_in": int64(who.Expires.Sub(s.now()) / time.Second),
		})
	case no != nil:
		s.unauthenticated("http: bad workload token", r)
		s.logStranger(r, "a workload's token was refused", no.Cause)
		refuse(http.StatusBadRequest, "invalid_grant", no.Error())
	case errors.Is(err, federation.ErrUnavailable):
		s.log.Warn("a workload's issuer or provider can't be asked", "err", err)
		pages.RetryAfter(w.Header(), 30*time.Second)
		refuse(http.StatusServiceUnavailable, "temporarily_unavailable", "the token's issuer can't be asked for what is needed to verify it; the gateway's log says why")
	default:
		s.log.Error("a workload's sign-in failed", "err", err)
		refuse(http.StatusInternalServerError, "server_error", "the gateway failed to do this; its log says why")
	}
}
