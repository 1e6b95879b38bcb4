package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// house is real rooms around a target that sends back what it gets.
type house struct {
	store    *store.Store
	recorder *recorder.Recorder
	authn    *authn.Service
	grants   *grant.Service
	sessions *Manager
	alice    authn.Identity // may have app@echo by policy
	target   configs.Target
	got      atomic.Int64 // bytes the target got
}

func newHouse(t testing.TB, change ...func(*configs.Config)) *house {
	t.Helper()
	h := &house{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 1024)
				for {
					n, err := conn.Read(b)
					h.got.Add(int64(n))
					if err != nil {
						return
					}
					conn.Write(b[:n])
				}
			}()
		}
	}()
	dir := t.TempDir()
	h.target = configs.Target{Name: "echo", Kind: configs.KindPostgres, Address: l.Addr().String(), Durability: configs.Written, Accounts: []configs.Account{{Name: "app"}, {Name: "owner"}}}
	config := &configs.Config{
		State: dir, URL: "https://127.0.0.1:1", Targets: []configs.Target{h.target},
		Provider:    configs.Provider{Issuer: "https://login.example", ClientID: "x"},
		Credentials: configs.Credentials{SignIn: configs.Duration(time.Hour), Certificate: configs.Duration(time.Hour)},
		Recording:   configs.Recording{Durability: configs.Written, AllowVolatile: true, Reserve: 1},
		Policies: []configs.Policy{{
			Name: "p", Groups: []string{"engineers"}, Accounts: []string{"*@*"}, MaxDuration: configs.Duration(time.Hour),
			DefaultDuration: configs.Duration(time.Hour), ReasonLength: 1, Approve: configs.Approve{Auto: true, Start: configs.Duration(time.Hour), Within: configs.Duration(time.Hour)},
		}},
	}
	for _, f := range change {
		f(config)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	h.store, err = storetest.Open(ctx, dir)
	must(err)
	h.recorder, err = recorder.Open(ctx, recorder.Options{Dir: dir, Config: config.Recording, Store: h.store, Log: log})
	must(err)
	h.authn, err = authn.Open(ctx, config, h.store, log)
	must(err)
	h.alice, err = h.authn.SignIn(ctx, authn.Identity{
		Issuer: "https://login.example", Subject: "1", Kind: authn.Human, Name: "Alice", Groups: []string{"engineers"},
	}, "127.0.0.1")
	must(err)
	h.grants, err = grant.Open(ctx, config, h.store, log)
	must(err)
	h.sessions, err = Open(ctx, Options{Store: h.store, Recorder: h.recorder, Authn: h.authn, Config: config, Log: log})
	must(err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		h.grants.Close()
		h.authn.Close(ctx)
		h.recorder.Close(ctx)
		h.store.Close()
	})
	return h
}

