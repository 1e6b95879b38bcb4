// Package ssh speaks SSH with clients and targets.
//
// It promises that whatever a client says (a channel, a request, data) is admitted by the session before the target
// hears of it, that what the target answers is recorded before the client sees it, and that stock clients notice nothing
// else: output is whole and in order, exit status, signals and half-closed streams arrive as from the target itself.
//
// A connection goes this way:
//
//	ssh.go         Handler: one client's connection from the first byte to the last
//	identify.go    who is it: a user certificate
//	hold.go        or a plain key, whose person signs in while the connection waits
//	wait.go        a terminal that waits for an approval
//	connection.go  the client's channels and global requests
//	jump.go        a connection inside a connection: ssh -J gateway ACCOUNT@TARGET
//	link.go        one session on a target: lease, recording, connection, and how it is cut
//	login.go       the gateway's own login on the target, hostkey.go the target's proof
//	channel.go     one channel, copied both ways; requests.go decides what may be asked on it
//	target_write.go  all writers to the target
//	rules/         what a role lets pass: commands, variables, destinations
//	keep/          how a channel's data are recorded
//	intake/        what waits to be read costs no more than its bytes
//	wire/          under the library: larger reads and writes, and a change of keys that is begun is gone through with
//	interpret/     what a recording meant
package ssh

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/grant"
	"sallyport/protocols/ssh/intake"
	"sallyport/protocols/ssh/interpret"
	"sallyport/protocols/ssh/wire"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
)

// Options configure New.
type Options struct {
	Authn    *authn.Service
	Grants   *grant.Service
	Sessions *session.Manager
	// Host is the name (and port, if not 22) that clients use for the gateway.
	Host string
	// Version is the identification after "SSH-2.0-". It must begin with "OpenSSH_": only then does OpenSSH's client say
	// when its output is closed, without which `ssh … yes | head -1` hangs.
	Version string
	// URL is the gateway's HTTPS address, for what users are told.
	URL string
	// HandshakeTimeout bounds everything up to a proven identity. Default: 30 s.
	HandshakeTimeout time.Duration
	// AnswerTimeout is how long a target may take to answer one request; then its channel is given up. Default: 1 min.
	AnswerTimeout time.Duration
	// RekeyTimeout is how long a client may take to change keys; then its connection is closed. Default: 5 min.
	RekeyTimeout time.Duration
	// PromptWait is how long a terminal waits for an approval. Default: 5 min.
	PromptWait time.Duration
	Log        *slog.Logger

	purse *intake.Purse // of all connections; nil: a new one
}

const (
	defaultVersion          = "OpenSSH_9.9 sallyport"
	defaultHandshakeTimeout = 30 * time.Second
)

// Handler serves SSH connections. Safe for concurrent use.
type Handler struct {
	Options
}

// New is a handler.
func New(o Options) *Handler {
	if o.Version == "" {
		o.Version = defaultVersion
	}
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = defaultHandshakeTimeout
	}
	if o.AnswerTimeout <= 0 {
		o.AnswerTimeout = answerTime
	}
	if o.RekeyTimeout <= 0 {
		o.RekeyTimeout = rekeyTime
	}
	if o.PromptWait <= 0 {
		o.PromptWait = promptWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.purse == nil {
		o.purse = intake.NewPurse(intake.PurseSize, intake.MaxAhead)
	}
	return &Handler{o}
}

// Interpreter is what turns recordings of this protocol into meaning.
func Interpreter(header format.Header) recorder.Interpreter { return interpret.New(header) }

// What strangers do wrong, for authn.Unauthenticated.
const (
	strangerClosed      = "ssh: closed before it proved anything"
	strangerSlow        = "ssh: handshake not finished in time"
	strangerGarbage     = "ssh: not SSH, or broken off"
	strangerAlgorithms  = "ssh: no common algorithm"
	strangerPlainKey    = "ssh: key without a certificate"
	strangerCertificate = "ssh: certificate refused"
	strangerSignIn      = "ssh: key without a sign-in"
	strangerNothing     = "ssh: no credential that is accepted"
)

// Serve serves one client's connection and returns when it has ended. It closes conn. When ctx ends, the connection does.
func (h *Handler) Serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer h.recovered(nil)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(h.HandshakeTimeout)); err != nil {
		return
	}
	seen := watch(conn)
	defer seen.end()
	who := &proof{handler: h, ctx: ctx, conn: seen}
	config, err := h.outerConfig(who)
	if err != nil {
		h.Log.Error("no SSH host key", "error", err)
		return
	}
	flow := intake.NewFlow(h.purse)
	keys := &wire.Rekeyed{Conn: wire.New(seen, flow.Came).Promptly(conn)}
	client, channels, requests, err := xssh.NewServerConn(keys, keys.Config(config))
	if err != nil {
		h.Authn.Unauthenticated(who.stranger(err), conn.RemoteAddr())
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		client.Close()
		return
	}
	authn.Proven(conn)
	c := &connection{
		handler: h, client: client, close: func() { conn.Close() }, flow: flow, address: parseAddress(client.User()), proof: who,
	}
	keys.Watch(client, h.RekeyTimeout, c.keysStuck)
	c.serve(ctx, channels, requests)
}

// stranger is the kind of a failed handshake.
func (p *proof) stranger(err error) string {
	var timeout net.Error
	switch {
	case p.refusedCertificate:
		return strangerCertificate
	case p.refusedSignIn:
		return strangerSignIn
	case p.sawPlainKey:
		return strangerPlainKey
	case errors.As(err, new(*xssh.ServerAuthError)):
		return strangerNothing
	case errors.As(err, new(*xssh.AlgorithmNegotiationError)):
		return strangerAlgorithms
	case errors.As(err, &timeout) && timeout.Timeout():
		return strangerSlow
	case errors.Is(err, io.EOF):
		return strangerClosed
	default:
		return strangerGarbage
	}
}

// recovered keeps a panic on one connection from taking the gateway: it logs it and runs then. It is deferred.
func (h *Handler) recovered(then func()) {
	p := recover()
	if p == nil {
		return
	}
	h.Log.Error("panic on an SSH connection", "panic", p, "stack", string(debug.Stack()))
	if then != nil {
		then()
	}
}
