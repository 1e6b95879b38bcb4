package web_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"sallyport/recorder"
)

// The badge says against which checkpoint a recording was checked, the same as the API, locked or not; one that lives has none.
func TestIntegrityBadge(t *testing.T) {
	r := newRig(t)
	carol := r.window("carol")
	clear := r.finished("stock", "app", "SELECT 1")
	auditor, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r.recipients = []string{auditor.Recipient().String()}
	locked := r.finished("stock", "app", "SELECT 'canary'")
	for _, id := range []string{clear, locked} {
		var found recorder.Integrity
		r.must("carol", "GET", "/v1/sessions/"+id+"/integrity", nil, &found)
		if !found.Whole || !found.Bound || found.Checkpoint == nil || found.Checkpoint.Origin != "gateway.example/log" {
			t.Fatalf("%+v", found)
		}
		page := carol.get("/console/sessions/" + id)
		for _, want := range []string{"as the gateway's log has it", "no witness has seen", found.Chain, "names this chain", "events in"} {
			if page.StatusCode != http.StatusOK || !strings.Contains(page.text, want) {
				t.Errorf("%s: no %q in %s", page.Status, want, page.text)
			}
		}
		if again := carol.get("/console/sessions/" + id + "/proof"); again.StatusCode != http.StatusOK || !strings.Contains(again.text, found.Chain) || strings.Contains(again.html, "<nav") || strings.Contains(again.html, "data-proof") {
			t.Errorf("the badge alone: %s %s", again.Status, again.html)
		}
		if strings.Contains(page.html, "canary") {
			t.Error("a locked recording is shown")
		}
	}
	if page := carol.get("/console/sessions/" + locked); !strings.Contains(page.text, "sallyport replay "+locked+" --identity FILE") || !strings.Contains(page.text, "sallyport login --gateway "+r.url) {
		t.Errorf("how a locked one is replayed: %s", page.text)
	}
	r.recipients = nil
	live := r.begin("stock", "app", "SELECT 2")
	if page := carol.get("/console/sessions/" + live.ID()); !strings.Contains(page.text, "still being written") || strings.Contains(page.text, "checkpoint") {
		t.Errorf("one that lives: %s", page.text)
	}
	if status, body := r.call("carol", "GET", "/v1/sessions/"+live.ID()+"/integrity", nil); status != http.StatusConflict {
		t.Errorf("one that lives: %d %s", status, body)
	}
	if seen := r.audited("carol"); !slices.Contains(seen, "recording.verified ok") {
		t.Errorf("%v", seen)
	}
}
