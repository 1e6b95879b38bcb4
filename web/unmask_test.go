package web_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/recorder/format"
)

// What is masked is hidden on every way to a recording, for everybody; who has a permission of its own name and says why sees it,
// which is audited.
func TestMasking(t *testing.T) {
	r := newRig(t)
	r.mask = &format.Mask{Cards: true, Patterns: []format.MaskPattern{{Name: "token", Regexp: `tok_[a-z0-9]+`}}}
	id := r.finished("web-1", "deploy", "pay 4111 1111 1111 1111 tok_abc now")
	hidden := func(text string) bool {
		return strings.Contains(text, "1111]") && strings.Contains(text, "[masked: token]") && !strings.Contains(text, "4111") && !strings.Contains(text, "tok_abc")
	}
	for _, path := range []string{"/v1/sessions/" + id + "/items", "/v1/export?session=" + id, "/v1/export?format=text&session=" + id, "/v1/export?all=true", "/v1/search?text=pay"} {
		if status, body := r.call("carol", "GET", path, nil); status != http.StatusOK || !hidden(string(body)) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, text := range []string{"4111", "tok_abc", "1111+1111"} {
		if status, body := r.call("carol", "GET", "/v1/search?text="+text, nil); status != http.StatusOK || len(body) > 0 {
			t.Errorf("a search for %s finds %d %s", text, status, body)
		}
	}
	page := r.window("carol").get("/console/sessions/" + id)
	if page.StatusCode != http.StatusOK || strings.Contains(page.html, "4111") || strings.Contains(page.html, "tok_abc") {
		t.Errorf("the console: %s %s", page.Status, page.text)
	}
	whole := []string{"/v1/sessions/" + id + "/items?unmasked=true&", "/v1/export?unmasked=true&session=" + id + "&", "/v1/export?format=srec&session=" + id + "&", "/v1/sessions/" + id + "/evidence?"}
	for _, path := range whole { // "*" is not enough
		if status, body := r.call("carol", "GET", path+"reason=incident+7", nil); status != http.StatusForbidden || !strings.Contains(string(body), "recordings.unmask") {
			t.Errorf("%s: %d %.300s", path, status, body)
		}
	}
	more := *r.config
	more.Permissions = append(slices.Clone(r.config.Permissions), r.config.Permissions[0])
	more.Permissions[len(more.Permissions)-1].May = []string{"recordings.unmask"}
	if err := r.grants.Reload(t.Context(), &more); err != nil {
		t.Fatal(err)
	}
	for i, path := range whole {
		if status, body := r.call("carol", "GET", path, nil); status != http.StatusUnprocessableEntity && status != http.StatusBadRequest {
			t.Errorf("without a reason, %s: %d %.300s", path, status, body)
		}
		if status, body := r.call("carol", "GET", path+"reason=incident+7", nil); status != http.StatusOK || i < 2 && !strings.Contains(string(body), "pay 4111 1111 1111 1111 tok_abc") {
			t.Errorf("%s: %d %.300s", path, status, body)
		}
	}
	if seen := r.audited("carol"); !slices.Contains(seen, "recording.unmasked ok") {
		t.Errorf("it is not audited: %v", seen)
	}
	r.mask = nil // the header says still what was to be hidden
	if status, body := r.call("carol", "GET", "/v1/sessions/"+id+"/items", nil); status != http.StatusOK || !hidden(string(body)) {
		t.Errorf("after the rule is gone: %d %s", status, body)
	}
}
