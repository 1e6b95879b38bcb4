package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bench is what all sides share.
type bench struct {
	sides []*side
	size  int64
}

// side is one way to the server.
type side struct {
	name string
	dir  string // of the side
	work string // of the scenario that runs, empty when it begins
	size int64

	config string // an ssh_config in which Host web-1 is the server by this way
	// For clients that read no ssh_config. Where they cannot show a certificate either, proxy is a command whose standard
	// input and output are the connection, on which nobody is asked for anything.
	host, port, user, key, certificate, hostKey string
	proxy                                       string
	through                                     bool
}

func newBench(dir string, size int64) (*bench, error) {
	environment := func(name string) (string, error) {
		if v := os.Getenv(name); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("%s is not set: run it with test/tools/with-rig", name)
	}
	straight, err := environment("SALLYPORT_SSH_DIRECT_CONFIG")
	if err != nil {
		return nil, err
	}
	jump, err := environment("SALLYPORT_SSH_CONFIG")
	if err != nil {
		return nil, err
	}
	b := &bench{size: size}
	own, err := section(straight, "web-1")
	if err != nil {
		return nil, err
	}
	gateway, err := section(jump, "sallyport-gateway")
	if err != nil {
		return nil, err
	}
	target, err := section(jump, "web-1")
	if err != nil {
		return nil, err
	}
	ownKey, err := hostKey(own["hostname"], own["port"])
	if err != nil {
		return nil, err
	}
	gatewayKey, err := hostKey(gateway["hostname"], gateway["port"])
	if err != nil {
		return nil, err
	}
	extra := "\nHost *\n  BatchMode yes\n  LogLevel ERROR\n  SendEnv LANG LC_*\n  GlobalKnownHostsFile none\n"
	configs := map[string]string{"straight": mustRead(straight) + extra, "jump": mustRead(jump) + extra}
	configs["address"] = fmt.Sprintf(`Host web-1
  HostName %s
  Port %s
  User %s@web-1
  IdentityFile "%s"
  CertificateFile "%s"
  IdentitiesOnly yes
  UserKnownHostsFile "%s"
  StrictHostKeyChecking yes
%s`, gateway["hostname"], gateway["port"], target["user"], gateway["identityfile"], gateway["certificatefile"], gateway["userknownhostsfile"], extra)
	for _, name := range []string{"straight", "jump", "address"} {
		s := &side{name: name, dir: filepath.Join(dir, name), size: size, through: name != "straight"}
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return nil, err
		}
		s.config = filepath.Join(s.dir, "ssh_config")
		if err := os.WriteFile(s.config, []byte(configs[name]), 0o600); err != nil {
			return nil, err
		}
		switch name {
		case "straight":
			s.host, s.port, s.user, s.key, s.hostKey = own["hostname"], own["port"], own["user"], own["identityfile"], ownKey
		case "address":
			s.host, s.port, s.user, s.hostKey = gateway["hostname"], gateway["port"], target["user"]+"@web-1", gatewayKey
			s.key, s.certificate = gateway["identityfile"], gateway["certificatefile"]
		case "jump":
			s.host, s.port, s.user, s.hostKey = "web-1", "22", target["user"], gatewayKey
			s.key, s.certificate = gateway["identityfile"], gateway["certificatefile"]
			s.proxy = "ssh -F " + jump + " -o BatchMode=yes -W web-1:22 sallyport-gateway"
		}
		b.sides = append(b.sides, s)
	}
	return b, nil
}

func mustRead(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(text)
}

// section reads the settings of one Host of an ssh_config.
func section(name, host string) (map[string]string, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	settings, in := map[string]string{}, false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if strings.EqualFold(key, "Host") {
			in = strings.TrimSpace(value) == host
			continue
		}
		if in {
			settings[strings.ToLower(key)] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	if len(settings) == 0 {
		return nil, fmt.Errorf("%s has no Host %s", name, host)
	}
	return settings, nil
}

// hostKey asks a server for its plain ed25519 key, in known_hosts form without the name.
func hostKey(host, port string) (string, error) {
	out, err := exec.Command("ssh-keyscan", "-t", "ed25519", "-p", port, host).Output()
	if err != nil {
		return "", fmt.Errorf("ssh-keyscan %s: %w", host, err)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[1] == "ssh-ed25519" {
			return fields[1] + " " + fields[2], nil
		}
	}
	return "", fmt.Errorf("%s:%s shows no ed25519 key", host, port)
}

// heard is what a program said and how it ended.
type heard struct {
	out, err string
	status   int
}

// String is all of it, for comparing; what is long by length and hash.
func (h heard) String() string {
	return fmt.Sprintf("out %s\nerr %s\nstatus %d\n", short(h.out), short(h.err), h.status)
}

func short(s string) string {
	if len(s) <= 4000 {
		return fmt.Sprintf("%q", s)
	}
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("%d bytes %s", len(s), hex.EncodeToString(sum[:8]))
}

// command prepares a program of the scenario.
func (s *side) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.work
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "LANG=C.UTF-8", "LC_CONFORMANCE=yes", "LC_ALL=C.UTF-8", "SSH_AUTH_SOCK=",
		"SIDE_CONFIG="+s.config, "SIDE_HOST="+s.host, "SIDE_PORT="+s.port, "SIDE_USER="+s.user, "SIDE_KEY="+s.key,
		"SIDE_CERTIFICATE="+s.certificate, "SIDE_HOSTKEY="+s.hostKey, "SIDE_PROXY="+s.proxy, "SIDE_WORK="+s.work, "GIT_SSH_COMMAND=ssh -F "+s.config,
		"GIT_CONFIG_NOSYSTEM=1", "HOME="+s.work)
	return cmd
}

// run runs a program to its end.
func (s *side) run(ctx context.Context, stdin io.Reader, name string, args ...string) (heard, error) {
	cmd := s.command(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return heard{}, fmt.Errorf("%s: %w: %s", name, err, errs.String())
	}
	return heard{out.String(), errs.String(), cmd.ProcessState.ExitCode()}, nil
}

// ssh runs the stock ssh to its end.
func (s *side) ssh(ctx context.Context, stdin string, args ...string) (heard, error) {
	return s.run(ctx, strings.NewReader(stdin), "ssh", append([]string{"-F", s.config}, args...)...)
}

// all runs ssh with each of the arguments and gives everything that was heard.
func (s *side) all(ctx context.Context, stdin string, commands ...string) (string, error) {
	var b strings.Builder
	for _, c := range commands {
		h, err := s.ssh(ctx, stdin, "web-1", c)
		if err != nil {
			return b.String(), err
		}
		fmt.Fprintf(&b, "%.80s: %s", c, h)
	}
	return b.String(), nil
}

// path is a file of the scenario.
func (s *side) path(name string) string { return filepath.Join(s.work, name) }

// file makes one of random bytes, the same for all sides.
func (s *side) file(name string, size int64) (string, error) {
	f, err := os.Create(s.path(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{byte(len(name))})
	_, err = io.CopyN(f, random, size)
	return f.Name(), errors.Join(err, f.Close())
}

// digest is the hash of a file.
func digest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
