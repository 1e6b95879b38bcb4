//go:build unix

package attacks

import (
	"bytes"
	"crypto/tls"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// drips opens connections to every listener and sends what never becomes whole, a byte every fifth of a second, so that none is ever
// silent: the gateway's deadlines are for the whole, not for the next byte. It returns what waits until all were cut.
func (s *scene) drips(t *testing.T, patience time.Duration) (wait func()) {
	plain := func(address string) func() (net.Conn, error) {
		return func() (net.Conn, error) { return net.DialTimeout("tcp", address, patience) }
	}
	secured := func(address string, hello []byte) func() (net.Conn, error) {
		return func() (net.Conn, error) {
			raw, err := plain(address)()
			if err != nil {
				return nil, err
			}
			if len(hello) > 0 {
				_, err = raw.Write(hello)
				if err == nil {
					_, err = io.ReadFull(raw, make([]byte, 1))
				}
			}
			conn := tls.Client(raw, &tls.Config{ServerName: "localhost", RootCAs: s.roots(), MinVersion: tls.VersionTLS12})
			if err == nil {
				err = conn.Handshake()
			}
			return conn, err
		}
	}
	request := []byte{0, 0, 0, 8, 4, 210, 22, 47} // for TLS
	long := []byte{0, 0, 0x27, 0x10, 0, 3, 0, 0}  // a start-up of 10,000 bytes
	all := &sync.WaitGroup{}
	for name, c := range map[string]struct {
		open func() (net.Conn, error)
		head []byte
	}{
		"postgres: a start-up":           {plain(s.orders), long},
		"postgres: TLS":                  {plain(s.postgres), append(request, 0x16, 3, 1, 0x3f, 0)},
		"postgres: a start-up in TLS":    {secured(s.orders, request), long},
		"ssh: a first line":              {plain(s.ssh), []byte("SSH-2.0-")},
		"ssh: lines before it":           {plain(s.ssh), []byte("hello\r\nhello\r\nhello\r\n")},
		"ssh: a packet":                  {plain(s.ssh), []byte("SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x40\x00\x05\x14")},
		"https: TLS":                     {plain(s.https), []byte{0x16, 3, 1, 0x3f, 0}},
		"https: headers":                 {secured(s.https, nil), []byte("GET / HTTP/1.1\r\nHost: localhost\r\nX-More: ")},
		"https: the body of a form":      {secured(s.https, nil), []byte("POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\n")},
		"https: a body without a length": {secured(s.https, nil), []byte("POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n")},
	} {
		all.Go(func() {
			conn, err := c.open()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer conn.Close()
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				_, _ = io.Copy(io.Discard, conn) // until it is cut
			}()
			end := time.After(patience)
			drop := time.NewTicker(200 * time.Millisecond)
			defer drop.Stop()
			for next := c.head; ; next = []byte("x") {
				if _, err := conn.Write(next); err != nil {
					return
				}
				select {
				case <-closed:
					return
				case <-end:
					t.Errorf("%s: dripped for %s, and it is still open", name, patience)
					return
				case <-drop.C:
				}
			}
		})
	}
	return all.Wait
}

// smuggle sends requests whose end two programs may see in different places. The gateway answers once, no, and hangs up: what stands
// behind, which a program in front of it may have taken for the body, is never a request.
func (s *scene) smuggle(t *testing.T) {
	const behind = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
	post := "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
	for name, request := range map[string]string{
		"two lengths":                 post + "Content-Length: 0\r\nContent-Length: 43\r\n\r\n" + behind,
		"two lengths in one":          post + "Content-Length: 0, 43\r\n\r\n" + behind,
		"a length with a sign":        post + "Content-Length: +0\r\n\r\n" + behind,
		"a length that is none":       post + "Content-Length: 0x0\r\n\r\n" + behind,
		"an unknown coding":           post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + behind,
		"two codings":                 post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + behind,
		"a coding twice":              post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + behind,
		"a space before the colon":    post + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + behind,
		"a control character":         post + "Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + behind,
		"a NUL in a name":             post + "X\x00Y: 1\r\nContent-Length: 0\r\n\r\n" + behind,
		"a chunk whose size is none":  post + "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + behind,
		"a chunk of a huge size":      post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff0\r\n\r\n" + behind,
		"a line feed alone in a size": post + "Transfer-Encoding: chunked\r\n\r\n5;x\n\r\n0\r\n\r\n" + behind,
	} {
		answer := s.raw(t, request)
		if n := strings.Count(answer, "HTTP/1.1 "); n != 1 || !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 5") {
			t.Errorf("%s: %d answers:\n%.2000s", name, n, answer)
		}
	}
	s.undisturbed()
}

