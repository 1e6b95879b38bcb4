package web_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"sallyport/web"
	"sallyport/web/console"
)

// All that answers to somebody who has shown nothing. What is added to the router and does not stand here has to refuse.
var forAnybody = []string{
	"GET /connect", "GET /healthz", "GET /readyz", "GET /download/{$}", "GET /download/{name}", "/.well-known/", "/oauth/", "GET /{$}", "GET /console", "/",
	"GET /openapi.json", "GET /openapi.yaml", "GET /openapi-3.0.json", "GET /openapi-3.0.yaml", "GET /v1/gateway",
	"POST /v1/approvals/webhook/{name}", // which takes a signature instead
}

// placeholders stand in the place of what patterns leave open.
var placeholders = strings.NewReplacer("{id}", "x-none", "{name}", "none", "{kind}", "access", "{verb}", "approve", "{n}", "0", "{file}", "console.css", "{$}", "")

// Every route of the gateway, as the router has them, refuses who has shown nothing, with one and the same answer whether or
// not there is such a thing; and nobody's cookie, token or form is any help to somebody else.
func TestEveryRouteRefusesStrangers(t *testing.T) {
	r := newRig(t)
	for _, pattern := range web.Routes(r.options) {
		method, path, found := strings.Cut(pattern, " ")
		if slices.Contains(forAnybody, pattern) {
			continue
		}
		if !found {
			if path = pattern; path == "/console/" {
				continue // below
			}
			method = http.MethodGet
		}
		if path == "/log/" {
			path = "/log/checkpoint"
		}
		if path == "/scim/" { // which answers as SCIM does; see also authn.TestSCIMAbuse
			for _, who := range []string{"", "alice"} {
				if status, data := r.call(who, method, "/scim/v2/Users", nil); status != http.StatusUnauthorized {
					t.Errorf("%s: %d %s", pattern, status, data)
				}
			}
			continue
		}
		path = placeholders.Replace(path)
		for name, token := range map[string]string{"nothing": "", "a token that is none": strings.Repeat("A", 40)} {
			r.tokens["stranger"] = token
			who := "stranger"
			if token == "" {
				who = ""
			}
			if status, data := r.call(who, method, path, nil); status != http.StatusUnauthorized || !strings.Contains(string(data), `"code":"not_authenticated"`) {
				t.Errorf("%s with %s: %d %s", pattern, name, status, data)
			}
		}
	}

	anybody, signedIn := console.Patterns()
	if want := []string{"GET /console/assets/{file}", "GET /console/callback", "GET /console/sign-in", "GET /console/sign-in/start"}; !slices.Equal(anybody, want) {
		t.Errorf("anybody may ask for %v", anybody)
	}
	alice := r.window("alice")
	alice.post("/console/sign-out", nil) // leaves her window with a token for forms of a session that is over
	for _, pattern := range signedIn {
		method, path, _ := strings.Cut(pattern, " ")
		path = placeholders.Replace(path)
		for name, b := range map[string]*window{"nobody": r.window(""), "somebody who has signed out": alice} {
			b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			if method == http.MethodGet {
				page := b.get(path)
				if to := page.Header.Get("Location"); page.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, "/console/sign-in?next=") {
					t.Errorf("%s as %s: %s to %q", pattern, name, page.Status, to)
				}
				continue
			}
			if page := b.post(path, url.Values{"csrf": {"x"}}); page.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s as %s: %s", pattern, name, page.Status)
			}
		}
	}
}

// What somebody may do with an enrolled key's sign-in is this and nothing else; all but the request, which is for emergencies only, is
// about what is theirs.
func TestWhatIsForEmergencies(t *testing.T) {
	r := newRig(t)
	ids := web.InEmergencies(r.options)
	slices.Sort(ids)
	if want := []string{"certify", "get-grant", "get-me", "keep-grant", "list-grants", "list-requests", "list-targets", "logout", "release", "request"}; !slices.Equal(ids, want) {
		t.Errorf("%q", ids)
	}
}
