package web

import (
	"context"
	"io"
	"iter"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/policy"
	"sallyport/recorder"
	"sallyport/recorder/replay"
	"sallyport/recorder/verify"
	"sallyport/session"
	"sallyport/web/api"
	"sallyport/web/console"
	"sallyport/web/live"
	"sallyport/web/said"
)

// desk gives the console what the API gives programs: each of its methods is what the operation of the same purpose
// stands on, with the same permissions and audit events.
type desk struct{ s *server }

var _ console.Desk = desk{}

// became is what became of a grant as the API says it.
func became(g grant.Grant, err error) (api.Grant, error) {
	if err != nil {
		return api.Grant{}, err
	}
	return said.Grant(g), nil
}

// as is who asks, as the API's functions take it.
func as(who console.Caller) caller { return caller{Identity: who.Identity, client: who.Client} }

// from is the context in which policies know where somebody asks from.
func from(ctx context.Context, who console.Caller) context.Context {
	return grant.WithSource(ctx, remote(who.Client))
}

func (d desk) Gateway() (api.Gateway, error) { return d.s.gateway() }

func (d desk) Offers(ctx context.Context, who console.Caller) ([]api.Offer, error) {
	return d.s.offers(from(ctx, who), as(who))
}

func (d desk) Connections(ctx context.Context, who console.Caller) ([]api.Connection, error) {
	gateway, err := d.s.gateway()
	if err != nil {
		return nil, err
	}
	return d.s.connections(from(ctx, who), as(who), gateway)
}

func (d desk) Ask(ctx context.Context, who console.Caller, in api.GrantRequest) (api.Grant, error) {
	return became(d.s.request(from(ctx, who), as(who), in))
}

func (d desk) Grants(ctx context.Context, who console.Caller, f grant.Filter) ([]api.Grant, bool, error) {
	return d.s.findGrants(from(ctx, who), as(who), f)
}

func (d desk) Reviews(ctx context.Context, who console.Caller) ([]api.Review, error) {
	return d.s.reviews(ctx, as(who), false)
}

func (d desk) Review(ctx context.Context, who console.Caller, id, comment string) (api.Grant, error) {
	return became(d.s.Grants.Review(from(ctx, who), who.Identity, id, comment))
}

func (d desk) Evidence(ctx context.Context, who console.Caller, id string) (func(context.Context, io.Writer) error, error) {
	bundle, err := d.s.sessionEvidence(ctx, as(who), &evidencing{ID: id})
	if err != nil {
		return nil, err
	}
	return bundle.write, nil
}

func (d desk) Explain(ctx context.Context, who console.Caller, in api.GrantRequest) (api.Explanation, error) {
	return d.s.explain(from(ctx, who), as(who), in)
}

func (d desk) Standing(ctx context.Context, who console.Caller) (api.Status, error) {
	return d.s.standing(ctx, as(who))
}

func (d desk) Notifications(ctx context.Context, who console.Caller) ([]api.Notification, error) {
	return d.s.notifications(ctx, as(who), false)
}

func (d desk) PolicyList(who authn.Identity) []configs.Policy {
	if d.s.Grants.May(who, grant.ListGrants, "") != nil {
		return nil
	}
	return d.s.Config().Policies
}

func (d desk) HeldPolicies(ctx context.Context, who console.Caller) ([]api.HeldPolicies, error) {
	return d.s.heldPolicies(ctx, as(who))
}

func (d desk) ConfirmPolicies(ctx context.Context, who console.Caller, revision string) (api.HeldPolicies, error) {
	return d.s.confirmPolicies(ctx, as(who), revision)
}

func (d desk) RejectPolicies(ctx context.Context, who console.Caller, revision, comment string) (api.HeldPolicies, error) {
	return d.s.rejectPolicies(ctx, as(who), revision, comment)
}

func (d desk) Extend(ctx context.Context, who console.Caller, id string, in api.ExtensionRequest) (api.Grant, error) {
	return became(d.s.extend(from(ctx, who), as(who), id, in))
}

func (d desk) Grant(ctx context.Context, who console.Caller, id string) (api.Grant, error) {
	return became(d.s.Grants.Get(from(ctx, who), who.Identity, id))
}

func (d desk) Approve(ctx context.Context, who console.Caller, id, comment string) (api.Grant, error) {
	return became(d.s.approve(from(ctx, who), as(who), id, comment))
}

