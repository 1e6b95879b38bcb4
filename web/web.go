// Package web is the gateway's HTTP face: the JSON API that the CLI and every other program use, the sign-in pages of
// the gateway's own issuer, the console (room console), and the health checks.
//
// It promises that nothing but a short public list (what a client needs before it has signed in, health, the API's
// description) answers without a good access token of the gateway's issuer; that every "no" is a problem document with
// a stable code; and that no recording is read, searched or exported without the permission for its target and an
// audit event written before the first byte goes out. It knows no protocol: what needs one is handed in as a function.
package web

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/grant/approval"
	"sallyport/internal/store"
	"sallyport/recorder"
	"sallyport/recorder/archive"
	"sallyport/session"
	"sallyport/web/api"
	"sallyport/web/console"
	"sallyport/web/idempotency"
	"sallyport/web/live"
	"sallyport/web/welcome"
)

// Options configure New. All but Reload, Keys, Console, Bound, Setup, Check, Trust, Decide, Notifications, Retry, Archive and Cleanups are required.
type Options struct {
	// URL is the gateway's public HTTPS address, without a path.
	URL string
	// Version is the gateway's.
	Version string

	Authn    *authn.Service
	Grants   *grant.Service
	Sessions *session.Manager
	Recorder *recorder.Recorder
	Store    *store.Store
	// Keys keeps what was answered to requests with an idempotency key; without it such keys are passed over.
	Keys *idempotency.Keys
	// Console keeps the console's sessions; without it there is no console.
	Console *console.Sessions

	// Config returns the configuration in force; it may change between calls.
	Config func() *configs.Config
	// Bound returns the address (host:port) that a listener really has: "ssh", "postgres", or "postgres/TARGET" for a
	// target's own. Empty, or a nil Bound, means the configured one.
	Bound func(listener string) string

	// Setup, Check and Trust are what protocols know about targets: what one needs, whether it has it, and which keys it
	// proves itself with now. Without them the gateway answers that it can't.
	Setup func(ctx context.Context, target configs.Target) (api.Setup, error)
	Check func(ctx context.Context, who authn.Identity, target configs.Target) (api.Check, error)
	Trust func(ctx context.Context, who authn.Identity, target configs.Target) (api.Trust, error)

	// Reload has the configuration read again, soon; it waits for nothing.
	Reload func()

	// Decide takes a decision that the webhook of that name has signed, Notifications lists what is told to channels, and Retry has
	// some of that tried again. A gateway may have none.
	Decide        func(ctx context.Context, name, id, timestamp, signature string, body []byte) (grant.Grant, error)
	Notifications func(ctx context.Context, all bool) ([]approval.Notification, error)
	Retry         func(ctx context.Context, again approval.Again, event store.AuditEvent) ([]approval.Notification, error)

	// Archive tells how it stands with the archive of recordings; its answer is nil without one, and so may it be.
	Archive func(context.Context) (*archive.Status, error)

	// Cleanups are roles that are still to be dropped on targets; nil: none are made.
	Cleanups func() []api.Cleanup

	Log *slog.Logger
}

// server is the API's handlers.
type server struct {
	Options
	api    huma.API
	pulses *live.Pulses
	shows  shows
}

// New makes the handler of the HTTPS listener.
func New(o Options) http.Handler {
	s := &server{Options: o}
	return s.guard(s.routes())
}

// router is a http.ServeMux that knows what was registered with it.
type router struct {
	*http.ServeMux
	patterns []string
}

func (r *router) Handle(pattern string, h http.Handler) {
	r.patterns = append(r.patterns, pattern)
	r.ServeMux.Handle(pattern, h)
}

func (r *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	r.Handle(pattern, http.HandlerFunc(h))
}

// routes is every address that the gateway answers to.
func (s *server) routes() *router {
	o := s.Options
	s.shows.since = map[[2]string]time.Time{}
	s.pulses = live.NewPulses(o.Recorder.FollowLines, o.Log)
	mux := &router{ServeMux: http.NewServeMux()}

	config := huma.DefaultConfig("Sallyport", o.Version)
	config.Info.Description = "The gateway's API. Sign in at the issuer that GET /v1/gateway names and send the access token as a bearer token."
	config.Servers = []*huma.Server{{URL: o.URL}}
	config.DocsPath, config.SchemasPath = "", ""
	config.CreateHooks = nil // no $schema member in answers
	config.RejectUnknownQueryParameters = true
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		bearerScheme: {Type: "http", Scheme: "bearer"},
		signatureScheme: {
			Type: "apiKey", In: "header", Name: "Webhook-Signature",
			Description: "The webhook's signature of id, timestamp and body; see docs/approvals.md.",
		},
	}
	s.api = humago.New(mux, config)
	s.api.UseMiddleware(s.authenticate)

	s.registerGateway()
	s.registerMe()
	s.registerCredentials()
	s.registerKeys()
	s.registerTargets()
	s.registerGrants()
	s.registerPolicy()
	s.registerApprovals()
	s.registerReviews()
	s.registerSessions()
	s.registerRecordings()
	s.registerAuthorities()
	s.registerPolicies()
	s.registerEvents()
	s.registerLive()
	s.registerWatching()

	welcome := welcome.New(welcome.Options{
		URL: o.URL, Version: o.Version, Gateway: s.welcoming, Releases: func() string { return o.Config().Releases },
		Fail: func(w http.ResponseWriter, err error) { write(w, s.fail("welcome", err)) }, Missing: s.nothingHere, Log: o.Log,
	})
	mux.HandleFunc("GET /connect", welcome.Connect)
	mux.HandleFunc("GET /download/{$}", welcome.List)
	mux.HandleFunc("GET /download/{name}", welcome.File)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /log/", s.serveLog)
	issuer := o.Authn.Handler()
	mux.Handle("/.well-known/", issuer)
	mux.Handle("/oauth/", issuer)
	mux.Handle("/scim/", issuer)
	if o.Console != nil {
		mux.Handle("/console/", console.New(console.Options{
			Desk: desk{s}, Authn: o.Authn, Sessions: o.Console, Proven: proven, Log: o.Log,
		}))
		mux.Handle("GET /{$}", http.RedirectHandler("/console/", http.StatusSeeOther))
		mux.Handle("GET /console", http.RedirectHandler("/console/", http.StatusSeeOther))
	}
	mux.HandleFunc("/", s.nothingHere)
	return mux
}
