package ssh

import (
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/grant"
)

// The certificate that a target sees is for one grant: it names the account's principal alone, ends with the grant if that ends within
// minutes, and is good from the gateway's address only. An extension needs no other: the session goes on.
func TestACertificateIsForOneGrant(t *testing.T) {
	r := newRig(t)
	seen := func(c *xssh.Client) *xssh.Certificate {
		t.Helper()
		session := must(c.NewSession())(t)
		defer session.Close()
		out := must(session.Output("cat \"$SSH_USER_AUTH\""))(t) // sshd's ExposeAuthInfo
		_, text, found := strings.Cut(strings.TrimSpace(string(out)), " ")
		if !found {
			t.Fatalf("the target saw %q", out)
		}
		public, _, _, _, err := xssh.ParseAuthorizedKey([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return public.(*xssh.Certificate)
	}
	const length = 90 * time.Second // less than a certificate lasts by itself
	g := must(r.grants.Request(t.Context(), r.alice, grant.Ask{Target: "web-1", Account: "me", Duration: length, Reason: "test"}))(t)
	client := r.client("me@web-1")
	c := seen(client)
	g = must(r.grants.Get(t.Context(), r.alice, g.ID))(t)
	if ends := time.Unix(int64(c.ValidBefore), 0); ends.After(g.Until) || !ends.After(g.From) {
		t.Errorf("it ends at %s, the grant at %s", ends, g.Until)
	}
	if len(c.ValidPrincipals) != 1 || c.ValidPrincipals[0] != r.account {
		t.Errorf("it is for %q", c.ValidPrincipals)
	}
	if len(c.CriticalOptions) != 1 || c.CriticalOptions["source-address"] != "127.0.0.1" {
		t.Errorf("its critical options are %v", c.CriticalOptions)
	}
	if !strings.HasSuffix(c.KeyId, "grant="+g.ID) {
		t.Errorf("it is of %q", c.KeyId)
	}
	// The grant is given more time; the session that lives has it at once.
	longer := must(r.grants.Extend(t.Context(), r.alice, g.ID, time.Hour, "not done yet"))(t)
	if !longer.Until.Equal(g.Until.Add(time.Hour)) {
		t.Fatalf("%+v", longer)
	}
	if again := seen(client); again.Serial != c.Serial {
		t.Errorf("the connection has another certificate")
	}
	if another := seen(r.client("me@web-1")); another.Serial == c.Serial || time.Until(time.Unix(int64(another.ValidBefore), 0)) > certificateTime {
		t.Errorf("another connection has serial %d, which ends at %d", another.Serial, another.ValidBefore)
	}

	// The target enforces what the role says a second time.
	if _, ok := c.Extensions["permit-pty"]; !ok || len(c.Extensions) != 1 {
		t.Errorf("it permits %v", c.Extensions)
	}
	if c := seen(r.client(r.role("one", configs.SSHLimits{Commands: []string{"cat \"$SSH_USER_AUTH\""}}))); len(c.Extensions) != 0 {
		t.Errorf("for a role with certain commands it permits %v", c.Extensions)
	}
	on := true
	if c := seen(r.client(r.role("more", configs.SSHLimits{Agent: &on, Forward: []string{"db:5432"}}))); len(c.Extensions) != 3 {
		t.Errorf("for a role that forwards it permits %v", c.Extensions)
	}

	// It is the target that holds it to the address.
	r.grant("me", "moved")
	if _, said, status := r.ssh("", "me@moved@gw", "true"); status == 0 || !strings.Contains(said, "did not let the gateway in") {
		t.Errorf("from another address: %d %s", status, said)
	}
	r.grant("me", "far")
	if c := seen(r.client("me@far")); len(c.CriticalOptions) != 0 {
		t.Errorf("from anywhere: %v", c.CriticalOptions)
	}
}
