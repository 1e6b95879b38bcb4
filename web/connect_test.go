package web_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The page for people with nothing installed is public, says complete lines, and repeats nothing from its address that is
// no name.
func TestConnectPage(t *testing.T) {
	r := newRig(t)
	get := func(query string) (string, http.Header) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: r.tls}}
		defer client.CloseIdleConnections()
		answer, err := client.Get(r.url + "/connect" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", answer.Status, err)
		}
		return string(text), answer.Header
	}
	text, header := get("?target=orders&account=app")
	for _, want := range []string{
		"dbname=orders", "user=app oauth_issuer=", "oauth_client_id=sallyport-psql", "user=app&#43;sso", "jdbc:postgresql://", "app@orders@", "@cert-authority ", "SHA256:",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if csp := header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
	for _, bad := range []string{"%3Cscript%3E", "a%22%20b", "%24(id)", "a%0Ab", "-oProxyCommand%3Dx", strings.Repeat("a", 100)} {
		if text, _ := get("?target=" + bad + "&account=" + bad); !strings.Contains(text, "ACCOUNT@TARGET@") {
			t.Errorf("%s is repeated", bad)
		}
	}
	if text, _ := get("?target=nowhere"); !strings.Contains(text, "dbname=nowhere") { // what is there and what is not look the same
		t.Error("names can be tried out")
	}
}