// origins: no page of another site is allowed to read an answer, and what a signed-in browser sends along does nothing for it.
func (s *scene) origins(t *testing.T) {
	const evil = "https://evil.example"
	ask := func(b *http.Client, method, path string, form url.Values, headers ...string) (status int, header http.Header, text string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, s.Env["SALLYPORT_URL"]+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		if form != nil {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for i := 0; i < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		answer, err := b.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, answer.Header, string(body)
	}
	b := s.Browser("carol")
	if page := b.SignIn(b.Get("/console/sign-in/start")); page.Status != http.StatusOK || page.URL.Path != "/console/" {
		t.Fatalf("carol is not signed in: %d at %s", page.Status, page.URL)
	}
	for _, path := range []string{
		"/", "/v1/gateway", "/v1/me", "/v1/sessions", "/v1/events", "/v1/audit", "/openapi.json", "/oauth/token", "/oauth/userinfo", "/oauth/device", "/.well-known/openid-configuration",
		"/log/checkpoint", "/console/", "/console/sessions", "/console/audit", "/download/", "/scim/",
	} {
		for _, method := range []string{http.MethodGet, http.MethodOptions} {
			_, header, _ := ask(b.HTTP, method, path, nil, "Origin", evil, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization", "Sec-Fetch-Site", "cross-site")
			for name := range header {
				if strings.HasPrefix(name, "Access-Control-Allow-") {
					t.Errorf("%s %s: %s: %s", method, path, name, header[name])
				}
			}
		}
	}
	// Her cookies are for the console's pages. The API takes none.
	for _, path := range []string{"/v1/me", "/v1/sessions", "/v1/audit", "/v1/events"} {
		if status, _, text := ask(b.HTTP, http.MethodGet, path, nil); status != http.StatusUnauthorized {
			t.Errorf("%s by a cookie: %d %.500s", path, status, text)
		}
	}
	page := b.Get("/console/")
	csrf := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(page.Text)
	if csrf == nil {
		t.Fatalf("the console's page has no form:\n%s", page.Text)
	}
	form := url.Values{"csrf": {csrf[1]}}
	for name, headers := range map[string][]string{
		"another site":               {"Origin", evil, "Sec-Fetch-Site", "cross-site"},
		"a site beside it":           {"Origin", strings.Replace(s.Env["SALLYPORT_URL"], "localhost", "evil.localhost", 1), "Sec-Fetch-Site", "same-site"},
		"an old browser on it":       {"Origin", evil},
		"no origin, which says null": {"Origin", "null"},
	} {
		if status, _, text := ask(b.HTTP, http.MethodPost, "/console/sign-out", form, headers...); status != http.StatusForbidden {
			t.Errorf("a form of %s: %d %.500s", name, status, text)
		}
	}
	if status, _, text := ask(b.HTTP, http.MethodPost, "/console/sign-out", url.Values{"csrf": {"x" + csrf[1][1:]}}, "Origin", s.Env["SALLYPORT_URL"], "Sec-Fetch-Site", "same-origin"); status != http.StatusForbidden {
		t.Errorf("a form with another's token: %d %.500s", status, text)
	}
	if page := b.Get("/console/"); page.URL.Path != "/console/" || page.Status != http.StatusOK {
		t.Errorf("carol was signed out by them: %d at %s", page.Status, page.URL)
	}

	// Wherever somebody is sent after a sign-in, it is here.
	for _, next := range []string{
		evil, "//evil.example/", `/\evil.example/`, "/\t/evil.example", "/console/\r\nLocation: " + evil,
	} {
		b := s.Browser("carol")
		page := b.SignIn(b.Get("/console/sign-in/start?next=" + url.QueryEscape(next)))
		if !strings.HasPrefix(page.URL.String(), s.Env["SALLYPORT_URL"]+"/") || strings.Contains(page.Header.Get("Location"), "evil.example") && !strings.HasPrefix(page.Header.Get("Location"), "/console/") {
			t.Errorf("next=%q leads to %s, %q", next, page.URL, page.Header.Get("Location"))
		}
	}
	s.undisturbed()
}

// traverse asks for the gateway's own files by every route that has a file's name in it, with the rights of somebody who may read a lot.
func (s *scene) traverse(t *testing.T) {
	secrets := map[string][]byte{"sallyport.yaml": []byte("\npermissions:\n")}
	err := filepath.WalkDir(s.Path("keys"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasSuffix(path, ".pub") {
			return err
		}
		content, err := os.ReadFile(path)
		if lines := bytes.Split(content, []byte("\n")); len(lines) > 1 && len(lines[1]) > 20 {
			secrets[path] = lines[1] // the first is the same in many
		} else if len(content) > 20 {
			secrets[path] = content
		}
		return err
	})
	if err != nil || len(secrets) < 5 {
		t.Fatalf("%d secrets, %v", len(secrets), err)
	}
	token := s.token(t, "carol")
	for _, up := range []string{"..", "%2e%2e", "..%2f..", "..%5c..", "%252e%252e%252f.."} {
		for _, room := range []string{"/download/", "/log/", "/log/tile/entries/", "/console/assets/", "/v1/sessions/", "/scim/"} {
			for _, file := range []string{"/keys/log", "/../../../../../../etc/passwd"} {
				answer := s.raw(t, "GET "+room+up+file+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+token+"\r\nConnection: close\r\n\r\n")
				for name, secret := range secrets {
					if strings.Contains(answer, string(secret)) {
						t.Errorf("%s stands in the answer to %s", name, room+up+file)
					}
				}
				if strings.HasPrefix(answer, "HTTP/1.1 2") || strings.Contains(answer, "root:x:") {
					t.Errorf("%s: %.500s", room+up+file, answer)
				}
			}
		}
	}
	for _, id := range []string{"../keys/log", "../../keys/log", "..%2f..%2fkeys%2flog", s.Path("keys", "log"), ".", ".."} {
		for _, verb := range []string{"export", "replay", "evidence"} {
			out := s.As("carol", verb, id)
			if out.Code == 0 || strings.Contains(out.Text(), "PRIVATE KEY") {
				t.Errorf("%s %s: exit %d\n%s", verb, id, out.Code, out.Text())
			}
		}
	}
	s.undisturbed()
}

// token is the access token in somebody's home.
func (s *scene) token(t *testing.T, person string) string {
	t.Helper()
	if out := s.As(person, "whoami"); out.Code != 0 { // renews it where that is due
		t.Fatal(out.Text())
	}
	token := ""
	err := filepath.WalkDir(s.Env["SALLYPORT_HOME_"+strings.ToUpper(person)], func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".json" {
			return err
		}
		content, err := os.ReadFile(path)
		if m := regexp.MustCompile(`"access_token"\s*:\s*"([^"]{20,})"`).FindSubmatch(content); m != nil {
			token = string(m[1])
		}
		return err
	})
	if err != nil || token == "" {
		t.Fatalf("no token in %s's home: is it kept elsewhere now? %v", person, err)
	}
	return token
}