func (d desk) Deny(ctx context.Context, who console.Caller, id, comment string) (api.Grant, error) {
	return became(d.s.Grants.Deny(from(ctx, who), who.Identity, id, comment))
}

func (d desk) Revoke(ctx context.Context, who console.Caller, id, comment string) (api.Grant, error) {
	return became(d.s.Grants.Revoke(from(ctx, who), who.Identity, id, comment))
}

func (d desk) Tag(g api.Grant) (string, error) { return tagOfValue(g) }

func (d desk) Unchanged(ctx context.Context, who console.Caller, id, tag string) error {
	return d.s.unchangedGrant(from(ctx, who), as(who), id, tag)
}

func (d desk) Release(ctx context.Context, who console.Caller, id string) (api.Grant, error) {
	return became(d.s.Grants.Release(from(ctx, who), who.Identity, id))
}

func (d desk) FindSessions(ctx context.Context, who console.Caller, f session.Filter) ([]api.Session, error) {
	return d.s.findSessions(ctx, as(who), f)
}

func (d desk) Session(ctx context.Context, who console.Caller, id string) (api.Session, error) {
	return d.s.session(ctx, as(who), id)
}

func (d desk) Kill(ctx context.Context, who console.Caller, id, comment string) (api.Session, error) {
	return d.s.kill(ctx, as(who), id, comment)
}

func (d desk) Replay(ctx context.Context, who console.Caller, id string, from time.Duration) (iter.Seq2[api.Item, error], error) {
	return d.s.replay(ctx, as(who), id, from)
}

func (d desk) Part(ctx context.Context, who console.Caller, id string, from time.Duration) (iter.Seq2[api.Item, error], error) {
	return d.s.part(ctx, as(who), id, from)
}

func (d desk) Integrity(ctx context.Context, who console.Caller, id string, most int64) (*recorder.Integrity, error) {
	return d.s.integrity(ctx, as(who), id, most)
}

func (d desk) IntegrityAgain(ctx context.Context, who console.Caller, id string, most int64) (*recorder.Integrity, error) {
	return d.s.integrityAgain(ctx, as(who), id, most)
}

func (d desk) Segments(ctx context.Context, who console.Caller, id string) (replay.Segments, error) {
	return d.s.segments(ctx, as(who), id)
}

func (d desk) Search(ctx context.Context, who console.Caller, q recorder.Query) (iter.Seq2[api.Match, error], error) {
	return d.s.find(ctx, as(who), q)
}

func (d desk) Audit(ctx context.Context, who console.Caller, f recorder.AuditFilter) (iter.Seq2[api.AuditEvent, error], error) {
	return d.s.readAudit(ctx, as(who), f)
}

func (d desk) Verify(ctx context.Context, who console.Caller) (*verify.Report, error) {
	return d.s.verifyLog(ctx, as(who))
}

func (d desk) Events(ctx context.Context, who console.Caller, after uint64) (iter.Seq2[api.Event, error], error) {
	return d.s.events(ctx, as(who), nil, after)
}

func (d desk) Live(ctx context.Context, who console.Caller) (iter.Seq2[[]api.Pulse, error], error) {
	return d.s.live(ctx, as(who))
}

func (d desk) Batches(ctx context.Context, who console.Caller, id string, after int) (iter.Seq2[api.Batch, error], error) {
	return d.s.batches(ctx, as(who), id, after)
}

func (d desk) Screen(ctx context.Context, who console.Caller, id string, channel uint32) (func(io.Writer) error, error) {
	frames, err := d.s.screen(ctx, as(who), id, channel)
	return func(w io.Writer) error { return live.WriteFrames(w, frames) }, err
}

func (d desk) Targets() map[string]console.Target {
	targets := map[string]console.Target{}
	for _, t := range d.s.Config().Targets {
		targets[t.Name] = console.Target{Kind: t.Kind, Labels: t.Labels}
	}
	return targets
}

func (d desk) Policies() int { return len(d.s.Config().Policies) }

func (d desk) May(who authn.Identity, permission grant.Permission, target string) bool {
	return d.s.Grants.May(who, permission, target) == nil
}

func (d desk) Approves(who authn.Identity) bool {
	for _, p := range d.s.Config().Policies {
		if policy.InAny(who.Groups, policy.Approving(p)) || policy.InAny(who.Groups, p.Review.Groups) {
			return true
		}
	}
	return false
}

func (d desk) Problem(operation string, err error) *api.Problem { return d.s.fail(operation, err) }
