//go:build unix

package attacks

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/test/rig"
)

// moreTargets are targets with something wrong, for the demo's configuration.
const moreTargets = `targets:
  - name: gone-db
    kind: postgres
    address: 127.0.0.1:1
    tls: {mode: "off"}
    accounts: [{name: app, password: "env:HOME"}]
  - name: gone-host
    kind: ssh
    address: 127.0.0.1:1
    host_keys: ["HOSTKEY"]
    accounts: [{name: deploy}]
  - name: changed-db
    kind: postgres
    address: "PGADDRESS"
    database: orders
    tls: {ca: "FOREIGNCA"}
    accounts: [{name: app, password: "env:HOME"}]
  - name: changed-host
    kind: ssh
    address: "SSHADDRESS"
    host_keys: ["HOSTKEY"]
    accounts: [{name: deploy}]
`

const morePolicies = `policies:
  - name: trouble
    groups: [engineers]
    accounts: ["*@gone-*", "*@changed-*"]
    max_duration: 12h
    approve: {auto: true}
`

// TestTargets asks for targets that are not there, do not answer, or do not prove themselves.
func TestTargets(t *testing.T) {
	s := newScene(t)
	shared := regexp.MustCompile(`port=\d+`).ReplaceAllString(s.Env["SALLYPORT_PG"], "port="+port(s.postgres))
	to := func(target string) string { return strings.Replace(shared, "dbname=orders", "dbname="+target, 1) }

	t.Run("unknown", func(t *testing.T) {
		s.tells(s.Run(nil, "psql", "-X", "-w", to("nosuch"), "-c", "SELECT 1"), "FATAL:", `there is no target "nosuch"`, "sallyport targets")
		s.audited("session.refused", "unknown_target", "nosuch", "Alice")
		s.tells(s.Run(nil, "psql", "-X", "-w", strings.Replace(to("orders"), "user=app", "user=nobody", 1), "-c", "SELECT 1"), "FATAL:", "nobody", "sallyport targets")
		s.audited("session.refused", "unknown_account", "nobody", "Alice")
		s.tells(s.Run(nil, "ssh", "-F", s.Env["SALLYPORT_SSH_CONFIG"], "-o", "BatchMode=yes", "-J", "sallyport-gateway", "deploy@nosuch", "true"), "nosuch", "sallyport targets")
		s.audited("session.refused", "unknown_target", "nosuch:22", "Alice")
		s.undisturbed()
	})

	configuration := s.configuration()
	s.addTargets(configuration)

	for _, c := range []struct{ target, account string }{{"gone-db", "app"}, {"changed-db", "app"}, {"gone-host", "deploy"}, {"changed-host", "deploy"}} {
		if out := s.As("alice", "request", c.account+"@"+c.target, "--duration", "1h", "--reason", "looking for trouble"); out.Code != 0 {
			t.Fatal(out.Text())
		}
	}
	t.Run("unreachable", func(t *testing.T) {
		s.tells(s.Run(nil, "psql", "-X", "-w", to("gone-db"), "-c", "SELECT 1"), "FATAL:", "gone-db")
		s.tells(s.outer("gone-host"), "gone-host")
		s.audited("target_failed", "gone-db")
		s.audited("target_failed", "gone-host")
		s.undisturbed()
	})

	t.Run("with a changed key", func(t *testing.T) {
		s.tells(s.Run(nil, "psql", "-X", "-w", to("changed-db"), "-c", "SELECT 1"), "FATAL:", "changed-db", "certificate")
		s.tells(s.outer("changed-host"), "changed-host", "key")
		s.audited("target_failed", "changed-db")
		s.audited("target_failed", "changed-host")
		s.undisturbed()
		// Nothing was said to a target that did not prove itself: its log knows no login but the bystanders'.
		log := string(read(t, s.Env["SALLYPORT_TARGET_LOG"]))
		if strings.Contains(log, "password authentication failed") {
			t.Errorf("a password was sent to a target that did not prove itself:\n%s", log)
		}
	})

	t.Run("a configuration with a typo", func(t *testing.T) {
		broken := strings.Replace(s.configuration(), "\npolicies:", "\npolicys:", 1)
		line := strings.Count(broken[:strings.Index(broken, "policys:")], "\n") + 1
		write(t, s.Path("sallyport.yaml"), []byte(broken))
		out := s.As("alice", "check", "-c", s.Path("sallyport.yaml"))
		s.tells(out, "sallyport.yaml:"+strconv.Itoa(line)+":", "policys", "policies")
		s.hangUp()
		s.audited("config.reloaded", "failed", "policys")
		s.undisturbed()
		write(t, s.Path("sallyport.yaml"), []byte(configuration))
		s.hangUp()
		s.undisturbed()
	})

	t.Run("a second gateway on the same directory", func(t *testing.T) {
		out := s.Run(nil, s.Env["SALLYPORT_BIN"], "serve", "-c", s.Path("sallyport.yaml"))
		s.tells(out, "another sallyport gateway is running on this state directory")
		s.undisturbed()
	})
}

// outer goes to an SSH target by the gateway's own name: ACCOUNT@TARGET@gateway.
func (s *scene) outer(target string) rig.Outcome {
	s.t.Helper()
	return s.Run(nil, "ssh", "-F", s.Env["SALLYPORT_SSH_CONFIG"], "-o", "BatchMode=yes", "-l", "deploy@"+target, "sallyport-gateway", "true")
}

// addTargets has the gateway take in the targets with something wrong.
func (s *scene) addTargets(configuration string) {
	s.t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	other, err := ssh.NewPublicKey(public)
	if err != nil {
		s.t.Fatal(err)
	}
	addresses := regexp.MustCompile(`(?m)^    address: "([0-9.:]+)"`).FindAllStringSubmatch(configuration, -1)
	if len(addresses) != 2 {
		s.t.Fatalf("sallyport.yaml names the targets %v", addresses)
	}
	more := strings.NewReplacer(
		"HOSTKEY", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(other))),
		"PGADDRESS", addresses[0][1], "SSHADDRESS", addresses[1][1],
		// An authority, but not the one that signed the target's certificate.
		"FOREIGNCA", s.Path("keys", "client_ca_certificate.pem"),
	).Replace(moreTargets)
	configuration = strings.Replace(configuration, "targets:\n", more, 1)
	configuration = strings.Replace(configuration, "policies:\n", morePolicies, 1)
	write(s.t, s.Path("sallyport.yaml"), []byte(configuration))
	s.hangUp()
	s.Until(20*time.Second, "the new targets are offered", func() error {
		if out := s.As("alice", "targets"); !strings.Contains(out.Stdout, "changed-host") {
			return os.ErrNotExist
		}
		return nil
	})
}

// hangUp has the gateway read its configuration again.
func (s *scene) hangUp() {
	s.t.Helper()
	if err := syscall.Kill(s.pid, syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}
