package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"

	"sallyport/test/bench/wait"
)

// endpoint is one way to the target.
type endpoint struct {
	name   string
	config string // an ssh_config in which Host target is the target by this way
	// pids are the processes between client and target as they are now.
	pids func() []int
}

// jumpIndex is the endpoint that the others are compared with.
const jumpIndex = 1

type bench struct {
	options   options
	dir       string
	env       map[string]string
	endpoints []endpoint
	stops     []func()
}

func start(ctx context.Context, o options) (*bench, error) {
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, env: map[string]string{}}
	if err := os.Chmod(dir, 0o711); err != nil {
		return b, err
	}
	if err := b.startRig(ctx); err != nil {
		return b, err
	}
	if err := b.addTarget(ctx); err != nil {
		return b, err
	}
	return b, b.peers(ctx)
}

func (b *bench) close() error {
	for i := len(b.stops) - 1; i >= 0; i-- {
		b.stops[i]()
	}
	return os.RemoveAll(b.dir)
}

// child starts a process that ends with the run.
func (b *bench) child(name string, cmd *exec.Cmd) error {
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.stops = append(b.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return nil
}

func (b *bench) startRig(ctx context.Context) error {
	binary, err := filepath.Abs(b.options.binary)
	if err != nil {
		return err
	}
	env := filepath.Join(b.dir, "env")
	if err := b.child("rig", exec.Command(binary, "demo", "--env", env, "--state", filepath.Join(b.dir, "state"), "--no-target-log", "--durability", "written")); err != nil {
		return err
	}
	if err := wait.Until(ctx, 2*time.Minute, "the rig is ready", func() error {
		_, err := os.Stat(env)
		return err
	}); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "sh", "-c", `. "$1" && env -0`, "sh", env).Output()
	if err != nil {
		return err
	}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		b.env[name] = value
	}
	return nil
}

