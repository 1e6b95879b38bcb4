package ssh

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	xssh "golang.org/x/crypto/ssh"
)

// What is known to have gone wrong in other SSH servers and libraries, numbered as in our list of it, and the test that it does not go
// wrong here. A test in another room stands with its directory. TestCasesHaveTests looks whether they are there.
//
//	V-01  Terrapin                                   TestStrictKeyExchange
//	V-02  a key is offered, another signs            TestOfferedKeyIsNoProof
//	V-04  certificates signed by certificates        TestHostileKeys
//	V-06  GSSAPI                                     TestOnlyKeysAreTaken
//	V-07  what one step allowed is lost in the next  TestEachLoginStandsAlone
//	V-08  oversized keys                             TestHostileKeys
//	V-09  answers that nobody asked for              TestUnsolicitedAnswers
//	V-15  source-address                             TestRefusedCertificateIsTold
//	V-16  packets of any kind                        TestStrangers, FuzzFilter, FuzzInterpret, FuzzSCP
//	V-17  many keys on one connection                TestOnlyKeysAreTaken
//	V-20  any message before the login               TestNothingWorksBeforeTheLogin
//	V-21  an offer is no login                       TestOfferedKeyIsNoProof
//	V-22  a packet of two gigabytes                  TestStrangers
//	V-23  tunnels to SSH servers                     TestNoTunnelToOtherTargets, TestForwarding
//	V-24  recording does not depend on the command   TestWhatIsFedIsRecordedByWhatItIs
//	V-25  what has no terminal is recorded           TestCommandsAreRecorded
//	V-26  the user's certificate at the target       TestOnlyKeysAreTaken
//	V-28  user names as paths                        TestHostileUserNames
//	V-29  no pinned key                              TestCheck
//	V-30  sockets                                    TestRoleSaysWhatIsForwarded
//	V-31  principals and key ids                     TestRefusedCertificateIsTold, TestKeyIDIsOneField
//	V-32  a host key that can't be checked           TestRefusals
//	V-33  finite-field Diffie-Hellman                TestOnlyKeysAreTaken
//	V-34  hostile names in ssh_config                client: TestHostileNamesAreNotWritten
//	V-35  what terminals obey                        TestShownHasNothingThatATerminalObeys
//	C-14  a truncated exit status                    TestHostileTarget
//	D-01  thousands of silent connections            proxy: TestStrangersAreBounded
//	D-02  a slow or half a greeting                  TestStrangers
//	D-03  no key exchange                            TestStrangers
//	D-04  held sign-ins without end                  authn: TestHoldsAreBounded
//	D-08  no room for the record                     test/attacks: TestFullDisk
//	L-02  packets of one byte                        TestTinyPackets, TestTinyPacketsOfATarget, TestSmallPacketsWithoutEnd
//	L-03  a request that is not answered             TestStuckChannelHoldsNobodyUp
//	L-04  channels without end                       TestRejectedChannelsLeaveNothing, TestChannelsAreBounded
//
// Without a test are V-03 (a client that stops in the middle of a change of keys) and D-05 (times of known and unknown keys). The gateway
// makes and takes no certificate for a security key (V-10). The library's own, which nothing here can bring about through it, are fixed in the version that is built with: V-12, V-13, V-18.
// The gateway serves no agent (V-05, V-11) and reads no known_hosts (V-14).
func TestCasesHaveTests(t *testing.T) {
	source := string(must(os.ReadFile("cases_test.go"))(t))
	var all strings.Builder
	for _, pattern := range []string{
		"*_test.go", "interpret/*_test.go", "../../client/*_test.go", "../../proxy/*_test.go", "../../authn/*_test.go", "../../test/attacks/*_test.go",
	} {
		for _, file := range must(filepath.Glob(pattern))(t) {
			all.Write(must(os.ReadFile(file))(t))
		}
	}
	cases := 0
	for line := range strings.Lines(source) {
		if !strings.HasPrefix(line, "//\t") {
			continue
		}
		cases++
		names := regexp.MustCompile(`\b(Test|Fuzz)[A-Za-z]+`).FindAllString(line, -1)
		if len(names) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, name := range names {
			if !strings.Contains(all.String(), "\nfunc "+name+"(") {
				t.Errorf("there is no %s", name)
			}
		}
	}
	if cases < 30 {
		t.Errorf("%d cases were found", cases)
	}
}

// oddKey is a public key whose bytes are what somebody made them.
type oddKey struct {
	xssh.PublicKey
	kind string
	blob []byte
}

func (k oddKey) Type() string    { return k.kind }
func (k oddKey) Marshal() []byte { return k.blob }

type oddSigner struct {
	xssh.Signer
	key oddKey
}

func (s oddSigner) PublicKey() xssh.PublicKey { return s.key }

