package configs

import (
	"strings"
	"testing"
)

const ephemeralTarget = `      - name: maker
        password: env:MAKER
      - name: read
        ephemeral: true
        member_of: [orders_read]
`

func TestEphemeralAccounts(t *testing.T) {
	text := strings.Replace(good, "        password: env:ORDERS_PASSWORD\n", "        password: env:ORDERS_PASSWORD\n"+ephemeralTarget+"    make_roles_with: maker\n", 1)
	c, err := Load(write(t, map[string]string{"sallyport.yaml": text, "more.yaml": more, "tls.crt": "", "tls.key": "", "secret": "x"}))
	if err != nil {
		t.Fatal(err)
	}
	target := c.Targets[0]
	if a := target.Accounts[2]; !target.Ephemeral() || target.Heir != "sallyport_estate" || a.ConnectionLimit != 5 || len(a.MemberOf) != 1 {
		t.Errorf("%+v", target)
	}
	for name, change := range map[string]struct{ from, to, says string }{
		"no maker":             {"    make_roles_with: maker\n", "", "make_roles_with"},
		"an unknown maker":     {"make_roles_with: maker", "make_roles_with: nobody", `there is no "nobody"`},
		"itself the maker":     {"make_roles_with: maker", "make_roles_with: read", "is itself made for each grant"},
		"no groups":            {"        member_of: [orders_read]\n", "", "member_of is missing"},
		"a group that is ours": {"[orders_read]", "[sp_abc_1]", "roles made for one grant"},
		"a group with quotes":  {"[orders_read]", `['a"b']`, "a role's name is"},
		"the heir as group":    {"[orders_read]", "[sallyport_estate]", "is the heir"},
		"a password":           {"ephemeral: true", "ephemeral: true\n        password: env:X", "made for each grant"},
		"replication":          {"ephemeral: true", "ephemeral: true\n        replication: true", "does not replicate"},
		"too many connections": {"ephemeral: true", "ephemeral: true\n        connection_limit: 100000", "it is 1 to"},
		"one that is not":      {"ephemeral: true", "ephemeral: false", "are for accounts with ephemeral: true"},
		"the end by the maker": {"make_roles_with: maker", "make_roles_with: maker\n    end_with: maker", "two accounts"},
		"the end by its role":  {"make_roles_with: maker", "make_roles_with: maker\n    end_with: read", "always there"},
	} {
		changed := strings.Replace(text, change.from, change.to, 1)
		if changed == text {
			t.Fatalf("%s changes nothing", name)
		}
		_, err := Load(write(t, map[string]string{"sallyport.yaml": changed, "more.yaml": more, "tls.crt": "", "tls.key": "", "secret": "x"}))
		if err == nil || !strings.Contains(err.Error(), change.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
