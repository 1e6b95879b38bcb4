package example

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/configs"
)

// TestInitializedConfigurationLoads states that what init writes is complete but for the files an installation brings.
func TestInitializedConfigurationLoads(t *testing.T) {
	dir := t.TempDir()
	in := Installation{Host: "gateway.example", State: "/var/lib/sallyport", Issuer: "https://login.example", Certificate: "tls.crt", Key: "tls.key", CA: "ca.crt"}
	paths, err := Write(dir, in)
	if err != nil || len(paths) != 3 {
		t.Fatal(paths, err)
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt", "orders-ca.crt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := configs.Load(filepath.Join(dir, "sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Targets) != 2 || len(c.Policies) != 1 || c.SSH.Host != "gateway.example:2222" {
		t.Errorf("%+v", c)
	}
	if _, err := Write(dir, in); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a second time: %v", err)
	}
}
