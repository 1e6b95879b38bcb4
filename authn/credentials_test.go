package authn

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"sallyport/configs"
	"sallyport/internal/refusal"
)

// pair is a client's two keys.
type pair struct {
	tls *ecdsa.PrivateKey
	ssh ssh.Signer
}

func newPair(t testing.TB) pair {
	t.Helper()
	_, private := must2(ed25519.GenerateKey(rand.Reader))(t)
	return pair{must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t), must(ssh.NewSignerFromKey(private))(t)}
}

func must2[A, B any](a A, b B, err error) func(testing.TB) (A, B) {
	return func(t testing.TB) (A, B) { must(a, err)(t); return a, b }
}

func (p pair) keys() Keys { return Keys{TLS: p.tls.Public(), SSH: p.ssh.PublicKey()} }

// certified signs alice in and certifies new keys.
func (r *rig) certified() (Identity, pair, Certificates) {
	r.t.Helper()
	who, p := must(r.SignIn(r.t.Context(), alice, "192.0.2.1"))(r.t), newPair(r.t)
	return who, p, must(r.Certify(r.t.Context(), who, p.keys()))(r.t)
}

func userCert(t testing.TB, c Certificates) *ssh.Certificate {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.SSH))
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ssh.Certificate)
}

// loopback is both ends of a TCP connection, which give up after a minute.
func loopback(t testing.TB) (near, far net.Conn) {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer listener.Close()
	near = must(net.Dial("tcp", listener.Addr().String()))(t)
	far = must(listener.Accept())(t)
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	return near, far
}

// handshake is a real TLS handshake, in which the server asks for a certificate as a listener of the gateway does.
func (r *rig) handshake(certificate tls.Certificate) (Identity, error) {
	r.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(r.server.Certificate())
	near, far := loopback(r.t)
	done := make(chan error, 1)
	go func() {
		done <- tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "example.com", Certificates: []tls.Certificate{certificate}}).HandshakeContext(r.t.Context())
	}()
	server := tls.Server(far, &tls.Config{Certificates: r.server.TLS.Certificates, ClientAuth: tls.RequestClientCert, MaxVersion: tls.VersionTLS12})
	if err := errors.Join(server.HandshakeContext(r.t.Context()), <-done); err != nil {
		r.t.Fatal(err)
	}
	return r.ClientCertificate(r.t.Context(), server.ConnectionState().PeerCertificates)
}

func TestCertificatesProveTheIdentity(t *testing.T) {
	r := newRig(t)
	who, p, issued := r.certified()
	check := func(method string, got Identity, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if got.Key() != who.Key() || got.Method != method || got.Credential != issued.ID || !slices.Equal(got.Groups, who.Groups) || !got.Expires.Equal(issued.Expires) || !got.SignedIn.Equal(who.SignedIn) {
			t.Fatalf("got %+v", got)
		}
		if err := r.Standing(t.Context(), got); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.handshake(tls.Certificate{Certificate: [][]byte{issued.TLS}, PrivateKey: p.tls})
	check("client certificate", got, err)
	got, err = r.overSSH(must(ssh.NewCertSigner(userCert(t, issued), p.ssh))(t))
	check("user certificate", got, err)

	// They name nobody: only the credential, and a label that nothing reads.
	leaf := must(x509.ParseCertificate(issued.TLS))(t)
	if leaf.URIs[0].String() != "sallyport:credential:"+issued.ID || leaf.Subject.String() != "CN=Alice Engineer" || strings.Contains(issued.SSH, "alice") {
		t.Fatalf("%v %v %s", leaf.URIs, leaf.Subject, issued.SSH)
	}
	if e := r.events("credential.issued"); len(e) != 1 || e[0].Fields["credential"] != issued.ID || e[0].Actor != who.Key() {
		t.Fatalf("%+v", e)
	}
	roots := x509.NewCertPool()
	roots.AddCert(r.ClientAuthority())
	must(leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}))(t)
}

