package authn

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/internal/refusal"
)

func TestHostCertificateIsForTheHostKey(t *testing.T) {
	r := newRig(t)
	signer := must(r.HostCertificate("Gateway.example", "10.0.0.1", "::1"))(t)
	c := signer.PublicKey().(*ssh.Certificate)
	if !bytes.Equal(c.Key.Marshal(), r.HostKey().PublicKey().Marshal()) {
		t.Fatal("it certifies another key than the plain host key")
	}
	checker := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return bytes.Equal(key.Marshal(), r.HostAuthority().Marshal())
	}}
	for name, good := range map[string]bool{"Gateway.example:22": true, "gateway.example:22": true, "10.0.0.1:2222": true, "[::1]:22": true, "other.example:22": false, "example:22": false} {
		if err := checker.CheckHostKey(name, somewhere, c); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c.CertType != ssh.HostCert || time.Until(time.Unix(int64(c.ValidBefore), 0)) > 8*24*time.Hour {
		t.Fatalf("%+v", c)
	}
}

func TestHostCertificatesAreCachedAndRenewed(t *testing.T) {
	r := newRig(t)
	first := must(r.HostCertificate("a", "b"))(t)
	if again := must(r.HostCertificate("b", "a"))(t); again != first {
		t.Fatal("made twice")
	}
	r.advance(4 * 24 * time.Hour)
	renewed := must(r.HostCertificate("a", "b"))(t)
	if renewed == first {
		t.Fatal("not renewed")
	}
	if until := time.Unix(int64(renewed.PublicKey().(*ssh.Certificate).ValidBefore), 0); until.Sub(r.now()) < 6*24*time.Hour {
		t.Fatalf("good until %s only", until)
	}
	for i := range maxHostCertificates + 10 {
		must(r.HostCertificate(fmt.Sprint("host-", i)))(t)
	}
	if n := len(r.hosts.byKey); n > maxHostCertificates {
		t.Fatalf("%d are kept", n)
	}
}

func TestHostNamesThatAreNone(t *testing.T) {
	r := newRig(t)
	for _, names := range [][]string{nil, {""}, {"a,b"}, {"*"}, {"*.example"}, {"a b"}, {"a\n"}, {"a", "!b"}, {strings.Repeat("a", 254)}, {"host]"}, {"é"}, make([]string, 65)} {
		refused(t, err2(r.HostCertificate(names...)), refusal.Invalid)
	}
}

// The stock client accepts it through an @cert-authority line, without a question.
func TestStockClientTrustsTheHostCertificate(t *testing.T) {
	client, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("OpenSSH's client is not installed")
	}
	r := newRig(t)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer listener.Close()
	signer := must(r.HostCertificate("gateway.example"))(t)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			config := &ssh.ServerConfig{NoClientAuth: true}
			config.AddHostKey(r.HostKey())
			config.AddHostKey(signer)
			go func() {
				defer c.Close()
				if c.SetDeadline(time.Now().Add(time.Minute)) != nil {
					return
				}
				server, _, _, err := ssh.NewServerConn(c, config)
				if err == nil {
					server.Close() // the handshake is all we are after
				}
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	dial := func(authority ssh.PublicKey, name string) string {
		known := filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(known, fmt.Appendf(nil, "@cert-authority * %s", ssh.MarshalAuthorizedKey(authority)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.CommandContext(t.Context(), client, "-F", "none", "-o", "UserKnownHostsFile="+known, "-o", "GlobalKnownHostsFile=none", "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias="+name, "-v", "-p", port, "x@127.0.0.1", "true").CombinedOutput()
		return string(out)
	}
	if out := dial(r.HostAuthority(), "gateway.example"); !strings.Contains(out, "is known and matches the ED25519-CERT host certificate") {
		t.Errorf("not trusted:\n%s", out)
	}
	for name, out := range map[string]string{"another name": dial(r.HostAuthority(), "other.example"), "another authority": dial(r.TargetAuthority(), "gateway.example")} {
		if !strings.Contains(out, "Host key verification failed") {
			t.Errorf("%s: trusted:\n%s", name, out)
		}
	}
}