// begin asks for a grant and begins a session under it, connected to the target.
func (h *house) begin(t *testing.T, duration time.Duration) (*Session, net.Conn, grant.Grant) {
	t.Helper()
	g, err := h.grants.Request(t.Context(), h.alice, grant.Ask{Target: "echo", Account: "app", Duration: duration, Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	lease, err := h.grants.Lease(t.Context(), h.alice, "echo", "app")
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.sessions.Begin(t.Context(), Opening{
		Protocol: configs.KindPostgres, Identity: h.alice, Target: h.target, Account: h.target.Accounts[0], Lease: lease,
		Client: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	if err := s.Dial(t.Context(), func(c net.Conn) error { conn = c; return nil }); err != nil {
		t.Fatal(err)
	}
	return s, conn, g
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("waited in vain for: " + what)
	}
}

func said(text string) recorder.Event {
	return recorder.Event{Type: format.TypeSaid, Data: []byte(text)}
}

// TestOneWriteAPass states that a pass is good for one write, and that what was admitted is in the recording.
func TestOneWriteAPass(t *testing.T) {
	h := newHouse(t)
	s, conn, _ := h.begin(t, time.Hour)
	pass, err := s.Admit(t.Context(), said("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pass.Use(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := pass.Use(); err == nil {
		t.Error("a pass was good twice")
	}
	if err := new(Pass).Use(); err == nil {
		t.Error("a pass from nowhere was good")
	}
	s.End(Ending{Reason: EndClientClosed})
	_, events, err := h.recorder.Read(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	var types []format.Type
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, e.Type)
		if e.Type == format.TypeSaid && string(e.Data) != "hello" {
			t.Errorf("recorded %q", e.Data)
		}
	}
	if !slices.Equal(types, []format.Type{format.TypeSaid, format.TypeEnd}) {
		t.Errorf("recorded events %v", types)
	}
}

// TestRevokeCuts states that after a revocation no pass is good and nothing can be admitted, also with a pass in hand,
// that the target's connection is closed, that the protocol is told why, and that the ending is recorded and listed.
func TestRevokeCuts(t *testing.T) {
	h := newHouse(t)
	s, conn, g := h.begin(t, time.Hour)
	told := make(chan struct{})
	var why Ending
	s.OnCut(func(ctx context.Context, ending Ending) { why = ending; close(told) })
	pass, err := s.Admit(t.Context(), said("late"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.grants.Release(t.Context(), h.alice, g.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, "the cut", s.Done())
	if err := pass.Use(); err == nil {
		t.Error("a pass was good after the cut")
	}
	if _, err := s.Admit(t.Context(), said("more")); err == nil {
		t.Error("something was admitted after the cut")
	}
	wait(t, "OnCut", told) // which comes when the connection is closed; until then passes are what keeps it shut
	if _, err := conn.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the target's connection is open after the cut: %v", err)
	}
	if why.Reason != "grant_released" || why.Sentence == "" {
		t.Errorf("told %+v", why)
	}
	s.End(Ending{Reason: EndClientClosed})
	info, err := h.sessions.Get(t.Context(), s.ID())
	if err != nil || info.Live || info.EndReason != "grant_released" {
		t.Errorf("listed as %+v, %v", info, err)
	}
	if h.got.Load() != 0 {
		t.Errorf("the target got %d bytes, and none were let through", h.got.Load())
	}
}

// TestHangingHandlerIsSealed states that a protocol that neither returns from OnCut nor calls End can't keep its recording
// open.
func TestHangingHandlerIsSealed(t *testing.T) {
	h := newHouse(t)
	s, _, _ := h.begin(t, time.Hour)
	s.OnCut(func(ctx context.Context, _ Ending) { select {} })
	if err := h.sessions.Kill(t.Context(), s.ID(), h.alice, "test"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the seal", s.finished)
	info, err := h.sessions.Get(t.Context(), s.ID())
	if err != nil || info.EndReason != EndKilled {
		t.Errorf("listed as %+v, %v", info, err)
	}
}

// TestRecorderFailureCuts states that a recording that can't be written stops its session and that nothing passes.
func TestRecorderFailureCuts(t *testing.T) {
	h := newHouse(t)
	s, _, _ := h.begin(t, time.Hour)
	breakRecording(t, filepath.Join(h.sessions.config.State, "recordings"))
	if _, err := s.Admit(t.Context(), said("x")); err == nil {
		t.Fatal("something was admitted that could not be recorded")
	}
	wait(t, "the cut", s.Done())
	if reason := s.Ending().Reason; reason != EndRecorderFailed {
		t.Errorf("ended as %s", reason)
	}
	s.End(Ending{Reason: EndClientClosed})
	if h.got.Load() != 0 {
		t.Error("bytes passed without a record")
	}
}

// breakRecording makes every open file below dir fail to be written, by putting a read-only descriptor in its place.
func breakRecording(t *testing.T, dir string) {
	t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	broken := 0
	for _, d := range descriptors {
		path, err := os.Readlink(filepath.Join("/proc/self/fd", d.Name()))
		if err != nil || !within(dir, path) {
			continue
		}
		replaceDescriptor(t, d.Name(), null)
		broken++
	}
	if broken == 0 {
		t.Fatal("no open recording was found")
	}
}

// TestActIsDoneWhileCut states that the gateway's own acts work on a session that is over, and are recorded.
func TestActIsDoneWhileCut(t *testing.T) {
	h := newHouse(t)
	s, _, _ := h.begin(t, time.Hour)
	s.OnCut(func(ctx context.Context, _ Ending) {
		err := s.Act(ctx, Act{Kind: ActCancel, Reason: "test", Do: func(_ context.Context, target net.Conn) (string, error) {
			_, err := target.Write([]byte("cancel"))
			return "sent", err
		}})
		if err != nil {
			t.Error(err)
		}
		if err := s.Act(ctx, Act{Kind: "dance", Do: func(context.Context, net.Conn) (string, error) { return "", nil }}); err == nil {
			t.Error("an act that is not on the list was done")
		}
	})
	s.End(Ending{Reason: EndClientClosed})
	_, events, err := h.recorder.Read(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	notes := 0
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == format.TypeNote {
			notes++
		}
	}
	if notes != 4 { // begun and done, twice
		t.Errorf("%d notes of acts, want 4", notes)
	}
}

// TestExpiryCuts states that time alone ends a session.
func TestExpiryCuts(t *testing.T) {
	h := newHouse(t)
	s, _, _ := h.begin(t, 4*time.Second) // by when it has begun, on a busy machine too
	wait(t, "the cut", s.Done())
	if reason := s.Ending().Reason; reason != "grant_expired" {
		t.Errorf("ended as %s", reason)
	}
	s.End(Ending{Reason: EndClientClosed})
}

// TestDrain states that a draining gateway begins no session and cuts those that stay.
func TestDrain(t *testing.T) {
	h := newHouse(t)
	s, _, _ := h.begin(t, time.Hour)
	go func() { <-s.Done(); s.End(Ending{Reason: EndClientClosed}) }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.sessions.Drain(ctx)
	if reason := s.Ending().Reason; reason != EndDraining {
		t.Errorf("ended as %s", reason)
	}
	lease, err := h.grants.Lease(t.Context(), h.alice, "echo", "app")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.sessions.Begin(t.Context(), Opening{
		Protocol: configs.KindPostgres, Identity: h.alice, Target: h.target, Account: h.target.Accounts[0], Lease: lease, Client: &net.TCPAddr{},
	})
	if !refusal.Is(err, refusal.Draining) {
		t.Errorf("got %v", err)
	}
}

func within(dir, path string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}

// TestBeginLooksAgain: a connection that was made before somebody signed out, or before their sign-in ran out, begins
// nothing after it, whatever its grant.
func TestBeginLooksAgain(t *testing.T) {
	for name, spoil := range map[string]func(h *house) error{
		"signed out": func(h *house) error { return h.authn.Revoke(context.Background(), h.alice) },
		"disabled":   func(h *house) error { return h.authn.Disable(context.Background(), h.alice.Key()) },
		"expired": func(h *house) error {
			h.alice.Expires = time.Now().Add(-time.Second)
			return nil
		},
		"store lost": func(h *house) error { return h.store.Close() },
	} {
		for kind, ask := range map[string]grant.Ask{"ordinary": {Account: "app"}, "in an emergency": {Account: "owner", BreakGlass: true}} {
			t.Run(name+", "+kind, func(t *testing.T) {
				h := newHouse(t, func(c *configs.Config) {
					c.Policies = append(c.Policies, configs.Policy{
						Name: "glass", Groups: []string{"engineers"}, Accounts: []string{"owner@*"}, MaxDuration: configs.Duration(time.Hour), BreakGlass: true,
						Review: configs.Review{Groups: []string{"security"}, Within: configs.Duration(time.Hour)}, Approve: configs.Approve{Auto: true},
					})
				})
				ask.Target, ask.Duration, ask.Reason = "echo", time.Hour, "test"
				if _, err := h.grants.Request(t.Context(), h.alice, ask); err != nil {
					t.Fatal(err)
				}
				lease, err := h.grants.Lease(t.Context(), h.alice, "echo", ask.Account)
				if err != nil {
					t.Fatal(err)
				}
				if err := spoil(h); err != nil {
					t.Fatal(err)
				}
				_, err = h.sessions.Begin(t.Context(), Opening{
					Protocol: configs.KindPostgres, Identity: h.alice, Target: h.target, Account: h.target.Accounts[0], Lease: lease,
					Client: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
				})
				if err == nil {
					t.Fatal("a session began")
				}
				t.Log(err)
			})
		}
	}
}
