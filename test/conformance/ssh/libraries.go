package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// libraries are clients that are not OpenSSH's.
var libraries = []scenario{
	{name: "paramiko", run: python("paramiko_client.py")},
	{name: "asyncssh", run: python("asyncssh_client.py")},
	{name: "node-ssh2", timeout: 5 * time.Minute, run: nodeSSH2},
	{name: "go-x-crypto", run: goClient},
	{name: "plink/exec", run: putty("plink", "cat; echo err >&2; exit 7")},
	{name: "plink/big", run: putty("plink", "head -c 3000000 /dev/zero; exit 5")},
	{name: "psftp", run: psftp},
	{name: "pscp", run: pscp},
	{name: "dbclient/exec", run: dbclient("cat; echo err >&2; exit 7")},
	{name: "dbclient/big", run: dbclient("head -c 3000000 /dev/zero; exit 5")},
	{name: "dbclient/signal", run: dbclient("kill -TERM $$")},
}

// interpreter is Debian's Python, which has the packages.
const interpreter = "/usr/bin/python3"

func python(file string) func(context.Context, *side) (string, error) {
	return func(ctx context.Context, s *side) (string, error) {
		name, err := s.client(file)
		if err != nil {
			return "", err
		}
		h, err := s.run(ctx, nil, interpreter, "-W", "ignore", name)
		if err == nil && h.status != 0 {
			err = fmt.Errorf("status %d: %s", h.status, tailOf(h.err))
		}
		return h.out, err
	}
}

// errNoCertificate: the client shows no certificates, and this way asks for one.
var errNoCertificate = errSkipped{"the client shows no certificates"}

func nodeSSH2(ctx context.Context, s *side) (string, error) {
	if s.through && s.proxy == "" {
		return "", errNoCertificate
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	if from := os.Getenv("SALLYPORT_CONFORMANCE_CACHE"); from != "" {
		cache = from
	}
	dir := filepath.Join(cache, "sallyport-conformance", "ssh2-1.17.0")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "ssh2")); err != nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		text, err := clients.ReadFile("clients/package.json")
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, "package.json"), text, 0o644); err != nil {
			return "", err
		}
		install := exec.CommandContext(ctx, "npm", "install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund")
		install.Dir = dir
		if out, err := install.CombinedOutput(); err != nil {
			return "", fmt.Errorf("npm install: %w: %s", err, tailOf(string(out)))
		}
	}
	name, err := s.client("ssh2_client.js")
	if err != nil {
		return "", err
	}
	cmd := s.command(ctx, "node", name)
	cmd.Env = append(cmd.Env, "NODE_PATH="+filepath.Join(dir, "node_modules"))
	out, err := cmd.Output()
	return string(out), err
}

// putty runs one of the PuTTY tools, which read a key of their own form.
func putty(program string, args ...string) func(context.Context, *side) (string, error) {
	return func(ctx context.Context, s *side) (string, error) {
		if s.through && s.proxy == "" {
			return "", errNoCertificate
		}
		h, err := s.putty(ctx, "input\n", program, args...)
		return h.String(), err
	}
}

func (s *side) putty(ctx context.Context, stdin, program string, args ...string) (heard, error) {
	key := s.path("key.ppk")
	if out, err := s.command(ctx, "puttygen", s.key, "-o", key, "-O", "private").CombinedOutput(); err != nil {
		return heard{}, fmt.Errorf("puttygen: %w: %s", err, out)
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.hostKey))
	if err != nil {
		return heard{}, err
	}
	all := []string{"-batch", "-i", key, "-P", s.port, "-hostkey", ssh.FingerprintSHA256(parsed)}
	if s.proxy != "" {
		all = append(all, "-proxycmd", s.proxy)
	}
	if program == "plink" {
		all = append(all, "-ssh", "-l", s.user, s.host)
	} else if program == "psftp" {
		all = append(all, "-l", s.user, "-b", s.path("batch"), s.host)
	} else {
		all = append(all, "-q", "-l", s.user)
	}
	h, err := s.run(ctx, strings.NewReader(stdin), program, append(all, args...)...)
	h.err = withoutLines(h.err, "Using username") // that names the user
	h.out = withoutLines(h.out, "Using username")
	return h, err
}

func psftp(ctx context.Context, s *side) (string, error) {
	if s.through && s.proxy == "" {
		return "", errNoCertificate
	}
	big, err := s.file("big", 5<<20)
	if err != nil {
		return "", err
	}
	batch := fmt.Sprintf("mkdir %[1]s/d\nput %[2]s %[1]s/d/one\nmv %[1]s/d/one %[1]s/d/two\nget %[1]s/d/two %[1]s/back\nchmod 600 %[1]s/d/two\nquit\n", s.work, big)
	if err := os.WriteFile(s.path("batch"), []byte(batch), 0o600); err != nil {
		return "", err
	}
	if h, err := s.putty(ctx, "", "psftp"); err != nil || h.status != 0 {
		return h.String(), err
	}
	back, err := digest(s.path("back"))
	if err != nil {
		return "", err
	}
	tree, err := listing(s.path("d"))
	return back + tree, err
}

