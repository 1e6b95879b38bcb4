package configs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const good = `state: state
url: https://gateway.example:8443
listen:
  https: 127.0.0.1:8443
  postgres: 127.0.0.1:6432
  ssh: 127.0.0.1:2222
tls:
  certificate: tls.crt
  key: tls.key
provider:
  issuer: https://login.example
  client_id: sallyport
  client_secret: file:secret
targets:
  - name: orders
    kind: postgres
    address: db.internal:5432
    accounts:
      - name: app
        password: env:ORDERS_PASSWORD
target_files:
  - more.yaml
policies:
  - name: engineers
    groups: [engineers]
    accounts: ["app@orders", "*@web-*"]
    max_duration: 1h
    approve:
      groups: [approvers]
permissions:
  - groups: [security]
    may: ["*"]
`

const more = `targets:
  - name: web-1
    kind: ssh
    address: 10.0.0.7:22
    accounts:
      - name: deploy
`

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "sallyport.yaml")
}

func with(main string) map[string]string {
	return map[string]string{"sallyport.yaml": main, "more.yaml": more, "tls.crt": "x", "tls.key": "x", "secret": "s"}
}

func TestLoad(t *testing.T) {
	path := write(t, with(good))
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Targets) != 2 || c.Targets[1].Name != "web-1" {
		t.Fatalf("targets: %+v", c.Targets)
	}
	if got, want := c.State, filepath.Join(filepath.Dir(path), "state"); got != want {
		t.Errorf("state %s, want %s", got, want)
	}
	if got, want := string(c.Provider.ClientSecret), "file:"+filepath.Join(filepath.Dir(path), "secret"); got != want {
		t.Errorf("secret reference %s, want %s", got, want)
	}
	if c.SSH.Host != "gateway.example:2222" || c.Targets[0].Database != "orders" || c.Targets[0].Durability != Synced ||
		c.Targets[0].TLS.ServerName != "db.internal" {
		t.Errorf("defaults: %+v", c)
	}
	if day := 24 * time.Hour; c.Recording.Keep.D() != 400*day || c.KeepFor("orders").D() != 400*day {
		t.Errorf("recordings are kept for %s", c.Recording.Keep)
	}
	if p := c.Policies[0]; p.MaxDuration.D() != time.Hour || p.DefaultDuration.D() != 30*time.Minute || p.Approve.Count != 1 {
		t.Errorf("policy: %+v", p)
	}
}

// A target's own time to keep recordings counts for it alone, and nobody's recordings go sooner because their target went.
func TestKeepFor(t *testing.T) {
	c, err := Load(write(t, with(strings.Replace(good, "kind: postgres", "kind: postgres\n    keep: 3000d", 1)+"recording: {keep: 30d}\n")))
	if err != nil {
		t.Fatal(err)
	}
	for target, days := range map[string]int{"orders": 3000, "web-1": 30, "gone": 3000} {
		if got := c.KeepFor(target).D(); got != time.Duration(days)*24*time.Hour {
			t.Errorf("%s: %v", target, got)
		}
	}
}

