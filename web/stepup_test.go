package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/web/api"
)

// TestStepUp states that a deed for which the configuration asks for a fresh proof is refused to who proved themselves too
// long ago, whichever way they come, that the refusal is audited, and that signing in again, for which the provider is told to
// ask anew, is what helps.
func TestStepUp(t *testing.T) {
	r := newRig(t)
	g := r.request()
	s := r.begin("stock", "app", "SELECT 1")
	old := configs.Duration(time.Nanosecond)
	r.config.StepUp = []configs.StepUp{
		{For: []string{"approve"}, Within: old},
		{For: []string{"sessions.kill", "recordings.export"}, Labels: map[string]string{"tier": "low"}, Within: old},
		{For: []string{"approve", "sessions.kill"}, Labels: map[string]string{"tier": "none"}, Within: old / 2},
	}
	deeds := []struct{ person, method, path, body string }{
		{"bob", "POST", "/v1/requests/" + g.ID + "/approve", "{}"},
		{"carol", "POST", "/v1/sessions/" + s.ID() + "/kill", "{}"},
		{"carol", "GET", "/v1/export?session=" + s.ID(), ""},
	}
	for _, d := range deeds {
		answer, body := r.ask(d.person, d.method, d.path, d.body, nil)
		var p api.Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || answer.StatusCode != http.StatusUnauthorized || p.Code != "step_up" || p.Hint == "" {
			t.Errorf("%s: %s %s", d.path, answer.Status, body)
		}
	}
	if answer, body := r.ask("carol", "GET", "/v1/sessions/"+s.ID()+"/items", "", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("what is not guarded: %s %s", answer.Status, body)
	}
	for line := range strings.Lines(r.audit("carol")) {
		if strings.Contains(line, `"outcome":"step_up"`) && !strings.Contains(line, `"client":"127.0.0.1:`) {
			t.Errorf("it is not said from where: %s", line)
		}
	}
	if audit := strings.Join(r.audited("carol"), "\n"); strings.Count(audit, "api.refused step_up") != 2 {
		t.Errorf("%s", audit)
	}

	bob := r.window("bob")
	page := bob.post("/console/requests/"+g.ID+"/approve", nil)
	again := regexp.MustCompile(`href="(/console/sign-in/start\?fresh=1[^"]+)"`).FindStringSubmatch(page.html)
	if page.StatusCode != http.StatusUnauthorized || again == nil {
		t.Fatalf("%s %s", page.Status, page.text)
	}
	asked := ""
	bob.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
		if prompt := next.URL.Query().Get("max_age"); prompt != "" && !strings.HasPrefix(next.URL.String(), r.url) {
			asked = next.URL.Query().Get("prompt") + " " + prompt
		}
		return nil
	}
	form := bob.get(strings.ReplaceAll(again[1], "&amp;", "&"))
	if asked != "login 0" {
		t.Errorf("the provider is asked for %q", asked)
	}
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(form.html)
	if id == nil {
		t.Fatalf("no form at %s", form.Request.URL)
	}
	done, err := bob.PostForm(form.Request.URL.ResolveReference(&url.URL{Path: "/login"}).String(), url.Values{"id": {id[1]}, "name": {"bob"}, "password": {"b"}})
	if err != nil {
		t.Fatal(err)
	}
	done.Body.Close()
	if done.Request.URL.Path != "/console/requests/"+g.ID {
		t.Errorf("signing in again leads to %s", done.Request.URL)
	}
	r.config.StepUp[0].Within = configs.Duration(10 * time.Minute)
	r.config.StepUp[1].Within = configs.Duration(10 * time.Minute)
	if page := bob.post("/console/requests/"+g.ID+"/approve", nil); page.StatusCode != http.StatusOK || !strings.Contains(page.text, "Approved.") {
		t.Errorf("%s %s", page.Status, page.text)
	}
	if answer, body := r.ask("carol", "POST", deeds[1].path, "{}", nil); answer.StatusCode != http.StatusOK {
		t.Errorf("proven lately: %s %s", answer.Status, body)
	}
}

// TestStepUpOfMany states that what is done to many targets at once, or seen of them in passing, takes the fresh proof that each
// alone takes.
func TestStepUpOfMany(t *testing.T) {
	r := newRig(t)
	s := r.begin("stock", "app", "SELECT 'secret'")
	r.config.StepUp = []configs.StepUp{{
		For: []string{"recordings.read", "recordings.export", "sessions.watch"}, Labels: map[string]string{"tier": "low"}, Within: configs.Duration(time.Nanosecond),
	}}
	for _, d := range []struct{ person, path string }{
		{"bob", "/v1/sessions/" + s.ID() + "/items"},
		{"bob", "/v1/search?text=secret"},
		{"carol", "/v1/search?text=secret"},
		{"carol", "/v1/export?all=true"},
	} {
		answer, body := r.ask(d.person, "GET", d.path, "", nil)
		var p api.Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || answer.StatusCode != http.StatusUnauthorized || p.Code != "step_up" {
			t.Errorf("%s %s: %s %s", d.person, d.path, answer.Status, body)
		}
	}
	_, carol := r.stream("carol", "/v1/sessions/live", "")
	next(t, carol, "a session of which she may not see what it does", func(list []api.Pulse) bool {
		return len(list) == 1 && list[0].Session == s.ID() && !list[0].Seen && list[0].Last == ""
	})
}
