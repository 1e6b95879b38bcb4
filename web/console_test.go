package web_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
	"sallyport/web/api"
	"sallyport/web/console"
)

// window is a browser in which somebody is signed in to the console, or nobody.
type window struct {
	*http.Client
	r *rig
}

// screen is a page as a browser got it.
type screen struct {
	*http.Response
	html string
	text string // what it says
}

// window opens a browser; a person's name signs them in through the console's own page.
func (r *rig) window(person string) *window {
	r.t.Helper()
	b := &window{Client: r.client(), r: r}
	if person == "" {
		return b
	}
	page := b.get("/console/sign-in/start?next=/console/sessions")
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(page.html)
	if id == nil {
		r.t.Fatalf("no form at %s (%s):\n%s", page.Request.URL, page.Status, page.html)
	}
	done, err := b.PostForm(page.Request.URL.ResolveReference(&url.URL{Path: "/login"}).String(),
		url.Values{"id": {id[1]}, "name": {person}, "password": {person[:1]}})
	if err != nil {
		r.t.Fatal(err)
	}
	done.Body.Close()
	if done.StatusCode != http.StatusOK || done.Request.URL.String() != r.url+"/console/sessions" {
		r.t.Fatalf("signing in as %s ended at %s with %s", person, done.Request.URL, done.Status)
	}
	return b
}

func (b *window) send(request *http.Request) screen {
	b.r.t.Helper()
	answer, err := b.Do(request)
	if err != nil {
		b.r.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		b.r.t.Fatal(err)
	}
	s := screen{Response: answer, html: string(data)}
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html") && answer.StatusCode/100 != 3 {
		s.text = b.r.harmless(answer, s.html)
	}
	return s
}

func (b *window) get(path string) screen {
	b.r.t.Helper()
	if !strings.HasPrefix(path, "https://") {
		path = b.r.url + path
	}
	request, err := http.NewRequestWithContext(b.r.t.Context(), http.MethodGet, path, nil)
	if err != nil {
		b.r.t.Fatal(err)
	}
	return b.send(request)
}

// post sends a form as the console's own page would, but for what change does to it.
func (b *window) post(path string, form url.Values, change ...func(*http.Request)) screen {
	b.r.t.Helper()
	if form == nil {
		form = url.Values{}
	}
	if !form.Has("csrf") {
		form.Set("csrf", b.token())
	}
	request, err := http.NewRequestWithContext(b.r.t.Context(), http.MethodPost, b.r.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, f := range change {
		f(request)
	}
	return b.send(request)
}

var tokenField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// token is the window's own for forms; empty where nobody is signed in.
func (b *window) token() string {
	b.r.t.Helper()
	if m := tokenField.FindStringSubmatch(b.get("/console/").html); m != nil {
		return m[1]
	}
	return ""
}

// harmless insists that a page of the console holds no script or style of its own, nothing from elsewhere and no element
// that the console's templates don't use, and returns what it says.
func (r *rig) harmless(answer *http.Response, page string) string {
	r.t.Helper()
	if !strings.HasPrefix(answer.Request.URL.String(), r.url+"/console") {
		return page
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Strict-Transport-Security": "max-age=31536000", "Cross-Origin-Opener-Policy": "same-origin",
	} {
		if got := answer.Header.Get(name); got != want {
			r.t.Errorf("%s: %s is %q", answer.Request.URL.Path, name, got)
		}
	}
	policy := answer.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) || strings.Contains(policy, "unsafe-inline") || strings.Contains(policy, "'unsafe-eval'") {
			r.t.Errorf("%s: the policy is %q", answer.Request.URL.Path, policy)
		}
	}
	var text strings.Builder
	tokens := html.NewTokenizer(strings.NewReader(page))
	for {
		kind := tokens.Next()
		if kind == html.ErrorToken {
			return text.String()
		}
		token := tokens.Token()
		if kind == html.TextToken {
			text.WriteString(token.Data)
		}
		if kind != html.StartTagToken && kind != html.SelfClosingTagToken {
			continue
		}
		if slices.Contains([]string{"img", "iframe", "object", "embed", "style", "base", "video", "audio", "math", "foreignobject", "b"}, token.Data) {
			r.t.Errorf("%s holds <%s>", answer.Request.URL.Path, token.Data)
		}
		for _, a := range token.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc":
				r.t.Errorf("%s: <%s> has %s=%q", answer.Request.URL.Path, token.Data, a.Key, a.Val)
			case a.Key == "src" && !strings.HasPrefix(a.Val, "/console/assets/"):
				r.t.Errorf("%s: <%s> loads %q", answer.Request.URL.Path, token.Data, a.Val)
			case (a.Key == "href" || a.Key == "action" || a.Key == "formaction") && !strings.HasPrefix(a.Val, "/console/") && a.Val != "" && a.Val[0] != '#' && a.Val[0] != '?':
				r.t.Errorf("%s: <%s> leads to %q", answer.Request.URL.Path, token.Data, a.Val)
			}
		}
		if token.Data == "script" && !slices.ContainsFunc(token.Attr, func(a html.Attribute) bool { return a.Key == "src" }) {
			r.t.Errorf("%s holds a script", answer.Request.URL.Path)
		}
	}
}

