package ssh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/protocols/ssh/sshtest"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
)

// The rig is a real gateway without its HTTP face: store, authn, grants, recorder, sessions and this handler on a
// loopback port, a private sshd as its target, and the files of a client that has signed in, for the stock programs.

// gatewayHost is the name that clients know the gateway by.
const gatewayHost = "gateway.test"

type rig struct {
	t        *testing.T
	dir      string
	account  string // on the target: whoever runs the test
	config   *configs.Config
	store    *store.Store
	authn    *authn.Service
	grants   *grant.Service
	recorder *recorder.Recorder
	sessions *session.Manager
	handler  *Handler
	alice    authn.Identity
	sshd     *sshd
	port     int // of the gateway
	signer   xssh.Signer
	serving  atomic.Int64 // connections that the handler serves
	held     atomic.Bool  // the odd target has a channel that it never answers
}

// sshd is a private sshd on a loopback port.
type sshd struct {
	port    int
	hostKey xssh.PublicKey
	log     string
}

const deadline = sshtest.Deadline

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	for _, program := range []string{"/usr/sbin/sshd", "ssh", "scp", "sftp"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir(), account: me.Username}
	ctx := t.Context()
	r.config = &configs.Config{
		State: filepath.Join(r.dir, "state"), URL: "https://" + gatewayHost,
		Credentials: configs.Credentials{SignIn: configs.Duration(time.Hour), Certificate: configs.Duration(time.Hour)},
		Recording:   configs.Recording{Durability: configs.Written, AllowVolatile: true},
		Limits:      configs.Limits{Handshake: configs.Duration(deadline)},
		Provider:    configs.Provider{Issuer: "https://login.example", ClientID: "sallyport"},
		Policies: []configs.Policy{{
			Name: "ssh", Groups: []string{"engineers"}, Accounts: []string{"*@*"}, MaxDuration: configs.Duration(time.Hour), MaxTotal: configs.Duration(2 * time.Hour),
			DefaultDuration: configs.Duration(time.Hour), ReasonLength: 1,
			Approve: configs.Approve{Auto: true, Within: configs.Duration(time.Hour), Start: configs.Duration(time.Hour)},
		}},
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	st := storetest.New(t, r.config.State)
	r.store = st
	r.authn = must(authn.Open(ctx, r.config, st, log))(t)
	t.Cleanup(func() { r.authn.Close(context.Background()) })
	r.sshd = startSSHD(t, r.dir, r.authn.TargetAuthority())
	account := configs.Account{Name: "me", User: r.account}
	forwarding := configs.Account{Name: "forwarder", User: r.account, Forwarding: true}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(r.sshd.port))
	pin := strings.TrimSpace(string(xssh.MarshalAuthorizedKey(r.sshd.hostKey)))
	r.config.Targets = []configs.Target{
		{Name: "web-1", Kind: configs.KindSSH, Address: address, HostKeys: []string{pin}, Accounts: []configs.Account{account, forwarding}, Aliases: []string{"web.example"}},
		{Name: "changed", Kind: configs.KindSSH, Address: address, HostKeys: []string{line(newSigner(t).PublicKey())}, Accounts: []configs.Account{account}},
		{Name: "down", Kind: configs.KindSSH, Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t))), HostKeys: []string{pin}, Accounts: []configs.Account{account}},
		{Name: "moved", Kind: configs.KindSSH, Address: address, HostKeys: []string{pin}, Accounts: []configs.Account{account}, CertificateSource: "192.0.2.7"},
		{Name: "far", Kind: configs.KindSSH, Address: address, HostKeys: []string{pin}, Accounts: []configs.Account{account}, CertificateSource: configs.AnySource},
		{Name: "orders", Kind: configs.KindPostgres, Address: "127.0.0.1:5432", Accounts: []configs.Account{account}},
	}
	r.grants = must(grant.Open(ctx, r.config, st, log))(t)
	t.Cleanup(func() { r.grants.Close() })
	r.recorder = must(recorder.Open(ctx, recorder.Options{
		Dir: r.config.State, Config: r.config.Recording, Store: st, Log: log, Version: "test",
		Interpreters: map[string]func(format.Header) recorder.Interpreter{configs.KindSSH: Interpreter},
		Recipients:   func(string) []string { return r.config.Recording.Recipients },
	}))(t)
	t.Cleanup(func() { r.recorder.Close(context.Background()) })
	r.sessions = must(session.Open(ctx, session.Options{Store: st, Recorder: r.recorder, Authn: r.authn, Config: r.config, Log: log}))(t)
	options := Options{
		Authn: r.authn, Grants: r.grants, Sessions: r.sessions, Host: gatewayHost, URL: r.config.URL, HandshakeTimeout: deadline, Log: log,
	}
	for _, f := range change {
		f(&options)
	}
	r.handler = New(options)
	r.serve()
	r.signIn()
	return r
}

