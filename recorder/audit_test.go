package recorder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder/format"
	"sallyport/recorder/verify"
)

// gateway is a store and a recorder on one state directory.
type gateway struct {
	store *store.Store
	*Recorder
}

func openGateway(t *testing.T, dir string) *gateway {
	t.Helper()
	s := storetest.New(t, dir)
	r, err := Open(t.Context(), Options{Dir: dir, Log: testLog(t), Store: s, Config: configs.Recording{Durability: configs.Written}})
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{s, r}
}

func (g *gateway) close(t *testing.T) {
	t.Helper()
	if err := g.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
}

func (g *gateway) note(t *testing.T, kind string) {
	t.Helper()
	if err := g.store.Audit(t.Context(), store.AuditEvent{Kind: kind, Actor: "system"}); err != nil {
		t.Fatal(err)
	}
}

func kinds(t *testing.T, g *gateway, f AuditFilter) string {
	t.Helper()
	var all []string
	for _, e := range collect(t, g.Audit(t.Context(), f)) {
		all = append(all, fmt.Sprintf("%d:%s", e.Number, e.Kind))
	}
	return strings.Join(all, " ")
}

func TestAuditEventsAreMovedOnce(t *testing.T) {
	dir := t.TempDir()
	g := openGateway(t, dir)
	g.note(t, "a.one")
	g.note(t, "a.two")
	if got := kinds(t, g, AuditFilter{}); got != "1:a.one 2:a.two" {
		t.Fatal(got)
	}
	eventually(t, "the outbox is empty", func() bool {
		waiting, err := g.store.Outbox(t.Context(), 0, 10)
		return err == nil && len(waiting) == 0
	})
	g.note(t, "b") // moved by Close at the latest
	g.close(t)

	g = openGateway(t, dir)
	g.note(t, "c")
	if got := kinds(t, g, AuditFilter{}); got != "1:a.one 2:a.two 3:b 4:c" {
		t.Fatal(got)
	}
	for filter, want := range map[AuditFilter]string{
		{Kind: "a"}:                        "1:a.one 2:a.two",
		{Kind: "a.two"}:                    "2:a.two",
		{Kind: "a.tw"}:                     "",
		{Last: 2}:                          "3:b 4:c",
		{After: 2}:                         "3:b 4:c",
		{After: 1, Before: 4}:              "2:a.two 3:b",
		{Before: 3, Last: 1}:               "2:a.two",
		{After: 9}:                         "",
		{Actor: "SYST"}:                    "1:a.one 2:a.two 3:b 4:c",
		{Target: "x"}:                      "",
		{Since: time.Now().Add(time.Hour)}: "",
		{Until: time.Now().Add(time.Hour), Last: 1}: "4:c",
	} {
		if got := kinds(t, g, filter); got != want {
			t.Errorf("%+v: %s", filter, got)
		}
	}
	if report, err := g.Verify(t.Context()); err != nil || !report.Whole || report.Audit.Last != 4 {
		t.Errorf("%+v %v", report, err)
	}
	g.close(t)
	if report, err := verify.Check(dir, verify.Options{}); err != nil || !report.Whole || report.Audit.Events != 4 {
		t.Errorf("%+v %v", report, err)
	}
}