func TestConsoleSignIn(t *testing.T) {
	r := newRig(t)
	b := r.window("")
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	first := b.get("/console/sessions/s-1?from=3")
	if to := first.Header.Get("Location"); first.StatusCode != http.StatusSeeOther || to != "/console/sign-in?next="+url.QueryEscape("/console/sessions/s-1?from=3") {
		t.Errorf("%s to %q", first.Status, to)
	}
	if to := b.get("/").Header.Get("Location"); to != "/console/" {
		t.Errorf("the gateway's address leads to %q", to)
	}
	start := b.get("/console/sign-in/start?next=//evil.example/")
	for _, cookie := range start.Cookies() {
		if !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || !strings.HasPrefix(cookie.Name, "__Host-") || cookie.Domain != "" || cookie.Path != "/" {
			t.Errorf("cookie %v", cookie)
		}
	}
	for _, address := range []string{
		"/console/callback", "/console/callback?code=x&state=y", "/console/callback?error=access_denied&error_description=<b>pay</b>&state=y",
	} {
		if page := b.get(address); page.StatusCode != http.StatusUnauthorized || strings.Contains(page.text, "pay") {
			t.Errorf("%s: %s %s", address, page.Status, page.text)
		}
	}

	alice := r.window("alice")
	home, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	cookies := alice.Jar.Cookies(home)
	session := cookies[slices.IndexFunc(cookies, func(c *http.Cookie) bool { return c.Name == "__Host-sallyport-console" })].Value
	if !strings.Contains(alice.get("/console/").text, "Alice Engineer") {
		t.Error("the page does not say who is signed in")
	}
	// The cookie is no access token, and an access token no cookie.
	r.tokens["cookie"] = session
	if status, _ := r.call("cookie", "GET", "/v1/me", nil); status != http.StatusUnauthorized {
		t.Errorf("the cookie as an access token: %d", status)
	}
	for name, value := range map[string]string{"a token": r.tokens["alice"], "another": strings.Repeat("A", 43), "nothing": ""} {
		stranger := r.window("")
		stranger.Jar.SetCookies(home, []*http.Cookie{{Name: "__Host-sallyport-console", Value: value, Path: "/", Secure: true}})
		if page := stranger.get("/console/"); page.Request.URL.Path != "/console/sign-in" {
			t.Errorf("%s as a cookie: %s at %s", name, page.Status, page.Request.URL)
		}
	}
	out := alice.post("/console/sign-out", nil)
	if !strings.Contains(out.text, "You are signed out") {
		t.Errorf("%s: %s", out.Status, out.text)
	}
	alice.Jar.SetCookies(home, []*http.Cookie{{Name: "__Host-sallyport-console", Value: session, Path: "/", Secure: true}})
	if page := alice.get("/console/"); page.Request.URL.Path != "/console/sign-in" {
		t.Errorf("the old cookie is good after signing out: %s", page.Request.URL)
	}
	r.must("alice", "GET", "/v1/me", nil, nil) // the command line stays signed in

	again, other := r.window("alice"), r.window("alice")
	again.post("/console/sign-out-everywhere", nil)
	if page := other.get("/console/"); page.Request.URL.Path != "/console/sign-in" {
		t.Errorf("another window stays signed in: %s", page.Request.URL)
	}
	if status, _ := r.call("alice", "GET", "/v1/me", nil); status != http.StatusUnauthorized {
		t.Errorf("the command line stays signed in: %d", status)
	}
}