// TestProblems states that every mistake is named with its file, line and what was expected.
func TestProblems(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"unknown key", "client_id: sallyport", "client_idd: sallyport", "sallyport.yaml:12:3: unknown key \"client_idd\""},
		{"unknown key in a list", "kind: postgres", "kindd: postgres", "sallyport.yaml:16:5: unknown key \"kindd\"; in targets the keys are: accounts, address"},
		{"no url", "url: https://gateway.example:8443", "", "url is missing"},
		{"url with a path", "url: https://gateway.example:8443", "url: https://gateway.example:8443/x", "sallyport.yaml:2:6: url is"},
		{"duration", "max_duration: 1h", "max_duration: soon", `"soon" is not a duration`},
		{"kind", "kind: postgres", "kind: mysql", `sallyport.yaml:16:11: kind is "mysql"; it is "postgres" or "ssh"`},
		{"secret in the file", "password: env:ORDERS_PASSWORD", "password: hunter2", "sallyport.yaml:20:19: accounts[0].password is not a reference"},
		{"account of no target", `"app@orders"`, `"root@orders"`, `sallyport.yaml:26:16: target orders has no account "root"`},
		{"no target", `"app@orders"`, `"app@ordres"`, `there is no target "ordres"`},
		{"nobody approves", "      groups: [approvers]", "      count: 1", "approve is missing"},
		{"verb", `may: ["*"]`, `may: ["sessions.kil"]`, `unknown permission "sessions.kil"; the verbs are: grants.list`},
		{"missing file", "more.yaml", "gone.yaml", "sallyport.yaml:22:5: gone.yaml can't be read"},
		{"type", "- name: orders", "- name: [a]", "sallyport.yaml:15"},
		{"tls off", "address: db.internal:5432", "address: db.internal:5432\n    tls: {mode: off}", "loopback addresses only"},
		{"not yaml", "listen:", "listen: [", "sallyport.yaml:"},
		{"kept for minutes", "kind: postgres", "kind: postgres\n    keep: 400m", "sallyport.yaml:17:11: keep is 6h40m; recordings are kept for a day at least"},
		{"no recipient", "kind: postgres", "kind: postgres\n    recipients: [age1nonsense]", `sallyport.yaml:17:18: "age1nonsense" is no age recipient`},
		{"an identity", "kind: postgres", "kind: postgres\n    recipients: [AGE-SECRET-KEY-1ABC]", "sallyport.yaml:17:18: this is an identity, the secret half"},
		{"providers without names", "targets:\n  - name: orders", "providers: [{issuer: https://partner.example, client_id: x}]\ntargets:\n  - name: orders", "where there are several providers each needs a name"},
		{"providers of one issuer", "targets:\n  - name: orders", "providers: [{name: partner, issuer: https://login.example, client_id: x}]\ntargets:\n  - name: orders", "there is another provider with the issuer"},
		{"providers of one name", "  client_secret: file:secret\n", "  client_secret: file:secret\n  name: a\nproviders: [{name: a, issuer: https://partner.example, client_id: x}]\n", "there is another provider named"},
		{"a provider's name that is no part of an address", "  client_id: sallyport\n", "  client_id: sallyport\n  name: a/b\n", "needs a name of lower-case letters"},
		{"another provider's client", "  client_secret: file:secret\n", "  client_secret: file:secret\n  name: a\nproviders: [{name: b, issuer: https://partner.example}]\n", "providers[0].client_id is missing"},
		{"twice", "name: orders", "name: web-1", "there is another target named"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed := strings.Replace(good, test.old, test.new, 1)
			if changed == good {
				t.Fatal("the test changes nothing")
			}
			_, err := Load(write(t, with(changed)))
			if _, ok := errors.AsType[Problems](err); !ok {
				t.Fatalf("got %v, want Problems", err)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got:\n%v\nwant it to contain %q", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats a secret")
			}
		})
	}
}

func TestAllProblemsAreReported(t *testing.T) {
	changed := strings.NewReplacer("kind: postgres", "kind: mysql", "client_id: sallyport", "client_id: ''").Replace(good)
	_, err := Load(write(t, with(changed)))
	if problems, ok := errors.AsType[Problems](err); !ok || len(problems) != 2 {
		t.Fatalf("got %v, want two problems", err)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "30m": 30 * time.Minute, "8h": 8 * time.Hour, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour} {
		got, err := ParseDuration(text)
		if err != nil || got.D() != want {
			t.Errorf("%s: got %v, %v; want %v", text, got.D(), err, want)
		}
		if again, err := ParseDuration(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s, read as %v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "d", "1", "-1h", "1w", "x", "99999d", "1d-5h"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

// A target's own recipients replace those of all, an empty list means none; and what is labelled pii or pci has some.
func TestRecipients(t *testing.T) {
	const one = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
	for _, c := range []struct {
		labels, target, all string
		want                int
		refused             bool
	}{
		{"{data: public}", "", "", 0, false},
		{"{data: pii}", "", "", 0, true},
		{"{data: PCI}", "", "", 0, true},
		{"{pci: \"true\"}", "", "", 0, true},
		{"{pci: \"false\"}", "", "", 0, false},
		{"{data: pii}", "", one, 1, false},
		{"{data: pii}", "recipients: []", one, 0, true},
		{"{data: pii}", "recipients: [" + one + "]", "", 1, false},
	} {
		text := with(strings.Replace(good, "kind: postgres", "kind: postgres\n    labels: "+c.labels+"\n    "+c.target, 1) + "recording: {recipients: [" + c.all + "]}\n")
		config, err := Load(write(t, text))
		if c.refused {
			if err == nil || !strings.Contains(err.Error(), "kept only locked") {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := len(config.RecipientsFor("orders")); got != c.want {
			t.Errorf("%+v: %d recipients", c, got)
		}
	}
}
