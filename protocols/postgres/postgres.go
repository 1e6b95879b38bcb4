// Package postgres is the way of a PostgreSQL connection through the gateway.
//
// It promises that stock clients (psql and everything on libpq, JDBC, pgx and others) work as if they were connected
// straight, that nothing a client says reaches a target but through session.Admit, and that a session that is cut tells its
// client why in PostgreSQL's own words and leaves nothing running on the target.
//
// A connection goes this way (the numbers are DESIGN.md's, section 2): accept.go, params.go and address.go learn who wants
// what (1, 2), Handler.open finds the lease and begins the session (3, 4), server logs in to the target (4), relay.go
// passes bytes on, recorded first (5), cut.go ends it (6). cancel.go is for CancelRequests, check.go and sweep.go for
// the gateway's own acts. wire has the formats, server the target's side, guard what a role may not say, ephemeral the roles that are
// made for one grant, and interpret says what a recording meant.
//
// Forwarding and understanding are kept apart: the relay finds where frames begin and end, in place and without allocating,
// and passes whole chunks on; what they meant is worked out from the recording and never decides whether a byte passes.
package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/ephemeral"
	"sallyport/protocols/postgres/interpret"
	"sallyport/protocols/postgres/wire"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
)

// Options configure New; all are required.
type Options struct {
	Authn    *authn.Service
	Grants   *grant.Service
	Sessions *session.Manager
	// TLS is the server's side; its GetCertificate (or Certificates) is set. It is cloned.
	TLS *tls.Config
	// URL is the gateway's address for people, for hints.
	URL string
	// HandshakeTimeout is the one deadline for everything up to a proven identity and a lease.
	HandshakeTimeout time.Duration
	Log              *slog.Logger
}

// Handler serves PostgreSQL clients. Safe for concurrent use.
type Handler struct {
	authn    *authn.Service
	grants   *grant.Service
	sessions *session.Manager
	tls      naming
	url      string
	timeout  time.Duration
	log      *slog.Logger

	cancels  cancels
	roles    *ephemeral.Roles // nil: see KeepRoles
	versions sync.Map         // of targets, by address: their major version as an int, once the gateway has seen it
}

// New makes a Handler. A client's certificate is asked for and not required by TLS, and verified by authn: so a person
// without one can be told so in words.
func New(o Options) *Handler {
	config := o.TLS.Clone()
	config.ClientAuth = tls.RequestClientCert
	config.NextProtos = []string{wire.ALPN}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	// A resumed connection would name no certificate to bind a password to, and no two users ever share one's secrets.
	config.SessionTicketsDisabled = true
	if get := config.GetCertificate; get != nil {
		config.GetCertificate = remember(get)
	}
	config.DynamicRecordSizingDisabled = true // whole results are passed on, not web pages
	return &Handler{
		authn: o.Authn, grants: o.Grants, sessions: o.Sessions, tls: naming{config: config, authorities: o.Authn.ClientAuthorities}, url: o.URL,
		timeout: o.HandshakeTimeout, log: o.Log, cancels: newCancels(),
	}
}

// Interpreter is the constructor for recorder.Options.Interpreters.
func Interpreter(header format.Header) recorder.Interpreter { return interpret.New(header) }

// Sealer is the constructor for recorder.Options.Sealers.
func Sealer(placeholder string) recorder.Sealer { return interpret.NewSealer(placeholder) }

// Serve serves one connection of the shared listener, where TLS server name or database choose the target. It returns when the
// connection is over; the end of ctx ends it. It closes conn.
func (h *Handler) Serve(ctx context.Context, conn net.Conn) { h.serve(ctx, conn, "") }

// ForTarget serves connections of a target's own listener.
func (h *Handler) ForTarget(name string) interface {
	Serve(context.Context, net.Conn)
} {
	return forTarget{h, name}
}

type forTarget struct {
	handler *Handler
	target  string
}

func (f forTarget) Serve(ctx context.Context, conn net.Conn) { f.handler.serve(ctx, conn, f.target) }

func (h *Handler) serve(ctx context.Context, raw net.Conn, own string) {
	defer raw.Close()
	defer h.recovered("connection", func() {})
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	if err := raw.SetDeadline(time.Now().Add(h.timeout)); err != nil {
		return
	}
	var r *relay
	h.apart("opening", func() { r = h.begin(ctx, newClient(raw), own) })
	if r == nil {
		return
	}
	defer r.close()
	defer r.session.End(session.Ending{Reason: session.EndTargetFailed, Sentence: "the gateway failed"}) // after a panic
	r.run(ctx)
}

// begin brings a connection to where its session begins; nil says that it is over.
func (h *Handler) begin(ctx context.Context, c *client, own string) *relay {
	packet, err := c.opening(ctx, h.tls.now())
	if err != nil {
		h.turnAway(c, err)
		return nil
	}
	if packet.Code == wire.CancelCode {
		h.cancel(ctx, c, packet)
		c.linger() // libpq 17 and later take a TLS connection that ends without a word for a failed cancel
		return nil
	}
	r, err := h.open(ctx, c, own, packet)
	if err != nil {
		h.turnAway(c, err)
		return nil
	}
	r.session.OnCut(r.farewell)
	return r
}