// overSSH authenticates with a signer over a real SSH handshake.
func (r *rig) overSSH(signer ssh.Signer) (Identity, error) {
	r.t.Helper()
	var who Identity
	refusal := errors.New("never asked")
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			certificate, ok := key.(*ssh.Certificate)
			if !ok {
				return nil, errors.New("no certificate")
			}
			if who, refusal = r.UserCertificate(r.t.Context(), certificate); refusal != nil {
				return nil, refusal
			}
			return nil, nil
		},
	}
	config.AddHostKey(r.HostKey())
	near, far := loopback(r.t)
	go func() {
		_, _, _, err := ssh.NewClientConn(near, "gateway", &ssh.ClientConfig{User: "deploy@web-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(r.HostKey().PublicKey())})
		if err != nil {
			near.Close()
		}
	}()
	_, _, _, err := ssh.NewServerConn(far, config)
	if (err == nil) != (refusal == nil) {
		r.t.Fatalf("handshake ended with %v, the certificate with %v", err, refusal)
	}
	return who, refusal
}

func TestCertificatesEndWithTheSignIn(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	p := newPair(t)
	rapid.Check(t, func(rt *rapid.T) {
		r.ahead.Store(0)
		signIn := time.Duration(rapid.Int64Range(1, int64(48*time.Hour)).Draw(rt, "sign_in"))
		life := time.Duration(rapid.Int64Range(1, int64(48*time.Hour)).Draw(rt, "certificate"))
		passed := time.Duration(rapid.Int64Range(0, int64(50*time.Hour)).Draw(rt, "passed"))
		r.cfg.Credentials = configs.Credentials{SignIn: configs.Duration(signIn), Certificate: configs.Duration(life)}
		if err := r.Revoke(t.Context(), who); err != nil { // so that no longer sign-in is left
			rt.Fatal(err)
		}
		var err error
		if who, err = r.SignIn(t.Context(), alice, ""); err != nil {
			rt.Fatal(err)
		}
		r.advance(passed)
		issued, err := r.Certify(t.Context(), who, p.keys())
		if err != nil {
			if !refusal.Is(err, refusal.CredentialExpired) || who.Expires.Sub(r.now()) > time.Second && life > time.Second {
				rt.Fatal(err)
			}
			return
		}
		leaf := must(x509.ParseCertificate(issued.TLS))(t)
		for name, end := range map[string]time.Time{"TLS": leaf.NotAfter, "SSH": time.Unix(int64(userCert(t, issued).ValidBefore), 0), "stated": issued.Expires} {
			if end.After(who.Expires) || end.After(r.now().Add(life)) || !end.Equal(issued.Expires) {
				rt.Fatalf("%s: ends %s, the sign-in %s, now %s", name, end, who.Expires, r.now())
			}
		}
		r.advance(time.Until(who.Expires) - passed)
		for range 2 {
			if _, err := r.ClientCertificate(t.Context(), []*x509.Certificate{leaf}); !refusal.Is(err, refusal.CredentialExpired) && leaf.NotAfter.Before(r.now()) {
				rt.Fatalf("TLS at %s, which ended %s: %v", r.now(), leaf.NotAfter, err)
			}
			if _, err := r.UserCertificate(t.Context(), userCert(t, issued)); !refusal.Is(err, refusal.CredentialExpired) {
				rt.Fatalf("SSH at %s, which ended %s: %v", r.now(), issued.Expires, err)
			}
			r.advance(2 * time.Second)
		}
	})
}

func TestAnOlderProofIsNotLengthened(t *testing.T) {
	r := newRig(t)
	first := must(r.SignIn(t.Context(), alice, ""))(t)
	r.advance(11 * time.Hour)
	must(r.SignIn(t.Context(), alice, ""))(t)
	if issued := must(r.Certify(t.Context(), first, newPair(t).keys()))(t); issued.Expires.After(first.Expires) {
		t.Fatalf("ends %s, after %s", issued.Expires, first.Expires)
	}
}

func TestExpiredCertificateSaysWhatToDo(t *testing.T) {
	r := newRig(t)
	_, p, issued := r.certified()
	r.advance(10*time.Hour + time.Second)
	_, err := r.handshake(tls.Certificate{Certificate: [][]byte{issued.TLS}, PrivateKey: p.tls})
	if no := refused(t, err, refusal.CredentialExpired); !strings.Contains(no.Hint, "sallyport login") {
		t.Fatalf("%+v", no)
	}
	_, err = r.overSSH(must(ssh.NewCertSigner(userCert(t, issued), p.ssh))(t))
	if no := refused(t, err, refusal.CredentialExpired); !strings.Contains(no.Hint, "sallyport login") {
		t.Fatalf("%+v", no)
	}
}

func TestLogoutAndDisableEndCredentials(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		end  func(Identity) error
		code refusal.Code
	}{
		"logout":  {func(who Identity) error { return r.Revoke(t.Context(), who) }, refusal.NotAuthenticated},
		"disable": {func(who Identity) error { return r.Disable(t.Context(), who.Key()) }, refusal.IdentityDisabled},
	} {
		t.Run(name, func(t *testing.T) {
			if err := r.Enable(t.Context(), alice.Key()); err != nil && !refusal.Is(err, refusal.NotFound) {
				t.Fatal(err)
			}
			who, _, issued := r.certified()
			before := len(r.events("credential.revoked"))
			if err := c.end(who); err != nil {
				t.Fatal(err)
			}
			leaf := must(x509.ParseCertificate(issued.TLS))(t)
			refused(t, err2(r.ClientCertificate(t.Context(), []*x509.Certificate{leaf})), c.code)
			refused(t, err2(r.UserCertificate(t.Context(), userCert(t, issued))), c.code)
			refused(t, r.Standing(t.Context(), who), c.code)
			refused(t, err2(r.Certify(t.Context(), who, newPair(t).keys())), refusal.NotAuthenticated)
			if n := len(r.events("credential.revoked")) - before; n != 1 {
				t.Fatalf("%d events", n)
			}
		})
	}
	if len(r.events("logout")) != 1 || len(r.events("identity.disabled")) != 1 {
		t.Fatal("not as events")
	}
}