// A gateway that dies after the log is written and before the outbox is told leaves events in both.
func TestAuditEventsInLogAndOutboxAreNotMovedAgain(t *testing.T) {
	dir := t.TempDir()
	g := openGateway(t, dir)
	// The same rows once more, as if Moved had never been committed: taken before the mover sees them.
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		g.note(t, fmt.Sprint("k", i))
	}
	waiting, err := g.store.Outbox(t.Context(), 0, 10)
	if err != nil || len(waiting) != 5 {
		t.Fatalf("%v %v", waiting, err)
	}
	r := &Recorder{hardware: system(), Options: Options{Dir: dir, Log: testLog(t), Store: g.store, Config: configs.Recording{Durability: configs.Written}},
		paths: map[string]string{}, live: map[string]*Recording{}}
	if err := r.prepare(); err != nil {
		t.Fatal(err)
	}
	dying := &auditLog{recorder: r, moved: make(chan struct{})}
	var three []Event
	for _, e := range waiting[:3] {
		three = append(three, format.JSON(format.TypeAudit, 0, e))
	}
	if err := dying.write(t.Context(), 1, three); err != nil {
		t.Fatal(err)
	}
	dying.current.file.Close() // dead
	g.store.Close()

	g = openGateway(t, dir)
	if got := kinds(t, g, AuditFilter{}); got != "1:k0 2:k1 3:k2 4:k3 5:k4" {
		t.Fatal(got)
	}
	g.close(t)
	report, err := verify.Check(dir, verify.Options{})
	if err != nil || !report.Whole || report.Audit.Events != 5 || len(report.Audit.Files) != 2 {
		t.Fatalf("%+v %v", report, err)
	}
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	g := openGateway(t, dir)
	for range 3 { // three audit files
		g.note(t, "x")
		g.note(t, "y")
		g.close(t)
		g = openGateway(t, dir)
	}
	rec := begin(t, g.Recorder, "s1")
	if err := rec.Record(t.Context(), said("one")); err != nil {
		t.Fatal(err)
	}
	live := begin(t, g.Recorder, "s2")
	if err := live.Record(t.Context(), said("one")); err != nil {
		t.Fatal(err)
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
	report, err := g.Verify(t.Context())
	if err != nil || !report.Whole || len(report.Recordings) != 2 || report.Recordings[1].State != verify.Live {
		t.Fatalf("%+v %v", report, err)
	}
	sealed := pathOf(g.Recorder, "s1")
	content, err := os.ReadFile(sealed)
	if err != nil {
		t.Fatal(err)
	}
	audits := g.auditFiles()
	for name, c := range map[string]struct {
		harm func() error
		undo func() error
		says string
	}{
		"a changed byte": {
			func() error {
				c := append([]byte{}, content...)
				c[len(c)/2] ^= 4
				return os.WriteFile(sealed, c, 0o600)
			}, nil, "s1.srec: damaged"},
		"the ending cut off": {
			func() error { return os.Truncate(sealed, int64(len(content)-1)) }, nil, "s1.srec: damaged"},
		"under another name": {
			func() error { return os.WriteFile(filepath.Join(filepath.Dir(sealed), "s3.srec"), content, 0o600) },
			func() error { return os.Remove(filepath.Join(filepath.Dir(sealed), "s3.srec")) }, "another name"},
		"an audit file gone": {
			func() error { return os.Rename(filepath.Join(dir, audits[1]), filepath.Join(dir, "away")) },
			func() error { return os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, audits[1])) }, "events 3 to 4 are missing"},
		"no header": {
			func() error { return os.WriteFile(sealed, nil, 0o600) }, nil, "not a recording"},
	} {
		if err := c.harm(); err != nil {
			t.Fatal(err)
		}
		report, err := g.Verify(t.Context())
		var text strings.Builder
		if err == nil {
			report.WriteTo(&text)
		}
		if err != nil || report.Whole || !strings.Contains(text.String(), c.says) || !strings.Contains(text.String(), "not whole") {
			t.Errorf("%s: %v\n%s", name, err, text.String())
		}
		if c.undo == nil {
			c.undo = func() error { return os.WriteFile(sealed, content, 0o600) }
		}
		if err := c.undo(); err != nil {
			t.Fatal(err)
		}
		if report, err := g.Verify(t.Context()); err != nil || !report.Whole {
			t.Fatalf("after undoing %s: %v", name, err)
		}
	}
	g.close(t)
}

// TestAnAuditFileThatIsBeingMade has nothing yet, and keeps nobody from reading the others.
func TestAnAuditFileThatIsBeingMade(t *testing.T) {
	g := openGateway(t, t.TempDir())
	g.note(t, "a.one")
	if got := kinds(t, g, AuditFilter{}); got != "1:a.one" {
		t.Fatal(got)
	}
	made := &Recording{header: format.Header{Session: "audit-000000000002-20261125T000000.000000000Z", Protocol: protocolAudit}}
	if err := g.claim(made, filepath.Join("audit", made.header.Session+extension)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []AuditFilter{{}, {Last: 5}} {
		if got := kinds(t, g, f); got != "1:a.one" {
			t.Errorf("%+v: %s", f, got)
		}
	}
	g.ended(made)
	g.mu.Lock()
	delete(g.paths, made.header.Session)
	g.mu.Unlock()
	g.close(t)
}
