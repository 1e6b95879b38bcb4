package console

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"sallyport/grant"
)

//go:embed templates/*.html
var templateFiles embed.FS

// templates are the pages by file name, each with the layout. They escape by themselves; nothing is marked as safe.
var templates = func() map[string]*template.Template {
	layout := template.Must(template.New("layout.html").Funcs(words).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
	pages := map[string]*template.Template{}
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is right
	}
	for _, name := range names {
		if base := path.Base(name); base != "layout.html" && base != "parts.html" {
			pages[base] = template.Must(template.Must(layout.Clone()).ParseFS(templateFiles, name))
		}
	}
	return pages
}()

// page is what a template gets.
type page struct {
	Title string
	Path  string // of the navigation's entry that it belongs to
	Who   string // empty: nobody is signed in
	CSRF  string
	Nav   []entry
	Done  string // what was just done, in a sentence
	// Player is set on a page that has the terminal player, whose program is compiled in the browser.
	Player bool
	// Watch is set on a page that follows a live session instead of replaying it.
	Watch bool
	// Keys is set on the page that has the browser make a key.
	Keys bool
	// Back is the page that a form was sent from, where a new sign-in leads back to.
	Back string
	Body any
}

// entry is one of the navigation.
type entry struct {
	Path, Name string
	Current    bool
}

// done are the sentences that follow a deed, by the word in the address.
var done = map[string]string{
	"asked":   "Your request is filed.",
	"approve": "Approved.",
	"deny":    "Denied.",
	"release": "Given back.",
	"extend":  "Asked for more time.",
	"review":  "Noted that you looked at it.",
	"revoke":  "Revoked: its sessions end now.",
	"kill":    "The session is cut.",

	"key-enrolled": "The key is enrolled.",
	"key-removed":  "The key is removed. What it was used to sign in has ended.",

	"policies-confirm": "Confirmed: the configuration is read again, and they come into force.",
	"policies-reject":  "Rejected: they do not come into force.",
}

// navigation lists what is worth showing to somebody; what it leaves out is refused all the same.
func (s *server) navigation(who Caller, current string) []entry {
	all := []entry{{Path: "/console/", Name: "Access"}}
	if s.Desk.Approves(who.Identity) {
		all = append(all, entry{Path: "/console/inbox", Name: "Inbox"})
	}
	all = append(all, entry{Path: "/console/sessions", Name: "Sessions"}, entry{Path: "/console/grants", Name: "Grants"}, entry{Path: "/console/policies", Name: "Policies"})
	if s.maySome(who, grant.ReadRecordings) {
		all = append(all, entry{Path: "/console/search", Name: "Search"})
	}
	if s.Desk.May(who.Identity, grant.ReadRecordings, "") {
		all = append(all, entry{Path: "/console/audit", Name: "Audit"})
	}
	if s.Desk.May(who.Identity, grant.VerifyLog, "") {
		all = append(all, entry{Path: "/console/verify", Name: "Verify"}, entry{Path: "/console/health", Name: "Health"})
	}
	if s.Authn.TakesKeys() {
		all = append(all, entry{Path: keysPath, Name: "Your keys"})
	}
	for i := range all {
		all[i].Current = all[i].Path == current
	}
	return all
}

// maySome says whether somebody has a permission for everything or for any target there is.
func (s *server) maySome(who Caller, permission grant.Permission) bool {
	if s.Desk.May(who.Identity, permission, "") {
		return true
	}
	for target := range s.Desk.Targets() {
		if s.Desk.May(who.Identity, permission, target) {
			return true
		}
	}
	return false
}

// show renders a page, whole before the first byte goes out.
func (s *server) show(v *visit, status int, name string, p page) {
	if v.who.Subject != "" {
		p.Who, p.CSRF, p.Nav = v.who.Label(), v.keys.token(), s.navigation(v.who, p.Path)
		p.Done = done[v.URL.Query().Get("done")]
	}
	var rendered bytes.Buffer
	if err := templates[name].ExecuteTemplate(&rendered, "layout.html", p); err != nil {
		s.Log.Error("a page of the console can't be rendered", "page", name, "error", err)
		http.Error(v.w, "the gateway failed to show this page; its log says why", http.StatusInternalServerError)
		return
	}
	h := v.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if p.Player {
		h.Set("Content-Security-Policy", policy(" 'wasm-unsafe-eval'"))
	}
	if err := http.NewResponseController(v.w).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		s.Log.Debug("no write deadline", "error", err)
	}
	v.w.WriteHeader(status)
	_, _ = rendered.WriteTo(v.w) // an error is the browser going away
}

// fragment renders a part of a page.
func (s *server) fragment(v *visit, name, part string, body any) {
	var rendered bytes.Buffer
	if err := templates[name].ExecuteTemplate(&rendered, part, body); err != nil {
		s.Log.Error("a part of a page of the console can't be rendered", "page", name, "part", part, "error", err)
		http.Error(v.w, "the gateway failed to show this; its log says why", http.StatusInternalServerError)
		return
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = rendered.WriteTo(v.w) // an error is the browser going away
}

// words are the templates' functions.
var words = template.FuncMap{
	"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"utc":      func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"left":     func(t time.Time) string { return span(time.Until(t)) },
	"span":     span,
	"took":     took,
	"clock":    clock,
	"seconds":  func(at time.Duration) string { return fmt.Sprintf("%.3f", at.Seconds()) },
	"join":     strings.Join,
	"ending":   ending,
	"state":    func(s string) string { return states[s] },
	"sentence": sentence,
	"plain":    plain,
	"size":     size,
	"prefix":   func(s string) string { return s[:min(len(s), 12)] },
}
