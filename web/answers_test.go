package web_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sallyport/web/api"
)

// ask sends a request as a person, with headers, and returns the answer with its body read.
func (r *rig) ask(person, method, path, in string, headers map[string]string) (*http.Response, string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(in))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.tokens[person])
	if in != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := r.client().Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer, string(body)
}

// TestIdempotency states that a request with a key is carried out once, whoever sends it again and when, that a key never
// stands for two requests, and that a password is never said twice.
func TestIdempotency(t *testing.T) {
	r := newRig(t)
	const wish = `{"target":"orders","account":"app","reason":"INC-42 slow"}`
	key := func(k string) map[string]string { return map[string]string{"Idempotency-Key": k} }
	first, body := r.ask("alice", "POST", "/v1/requests", wish, key("k1"))
	if first.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", first.Status, body)
	}
	again, same := r.ask("alice", "POST", "/v1/requests", wish, key("k1"))
	if again.StatusCode != http.StatusOK || same != body || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("again: %s %s, want the first answer %s", again.Status, same, body)
	}
	if without, body := r.ask("alice", "POST", "/v1/requests", wish, nil); without.StatusCode == http.StatusOK {
		t.Errorf("without a key the second request is no other than the first: %s", body)
	}
	if other, body := r.ask("alice", "POST", "/v1/requests", strings.Replace(wish, "slow", "fast", 1), key("k1")); other.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("another request with the key: %s %s", other.Status, body)
	}
	if bad, body := r.ask("alice", "POST", "/v1/requests", wish, key("a b")); bad.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("no key: %s %s", bad.Status, body)
	}
	// Another person's key of the same name is another one: Carol's is carried out, and refused for what she may not.
	if other, body := r.ask("carol", "POST", "/v1/requests", wish, key("k1")); other.StatusCode != http.StatusForbidden {
		t.Errorf("carol's: %s %s", other.Status, body)
	}
	var g api.Grant
	if err := json.Unmarshal([]byte(body), &g); err != nil {
		t.Fatal(err)
	}
	// Refused, nothing was done, and the same key is free: Alice can't approve her own, Bob can.
	path := "/v1/requests/" + g.ID + "/approve"
	for _, person := range []string{"alice", "alice", "bob", "bob"} {
		answer, body := r.ask(person, "POST", path, `{"comment":"yes"}`, key("a1"))
		if ok := answer.StatusCode == http.StatusOK; ok != (person == "bob") {
			t.Errorf("%s approves: %s %s", person, answer.Status, body)
		}
	}

	issue := `{"target":"stock","account":"app"}`
	granted, secret := r.ask("alice", "POST", "/v1/credentials", issue, key("p1"))
	if granted.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", granted.Status, secret)
	}
	var issued api.IssuedCredential
	if err := json.Unmarshal([]byte(secret), &issued); err != nil || issued.Password == "" {
		t.Fatalf("%v in %s", err, secret)
	}
	if second, body := r.ask("alice", "POST", "/v1/credentials", issue, key("p1")); second.StatusCode != http.StatusConflict || strings.Contains(body, issued.Password) {
		t.Errorf("the password again: %s %s", second.Status, body)
	}
	rows, err := r.store.Read().Query(`SELECT body FROM idempotency_keys`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var kept []byte
		if err := rows.Scan(&kept); err != nil || strings.Contains(string(kept), issued.Password) {
			t.Errorf("the password is kept (%v)", err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	rows.Close()
	var passwords []api.Credential
	if r.must("alice", "GET", "/v1/credentials", nil, &passwords); len(passwords) != 1 {
		t.Errorf("%d passwords", len(passwords))
	}
}

// TestIdempotencyAtOnce states that of many equal requests at once one is carried out.
func TestIdempotencyAtOnce(t *testing.T) {
	r := newRig(t)
	var all sync.WaitGroup
	codes := make([]int, 12)
	for i := range codes {
		all.Go(func() {
			answer, _ := r.ask("alice", "POST", "/v1/credentials", `{"target":"stock","account":"app"}`, map[string]string{"Idempotency-Key": "same"})
			codes[i] = answer.StatusCode
		})
	}
	all.Wait()
	done := 0
	for _, code := range codes {
		switch code {
		case http.StatusOK:
			done++
		case http.StatusConflict:
		default:
			t.Errorf("%d", code)
		}
	}
	var passwords []api.Credential
	if r.must("alice", "GET", "/v1/credentials", nil, &passwords); done != 1 || len(passwords) != 1 {
		t.Errorf("%d were answered, %d passwords were made", done, len(passwords))
	}
}

// TestETags states that what has not changed is not sent again, and that a decision which names a state is taken on that
// state only.
func TestETags(t *testing.T) {
	r := newRig(t)
	g := r.request()
	for _, path := range []string{"/v1/gateway", "/v1/me", "/v1/targets", "/v1/requests", "/v1/grants", "/v1/grants/" + g.ID, "/v1/sessions", "/v1/credentials"} {
		first, body := r.ask("alice", "GET", path, "", nil)
		tag := first.Header.Get("ETag")
		if path == "/v1/gateway" {
			if first.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", path, first.Status)
			}
			continue
		}
		if first.StatusCode != http.StatusOK || tag == "" || body == "" {
			t.Fatalf("%s: %s, ETag %q", path, first.Status, tag)
		}
		if again, body := r.ask("alice", "GET", path, "", map[string]string{"If-None-Match": `"x", W/` + tag}); again.StatusCode != http.StatusNotModified || body != "" || again.Header.Get("ETag") != tag {
			t.Errorf("%s again: %s %s", path, again.Status, body)
		}
		if other, _ := r.ask("alice", "GET", path, "", map[string]string{"If-None-Match": `"x"`}); other.StatusCode != http.StatusOK {
			t.Errorf("%s with another tag: %s", path, other.Status)
		}
	}
	seen, _ := r.ask("bob", "GET", "/v1/grants/"+g.ID, "", nil)
	tag := seen.Header.Get("ETag")
	approve := "/v1/requests/" + g.ID + "/approve"
	if other, body := r.ask("bob", "POST", approve, "{}", map[string]string{"If-Match": `"other"`}); other.StatusCode != http.StatusPreconditionFailed || !strings.Contains(body, `"code":"changed"`) {
		t.Errorf("another state: %s %s", other.Status, body)
	}
	if done, body := r.ask("bob", "POST", approve, "{}", map[string]string{"If-Match": tag}); done.StatusCode != http.StatusOK {
		t.Errorf("the state he saw: %s %s", done.Status, body)
	}
	if late, body := r.ask("bob", "POST", "/v1/grants/"+g.ID+"/revoke", "{}", map[string]string{"If-Match": tag}); late.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("the state before: %s %s", late.Status, body)
	}
	changed, _ := r.ask("bob", "GET", "/v1/grants/"+g.ID, "", map[string]string{"If-None-Match": tag})
	if changed.StatusCode != http.StatusOK || changed.Header.Get("ETag") == tag {
		t.Errorf("after the decision: %s, ETag %q", changed.Status, changed.Header.Get("ETag"))
	}
}