func pscp(ctx context.Context, s *side) (string, error) {
	if s.through && s.proxy == "" {
		return "", errNoCertificate
	}
	big, err := s.file("big", 5<<20)
	if err != nil {
		return "", err
	}
	for _, flag := range []string{"-sftp", "-scp"} {
		if h, err := s.putty(ctx, "", "pscp", flag, big, s.host+":"+s.path("there"+flag)); err != nil || h.status != 0 {
			return h.String(), err
		}
		if h, err := s.putty(ctx, "", "pscp", flag, s.host+":"+s.path("there"+flag), s.path("back"+flag)); err != nil || h.status != 0 {
			return h.String(), err
		}
	}
	a, err := digest(s.path("back-sftp"))
	if err != nil {
		return "", err
	}
	b, err := digest(s.path("back-scp"))
	return a + b, err
}

func dbclient(command string) func(context.Context, *side) (string, error) {
	return func(ctx context.Context, s *side) (string, error) {
		if s.through && s.proxy == "" {
			return "", errNoCertificate
		}
		key := s.path("key.dropbear")
		if out, err := s.command(ctx, "dropbearconvert", "openssh", "dropbear", s.key, key).CombinedOutput(); err != nil {
			return "", fmt.Errorf("dropbearconvert: %w: %s", err, out)
		}
		args := []string{"-y", "-y", "-i", key, "-p", s.port, "-l", s.user}
		if s.proxy != "" {
			args = append(args, "-J", s.proxy)
		}
		h, err := s.run(ctx, strings.NewReader("input\n"), "dbclient", append(args, s.host, command)...)
		h.err = withoutLines(h.err, "dbclient: ") // its own words name the address
		return h.String(), err
	}
}

// pipe is a command's input and output as a connection.
type pipe struct {
	io.Reader
	io.WriteCloser
	wait func() error // once
}

func (p pipe) Close() error {
	err := p.WriteCloser.Close()
	return errors.Join(err, p.wait())
}
func (pipe) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (pipe) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (pipe) SetDeadline(time.Time) error      { return nil }
func (pipe) SetReadDeadline(time.Time) error  { return nil }
func (pipe) SetWriteDeadline(time.Time) error { return nil }

// dial is a connection of the Go library's client.
func (s *side) dial(ctx context.Context) (*ssh.Client, error) {
	text, err := os.ReadFile(s.key)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	if s.certificate != "" {
		text, err := os.ReadFile(s.certificate)
		if err != nil {
			return nil, err
		}
		parsed, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			return nil, err
		}
		certificate, ok := parsed.(*ssh.Certificate)
		if !ok {
			return nil, errors.New("the certificate is none")
		}
		if signer, err = ssh.NewCertSigner(certificate, signer); err != nil {
			return nil, err
		}
	}
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.hostKey))
	if err != nil {
		return nil, err
	}
	config := &ssh.ClientConfig{
		User: s.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey), HostKeyAlgorithms: []string{hostKey.Type()},
	}
	var conn net.Conn
	if s.proxy != "" {
		words := strings.Fields(s.proxy)
		cmd := s.command(ctx, words[0], words[1:]...)
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		conn = pipe{out, in, sync.OnceValue(cmd.Wait)}
	} else if conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(s.host, s.port)); err != nil {
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, s.host, config)
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// goClient is what the Go library can say that others can't be made to.
func goClient(ctx context.Context, s *side) (string, error) {
	c, err := s.dial(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var b strings.Builder
	said := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	run := func(command string) {
		session, err := c.NewSession()
		if err != nil {
			said("session: %v", err)
			return
		}
		defer session.Close()
		var out, errs strings.Builder
		session.Stdin, session.Stdout, session.Stderr = strings.NewReader("input"), &out, &errs
		err = session.Run(command)
		said("%s: %s %s %v", command, short(out.String()), short(errs.String()), err)
	}
	run("cat; echo err >&2; exit 7")
	run("kill -TERM $$")
	run("head -c 3000000 /dev/zero; exit 5")
	for _, request := range []string{"nonsense@example.com", "x11-req", "break"} {
		session, err := c.NewSession()
		if err != nil {
			return b.String(), err
		}
		payload := ssh.Marshal(struct{ Length uint32 }{1})
		if request == "x11-req" {
			payload = ssh.Marshal(struct {
				Single           bool
				Protocol, Cookie string
				Screen           uint32
			}{false, "MIT-MAGIC-COOKIE-1", "00112233445566778899aabbccddeeff", 0})
		}
		ok, err := session.SendRequest(request, true, payload)
		said("%s: %v %v", request, ok, err)
		session.Close()
	}
	for _, kind := range []string{"nonsense@example.com", "x11", "forwarded-tcpip"} {
		_, _, err := c.OpenChannel(kind, nil)
		refused := (*ssh.OpenChannelError)(nil)
		if errors.As(err, &refused) {
			said("%s: %v", kind, refused.Reason)
		} else {
			said("%s: %v", kind, err)
		}
	}
	ok, _, err := c.SendRequest("nonsense@example.com", true, nil)
	said("global: %v %v", ok, err)
	_, _, err = c.SendRequest("keepalive@openssh.com", true, nil)
	said("keepalive: %v", err)
	var group sync.WaitGroup
	results := make([]string, 30)
	for i := range results {
		group.Go(func() {
			session, err := c.NewSession()
			if err != nil {
				results[i] = err.Error()
				return
			}
			defer session.Close()
			out, err := session.Output(fmt.Sprintf("echo %d; exit %d", i, i))
			results[i] = fmt.Sprintf("%q %v", out, err)
		})
	}
	group.Wait()
	said("%s", strings.Join(results, "\n"))
	return b.String(), nil
}
