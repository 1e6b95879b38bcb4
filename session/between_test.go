package session

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// These tests are about what happens between two steps of a session's life.

// opening is one for alice, with a lease of its own.
func (h *house) opening(t *testing.T) Opening {
	t.Helper()
	return Opening{
		Protocol: configs.KindPostgres, Identity: h.alice, Target: h.target, Account: h.target.Accounts[0],
		Lease: h.lease(t, &grant.Ask{Duration: time.Hour}, "app"), Client: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
	}
}

// TestSignOutWhileItBegins: who signs out after the session has looked whether they may, and before it is watched, is not overlooked.
func TestSignOutWhileItBegins(t *testing.T) {
	h := newHouse(t)
	h.sessions.standing = time.Hour
	s, err := h.sessions.begin(t.Context(), h.opening(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.authn.Revoke(t.Context(), h.alice); err != nil {
		t.Fatal(err)
	}
	go s.watch()
	wait(t, "the cut", s.Done())
	if reason := s.Ending().Reason; reason != EndIdentityDisabled {
		t.Errorf("ended as %s", reason)
	}
	s.End(Ending{Reason: EndClientClosed})
}

// held runs f while nothing can be written to the store.
func (h *house) held(t *testing.T, f func()) {
	t.Helper()
	if err := h.store.Do(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.ExecContext(t.Context(), `UPDATE sessions SET started = started WHERE id = 'none'`); err != nil {
			return err
		}
		f()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// known waits for a session to be known and returns it.
func (h *house) known(t *testing.T) *Session {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		h.sessions.mu.Lock()
		for _, s := range h.sessions.live {
			h.sessions.mu.Unlock()
			return s
		}
		h.sessions.mu.Unlock()
	}
	t.Fatal("no session came to be")
	return nil
}

// TestCutBeforeItIsRegistered: a session that is cut while it waits for the store gets nowhere, and is sealed and off the list in the
// end, whether it came to be registered or not.
func TestCutBeforeItIsRegistered(t *testing.T) {
	for name, given := range map[string]bool{"registered": false, "given up": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			o := h.opening(t)
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			type begun struct {
				session *Session
				err     error
			}
			result := make(chan begun, 1)
			var s *Session
			h.held(t, func() {
				go func() {
					s, err := h.sessions.Begin(ctx, o)
					result <- begun{s, err}
				}()
				s = h.known(t)
				s.cut(Ending{Reason: EndKilled, Sentence: "test"})
				if given {
					giveUp()
					wait(t, "the seal", s.finished)
				}
			})
			r := <-result
			if given != (r.err != nil) {
				t.Fatalf("it began with %v", r.err)
			}
			if !given {
				if err := s.Dial(t.Context(), func(net.Conn) error { return nil }); !errors.Is(err, errCut) {
					t.Errorf("it dialled: %v", err)
				}
				s.End(Ending{Reason: EndClientClosed})
				info, err := h.sessions.Get(t.Context(), s.ID())
				if err != nil || info.Live || info.EndReason != EndKilled {
					t.Errorf("listed as %+v, %v", info, err)
				}
			}
			wait(t, "the seal", s.finished)
			if h.sessions.Live() != 0 {
				t.Error("it is still known")
			}
			header, _, err := h.recorder.Read(t.Context(), s.ID())
			if err != nil || header.Session != s.ID() {
				t.Errorf("its recording: %v", err)
			}
			if err := s.recording.Record(t.Context(), said("late")); err == nil {
				t.Error("its recording is open")
			}
		})
	}
}

// TestKillOfWhatEnds: a kill that comes too late says so, and the audit log holds no kill that was none.
func TestKillOfWhatEnds(t *testing.T) {
	h := newHouse(t)
	s, _, _ := h.begin(t, time.Hour)
	telling, proceed := make(chan struct{}), make(chan struct{})
	s.OnCut(func(context.Context, Ending) { close(telling); <-proceed })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.End(Ending{Reason: EndClientClosed, Sentence: "the client closed the connection"})
	}()
	wait(t, "the farewell", telling)
	if err := h.sessions.Kill(t.Context(), s.ID(), h.alice, "test"); !refusal.Is(err, refusal.Conflict) {
		t.Errorf("the kill of a session that ends: %v", err)
	}
	close(proceed)
	wait(t, "the end", ended)
	info, err := h.sessions.Get(t.Context(), s.ID())
	if err != nil || info.EndReason != EndClientClosed {
		t.Errorf("listed as %+v, %v", info, err)
	}
	h.told(t, "session.killed", 0)
}

// TestEndIsKeptLater: what the store does not take when a session ends it takes when it can again.
func TestEndIsKeptLater(t *testing.T) {
	h := newHouse(t)
	h.sessions.patience = 10 * time.Millisecond
	s, _, _ := h.begin(t, time.Hour)
	rename := func(from, to string) {
		t.Helper()
		if err := h.store.Do(t.Context(), func(tx *store.Tx) error {
			_, err := tx.ExecContext(t.Context(), `ALTER TABLE `+from+` RENAME TO `+to)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	rename("sessions", "sessions_away")
	s.End(Ending{Reason: EndClientClosed})
	if n := h.sessions.Live(); n != 0 {
		t.Errorf("%d sessions live", n)
	}
	rename("sessions_away", "sessions")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		info, err := h.sessions.Get(t.Context(), s.ID())
		if err != nil {
			t.Fatal(err)
		}
		if !info.Live {
			if info.EndReason != EndClientClosed {
				t.Errorf("listed as %+v", info)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is listed as live")
		}
	}
	h.told(t, "session.ended", 1)
}
