package configs

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestSCIM: a token's file stands beside the configuration that names it; a command, which everybody could have run, is no token, nor is
// one written out; and what is matched is one of two attributes.
func TestSCIM(t *testing.T) {
	c := &Config{File: "/etc/sallyport/sallyport.yaml", Providers: []Provider{{SCIM: &SCIM{Token: "file:scim-token"}}}}
	c.resolvePaths()
	if got, want := string(c.Providers[0].SCIM.Token), "file:"+filepath.Join("/etc/sallyport", "scim-token"); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	for _, tt := range []struct {
		scim SCIM
		want string
	}{
		{SCIM{Token: "file:/t"}, ""}, {SCIM{Token: "env:T", Claim: "oid", Attribute: "userName"}, ""},
		{SCIM{}, "scim.token"}, {SCIM{Token: "command:token"}, "scim.token"}, {SCIM{Token: "written-out"}, "scim.token"},
		{SCIM{Token: "env:T", Attribute: "emails"}, "scim.attribute"},
	} {
		var said []string
		validateProvider(func(path, _ string, _ ...any) { said = append(said, path) }, "provider", Provider{Issuer: "https://idp.example", ClientID: "g", Scopes: []string{"openid"}, SCIM: &tt.scim})
		if got := strings.Join(said, " "); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%+v: %q", tt.scim, got)
		}
	}
}