// What each page and form answers to whom. It is what the API answers for the same thing.
func TestConsolePermissions(t *testing.T) {
	r := newRig(t)
	windows := map[string]*window{}
	for _, person := range []string{"alice", "bob", "carol"} {
		windows[person] = r.window(person)
	}
	recorded, low := r.finished("web-1", "deploy", "uptime"), r.finished("stock", "app", "SELECT 1")
	fixed := func(path string) func() string { return func() string { return path } }
	fresh := func(form string) func() string {
		return func() string { return fmt.Sprintf(form, r.request().ID) }
	}
	live := func(form string) func() string {
		return func() string { return fmt.Sprintf(form, r.begin("stock", "app").ID()) }
	}
	wish := url.Values{"target": {"orders"}, "account": {"report"}, "duration": {"30m"}, "reason": {"INC-42"}}
	rows := []struct {
		method string
		path   func() string
		form   url.Values
		want   [3]int // alice, bob, carol
	}{
		{"GET", fixed("/console/"), nil, [3]int{200, 200, 200}},
		{"GET", fixed("/console/nothing"), nil, [3]int{404, 404, 404}},
		{"GET", fixed("/console/ask?target=orders&account=app"), nil, [3]int{200, 404, 404}},
		{"GET", fixed("/console/ask?target=nothing&account=app"), nil, [3]int{404, 404, 404}},
		{"POST", fixed("/console/requests"), wish, [3]int{200, 403, 403}},
		{"GET", fresh("/console/requests/%s"), nil, [3]int{200, 200, 200}},
		{"GET", fixed("/console/requests/g-none"), nil, [3]int{404, 404, 404}},
		{"POST", fresh("/console/requests/%s/approve"), nil, [3]int{403, 200, 403}},
		{"POST", fresh("/console/requests/%s/deny"), nil, [3]int{403, 200, 403}},
		{"POST", fresh("/console/requests/%s/release"), nil, [3]int{200, 403, 403}},
		{"POST", fresh("/console/requests/%s/revoke"), nil, [3]int{200, 200, 200}},
		{"POST", fresh("/console/requests/%s/extend"), url.Values{"duration": {"30m"}}, [3]int{409, 403, 403}},
		{"POST", fresh("/console/requests/%s/explode"), nil, [3]int{404, 404, 404}},
		{"GET", fixed("/console/inbox"), nil, [3]int{200, 200, 200}},
		{"GET", fixed("/console/sessions"), nil, [3]int{200, 200, 200}},
		{"GET", fixed("/console/sessions/" + recorded), nil, [3]int{200, 403, 200}},
		{"GET", fixed("/console/sessions/" + low), nil, [3]int{200, 200, 200}},
		{"GET", fixed("/console/sessions/" + recorded + "/proof"), nil, [3]int{403, 403, 200}},
		{"GET", fixed("/console/sessions/s-none"), nil, [3]int{404, 404, 404}},
		{"GET", fixed("/console/sessions/" + recorded + "/proof"), nil, [3]int{403, 403, 200}},
		{"GET", fixed("/console/sessions/s-none/proof"), nil, [3]int{404, 404, 404}},
		{"GET", fixed("/console/sessions/" + recorded + "/cast"), nil, [3]int{403, 403, 404}}, // it has no output
		{"GET", fixed("/console/sessions/" + low + "/cast"), nil, [3]int{403, 200, 200}},
		{"GET", fixed("/console/sessions/" + recorded + "/segments"), nil, [3]int{403, 403, 200}},
		{"GET", fixed("/console/sessions/" + recorded + "/segments/0"), nil, [3]int{403, 403, 200}},
		{"GET", fixed("/console/sessions/" + recorded + "/segments/7"), nil, [3]int{403, 403, 404}},
		{"GET", fixed("/console/sessions/" + recorded + "/watch"), nil, [3]int{200, 403, 200}}, // over: it leads to the session's page
		{"GET", live("/console/sessions/%s/watch"), nil, [3]int{403, 403, 200}},
		// Whoever may follow one that lives does so until it ends: TestConsoleWatch has that.
		{"GET", fixed("/console/sessions/" + recorded + "/stream"), nil, [3]int{403, 403, 409}},
		{"GET", fixed("/console/sessions/" + recorded + "/screen"), nil, [3]int{403, 403, 409}},
		{"POST", fixed("/console/sessions/" + recorded + "/evidence"), nil, [3]int{403, 403, 200}},
		{"POST", fixed("/console/sessions/s-none/evidence"), nil, [3]int{404, 404, 404}},
		{"POST", fixed("/console/requests/g-none/review"), nil, [3]int{404, 404, 404}},
		{"GET", fixed("/console/grants"), nil, [3]int{200, 200, 200}}, // each their own, and what they may see
		{"GET", fixed("/console/policies"), nil, [3]int{200, 200, 200}},
		{"GET", fixed("/console/policies/held"), nil, [3]int{403, 403, 200}},
		{"POST", fixed("/console/policies/held/0123456789ab/confirm"), nil, [3]int{403, 403, 409}},
		{"POST", fixed("/console/policies/held/0123456789ab/reject"), nil, [3]int{403, 403, 409}},
		{"POST", fixed("/console/policies/held/0123456789ab/explode"), nil, [3]int{404, 404, 404}},
		{"GET", fixed("/console/health"), nil, [3]int{403, 403, 200}},
		// Each their own, and none here, where the gateway takes none: authn has the rest.
		{"GET", fixed("/console/keys"), nil, [3]int{200, 200, 200}},
		{"POST", fixed("/console/keys"), nil, [3]int{501, 501, 501}},
		{"POST", fixed("/console/keys/new"), nil, [3]int{501, 501, 501}},
		{"POST", fixed("/console/keys/e-none/remove"), nil, [3]int{404, 404, 404}},
		// These two go on for ever for everybody, each with what they may see: TestEvents and TestLive have them.
		{"GET", fixed("/console/events"), nil, [3]int{-1, -1, -1}},
		{"GET", fixed("/console/live"), nil, [3]int{-1, -1, -1}},
		{"POST", live("/console/sessions/%s/kill"), nil, [3]int{200, 403, 200}},
		{"POST", fixed("/console/sessions/s-none/kill"), nil, [3]int{404, 404, 404}},
		{"GET", fixed("/console/search"), nil, [3]int{200, 200, 200}},
		{"GET", fixed("/console/search?text=uptime"), nil, [3]int{403, 200, 200}},
		{"GET", fixed("/console/search?text=uptime&target=web-1"), nil, [3]int{403, 403, 200}},
		{"GET", fixed("/console/audit"), nil, [3]int{403, 403, 200}},
		{"GET", fixed("/console/verify"), nil, [3]int{200, 200, 200}},
		{"POST", fixed("/console/verify"), nil, [3]int{403, 403, 200}},
		{"GET", fixed("/console/sessions?since=never"), nil, [3]int{422, 422, 422}},
		{"GET", fixed("/console/sessions/" + low + "?from=x"), nil, [3]int{422, 422, 422}},
	}
	tried := map[string]bool{}
	for _, row := range rows {
		tried[patternOf(t, row.method, row.path())] = true
		for i, person := range []string{"alice", "bob", "carol"} {
			if row.want[i] < 0 {
				continue
			}
			b, path := windows[person], row.path()
			var page screen
			if row.method == "GET" {
				page = b.get(path)
			} else {
				form := url.Values{}
				for k, v := range row.form {
					form[k] = v
				}
				page = b.post(path, form)
			}
			if page.StatusCode != row.want[i] {
				t.Errorf("%s %s as %s: %d, want %d: %s", row.method, path, person, page.StatusCode, row.want[i], page.text)
			}
		}
		// Nobody who is not signed in gets anything but the way to the sign-in.
		stranger := r.window("")
		stranger.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		want := http.StatusSeeOther
		var page screen
		if path := row.path(); row.method == "GET" {
			page = stranger.get(path)
		} else {
			page, want = stranger.post(path, url.Values{"csrf": {"x"}}), http.StatusUnauthorized
		}
		if page.StatusCode != want {
			t.Errorf("%s %s as nobody: %s", row.method, page.Request.URL.Path, page.Status)
		}
	}
	tried["POST /console/sign-out"], tried["POST /console/sign-out-everywhere"] = true, true // TestConsoleSignIn has them
	_, guarded := console.Patterns()
	for _, pattern := range guarded {
		if !tried[pattern] {
			t.Errorf("%s is not in this test", pattern)
		}
	}
	// Alice sees her own session, but not what happened in it.
	if page := windows["alice"].get("/console/sessions/" + recorded); !strings.Contains(page.text, "recordings.read") || strings.Contains(page.text, "uptime") {
		t.Errorf("her own session, without the permission to read it: %s", page.text)
	}
	// Lists show what one may see, and the navigation what one may do.
	if text := windows["bob"].get("/console/sessions").html; strings.Contains(text, recorded) || !strings.Contains(text, low) {
		t.Errorf("bob's register: %s", text)
	}
	for person, want := range map[string][]string{
		"alice": {"/console/sessions"}, "bob": {"/console/inbox", "/console/sessions", "/console/search"},
		"carol": {"/console/sessions", "/console/search", "/console/audit", "/console/verify"},
	} {
		page := windows[person].get("/console/").html
		for _, path := range []string{"/console/inbox", "/console/sessions", "/console/search", "/console/audit", "/console/verify"} {
			if shown := strings.Contains(page, `<a href="`+path+`"`); shown != slices.Contains(want, path) {
				t.Errorf("%s: %s in the navigation: %t", person, path, shown)
			}
		}
	}
}

