package job

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJobTokenFile: a token is read in bounds, without what stands around it.
func TestJobTokenFile(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		text, want string
	}{
		"plain":     {"a.b.c", "a.b.c"},
		"lines":     {"\n a.b.c\r\n", "a.b.c"},
		"empty":     {"\n", ""},
		"oversized": {strings.Repeat("x", maxJobToken+1), ""},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Token(t.Context(), filepath.Join(dir, name), "https://g")
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestJobTokenOfGitHub is not asked for over anything but TLS: the request carries a secret.
func TestJobTokenOfGitHub(t *testing.T) {
	for _, name := range Secret {
		t.Setenv(name, "")
	}
	t.Setenv(envGitHubURL, "http://127.0.0.1:1/token")
	t.Setenv(envGitHubToken, "canary")
	if _, err := Token(t.Context(), "", "https://g"); err == nil || !strings.Contains(err.Error(), "no https:// address") || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
	t.Setenv(envIDToken, " token ")
	if got, err := Token(t.Context(), "", "https://g"); got != "token" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
