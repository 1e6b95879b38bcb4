// Package session is what is open now, and the one gate to the targets.
//
// CONTRACT (to be built here): see the doc comments.
package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/store"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

var errTODO = errors.New("session: not built")

// Options configure Open.
type Options struct {
	Store    *store.Store
	Recorder *recorder.Recorder
	Authn    *authn.Service
	Config   *configs.Config
	Log      *slog.Logger
}

// Manager knows all live sessions. Safe for concurrent use.
type Manager struct{}

// Open marks the sessions that an earlier run left as ended "crashed".
func Open(ctx context.Context, o Options) (*Manager, error) { return nil, errTODO }

// Opening is what a protocol knows when it has identity, target and lease.
type Opening struct {
	Protocol string // configs.KindPostgres or KindSSH
	Identity authn.Identity
	Target   configs.Target
	Account  configs.Account
	Lease    *grant.Lease
	Client   net.Addr
}

// Begin begins the recording (durable before it returns) and registers the session. It refuses while draining, when
// the recorder can't record, and over the limits. The lease is returned to the grant when the session has ended.
func (m *Manager) Begin(ctx context.Context, o Opening) (*Session, error) { return nil, errTODO }

// Session is one connection under one grant. Safe for concurrent use.
type Session struct{}

// ID is the session's and its recording's id.
func (s *Session) ID() string { return "" }

// Opening returns what it was begun with.
func (s *Session) Opening() Opening { return Opening{} }

// Dial opens the way to the target and runs the protocol's handshake on it, after the recording has begun and the
// lease was found live. It is the only dial in the product (the linter forbids others). The handshake's connection is the
// target's for the rest of the session: Cut closes it. A deadline of 15 s bounds dial and handshake.
func (s *Session) Dial(ctx context.Context, handshake func(net.Conn) error) error { return errTODO }

// Admit records what the client is about to do. It returns when that record is safe at the target's durability level
// and the lease is still live. The Pass is good for one write of the bytes it was asked for.
func (s *Session) Admit(ctx context.Context, what ...recorder.Event) (Pass, error) {
	return Pass{}, errTODO
}

// Observe records what came back, before the client sees it. It does not wait for the disk, but for room in the queue.
func (s *Session) Observe(what ...recorder.Event) error { return errTODO }

// Pass lets one write through. A protocol's writers to the target take a Pass and call Use first.
type Pass struct{ session *Session }

// Use spends the pass: it returns nil once, while the session lives; after that, or once the session is cut, an error.
func (p *Pass) Use() error { return errTODO }

// ActKind is one of the gateway's own acts on a target.
type ActKind string

// The acts.
const (
	ActCancel    ActKind = "cancel"    // ask the target to stop what it runs
	ActTerminate ActKind = "terminate" // end the session's backend on the target
	ActConfirm   ActKind = "confirm"   // look whether it is gone
	ActSweep     ActKind = "sweep"     // end what a crashed gateway left running
	ActCheck     ActKind = "check"     // targets check: log in and look
	ActTrust     ActKind = "trust"     // targets trust: read the host key
)

// Act is one act: why, and the protocol's way to do it on a fresh connection to the target.
type Act struct {
	Kind   ActKind
	Reason string
	Do     func(ctx context.Context, target net.Conn) (outcome string, err error)
}

// Act records and performs one of the gateway's own acts on the session's target. It needs a reason, not a lease, and
// works while the session is being cut. Bounded to 10 s.
func (s *Session) Act(ctx context.Context, act Act) error { return errTODO }

// ActOn is Act for a target without a session (check, trust, sweep after a restart); it is audited instead of recorded.
func (m *Manager) ActOn(ctx context.Context, target configs.Target, who authn.Identity, act Act) error {
	return errTODO
}

// OnCut sets what the protocol does when the session is cut: tell the client in its own words, cancel the running work
// (with Act). It runs once, in its own goroutine, after no byte can reach the target any more over the session's
// connection, with a context of 10 s; the recording is sealed after it returns.
func (s *Session) OnCut(f func(ctx context.Context, why Ending)) {}

// Ending says why a session ended.
type Ending struct {
	Reason   string // stable word: "client_closed", "target_closed", "grant_expired", "grant_revoked", "grant_released", "killed", "recorder_failed", "draining", "target_failed", "protocol_violation", "identity_disabled", "crashed"
	Sentence string // for the user
	By       string // who, where somebody did
}

// Done is closed when the session is cut or ended: stop copying.
func (s *Session) Done() <-chan struct{} { return nil }

// Ending is why, after Done.
func (s *Session) Ending() Ending { return Ending{} }

// End ends the session from inside (client closed, target closed, protocol violation); the first ending wins. It waits
// for OnCut's work, seals the recording and forgets the session. Every protocol defers it.
func (s *Session) End(why Ending) {}

// Connected records both ends of the target's connection and what ties it to the target's log.
func (s *Session) Connected(c format.Connected) error { return errTODO }

// Info is a session as people see it.
type Info struct {
	ID        string         `json:"id"`
	Protocol  string         `json:"protocol"`
	Identity  authn.Identity `json:"identity"`
	Target    string         `json:"target"`
	Account   string         `json:"account"`
	Grant     string         `json:"grant"`
	Reason    string         `json:"reason"`
	Approvers []string       `json:"approvers"`
	Client    string         `json:"client"`
	Started   time.Time      `json:"started"`
	Ended     time.Time      `json:"ended,omitzero"`
	EndReason string         `json:"end_reason,omitempty"`
	EndDetail string         `json:"end_detail,omitempty"`
	Live      bool           `json:"live"`
}

// List returns sessions, newest first; only live ones, or all.
func (m *Manager) List(ctx context.Context, all bool) ([]Info, error) { return nil, errTODO }

// Get returns one.
func (m *Manager) Get(ctx context.Context, id string) (Info, error) { return Info{}, errTODO }

// Kill cuts a live session.
func (m *Manager) Kill(ctx context.Context, id string, by authn.Identity, reason string) error {
	return errTODO
}

// Drain refuses new sessions, waits for the live ones until ctx ends, then cuts them.
func (m *Manager) Drain(ctx context.Context) {}
