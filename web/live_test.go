package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/internal/store"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
	"sallyport/web/api"
)

// event is one server-sent event.
type event struct{ id, name, data string }

// stream opens a stream of server-sent events as a person; it ends with the test. The status is that of the answer.
func (r *rig) stream(person, path, last string) (int, <-chan event) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	r.t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.tokens[person])
	request.Header.Set("Accept", "text/event-stream")
	if last != "" {
		request.Header.Set("Last-Event-ID", last)
	}
	client := r.client()
	client.Timeout = 0
	answer, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	events := make(chan event, 1000)
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		close(events)
		return answer.StatusCode, events
	}
	if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream" {
		r.t.Errorf("%s is %s", path, kind)
	}
	go func() {
		defer close(events)
		defer answer.Body.Close()
		lines := bufio.NewScanner(answer.Body)
		lines.Buffer(nil, 4<<20)
		var e event
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			case "":
				if e.data != "" || lines.Text() == "" && e.id != "" {
					select {
					case events <- e:
					case <-ctx.Done():
						return
					}
				}
				e = event{}
			}
		}
	}()
	return answer.StatusCode, events
}

// next waits for the next event that has data and that the condition takes.
func next[T any](t *testing.T, events <-chan event, what string, is func(T) bool) (T, event) {
	t.Helper()
	silence := time.NewTimer(30 * time.Second)
	defer silence.Stop()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended before %s", what)
			}
			var v T
			if e.data == "" || e.name != "" {
				continue
			}
			silence.Reset(30 * time.Second) // a stream that goes on may go on for long
			if err := json.Unmarshal([]byte(e.data), &v); err != nil {
				t.Fatalf("%v in %s", err, e.data)
			}
			if is(v) {
				return v, e
			}
		case <-silence.C:
			t.Fatalf("no event: %s", what)
		}
	}
}

// TestEvents states that everybody is told of what they may see and of nothing else, in order, and that a stream that was cut
// goes on behind the last event that its reader has, also where that is in the audit log only.
func TestEvents(t *testing.T) {
	r := newRig(t)
	_, alice := r.stream("alice", "/v1/events", "")
	_, bob := r.stream("bob", "/v1/events?topics=grants", "")
	_, carol := r.stream("carol", "/v1/events?topics=audit", "")
	if code, _ := r.stream("bob", "/v1/events?topics=audit", ""); code != http.StatusForbidden {
		t.Errorf("the audit log for bob: %d", code)
	}
	if code, _ := r.stream("alice", "/v1/events?topics=secrets", ""); code != http.StatusUnprocessableEntity {
		t.Errorf("a topic that is none: %d", code)
	}
	if code, _ := r.stream("alice", "/v1/events", "x"); code != http.StatusUnprocessableEntity {
		t.Errorf("an id that is none: %d", code)
	}
	g := r.request()
	id := r.finished("stock", "app", "SELECT 1")
	is := func(kind string) func(api.Event) bool { return func(e api.Event) bool { return e.Kind == kind } }
	asked, first := next(t, alice, "her request", is("grant.requested"))
	if asked.Grant == "" || asked.Audit != nil || first.id != fmt.Sprint(asked.Number) {
		t.Errorf("%+v %+v", asked, first)
	}
	ended, _ := next(t, alice, "her session's end", is("session.ended"))
	if ended.Session != id || ended.Number <= asked.Number {
		t.Errorf("%+v", ended)
	}
	if e, _ := next(t, carol, "the end with all of it", is("session.ended")); e.Audit == nil || e.Audit.Reason != "client_closed" {
		t.Errorf("%+v", e)
	}
	r.must("bob", "POST", "/v1/requests/"+g.ID+"/approve", api.Decision{}, nil)
	next(t, bob, "his decision, of all that he may see", func(e api.Event) bool {
		if e.Target == "stock" && e.Kind != "grant.requested" && e.Session != "" {
			t.Errorf("bob is told of %+v", e)
		}
		return e.Kind == "grant.approved"
	})
	for _, from := range []string{first.id, "1"} {
		_, again := r.stream("alice", "/v1/events?topics=sessions,grants", from)
		var kinds []string
		next(t, again, "what followed", func(e api.Event) bool {
			if e.Grant == g.ID || e.Session == id {
				kinds = append(kinds, e.Kind)
			}
			return e.Kind == "grant.approved" && e.Grant == g.ID
		})
		if got := strings.Join(kinds, " "); !strings.Contains(got, "session.started session.ended") || from == "1" != strings.Contains(got, "grant.requested") {
			t.Errorf("after %s: %s", from, got)
		}
	}
	// A gateway that has just started knows nothing by heart.
	if events, whole := r.store.Recent(0); !whole || len(events) == 0 {
		t.Errorf("%d events in memory, whole: %v", len(events), whole)
	}
}