// patternOf is the console's pattern that takes a request.
func patternOf(t *testing.T, method, path string) string {
	t.Helper()
	mux := http.NewServeMux()
	anybody, signedIn := console.Patterns()
	for _, pattern := range slices.Concat(anybody, signedIn) {
		mux.HandleFunc(pattern, http.NotFound)
	}
	request, err := http.NewRequest(method, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, pattern := mux.Handler(request)
	return pattern
}

// A form is taken from the console's own pages only.
func TestConsoleForgedForms(t *testing.T) {
	r := newRig(t)
	alice, bob := r.window("alice"), r.window("bob")
	g := r.request()
	approve := "/console/requests/" + g.ID + "/approve"
	for name, try := range map[string]func() screen{
		"no token":      func() screen { return bob.post(approve, url.Values{"csrf": {""}}) },
		"a wrong token": func() screen { return bob.post(approve, url.Values{"csrf": {strings.Repeat("A", 43)}}) },
		"alice's token": func() screen { return bob.post(approve, url.Values{"csrf": {alice.token()}}) },
		"another site": func() screen {
			return bob.post(approve, nil, func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") })
		},
		"a sister's site": func() screen {
			return bob.post(approve, nil, func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "same-site") })
		},
		"another origin": func() screen {
			return bob.post(approve, nil, func(q *http.Request) {
				q.Header.Del("Sec-Fetch-Site")
				q.Header.Set("Origin", "https://evil.example")
			})
		},
		"a token in the address": func() screen { return bob.post(approve+"?csrf="+bob.token(), url.Values{"csrf": {""}}) },
		"too long a form":        func() screen { return bob.post(approve, url.Values{"comment": {strings.Repeat("x", 100<<10)}}) },
	} {
		if page := try(); page.StatusCode != http.StatusForbidden && page.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %s", name, page.Status)
		}
	}
	if page := bob.get(approve); page.StatusCode/100 == 2 {
		t.Errorf("approving by a link: %s", page.Status)
	}
	var now api.Grant
	r.must("alice", "GET", "/v1/grants/"+g.ID, nil, &now)
	if now.State != "pending" {
		t.Errorf("the request is %s", now.State)
	}
}

