package recorder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
)

const day = 24 * time.Hour

// keeping is a gateway that keeps recordings of target "short" for 10 days and of others for 100, at a clock of its own.
func keeping(t *testing.T, dir string) *gateway {
	t.Helper()
	s := storetest.New(t, dir)
	r, err := Open(t.Context(), Options{
		Dir: dir, Log: testLog(t), Store: s, Config: configs.Recording{Durability: configs.Written}, Index: filepath.Join(dir, "index.db"), Interpreters: talking,
		Keep: func(target string) time.Duration {
			if target == "short" {
				return 10 * day
			}
			return 100 * day
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{s, r}
}

// recorded makes a recording and says in the audit log, as sessions do, that it began.
func recorded(t *testing.T, g *gateway, session, target string, end bool) string {
	t.Helper()
	h := header(session)
	h.Target = target
	rec, err := g.Begin(t.Context(), h, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.store.Audit(t.Context(), store.AuditEvent{Kind: "session.started", Actor: "x", Session: session}); err != nil {
		t.Fatal(err)
	}
	if err := rec.Record(t.Context(), said("needle in "+session)); err != nil {
		t.Fatal(err)
	}
	if end {
		if err := rec.End(format.End{Reason: "done"}); err != nil {
			t.Fatal(err)
		}
	}
	return pathOf(g.Recorder, session)
}

// after lets that time pass for a gateway.
func after(g *gateway, d time.Duration) {
	g.clock = func() time.Time { return time.Now().Add(d) }
	g.running = func() time.Duration { return time.Since(g.opened) + d }
}

func purge(t *testing.T, g *gateway) string {
	t.Helper()
	purged, err := g.Purge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(purged)
	return strings.Join(purged, " ")
}

func hits(t *testing.T, g *gateway) string {
	t.Helper()
	var all []string
	for _, m := range collect(t, g.Search(t.Context(), Query{Text: "needle"})) {
		all = append(all, m.Session)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Recordings go when their time is over and not before, each after the audit log has its hash; what is live or on hold
// stays. Verify tells what was purged from what is missing.
func TestPurge(t *testing.T) {
	dir := t.TempDir()
	g := keeping(t, dir)
	short := recorded(t, g, "s1", "short", true)
	recorded(t, g, "s2", "short", true)
	recorded(t, g, "s3", "long", true)
	recorded(t, g, "s4", "short", false)
	content, err := os.ReadFile(short)
	if err != nil {
		t.Fatal(err)
	}
	if got := purge(t, g); got != "" {
		t.Fatalf("purged at once: %s", got)
	}
	after(g, 10*day-time.Hour)
	if got := purge(t, g); got != "" {
		t.Fatalf("purged too soon: %s", got)
	}
	if _, err := g.Hold(t.Context(), "s2", store.AuditEvent{Actor: "b", ActorName: "Bob", Reason: "case 7"}); err != nil {
		t.Fatal(err)
	}
	indexed(t, g.Recorder)
	after(g, 10*day+time.Hour)
	if got := purge(t, g); got != "s1" {
		t.Fatalf("purged: %s", got)
	}
	if _, err := os.Stat(short); !os.IsNotExist(err) {
		t.Fatalf("the file is there: %v", err)
	}
	if got := hits(t, g); got != "s2 s3 s4" {
		t.Errorf("found afterwards: %s", got)
	}
	if _, _, err := g.Read(t.Context(), "s1"); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("read afterwards: %v", err)
	}
	events := collect(t, g.Audit(t.Context(), AuditFilter{Kind: "recording.purged"}))
	hash := sha256.Sum256(content)
	if len(events) != 1 || events[0].Session != "s1" || events[0].Target != "short" || events[0].Actor != "system" ||
		events[0].Fields["sha256"] != hex.EncodeToString(hash[:]) || events[0].Fields["bytes"] != fmt.Sprint(len(content)) {
		t.Fatalf("%+v", events)
	}
	if holds, err := g.Holds(t.Context()); err != nil || len(holds) != 1 || holds[0].Session != "s2" || holds[0].By != "Bob" || holds[0].Reason != "case 7" {
		t.Fatalf("%+v, %v", holds, err)
	}
	report, err := g.Verify(t.Context())
	if err != nil || !report.Whole || len(report.Missing) != 0 || len(report.Purged) != 1 || report.Purged[0].Session != "s1" ||
		report.Purged[0].SHA256 != events[0].Fields["sha256"] {
		t.Fatalf("%+v, %v", report, err)
	}

	// The hold outlives the gateway; when it is over, so is the recording.
	g.close(t)
	g = keeping(t, dir) // which closes s4, as crashed
	after(g, 99*day)
	if got := purge(t, g); got != "s4" {
		t.Fatalf("purged after a restart: %s", got)
	}
	if err := g.Release(t.Context(), "s2", store.AuditEvent{Actor: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := g.Release(t.Context(), "s2", store.AuditEvent{Actor: "b"}); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("released twice: %v", err)
	}
	if got := purge(t, g); got != "s2" {
		t.Fatalf("purged after the hold: %s", got)
	}
	if _, err := g.Hold(t.Context(), "s2", store.AuditEvent{Actor: "b"}); !refusal.Is(err, refusal.NotFound) {
		t.Errorf("a hold on what is gone: %v", err)
	}
	if got := kinds(t, g, AuditFilter{Kind: "recording", Session: "s2"}); !strings.Contains(got, "recording.held") || !strings.Contains(got, "recording.released") {
		t.Errorf("%s", got)
	}

	// Somebody else's delete is not told of, and missing.
	if err := os.Remove(pathOf(g.Recorder, "s3")); err != nil {
		t.Fatal(err)
	}
	g.close(t)
	offline, err := verify.Check(dir, verify.Options{})
	if err != nil || offline.Whole || len(offline.Missing) != 1 || offline.Missing[0].Session != "s3" || len(offline.Purged) != 3 {
		t.Fatalf("%+v, %v", offline, err)
	}
	var text strings.Builder
	if _, err := offline.WriteTo(&text); err != nil || !strings.Contains(text.String(), "session s3") || !strings.Contains(text.String(), "3 recordings were purged") || !strings.Contains(text.String(), "not whole") {
		t.Errorf("%s", text.String())
	}
}

// Without the audit log's word nothing goes.
func TestNoPurgeWithoutItsRecord(t *testing.T) {
	dir := t.TempDir()
	g := keeping(t, dir)
	defer g.Close(context.Background())
	path := recorded(t, g, "s1", "short", true)
	if _, err := g.store.Read().Exec(`DROP TABLE audit_outbox`); err != nil {
		t.Fatal(err)
	}
	after(g, 11*day)
	if purged, err := g.Purge(t.Context()); err == nil || len(purged) != 0 {
		t.Errorf("purged %v, %v", purged, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// A clock that was moved deletes nothing.
func TestNoPurgeAfterTheClockWasMoved(t *testing.T) {
	g := keeping(t, t.TempDir())
	defer g.close(t)
	path := recorded(t, g, "s1", "short", true)
	for _, jump := range []time.Duration{1000 * day, -1000 * day} {
		after(g, 11*day) // all of them lived through
		g.clock = func() time.Time { return time.Now().Add(11*day + jump) }
		if purged, err := g.Purge(t.Context()); err == nil || len(purged) != 0 {
			t.Errorf("moved by %v: purged %v, %v", jump, purged, err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
