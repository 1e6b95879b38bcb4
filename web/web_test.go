package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sallyport/session"
	"sallyport/web/api"
)

// Each endpoint as nobody, as alice (an engineer), as bob (approves app@orders; may read recordings of targets with tier
// low only) and as carol (security: everything). The rig's targets have no such label but stock.
func TestEveryEndpointAsEverybody(t *testing.T) {
	r := newRig(t)
	recorded := r.finished("web-1", "deploy", "uptime")
	low := r.finished("stock", "app", "SELECT 1")
	fixed := func(path string) func() string { return func() string { return path } }
	fresh := func(format string) func() string {
		return func() string { return fmt.Sprintf(format, r.request().ID) }
	}
	live := func(format string) func() string {
		return func() string { return fmt.Sprintf(format, r.begin("web-1", "deploy").ID()) }
	}
	wish := api.GrantRequest{Target: "orders", Account: "app", Reason: "INC-42 slow"}

	type row struct {
		operation string // as in openapi.json
		path      func() string
		in        any
		want      [4]int // nobody, alice, bob, carol
	}
	rows := []row{
		{"GET /v1/gateway", fixed("/v1/gateway"), nil, [4]int{200, 200, 200, 200}},
		{"GET /v1/me", fixed("/v1/me"), nil, [4]int{401, 200, 200, 200}},
		{"POST /v1/certificates", fixed("/v1/certificates"), api.CertificateRequest{}, [4]int{401, 422, 422, 422}},
		{"POST /v1/credentials", fixed("/v1/credentials"), api.CredentialRequest{Target: "orders", Account: "app"}, [4]int{401, 200, 404, 404}},
		{"POST /v1/credentials", fixed("/v1/credentials"), api.CredentialRequest{Target: "web-1", Account: "deploy"}, [4]int{401, 501, 404, 404}},
		{"POST /v1/credentials", fixed("/v1/credentials"), api.CredentialRequest{Target: "orders", Account: "app", Duration: "-1h"}, [4]int{401, 422, 422, 422}},
		{"GET /v1/credentials", fixed("/v1/credentials"), nil, [4]int{401, 200, 200, 200}},
		{"GET /v1/keys", fixed("/v1/keys"), nil, [4]int{401, 200, 200, 200}},
		{"DELETE /v1/credentials/{id}", fixed("/v1/credentials/none"), nil, [4]int{401, 404, 404, 404}},
		{"GET /v1/targets", fixed("/v1/targets"), nil, [4]int{401, 200, 200, 200}},
		{"GET /v1/targets/{name}/setup", fixed("/v1/targets/orders/setup"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/targets/{name}/setup", fixed("/v1/targets/nothing/setup"), nil, [4]int{401, 403, 403, 404}},
		{"POST /v1/targets/{name}/check", fixed("/v1/targets/orders/check"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/targets/{name}/trust", fixed("/v1/targets/orders/trust"), nil, [4]int{401, 403, 403, 200}},
		{"POST /v1/requests", fixed("/v1/requests"), wish, [4]int{401, 200, 403, 403}},
		{"POST /v1/policy/explain", fixed("/v1/policy/explain"), wish, [4]int{401, 200, 200, 200}},
		{"GET /v1/requests", fixed("/v1/requests"), nil, [4]int{401, 200, 200, 200}},
		{"POST /v1/requests/{id}/approve", fresh("/v1/requests/%s/approve"), api.Decision{}, [4]int{401, 403, 200, 403}},
		{"POST /v1/requests/{id}/deny", fresh("/v1/requests/%s/deny"), api.Decision{}, [4]int{401, 403, 200, 403}},
		{"GET /v1/grants", fixed("/v1/grants"), nil, [4]int{401, 200, 200, 200}},
		{"GET /v1/grants/{id}", fresh("/v1/grants/%s"), nil, [4]int{401, 200, 200, 200}},
		{"POST /v1/grants/{id}/revoke", fresh("/v1/grants/%s/revoke"), api.Decision{}, [4]int{401, 200, 200, 200}},
		{"POST /v1/grants/{id}/keep", fresh("/v1/grants/%s/keep"), nil, [4]int{401, 409, 403, 403}},
		{"POST /v1/grants/{id}/release", fresh("/v1/grants/%s/release"), nil, [4]int{401, 200, 403, 403}},
		{"POST /v1/grants/{id}/extend", fresh("/v1/grants/%s/extend"), api.ExtensionRequest{Duration: "10m"}, [4]int{401, 409, 403, 403}},
		{"POST /v1/requests/{id}/withdraw", fresh("/v1/requests/%s/withdraw"), api.Decision{}, [4]int{401, 404, 404, 404}},
		{"GET /v1/reviews", fixed("/v1/reviews"), nil, [4]int{401, 200, 200, 200}},
		{"POST /v1/grants/{id}/review", fresh("/v1/grants/%s/review"), api.Decision{}, [4]int{401, 404, 404, 404}},
		{"POST /v1/approvals/webhook/{name}", fixed("/v1/approvals/webhook/none"), api.Decision{}, [4]int{404, 404, 404, 404}},
		{"GET /v1/notifications", fixed("/v1/notifications"), nil, [4]int{401, 403, 403, 200}},
		{"POST /v1/notifications/retry", fixed("/v1/notifications/retry"), api.NotificationRetry{GivenUp: true}, [4]int{401, 403, 403, 404}},
		{"GET /v1/sessions", fixed("/v1/sessions"), nil, [4]int{401, 200, 200, 200}},
		{"GET /v1/sessions/{id}", fixed("/v1/sessions/" + recorded), nil, [4]int{401, 200, 403, 200}},
		{"GET /v1/sessions/{id}", fixed("/v1/sessions/" + low), nil, [4]int{401, 200, 200, 200}},
		{"GET /v1/sessions/{id}", fixed("/v1/sessions/s-none"), nil, [4]int{401, 404, 404, 404}},
		{"POST /v1/sessions/{id}/kill", live("/v1/sessions/%s/kill"), api.Decision{}, [4]int{401, 200, 403, 200}},
		{"POST /v1/sessions/{id}/kill", fixed("/v1/sessions/s-none/kill"), api.Decision{}, [4]int{401, 404, 404, 404}},
		{"GET /v1/sessions/{id}/items", fixed("/v1/sessions/" + recorded + "/items"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/sessions/{id}/items", fixed("/v1/sessions/" + low + "/items"), nil, [4]int{401, 403, 200, 200}},
		// Carol's watch would last as long as the session: TestWatch has it.
		{"GET /v1/sessions/{id}/watch", fixed("/v1/sessions/" + recorded + "/watch"), nil, [4]int{401, 403, 403, 409}},
		{"GET /v1/sessions/{id}/watch", fixed("/v1/sessions/s-none/watch"), nil, [4]int{401, 404, 404, 404}},
		{"GET /v1/sessions/{id}/stream", fixed("/v1/sessions/" + recorded + "/stream"), nil, [4]int{401, 403, 403, 409}},
		{"GET /v1/sessions/{id}/screen", fixed("/v1/sessions/" + recorded + "/screen"), nil, [4]int{401, 403, 403, 409}},
		// These would go on for ever: TestEvents and TestLive have them.
		{"GET /v1/events", fixed("/v1/events?topics=none"), nil, [4]int{401, 422, 422, 422}},
		{"GET /v1/sessions/live", fixed("/v1/sessions/live?none=1"), nil, [4]int{401, 422, 422, 422}},
		{"GET /v1/sessions/{id}/evidence", fixed("/v1/sessions/s-none/evidence"), nil, [4]int{401, 404, 404, 404}},
		{"GET /v1/grants/{id}/evidence", fixed("/v1/grants/g-none/evidence"), nil, [4]int{401, 404, 404, 404}},
		{"GET /v1/reports/{kind}", fixed("/v1/reports/access?from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/export", fixed("/v1/export?session=" + recorded), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/export", fixed("/v1/export?session=" + low), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/export", fixed("/v1/export?all=true"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/search", fixed("/v1/search?text=uptime"), nil, [4]int{401, 403, 200, 200}},
		{"GET /v1/search", fixed("/v1/search?text=uptime&target=web-1"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/search", fixed("/v1/search?text=uptime&account=deploy&protocol=ssh&errors=true"), nil, [4]int{401, 403, 200, 200}},
		{"POST /v1/sessions/{id}/hold", fixed("/v1/sessions/" + recorded + "/hold"), api.Decision{Comment: "case 7"}, [4]int{401, 403, 403, 200}},
		{"POST /v1/sessions/{id}/hold", fixed("/v1/sessions/" + low + "/hold"), api.Decision{}, [4]int{401, 403, 403, 422}},
		{"GET /v1/holds", fixed("/v1/holds"), nil, [4]int{401, 403, 403, 200}},
		{"POST /v1/sessions/{id}/unhold", fixed("/v1/sessions/" + recorded + "/unhold"), api.Decision{}, [4]int{401, 403, 403, 204}},
		{"POST /v1/sessions/{id}/unhold", fixed("/v1/sessions/" + low + "/unhold"), api.Decision{}, [4]int{401, 403, 403, 404}},
		{"POST /v1/sessions/{id}/shred", fixed("/v1/sessions/" + recorded + "/shred"), api.Decision{Comment: "case 7"}, [4]int{401, 403, 403, 403}}, // not even with "*"
		{"GET /v1/sessions/{id}/evidence", fixed("/v1/sessions/" + recorded + "/evidence"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/sessions/{id}/integrity", fixed("/v1/sessions/" + recorded + "/integrity"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/sessions/{id}/integrity", fixed("/v1/sessions/" + low + "/integrity"), nil, [4]int{401, 403, 200, 200}},
		{"GET /v1/sessions/{id}/integrity", fixed("/v1/sessions/s-none/integrity"), nil, [4]int{401, 404, 404, 404}},
		{"GET /v1/sessions/{id}/evidence", fixed("/v1/sessions/s-none/evidence"), nil, [4]int{401, 404, 404, 404}},
		{"GET /v1/grants/{id}/evidence", fresh("/v1/grants/%s/evidence"), nil, [4]int{401, 404, 404, 404}}, // without a session
		{"GET /v1/reports/{kind}", fixed("/v1/reports/review?from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/reports/{kind}", fixed("/v1/reports/review?from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z"), nil, [4]int{401, 403, 403, 422}},
		{"GET /v1/status", fixed("/v1/status"), nil, [4]int{401, 403, 403, 200}},
		{"POST /v1/index/rebuild", fixed("/v1/index/rebuild"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/policies/held", fixed("/v1/policies/held"), nil, [4]int{401, 403, 403, 200}},
		{"POST /v1/policies/{revision}/confirm", fixed("/v1/policies/0123456789ab/confirm"), nil, [4]int{401, 403, 403, 409}},
		{"POST /v1/policies/{revision}/reject", fixed("/v1/policies/0123456789ab/reject"), api.Decision{}, [4]int{401, 403, 403, 409}},
		{"GET /v1/authorities", fixed("/v1/authorities"), nil, [4]int{401, 403, 403, 200}},
		{"POST /v1/authorities/{name}/rotate", fixed("/v1/authorities/issuer/rotate"), api.Rotation{}, [4]int{401, 403, 403, 200}},
		{"POST /v1/authorities/{name}/rotate", fixed("/v1/authorities/none/rotate"), api.Rotation{}, [4]int{401, 403, 403, 404}},
		{"GET /v1/audit", fixed("/v1/audit"), nil, [4]int{401, 403, 403, 200}},
		{"GET /v1/verify", fixed("/v1/verify"), nil, [4]int{401, 403, 403, 200}},
		{"POST /v1/logout", fixed("/v1/logout"), nil, [4]int{401, 204, 204, 204}},
	}
	tried := map[string]bool{}
	for _, row := range rows {
		tried[row.operation] = true
		method, _, _ := strings.Cut(row.operation, " ")
		for i, person := range []string{"", "alice", "bob", "carol"} {
			path := row.path()
			status, data := r.call(person, method, path, row.in)
			if status != row.want[i] {
				t.Errorf("%s %s as %q: %d, want %d: %s", method, path, person, status, row.want[i], data)
			}
			if status < 400 {
				continue
			}
			var p api.Problem
			if err := json.Unmarshal(data, &p); err != nil || p.Code == "" || p.Message == "" || p.Status != status || p.Type != "urn:sallyport:problem:"+p.Code {
				t.Errorf("%s %s as %q: not a problem: %s, %v", method, path, person, data, err)
			}
		}
	}
	for _, operation := range operations(t, r) {
		if !tried[operation] {
			t.Errorf("%s is not in this test", operation)
		}
	}
}

// operations lists "METHOD /path" of all that the API describes.
func operations(t *testing.T, r *rig) []string {
	t.Helper()
	var described struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	r.must("", "GET", "/openapi.json", nil, &described)
	var all []string
	for path, methods := range described.Paths {
		for method := range methods {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	if len(all) == 0 {
		t.Fatal("the API describes nothing")
	}
	slices.Sort(all)
	return all
}

func TestOpenAPI(t *testing.T) {
	r := newRig(t)
	var doc map[string]any
	r.must("", "GET", "/openapi.json", nil, &doc)
	if version, _ := doc["openapi"].(string); !strings.HasPrefix(version, "3.1.") {
		t.Errorf("openapi %v", doc["openapi"])
	}
	// Every reference leads somewhere.
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				var here any = doc
				for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
					object, _ := here.(map[string]any)
					here = object[part]
				}
				if here == nil {
					t.Errorf("%s: %s leads nowhere", at, ref)
				}
			}
			for k, inner := range v {
				walk(at+"/"+k, inner)
			}
		case []any:
			for i, inner := range v {
				walk(fmt.Sprint(at, "/", i), inner)
			}
		}
	}
	walk("", doc)
	// Every operation has an id of its own, says whether it needs a token, and how it refuses.
	ids := map[string]bool{}
	for path, methods := range doc["paths"].(map[string]any) {
		for method, op := range methods.(map[string]any) {
			op := op.(map[string]any)
			id, _ := op["operationId"].(string)
			if id == "" || ids[id] {
				t.Errorf("%s %s: operationId %q", method, path, id)
			}
			ids[id] = true
			if _, needs := op["security"]; needs == (path == "/v1/gateway") {
				t.Errorf("%s %s: security %v", method, path, op["security"])
			}
			problems := false
			for status, response := range op["responses"].(map[string]any) {
				content, _ := response.(map[string]any)["content"].(map[string]any)
				if _, ok := content["application/problem+json"]; ok && status[0] >= '4' {
					problems = true
				}
			}
			if !problems {
				t.Errorf("%s %s does not say how it refuses", method, path)
			}
		}
	}
}

func TestBadRequests(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct {
		name, method, path string
		in                 any
		status             int
		code               string
	}{
		{"an unknown member", "POST", "/v1/requests", map[string]string{"target": "orders", "account": "app", "reason": "INC-42", "durations": "1h"}, 422, "invalid"},
		{"no duration at all", "POST", "/v1/requests", api.GrantRequest{Target: "orders", Account: "app", Reason: "INC-42", Duration: "soon"}, 422, "invalid"},
		{"a negative duration", "POST", "/v1/requests", api.GrantRequest{Target: "orders", Account: "app", Reason: "INC-42", Duration: "-1h"}, 422, "invalid"},
		{"no body", "POST", "/v1/requests", nil, 400, "invalid"},
		{"a list for an object", "POST", "/v1/requests", []int{1}, 422, "invalid"},
		{"an unknown parameter", "GET", "/v1/sessions?everything=1", nil, 422, "invalid"},
		{"no such address", "GET", "/v1/nothing", nil, 404, "not_found"},
		{"no such address at all", "GET", "/.git/config", nil, 404, "not_found"},
		{"a body too long", "POST", "/v1/requests", api.GrantRequest{Target: "orders", Account: "app", Reason: strings.Repeat("x", 100<<10)}, 413, "invalid"},
		{"a reason too long", "POST", "/v1/requests", api.GrantRequest{Target: "orders", Account: "app", Reason: strings.Repeat("x", 3000)}, 422, "invalid"},
		{"a key that is none", "POST", "/v1/certificates", api.CertificateRequest{TLSKey: "AAAA"}, 422, "invalid"},
		{"a comment that moves the cursor", "POST", "/v1/sessions/s-none/kill", api.Decision{Comment: "\x1b[2J"}, 422, "invalid"},
		{"a reason that moves the cursor", "POST", "/v1/requests", api.GrantRequest{Target: "orders", Account: "app", Reason: "INC \x1b[2J"}, 422, "invalid"},
		{"nothing to export", "GET", "/v1/export", nil, 422, "invalid"},
		{"both to export", "GET", "/v1/export?all=true&session=x", nil, 422, "invalid"},
		{"a form there is not", "GET", "/v1/export?all=true&format=avi", nil, 422, "invalid"},
		{"a search for nothing", "GET", "/v1/search?text=", nil, 422, "invalid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, data := r.call("carol", test.method, test.path, test.in)
			var p api.Problem
			if err := json.Unmarshal(data, &p); err != nil || status != test.status || p.Code != test.code {
				t.Errorf("%d %s, %v; want %d %s", status, data, err, test.status, test.code)
			}
		})
	}
}

func TestBadTokens(t *testing.T) {
	r := newRig(t)
	good := r.tokens["alice"]
	for name, token := range map[string]string{
		"empty": "", "garbage": "x", "one letter more": good + "x", "one letter less": good[:len(good)-1], "a line break": "a b",
	} {
		r.tokens["alice"] = token
		if status, data := r.call("alice", "GET", "/v1/me", nil); status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, status, data)
		}
	}
}

func TestLogoutEndsTheToken(t *testing.T) {
	r := newRig(t)
	r.must("alice", "POST", "/v1/logout", nil, nil)
	if status, data := r.call("alice", "GET", "/v1/me", nil); status != http.StatusUnauthorized {
		t.Errorf("after logout: %d %s", status, data)
	}
	r.must("bob", "GET", "/v1/me", nil, nil)
}

// A reading is in the audit log before anything was read; so is a refusal to let somebody read.
func TestReadingIsAudited(t *testing.T) {
	r := newRig(t)
	id := r.finished("web-1", "deploy", "cat /etc/passwd")
	r.must("carol", "GET", "/v1/sessions/"+id+"/items", nil, nil)
	r.must("carol", "GET", "/v1/export?session="+id, nil, nil)
	r.must("carol", "GET", "/v1/search?text=passwd", nil, nil)
	r.call("alice", "GET", "/v1/sessions/"+id+"/items", nil)
	carol, alice := r.audited("carol"), r.audited("alice")
	for _, want := range []string{"recording.replayed ok", "recording.exported ok", "recording.searched ok", "audit.read ok"} {
		if !slices.Contains(carol, want) {
			t.Errorf("no %q of carol's in %v", want, carol)
		}
	}
	if !slices.Contains(alice, "api.refused not_permitted") {
		t.Errorf("alice's refusal is not in %v", alice)
	}
}

// Without the audit event nothing is read.
func TestNoReadingWithoutItsRecord(t *testing.T) {
	r := newRig(t)
	id := r.finished("web-1", "deploy", "cat secret-file")
	if _, err := r.store.Read().Exec(`DROP TABLE audit_outbox`); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/sessions/" + id + "/items", "/v1/export?session=" + id, "/v1/export?all=true", "/v1/search?text=secret", "/v1/audit"} {
		status, data := r.call("carol", "GET", path, nil)
		if status != http.StatusInternalServerError || strings.Contains(string(data), "secret-file") {
			t.Errorf("%s: %d %s", path, status, data)
		}
		if strings.Contains(string(data), "audit_outbox") {
			t.Errorf("%s shows the gateway's insides: %s", path, data)
		}
	}
}

// What somebody may read bounds what they find.
func TestSearchAndListsShowOnlyWhatIsPermitted(t *testing.T) {
	r := newRig(t)
	r.finished("web-1", "deploy", "needle on web")
	low := r.finished("stock", "app", "needle in stock")
	for person, want := range map[string]int{"bob": 1, "carol": 2} {
		_, data := r.call(person, "GET", "/v1/search?text=NEEDLE", nil)
		if found := strings.Count(string(data), "\n"); found != want {
			t.Errorf("%s finds %d places: %s", person, found, data)
		}
	}
	_, data := r.call("carol", "GET", "/v1/search?text=needle&limit=1", nil)
	if strings.Count(string(data), "\n") != 1 {
		t.Errorf("limit=1 gave %s", data)
	}
	for period, want := range map[string]int{"since=2020-01-01T00:00:00Z": 2, "since=2120-01-01T00:00:00Z": 0, "until=2020-01-01T00:00:00Z": 0} {
		if _, data := r.call("carol", "GET", "/v1/search?text=needle&"+period, nil); strings.Count(string(data), "\n") != want {
			t.Errorf("%s gave %s", period, data)
		}
	}
	for person, want := range map[string]int{"alice": 2, "bob": 1, "carol": 2} {
		var sessions []api.Session
		r.must(person, "GET", "/v1/sessions?all=true", nil, &sessions)
		if len(sessions) != want {
			t.Errorf("%s sees %d sessions", person, len(sessions))
		}
		for _, s := range sessions {
			if s.Identity.Name == "" || s.Ended == nil || s.EndReason != "client_closed" || (person == "bob" && s.ID != low) {
				t.Errorf("%s sees %+v", person, s)
			}
		}
	}
}

func TestItemsOfASession(t *testing.T) {
	r := newRig(t)
	s := r.begin("stock", "app", "SELECT '<one>'", "SELECT 2")
	read := func() (kinds []string, sql []string, end string) {
		_, data := r.call("carol", "GET", "/v1/sessions/"+s.ID()+"/items", nil)
		for line := range strings.Lines(string(data)) {
			var item api.Item
			if err := json.Unmarshal([]byte(line), &item); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			if item.Session != s.ID() {
				t.Errorf("an item of session %q", item.Session)
			}
			kinds = append(kinds, string(item.Kind))
			if item.SQL != "" {
				sql = append(sql, item.SQL)
			}
			end = item.Reason
		}
		return
	}
	if _, sql, end := read(); !slices.Equal(sql, []string{"SELECT '<one>'", "SELECT 2"}) || end != "unfinished" {
		t.Errorf("while it lives: %q, %q", sql, end)
	}
	s.End(session.Ending{Reason: "client_closed"})
	kinds, sql, end := read()
	if len(sql) != 2 || end != "client_closed" || kinds[0] != "start" || kinds[len(kinds)-1] != "end" {
		t.Errorf("afterwards: %v, %q, %q", kinds, sql, end)
	}
}

func TestHealth(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, data := r.call("", "GET", path, nil); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, data)
		}
	}
	r.sessions.Drain(t.Context())
	if status, data := r.call("", "GET", "/readyz", nil); status != http.StatusServiceUnavailable || !strings.Contains(string(data), "draining") {
		t.Errorf("/readyz while draining: %d %s", status, data)
	}
	if status, _ := r.call("", "GET", "/healthz", nil); status != http.StatusOK {
		t.Errorf("/healthz while draining: %d", status)
	}
	r.store.Close()
	if status, data := r.call("", "GET", "/readyz", nil); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz without a store: %d %s", status, data)
	}
}

func TestSecurityHeaders(t *testing.T) {
	r := newRig(t)
	answer, err := r.client().Get(r.url + "/v1/gateway")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Strict-Transport-Security": "max-age=31536000",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'", "Referrer-Policy": "no-referrer",
	} {
		if got := answer.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
