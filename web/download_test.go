package web_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDownload: the release of the gateway's own version is there for everybody, and nothing else is.
func TestDownload(t *testing.T) {
	r := newRig(t)
	get := func(path string, headers ...string) (int, string, http.Header) {
		t.Helper()
		request, err := http.NewRequest(http.MethodGet, r.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.URL.Opaque = path // as it stands, with its dots
		for i := 0; i+1 < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		answer, err := r.client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body), answer.Header
	}
	if status, _, _ := get("/download/"); status != http.StatusNotFound {
		t.Errorf("without releases: %d", status)
	}
	r.config.Releases = t.TempDir()
	own, other := filepath.Join(r.config.Releases, "test"), filepath.Join(r.config.Releases, "v2")
	for path, text := range map[string]string{
		filepath.Join(own, "sallyport_linux_amd64"): strings.Repeat("binary", 1000), filepath.Join(own, "SHA256SUMS"): "sums", filepath.Join(own, "notes.txt"): "ours",
		filepath.Join(own, "sallyport_dir", "x"): "x", filepath.Join(other, "sallyport_linux_arm64"): "another version's", filepath.Join(r.config.Releases, "secret"): "secret",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(r.config.Releases, "secret"), filepath.Join(own, "sallyport_link")); err != nil {
		t.Fatal(err)
	}
	status, text, headers := get("/download/sallyport_linux_amd64")
	if status != http.StatusOK || text != strings.Repeat("binary", 1000) || headers.Get("Content-Type") != "application/octet-stream" || headers.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d, %d bytes, %v", status, len(text), headers)
	}
	if status, text, _ := get("/download/sallyport_linux_amd64", "Range", "bytes=6-11"); status != http.StatusPartialContent || text != "binary" {
		t.Errorf("a part: %d %q", status, text)
	}
	if status, text, _ := get("/download/"); status != http.StatusOK || !strings.Contains(text, "sallyport_linux_amd64") || strings.Contains(text, "notes") || strings.Contains(text, "link") {
		t.Errorf("the list: %d %s", status, text)
	}
	for _, path := range []string{
		"/download/notes.txt", "/download/sallyport_link", "/download/sallyport_dir", "/download/sallyport_dir/x", "/download/sallyport_linux_arm64", "/download/../secret",
		"/download/..%2fsecret", "/download/%2e%2e%2fsecret", "/download/sallyport_..%2f..%2fsecret", "/download/../v2/sallyport_linux_arm64", "/download//etc/passwd",
	} {
		if status, text, _ := get(path); status == http.StatusOK || strings.Contains(text, "secret\n") || strings.Contains(text, "another") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}
