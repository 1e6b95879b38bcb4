package web_test

import (
	"archive/zip"
	"bytes"
	"strings"
	"testing"

	"sallyport/recorder/transparency"
	"sallyport/web/api"
)

// raw gets what is no JSON.
func (r *rig) raw(person, path string) (int, []byte) { return r.call(person, "GET", path, nil) }

// The log is for those who may verify it, unless it is said to be public.
func TestLogIsServedToWhoMayVerify(t *testing.T) {
	r := newRig(t)
	r.finished("stock", "app", "SELECT 1")
	for _, c := range []struct {
		person, path string
		status       int
	}{
		{"", "/log/checkpoint", 401}, {"alice", "/log/checkpoint", 403}, {"carol", "/log/checkpoint", 200}, {"carol", "/log/witnessed", 404},
		{"carol", "/log/tile/0/000.p/1", 200}, {"carol", "/log/tile/entries/000.p/2", 200}, {"alice", "/log/tile/entries/000.p/2", 403}, {"", "/log/tile/0/000.p/1", 401},
		{"carol", "/log/tile/0/000", 404}, {"carol", "/log/tile/9/000", 404}, {"carol", "/log/tail/0", 404}, {"carol", "/log/tile/entries/x999/999", 404},
		{"carol", "/log/..%2f..%2fkeys%2flog", 404}, {"carol", "/log/tile/entries/..%2f..%2f..%2fkeys%2flog", 404},
	} {
		if status, body := r.raw(c.person, c.path); status != c.status {
			t.Errorf("%s as %q: %d, want %d: %.200s", c.path, c.person, status, c.status, body)
		}
	}
	r.config.Recording.PublicLog = true
	_, bundle := r.raw("", "/log/tile/entries/000.p/2")
	entries, _, whole := transparency.Entries(bundle)
	if !whole || len(entries) != 2 {
		t.Fatalf("%q", bundle)
	}
	if leaf, err := transparency.Decode(entries[0]); err != nil || leaf.Kind != transparency.Start {
		t.Errorf("%+v %v", leaf, err)
	}
	_, note := r.raw("", "/log/checkpoint")
	if c, err := transparency.ParseCheckpoint(note, r.recorder.Ledger.Key()); err != nil || c.Tree.N < 1 {
		t.Errorf("%+v %v", c, err)
	}
	var s api.Status
	r.must("carol", "GET", "/v1/status", nil, &s)
	if s.Log.Size < 3 || s.Log.Origin != "gateway.example/log" || !strings.Contains(s.Log.Warning, "no witness") {
		t.Errorf("%+v", s.Log)
	}
}

// Evidence and reports are for those with the permissions, and the audit log tells of them.
func TestEvidenceAndReports(t *testing.T) {
	r := newRig(t)
	id := r.finished("stock", "app", "SELECT 1")
	const period = "?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
	for _, path := range []string{"/v1/sessions/" + id + "/evidence", "/v1/reports/access" + period} {
		if status, body := r.raw("alice", path); status != 403 {
			t.Errorf("%s as alice: %d %.200s", path, status, body)
		}
	}
	status, body := r.raw("carol", "/v1/sessions/"+id+"/evidence")
	archive, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if status != 200 || err != nil {
		t.Fatalf("%d %v", status, err)
	}
	names := map[string]bool{}
	for _, f := range archive.File {
		names[f.Name] = true
	}
	for _, name := range []string{"README.txt", "manifest.json", "checkpoint", "audit.jsonl", "grant.json", "recordings/" + id + ".srec", "proofs/" + id + ".opened", "proofs/" + id + ".ended"} {
		if !names[name] {
			t.Errorf("the bundle has no %s: %v", name, names)
		}
	}
	live := r.begin("stock", "app", "SELECT 2").ID()
	if status, body := r.raw("carol", "/v1/sessions/"+live+"/evidence"); status != 409 {
		t.Errorf("of a live session: %d %.200s", status, body)
	}
	for _, kind := range []string{"access", "sessions", "integrity", "review"} {
		var report api.AuditReport
		r.must("carol", "GET", "/v1/reports/"+kind+period, nil, &report)
		if report.Kind != kind || len(report.Figures) == 0 || report.By != "Carol Security" || report.Checkpoint == "" || report.Witnessed {
			t.Errorf("%+v", report)
		}
	}
	kinds := strings.Join(r.audited("carol"), "\n")
	if !strings.Contains(kinds, "evidence.exported ok") || !strings.Contains(kinds, "report.made ok") {
		t.Error(kinds)
	}
}
