package client

import (
	"strings"
	"testing"

	"sallyport/configs"
	"sallyport/web/api"
)

// TestVariables: the first target's under the plain names, each under its prefix, a second account under its own.
func TestVariables(t *testing.T) {
	targets := []api.Connection{
		{Name: "web-1", Kind: configs.KindSSH, Accounts: []string{"deploy", "root"}, Host: "g", Port: 22},
		{Name: "stock.eu", Kind: configs.KindPostgres, Accounts: []string{"app"}, Host: "g", Port: 1, Database: "stock"},
		{Name: "orders", Kind: configs.KindPostgres, Accounts: []string{"app", "owner"}, Host: "g", Port: 2, Database: "shop"},
	}
	asked := []Account{{"owner", "orders"}, {"app", "stock.eu"}, {"app", "orders"}, {"deploy", "web-1"}}
	kept, err := narrow(targets, asked)
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) != 3 || kept[0].Name != "orders" || strings.Join(kept[0].Accounts, " ") != "owner app" || strings.Join(kept[2].Accounts, " ") != "deploy" {
		t.Errorf("%+v", kept)
	}
	if strings.Join(targets[2].Accounts, " ") != "app owner" {
		t.Error("what the gateway said was changed")
	}
	if _, err := narrow(targets, []Account{{"app", "nowhere"}}); err == nil {
		t.Error("a target that there is none of was found")
	}
	r := &run{client: &Client{home: Home{Dir: "/tmp/it's here"}}}
	got := map[string]string{}
	for _, v := range r.variables(api.Certificates{Targets: kept}) {
		if _, twice := got[v[0]]; twice {
			t.Errorf("%s is set twice", v[0])
		}
		got[v[0]] = v[1]
	}
	for name, want := range map[string]string{
		"PGUSER": "owner", "PGDATABASE": "shop", "PGSSLROOTCERT": "system", "ORDERS_PGUSER": "owner", "ORDERS_APP_PGUSER": "app", "STOCK_EU_PGUSER": "app", "STOCK_EU_PGPORT": "1",
		"SALLYPORT_SSH_CONFIG": "/tmp/it's here/ssh_config", "GIT_SSH_COMMAND": `ssh -F '/tmp/it'\''s here/ssh_config'`,
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if !strings.HasPrefix(got["ORDERS_APP_DATABASE_URL"], "postgresql://app@g:2/shop?") || got["DATABASE_URL"] != got["ORDERS_DATABASE_URL"] {
		t.Errorf("%v", got)
	}
	if only := (&run{client: r.client}).variables(api.Certificates{Targets: kept[2:]}); len(only) != 4 {
		t.Errorf("for SSH alone: %v", only)
	}
}

// TestJobTokenFile: a token is read in bounds, without what stands around it.
func TestJobTokenFile(t *testing.T) {
	h := Home{Dir: t.TempDir()}
	for name, test := range map[string]struct {
		text, want string
	}{
		"plain":     {"a.b.c", "a.b.c"},
		"lines":     {"\n a.b.c\r\n", "a.b.c"},
		"empty":     {"\n", ""},
		"oversized": {strings.Repeat("x", maxJobToken+1), ""},
	} {
		if err := h.write(name, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := jobToken(t.Context(), h.Path(name), "https://g")
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestJobTokenOfGitHub is not asked for over anything but TLS: the request carries a secret.
func TestJobTokenOfGitHub(t *testing.T) {
	for _, name := range []string{envToken, envIDToken} {
		t.Setenv(name, "")
	}
	t.Setenv(envGitHubURL, "http://127.0.0.1:1/token")
	t.Setenv(envGitHubToken, "canary")
	if _, err := jobToken(t.Context(), "", "https://g"); err == nil || !strings.Contains(err.Error(), "no https:// address") || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
	t.Setenv(envIDToken, " token ")
	if got, err := jobToken(t.Context(), "", "https://g"); got != "token" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