// TestStreamsEndWithTheSignIn states that one who opens streams and reads nothing holds up neither what is told nor others who are
// told; and that who has signed out, or has lost the groups by which they might, is told and shown nothing more
// by a stream that they had open, however long their sign-in would have lasted.
func TestStreamsEndWithTheSignIn(t *testing.T) {
	r := newRig(t)
	live := r.begin("stock", "app", "SELECT 'first'")
	silent, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := r.client()
	client.Timeout = 0
	request, err := http.NewRequestWithContext(silent, http.MethodGet, r.url+"/v1/events?topics=audit", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.tokens["carol"])
	answer, err := client.Do(request) // and reads nothing of it
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	_, reads := r.stream("carol", "/v1/events?topics=audit", "")
	for range 20 { // more than fits between them
		if err := r.store.Audit(t.Context(), store.AuditEvent{Kind: "thing.done", Actor: "system", Reason: strings.Repeat("x", 256<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.store.Audit(t.Context(), store.AuditEvent{Kind: "thing.last", Actor: "system"}); err != nil {
		t.Fatal(err)
	}
	next(t, reads, "the last", func(e api.Event) bool { return e.Kind == "thing.last" })

	paths := []string{"/v1/events?topics=audit", "/v1/sessions/live", "/v1/sessions/" + live.ID() + "/stream"}
	ended := func(path string, events <-chan event) {
		t.Helper()
		for deadline := time.After(30 * time.Second); ; {
			select {
			case _, ok := <-events:
				if !ok {
					return
				}
			case <-deadline:
				t.Fatalf("%s goes on", path)
			}
		}
	}
	open := func(paths ...string) (streams []<-chan event) {
		t.Helper()
		for _, path := range paths {
			code, events := r.stream("carol", path, "")
			if code != http.StatusOK {
				t.Fatalf("%s: %d", path, code)
			}
			streams = append(streams, events)
		}
		return streams
	}
	var me api.Identity
	r.must("carol", "GET", "/v1/me", nil, &me)
	carol := authn.Identity{Issuer: me.Issuer, Subject: me.Subject, Kind: authn.Human, Name: "Carol"}
	watching := open(paths[2:]...)
	if _, err := r.options.Authn.SignIn(t.Context(), carol, ""); err != nil { // now she is in no group
		t.Fatal(err)
	}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	done := make(chan struct{})
	go func() { // it is asked whenever there is something to show
		for {
			select {
			case <-done:
				return
			case <-again.C:
				if _, err := live.Admit(context.Background(), recorder.Event{Type: format.TypeSaid, Data: []byte("SELECT 'more'")}); err != nil {
					return
				}
			}
		}
	}()
	for i, path := range paths[2:] {
		ended(path, watching[i])
	}
	close(done)
	carol.Groups = []string{"security"}
	if _, err := r.options.Authn.SignIn(t.Context(), carol, ""); err != nil {
		t.Fatal(err)
	}
	all := open(paths...)
	if err := r.options.Authn.Revoke(t.Context(), carol); err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		ended(path, all[i])
	}
}

// TestLive states that the list of live sessions tells how they go to those who may watch them, and only that they live to
// whose they are.
func TestLive(t *testing.T) {
	r := newRig(t)
	s := r.begin("stock", "app", "SELECT 'first'")
	_, alice := r.stream("alice", "/v1/sessions/live", "")
	_, carol := r.stream("carol", "/v1/sessions/live", "")
	lives := func(last string) func([]api.Pulse) bool {
		return func(list []api.Pulse) bool {
			return len(list) == 1 && list[0].Session == s.ID() && (last == "" || list[0].Last == last)
		}
	}
	mine, _ := next(t, alice, "her session", lives(""))
	if mine[0].Seen || mine[0].Last != "" || time.Until(mine[0].Until) <= 0 {
		t.Errorf("%+v", mine)
	}
	next(t, carol, "what she did first", lives("SELECT 'first'"))
	if _, err := s.Admit(t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte("DELETE FROM t; -- \x1b]0;x\x07" + strings.Repeat("x", 500))}); err != nil {
		t.Fatal(err)
	}
	seen, _ := next(t, carol, "what she did then", func(list []api.Pulse) bool {
		return len(list) == 1 && strings.HasPrefix(list[0].Last, "DELETE FROM t;")
	})
	if p := seen[0]; p.Commands != 2 || p.Bytes == 0 || len(p.Last) > 600 || strings.ContainsAny(p.Last, "\x1b\x07") {
		t.Errorf("%+v", p)
	}
	s.End(session.Ending{Reason: "client_closed"})
	next(t, carol, "the end", func(list []api.Pulse) bool { return len(list) == 0 })
	next(t, alice, "the end", func(list []api.Pulse) bool { return len(list) == 0 })
	if audit := strings.Join(r.audited("carol"), "\n"); !strings.Contains(audit, "sessions.watched ok") {
		t.Errorf("that carol looked is not in the audit log:\n%s", audit)
	}
	if audit := strings.Join(r.audited("alice"), "\n"); strings.Contains(audit, "sessions.watched") {
		t.Errorf("alice saw nothing:\n%s", audit)
	}
}

// TestStreamStaysReadable states that a session which runs thousands of statements a second is told in few batches that
// leave nothing uncounted and end with the newest, and that watching it takes the permission.
func TestStreamStaysReadable(t *testing.T) {
	r := newRig(t)
	s := r.begin("stock", "app", "SELECT 'before'")
	for _, person := range []string{"alice", "bob"} {
		for _, path := range []string{"/stream", "/screen", "/watch"} {
			if code, _ := r.stream(person, "/v1/sessions/"+s.ID()+path, ""); code != http.StatusForbidden {
				t.Errorf("%s %s: %d", person, path, code)
			}
		}
	}
	const statements = 10_000
	_, events := r.stream("carol", "/v1/sessions/"+s.ID()+"/stream", "")
	began := time.Now()
	go func() {
		for n := range statements / 100 {
			var said []recorder.Event
			for i := range 100 {
				said = append(said, recorder.Event{Type: format.TypeSaid, Data: fmt.Appendf(nil, "SELECT %d", n*100+i)})
			}
			if _, err := s.Admit(context.Background(), said...); err != nil {
				t.Error(err)
			}
		}
		s.End(session.Ending{Reason: "client_closed"})
	}()
	batches, shown, skipped, largest, last := 0, 0, 0, 0, ""
	batch, _ := next(t, events, "the end", func(b api.Batch) bool {
		batches++
		skipped += b.Skipped
		largest = max(largest, len(b.Items))
		for _, it := range b.Items {
			shown++
			if it.SQL != "" {
				last = it.SQL
			}
		}
		return b.Over
	})
	took := time.Since(began)
	// Beside the statements the session has its start and its end.
	if batch.Total != statements+1 || shown+skipped != statements+3 || last != fmt.Sprintf("SELECT %d", statements-1) {
		t.Errorf("%d in all, %d shown, %d left out, the last %q", batch.Total, shown, skipped, last)
	}
	if most := int(took/(250*time.Millisecond)) + 3; batches > most || largest > 60 {
		t.Errorf("%d batches of up to %d in %s", batches, largest, took)
	}
	t.Logf("%d statements in %s: %d batches, %d shown", statements, took.Round(time.Millisecond), batches, shown)
	if audit := strings.Join(r.audited("carol"), "\n"); !strings.Contains(audit, "recording.watched ok") {
		t.Errorf("that she watched is not in the audit log:\n%s", audit)
	}
	if code, _ := r.stream("carol", "/v1/sessions/"+s.ID()+"/stream", ""); code != http.StatusConflict {
		t.Errorf("a session that is over: %d", code)
	}
}

// TestScreen states that who begins to watch a terminal sees what it showed before, then what it paints, without what reaches
// beyond the picture, and its end.
func TestScreen(t *testing.T) {
	r := newRig(t)
	s := r.begin("web-1", "deploy")
	paint := func(text string) {
		t.Helper()
		if err := s.Observe(recorder.Event{Type: format.TypeAnswered, Channel: 1, Data: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Admit(t.Context(), recorder.Event{Type: format.TypeSaid, Data: []byte("sync")}); err != nil { // what is safe is seen
			t.Fatal(err)
		}
	}
	paint("\x1b[32mbefore\x1b[0m\x1b]52;c;ZXZpbA==\x07 \xe2\x82")
	_, events := r.stream("carol", "/v1/sessions/"+s.ID()+"/screen", "")
	begin, _ := next(t, events, "the picture", func(map[string]any) bool { return true })
	if begin["cols"] != 80.0 || begin["rows"] != 24.0 || !strings.HasPrefix(begin["init"].(string), "\x1b[32mbefore\x1b[0m ") || strings.Contains(begin["init"].(string), "52;c") {
		t.Errorf("%v", begin)
	}
	paint("after\x1b]0;title\x07\r\n")
	painted := ""
	next(t, events, "what it paints", func(f []any) bool {
		painted += f[2].(string)
		return f[1] == "o" && strings.Contains(painted, "after\r\n")
	})
	if strings.Contains(painted, "title") {
		t.Errorf("%q", painted)
	}
	s.End(session.Ending{Reason: "client_closed"})
	for deadline := time.After(30 * time.Second); ; {
		select {
		case e, ok := <-events:
			if !ok || e.name == "done" {
				if !ok {
					t.Error("the stream ended without its end")
				}
				return
			}
		case <-deadline:
			t.Fatal("it has no end")
		}
	}
}
