package e2e

import (
	"strings"
	"testing"

	"sallyport/test/rig"
)

// TestShred: a recording that was destroyed stands nowhere in what the gateway keeps, is not found, and is no fault; who may
// do everything but that is refused, and so is whose session it is.
func TestShred(t *testing.T) {
	r := rig.Start(t, rig.Binary(t, ""))
	const gone, stays = "canary-heron-81", "canary-stork-82"
	for _, canary := range []string{stays, gone} {
		if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT '"+canary+"'"); out.Stdout != canary+"\n" {
			t.Fatalf("%+v", out)
		}
	}
	if out := r.SSH("echo " + gone); out.Stdout != gone+"\n" {
		t.Fatalf("%+v", out)
	}
	for _, protocol := range []string{"postgres", "ssh"} {
		id := endedSession(r, protocol)
		if out := r.As("carol", "search", "canary"); !strings.Contains(out.Stdout, gone) {
			t.Fatalf("it is not found before: %+v", out)
		}
		if out := r.As("bob", "shred", id, "--reason", "because"); out.Code == 0 {
			t.Errorf("bob: %+v", out)
		}
		if out := r.As("carol", "shred", id); out.Code == 0 {
			t.Errorf("without a reason: %+v", out)
		}
		if out := r.As("carol", "shred", id, "--reason", "erasure 113"); out.Code != 0 {
			t.Fatalf("%+v", out)
		}
		if out := r.As("carol", "replay", id); out.Code == 0 {
			t.Errorf("replay: %+v", out)
		}
	}
	nowhere(t, r, gone)
	if out := r.As("carol", "search", "canary"); strings.Contains(out.Stdout, gone) || !strings.Contains(out.Stdout, stays) {
		t.Errorf("search: %+v", out)
	}
	for _, check := range [][]string{{"verify"}, {"verify", "--state", r.Path()}} {
		if out := r.As("carol", check...); out.Code != 0 || strings.Count(out.Stdout, "was destroyed by") != 2 || !strings.Contains(out.Stdout, ": erasure 113\n") {
			t.Errorf("%v: %+v", check, out)
		}
	}
	if out := r.As("carol", "audit", "--json"); !strings.Contains(out.Stdout, "recording.shredded") {
		t.Errorf("audit: %+v", out)
	}
}
