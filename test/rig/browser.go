package rig

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Browser does with plain HTTP what a person does in front of one: it keeps cookies, follows redirects and fills in forms.
// The sign-in pages need no more, for they have no script.
type Browser struct {
	Name, Password string // what it fills in at the provider
	HTTP           *http.Client
	t              testing.TB
	home           string // the gateway's URL
}

// Page is where a request ended.
type Page struct {
	URL    *url.URL
	Status int
	Header http.Header
	Text   string
}

// Browser is a new one of alice's, bob's or carol's, which trusts the rig's authority.
func (r *Rig) Browser(person string) *Browser {
	r.t.Helper()
	var passwords map[string]string
	data, err := os.ReadFile(r.Env["SALLYPORT_PASSWORDS"])
	if err == nil {
		err = json.Unmarshal(data, &passwords)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	authority, err := os.ReadFile(r.Env["SALLYPORT_CA"])
	if err != nil {
		r.t.Fatal(err)
	}
	return NewBrowser(r.t, r.Env["SALLYPORT_URL"], authority, person, passwords[person])
}

// NewBrowser is one that trusts that authority beside the system's. Redirects to a program on this machine (/callback on
// plain HTTP) are not followed.
func NewBrowser(t testing.TB, gateway string, authority []byte, name, password string) *Browser {
	t.Helper()
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM(authority)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &Browser{Name: name, Password: password, t: t, home: gateway, HTTP: &http.Client{
		Jar: jar, Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Scheme == "http" && next.URL.Path == "/callback" || len(via) > 20 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}
}

func (b *Browser) do(request *http.Request) Page {
	b.t.Helper()
	answer, err := b.HTTP.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return Page{answer.Request.URL, answer.StatusCode, answer.Header, string(text)}
}

// Get goes to an address, which may be a path below the gateway's.
func (b *Browser) Get(address string) Page {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.absolute(address), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(request)
}

// Post sends a form.
func (b *Browser) Post(address string, form url.Values) Page {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.absolute(address), strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(request)
}

func (b *Browser) absolute(address string) string {
	if strings.HasPrefix(address, "/") {
		return b.home + address
	}
	return address
}

var (
	formTag   = regexp.MustCompile(`(?s)<form\b([^>]*)>(.*?)</form>`)
	inputTag  = regexp.MustCompile(`(?s)<(?:input|button)\b([^>]*)>`)
	fieldTag  = regexp.MustCompile(`(?s)<(input|button)\b([^>]*)>`)
	attribute = regexp.MustCompile(`([a-z-]+)="([^"]*)"`)
	goLink    = regexp.MustCompile(`<a class="go" href="([^"]+)"`)
)

func attributes(tag string) map[string]string {
	found := map[string]string{}
	for _, m := range attribute.FindAllStringSubmatch(tag, -1) {
		found[m[1]] = html.UnescapeString(m[2])
	}
	return found
}

// Submit fills in the page's first form of which every field is named, and sends it: hidden fields as they are, the others
// as given.
func (b *Browser) Submit(p Page, fields url.Values) Page {
	b.t.Helper()
	for _, form := range formTag.FindAllStringSubmatch(p.Text, -1) {
		filled, names := url.Values{}, map[string]bool{}
		for _, tag := range inputTag.FindAllStringSubmatch(form[2], -1) {
			a := attributes(tag[1])
			names[a["name"]] = true
			if a["type"] == "hidden" {
				filled.Set(a["name"], a["value"])
			}
		}
		whole := true
		for name, values := range fields {
			whole = whole && names[name]
			filled[name] = values
		}
		if !whole {
			continue
		}
		to, err := p.URL.Parse(attributes(form[1])["action"])
		if err != nil {
			b.t.Fatal(err)
		}
		if strings.EqualFold(attributes(form[1])["method"], "get") {
			to.RawQuery = filled.Encode()
			return b.Get(to.String())
		}
		return b.Post(to.String(), filled)
	}
	b.t.Fatalf("no form with %v at %s (%d):\n%s", fields, p.URL, p.Status, p.Text)
	return Page{}
}

// SignIn signs the person in at the provider's forms, if p is one of those; a provider that remembers the browser has none.
// Name and password may stand on one page or two, and a page that asks for consent may follow. Where the provider asks for
// the password a second time, that page is returned: it was the wrong one.
func (b *Browser) SignIn(p Page) Page {
	b.t.Helper()
	asked := false
	for range 8 {
		if p.URL.Scheme == "http" && p.URL.Path == "/callback" || strings.HasPrefix(p.URL.String(), b.home) || p.Status >= 300 && p.Status < 400 {
			return p
		}
		form, password := b.fill(p)
		switch {
		case form == nil:
			b.t.Fatalf("no sign-in form at %s (%d):\n%s", p.URL, p.Status, p.Text)
		case password && asked:
			return p
		}
		asked = asked || password
		p = b.Post(form.to, form.fields)
	}
	b.t.Fatalf("the provider's forms have no end: %s (%d):\n%s", p.URL, p.Status, p.Text)
	return Page{}
}

// filled is a form that is ready to be sent.
type filled struct {
	to     string
	fields url.Values
}

// fill fills in a provider's form by the types of its fields: the page's first that has some for a person, else its first.
// password tells whether it asked for one.
func (b *Browser) fill(p Page) (best *filled, password bool) {
	b.t.Helper()
	for _, form := range formTag.FindAllStringSubmatch(p.Text, -1) {
		if !strings.EqualFold(attributes(form[1])["method"], "post") {
			continue
		}
		to, err := p.URL.Parse(attributes(form[1])["action"])
		if err != nil {
			b.t.Fatal(err)
		}
		f, secret, person, pressed := &filled{to.String(), url.Values{}}, false, false, false
		for _, tag := range fieldTag.FindAllStringSubmatch(form[2], -1) {
			a := attributes(tag[2])
			kind := strings.ToLower(a["type"])
			if kind == "" && tag[1] == "button" {
				kind = "submit"
			}
			switch kind {
			case "password":
				f.fields.Set(a["name"], b.Password)
				secret, person = true, true
			case "", "text", "email":
				f.fields.Set(a["name"], b.Name)
				person = true
			case "hidden":
				f.fields.Set(a["name"], a["value"])
			case "submit": // a browser sends the one that is pressed
				if a["name"] != "" && !pressed {
					f.fields.Set(a["name"], a["value"])
				}
				pressed = true
			}
		}
		if best == nil {
			best = f
		}
		if person {
			return f, secret
		}
	}
	return best, false
}

// Go follows the page's one way on.
func (b *Browser) Go(p Page) Page {
	b.t.Helper()
	link := goLink.FindStringSubmatch(p.Text)
	if link == nil {
		b.t.Fatalf("no way on at %s (%d):\n%s", p.URL, p.Status, p.Text)
	}
	to, err := p.URL.Parse(html.UnescapeString(link[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Get(to.String())
}
