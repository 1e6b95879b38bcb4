package session

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/recorder"
)

// Options configure Open; all are required.
type Options struct {
	Store    *store.Store
	Recorder *recorder.Recorder
	Authn    *authn.Service
	Config   *configs.Config
	Log      *slog.Logger
}

// Manager knows all live sessions. Safe for concurrent use.
type Manager struct {
	store    *store.Store
	recorder *recorder.Recorder
	authn    *authn.Service
	config   *configs.Config
	log      *slog.Logger
	meter    Meter         // nil: nobody wants to know
	standing time.Duration // standingInterval, but in tests
	patience time.Duration // oweTime, but in tests

	mu       sync.Mutex
	live     map[string]*Session
	draining bool
	emptied  chan struct{} // not nil while Drain waits; closed when live is empty
	owed     []end         // that the store did not take yet
}

// Open marks the sessions that an earlier run left as ended "crashed".
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{
		store: o.Store, recorder: o.Recorder, authn: o.Authn, config: o.Config, log: o.Log,
		live: map[string]*Session{}, standing: standingInterval, patience: oweTime,
	}
	if err := m.store.Migrate(ctx, "session", migrations); err != nil {
		return nil, err
	}
	if err := m.closeCrashed(ctx); err != nil {
		return nil, fmt.Errorf("close the sessions of an earlier run: %w", err)
	}
	return m, nil
}

// register makes the session known, unless the gateway is draining.
func (m *Manager) register(ctx context.Context, s *Session) error {
	m.mu.Lock()
	if m.draining {
		m.mu.Unlock()
		return drainingRefusal()
	}
	m.live[s.id] = s
	m.mu.Unlock()
	if err := m.insert(ctx, s); err != nil {
		m.unregister(s)
		return err
	}
	return nil
}

// forget takes an ended session off the list of live ones and writes its end.
func (m *Manager) forget(e end) {
	if err := m.updateEnd(e); err != nil {
		m.log.Error("a session's end could not be kept yet; its recording has it", "session", e.session.id, "error", err)
		m.owe(e)
	}
	m.unregister(e.session)
}

func (m *Manager) unregister(s *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.live, s.id)
	if m.emptied != nil && len(m.live) == 0 {
		close(m.emptied)
		m.emptied = nil
	}
}

// Kill cuts a live session and returns when nothing can reach its target any more. It refuses with Conflict where the session
// is ending already, for another reason.
func (m *Manager) Kill(ctx context.Context, id string, by authn.Identity, reason string) error {
	m.mu.Lock()
	s := m.live[id]
	m.mu.Unlock()
	if s == nil {
		return refusal.New(refusal.NotFound, "no live session %s", id).WithHint("list them with: sallyport sessions")
	}
	sentence := "session killed by " + by.Label()
	if reason != "" {
		sentence += ": " + reason
	}
	// The cut comes first: it must not wait for, or fail with, the store.
	if !s.cut(Ending{Reason: EndKilled, Sentence: sentence}) {
		return refusal.New(refusal.Conflict, "session %s is ending already", id).WithDetail("%s", s.Ending().Sentence)
	}
	return m.store.Audit(ctx, store.AuditEvent{
		Kind: "session.killed", Actor: by.Key(), ActorName: by.Label(), Target: s.opening.Target.Name,
		Account: s.opening.Account.Name, Grant: s.opening.Lease.Grant.ID, Session: id, Reason: reason,
	})
}

// Until is when the grant of a live session ends, as far as it is known now; false where the session does not live.
func (m *Manager) Until(id string) (time.Time, bool) {
	m.mu.Lock()
	s := m.live[id]
	m.mu.Unlock()
	if s == nil {
		return time.Time{}, false
	}
	return s.opening.Lease.Until(), true
}

// Live is how many sessions are open.
func (m *Manager) Live() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.live)
}

// Draining reports whether new sessions are refused.
func (m *Manager) Draining() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.draining
}

// Drain refuses new sessions, waits for the live ones until ctx ends, then cuts them and waits until they are sealed.
func (m *Manager) Drain(ctx context.Context) {
	defer m.repay()
	m.mu.Lock()
	m.draining = true
	emptied := make(chan struct{})
	if len(m.live) == 0 {
		close(emptied)
	} else {
		m.emptied = emptied
	}
	m.mu.Unlock()
	select {
	case <-emptied:
		return
	case <-ctx.Done():
	}
	m.mu.Lock()
	open := make([]*Session, 0, len(m.live))
	for _, s := range m.live {
		open = append(open, s)
	}
	m.mu.Unlock()
	for _, s := range open {
		s.cut(Ending{Reason: EndDraining, Sentence: "the gateway is shutting down"})
	}
	for _, s := range open {
		select {
		case <-s.finished:
		case <-time.After(cutTime + handlerTime):
			m.log.Error("a session did not end", "session", s.id)
		}
	}
}

func drainingRefusal() *refusal.Refusal {
	return refusal.New(refusal.Draining, "the gateway is shutting down").WithHint("try again in a minute")
}

// idAlphabet is base 32 without letters that read alike, in ascending order, so that ids sort by time.
var idAlphabet = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newID is "s-" and 16 letters: 48 bits of time in milliseconds and 32 of chance.
func newID() (string, error) {
	var raw [10]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(time.Now().UnixMilli())<<16)
	if _, err := rand.Read(raw[6:]); err != nil {
		return "", err
	}
	return "s-" + idAlphabet.EncodeToString(raw[:]), nil
}

// idAt is below the ids that are made at the time or later, and above those made before.
func idAt(t time.Time) string {
	var raw [10]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(max(0, t.UnixMilli()))<<16)
	return "s-" + idAlphabet.EncodeToString(raw[:])
}