// corpus is what people and programs may write to be taken for something else.
var corpus = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `" autofocus onfocus="alert(1)`, `</textarea><svg/onload=alert(1)>`,
	`</q></blockquote><iframe srcdoc="<script>alert(1)</script>">`, `{{.CSRF}}`, `javascript:alert(1)`, `<style>*{display:none}</style>`, `<base href=//evil.example>`,
	`<!--`, `]]><b>`, `&lt;script&gt;`, `<math><mtext><img src onerror=alert(1)>`,
}

// Whatever was written stands in the pages as it was written, and as nothing else; screen.harmless looks at every page.
func TestConsoleShowsTextAsText(t *testing.T) {
	r := newRig(t)
	alice, bob, carol := r.window("alice"), r.window("bob"), r.window("carol")
	all := strings.Join(corpus, " ")
	for _, window := range []*window{alice, bob, carol} {
		window.Transport = agent{window.Transport, all}
	}
	said := []string{"needle"}
	for _, text := range corpus {
		said = append(said, "SELECT "+text)
	}
	s := r.begin("stock", "app", said...)
	asked := alice.post("/console/requests", url.Values{"target": {"orders"}, "account": {"app"}, "duration": {"30m"}, "reason": {all}})
	if asked.StatusCode != http.StatusOK || !strings.Contains(asked.text, all) {
		t.Fatalf("%s: %s", asked.Status, asked.text)
	}
	id := asked.Request.URL.Path[strings.LastIndexByte(asked.Request.URL.Path, '/')+1:]
	if text := bob.get("/console/inbox").text; !strings.Contains(text, all) {
		t.Errorf("the inbox: %s", text)
	}
	bob.post("/console/requests/"+id+"/approve", url.Values{"comment": {all}})
	for _, page := range []screen{alice.get("/console/requests/" + id), alice.get("/console/"), bob.get("/console/inbox")} {
		if page.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", page.Request.URL, page.Status)
		}
	}
	if text := alice.get("/console/requests/" + id).text; strings.Count(text, all) != 2 {
		t.Errorf("reason and vote: %s", text)
	}
	page := carol.get("/console/sessions/" + s.ID())
	for _, text := range corpus {
		if !strings.Contains(page.text, "SELECT "+text) {
			t.Errorf("%q is not in the timeline", text)
		}
	}
	for _, text := range corpus {
		q := url.QueryEscape(text)
		if page := carol.get("/console/search?text=" + q); page.StatusCode != http.StatusOK || !strings.Contains(page.text, "SELECT "+text) {
			t.Errorf("searching for %q: %s %s", text, page.Status, page.text)
		}
		for _, address := range []string{
			"/console/sessions?person=" + q + "&target=" + q + "&protocol=" + q, "/console/sessions/" + s.ID() + "?text=" + q + "&show=" + q,
			"/console/audit?kind=" + q + "&actor=" + q + "&session=" + q, "/console/?done=" + q, "/console/sign-in?next=" + q, "/console/ask?target=" + q + "&account=" + q,
			"/console/sessions/" + url.PathEscape(text), "/console/requests/" + url.PathEscape(text), "/console/" + url.PathEscape(text),
		} {
			carol.get(address)
		}
	}
	killed := carol.post("/console/sessions/"+s.ID()+"/kill", url.Values{"comment": {all}})
	if killed.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", killed.Status, killed.text)
	}
	s.End(session.Ending{Reason: "killed"})
	for _, address := range []string{"/console/sessions/" + s.ID(), "/console/audit"} {
		if text := carol.get(address).text; !strings.Contains(text, all) {
			t.Errorf("%s: %s", address, text)
		}
	}
	if text := carol.get("/console/audit?kind=recording.searched").text; !strings.Contains(text, corpus[0]) {
		t.Errorf("what was searched for: %s", text)
	}
	verified := carol.post("/console/verify", url.Values{"session": {all}})
	if !strings.Contains(verified.text, "There is no recording of session "+all) {
		t.Errorf("verify: %s", verified.text)
	}
}