// TestHostileKeys (CVE-2025-49825, CVE-2026-39829): keys of absurd size and certificates that other certificates vouch for, one in
// the other, are refused without much ado, and everybody else is let in.
func TestHostileKeys(t *testing.T) {
	r := newRig(t)
	certificate := r.signer.PublicKey().(*xssh.Certificate)
	nested := certificate.Marshal()
	for range 200 { // each says that the one before has signed it
		inner := *certificate
		inner.SignatureKey = oddKey{PublicKey: certificate.Key, kind: certificate.Type(), blob: nested}
		if nested = inner.Marshal(); len(nested) > 100<<10 {
			break
		}
	}
	huge := make([]byte, 4096)
	huge[0], huge[len(huge)-1] = 1, 1
	text := func(parts ...[]byte) (blob []byte) {
		for _, p := range parts {
			blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(p))), p...)
		}
		return blob
	}
	for name, key := range map[string]oddKey{
		"certificates of certificates": {kind: certificate.Type(), blob: nested},
		"an RSA key of 32768 bits":     {kind: xssh.KeyAlgoRSA, blob: text([]byte("ssh-rsa"), []byte{1, 0, 1}, huge)},
		"an RSA exponent of as many":   {kind: xssh.KeyAlgoRSA, blob: text([]byte("ssh-rsa"), huge, huge)},
		"no key":                       {kind: xssh.KeyAlgoED25519, blob: text([]byte("ssh-ed25519"), nil)},
		"a length that leads nowhere":  {kind: xssh.KeyAlgoED25519, blob: []byte{0xff, 0xff, 0xff, 0xff}},
	} {
		key.PublicKey = certificate.Key
		if c, err := r.dial("me", oddSigner{r.signer, key}); err == nil {
			c.Close()
			t.Errorf("%s: it is taken", name)
		}
	}
	forged := *certificate
	forged.SignatureKey = certificate // of the right authority, it says, by way of the certificate
	if c, err := r.dial("me", oddSigner{r.signer, oddKey{PublicKey: certificate.Key, kind: certificate.Type(), blob: forged.Marshal()}}); err == nil {
		c.Close()
		t.Error("a certificate vouches for another")
	}
	if out, errs, _ := r.ssh("", "-T", "me@gw"); !strings.Contains(out, "Alice") {
		t.Errorf("afterwards: %q, %s", out, errs)
	}
}

// TestEachLoginStandsAlone (CVE-2026-39828, CVE-2026-46595): of a login that takes several attempts, the last alone counts: nothing
// that an earlier one brought is left, neither more nor less; and no attempt is half a login.
func TestEachLoginStandsAlone(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	mallory := r.mallory(t)
	narrowed := *r.signer.PublicKey().(*xssh.Certificate)
	narrowed.CriticalOptions = map[string]string{"force-command": "id"}
	if err := narrowed.SignCert(rand.Reader, r.loginAuthority(t)); err != nil {
		t.Fatal(err)
	}
	refused := must(xssh.NewCertSigner(&narrowed, plainSigner(r.signer)))(t) // alice's, and proven
	for _, c := range []struct {
		name    string
		signers []xssh.Signer
		who     string // "": nobody
	}{
		{"alice's own after a narrowed one", []xssh.Signer{refused, r.signer}, "Alice"},
		{"mallory's after alice's narrowed one", []xssh.Signer{refused, mallory}, "Mallory"},
		{"alice's narrowed one, and what is no certificate", []xssh.Signer{refused, newSigner(t)}, ""},
	} {
		client, err := r.dial("me@web-1", c.signers[0], func(config *xssh.ClientConfig) {
			config.Auth = []xssh.AuthMethod{
				xssh.PublicKeys(c.signers...),
				xssh.Password(""), xssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
					return make([]string, len(questions)), nil
				}),
			}
		})
		if c.who == "" {
			if err == nil {
				client.Close()
				t.Errorf("%s: it is let in", c.name)
			} else if strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "keyboard-interactive") {
				t.Errorf("%s: another way is offered for the rest: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		out, err := must(client.NewSession())(t).Output("echo here")
		if may := err == nil && string(out) == "here\n"; may != (c.who == "Alice") {
			t.Errorf("%s: %q, %v", c.name, out, err)
		}
		client.Close()
	}
}

// TestOnlyKeysAreTaken: public keys and nothing else, with what is cheap and safe, a few of them on a connection; and what a user
// has opens the gateway alone.
func TestOnlyKeysAreTaken(t *testing.T) {
	r := newRig(t)
	_, errs, status := r.ssh("", "-v", "-o", "PreferredAuthentications=none", "-T", "me@gw")
	if m := regexp.MustCompile(`Authentications that can continue: (.*)`).FindStringSubmatch(errs); status != 255 || m == nil || strings.TrimSpace(m[1]) != "publickey" {
		t.Errorf("what can be tried is %q, status %d:\n%s", m, status, errs)
	}
	for _, exchange := range []string{"diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512", "diffie-hellman-group-exchange-sha256"} {
		if _, errs, status := r.ssh("", "-o", "KexAlgorithms="+exchange, "-T", "me@gw"); status != 255 || !strings.Contains(errs, "no matching key exchange") {
			t.Errorf("%s: status %d, %s", exchange, status, errs)
		}
	}
	many := make([]xssh.Signer, 3*maxAuthTries)
	for i := range many {
		many[i] = newSigner(t)
	}
	if c, err := r.dial("me", r.signer, func(config *xssh.ClientConfig) {
		config.Auth = []xssh.AuthMethod{xssh.PublicKeys(append(many, r.signer)...)}
	}); err == nil {
		c.Close()
		t.Errorf("after %d keys another is looked at", len(many))
	}
	cmd := exec.Command("ssh", "-F", "none", "-i", filepath.Join(r.dir, "key"), "-o", "CertificateFile="+filepath.Join(r.dir, "key-cert.pub"),
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-p", fmt.Sprint(r.sshd.port), r.account+"@127.0.0.1", "id")
	if out, errs, status := run(t, cmd, ""); status != 255 || out != "" || !strings.Contains(errs, "Permission denied") {
		t.Errorf("at the target itself: status %d, %q, %s", status, out, errs)
	}
}

// TestUnsolicitedAnswers (CVE-2026-39830): a target answers a request many times over; nothing waits for it, and the next request gets
// its own answer.
func TestUnsolicitedAnswers(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	c := r.client("me@odd")
	if out, err := must(c.NewSession())(t).Output("answers"); err != nil || string(out) != "answered\n" {
		t.Errorf("%q, %v", out, err)
	}
	goesOn(t, c)
}
