package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// This file is the gate: the four ways in which the gateway can reach a target, and there is no fifth.
//
//	Dial    opens the session's connection, after its recording has begun and while its lease is live.
//	Admit   lets one write through, after the record of it is safe and while the lease is live.
//	Observe records what came back.
//	Act     is the gateway's own doing on the target, from a fixed list, recorded with its reason.
//
// The only call of a dialler in the product is in dial below; the linter and test/architecture_test.go forbid others.

// dialTime bounds connecting to a target and the protocol's handshake on it; actTime bounds one act.
const (
	dialTime = 15 * time.Second
	actTime  = 10 * time.Second
)

// errCut is what writers get after the session was cut; they stop, and the ending says why.
var errCut = errors.New("the session was cut")

// Dial opens the way to the target and runs the protocol's handshake on it, after the recording has begun and the
// lease was found live. The handshake's connection is the target's for the rest of the session: a cut closes it. A
// deadline of 15 s bounds dial and handshake. An error is a *refusal.Refusal with code TargetFailed unless the handshake
// gave a refusal of its own or the session was cut meanwhile.
func (s *Session) Dial(ctx context.Context, handshake func(net.Conn) error) error {
	if err := s.live(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := s.dialUncut(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.isCut.Load() || s.target != nil {
		s.mu.Unlock()
		conn.Close()
		return errCut
	}
	s.target = conn
	s.mu.Unlock()
	if err := handshakeOn(ctx, conn, s.opening.Target, handshake); err != nil {
		conn.Close()
		if s.isCut.Load() {
			return errCut
		}
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift the handshake's deadline: %w", err)
	}
	return s.live()
}

// dialUncut is dial until the session is cut: a target that does not answer keeps nobody waiting then.
func (s *Session) dialUncut(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	dialled := make(chan struct{})
	defer close(dialled)
	go func() {
		defer cancel()
		select {
		case <-s.done:
		case <-dialled:
		}
	}()
	conn, err := dial(ctx, s.opening.Target)
	if err != nil && s.isCut.Load() {
		return nil, errCut
	}
	return conn, err
}

// Admit records what the client is about to do. It returns when that record is safe at the target's durability level
// and the lease is still live. The Pass is good for one write of the bytes it was asked for.
func (s *Session) Admit(ctx context.Context, what ...recorder.Event) (Pass, error) {
	if err := s.live(); err != nil {
		return Pass{}, err
	}
	if err := s.recordMeasured(ctx, what); err != nil {
		s.cut(recorderEnding(err))
		return Pass{}, fmt.Errorf("record: %w", err)
	}
	if err := s.live(); err != nil { // the record may have taken its time
		return Pass{}, err
	}
	return Pass{session: s}, nil
}

// Observe records what came back, before the client sees it. It does not wait for the disk, but for room in the queue.
func (s *Session) Observe(what ...recorder.Event) error {
	if err := s.recording.Note(what...); err != nil {
		s.cut(recorderEnding(err))
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// Act records and performs one of the gateway's own acts on the session's target, over a connection of its own. It
// needs a reason, not a lease, works while the session is being cut, and is done even if the record of it fails: an act
// only ever takes away. Bounded to 10 s.
func (s *Session) Act(ctx context.Context, act Act) error {
	s.note(format.Note{Kind: "act", Text: act.Reason, Fields: map[string]string{"act": string(act.Kind), "state": "begun"}})
	outcome, err := perform(ctx, s.opening.Target, act)
	fields := map[string]string{"act": string(act.Kind), "state": "done", "outcome": outcome}
	if err != nil {
		fields["state"], fields["error"] = "failed", err.Error()
	}
	s.note(format.Note{Kind: "act", Text: act.Reason, Fields: fields})
	return err
}

// ActOn is Act for a target without a session (check, trust, sweep after a restart); it is audited instead of recorded,
// before and after. who is the zero Identity for the gateway itself.
func (m *Manager) ActOn(ctx context.Context, target configs.Target, who authn.Identity, act Act) error {
	event := store.AuditEvent{
		Kind: "target." + string(act.Kind), Actor: "system", Target: target.Name, Reason: act.Reason,
		Outcome: "begun",
	}
	if who.Subject != "" {
		event.Actor, event.ActorName = who.Key(), who.Label()
	}
	if err := m.store.Audit(ctx, event); err != nil {
		return err
	}
	outcome, err := perform(ctx, target, act)
	event.Outcome, event.Fields = "ok", map[string]string{"outcome": outcome}
	if err != nil {
		event.Outcome, event.Fields["error"] = "failed", err.Error()
	}
	return errors.Join(err, m.store.Audit(context.WithoutCancel(ctx), event))
}

// Pass lets one write through. A protocol's writers to the target take a Pass and call Use first.
type Pass struct {
	session *Session
	used    bool
}

// Use spends the pass: it returns nil once, while the session lives; after that, or once the session is cut, an error.
func (p *Pass) Use() error {
	if p.session == nil || p.used {
		return errors.New("a pass is good for one write")
	}
	p.used = true
	return p.session.live()
}

// live returns nil while bytes may pass. It allocates nothing while they may.
func (s *Session) live() error {
	if s.isCut.Load() {
		return errCut
	}
	if err := s.opening.Lease.Live(); err != nil {
		s.cut(s.leaseEnding())
		return err
	}
	return nil
}

// ActKind is one of the gateway's own acts on a target.
type ActKind string

// The acts, and there are no others.
const (
	ActCancel    ActKind = "cancel"    // ask the target to stop what it runs
	ActTerminate ActKind = "terminate" // end the session's backend on the target
	ActConfirm   ActKind = "confirm"   // look whether it is gone
	ActSweep     ActKind = "sweep"     // end what a crashed gateway left running
	ActCheck     ActKind = "check"     // targets check: log in and look
	ActTrust     ActKind = "trust"     // targets trust: read the host key
	ActMakeRole  ActKind = "make_role" // make the role of one grant, or give it a new password
	ActDropRole  ActKind = "drop_role" // drop it
)

// Act is one act: why, and the protocol's way to do it on a fresh connection to the target. Do's outcome goes to the
// record. It may close the connection.
type Act struct {
	Kind   ActKind
	Reason string
	Do     func(ctx context.Context, target net.Conn) (outcome string, err error)
}

func perform(ctx context.Context, target configs.Target, act Act) (outcome string, err error) {
	switch act.Kind {
	case ActCancel, ActTerminate, ActConfirm, ActSweep, ActCheck, ActTrust, ActMakeRole, ActDropRole:
	default:
		return "", fmt.Errorf("%q is not an act", act.Kind)
	}
	ctx, cancel := context.WithTimeout(ctx, actTime)
	defer cancel()
	conn, err := dial(ctx, target)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	err = handshakeOn(ctx, conn, target, func(conn net.Conn) error {
		outcome, err = act.Do(ctx, conn)
		return err
	})
	return outcome, err
}

// dial is the only dial in the product.
func dial(ctx context.Context, target configs.Target) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	conn, err := dialer.DialContext(ctx, "tcp", target.Address)
	if err != nil {
		return nil, refusal.New(refusal.TargetFailed, "target %s can't be reached", target.Name).
			WithDetail("no connection to %s: %s", target.Address, reasonOf(err)).
			WithHint("ask whoever runs %s whether it is up; an administrator can look with: sallyport targets check %s", target.Name, target.Name).
			Because(err)
	}
	return conn, nil
}

// handshakeOn runs f on conn under ctx's deadline and end.
func handshakeOn(ctx context.Context, conn net.Conn, target configs.Target, f func(net.Conn) error) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // if it fails the connection is closed already
	err := f(conn)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if r := refusal.Of(err); r != nil {
			return err
		}
		return refusal.New(refusal.TargetFailed, "target %s did not let the gateway in", target.Name).
			WithDetail("%s", reasonOf(err)).
			WithHint("an administrator can look with: sallyport targets check %s", target.Name).
			Because(err)
	}
	return nil
}

// reasonOf is an error's text, shortened to what a user needs: a network error without the operation and addresses.
func reasonOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "it did not answer in time"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if op.Timeout() {
			return "it did not answer in time"
		}
		return op.Err.Error()
	}
	return err.Error()
}

// Connected records both ends of the target's connection and what ties it to the target's own log.
func (s *Session) Connected(c format.Connected) error {
	return s.Observe(format.JSON(format.TypeConnected, 0, c))
}

// note records what the gateway did; where that fails, the gateway's own log has it.
func (s *Session) note(n format.Note) {
	if err := s.recording.Note(format.JSON(format.TypeNote, 0, n)); err != nil {
		s.manager.log.Error("not recorded", "session", s.id, "note", n, "error", err)
	}
}