// agent calls the browser something.
type agent struct {
	http.RoundTripper
	name string
}

func (a agent) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", a.name)
	return a.RoundTripper.RoundTrip(r)
}

// The terminal's output goes to the player as an asciicast, without what reaches beyond the picture.
func TestConsoleCast(t *testing.T) {
	r := newRig(t)
	s := r.begin("web-1", "deploy")
	output := "\x1b[32mgreen\x1b[0m </script><script>alert(1)</script> \x1b]52;c;ZXZpbA==\x07after"
	if err := s.Observe(recorder.Event{Type: format.TypeAnswered, Data: []byte(output)}); err != nil {
		t.Fatal(err)
	}
	s.End(session.Ending{Reason: "client_closed"})
	carol := r.window("carol")
	page := carol.get("/console/sessions/" + s.ID())
	// A build without Node.js has no player, and says so; with it, that page alone may compile WebAssembly.
	player := carol.get("/console/assets/asciinema-player.min.js").StatusCode == http.StatusOK
	want := "built without the terminal player"
	if player {
		want = "/console/sessions/" + s.ID() + "/cast?channel=0"
	}
	if !strings.Contains(page.html, want) || strings.Contains(page.html, "alert(1)") {
		t.Errorf("the page, with the player: %t: %s", player, page.html)
	}
	if compiles := strings.Contains(page.Header.Get("Content-Security-Policy"), "'wasm-unsafe-eval'"); compiles != player {
		t.Errorf("with the player: %t, the policy lets it compile: %t", player, compiles)
	}
	cast := carol.get("/console/sessions/" + s.ID() + "/cast?channel=0")
	if kind := cast.Header.Get("Content-Type"); cast.StatusCode != http.StatusOK || kind != "application/x-asciicast" || cast.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s of type %q", cast.Status, kind)
	}
	if !strings.Contains(cast.html, "green") || !strings.Contains(cast.html, "after") || strings.Contains(cast.html, "]52;") {
		t.Errorf("the cast: %s", cast.html)
	}
}

