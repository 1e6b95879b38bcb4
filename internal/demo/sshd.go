//go:build unix

package demo

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshd is a private OpenSSH server on loopback. It knows two ways in, both for the user who runs the demo: a certificate
// of the gateway's target authority, and one plain key that straight connections of the rig use.
type sshd struct {
	dir     string
	port    int
	user    string // the login
	hostKey ssh.PublicKey
	key     string // the private key of straight connections
	process *process
}

// findSSHD looks where systems keep it; sshd insists on being started by its full path.
func findSSHD() (string, error) {
	if path, err := exec.LookPath("sshd"); err == nil {
		return filepath.Abs(path)
	}
	for _, path := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/opt/homebrew/sbin/sshd", "/usr/lib/ssh/sshd"} {
		if executable(path) {
			return path, nil
		}
	}
	return "", errors.New("OpenSSH's server was not found; install it: `apt-get install openssh-server` on Debian and Ubuntu, `dnf install openssh-server` on Fedora")
}

func startSSHD(ctx context.Context, d *Demo, dir string, port int) (*sshd, error) {
	program, err := findSSHD()
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("find out who runs the demo: %w", err)
	}
	s := &sshd{dir: dir, port: port, user: me.Username, key: filepath.Join(dir, "direct_key")}
	if s.hostKey, err = writeKey(filepath.Join(dir, "host_key"), "the demo's sshd"); err != nil {
		return nil, err
	}
	direct, err := writeKey(s.key, "straight connections of the demo")
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		"authorized_keys": string(ssh.MarshalAuthorizedKey(direct)),
		"target_ca.pub":   "", // until the gateway has made its keys; sshd reads it for every login
		"known_hosts":     fmt.Sprintf("[127.0.0.1]:%d %s", port, ssh.MarshalAuthorizedKey(s.hostKey)),
		"sshd_config": strings.Join([]string{
			"ListenAddress 127.0.0.1:" + strconv.Itoa(port),
			"HostKey " + quoteArgument(filepath.Join(dir, "host_key")),
			"PidFile none",
			"UsePAM no",
			"UseDNS no",
			"StrictModes no",
			"AuthenticationMethods publickey",
			"TrustedUserCAKeys " + quoteArgument(s.trustedKeys()),
			"AuthorizedKeysFile " + quoteArgument(filepath.Join(dir, "authorized_keys")),
			"PermitRootLogin prohibit-password",
			"AcceptEnv LANG LC_*",
			"SetEnv SHLVL=1", // bash then does not read the user's own .bashrc for a command: what it does is not ours
			"PrintMotd no",
			"PrintLastLog no",
			"Subsystem sftp internal-sftp",
			"MaxStartups 1000",
			"MaxSessions 1000",
			"LogLevel VERBOSE", // names the certificate's key id and serial at each login
		}, "\n") + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if os.Getuid() == 0 {
		// Where sshd puts the process that parses what strangers send. A service manager makes it; here there is none.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, fmt.Errorf("make sshd's empty directory: %w", err)
		}
	}
	config := filepath.Join(dir, "sshd_config")
	if out, err := exec.CommandContext(ctx, program, "-t", "-f", config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sshd does not take the demo's configuration: %w: %s", err, out)
	}
	log := filepath.Join(d.dir, "log", "sshd.log")
	if s.process, err = d.register.start("sshd", sshdCommand(ctx, dir, program, "-D", "-f", config, "-E", log), syscall.SIGTERM); err != nil {
		return nil, err
	}
	if err := s.wait(ctx); err != nil {
		s.process.end(5 * time.Second)
		return nil, fmt.Errorf("start sshd (see %s): %w", log, err)
	}
	return s, nil
}

// wait waits until the server says its greeting.
func (s *sshd) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		greeting, err := s.greet(ctx)
		if err == nil && strings.HasPrefix(greeting, "SSH-2.0-") {
			return nil
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("it ended at once: %w", s.process.err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *sshd) greet(ctx context.Context) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", s.address())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	var start [64]byte
	n, err := conn.Read(start[:])
	return string(start[:n]), err
}

func (s *sshd) address() string     { return "127.0.0.1:" + strconv.Itoa(s.port) }
func (s *sshd) trustedKeys() string { return filepath.Join(s.dir, "target_ca.pub") }

// trust has the server take certificates of this authority, in authorized_keys form.
func (s *sshd) trust(authority []byte) error {
	return writeWhole(s.trustedKeys(), authority, 0o600)
}

// clientConfig is an ssh_config in which host web-1 is this server, reached straight.
func (s *sshd) clientConfig() string {
	return fmt.Sprintf(`Host %s
  HostName 127.0.0.1
  Port %d
  User %s
  IdentityFile %s
  IdentitiesOnly yes
  UserKnownHostsFile %s
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
`, sshTarget, s.port, s.user, quoteArgument(s.key), quoteArgument(filepath.Join(s.dir, "known_hosts")))
}

// quoteArgument quotes a path for sshd_config and ssh_config, which expand percent signs.
func quoteArgument(path string) string { return `"` + strings.ReplaceAll(path, "%", "%%") + `"` }

// writeKey makes an SSH key and writes its private half.
func writeKey(path, comment string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}
