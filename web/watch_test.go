package web_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
	"sallyport/web/api"
)

// watching opens a watch of a session and returns what gives its next item; false at the end.
func (r *rig) watching(person, id string) func() (api.Item, bool) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+"/v1/sessions/"+id+"/watch", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.tokens[person])
	client := r.client()
	client.Timeout = 0 // which bounds the whole stream; a slow machine takes long for a flood
	answer, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		r.t.Fatalf("watch: %s", answer.Status)
	}
	scanner := bufio.NewScanner(answer.Body)
	scanner.Buffer(nil, 8<<20)
	return func() (item api.Item, more bool) {
		if !scanner.Scan() {
			return item, false
		}
		var failed struct{ Problem *api.Problem }
		if json.Unmarshal(scanner.Bytes(), &failed) == nil && failed.Problem != nil {
			return api.Item{Kind: "problem", Text: failed.Problem.Code}, true
		}
		if err := json.Unmarshal(scanner.Bytes(), &item); err != nil {
			r.t.Fatalf("%v in %s", err, scanner.Bytes())
		}
		return item, true
	}
}

// Several watch one session from its beginning, see each thing before the next is said, and the end. One who reads nothing
// holds up neither the session nor the others.
func TestWatch(t *testing.T) {
	r := newRig(t)
	s := r.begin("stock", "app", "SELECT 1")
	r.watching("carol", s.ID()) // and never read
	first, second := r.watching("carol", s.ID()), r.watching("carol", s.ID())
	next := func(watch func() (api.Item, bool)) api.Item {
		t.Helper()
		item, more := watch()
		if !more {
			t.Fatal("the watch is over")
		}
		return item
	}
	for _, watch := range []func() (api.Item, bool){first, second} {
		if a, b := next(watch), next(watch); a.Kind != "start" || a.Header.Session != s.ID() || b.SQL != "SELECT 1" {
			t.Fatalf("%+v, %+v", a, b)
		}
	}
	for _, sql := range []string{"SELECT 2", "SELECT '<3>'"} {
		if _, err := s.Admit(t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte(sql)}); err != nil {
			t.Fatal(err)
		}
		if a, b := next(first), next(second); a.SQL != sql || b.SQL != sql {
			t.Fatalf("%+v, %+v", a, b)
		}
	}
	flood := make([]byte, 256<<10)
	for i := range flood {
		flood[i] = 'x'
	}
	for range 64 { // more than all buffers on the way to the one who does not read
		if _, err := s.Admit(t.Context(), recorder.Event{Type: format.TypeSaid, Data: flood}); err != nil {
			t.Fatal(err)
		}
		if a, b := next(first), next(second); len(a.SQL) != len(flood) || len(b.SQL) != len(flood) {
			t.Fatal("a piece of the flood is missing")
		}
	}
	s.End(session.Ending{Reason: "client_closed"})
	for _, watch := range []func() (api.Item, bool){first, second} {
		if end := next(watch); end.Kind != "end" || end.Reason != "client_closed" {
			t.Errorf("%+v", end)
		}
		if _, more := watch(); more {
			t.Error("the watch goes on after the session")
		}
	}
	if kinds := r.audited("carol"); !slices.Contains(kinds, "recording.watched ok") {
		t.Errorf("the watch is not in %v", kinds)
	}
}

// A permission that is taken away ends a watch with the next thing there would be to see.
func TestWatchEndsWithThePermission(t *testing.T) {
	r := newRig(t)
	s := r.begin("stock", "app", "SELECT 1")
	watch := r.watching("carol", s.ID())
	watch()
	watch()
	less := *r.config
	less.Permissions = nil
	if err := r.grants.Reload(t.Context(), &less); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Admit(t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte("SELECT secret")}); err != nil {
		t.Fatal(err)
	}
	if item, _ := watch(); item.Kind != "problem" || item.Text != "not_permitted" {
		t.Errorf("the next thing to see is %+v", item)
	}
	if item, more := watch(); more {
		t.Errorf("the watch goes on: %+v", item)
	}
}