// Each look at a recording is in the audit log before it is given, and nothing is given without.
func TestConsoleReadingIsAudited(t *testing.T) {
	r := newRig(t)
	id := r.finished("web-1", "deploy", "cat secret-file")
	alice, carol := r.window("alice"), r.window("carol")
	carol.get("/console/sessions/" + id)
	carol.get("/console/search?text=secret")
	carol.get("/console/audit")
	carol.post("/console/verify", nil)
	alice.get("/console/sessions/" + id + "/cast")
	if seen := r.audited("carol"); !slices.Contains(seen, "recording.replayed ok") || !slices.Contains(seen, "recording.searched ok") || !slices.Contains(seen, "audit.read ok") || !slices.Contains(seen, "log.verified ok") {
		t.Errorf("carol: %v", seen)
	}
	if seen := r.audited("alice"); !slices.Contains(seen, "api.refused not_permitted") {
		t.Errorf("alice: %v", seen)
	}
	if _, err := r.store.Read().Exec(`DROP TABLE audit_outbox`); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/console/sessions/" + id, "/console/sessions/" + id + "/cast", "/console/search?text=secret-f", "/console/audit"} {
		page := carol.get(path)
		if page.StatusCode != http.StatusInternalServerError || strings.Contains(page.html, "cat secret-file") || strings.Contains(page.html, "audit_outbox") {
			t.Errorf("%s without an audit log: %s %s", path, page.Status, page.text)
		}
	}
}