func must[T any](v T, err error) func(testing.TB) T { return sshtest.Must(v, err) }

// serve hands connections to the handler until the test ends, and then waits for them.
func (r *rig) serve() {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(r.t)
	r.port = l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	connections := make(chan struct{}, 1000)
	go func() {
		defer close(served)
		n := 0
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			n++
			go func() {
				r.serving.Add(1)
				defer func() { r.serving.Add(-1); connections <- struct{}{} }()
				r.handler.Serve(ctx, conn)
			}()
		}
		for range n {
			<-connections
		}
	}()
	r.t.Cleanup(func() {
		l.Close()
		cancel()
		select {
		case <-served:
		case <-time.After(deadline):
			r.t.Error("connections did not end with their context")
		}
	})
}

// signIn makes the files of alice's client.
func (r *rig) signIn() {
	who := authn.Identity{
		Issuer: "https://login.example", Subject: "alice", Kind: authn.Human, Name: "Alice Example", Email: "alice@example.com",
		Groups: []string{"engineers"},
	}
	r.alice = must(r.authn.SignIn(r.t.Context(), who, "127.0.0.1"))(r.t)
	public, private := must2(ed25519.GenerateKey(rand.Reader))(r.t)
	block := must(xssh.MarshalPrivateKey(private, ""))(r.t)
	key := must(xssh.NewPublicKey(public))(r.t)
	issued := must(r.authn.Certify(r.t.Context(), r.alice, authn.Keys{SSH: key}))(r.t)
	r.write("key", string(pem.EncodeToMemory(block)))
	r.write("key-cert.pub", issued.SSH+"\n")
	r.write("known_hosts", "@cert-authority * "+line(r.authn.HostAuthority())+"\n")
	r.write("config", fmt.Sprintf(`
Host gw %[1]s
  HostName 127.0.0.1
  HostKeyAlias %[1]s
  Port %[2]d
Host web-1 web.example changed down elsewhere
  ProxyJump jumper@%[1]s
Host *
  User me
  IdentityFile %[3]s/key
  CertificateFile %[3]s/key-cert.pub
  IdentitiesOnly yes
  UserKnownHostsFile %[3]s/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  BatchMode yes
  SendEnv LANG LD_PRELOAD_TEST
`, gatewayHost, r.port, r.dir))
	certificate, _, _, _, err := xssh.ParseAuthorizedKey([]byte(issued.SSH))
	if err != nil {
		r.t.Fatal(err)
	}
	plain := must(xssh.NewSignerFromKey(private))(r.t)
	r.signer = must(xssh.NewCertSigner(certificate.(*xssh.Certificate), plain))(r.t)
}

func must2[A, B any](a A, b B, err error) func(*testing.T) (A, B) {
	return func(t *testing.T) (A, B) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
}

func (r *rig) write(name, content string) string {
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// hide moves a file away while f runs.
func (r *rig) hide(name string, f func()) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.Rename(path, path+".hidden"); err != nil {
		r.t.Fatal(err)
	}
	f()
	if err := os.Rename(path+".hidden", path); err != nil {
		r.t.Fatal(err)
	}
}

// grant gives alice a grant for the account, by policy.
func (r *rig) grant(account, target string) grant.Grant {
	r.t.Helper()
	return must(r.grants.Request(r.t.Context(), r.alice, grant.Ask{Target: target, Account: account, Reason: "test"}))(r.t)
}

