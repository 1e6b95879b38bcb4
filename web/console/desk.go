package console

import (
	"context"
	"io"
	"iter"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/recorder"
	"sallyport/recorder/replay"
	"sallyport/recorder/verify"
	"sallyport/session"
	"sallyport/web/api"
)

// Caller is who asks, and from where.
type Caller struct {
	authn.Identity
	Client string // address
}

// Target is what the console says of a target beside its name.
type Target struct {
	Kind   string
	Labels map[string]string
}

// Desk is what the console gets its data from and does its deeds with: the functions on which the API's operations stand,
// which ask for the permission and write the audit event. Refusals are *refusal.Refusal.
type Desk interface {
	Gateway() (api.Gateway, error)
	Offers(ctx context.Context, who Caller) ([]api.Offer, error)
	Connections(ctx context.Context, who Caller) ([]api.Connection, error)

	Ask(ctx context.Context, who Caller, in api.GrantRequest) (api.Grant, error)
	// Grants finds those that the caller may see, newest first, and whether there are more.
	Grants(ctx context.Context, who Caller, f grant.Filter) ([]api.Grant, bool, error)
	// Reviews are what was done in emergencies and waits for somebody to look at it; Review says that the caller did.
	Reviews(ctx context.Context, who Caller) ([]api.Review, error)
	Review(ctx context.Context, who Caller, id, comment string) (api.Grant, error)
	// Evidence opens a session's bundle for somebody who has two public keys; the function it returns writes it.
	Evidence(ctx context.Context, who Caller, id string) (func(context.Context, io.Writer) error, error)
	// Explain says what the policies would answer to a request of the caller's.
	Explain(ctx context.Context, who Caller, in api.GrantRequest) (api.Explanation, error)
	Extend(ctx context.Context, who Caller, id string, in api.ExtensionRequest) (api.Grant, error)
	Grant(ctx context.Context, who Caller, id string) (api.Grant, error)
	Approve(ctx context.Context, who Caller, id, comment string) (api.Grant, error)
	Deny(ctx context.Context, who Caller, id, comment string) (api.Grant, error)
	Revoke(ctx context.Context, who Caller, id, comment string) (api.Grant, error)
	// Tag is a grant's ETag, as the API has it; Unchanged refuses with api.Changed when the grant has another by now.
	Tag(g api.Grant) (string, error)
	Unchanged(ctx context.Context, who Caller, id, tag string) error
	Release(ctx context.Context, who Caller, id string) (api.Grant, error)

	FindSessions(ctx context.Context, who Caller, f session.Filter) ([]api.Session, error)
	Session(ctx context.Context, who Caller, id string) (api.Session, error)
	Kill(ctx context.Context, who Caller, id, comment string) (api.Session, error)

	// Events, Live, Batches and Screen follow what happens, until ctx or the caller's sign-in ends.
	Events(ctx context.Context, who Caller, after uint64) (iter.Seq2[api.Event, error], error)
	Live(ctx context.Context, who Caller) (iter.Seq2[[]api.Pulse, error], error)
	Batches(ctx context.Context, who Caller, id string, after int) (iter.Seq2[api.Batch, error], error)
	// Screen opens a live terminal, which the function it returns writes as the player's event source takes it.
	Screen(ctx context.Context, who Caller, id string, channel uint32) (func(io.Writer) error, error)

	// Replay reads a recording; of a large one, most of what came before from may be left out. Part is the same for the next
	// piece of what somebody is looking at, which Segments lists.
	Replay(ctx context.Context, who Caller, id string, from time.Duration) (iter.Seq2[api.Item, error], error)
	Part(ctx context.Context, who Caller, id string, from time.Duration) (iter.Seq2[api.Item, error], error)
	Segments(ctx context.Context, who Caller, id string) (replay.Segments, error)
	// Integrity reads a recording that has ended to its end and compares it with the log over all recordings; nil where it takes
	// more room than most bytes. IntegrityAgain is the same for somebody who is looking at it.
	Integrity(ctx context.Context, who Caller, id string, most int64) (*recorder.Integrity, error)
	IntegrityAgain(ctx context.Context, who Caller, id string, most int64) (*recorder.Integrity, error)
	Search(ctx context.Context, who Caller, q recorder.Query) (iter.Seq2[api.Match, error], error)
	Audit(ctx context.Context, who Caller, f recorder.AuditFilter) (iter.Seq2[api.AuditEvent, error], error)
	// Standing is how the gateway stands, Notifications what waits to be told to channels.
	Standing(ctx context.Context, who Caller) (api.Status, error)
	Notifications(ctx context.Context, who Caller) ([]api.Notification, error)
	Verify(ctx context.Context, who Caller) (*verify.Report, error)

	// Targets and Policies are what is configured.
	Targets() map[string]Target
	Policies() int
	// PolicyList are the policies, for those who may list all grants.
	PolicyList(who authn.Identity) []configs.Policy
	// HeldPolicies are those that may widen access and wait for a second person, at most one set; ConfirmPolicies and RejectPolicies are
	// that person's word, on the one with that hash.
	HeldPolicies(ctx context.Context, who Caller) ([]api.HeldPolicies, error)
	ConfirmPolicies(ctx context.Context, who Caller, revision string) (api.HeldPolicies, error)
	RejectPolicies(ctx context.Context, who Caller, revision, comment string) (api.HeldPolicies, error)

	// May and Approves say what is worth showing to somebody. They decide nothing: the functions above do.
	May(who authn.Identity, permission grant.Permission, target string) bool
	Approves(who authn.Identity) bool

	// Problem is an error as people may see it; what is no refusal is logged.
	Problem(operation string, err error) *api.Problem
}
