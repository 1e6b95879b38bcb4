package web

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// bearerScheme is the security scheme's name in the API's description.
const bearerScheme = "bearer"

// public marks, in an operation's metadata, what answers without a token. Everything else needs one.
const public = "public"

// emergencies marks, in an operation's metadata, what somebody may do who signed in with an enrolled key, for an emergency alone
// (authn.Identity.Emergency). Everything else refuses them.
const emergencies = "emergencies"

// inEmergency marks an operation so.
func inEmergency(op huma.Operation) huma.Operation {
	op.Metadata = map[string]any{emergencies: true}
	return op
}

// operationTimeout bounds everything but streams.
const operationTimeout = 30 * time.Second

// caller is who asks, and from where.
type caller struct {
	authn.Identity
	client string
}

type callerKey struct{}

// authenticate lets a request through when its operation is public or its access token is good.
func (s *server) authenticate(ctx huma.Context, next func(huma.Context)) {
	if open, _ := ctx.Operation().Metadata[public].(bool); open {
		next(ctx)
		return
	}
	r, w := humago.Unwrap(ctx)
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		s.Authn.Unauthenticated("http: no access token", remote(r.RemoteAddr))
		write(w, problem(refusal.New(refusal.NotAuthenticated, "you are not signed in").
			WithDetail("the request carries no access token").WithHint("sallyport login")))
		return
	}
	bearer := s.Authn.Bearer
	if allowed, _ := ctx.Operation().Metadata[emergencies].(bool); allowed {
		bearer = s.Authn.EmergencyBearer
	}
	who, err := bearer(r.Context(), token)
	if refusal.Is(err, refusal.NotPermitted) { // which authn has audited
		write(w, s.fail(ctx.Operation().OperationID, err))
		return
	}
	if err != nil {
		s.Authn.Unauthenticated("http: bad access token", remote(r.RemoteAddr))
		write(w, s.fail(ctx.Operation().OperationID, err))
		return
	}
	proven(r.Context())
	next(huma.WithValue(ctx, callerKey{}, caller{Identity: who, client: r.RemoteAddr}))
}

// handle registers an operation for authenticated callers. Whatever its handler returns as an error leaves as a problem.
func handle[I, O any](s *server, op huma.Operation, do func(ctx context.Context, who caller, in *I) (*O, error)) {
	op.Security = []map[string][]string{{bearerScheme: {}}}
	switch op.Method {
	case http.MethodGet:
		op.Middlewares = append(op.Middlewares, tagged)
	case http.MethodPost:
		op.Middlewares = append(op.Middlewares, s.once)
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: idempotencyKey, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "Sent again with the same key within a day, the request is not carried out again, and the first answer is given.",
		})
	}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, operationTimeout)
		defer cancel()
		who, ok := ctx.Value(callerKey{}).(caller)
		if !ok { // can't happen while authenticate is in the chain; shut if it does
			return nil, problem(refusal.New(refusal.NotAuthenticated, "you are not signed in"))
		}
		out, err := do(grant.WithSource(ctx, remote(who.client)), who, in)
		if err != nil {
			return nil, s.fail(op.OperationID, err)
		}
		return out, nil
	})
}

// operation describes one; method and path are also its identity in logs.
func operation(id, method, path, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, MaxBodyBytes: maxBody, Errors: []int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}}
}

// permit returns nil if the caller has the permission for the target, and the proof that step_up asks for; else it audits the
// refusal and returns it.
func (s *server) permit(ctx context.Context, who caller, permission grant.Permission, target string) error {
	if err := s.may(ctx, who, permission, target); err != nil {
		return err
	}
	return s.fresh(ctx, who, string(permission), target)
}

// may is permit without the proof.
func (s *server) may(ctx context.Context, who caller, permission grant.Permission, target string) error {
	err := s.Grants.May(who.Identity, permission, target)
	if err == nil {
		return nil
	}
	event := s.event(who, "api.refused")
	event.Target = target
	event.Outcome = string(refusal.NotPermitted)
	if r := refusal.Of(err); r != nil {
		event.Outcome = string(r.Code)
	}
	event.Fields = map[string]string{"permission": string(permission)}
	if failed := s.Store.Audit(ctx, event); failed != nil {
		return failed
	}
	return err
}

// event begins an audit event of the caller's.
func (s *server) event(who caller, kind string) store.AuditEvent {
	return store.AuditEvent{Kind: kind, Actor: who.Key(), ActorName: who.Label(), Client: who.client}
}

// remote is a request's address as authn counts it.
func remote(address string) net.Addr {
	if a, err := netip.ParseAddrPort(address); err == nil {
		return net.TCPAddrFromAddrPort(a)
	}
	return &net.TCPAddr{}
}

type connectionKey struct{}

// WithConnection is the http.Server's ConnContext: it lets an authenticated request take its connection off the
// strangers' count.
func WithConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// peer is the other end of the request's connection; nil where that is not known.
func peer(ctx context.Context) net.Addr {
	if conn, ok := ctx.Value(connectionKey{}).(net.Conn); ok {
		return conn.RemoteAddr()
	}
	return nil
}

// proven notes that the request's connection belongs to a proven identity.
func proven(ctx context.Context) {
	if conn, ok := ctx.Value(connectionKey{}).(net.Conn); ok {
		authn.Proven(conn)
	}
}
