package ssh

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/protocols/ssh/sshtest"
)

func TestCheck(t *testing.T) {
	r := newRig(t)
	good, _ := r.grants.Target("web-1")
	me := good.Accounts[0]
	if result, err := r.handler.Check(t.Context(), r.alice, good, me); err != nil || result.User != r.account || !strings.HasPrefix(result.Version, "SSH-2.0-OpenSSH") {
		t.Errorf("a good target: %+v, %v", result, err)
	}
	changed, _ := r.grants.Target("changed")
	unpinned := good
	unpinned.HostKeys = nil
	down, _ := r.grants.Target("down")
	for name, test := range map[string]struct {
		target  configs.Target
		account configs.Account
		words   string
	}{
		"its key changed":       {changed, me, "pinned"},
		"no pin":                {unpinned, me, "targets trust web-1"},
		"an account it has not": {good, configs.Account{Name: "nobody-here"}, "targets setup web-1"},
		"down":                  {down, me, "can't be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.handler.Check(t.Context(), r.alice, test.target, test.account)
			if !refusal.Is(err, refusal.TargetFailed) || !strings.Contains(err.Error(), test.words) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestTargetsAreProvenAndLoggedInTo in all the ways there are, and in none of those that are almost one.
func TestTargetsAreProvenAndLoggedInTo(t *testing.T) {
	r := newRig(t)
	t.Run("nothing is pinned", r.unpinned)
	t.Run("secrets", r.secretsLogIn)
	t.Run("host authority", r.hostAuthority)
}

// unpinned: without anything that could prove a target nothing is sent to it, not even a connection.
func (r *rig) unpinned(t *testing.T) {
	dialled := make(chan struct{}, 10)
	address := sshtest.Listen(t, func(net.Conn) { dialled <- struct{}{} })
	r.config.Targets = append(r.config.Targets, configs.Target{Name: "unpinned", Kind: configs.KindSSH, Address: address, Accounts: r.config.Targets[0].Accounts})
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("me", "unpinned")
	if out, errs, status := r.ssh("", "me@unpinned@gw", "id"); status != 255 || out != "" || !strings.Contains(errs, "target unpinned can't prove itself") {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	target, _ := r.grants.Target("unpinned")
	if _, err := r.handler.Check(t.Context(), r.alice, target, target.Accounts[0]); !refusal.Is(err, refusal.TargetFailed) {
		t.Errorf("a check: %v", err)
	}
	if len(dialled) > 0 {
		t.Errorf("it was dialled %d times", len(dialled))
	}
}

// secretsLogIn: a key or a password by reference, also where the target asks for it in words; a wrong one is refused, and stands
// in no error.
func (r *rig) secretsLogIn(t *testing.T) {
	host, private := newSigner(t), newPrivate(t)
	signer := must(xssh.NewSignerFromKey(private))(t)
	const password = "secret-canary-77"
	ok := func(good bool) (*xssh.Permissions, error) {
		if good {
			return nil, nil
		}
		return nil, errors.New("no")
	}
	config := &xssh.ServerConfig{
		PublicKeyCallback: func(c xssh.ConnMetadata, key xssh.PublicKey) (*xssh.Permissions, error) {
			return ok(c.User() == "keyed" && equalKeys(key, signer.PublicKey()))
		},
		PasswordCallback: func(c xssh.ConnMetadata, p []byte) (*xssh.Permissions, error) {
			return ok(c.User() == "passworded" && string(p) == password)
		},
		KeyboardInteractiveCallback: func(c xssh.ConnMetadata, ask xssh.KeyboardInteractiveChallenge) (*xssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			return ok(err == nil && c.User() == "asked" && len(answers) == 1 && answers[0] == password)
		},
	}
	config.AddHostKey(host)
	address := sshtest.Listen(t, func(conn net.Conn) {
		c, channels, requests, err := xssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go xssh.DiscardRequests(requests)
		go refuseChannels(channels)
		_ = c.Wait()
	})
	block := must(xssh.MarshalPrivateKey(private, ""))(t)
	key := configs.SecretRef("file:" + r.write("target-key", string(pem.EncodeToMemory(block))))
	word := configs.SecretRef("file:" + r.write("target-password", password+"\n"))
	wrong := configs.SecretRef("file:" + r.write("wrong-password", "wrong-canary-78\n"))
	target := configs.Target{Name: "appliance", Kind: configs.KindSSH, Address: address, HostKeys: []string{line(host.PublicKey())}}
	for _, test := range []struct {
		account configs.Account
		want    string // what it logs in with; empty: it does not
	}{
		{configs.Account{Name: "keyed", Key: key}, "its key"},
		{configs.Account{Name: "passworded", Password: word}, "its password"},
		{configs.Account{Name: "asked", Password: word}, "its password"},
		{configs.Account{Name: "passworded", Password: wrong}, ""},
		{configs.Account{Name: "keyed", Key: word}, ""},
		{configs.Account{Name: "keyed", Key: configs.SecretRef("file:" + r.dir + "/none")}, ""},
	} {
		result, err := r.handler.Check(t.Context(), r.alice, target, test.account)
		if (err == nil) != (test.want != "") || result.Login != test.want {
			t.Errorf("%s: %+v, %v", test.account.Name, result, err)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%+v", err), "canary") {
			t.Errorf("%s: the error holds the secret: %v", test.account.Name, err)
		}
	}
}

// certified is a target whose host key has a certificate of the authority.
func (r *rig) certified(t *testing.T, ca xssh.Signer, change ...func(*xssh.Certificate)) configs.Target {
	host := newSigner(t)
	certificate := &xssh.Certificate{Key: host.PublicKey(), CertType: xssh.HostCert, ValidPrincipals: []string{"certified"}, ValidBefore: xssh.CertTimeInfinity}
	for _, f := range change {
		f(certificate)
	}
	// By hand, as the library does not sign all that others might.
	certificate.Nonce, certificate.SignatureKey = []byte("nonce"), ca.PublicKey()
	data := certificate.Marshal()
	certificate.Signature = must(ca.Sign(rand.Reader, data[:len(data)-4]))(t) // without the empty signature's length
	config := &xssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(host)
	config.AddHostKey(must(xssh.NewCertSigner(certificate, host))(t))
	address := sshtest.Listen(t, func(conn net.Conn) {
		if c, _, _, err := xssh.NewServerConn(conn, config); err == nil {
			_ = c.Wait()
		}
	})
	return configs.Target{Name: "certified", Kind: configs.KindSSH, Address: address}
}

// hostAuthority: a target is proven by a certificate of the authority that is pinned for it, for its own name and now, and by
// nothing that is almost one.
func (r *rig) hostAuthority(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	for name, test := range map[string]struct {
		authority xssh.PublicKey
		change    func(*xssh.Certificate)
		want      bool
	}{
		"good":              {ca.PublicKey(), func(*xssh.Certificate) {}, true},
		"by its address":    {ca.PublicKey(), func(c *xssh.Certificate) { c.ValidPrincipals = []string{"127.0.0.1"} }, true},
		"another authority": {other.PublicKey(), func(*xssh.Certificate) {}, false},
		"another name":      {ca.PublicKey(), func(c *xssh.Certificate) { c.ValidPrincipals = []string{"elsewhere"} }, false},
		"of a user":         {ca.PublicKey(), func(c *xssh.Certificate) { c.CertType = xssh.UserCert }, false},
		"for nobody":        {ca.PublicKey(), func(c *xssh.Certificate) { c.ValidPrincipals = nil }, false},
		"over":              {ca.PublicKey(), func(c *xssh.Certificate) { c.ValidBefore = 1000 }, false},
	} {
		target := r.certified(t, ca, test.change)
		target.HostCA = line(test.authority)
		if result, err := r.handler.Check(t.Context(), r.alice, target, configs.Account{Name: "me"}); (err == nil) != test.want || err != nil && !refusal.Is(err, refusal.TargetFailed) {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
	}
}

func TestScanHostKeys(t *testing.T) {
	r := newRig(t)
	for name, pinned := range map[string]bool{"web-1": true, "changed": false} {
		target, _ := r.grants.Target(name)
		keys, err := r.handler.ScanHostKeys(t.Context(), r.alice, target)
		if err != nil || len(keys) == 0 || keys[0].Key != line(r.sshd.hostKey) || keys[0].Pinned != pinned || !keys[0].Shown || keys[0].From != "shown at "+target.Address {
			t.Errorf("%s: %+v, %v", name, keys, err)
		}
		if pinned == (len(keys) == 2) || !pinned && (!keys[1].Pinned || keys[1].Shown || !strings.HasPrefix(keys[1].From, "the configuration alone")) {
			t.Errorf("%s: what is pinned: %+v", name, keys)
		}
	}
	// A certificate says which authority vouches, and for which names.
	ca := newSigner(t)
	target := r.certified(t, ca)
	for _, authority := range []string{"", line(ca.PublicKey()), line(newSigner(t).PublicKey())} {
		target.HostCA = authority
		keys, err := r.handler.ScanHostKeys(t.Context(), r.alice, target)
		if err != nil || len(keys) < 2 || !keys[1].Authority || keys[1].Key != line(ca.PublicKey()) || keys[1].Pinned != (authority == line(ca.PublicKey())) ||
			!strings.HasSuffix(keys[1].From, " as certified") {
			t.Errorf("authority %q: %+v, %v", authority, keys, err)
		}
	}
}