// The story by hand: ask, see what it waits for, approve, connect lines, give back.
func TestConsoleStory(t *testing.T) {
	r := newRig(t)
	alice, bob := r.window("alice"), r.window("bob")
	if text := alice.get("/console/").text; !strings.Contains(text, "To the first recorded session") || !strings.Contains(text, "You asked for access") {
		t.Errorf("a first visit: %s", text)
	}
	bad := alice.post("/console/requests", url.Values{"target": {"orders"}, "account": {"app"}, "duration": {"soon"}, "reason": {"INC-42"}})
	if bad.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(bad.text, "makes no sense") {
		t.Errorf("a duration that is none: %s %s", bad.Status, bad.text)
	}
	form := alice.get("/console/ask?target=orders&account=app") // where a connection that waits sends people
	for _, field := range []string{`name="reason"`, `name="duration"`, `name="ticket"`, "approvers"} {
		if !strings.Contains(form.html, field) {
			t.Errorf("the page behind the link does not ask for, or say, %s: %s", field, form.html)
		}
	}
	asked := alice.post("/console/requests", url.Values{"target": {"orders"}, "account": {"app"}, "duration": {"45m"}, "reason": {"INC-42 slow"}, "ticket": {"OPS-77"}})
	if !strings.Contains(asked.text, "Your request is filed.") || !strings.Contains(asked.text, "45 min") || !strings.Contains(asked.text, "a member of approvers") || !strings.Contains(asked.text, "OPS-77") {
		t.Fatalf("%s: %s", asked.Status, asked.text)
	}
	path := asked.Request.URL.Path
	if text := alice.get("/console/").text; !strings.Contains(text, "What you wait for") {
		t.Errorf("waiting: %s", text)
	}
	inbox := bob.get("/console/inbox").text
	for _, want := range []string{"app@orders", "Alice Engineer", "alice@example.com", "engineers", "INC-42 slow", "45 min", "It permits"} {
		if !strings.Contains(inbox, want) {
			t.Errorf("%q is not in the inbox: %s", want, inbox)
		}
	}
	if done := bob.post(path+"/approve", url.Values{"comment": {"go ahead"}}); !strings.Contains(done.text, "Approved.") || !strings.Contains(done.text, "Nothing waits for you") {
		t.Errorf("%s: %s", done.Status, done.text)
	}
	have := alice.get("/console/").text
	for _, want := range []string{"ready to use", "psql service=orders", "host=127.0.0.1 port=5433 dbname=shop user=app sslmode=verify-full"} {
		if !strings.Contains(have, want) {
			t.Errorf("%q is not on her page: %s", want, have)
		}
	}
	s := r.begin("orders", "app", "SELECT 1")
	if text := alice.get("/console/").text; !strings.Contains(text, "in use") || !strings.Contains(text, "left, until") || strings.Contains(text, "To the first recorded session") {
		t.Errorf("in use: %s", text)
	}
	if text := alice.get(path).text; !strings.Contains(text, s.ID()) || !strings.Contains(text, "go ahead") {
		t.Errorf("the request: %s", text)
	}
	if longer := alice.post(path+"/extend", url.Values{"duration": {"30m"}, "comment": {"not done"}}); longer.StatusCode != http.StatusOK || !strings.Contains(longer.text, "30 min more") {
		t.Errorf("more time: %s %s", longer.Status, longer.text)
	}
	if text := bob.get("/console/inbox").text; !strings.Contains(text, "30 min more") || !strings.Contains(text, "not done") {
		t.Errorf("an extension in the inbox: %s", text)
	}
	if done := bob.post(path+"/approve", nil); !strings.Contains(done.text, "Approved.") {
		t.Errorf("%s: %s", done.Status, done.text)
	}
	if back := alice.post(path+"/release", nil); !strings.Contains(back.text, "Given back.") || !strings.Contains(back.text, "What you had") {
		t.Errorf("%s: %s", back.Status, back.text)
	}
}

// The register's pages follow each other without gap or repetition.
func TestConsolePagesOfSessions(t *testing.T) {
	r := newRig(t)
	want := map[string]bool{}
	for range 53 {
		want[r.finished("stock", "app")] = true
	}
	carol := r.window("carol")
	older := regexp.MustCompile(`<a href="([^"]+)" rel="next">`)
	path, pages := "/console/sessions?target=stock", 0
	for path != "" {
		page := carol.get(path)
		pages++
		for _, m := range regexp.MustCompile(`<a href="/console/sessions/(s-[^"]+)"`).FindAllStringSubmatch(page.html, -1) {
			if !want[m[1]] {
				t.Errorf("page %d repeats %s, or made it up", pages, m[1])
			}
			delete(want, m[1])
		}
		path = ""
		if m := older.FindStringSubmatch(page.html); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if pages != 2 || len(want) != 0 {
		t.Errorf("%d pages, %d sessions on none of them", pages, len(want))
	}
	if text := carol.get("/console/sessions?target=orders").text; !strings.Contains(text, "No session is like that.") {
		t.Errorf("nothing: %s", text)
	}
}

func TestConsoleAssets(t *testing.T) {
	r := newRig(t)
	b := r.window("")
	for file, kind := range map[string]string{"console.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8", "mark.svg": "image/svg+xml"} {
		page := b.get("/console/assets/" + file)
		if page.StatusCode != http.StatusOK || page.Header.Get("Content-Type") != kind || page.Header.Get("ETag") == "" {
			t.Errorf("%s: %s, %v", file, page.Status, page.Header)
		}
		request, err := http.NewRequest(http.MethodGet, r.url+"/console/assets/"+file, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("If-None-Match", page.Header.Get("ETag"))
		if again := b.send(request); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: %s", file, again.Status)
		}
	}
	for _, file := range []string{"README.txt", "nothing.js", "..%2fconsole.go", "../console.go"} {
		if page := b.get("/console/assets/" + file); page.StatusCode == http.StatusOK && page.Request.URL.Path != "/console/sign-in" {
			t.Errorf("%s: %s", file, page.Status)
		}
	}
}