// TestPages states that lists go by pages whose Link leads through all of it, once, and to nobody else's.
func TestPages(t *testing.T) {
	r := newRig(t)
	var want []string
	for range 5 {
		g := r.request()
		want = append([]string{g.ID}, want...)
	}
	var sessions []string
	for range 5 {
		sessions = append([]string{r.finished("stock", "app", "SELECT 1")}, sessions...)
	}
	follow := func(person, path string, ids func(body string) []string) (found []string, pages int) {
		for path != "" {
			answer, body := r.ask(person, "GET", path, "", nil)
			if answer.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s %s", path, answer.Status, body)
			}
			found, pages = append(found, ids(body)...), pages+1
			next := answer.Header.Get("Link")
			path = strings.TrimSuffix(strings.TrimPrefix(next, "<"), `>; rel="next"`)
			if pages > 20 {
				t.Fatal("there is no end")
			}
		}
		return found, pages
	}
	ids := func(body string) (all []string) {
		var list []struct{ ID, Account, Target string }
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		for _, one := range list {
			if one.Target != "orders" && strings.HasPrefix(one.ID, "g-") {
				continue // those under which the sessions ran
			}
			all = append(all, one.ID)
		}
		return all
	}
	for _, test := range []struct {
		person, path string
		want         []string
		pages        int
	}{
		{"alice", "/v1/requests?all=true&target=orders&limit=2", want, 3},
		{"alice", "/v1/requests?all=true&target=orders&limit=5", want, 1},
		{"bob", "/v1/requests?all=true&target=orders&limit=3", want, 2},
		{"bob", "/v1/requests?all=true&mine=true&limit=3", nil, 1},
		{"alice", "/v1/requests?limit=1", want[:1], 1},
		{"alice", "/v1/sessions?all=true&limit=2", sessions, 3},
		{"bob", "/v1/sessions?all=true&limit=4&target=stock", sessions, 2},
		{"carol", "/v1/sessions?limit=4", nil, 1},
	} {
		found, pages := follow(test.person, test.path, ids)
		if strings.Join(found, " ") != strings.Join(test.want, " ") || pages != test.pages {
			t.Errorf("%s %s: %v on %d pages, want %v on %d", test.person, test.path, found, pages, test.want, test.pages)
		}
	}
	if answer, body := r.ask("carol", "GET", "/v1/requests?before=g-none", "", nil); answer.StatusCode != http.StatusNotFound {
		t.Errorf("a page after nothing: %s %s", answer.Status, body)
	}
}

// TestEveryNoIsAProblem walks all operations of the API's own description without a token, with a bad one and with a method
// it does not have: each answer is a problem document.
func TestEveryNoIsAProblem(t *testing.T) {
	r := newRig(t)
	_, description := r.call("", "GET", "/openapi.json", nil)
	var all struct {
		Paths map[string]map[string]struct {
			Security []map[string][]string
		}
	}
	if err := json.Unmarshal(description, &all); err != nil || len(all.Paths) < 20 {
		t.Fatalf("%v, %d paths", err, len(all.Paths))
	}
	for path, methods := range all.Paths {
		path = strings.NewReplacer("{id}", "x", "{name}", "x").Replace(path)
		for method, op := range methods {
			method = strings.ToUpper(method)
			for _, token := range []string{"", "Bearer nonsense", "Basic YTpi"} {
				if len(op.Security) == 0 {
					continue
				}
				answer, body := r.ask("", method, path, "", map[string]string{"Authorization": token})
				var p api.Problem
				if answer.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal([]byte(body), &p) != nil || p.Code == "" || p.Message == "" || answer.StatusCode < 400 {
					t.Errorf("%s %s with %q: %s %s %s", method, path, token, answer.Status, answer.Header.Get("Content-Type"), body)
				}
			}
		}
		answer, body := r.ask("alice", "PATCH", path, "", nil)
		if answer.Header.Get("Content-Type") != "application/problem+json" || answer.StatusCode != http.StatusNotFound {
			t.Errorf("PATCH %s: %s %s", path, answer.Status, body)
		}
		answer, body = r.ask("alice", "GET", path+"?no-such=parameter", "", nil)
		if answer.StatusCode/100 == 2 && path != "/v1/gateway" || answer.StatusCode/100 != 2 && answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("GET %s with a parameter that is none: %s %s", path, answer.Status, body)
		}
	}
}
