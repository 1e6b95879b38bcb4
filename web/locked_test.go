package web_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

// A locked recording is handed out as it is stored and not otherwise; every way to read it says where replay runs.
func TestLockedRecordings(t *testing.T) {
	r := newRig(t)
	clear := r.finished("web-1", "deploy", "cat canary-clear")
	auditor, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r.recipients = []string{auditor.Recipient().String()}
	id := r.finished("web-1", "deploy", "cat canary-locked")
	for _, path := range []string{"/v1/sessions/" + id + "/items", "/v1/export?session=" + id, "/v1/export?format=text&session=" + id} {
		status, body := r.call("carol", "GET", path, nil)
		if status != http.StatusConflict || !strings.Contains(string(body), `"locked"`) || !strings.Contains(string(body), "--identity") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, found := r.call("carol", "GET", "/v1/search?text=canary-locked", nil); status != http.StatusConflict || !bytes.Contains(found, []byte("locked recordings were not searched: 1")) {
		t.Errorf("a search finds %d %s", status, found)
	}
	if status, text := r.call("carol", "GET", "/v1/export?all=true&format=text", nil); status != http.StatusOK || !bytes.Contains(text, []byte("canary-clear")) ||
		!bytes.Contains(text, []byte("locked recordings were not exported: 1")) || bytes.Contains(text, []byte("canary-locked")) {
		t.Errorf("an export of all: %d %s", status, text)
	}
	status, stored := r.call("carol", "GET", "/v1/export?format=srec&session="+id, nil)
	if status != http.StatusOK || !bytes.HasPrefix(stored, []byte("SREC1\n")) || bytes.Contains(stored, []byte("canary")) {
		t.Errorf("as it is stored: %d, %d bytes", status, len(stored))
	}
	if status, _ := r.call("alice", "GET", "/v1/export?format=srec&session="+id, nil); status != http.StatusForbidden {
		t.Errorf("without the permission it is handed out: %d", status)
	}
	if status, _ := r.call("carol", "GET", "/v1/sessions/"+clear+"/items", nil); status != http.StatusOK {
		t.Errorf("one in the clear: %d", status)
	}
	page := r.window("carol").get("/console/sessions/" + id)
	if page.StatusCode != http.StatusOK || !strings.Contains(page.text, "replay runs where the identity") || strings.Contains(page.html, "canary") {
		t.Errorf("the console: %s %s", page.Status, page.text)
	}
	seen := r.audited("carol")
	for _, want := range []string{"recording.replayed locked", "recording.exported locked", "recording.exported ok"} {
		if !slices.Contains(seen, want) {
			t.Errorf("no %q in %v", want, seen)
		}
	}
}