func TestStandingOfAStranger(t *testing.T) {
	r := newRig(t)
	refused(t, r.Standing(t.Context(), alice), refusal.NotAuthenticated)
	refused(t, err2(r.Certify(t.Context(), alice, newPair(t).keys())), refusal.NotAuthenticated)
}

// A clock that is set back gives nothing that was taken away back.
func TestLogoutSurvivesAClockSetBack(t *testing.T) {
	r := newRig(t)
	r.advance(time.Hour)
	who, _, issued := r.certified()
	r.advance(-time.Hour)
	if err := r.Revoke(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	refused(t, r.Standing(t.Context(), who), refusal.NotAuthenticated)
	refused(t, err2(r.UserCertificate(t.Context(), userCert(t, issued))), refusal.NotAuthenticated)
	again := must(r.SignIn(t.Context(), alice, ""))(t)
	if err := r.Standing(t.Context(), again); err != nil {
		t.Fatal(err)
	}
}

func TestCertifyRefusesWeakKeys(t *testing.T) {
	r := newRig(t)
	who := must(r.SignIn(t.Context(), alice, ""))(t)
	_, _, issued := r.certified()
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	small := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	for name, keys := range map[string]Keys{
		"none":                 {},
		"TLS on another curve": {TLS: p384.Public()},
		"TLS RSA":              {TLS: small.Public()},
		"TLS short":            {TLS: ed25519.PublicKey("x")},
		"TLS private":          {TLS: p384},
		"SSH small RSA":        {SSH: must(ssh.NewPublicKey(small.Public()))(t)},
		"SSH certificate":      {SSH: userCert(t, issued)},
	} {
		if _, err := r.Certify(t.Context(), who, keys); !refusal.Is(err, refusal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	public, _ := must2(ed25519.GenerateKey(rand.Reader))(t)
	for _, keys := range []Keys{{TLS: public}, {SSH: must(ssh.NewPublicKey(p384.Public()))(t)}} {
		c := must(r.Certify(t.Context(), who, keys))(t)
		if (len(c.TLS) > 0) != (keys.TLS != nil) || (c.SSH != "") != (keys.SSH != nil) {
			t.Errorf("%+v", c)
		}
	}
}

// What is not a client certificate of this gateway's, in every way that its authority or another could have signed it.
func TestForeignClientCertificates(t *testing.T) {
	r, other := newRig(t), newRig(t)
	_, p, issued := r.certified()
	_, _, foreign := other.certified()
	id := &url.URL{Scheme: "sallyport", Opaque: "credential:" + issued.ID}
	now := time.Now()
	good := func() *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), URIs: []*url.URL{id}, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, Subject: pkix.Name{CommonName: "x"},
		}
	}
	sign := func(c, by *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, c, by, public, key))(t)))(t)
	}
	ca, caKey := r.ClientAuthority(), r.authorities.Load().ClientCA
	own := func(change func(*x509.Certificate)) []*x509.Certificate {
		c := good()
		change(c)
		return []*x509.Certificate{sign(c, ca, p.tls.Public(), caKey)}
	}
	if _, err := r.ClientCertificate(t.Context(), own(func(*x509.Certificate) {})); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	leaf := must(x509.ParseCertificate(issued.TLS))(t)
	issuedTwice := sign(good(), leaf, newPair(t).tls.Public(), p.tls)
	intermediate := own(func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign })[0]
	for name, chain := range map[string][]*x509.Certificate{
		"none":                 nil,
		"another gateway's":    {must(x509.ParseCertificate(foreign.TLS))(t)},
		"self-signed":          {sign(good(), good(), p.tls.Public(), p.tls)},
		"authority's name":     {sign(good(), &x509.Certificate{Subject: ca.Subject, SubjectKeyId: ca.SubjectKeyId}, p.tls.Public(), p.tls)},
		"the authority itself": {ca},
		"an authority":         {intermediate},
		"by an issued leaf":    {issuedTwice, leaf, ca},
		"below an authority":   {sign(good(), intermediate, p.tls.Public(), p.tls), intermediate, ca},
		"foreign then good":    {must(x509.ParseCertificate(foreign.TLS))(t), leaf},
		"server usage":         own(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"any usage":            own(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }),
		"more usages":          own(func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }),
		"no usage":             own(func(c *x509.Certificate) { c.ExtKeyUsage = nil }),
		"two credentials":      own(func(c *x509.Certificate) { c.URIs = []*url.URL{id, id} }),
		"no credential":        own(func(c *x509.Certificate) { c.URIs = nil }),
		"another name too":     own(func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} }),
		"another URI":          own(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "https", Host: "x", Path: "/" + issued.ID}} }),
		"unknown credential":   own(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "sallyport", Opaque: "credential:c-x"}} }),
		"not yet":              own(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute * 5) }),
		"another key":          {sign(good(), ca, newPair(t).tls.Public(), caKey)},
		"critical extension": own(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}),
		"forged and expired": {sign(func() *x509.Certificate { c := good(); c.NotAfter = now.Add(-time.Second); return c }(), &x509.Certificate{Subject: ca.Subject}, p.tls.Public(), p.tls)},
	} {
		if _, err := r.ClientCertificate(t.Context(), chain); !refusal.Is(err, refusal.NotAuthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForeignUserCertificates(t *testing.T) {
	r, other := newRig(t), newRig(t)
	_, p, issued := r.certified()
	_, _, foreign := other.certified()
	now := uint64(time.Now().Unix())
	make := func(by ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
		c := &ssh.Certificate{Key: p.ssh.PublicKey(), Serial: 1, CertType: ssh.UserCert, KeyId: issued.ID, ValidPrincipals: []string{issued.ID}, ValidAfter: now - 60, ValidBefore: now + 3600}
		if change != nil {
			change(c)
		}
		// By hand, because the library does not sign everything that others might: the form is OpenSSH's PROTOCOL.certkeys.
		c.Nonce, c.SignatureKey = []byte("nonce"), by.PublicKey()
		data := c.Marshal()
		c.Signature = must(by.Sign(rand.Reader, data[:len(data)-4]))(t) // without the empty signature's length
		return c
	}
	if _, err := r.UserCertificate(t.Context(), make(r.authorities.Load().loginCA, nil)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	tampered := make(r.authorities.Load().loginCA, nil)
	tampered.ValidBefore += 3600
	mine := userCert(t, issued)
	// A certificate in the place of the authority: the login authority's own key, certified by somebody.
	nested := make(r.authorities.Load().loginCA, nil)
	nested.SignatureKey = make(p.ssh, func(c *ssh.Certificate) { c.Key = r.authorities.Load().loginCA.PublicKey() })
	subject := make(r.authorities.Load().loginCA, nil)
	subject.Key = mine
	for name, c := range map[string]*ssh.Certificate{
		"none":                     nil,
		"empty":                    {},
		"another gateway's":        userCert(t, foreign),
		"by the host authority":    make(r.authorities.Load().hostCA, nil),
		"by the target authority":  make(r.authorities.Load().targetCA, nil),
		"by itself":                make(p.ssh, nil),
		"by a certificate":         nested,
		"for a certificate":        subject,
		"of a host":                make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }),
		"of no principal":          make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidPrincipals = nil }),
		"of an empty principal":    make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidPrincipals = []string{""}; c.KeyId = "" }),
		"of two principals":        make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidPrincipals = []string{issued.ID, "root"} }),
		"of another principal":     make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root"} }),
		"of an unknown credential": make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"c-x"}; c.KeyId = "c-x" }),
		"of a comma":               make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidPrincipals = []string{issued.ID + ",root"} }),
		"with force-command":       make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "ls"} }),
		"with an unknown option":   make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x@example.com": ""} }),
		"with source-address":      make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "192.0.2.0/24"} }),
		"not yet good":             make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidAfter = now + 300 }),
		"good for ever":            make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }),
		"times the wrong way":      make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = c.ValidBefore, c.ValidAfter }),
		"beyond signed integers":   make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 1<<63, 1<<63+10 }),
		"tampered with":            tampered,
		"for another key":          make(r.authorities.Load().loginCA, func(c *ssh.Certificate) { c.Key = newPair(t).ssh.PublicKey() }),
	} {
		if _, err := r.UserCertificate(t.Context(), c); !refusal.Is(err, refusal.NotAuthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Certificates nested in the place of the authority are refused at the first, however deep they go.
func TestDeeplyNestedCertificate(t *testing.T) {
	r := newRig(t)
	_, _, issued := r.certified()
	deep := userCert(t, issued)
	for range 10_000 {
		next := *deep
		next.SignatureKey = deep
		deep = &next
	}
	refused(t, err2(r.UserCertificate(t.Context(), deep)), refusal.NotAuthenticated)
}

func TestCredentialsAreBounded(t *testing.T) {
	r := newRig(t)
	who, p, _ := r.certified()
	for range maxCredentials - 1 {
		must(r.Certify(t.Context(), who, Keys{SSH: p.ssh.PublicKey()}))(t)
	}
	refused(t, err2(r.Certify(t.Context(), who, Keys{SSH: p.ssh.PublicKey()})), refusal.TooMany)
}

func TestKeysAndSignInsOutliveARestart(t *testing.T) {
	r := newRig(t)
	_, _, issued := r.certified()
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	again := must(open(t.Context(), r.cfg, r.store, r.log, r.now))(t)
	defer again.Close(context.Background())
	must(again.UserCertificate(t.Context(), userCert(t, issued)))(t)
	must(again.ClientCertificate(t.Context(), []*x509.Certificate{must(x509.ParseCertificate(issued.TLS))(t)}))(t)
	if !bytes.Equal(again.HostAuthority().Marshal(), r.HostAuthority().Marshal()) {
		t.Fatal("another host authority")
	}
}
