package authn

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/authn/keyring"
	"sallyport/internal/refusal"
)

// proves tells whether the certificates of a credential still prove who it is.
func (r *rig) proves(p pair, issued Certificates) (tlsErr, sshErr error) {
	r.t.Helper()
	_, tlsErr = r.handshake(tls.Certificate{Certificate: [][]byte{issued.TLS}, PrivateKey: p.tls})
	_, sshErr = r.overSSH(must(ssh.NewCertSigner(userCert(r.t, issued), p.ssh))(r.t))
	return tlsErr, sshErr
}

// TestRotateLoginAuthorities: certificates of the old key are good for their time, new ones are signed by the new key, and
// with --at-once the old ones end.
func TestRotateLoginAuthorities(t *testing.T) {
	r := newRig(t)
	who, p, before := r.certified()
	for _, name := range []string{"login", "tls-client"} {
		if err := r.Rotate(t.Context(), who, name, Rotation{}); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := r.proves(p, before); a != nil || b != nil {
		t.Errorf("before the rotation: %v, %v", a, b)
	}
	_, q, after := r.certified()
	if a, b := r.proves(q, after); a != nil || b != nil {
		t.Errorf("after the rotation: %v, %v", a, b)
	}
	old := r.authorities.Load().Old
	if leaf := must(x509.ParseCertificate(after.TLS))(t); leaf.CheckSignatureFrom(r.ClientAuthority()) != nil || leaf.CheckSignatureFrom(old[keyring.ClientCA][0].Certificate) == nil {
		t.Error("the new client certificate is not signed by the new key alone")
	}
	// The overlap is as long as a certificate can be good; then the old key is nobody's.
	for _, name := range []keyring.Name{keyring.ClientCA, keyring.LoginCA} {
		left := time.Until(old[name][0].Until)
		if life := r.cfg.Credentials.Certificate.D(); left < life || left > life+2*clockSkew {
			t.Errorf("%s: the old key counts for %s more", name, left)
		}
	}
	late := r.now().Add(r.cfg.Credentials.Certificate.D() + 2*clockSkew)
	if n := len(r.authorities.Load().clients(late)); n != 1 {
		t.Errorf("%d client authorities count in the end", n)
	}
	if r.authorities.Load().isLogin(userCert(t, before).SignatureKey, late) || !r.authorities.Load().isLogin(userCert(t, after).SignatureKey, late) {
		t.Error("the old login authority counts for ever, or the new one does not")
	}
	for _, name := range []string{"login", "tls-client"} {
		if err := r.Rotate(t.Context(), who, name, Rotation{AtOnce: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, one := range []struct {
		p pair
		c Certificates
	}{{p, before}, {q, after}} {
		a, b := r.proves(one.p, one.c)
		refused(t, a, refusal.NotAuthenticated)
		refused(t, b, refusal.NotAuthenticated)
	}
	if events := r.events("authority.rotated"); len(events) != 4 || events[0].Actor != who.Key() || events[0].Fields["authority"] != "login" || events[0].Fields["old_until"] == "" {
		t.Errorf("%+v", events)
	}
}

// TestRotatePublishedAuthorities: others see the next key before it is used.
func TestRotatePublishedAuthorities(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	issues := map[string]func() ssh.PublicKey{
		"ssh-host": func() ssh.PublicKey { return hostCert(t, r, "gateway.example").SignatureKey },
		"target": func() ssh.PublicKey {
			signer, _, err := r.TargetCertificate(t.Context(), TargetLogin{Principal: "deploy", Expires: r.now().Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			return signer.PublicKey().(*ssh.Certificate).SignatureKey
		},
	}
	published := map[string]func() []ssh.PublicKey{"ssh-host": r.HostAuthorities, "target": r.TargetAuthorities}
	for name, issue := range issues {
		first := issue()
		refused(t, r.Rotate(t.Context(), who, name, Rotation{Activate: true}), refusal.Conflict)
		if err := r.Rotate(t.Context(), who, name, Rotation{}); err != nil {
			t.Fatal(err)
		}
		refused(t, r.Rotate(t.Context(), who, name, Rotation{}), refusal.Conflict)
		both := published[name]()
		if len(both) != 2 || !sameKey(both[0], first) || sameKey(both[1], first) || !sameKey(issue(), first) {
			t.Errorf("%s: prepared, it has %d keys, and signs by the old one: %v", name, len(both), sameKey(issue(), first))
		}
		if err := r.Rotate(t.Context(), who, name, Rotation{Activate: true}); err != nil {
			t.Fatal(err)
		}
		if now := published[name](); len(now) != 1 || !sameKey(now[0], both[1]) || !sameKey(issue(), both[1]) {
			t.Errorf("%s: activated, it has %d keys and does not sign by the one that was prepared", name, len(now))
		}
	}
	refused(t, r.Rotate(t.Context(), who, "token", Rotation{}), refusal.NotFound)
	refused(t, r.Rotate(t.Context(), who, "login", Rotation{Activate: true}), refusal.Invalid)
}

// TestRotateIssuer: the old key is in the key set for a while, and ID tokens are signed by the new one.
func TestRotateIssuer(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	keys := func() (ids []string) {
		answer := must(r.server.Client().Get(r.server.URL + pathKeys))(t)
		defer answer.Body.Close()
		var set struct {
			Keys []struct{ KID string }
		}
		if err := json.NewDecoder(answer.Body).Decode(&set); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer.Status, err)
		}
		for _, k := range set.Keys {
			ids = append(ids, k.KID)
		}
		return ids
	}
	first := keys()
	if err := r.Rotate(t.Context(), who, "issuer", Rotation{}); err != nil {
		t.Fatal(err)
	}
	both := keys()
	if len(first) != 1 || len(both) != 2 || !slices.Contains(both, first[0]) {
		t.Errorf("%v, then %v", first, both)
	}
	signer := must((&storage{r.Service}).SigningKey(t.Context()))(t)
	if signer.ID() == first[0] || !slices.Contains(both, signer.ID()) {
		t.Errorf("it signs with %s", signer.ID())
	}
	r.advance(2 * time.Hour)
	if now := keys(); len(now) != 1 || now[0] == first[0] {
		t.Errorf("in the end: %v", now)
	}
}

// TestNothingIssuedCanSign: no certificate of any authority is good for signing another, whatever its holder does with its
// key, and each names its serial in the audit log.
func TestNothingIssuedCanSign(t *testing.T) {
	r := newRig(t)
	_, p, issued := r.certified()
	leaf := must(x509.ParseCertificate(issued.TLS))(t)
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("the client certificate: authority %v, usage %v %v", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	child := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, leaf, leaf, newPair(t).tls.Public(), p.tls))(t)))(t)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(r.ClientAuthority())
	between.AddCert(leaf)
	if _, err := child.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("a client certificate signs for another")
	}
	ca := r.ClientAuthority()
	if !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign || !slices.Equal(ca.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("the client authority: %+v", ca)
	}
	server := *leaf // what its authority could be made to sign for a server
	server.ExtKeyUsage, server.DNSNames = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []string{"gateway.example"}
	forged := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, &server, ca, p.tls.Public(), r.authorities.Load().ClientCA))(t)))(t)
	if _, err := forged.Verify(x509.VerifyOptions{Roots: roots, DNSName: "gateway.example"}); err == nil {
		t.Error("the client authority is good for a server's certificate")
	}

	// SSH certificates have no chains: a certificate in the place of the authority's key is what would be one.
	user := userCert(t, issued)
	target, _, err := r.TargetCertificate(t.Context(), TargetLogin{Principal: "deploy", Expires: r.now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, by := range map[string]ssh.PublicKey{"a user's": user, "a host's": hostCert(t, r, "web-1"), "a target's login": target.PublicKey()} {
		nested := *user
		nested.SignatureKey = by
		if _, err := r.UserCertificate(t.Context(), &nested); err == nil {
			t.Errorf("a certificate signed by %s certificate is taken", name)
		}
	}
	var serials int
	for _, e := range r.events("credential.issued") {
		for _, field := range []string{"tls_serial", "ssh_serial", "host_certificate"} {
			if e.Fields[field] != "" {
				serials++
			}
		}
		if e.Fields["tls_serial"] != "" && e.Fields["tls_serial"] != leaf.SerialNumber.Text(16) {
			t.Errorf("the audit log says serial %s, the certificate %s", e.Fields["tls_serial"], leaf.SerialNumber.Text(16))
		}
	}
	if serials != 3 {
		t.Errorf("%d serials are in the audit log", serials)
	}
	for _, a := range r.Authorities() {
		if !strings.HasPrefix(a.Fingerprint, "SHA256:") || a.Since.IsZero() || a.Purpose == "" {
			t.Errorf("%+v", a)
		}
	}
}

func hostCert(t *testing.T, r *rig, name string) *ssh.Certificate {
	t.Helper()
	return must(r.HostCertificate(name))(t).PublicKey().(*ssh.Certificate)
}

func sameKey(a, b ssh.PublicKey) bool { return string(a.Marshal()) == string(b.Marshal()) }