// The forms in which a target is addressed.
var forms = []struct {
	name string
	to   func(account, target string) string
}{
	{"direct", func(account, target string) string { return account + "@" + target + "@gw" }},
	{"alias", func(account, target string) string { return account + "+" + target + "@gw" }},
	{"jump", func(account, target string) string { return account + "@" + target }},
}

// command prepares a stock client.
func (r *rig) command(program string, args ...string) *exec.Cmd {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	r.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, append([]string{"-F", filepath.Join(r.dir, "config")}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "LANG=C.UTF-8", "LD_PRELOAD_TEST=bad")
	return cmd
}

// ssh runs a stock ssh to its end.
func (r *rig) ssh(stdin string, args ...string) (stdout, stderr string, status int) {
	r.t.Helper()
	return run(r.t, r.command("ssh", args...), stdin)
}

func run(t *testing.T, cmd *exec.Cmd, stdin string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v\n%s", cmd, err, errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// client is a connection of the Go library's own client, for what the stock one can't be made to do.
func (r *rig) client(user string) *xssh.Client {
	r.t.Helper()
	c := must(xssh.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)), &xssh.ClientConfig{
		User: user, Auth: []xssh.AuthMethod{xssh.PublicKeys(r.signer)}, HostKeyCallback: xssh.FixedHostKey(r.authn.HostKey().PublicKey()),
		HostKeyAlgorithms: []string{r.authn.HostKey().PublicKey().Type()}, Timeout: deadline,
	}))(r.t)
	r.t.Cleanup(func() { c.Close() })
	return c
}

// items are what the recording of a session means.
func (r *rig) items(id string) []recorder.Item {
	r.t.Helper()
	seq := must(r.recorder.Items(r.t.Context(), id))(r.t)
	var items []recorder.Item
	for item, err := range seq {
		if err != nil {
			r.t.Fatalf("recording of %s: %v", id, err)
		}
		items = append(items, item)
	}
	return items
}

// last is the session that was begun last.
func (r *rig) last() session.Info {
	r.t.Helper()
	list := must(r.sessions.List(r.t.Context(), true))(r.t)
	if len(list) == 0 {
		r.t.Fatal("there is no session")
	}
	return list[0]
}

// ended waits for the last session's end.
func (r *rig) ended() session.Info {
	r.t.Helper()
	eventually(r.t, "the session ends", func() bool { return !r.last().Live })
	return r.last()
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	sshtest.Eventually(t, what, holds)
}

func newSigner(t *testing.T) xssh.Signer {
	t.Helper()
	return must(xssh.NewSignerFromKey(newPrivate(t)))(t)
}

func newPrivate(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, private := must2(ed25519.GenerateKey(rand.Reader))(t)
	return private
}

func freePort(t *testing.T) int {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startSSHD runs a private sshd that lets in whoever has a certificate of the authority, until the test ends.
func startSSHD(t *testing.T, dir string, authority xssh.PublicKey) *sshd {
	t.Helper()
	public, private := must2(ed25519.GenerateKey(rand.Reader))(t)
	key := must(xssh.NewPublicKey(public))(t)
	s := &sshd{port: freePort(t), hostKey: key, log: filepath.Join(dir, "sshd.log")}
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hostKey := put("sshd_key", string(pem.EncodeToMemory(must(xssh.MarshalPrivateKey(private, ""))(t))))
	ca := put("target_ca.pub", line(authority)+"\n")
	config := put("sshd_config", fmt.Sprintf(`
Port %d
ListenAddress 127.0.0.1
HostKey %s
TrustedUserCAKeys %s
AuthorizedKeysFile none
SetEnv SHLVL=1
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
StrictModes no
PermitRootLogin yes
AcceptEnv *
PrintMotd no
PrintLastLog no
MaxSessions 100
MaxStartups 100
LogLevel VERBOSE
ExposeAuthInfo yes
Subsystem sftp internal-sftp
`, s.port, hostKey, ca))
	if os.Getuid() == 0 { // sshd's own separated process needs it, and a service manager would have made it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := must(os.Create(s.log))(t)
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(s.log)
			t.Logf("sshd said:\n%s", text)
		}
	})
	eventually(t, "sshd listens", func() bool {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return s
}
