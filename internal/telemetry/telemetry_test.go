package telemetry_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"sallyport/internal/store"
	"sallyport/internal/telemetry"
	"sallyport/internal/telemetry/telemetrytest"
)

// rig is a store whose events are told to a collector.
type rig struct {
	*telemetrytest.Collector
	store   *store.Store
	options telemetry.Options
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r := &rig{Collector: telemetrytest.New(t), store: s}
	r.options = telemetry.Options{
		Version: "test", Store: s, Log: slog.New(slog.DiscardHandler), Cursor: filepath.Join(dir, "telemetry.cursor"),
		Live:    func() map[string]int { return map[string]int{"postgres": 3} },
		Outbox:  func(context.Context) (int, error) { return 7, nil },
		Open:    func() map[string]int { return map[string]int{"pending": 2, "active": 5} },
		Waiting: func() int { return 6 },
		Notifications: func(context.Context) (map[[2]string]int, error) {
			return map[[2]string]int{{"slack", "pending"}: 4, {"webhook", "dead"}: 1}, nil
		},
		Audit: func(ctx context.Context, after uint64) iter.Seq2[store.AuditEvent, error] {
			return func(yield func(store.AuditEvent, error) bool) {
				events, err := s.Outbox(ctx, after, 100_000)
				for _, e := range events {
					if !yield(e, nil) {
						return
					}
				}
				if err != nil {
					yield(store.AuditEvent{}, err)
				}
			}
		},
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	return r
}

func (r *rig) start(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Start(t.Context(), r.options)
	if err != nil || tel == nil {
		t.Fatalf("%v %v", tel, err)
	}
	return tel
}

func (r *rig) audit(t *testing.T, events ...store.AuditEvent) {
	t.Helper()
	for _, e := range events {
		if err := r.store.Audit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// until waits for something of the collector's.
func (r *rig) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-again.C {
		r.Mu.Lock()
		done := ok()
		r.Mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: %s", what)
		}
	}
}

// TestAuditEventsAreSentAtLeastOnce states that every audit event comes to the collector, in order, also those from before
// telemetry was on and from while the collector was away, and that after a restart none is left out.
func TestAuditEventsAreSentAtLeastOnce(t *testing.T) {
	r := newRig(t)
	const each = 300 // more than go in one message
	write := func() {
		for range each {
			r.audit(t, store.AuditEvent{Kind: "thing.done", Actor: "system"})
		}
	}
	write()
	tel := r.start(t)
	r.until(t, "what was there before has not come", func() bool { return len(r.Events) >= each })
	r.Away.Store(true)
	write()
	r.until(t, "the collector was not asked while it was away", func() bool { return r.Refused > 0 })
	r.Away.Store(false)
	r.until(t, "what happened while the collector was away has not come", func() bool { return len(r.Events) >= 2*each })
	tel.Close()
	write()
	defer r.start(t).Close()
	r.until(t, "what happened while telemetry was off has not come", func() bool {
		return slices.ContainsFunc(r.Events, func(e telemetrytest.Event) bool { return e.Number == 3*each })
	})
	r.Mu.Lock()
	defer r.Mu.Unlock()
	// An event may come twice: what was sent when telemetry ended, before its cursor was kept, is sent again. But none is
	// left out, and none comes for the first time after a later one.
	last := uint64(0)
	for i, e := range r.Events {
		number := e.Number
		if number > last+1 {
			t.Fatalf("event %d came as the %dth, when the newest before it was %d", number, i+1, last)
		}
		last = max(last, number)
	}
}

// TestWhatWasSentAndNotNoted states that a gateway which dies after the collector took events, and before it noted that, sends them
// again; and that neither an empty cursor nor one that is ahead of the log keeps an event back.
func TestWhatWasSentAndNotNoted(t *testing.T) {
	r := newRig(t)
	elsewhere := filepath.Join(t.TempDir(), "not", "there")
	whole := r.options.Cursor
	write := func() {
		t.Helper()
		for range 3 {
			r.audit(t, store.AuditEvent{Kind: "thing.done", Actor: "system"})
		}
	}
	times := func(number uint64, n int) func() bool {
		return func() bool {
			count := 0
			for _, got := range r.Events {
				if got.Number == number {
					count++
				}
			}
			return count >= n
		}
	}
	write()
	r.options.Cursor = filepath.Join(elsewhere, "cursor") // which can't be written
	tel := r.start(t)
	r.until(t, "it was not sent", times(3, 1))
	tel.Close()
	r.options.Cursor = whole
	tel = r.start(t)
	r.until(t, "what was not noted was not sent again", times(3, 2))
	tel.Close()
	for i, cursor := range []string{"", "1000\n"} {
		if err := os.WriteFile(whole, []byte(cursor), 0o600); err != nil {
			t.Fatal(err)
		}
		write()
		tel = r.start(t)
		r.until(t, fmt.Sprintf("with %q as the cursor an event was kept back", cursor), times(uint64(6+3*i), 1))
		tel.Close()
	}
}

// TestMetrics states what is counted, and that no metric names a person or a target.
func TestMetrics(t *testing.T) {
	r := newRig(t)
	tel := r.start(t)
	asked := time.Now()
	r.audit(t,
		store.AuditEvent{Kind: "grant.requested", Actor: "i alice", Grant: "g-1", Time: asked},
		store.AuditEvent{Kind: "grant.approved", Actor: "i bob", Grant: "g-0", Time: asked, Fields: map[string]string{"waited": "1h30m0s"}}, // asked for before this began
		store.AuditEvent{Kind: "session.refused", Actor: "i alice", Target: "orders", Outcome: "no_grant"},
		store.AuditEvent{Kind: "session.ended", Actor: "i alice", Target: "orders", Session: "s-1", Reason: "grant_revoked"},
		store.AuditEvent{Kind: "login.succeeded", Actor: "i alice"},
	)
	tel.Waited(time.Millisecond)
	tel.Cut(20 * time.Millisecond)
	r.until(t, "the events were not followed", func() bool { return len(r.Events) == 5 })
	tel.Close() // and sends the last
	r.Mu.Lock()
	defer r.Mu.Unlock()
	for name, want := range map[string]int64{
		"sallyport.grants kind=grant.requested":                      1,
		"sallyport.grants kind=grant.approved":                       1,
		"sallyport.refusals kind=session.refused reason=no_grant":    1,
		"sallyport.sessions.ended reason=grant_revoked":              1,
		"sallyport.sign_ins kind=login.succeeded outcome=ok":         1,
		"sallyport.sessions.live protocol=postgres":                  3,
		"sallyport.audit.outbox":                                     7,
		"sallyport.connections.waiting":                              6,
		"sallyport.grants.open state=pending":                        2,
		"sallyport.grants.open state=active":                         5,
		"sallyport.notifications.outbox channel=slack state=pending": 4,
		"sallyport.notifications.outbox channel=webhook state=dead":  1,
	} {
		if r.Sums[name] != want {
			t.Errorf("%s: %d, want %d", name, r.Sums[name], want)
		}
	}
	for _, name := range []string{"sallyport.grants.approval_time", "sallyport.recording.wait", "sallyport.sessions.cut_time"} {
		if r.Counts[name] != 1 {
			t.Errorf("%s: %d measurements, want 1", name, r.Counts[name])
		}
	}
	for name := range r.Sums {
		if strings.Contains(name, "alice") || strings.Contains(name, "orders") {
			t.Errorf("%s says who or what", name)
		}
	}
}

// TestOneTraceAGrant states that a grant, its approval and its sessions are one trace, of which the grant is the root.
func TestOneTraceAGrant(t *testing.T) {
	r := newRig(t)
	tel := r.start(t)
	event := func(kind, session string, n int) store.AuditEvent {
		return store.AuditEvent{
			Kind: kind, Actor: "i alice", Target: "orders", Account: "app", Grant: "g-1", Session: session, Reason: "client_closed",
			Time: time.Unix(1_800_000_000+int64(n), 0),
		}
	}
	r.audit(t, event("grant.requested", "", 0), event("grant.approved", "", 5), event("grant.active", "", 6),
		event("session.started", "s-1", 6), event("session.ended", "s-1", 8), event("grant.ended", "", 9))
	r.until(t, "the events were not followed", func() bool { return len(r.Events) == 6 })
	tel.Close()
	r.Mu.Lock()
	defer r.Mu.Unlock()
	spans := map[string]*trace.Span{}
	for _, s := range r.Spans {
		spans[s.Name] = s
	}
	root, approval, session := spans["grant app@orders"], spans["approval"], spans["session app@orders"]
	if len(r.Spans) != 3 || root == nil || approval == nil || session == nil {
		t.Fatalf("%v", r.Spans)
	}
	if len(root.ParentSpanId) != 0 || root.EndTimeUnixNano-root.StartTimeUnixNano != uint64(9*time.Second) {
		t.Errorf("the grant: %v", root)
	}
	for _, s := range []*trace.Span{approval, session} {
		if string(s.TraceId) != string(root.TraceId) || string(s.ParentSpanId) != string(root.SpanId) {
			t.Errorf("%s is not in the grant: %v", s.Name, s)
		}
	}
	if session.EndTimeUnixNano-session.StartTimeUnixNano != uint64(2*time.Second) {
		t.Errorf("the session: %v", session)
	}
}

func TestNothingIsSentUnasked(t *testing.T) {
	r := newRig(t)
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if tel, err := telemetry.Start(t.Context(), r.options); tel != nil || err != nil {
		t.Fatalf("%v %v", tel, err)
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	tel, err := telemetry.Start(t.Context(), r.options)
	if tel != nil || err != nil {
		t.Fatalf("%v %v", tel, err)
	}
	if tel.Measures() {
		t.Error("it measures for nobody")
	}
	tel.Close()
}
