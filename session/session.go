// Package session is what is open now, and the one gate to the targets.
//
// It promises that no byte reaches a target unless a recording of it is safe and a lease is live (gate.go, which a
// security reviewer reads first), and that when a session ends, for whatever reason, nothing more passes from that
// instant on, the protocol gets a bounded time to tell its user and to stop what runs on the target, and the recording
// is sealed with the reason. It knows nothing of protocols: what a cut looks like on the wire is the protocol's OnCut.
package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// Why sessions end; stable words of the log and the API. An end that comes from the grant is "grant_" and the grant's
// own reason (grant_expired, grant_revoked, grant_released, …).
const (
	EndClientClosed      = "client_closed"
	EndTargetClosed      = "target_closed"
	EndTargetFailed      = "target_failed"
	EndKilled            = "killed"
	EndRecorderFailed    = "recorder_failed"
	EndDraining          = "draining"
	EndProtocolViolation = "protocol_violation"
	EndIdentityDisabled  = "identity_disabled"
	EndRefused           = "refused" // begun, but not let through: a start-up that the target or a rule refused
	EndCrashed           = "crashed"
	endGrantPrefix       = "grant_"
)

const (
	// cutTime bounds what a protocol's OnCut may take.
	cutTime = 10 * time.Second
	// partTime bounds what a protocol may still say to the target.
	partTime = 200 * time.Millisecond
	// handlerTime is how long after a cut a session waits for its handler to call End before it seals without it.
	handlerTime = 5 * time.Second
	// standingInterval is how often the identity of a live session is looked at again; a disabled one is cut within
	// a minute (DESIGN.md, section 4).
	standingInterval = 20 * time.Second
)

// Opening is what a protocol knows when it has identity, target and lease.
type Opening struct {
	Protocol string // configs.KindPostgres or KindSSH
	Identity authn.Identity
	Target   configs.Target
	Account  configs.Account
	Lease    *grant.Lease
	Client   net.Addr
}

// Ending says why a session ended.
type Ending struct {
	Reason   string // one of the End words above
	Sentence string // for the user, without a full stop
}

// Session is one connection under one grant. Safe for concurrent use.
type Session struct {
	manager   *Manager
	id        string
	opening   Opening
	started   time.Time
	recording *recorder.Recording
	signedOut <-chan struct{} // has something when sign-ins of the identity have ended
	unwatch   func()          // ends that
	begun     chan struct{}   // closed when it stands in the register, or will not

	isCut    atomic.Bool   // set first of all when the session ends; every writer to the target checks it
	done     chan struct{} // closed right after isCut is set
	told     chan struct{} // closed when OnCut's work is over
	finished chan struct{} // closed when the recording is sealed

	mu     sync.Mutex
	ending Ending                                   // valid once done is closed
	target net.Conn                                 // nil before Dial
	onCut  func(ctx context.Context, ending Ending) // nil: nobody to tell
	onPart func(ending Ending)                      // nil: nothing to say to the target
	sealed bool
}

// Begin begins the recording (durable before it returns) and registers the session. It refuses while draining, when
// the recorder can't record, when the lease has ended, and when the identity is not good any more. The lease is given back
// when the session has ended, also when Begin fails.
func (m *Manager) Begin(ctx context.Context, o Opening) (*Session, error) {
	s, err := m.begin(ctx, o)
	if err != nil {
		o.Lease.Return()
		m.refused(o, err)
		return nil, err
	}
	go s.watch()
	return s, nil
}

