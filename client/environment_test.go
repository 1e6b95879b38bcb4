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
