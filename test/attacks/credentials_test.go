//go:build unix

package attacks

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/authn/keyring"
)

// TestCredentials presents certificates that are no good here: run out, another authority's, and signed by somebody who
// holds a good certificate but is no authority.
func TestCredentials(t *testing.T) {
	s := newScene(t)
	home := s.Env["SALLYPORT_HOME_ALICE"]
	good := readCertificate(t, filepath.Join(home, "tls.crt"))
	goodKey := readKey(t, filepath.Join(home, "tls.key"))
	// The test stands on the gateway's machine and takes its authority, to make what that would never make.
	authority := readCertificate(t, s.Path("keys", "client_ca_certificate.pem"))
	authorityKey := readKey(t, s.Path("keys", "client_ca.pem"))

	foreign, foreignKey := selfSigned(t, authority.Subject)
	other, err := keyring.Open(filepath.Join(t.TempDir(), "keys"), slog.New(slog.DiscardHandler)) // another gateway's
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		forge func(*x509.Certificate)
		by    *x509.Certificate
		key   crypto.Signer
		extra []*x509.Certificate
		words []string
	}{
		"expired": {
			forge: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			},
			by: authority, key: authorityKey, words: []string{"ran out", "sallyport login"},
		},
		"of a foreign authority of the same name":        {by: foreign, key: foreignKey, extra: []*x509.Certificate{foreign}, words: []string{"not issued by this gateway", "sallyport login"}},
		"of another gateway":                             {by: other.ClientCACertificate, key: other.ClientCA, extra: []*x509.Certificate{other.ClientCACertificate}, words: []string{"not issued by this gateway", "sallyport login"}},
		"signed with a certificate that is no authority": {by: good, key: goodKey, extra: []*x509.Certificate{good, authority}, words: []string{"not issued by this gateway", "sallyport login"}},
		"itself an authority": {
			forge: func(c *x509.Certificate) {
				c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
			},
			by: authority, key: authorityKey, words: []string{"certificate", "sallyport login"},
		},
		"for another use": {
			forge: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
			by:    authority, key: authorityKey, words: []string{"certificate", "sallyport login"},
		},
	} {
		t.Run("a client certificate "+name, func(t *testing.T) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			// Alice's own names, so that everything but the one thing is right.
			forged := &x509.Certificate{
				SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: good.Subject, URIs: good.URIs,
				NotBefore: good.NotBefore, NotAfter: good.NotAfter,
				KeyUsage: good.KeyUsage, ExtKeyUsage: good.ExtKeyUsage, BasicConstraintsValid: true,
			}
			if c.forge != nil {
				c.forge(forged)
			}
			der, err := x509.CreateCertificate(rand.Reader, forged, c.by, key.Public(), c.key)
			if err != nil {
				t.Fatal(err)
			}
			out := s.Run(nil, "psql", "-X", "-w", withCertificate(t, s.Env["SALLYPORT_PG"], der, key, c.extra), "-c", "SELECT 1")
			s.tells(out, append(c.words, "FATAL:")...)
			s.undisturbed()
		})
	}

	loginAuthority := sshSigner(t, readKey(t, s.Path("keys", "login_ca.pem")))
	theirs, err := ssh.ParsePrivateKey(read(t, filepath.Join(home, "ssh_key")))
	if err != nil {
		t.Fatal(err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(read(t, filepath.Join(home, "ssh_key-cert.pub")))
	if err != nil {
		t.Fatal(err)
	}
	certificate := public.(*ssh.Certificate)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		forge func(*ssh.Certificate)
		by    ssh.Signer
		word  string
	}{
		"expired": {func(c *ssh.Certificate) {
			c.ValidAfter, c.ValidBefore = uint64(time.Now().Add(-2*time.Hour).Unix()), uint64(time.Now().Add(-time.Hour).Unix())
		}, loginAuthority, "ran out"},
		"of a foreign authority":                        {nil, sshSigner(t, stranger), "certificate"},
		"of another gateway":                            {nil, sshSigner(t, other.LoginCA), "certificate"},
		"of the authority that targets trust":           {nil, sshSigner(t, readKey(t, s.Path("keys", "target_ca.pem"))), "certificate"},
		"of the authority of hosts":                     {nil, sshSigner(t, readKey(t, s.Path("keys", "host_ca.pem"))), "certificate"},
		"signed with a key that only has a certificate": {nil, theirs, "certificate"},
		"for hosts":                                 {func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, loginAuthority, "certificate"},
		"with an option that nobody here knows":     {func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"trust-me": "yes"} }, loginAuthority, "certificate"},
		"for a principal that is not the gateway's": {func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root"} }, loginAuthority, "certificate"},
	} {
		t.Run("a user certificate "+name, func(t *testing.T) {
			forged := *certificate
			forged.Key = theirs.PublicKey()
			if c.forge != nil {
				c.forge(&forged)
			}
			if err := forged.SignCert(rand.Reader, c.by); err != nil {
				t.Fatal(err)
			}
			signer, err := ssh.NewCertSigner(&forged, theirs)
			if err != nil {
				t.Fatal(err)
			}
			said, err := s.knock(signer)
			if err == nil {
				t.Fatal("it was let in")
			}
			if !strings.Contains(said, c.word) {
				t.Errorf("%v; it was told %q", err, said)
			}
			s.undisturbed()
		})
	}
	t.Run("the good ones are good", func(t *testing.T) { // so that the forged ones fail for what is wrong with them
		signer, err := ssh.NewCertSigner(certificate, theirs)
		if err != nil {
			t.Fatal(err)
		}
		if said, err := s.knock(signer); err != nil {
			t.Errorf("%v: %s", err, said)
		}
		if out := s.Run(nil, "psql", "-X", "-w", withCertificate(t, s.Env["SALLYPORT_PG"], good.Raw, goodKey, nil), "-c", "SELECT 1"); out.Code != 0 {
			t.Error(out.Text())
		}
	})
}

// knock signs in to the SSH listener and returns the banner.
func (s *scene) knock(signer ssh.Signer) (said string, err error) {
	client, err := ssh.Dial("tcp", s.ssh, &ssh.ClientConfig{
		User:            "deploy@web-1",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the gateway is the victim here
		BannerCallback:  func(message string) error { said += message; return nil },
		Timeout:         20 * time.Second,
	})
	if err == nil {
		client.Close()
	}
	return said, err
}

// withCertificate is a connection string with another client certificate in it.
func withCertificate(t *testing.T, connection string, der []byte, key crypto.Signer, more []*x509.Certificate) string {
	t.Helper()
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for _, c := range more {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, private := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
	write(t, certificate, chain)
	write(t, private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
	connection = regexp.MustCompile(`sslcert=\S+`).ReplaceAllString(connection, "sslcert="+certificate)
	return regexp.MustCompile(`sslkey=\S+`).ReplaceAllString(connection, "sslkey="+private)
}

func selfSigned(t *testing.T, subject pkix.Name) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readCertificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(read(t, path))
	if block == nil {
		t.Fatalf("%s is no PEM", path)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func readKey(t *testing.T, path string) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode(read(t, path))
	if block == nil {
		t.Fatalf("%s is no PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		t.Fatal(errors.New("the key can't sign"))
	}
	return signer
}

func sshSigner(t *testing.T, key crypto.Signer) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
