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

// cases are what is known to have gone wrong in other SSH servers, gateways and libraries, numbered as in our list of it: C commands, D
// denial of service, E ends and their order, F forwarding, G requests about the connection, L limits, V vulnerabilities. Each has the
// tests that it does not go wrong here (one of another room stands with its directory), or why there is none.
var cases = []struct{ id, what, tests, none string }{
	{"C-01", "size, modes and kind of a terminal", "TestShellOnATerminal", ""},
	{"C-02", "no terminal where none was asked for", "TestCommandsArePassedAsTheyAre", ""},
	{"C-03", "variables on the list", "TestExec", ""},
	{"C-04", "variables that run programs", "TestExec, protocols/ssh/rules: TestVariable", ""},
	{"C-05", "a command that is refused", "TestRoleSaysWhatRuns", ""},
	{"C-06", "commands byte for byte", "TestCommandsArePassedAsTheyAre", ""},
	{"C-07", "a second command on a channel", "TestAskedMay", ""},
	{"C-08", "signals", "TestSignals", ""},
	{"C-09", "a break", "TestAskedMay", ""},
	{"C-10", "a storm of changes of the window", "TestQueueMergesAndBounds", ""},
	{"C-11", "a change of the window before a terminal", "TestAskedMay", ""},
	{"C-12", "exit statuses", "TestExec, TestShortCommands", ""},
	{"C-13", "the name of a signal", "TestCommandsArePassedAsTheyAre", ""},
	{"C-14", "a truncated exit status", "TestHostileTarget", ""},
	{"C-15", "no exit status", "TestCommandsArePassedAsTheyAre", ""},
	{"C-16", "yes | head", "TestReaderThatLeavesEndsTheWriter", ""},
	{"C-17", "the agent is asked for", "TestAgentIsForwardedWhereTheRoleSays", ""},
	{"C-18", "X11 is asked for, and refused", "TestForwarding, TestAskedMay", ""},
	{"C-19", "a target asks whether somebody is there", "TestOddClients", ""},
	{"C-20", "unknown requests", "TestAskedMay, TestOddClients", ""},
	{"D-01", "thousands of silent connections", "proxy: TestStrangersAreBounded", ""},
	{"D-02", "a slow or half a greeting", "TestStrangers", ""},
	{"D-03", "no key exchange", "TestStrangers", ""},
	{"D-04", "held sign-ins without end", "authn: TestHoldsAreBounded", ""},
	{"D-05", "whether a key is known", "TestStrangersLearnNothing", ""},
	{"D-06", "which targets there are", "TestStrangersLearnNothing", ""},
	{"D-07", "a slow disk", "recorder: TestBigEventsAndFullQueue", ""},
	{"D-08", "no room for the record", "test/attacks: TestFullDisk", ""},
	{"E-01", "output and status of a command whose input has ended", "TestLongOutput", ""},
	{"E-02", "status of a short command", "TestShortCommands, TestExec", ""},
	{"E-03", "output after the input has ended", "TestExec", ""},
	{"E-04", "stderr after the end of stdout", "TestLongOutput", ""},
	{"E-05", "stderr alone", "TestLongOutput", ""},
	{"E-06", "the status comes after the output", "TestSettleWaitsForOutput, TestLongOutput", ""},
	{"E-07", "the status does not wait for what goes on in the background", "TestExitStatusDoesNotWaitForTheEndOfOutput", ""},
	{"E-08", "sftp, scp, and what is built on them", "TestCopying", ""},
	{"E-09", "many commands at once on one connection", "TestManySessionsOnOneConnection", ""},
	{"E-10", "keys are changed under way", "TestKeysAreChangedUnderWay", ""},
	{"F-01", "-L", "TestForwarding", ""},
	{"F-02", "-D", "TestRoleSaysWhatIsForwarded", ""},
	{"F-03", "-W", "TestForwarding, TestRefusals", ""},
	{"F-04", "to a target's SSH", "TestForwarding, TestNoTunnelToOtherTargets", ""},
	{"F-05", "to one place alone", "TestRoleSaysWhatIsForwarded", ""},
	{"F-06", "to sockets", "TestRoleSaysWhatIsForwarded", ""},
	{"F-07", "-R", "TestRoleSaysWhatIsForwarded", ""},
	{"F-08", "a target forwards what nobody asked for", "TestHostileTarget, TestWhatATargetOpens", ""},
	{"F-09", "the agent", "TestAgentIsForwardedWhereTheRoleSays", ""},
	{"F-10", "the agent, and nobody asked for it", "TestWhatATargetOpens", ""},
	{"F-11", "X11 under a role that allows it", "", "no role does"},
	{"F-12", "X11, and nobody asked for it", "TestHostileTarget, TestWhatATargetOpens", ""},
	{"F-13", "tun", "TestUnknownChannels", ""},
	{"F-14", "a session towards the client", "TestHostileTarget", ""},
	{"F-15", "unknown channels", "TestUnknownChannels, TestRejectedChannelsLeaveNothing", ""},
	{"G-01", "-R 0", "TestRoleSaysWhatIsForwarded, TestAnswersKeepTheirOrder", ""},
	{"G-02", "-R of a socket", "TestRoleSaysWhatIsForwarded", ""},
	{"G-03", "no-more-sessions", "TestOddClients, TestShortCommands", ""},
	{"G-04", "keepalives", "TestOddClients, TestKeysAreChangedUnderWay", ""},
	{"G-05", "a target's host keys", "TestOddClients", ""},
	{"G-06", "unknown requests about the connection", "TestOddClients", ""},
	{"G-07", "answers keep their order", "TestAnswersKeepTheirOrder", ""},
	{"G-08", "targets that can't stand keepalives", "TestOddClients", ""},
	{"L-01", "a slow reader", "TestTinyPacketsOfATarget", ""},
	{"L-02", "packets of one byte", "TestTinyPackets, TestTinyPacketsOfATarget, TestSmallPacketsWait, TestSmallPacketsWithoutEnd", ""},
	{"L-03", "a request that is not answered", "TestStuckChannelHoldsNobodyUp", ""},
	{"L-04", "channels without end", "TestRejectedChannelsLeaveNothing, TestChannelsAreBounded", ""},
	{"L-05", "more than the window, or than a packet may have", "TestOddClients", ""},
	{"L-06", "no window, and packets of nine bytes", "TestOddClients", ""},
	{"L-07", "extended data of an unknown kind", "TestOddClients", ""},
	{"L-08", "stdout is read, stderr is not", "TestLongOutput", ""},
	{"L-09", "a peer that is gone without a word", "TestLostTargetsAreNoticed, proxy: TestLostClientsAreNoticed", ""},
	{"L-10", "keys are changed from all sides", "TestKeysAreChangedFromAllSides", ""},
	{"L-11", "floods of pings", "TestOddClients, TestMessagesOutOfPlace", ""},
	{"L-12", "a shared connection after its grant", "TestManySessionsOnOneConnection", ""},
	{"L-13", "a target that is lost", "TestTargetThatIsLost", ""},
	{"L-14", "a client that dies", "TestClientThatDies", ""},
	{"V-01", "Terrapin", "TestStrictKeyExchange", ""},
	{"V-02", "a key is offered, another signs", "TestOfferedKeyIsNoProof", ""},
	{"V-03", "a client stops in the middle of a change of keys", "TestKeysAreNotChanged", ""},
	{"V-04", "certificates signed by certificates", "TestHostileKeys", ""},
	{"V-05", "hostile agents, and clients of one", "", "the gateway serves no agent and uses none: it passes the bytes of one on"},
	{"V-06", "GSSAPI", "TestOnlyKeysAreTaken", ""},
	{"V-07", "what one step allowed is lost in the next", "TestEachLoginStandsAlone", ""},
	{"V-08", "oversized keys", "TestHostileKeys", ""},
	{"V-09", "answers that nobody asked for", "TestUnsolicitedAnswers", ""},
	{"V-10", "security keys without a touch", "", "the gateway makes and takes no certificate for one, and no plain one"},
	{"V-11", "an agent's constraints", "", "the gateway serves no agent"},
	{"V-12", "writes of four gigabytes", "", "the library's own, fixed in the version that is built with; every write here is of one read, 128 KiB at most"},
	{"V-13", "authorities that are not set", "", "the library's own, fixed in the version that is built with; the gateway checks certificates itself"},
	{"V-14", "a revoked host authority", "", "the gateway reads no known_hosts: what is no longer pinned is refused"},
	{"V-15", "source-address", "TestRefusedCertificateIsTold", ""},
	{"V-16", "packets of any kind", "TestStrangers, TestMessagesOutOfPlace, protocols/ssh/interpret: FuzzFilter, FuzzInterpret, FuzzSCP", ""},
	{"V-17", "many keys on one connection", "TestOnlyKeysAreTaken", ""},
	{"V-18", "data before a channel is accepted", "", "the library's own, fixed in the version that is built with"},
	{"V-20", "any message before the login", "TestNothingWorksBeforeTheLogin, TestMessagesOutOfPlace", ""},
	{"V-21", "an offer is no login", "TestOfferedKeyIsNoProof, TestMessagesOutOfPlace", ""},
	{"V-22", "a packet of two gigabytes", "TestStrangers", ""},
	{"V-23", "tunnels to SSH servers", "TestNoTunnelToOtherTargets, TestForwarding", ""},
	{"V-24", "recording does not depend on the command", "TestWhatIsFedIsRecordedByWhatItIs", ""},
	{"V-25", "what has no terminal is recorded", "TestCommandsAreRecorded", ""},
	{"V-26", "the user's certificate at the target", "TestOnlyKeysAreTaken", ""},
	{"V-27", "PROXY headers", "test/attacks: TestStrangers", ""},
	{"V-28", "user names as paths", "TestHostileUserNames", ""},
	{"V-29", "no pinned key", "TestCheck", ""},
	{"V-30", "sockets", "TestRoleSaysWhatIsForwarded", ""},
	{"V-31", "principals and key ids", "TestRefusedCertificateIsTold, TestKeyIDIsOneField", ""},
	{"V-32", "a host key that can't be checked", "TestRefusals", ""},
	{"V-33", "finite-field Diffie-Hellman", "TestOnlyKeysAreTaken", ""},
	{"V-34", "hostile names in ssh_config", "client: TestHostileNamesAreNotWritten", ""},
	{"V-35", "what terminals obey", "TestShownHasNothingThatATerminalObeys", ""},
}

