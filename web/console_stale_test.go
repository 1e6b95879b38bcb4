package web_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"sallyport/web/api"
)

var seenField = regexp.MustCompile(`name="seen" value="([^"]+)"`)

// seen is the tag of what the page's form is about.
func (s screen) seen(t *testing.T) string {
	t.Helper()
	m := seenField.FindStringSubmatch(s.html)
	if m == nil {
		t.Fatalf("no form on the page says what it is about: %s", s.html)
	}
	return strings.ReplaceAll(m[1], "&#34;", `"`)
}

// A form about something that changed since it was opened does nothing, says so, and keeps what was written.
func TestConsoleStaleForms(t *testing.T) {
	r := newRig(t)
	g := r.request()
	path := "/console/requests/" + g.ID
	bob, alice := r.window("bob"), r.window("alice")
	fresh := bob.get("/console/inbox").seen(t)
	if tag := bob.get(path).seen(t); tag != fresh {
		t.Errorf("inbox and page know it as %s and %s", fresh, tag)
	}
	if done := bob.post(path+"/approve", url.Values{"seen": {fresh}}); !strings.Contains(done.text, "Approved.") {
		t.Fatalf("a fresh form: %s %s", done.Status, done.text)
	}
	r.begin("orders", "app", "SELECT 1")
	form := alice.get(path).seen(t)
	if asked := alice.post(path+"/extend", url.Values{"seen": {form}, "duration": {"20m"}, "comment": {"not done yet"}}); asked.StatusCode != http.StatusOK || !strings.Contains(asked.text, "20 min more") {
		t.Fatalf("a fresh form: %s %s", asked.Status, asked.text)
	}
	looked := bob.get("/console/inbox").seen(t)
	r.must("alice", "POST", "/v1/grants/"+g.ID+"/release", nil, nil)
	for _, verb := range []string{"approve", "deny"} {
		late := bob.post(path+"/"+verb, url.Values{"seen": {looked}, "comment": {"my long <b>thoughts</b>"}})
		if late.StatusCode != http.StatusPreconditionFailed || !strings.Contains(late.text, "It changed while you looked at it") || !strings.Contains(late.text, "my long <b>thoughts</b>") {
			t.Errorf("%s of what has changed: %s %s", verb, late.Status, late.text)
		}
	}
	late := alice.post(path+"/extend", url.Values{"seen": {form}, "duration": {"25m"}, "comment": {"more"}})
	if late.StatusCode != http.StatusPreconditionFailed || !strings.Contains(late.text, "more") {
		t.Errorf("more time for what has changed: %s %s", late.Status, late.text)
	}
	var now api.Grant
	if r.must("alice", "GET", "/v1/grants/"+g.ID, nil, &now); len(now.Votes) != 1 {
		t.Errorf("a stale form voted: %+v", now.Votes)
	}
	// Giving back and revoking never wait for a fresh look; a request of no right is none by an old form either.
	again := r.request()
	if back := alice.post("/console/requests/"+again.ID+"/release", url.Values{"seen": {form}}); back.StatusCode != http.StatusOK {
		t.Errorf("giving back: %s", back.Status)
	}
	if no := alice.post("/console/requests/"+again.ID+"/approve", url.Values{"seen": {looked}}); no.StatusCode/100 == 2 {
		t.Errorf("her own: %s", no.Status)
	}
}

// What was written into a request that is not taken stands in the form that says why.
func TestConsoleRefusedRequestKeepsItsWords(t *testing.T) {
	r := newRig(t)
	alice := r.window("alice")
	page := alice.post("/console/requests", url.Values{"target": {"orders"}, "account": {"app"}, "duration": {"soon"}, "reason": {"INC-7 </textarea><b>why"}})
	if page.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(page.text, "makes no sense") || !strings.Contains(page.html, "INC-7 &lt;/textarea&gt;&lt;b&gt;why") || !strings.Contains(page.html, `value="soon"`) {
		t.Errorf("%s %s", page.Status, page.html)
	}
	for _, form := range []url.Values{{}, {"target": {"orders"}, "account": {"root"}, "reason": {"INC-7 why"}}} {
		if page := alice.post("/console/requests", form); page.StatusCode/100 != 4 {
			t.Errorf("%v: %s", form, page.Status)
		}
	}
}