func (m *Manager) begin(ctx context.Context, o Opening) (_ *Session, err error) {
	// Before it is looked at whether the identity is good: of what ends it from then on the session hears.
	signedOut, unwatch := m.authn.Watch(o.Identity)
	defer func() {
		if err != nil {
			unwatch()
		}
	}()
	if err := o.Lease.Live(); err != nil {
		return nil, err
	}
	if err := m.stillGood(ctx, o); err != nil {
		return nil, err
	}
	if err := o.Lease.Live(); err != nil { // the provider may just have named other groups
		return nil, err
	}
	if err := m.recorder.Ready(); err != nil {
		return nil, err
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	level := o.Target.Durability
	if level == "" {
		level = m.config.Recording.Durability
	}
	g := o.Lease.Grant
	recording, err := m.recorder.Begin(ctx, format.Header{
		Session:  id,
		Protocol: o.Protocol,
		Identity: format.Party{
			Issuer: o.Identity.Issuer, Subject: o.Identity.Subject, Name: o.Identity.Name,
			Email: o.Identity.Email, Kind: string(o.Identity.Kind), Groups: o.Identity.Groups,
		},
		Method:     o.Identity.Method,
		Credential: o.Identity.Credential,
		Target:     o.Target.Name,
		Account:    o.Account.Name,
		Grant:      g.ID,
		Reason:     g.Reason,
		Ticket:     g.Ticket,
		Approvers:  g.Approvers(),
		Until:      o.Lease.Until(),
		Client:     o.Client.String(),
	}, level)
	if err != nil {
		return nil, fmt.Errorf("begin the recording: %w", err)
	}
	s := &Session{
		manager: m, id: id, opening: o, started: recording.Header().Started, recording: recording, signedOut: signedOut, unwatch: unwatch,
		begun: make(chan struct{}), done: make(chan struct{}), told: make(chan struct{}), finished: make(chan struct{}),
	}
	defer close(s.begun)
	if err := m.register(ctx, s); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return s, nil
}

// abandon ends a session that never came to be. Somebody may have cut it meanwhile, as it was known already.
func (s *Session) abandon() error {
	s.cut(Ending{Reason: EndRefused, Sentence: "the session could not be registered"})
	<-s.told
	s.mu.Lock()
	s.sealed = true // as begun is not closed, nobody else has
	why := s.ending
	s.mu.Unlock()
	err := s.recording.End(format.End{Reason: why.Reason, Detail: why.Sentence, Ended: time.Now().UTC()})
	s.manager.unregister(s)
	close(s.finished)
	return err
}

// stillGood refuses who has signed out, was disabled, or whose sign-in ran out since the connection proved them: an SSH
// connection can be held for long before it asks for its session. Where it is not known, nothing new begins, but under a grant
// that was taken in an emergency when it is the provider alone that can't be asked; the audit log tells of each such session.
func (m *Manager) stillGood(ctx context.Context, o Opening) error {
	who := o.Identity
	if !who.Expires.IsZero() && !time.Now().Before(who.Expires) {
		return refusal.New(refusal.CredentialExpired, "your sign-in has expired").WithHint("sign in again: sallyport login")
	}
	err := m.authn.Standing(ctx, who)
	switch {
	case err == nil:
		return nil
	case excepted(o, err):
		return m.auditUnvouched(ctx, o, err)
	case refusal.Of(err) == nil && errors.Is(err, authn.ErrUnvouched):
		return refusal.New(refusal.NotAuthenticated, "your company's sign-in provider can't be asked whether you may still sign in").
			WithDetail("so no new session begins; what is open goes on for a while").WithHint("try again in a moment").Because(err)
	}
	return err
}

// excepted tells whether what Standing says is only that the provider can't be asked, and the grant was taken in an emergency: that
// needs nobody but the gateway, on the groups of the last sign-in, and ends with the grant, an hour later at the latest. It is the
// only exception, to beginning and to going on.
func excepted(o Opening, err error) bool {
	return o.Lease.Grant.BreakGlass && errors.Is(err, authn.ErrUnvouched)
}

// watch cuts the session when its grant ends, its recorder fails, or its identity is found disabled.
func (s *Session) watch() {
	defer s.unwatch()
	standing := time.NewTicker(s.manager.standing)
	defer standing.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The provider may take long to answer, and the end of a grant must not wait for it: so it is asked apart, once at a time.
	var answers chan *Ending // of the question under way; nil: none
	again := false           // it may have been answered before what it was to be asked about
	ask := func() {
		again = answers != nil
		if !again {
			answers = make(chan *Ending, 1)
			go func(answer chan<- *Ending) { answer <- s.withoutStanding(ctx) }(answers)
		}
	}
	for {
		select {
		case <-s.done:
			return
		case <-s.opening.Lease.Ended():
			s.cut(s.leaseEnding())
			return
		case <-s.recording.Failed():
			s.cut(recorderEnding(s.recording.Err()))
			return
		case <-standing.C:
			if answers == nil {
				ask()
			}
		case <-s.signedOut:
			ask()
		case gone := <-answers:
			if gone != nil {
				s.cut(*gone)
				return
			}
			if answers = nil; again {
				ask()
			}
		}
	}
}

// withoutStanding asks whether the identity is still good, and says how the session ends if it is known not to be.
func (s *Session) withoutStanding(ctx context.Context) *Ending {
	ctx, cancel := context.WithTimeout(ctx, cutTime)
	defer cancel()
	err := s.manager.authn.Standing(ctx, s.opening.Identity)
	r := refusal.Of(err)
	if r == nil || excepted(s.opening, err) {
		return nil
	}
	return &Ending{Reason: EndIdentityDisabled, Sentence: r.Message}
}

func (s *Session) leaseEnding() Ending {
	reason, sentence := s.opening.Lease.Why()
	return Ending{Reason: endGrantPrefix + reason, Sentence: sentence}
}

func recorderEnding(err error) Ending {
	sentence := "the session log can't be written, and nothing passes unrecorded"
	if r := refusal.Of(err); r != nil {
		sentence = r.Message
	}
	return Ending{Reason: EndRecorderFailed, Sentence: sentence}
}

// cut ends the passing of bytes, now; the first ending wins, and true says that it is this one. Who comes later returns no
// sooner than bytes have stopped passing. What takes time goes on in the background.
func (s *Session) cut(why Ending) (first bool) {
	s.mu.Lock()
	if s.isCut.Load() {
		s.mu.Unlock()
		return false
	}
	s.ending = why
	s.isCut.Store(true)
	target, onCut, onPart := s.target, s.onCut, s.onPart
	if target != nil && onPart == nil {
		target.Close()
	}
	s.mu.Unlock()
	close(s.done)
	begun := time.Now()
	go func() {
		if target != nil && onPart != nil {
			s.runOnPart(target, onPart, why)
		}
		if onCut != nil {
			ctx, cancel := context.WithTimeout(context.Background(), cutTime)
			s.runOnCut(ctx, onCut, why)
			cancel()
			if s.manager.meter != nil {
				s.manager.meter.Cut(time.Since(begun))
			}
		}
		close(s.told)
		<-s.begun // before, there is no handler that could end it
		select {
		case <-s.finished:
		case <-time.After(handlerTime):
			s.finish() // a handler that hangs must not keep a recording open
		}
	}()
	return true
}

// runOnPart gives the protocol its last word to the target and closes the connection, whatever that does.
func (s *Session) runOnPart(target net.Conn, onPart func(Ending), why Ending) {
	defer target.Close()
	if target.SetDeadline(time.Now().Add(partTime)) != nil {
		return
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		defer func() {
			if p := recover(); p != nil {
				s.manager.log.Error("panic while a target was left", "session", s.id, "panic", p)
			}
		}()
		onPart(why)
	}()
	select {
	case <-said:
	case <-time.After(partTime):
	}
}

// runOnCut keeps a panic in a protocol's farewell from taking the gateway, and waits for it no longer than ctx.
func (s *Session) runOnCut(ctx context.Context, onCut func(context.Context, Ending), why Ending) {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		defer func() {
			if p := recover(); p != nil {
				s.manager.log.Error("panic while a session was cut", "session", s.id, "panic", p)
			}
		}()
		onCut(ctx, why)
	}()
	select {
	case <-returned:
	case <-ctx.Done():
		s.manager.log.Warn("a session's farewell took too long", "session", s.id)
	}
}