// numbered is how many cases of each letter our list has. It has no V-19.
var numbered = map[string]int{"C": 20, "D": 8, "E": 10, "F": 15, "G": 8, "L": 14, "V": 35}

// TestCasesHaveTests: each case of the list has its tests, and they are there, or a reason.
func TestCasesHaveTests(t *testing.T) {
	missing := map[string]bool{}
	for letter, n := range numbered {
		for i := range n {
			missing[fmt.Sprintf("%s-%02d", letter, i+1)] = true
		}
	}
	delete(missing, "V-19")
	source := map[string]string{} // of a room's tests
	tests := func(room string) string {
		if _, ok := source[room]; !ok {
			var all strings.Builder
			for _, file := range must(filepath.Glob(filepath.Join("../..", room, "*_test.go")))(t) {
				all.Write(must(os.ReadFile(file))(t))
			}
			source[room] = all.String()
		}
		return source[room]
	}
	for _, c := range cases {
		if !missing[c.id] {
			t.Errorf("%s stands twice, or not on the list", c.id)
		}
		delete(missing, c.id)
		if (c.tests == "") == (c.none == "") {
			t.Errorf("%s needs tests or a reason why there are none", c.id)
			continue
		}
		room := "protocols/ssh"
		for _, name := range strings.Fields(strings.ReplaceAll(c.tests, ",", "")) {
			if other, ok := strings.CutSuffix(name, ":"); ok {
				room = other
			} else if !strings.Contains(tests(room), "\nfunc "+name+"(") {
				t.Errorf("%s: there is no %s in %s", c.id, name, room)
			}
		}
	}
	for id := range missing {
		t.Errorf("nothing is said of %s", id)
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
	for algorithms, kind := range map[string]string{
		"KexAlgorithms=diffie-hellman-group14-sha1,diffie-hellman-group14-sha256,diffie-hellman-group16-sha512,diffie-hellman-group-exchange-sha256": "key exchange",
		"Ciphers=chacha20-poly1305@openssh.com,aes128-cbc,3des-cbc":                                                                                  "cipher",
	} {
		if _, errs, status := r.ssh("", "-o", algorithms, "-T", "me@gw"); status != 255 || !strings.Contains(errs, "no matching "+kind) {
			t.Errorf("%s: status %d, %s", algorithms, status, errs)
		}
	}
	if _, errs, status := r.ssh("", "-o", "Ciphers=aes128-ctr", "-o", "MACs=hmac-sha1,hmac-sha1-etm@openssh.com,umac-64@openssh.com", "-T", "me@gw"); status != 255 || !strings.Contains(errs, "no matching MAC") {
		t.Errorf("SHA-1: status %d, %s", status, errs)
	}
	many := make([]xssh.Signer, 50) // the library itself stops at 128 requests
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
