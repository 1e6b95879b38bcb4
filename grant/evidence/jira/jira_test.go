package jira

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/grant/evidence"
)

const token = "ATATT-secret"

// patience is how long a site may take; the room's readers give it five seconds.
var patience = 10 * time.Second

// reading is what a site that answers like that says of an issue.
func reading(t *testing.T, answer http.HandlerFunc, ticket string) (evidence.Reading, error) {
	t.Helper()
	server := httptest.NewServer(answer)
	defer server.Close()
	t.Setenv("JIRA", token)
	config := &configs.Config{Approvals: configs.Approvals{Jira: []configs.Jira{{Name: "acme", URL: server.URL, User: "gw@example.com", Token: "env:JIRA", Projects: []string{"OPS"}}}}}
	source, err := Open(config, nil)(configs.Evidence{Name: "ticket", Jira: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return source.Read(ctx, evidence.About{Ticket: ticket})
}

// Whatever a site answers, it is an issue as it stands, no issue, or not known; never more, and nothing of it is a place to go to.
func TestAnswersOfASite(t *testing.T) {
	var inside atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { inside.Add(1); _, _ = w.Write([]byte(good)) }))
	t.Cleanup(other.Close)
	say := func(status int, body string, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		over   string // what it is, where that is known
		err    string // why it is not
	}{
		"open":          {answer: say(200, good)},
		"closed":        {answer: say(200, strings.Replace(good, "indeterminate", "done", 1)), over: "closed"},
		"none":          {answer: say(404, "{}"), over: "there is no issue OPS-1"},
		"moved":         {answer: say(200, strings.ReplaceAll(good, `"OPS-1"`, `"WEB-7"`)), over: "OPS-1 is WEB-7 now"},
		"unauthorized":  {answer: say(401, "{}"), err: "status 401"},
		"forbidden":     {answer: say(403, "{}"), err: "status 403"},
		"broken":        {answer: say(500, good), err: "status 500"},
		"busy":          {answer: say(429, "{}", "Retry-After", "30"), err: "asks to wait for 30s"},
		"away":          {answer: say(503, "{}", "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)), err: "asks to wait for"},
		"busy, no more": {answer: say(429, "{}", "Retry-After", "-1"), err: "status 429"},
		"elsewhere":     {answer: say(302, good, "Location", other.URL), err: "status 302"},
		"forever":       {answer: say(307, "", "Location", "/"), err: "status 307"},
		"huge":          {answer: say(200, `{"x": "`+strings.Repeat("x", 2<<20)+`"}`), err: "larger than"},
		"no JSON":       {answer: say(200, "<html>sign in</html>"), err: "not the JSON"},
		"nothing":       {answer: say(200, "{}"), over: "OPS-1 is  now"},
		"no status":     {answer: say(200, strings.Replace(good, `"indeterminate"`, `""`, 1)), err: "did not say how the issue stands"},
	} {
		got, err := reading(t, c.answer, "OPS-1")
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %+v %v", name, got, err)
		case c.err == "" && (err != nil || (got.Over == "") != (c.over == "") || !strings.Contains(got.Over, c.over)):
			t.Errorf("%s: %+v %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error holds the token: %v", name, err)
		}
	}
	if inside.Load() > 0 {
		t.Error("it followed a redirect")
	}
	if busy, ok := errors.AsType[evidence.Busy](func() error {
		_, err := reading(t, say(429, "{}", "Retry-After", "30"), "OPS-1")
		return err
	}()); !ok || busy.After != 30*time.Second {
		t.Errorf("%+v", busy)
	}
}

// A body that never ends is given up with the time for it.
func TestSlowSite(t *testing.T) {
	patience = time.Second
	defer func() { patience = 10 * time.Second }()
	began := time.Now()
	_, err := reading(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Millisecond): // as slowly as it likes
			}
		}
	}, "OPS-1")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

// What a request says is an issue's key, or asks nothing.
func TestKeysAskForNothingElse(t *testing.T) {
	for _, ticket := range []string{"", "OPS-1/../OPS-2", "OPS-1?expand=x", "OPS-1#", "OPS-1 ", "OPS-1\n", "ops-1", "OPS-0", "OPS-01", "OPS-12345678901", "WEB-1", "../myself", "OPS-1%2f..", "ＯPS-1"} {
		got, err := reading(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%q asks for %s", ticket, r.RequestURI) }, ticket)
		if err != nil || got.Over == "" {
			t.Errorf("%q: %+v %v", ticket, got, err)
		}
	}
	if got, err := reading(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/rest/api/3/issue/OPS-1" || r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		_, _ = w.Write([]byte(good))
	}, "OPS-1"); err != nil || got.Data["status"] != "In Arbeit" {
		t.Errorf("%+v %v", got, err)
	}
}

const good = `{"id": "10002", "key": "OPS-1", "fields": {"summary": "s", "project": {"key": "OPS"}, "labels": [], "assignee": null,
	"status": {"id": "3", "name": "In Arbeit", "statusCategory": {"key": "indeterminate"}}}}`
