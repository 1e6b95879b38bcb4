package web_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport/web/api"
)

func TestGateway(t *testing.T) {
	r := newRig(t)
	var g api.Gateway
	r.must("", "GET", "/v1/gateway", nil, &g)
	if g.URL != r.url || g.Issuer != r.url || g.Version != "test" || g.Postgres != (api.Endpoint{Host: "127.0.0.1", Port: 5432}) || g.SSH.Host != "127.0.0.1" {
		t.Errorf("%+v", g)
	}
	if block, _ := pem.Decode([]byte(g.CA)); block == nil {
		t.Errorf("the authority is %q", g.CA)
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(g.HostAuthority)); err != nil {
		t.Errorf("the host authority is %q: %v", g.HostAuthority, err)
	}
}

// Certificates are for the keys that were sent, and come with the ways to exactly the targets that alice may use.
func TestCertificates(t *testing.T) {
	r := newRig(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for form, text := range map[string]string{
		"PEM":    string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"base64": base64.StdEncoding.EncodeToString(der),
	} {
		var c api.Certificates
		r.must("alice", "POST", "/v1/certificates", api.CertificateRequest{TLSKey: text, SSHKey: string(ssh.MarshalAuthorizedKey(sshKey))}, &c)
		block, _ := pem.Decode([]byte(c.TLSCertificate))
		if block == nil {
			t.Fatalf("%s: no certificate: %q", form, c.TLSCertificate)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !key.PublicKey.Equal(certificate.PublicKey) || certificate.IsCA {
			t.Errorf("%s: %+v, %v", form, certificate, err)
		}
		parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.SSHCertificate))
		user, ok := parsed.(*ssh.Certificate)
		if err != nil || !ok || user.CertType != ssh.UserCert || string(user.Key.Marshal()) != string(sshKey.Marshal()) {
			t.Errorf("%s: %+v, %v", form, parsed, err)
		}
		want := []api.Connection{
			{Name: "orders", Kind: "postgres", Accounts: []string{"app", "report"}, Host: "127.0.0.1", Port: 5433, Database: "shop"},
			{Name: "stock", Kind: "postgres", Accounts: []string{"app"}, Host: "127.0.0.1", Port: 5432, Database: "stock"},
			{Name: "web-1", Kind: "ssh", Accounts: []string{"deploy"}, Host: "127.0.0.1", Port: c.Gateway.SSH.Port, Aliases: []string{"10.0.0.5:2200"}},
		}
		if diff := cmp.Diff(want, c.Targets); diff != "" {
			t.Errorf("%s: targets (-want +got):\n%s", form, diff)
		}
		if len(c.KnownHosts) != 2 || !slices.ContainsFunc(c.KnownHosts, func(l string) bool {
			return strings.HasPrefix(l, "@cert-authority web-1 "+c.Gateway.HostAuthority)
		}) {
			t.Errorf("%s: known hosts %q", form, c.KnownHosts)
		}
	}
	// Bob may use nothing, and gets his certificates all the same: they prove who he is, not what he may.
	var c api.Certificates
	r.must("bob", "POST", "/v1/certificates", api.CertificateRequest{SSHKey: string(ssh.MarshalAuthorizedKey(sshKey))}, &c)
	if c.SSHCertificate == "" || c.TLSCertificate != "" || len(c.Targets) != 0 {
		t.Errorf("bob's: %+v", c)
	}
}