// addTarget gives the gateway the same target once more, recorded at the level synced, and alice a grant for it.
func (b *bench) addTarget(ctx context.Context) error {
	file := filepath.Join(b.env["SALLYPORT_STATE"], "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(text), "\npolicies:\n")
	at := strings.LastIndex(before, "  - name: web-1\n")
	if !found || at < 0 {
		return fmt.Errorf("%s does not look as this program knows it", file)
	}
	synced := strings.Replace(before[at:], "  - name: web-1\n", "  - name: web-2\n    durability: synced\n", 1)
	if b.options.everything {
		var recipients [2]string
		for i := range recipients {
			identity, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			recipients[i] = identity.Recipient().String()
		}
		synced = strings.TrimRight(synced, "\n") + "\n" + strings.Replace(before[at:], "  - name: web-1\n",
			fmt.Sprintf("  - name: web-3\n    recipients: [%s]\n    recipients_input: [%s]\n", recipients[0], recipients[1]), 1)
	}
	changed := before + "\n" + strings.TrimRight(synced, "\n") + `
policies:
  - name: bench
    groups: [engineers]
    accounts: ["*@web-2", "*@web-3"]
    max_duration: 12h
    approve: {auto: true}
` + after
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	pid, err := b.gateway()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return err
	}
	accounts := []string{"deploy@web-2"}
	if b.options.everything {
		accounts = append(accounts, "deploy@web-3")
	}
	for _, account := range accounts {
		err := wait.Until(ctx, 30*time.Second, "alice is granted "+account, func() error {
			cmd := exec.CommandContext(ctx, b.env["SALLYPORT_BIN"], "request", account, "--duration", "6h", "--reason", "measuring")
			cmd.Env = append(os.Environ(), "SALLYPORT_HOME="+b.env["SALLYPORT_HOME_ALICE"])
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) gateway() (int, error) {
	text, err := os.ReadFile(b.env["SALLYPORT_PID_FILE"])
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// peers starts the jump host and the relay, and writes the clients' configurations.
func (b *bench) peers(ctx context.Context) error {
	straight, err := section(b.env["SALLYPORT_SSH_DIRECT_CONFIG"], "web-1")
	if err != nil {
		return err
	}
	gateway, err := section(b.env["SALLYPORT_SSH_CONFIG"], "sallyport-gateway")
	if err != nil {
		return err
	}
	const common = "  Ciphers aes128-gcm@openssh.com\n  KexAlgorithms curve25519-sha256\n  BatchMode yes\n  LogLevel ERROR\n  IdentitiesOnly yes\n  GlobalKnownHostsFile none\n  Compression no\n"
	// The jump host is another sshd with the settings of the target's.
	jumpPort, err := freePort()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(b.env["SALLYPORT_STATE"], "sshd", "sshd_config"))
	if err != nil {
		return err
	}
	jumpConfig := filepath.Join(b.dir, "jump_config")
	if err := os.WriteFile(jumpConfig, []byte(strings.Replace(string(text), ":"+straight["port"], ":"+strconv.Itoa(jumpPort), 1)), 0o600); err != nil {
		return err
	}
	jump := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", jumpConfig)
	if err := b.child("jump", jump); err != nil {
		return err
	}
	// The relay.
	relayPort, err := freePort()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	relay := exec.Command(self, "relay", net.JoinHostPort("127.0.0.1", strconv.Itoa(relayPort)), net.JoinHostPort("127.0.0.1", straight["port"]), straight["user"], straight["identityfile"])
	if err := b.child("relay", relay); err != nil {
		return err
	}
	for _, port := range []int{jumpPort, relayPort} {
		if err := wait.Until(ctx, 20*time.Second, "a peer listens", func() error {
			conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err == nil {
				conn.Close()
			}
			return err
		}); err != nil {
			return err
		}
	}
	own := func(host string, port any) string {
		return fmt.Sprintf("Host %s\n  HostName 127.0.0.1\n  Port %v\n  User %s\n  IdentityFile %s\n  UserKnownHostsFile /dev/null\n  StrictHostKeyChecking no\n", host, port, straight["user"], straight["identityfile"])
	}
	through := func(host, user string) string {
		return fmt.Sprintf("Host %s\n  HostName %s\n  Port %s\n  User %s\n  IdentityFile %q\n  CertificateFile %q\n  UserKnownHostsFile %q\n",
			host, gateway["hostname"], gateway["port"], user, gateway["identityfile"], gateway["certificatefile"], gateway["userknownhostsfile"])
	}
	gatewayPID := func() []int {
		pid, err := b.gateway()
		if err != nil {
			return nil
		}
		return []int{pid}
	}
	ends := "Host *\n" + common
	inner := fmt.Sprintf("Host target\n  HostName web-1\n  User deploy\n  ProxyJump gateway\n  UserKnownHostsFile %q\n", gateway["userknownhostsfile"])
	type way struct {
		name, config string
		pids         func() []int
	}
	ways := []way{
		{"direct", own("target", straight["port"]) + ends, func() []int { return nil }},
		{"ssh -J", own("target", straight["port"]) + "  ProxyJump jump\n" + own("jump", jumpPort) + ends, func() []int { return tree(jump.Process.Pid) }},
		{"Go relay", own("target", relayPort) + ends, func() []int { return []int{relay.Process.Pid} }},
		{"Sallyport, written", through("target", "deploy@web-1") + ends, gatewayPID},
		{"Sallyport, synced", through("target", "deploy@web-2") + ends, gatewayPID},
		{"Sallyport as jump host, written", inner + through("gateway", "sallyport") + ends, gatewayPID},
	}
	if b.options.everything {
		ways = append(ways, way{"Sallyport, written, everything", through("target", "deploy@web-3") + ends, gatewayPID})
	}
	for _, e := range ways {
		config := filepath.Join(b.dir, strings.NewReplacer(" ", "-", ",", "").Replace(e.name)+".conf")
		if err := os.WriteFile(config, []byte(e.config), 0o600); err != nil {
			return err
		}
		made := endpoint{name: e.name, config: config, pids: e.pids}
		if out, err := made.ssh(ctx, "true").CombinedOutput(); err != nil {
			return fmt.Errorf("%s does not work: %w: %s", e.name, err, out)
		}
		b.endpoints = append(b.endpoints, made)
	}
	return nil
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

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (e endpoint) processes() []int { return e.pids() }

// cpu is the seconds of processor time that the processes between have used, their children that have ended included.
func (e endpoint) cpu() (seconds float64) {
	for _, pid := range e.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest) // from the third field on; 14 to 17 are the times
		if len(fields) < 15 {
			continue
		}
		for _, f := range fields[11:15] {
			n, err := strconv.ParseFloat(f, 64)
			if err == nil {
				seconds += n / 100
			}
		}
	}
	return seconds
}

// memory is what the processes between hold for themselves, in kB: what they share is counted in parts.
func (e endpoint) memory() (kB float64) {
	for _, pid := range e.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
				n, err := strconv.ParseFloat(fields[1], 64)
				if err == nil {
					kB += n
				}
			}
		}
	}
	return kB
}

// tree is a process and all below it.
func tree(pid int) []int {
	all := []int{pid}
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return all
	}
	for _, file := range children {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				all = append(all, tree(n)...)
			}
		}
	}
	return all
}
