package authn

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// What a request says of the host, of proxies before it and of where it comes from is nothing that the issuer believes: its
// addresses are the configured ones, and who asks is who is connected.
func TestHeadersAreNotBelieved(t *testing.T) {
	r := newRig(t)
	ask := func(method, path string, form url.Values) string {
		t.Helper()
		request := must(http.NewRequest(method, r.server.URL+path, strings.NewReader(form.Encode())))(t)
		request.Host = "evil.example"
		if form != nil {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for name, value := range map[string]string{
			"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "Forwarded": "for=203.0.113.9;host=evil.example", "X-Forwarded-For": "203.0.113.9",
			"X-Real-IP": "203.0.113.9", "X-Original-URL": "/oauth/evil.example", "Origin": "https://evil.example", "Referer": "https://evil.example/",
		} {
			request.Header.Set(name, value)
		}
		client := *r.server.Client()
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		answer := must(client.Do(request))(t)
		defer answer.Body.Close()
		text := must(io.ReadAll(answer.Body))(t)
		all := string(text)
		for name, values := range answer.Header {
			all += "\n" + name + ": " + strings.Join(values, ", ")
		}
		if strings.Contains(all, "evil.example") || answer.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s believes a header:\n%s", method, path, all)
		}
		return string(text)
	}
	if text := ask(http.MethodGet, pathDiscovery, nil); !strings.Contains(text, `"issuer":"`+r.server.URL+`"`) {
		t.Errorf("another issuer: %s", text)
	}
	f := r.flow()
	ask(http.MethodGet, strings.TrimPrefix(f.address(), r.server.URL), nil)
	ask(http.MethodGet, "/oauth/nothing", nil)
	if text := ask(http.MethodPost, pathDeviceRequest, url.Values{"client_id": {"sallyport-cli"}}); !strings.Contains(text, r.server.URL+pathDevice) {
		t.Errorf("another address to go to: %s", text)
	}
	var from string
	if err := r.store.Read().QueryRow(`SELECT address FROM devices`).Scan(&from); err != nil || from != "127.0.0.1" {
		t.Errorf("asked from %q, %v", from, err)
	}
}
