package web_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/store"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
)

// lines opens a stream of the console's in a window and gives its lines as they come; closed at its end.
func (b *window) lines(path string) (*http.Response, <-chan string) {
	b.r.t.Helper()
	client := *b.Client
	client.Timeout = 0
	request, err := http.NewRequestWithContext(b.r.t.Context(), http.MethodGet, b.r.url+path, nil)
	if err != nil {
		b.r.t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		b.r.t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		defer answer.Body.Close()
		in := bufio.NewScanner(answer.Body)
		in.Buffer(nil, 4<<20)
		for in.Scan() {
			lines <- in.Text()
		}
	}()
	return answer, lines
}

// sees waits for a line with the text in it, or with none for the end.
func sees(t *testing.T, lines <-chan string, text string) string {
	t.Helper()
	for deadline := time.After(40 * time.Second); ; {
		select {
		case line, ok := <-lines:
			switch {
			case !ok && text == "":
				return ""
			case !ok:
				t.Fatalf("the stream ended before %q", text)
			case text != "" && strings.Contains(line, text):
				return line
			}
		case <-deadline:
			t.Fatalf("no %q", text)
		}
	}
}

// TestConsoleWatch states that a browser follows what its person may see, that what it follows ends when it signs out, also
// in another window, and that nothing which others wrote comes as anything but text.
func TestConsoleWatch(t *testing.T) {
	r := newRig(t)
	const hostile = `<img src=x onerror=alert(1)>'"</script>`
	s := r.begin("stock", "app", "SELECT '"+hostile+"'")
	carol, alice := r.window("carol"), r.window("alice")

	list := carol.get("/console/sessions")
	if !strings.Contains(list.html, `/console/sessions/`+s.ID()+`/watch"`) {
		t.Error("the list does not lead to watching")
	}
	if mine := alice.get("/console/sessions"); strings.Contains(mine.html, "/watch") {
		t.Error("alice is led to what she may not")
	}
	if page := carol.get("/console/sessions/" + s.ID() + "/watch"); page.StatusCode != http.StatusOK || !strings.Contains(page.text, "Statements") {
		t.Errorf("%s %s", page.Status, page.text)
	}
	for _, path := range []string{"/watch", "/stream", "/screen"} {
		if page := alice.get("/console/sessions/" + s.ID() + path); page.StatusCode != http.StatusForbidden {
			t.Errorf("alice %s: %s", path, page.Status)
		}
	}

	answer, stream := carol.lines("/console/sessions/" + s.ID() + "/stream")
	if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" || answer.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("it is %q", kind)
	}
	if line := sees(t, stream, "onerror"); strings.Contains(line, "<img") || strings.Contains(line, "</script") {
		t.Errorf("%s", line)
	}
	_, live := carol.lines("/console/live")
	if line := sees(t, live, "onerror"); strings.Contains(line, "<img") || !strings.Contains(line, s.ID()) || !strings.Contains(line, "1 command") {
		t.Errorf("%s", line)
	}
	_, hers := alice.lines("/console/live")
	if line := sees(t, hers, s.ID()); strings.Contains(line, "onerror") || !strings.Contains(line, `"until":"2`) {
		t.Errorf("%s", line)
	}
	_, events := carol.lines("/console/events")
	sees(t, events, "id: ")
	if _, err := s.Admit(t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte("DROP TABLE t")}); err != nil {
		t.Fatal(err)
	}
	sees(t, stream, `"marks":["definition"]`)

	if out := carol.post("/console/sign-out", nil); out.StatusCode != http.StatusOK {
		t.Fatal(out.Status)
	}
	ended := make(chan struct{})
	go func() { // what happens makes the streams write, and find out
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := s.Admit(t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte("SELECT 'later'")}); err != nil {
					return
				}
				if err := r.store.Audit(t.Context(), auditOf(s)); err != nil {
					return
				}
			case <-ended:
				return
			}
		}
	}()
	for _, lines := range []<-chan string{stream, live, events} {
		sees(t, lines, "")
	}
	close(ended)
	if again, _ := carol.lines("/console/events"); again.Header.Get("Content-Type") == "text/event-stream" {
		t.Error("a browser that signed out is told what happens")
	}
	s.End(session.Ending{Reason: "client_closed"})
	if page := r.window("carol").get("/console/sessions/" + s.ID() + "/watch"); !strings.HasSuffix(page.Request.URL.Path, s.ID()) {
		t.Errorf("watching what is over leads to %s", page.Request.URL)
	}
}

func auditOf(s *session.Session) store.AuditEvent {
	return store.AuditEvent{Kind: "session.tested", Actor: "system", Session: s.ID(), Target: s.Opening().Target.Name}
}

// TestConsoleEvidence states that taking a session away takes the permission, and a form of the console's own.
func TestConsoleEvidence(t *testing.T) {
	r := newRig(t)
	id := r.finished("stock", "app", "SELECT 1")
	path := "/console/sessions/" + id + "/evidence"
	for _, person := range []string{"alice", "bob"} {
		if page := r.window(person).post(path, nil); page.StatusCode != http.StatusForbidden || strings.Contains(page.Header.Get("Content-Type"), "zip") {
			t.Errorf("%s: %s", person, page.Status)
		}
	}
	carol := r.window("carol")
	if page := carol.get("/console/sessions/" + id); !strings.Contains(page.html, path) {
		t.Error("the page does not offer it")
	}
	if page := carol.post(path, nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); page.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: %s", page.Status)
	}
	page := carol.post(path, nil)
	if zip := page.Header.Get("Content-Type") == "application/zip"; page.StatusCode == http.StatusForbidden || zip != (page.StatusCode == http.StatusOK) || zip && !strings.HasPrefix(page.html, "PK") {
		t.Errorf("%s %s", page.Status, page.text)
	}
	t.Logf("%s", page.Status)
}