// apart runs f in a goroutine of its own and waits for it: a handshake needs a large stack, and what comes after it, perhaps
// for hours, a small one. It reports whether f returned, and keeps a panic to the connection it happened in.
func (h *Handler) apart(what string, f func()) (returned bool) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer h.recovered(what, func() {})
		f()
		returned = true
	}()
	<-over
	return returned
}

// turnAway tells a client why it is not let in, and counts strangers. A refusal of somebody who is known was audited by the
// room that refused.
func (h *Handler) turnAway(c *client, err error) {
	from := c.raw.RemoteAddr()
	if s, ok := errors.AsType[*stranger](err); ok {
		h.authn.Unauthenticated(s.kind, from)
		h.log.Debug("turned away", "from", from, "kind", s.kind, "error", err, "cause", s.Cause)
	} else {
		h.log.Info("refused", "from", from, "error", err)
	}
	r := refusal.Of(err)
	if r == nil {
		h.log.Error("a connection failed", "from", from, "error", err)
		r = refusal.New(refusal.RecorderFailed, "the gateway failed").WithDetail("The reason is in the gateway's own log.").
			WithHint("tell whoever runs the gateway")
	}
	if s, ok := errors.AsType[*stranger](err); ok && s.kind == strangerPassword && r.Code == refusal.NotAuthenticated {
		c.tell(appendFatal(nil, stateInvalidPassword, r.Message, r.Detail, r.Hint)) // which some clients look for
	} else {
		c.tell(appendRefusal(nil, r))
	}
	c.linger()
}

// recovered, deferred, keeps a panic to the connection it happened in.
func (h *Handler) recovered(what string, then func()) {
	if p := recover(); p != nil {
		h.log.Error("panic", "in", what, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		then()
	}
}

// identify is who it is, by the client certificate of the TLS handshake.
func (h *Handler) identify(ctx context.Context, c *client) (authn.Identity, error) {
	if len(c.tls.PeerCertificates) == 0 {
		return authn.Identity{}, strange(strangerCertificate, h.howToSignIn())
	}
	who, err := h.authn.ClientCertificate(ctx, c.tls.PeerCertificates)
	if r := refusal.Of(err); r != nil {
		return who, strange(strangerCertificate, r)
	}
	return who, err
}

// open finds out who wants what, takes a lease on the grant for it, and begins the session.
func (h *Handler) open(ctx context.Context, c *client, own string, packet wire.Packet) (*relay, error) {
	named, id, byPassword := passwordUser(packet)
	var who authn.Identity
	var password authn.Password
	s, unread := readStartup(packet) // told only to somebody
	var err error
	switch {
	case byPassword && id == promptID && unread == nil:
		who, err = h.identifyAtPrompt(ctx, c, s, h.addressOf(own, c.tls.ServerName, s.asAccount(named)), named)
	case byPassword:
		who, password, err = h.identifyByPassword(ctx, c, id)
	case unread == nil && !h.ours(c) && c.offersTokens(s):
		who, err = h.identifyByToken(ctx, c, h.addressOf(own, c.tls.ServerName, s), s.user)
	default:
		who, err = h.identify(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	authn.Proven(c.raw)
	// What the rules of this room refuse is audited here; what grant and session refuse, they audit themselves.
	refused := func(err error, target, account string) error {
		if r := refusal.Of(err); r != nil {
			h.sessions.Refused(who, c.raw.RemoteAddr(), target, account, r)
		}
		return err
	}
	if unread != nil {
		return nil, refused(unread, own, s.user)
	}
	if byPassword {
		s = s.asAccount(named)
	}
	where := h.addressOf(own, c.tls.ServerName, s)
	if err := h.checkKind(where); err != nil {
		return nil, refused(err, where.target, s.user)
	}
	if byPassword && id != promptID && (where.target != password.Target || s.user != password.Account) {
		return nil, refused(otherAccount(password), where.target, s.user)
	}
	lease, err := h.lease(ctx, c, who, where.target, s, byPassword && id == promptID)
	if err != nil {
		return nil, err
	}
	target, account, err := h.resolve(where, s)
	if err == nil {
		err = c.raw.SetDeadline(time.Time{})
	}
	if err != nil {
		lease.Return()
		return nil, refused(err, where.target, s.user)
	}
	opened, err := h.sessions.Begin(ctx, session.Opening{
		Protocol: configs.KindPostgres, Identity: who, Target: target, Account: account, Lease: lease,
		Client: c.raw.RemoteAddr(),
	})
	if err != nil {
		return nil, err
	}
	return newRelay(h, opened, c, s, where), nil
}
