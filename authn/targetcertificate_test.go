package authn

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
)

func TestTargetCertificate(t *testing.T) {
	r := newRig(t)
	login := TargetLogin{Principal: "deploy", KeyID: "Alice\n sess=1 grant=g-1", Source: "192.0.2.0/24", Expires: r.now().Add(time.Hour)}
	signer, serial, err := r.TargetCertificate(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	c := signer.PublicKey().(*ssh.Certificate)
	checker := ssh.CertChecker{SupportedCriticalOptions: []string{"source-address"}}
	if err := checker.CheckCert("deploy", c); err != nil {
		t.Fatal(err)
	}
	life := time.Unix(int64(c.ValidBefore), 0).Sub(r.now())
	if !bytes.Equal(c.SignatureKey.Marshal(), r.TargetAuthority().Marshal()) || len(c.ValidPrincipals) != 1 || c.Serial != serial || serial == 0 ||
		c.KeyId != "Alice_ sess=1 grant=g-1" || c.CriticalOptions["source-address"] != "192.0.2.0/24" || life > 2*time.Minute || life < time.Minute {
		t.Fatalf("%+v, good for %s", c, life)
	}
	if _, pty := c.Extensions["permit-pty"]; !pty || len(c.Extensions) != 1 {
		t.Fatalf("extensions %v", c.Extensions)
	}
	if _, err := r.UserCertificate(t.Context(), c); !refusal.Is(err, refusal.NotAuthenticated) {
		t.Fatalf("what targets trust is taken here: %v", err)
	}

	login.PortForwarding, login.AgentForwarding, login.NoTerminal, login.Source, login.Expires = true, true, true, "", r.now().Add(30*time.Second)
	other, _, err := r.TargetCertificate(t.Context(), login)
	if err != nil {
		t.Fatal(err)
	}
	o := other.PublicKey().(*ssh.Certificate)
	if _, pty := o.Extensions["permit-pty"]; pty || len(o.Extensions) != 2 || len(o.CriticalOptions) != 0 || time.Unix(int64(o.ValidBefore), 0).After(login.Expires) || bytes.Equal(o.Key.Marshal(), c.Key.Marshal()) {
		t.Fatalf("%+v", o)
	}
}

func TestTargetLoginsThatAreNone(t *testing.T) {
	r := newRig(t)
	for name, login := range map[string]TargetLogin{
		"no principal":           {},
		"two principals":         {Principal: "a,root"},
		"a blank":                {Principal: "a b"},
		"a control character":    {Principal: "a\x00"},
		"a newline":              {Principal: "a\nb"},
		"a no-break space":       {Principal: "a\u00a0b"},
		"bytes that are no text": {Principal: "a\xffb"},
		"too long":               {Principal: strings.Repeat("a", 256)},
		"source of two":          {Principal: "a", Source: "10.0.0.1,0.0.0.0/0"},
		"source of a name":       {Principal: "a", Source: "example.com"},
		"over":                   {Principal: "a", Expires: r.now()},
		"never ending":           {Principal: "a", Expires: time.Time{}},
	} {
		if login.Expires.IsZero() && name != "never ending" {
			login.Expires = r.now().Add(time.Hour)
		}
		if _, _, err := r.TargetCertificate(t.Context(), login); !refusal.Is(err, refusal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