// finish seals the recording and forgets the session, once.
func (s *Session) finish() {
	s.mu.Lock()
	if s.sealed {
		s.mu.Unlock()
		<-s.finished
		return
	}
	s.sealed = true
	why := s.ending
	s.mu.Unlock()
	ended := time.Now().UTC()
	if err := s.recording.End(format.End{Reason: why.Reason, Detail: why.Sentence, Ended: ended}); err != nil {
		s.manager.log.Error("the recording could not be sealed; recovery will close it", "session", s.id, "error", err)
	}
	s.manager.forget(end{s, why.Reason, why.Sentence, ended})
	s.opening.Lease.Return()
	close(s.finished)
}

// ID is the session's and its recording's id.
func (s *Session) ID() string { return s.id }

// Opening returns what it was begun with.
func (s *Session) Opening() Opening { return s.opening }

// OnCut sets what the protocol does when the session ends: tell the client in its own words, cancel the running work
// (with Act). It runs once, in a goroutine of its own, after no byte can reach the target any more over the session's
// connection, with a context of 10 s; the recording is sealed after it returns. Set it before Dial.
func (s *Session) OnCut(f func(ctx context.Context, why Ending)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onCut = f
}

// OnPart sets what the protocol says to the target when the session ends, before its connection is closed: that what runs there
// is to stop. By then no Pass is good any more, so it is nothing that a client said. It gets 200 ms. Set it before Dial.
func (s *Session) OnPart(f func(why Ending)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onPart = f
}

// Done is closed when the session is cut or ended: stop copying.
func (s *Session) Done() <-chan struct{} { return s.done }

// Ending is why; call it after Done.
func (s *Session) Ending() Ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// End ends the session from inside (client closed, target closed, protocol violation); the first ending wins. It waits
// for OnCut's work, seals the recording and forgets the session. Every protocol defers it.
func (s *Session) End(why Ending) {
	s.cut(why)
	<-s.told
	s.finish()
}

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
