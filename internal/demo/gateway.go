//go:build unix

package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/configs"
	"sallyport/internal/demo/provider"
)

// gateway is the gateway as a process of its own, started again on the same ports when it dies.
type gateway struct {
	d       *Demo
	url     string
	config  string // its sallyport.yaml
	pidFile string
	client  *http.Client

	mu       sync.Mutex
	process  *process
	stopping chan struct{} // closed by end, under mu
	over     chan struct{} // closed when nobody restarts it any more
}

// configuration is the demo's sallyport.yaml, commented for those who open it.
var configuration = template.Must(template.New("sallyport.yaml").Funcs(template.FuncMap{"quote": strconv.Quote}).Parse(
	`# The demo's gateway. "sallyport init" writes a commented one for a real installation.
state: {{quote .State}}
url: {{quote .URL}}
listen:
  https: {{quote .HTTPS}}
  postgres: {{quote .Postgres}}
  ssh: {{quote .SSH}}
tls:
  certificate: {{quote .Certificate}}
  key: {{quote .Key}}
  ca: {{quote .CA}}
provider:
  issuer: {{quote .Issuer}}
  client_id: {{quote .ClientID}}
  client_secret: {{quote .ClientSecret}}
  scopes: [openid, profile, email, groups, offline_access]
  groups_claim: groups
  ca: {{quote .CA}}
workloads:
  - name: shop deploy
    preset: github
    issuer: {{quote .CIIssuer}}
    audience: {{quote .URL}}
    ca: {{quote .CA}}
    bind:
      repository_id: {{quote .CIRepository}}
      repository_owner_id: {{quote .CIOwner}}
      ref: refs/heads/main
    groups: [ci]
credentials:
  sign_in: 24h
  certificate: 24h
recording:
  durability: {{.Durability}}
  allow_volatile: true # a demo may stand in a memory file system
  reserve: 64MiB
  witnesses:
    - url: {{quote .Witness}}
      key: {{quote .WitnessKey}}
limits:
  unauthenticated: 4000 # all of the rig's clients come from one address
  connections: 5000
  handshake: 10s
  drain: 2s
targets:
  - name: {{.PGTarget}}
    kind: postgres
    labels: {env: demo}
    address: {{quote .PGAddress}}
    listen: {{quote .PGListen}}
    database: {{.PGDatabase}}
    end_with: {{.PGSuperuser}} # a real one has an account for it that can do nothing else (docs/postgres.md)
    tls:
      ca: {{quote .CA}}
    accounts:
      - name: {{.PGAccount}}
        password: {{quote .PGPassword}}
      - name: {{.PGSuperuser}}
        password: {{quote .PGSuperuserPassword}}
  - name: {{.SSHTarget}}
    kind: ssh
    labels: {env: demo}
    address: {{quote .SSHAddress}}
    host_keys:
      - {{quote .SSHHostKey}}
    accounts:
      - name: {{.SSHAccount}}
        user: {{quote .SSHUser}}
policies:
  - name: engineers
    groups: [engineers]
    accounts: ["{{.PGAccount}}@{{.PGTarget}}", "{{.SSHAccount}}@{{.SSHTarget}}"]
    max_duration: 12h
    approve:
      groups: [approvers]
      start: 12h
  - name: superuser
    groups: [engineers]
    accounts: ["{{.PGSuperuser}}@{{.PGTarget}}"]
    max_duration: 12h
    approve:
      groups: [approvers]
      start: 12h
  - name: deployments
    groups: [ci]
    accounts: ["{{.PGAccount}}@{{.PGTarget}}", "{{.SSHAccount}}@{{.SSHTarget}}"]
    max_duration: 30m
    approve:
      auto: true
permissions:
  - groups: [security]
    may: [grants.list, grants.revoke, sessions.list, sessions.kill, sessions.watch, recordings.read, recordings.export, recordings.hold, recordings.shred, log.verify, targets.manage, authorities.manage]
`))

// startGateway writes the configuration and starts the gateway.
func (d *Demo) startGateway(ctx context.Context) error {
	g := &gateway{
		d:        d,
		url:      "https://localhost:" + strconv.Itoa(d.port(portHTTPS)),
		config:   filepath.Join(d.dir, "sallyport.yaml"),
		pidFile:  filepath.Join(d.dir, "gateway.pid"),
		client:   &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: d.authority.pool()}}},
		stopping: make(chan struct{}),
		over:     make(chan struct{}),
	}
	if err := g.configure(); err != nil {
		return fmt.Errorf("configure the gateway: %w", err)
	}
	if err := g.start(); err != nil {
		return err
	}
	d.gateway = g
	go g.supervise()
	return g.ready(ctx)
}

// configure writes sallyport.yaml and the files it names.
func (g *gateway) configure() error {
	d := g.d
	certificate, key, err := d.authority.issue(d.dir, "gateway")
	if err != nil {
		return err
	}
	secrets := map[string]string{"provider": d.clientSecret(), pgAccount: d.postgres.passwords[pgAccount], pgSuperuser: d.postgres.passwords[pgSuperuser]}
	for name, secret := range secrets {
		if err := os.WriteFile(d.secretFile(name), []byte(secret+"\n"), 0o600); err != nil {
			return err
		}
	}
	durability := d.options.Durability
	if durability == "" {
		durability = configs.Synced
	}
	var text bytes.Buffer
	if err := configuration.Execute(&text, map[string]any{
		"State": d.dir, "URL": g.url,
		"HTTPS": loopback(d.port(portHTTPS)), "Postgres": loopback(d.port(portGatewayPostgres)), "SSH": loopback(d.port(portGatewaySSH)),
		"Certificate": certificate, "Key": key, "CA": d.authority.file,
		"Issuer": d.provider.Issuer, "ClientID": clientID, "ClientSecret": "file:" + d.secretFile("provider"),
		"CIIssuer": d.provider.CI.Issuer, "CIRepository": provider.RepositoryID, "CIOwner": provider.OwnerID,
		"Durability": durability, "Witness": "http://" + loopback(d.port(portWitness)), "WitnessKey": d.witnessKey,
		"PGTarget": pgTarget, "PGAddress": loopback(d.port(portPostgres)), "PGListen": loopback(d.port(portGatewayOrders)), "PGDatabase": pgDatabase,
		"PGAccount": pgAccount, "PGPassword": "file:" + d.secretFile(pgAccount),
		"PGSuperuser": pgSuperuser, "PGSuperuserPassword": "file:" + d.secretFile(pgSuperuser),
		"SSHTarget": sshTarget, "SSHAddress": d.sshd.address(), "SSHAccount": sshAccount, "SSHUser": d.sshd.user,
		"SSHHostKey": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(d.sshd.hostKey))),
	}); err != nil {
		return err
	}
	return os.WriteFile(g.config, text.Bytes(), 0o600)
}

func (d *Demo) secretFile(name string) string { return filepath.Join(d.dir, "secrets", name) }

// start starts the process and writes its pid file.
func (g *gateway) start() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.stopping:
		return nil
	default:
	}
	output, err := os.OpenFile(filepath.Join(g.d.dir, "log", "gateway.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	cmd := exec.Command(g.d.options.Binary, "serve", "-c", g.config)
	cmd.Stdout, cmd.Stderr = output, output
	faults, err := g.faults()
	if err != nil {
		return err
	}
	cmd.Env = append(plainEnvironment(), faults...)
	process, err := g.d.register.start("gateway", cmd, syscall.SIGTERM)
	if err != nil {
		return err
	}
	g.process = process
	return writeWhole(g.pidFile, []byte(strconv.Itoa(process.cmd.Process.Pid)+"\n"), 0o644)
}

// faults are the lines of gateway.env in the state directory: what fault tests want a gateway to do that is started from
// now on. Only the names that ask for faults are passed on.
func (g *gateway) faults() ([]string, error) {
	data, err := os.ReadFile(filepath.Join(g.d.dir, "gateway.env"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var faults []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if name, _, ok := strings.Cut(line, "="); ok && (name == "SALLYPORT_FAULTS" || name == "SALLYPORT_CRASH_AT") {
			faults = append(faults, line)
		}
	}
	return faults, nil
}

// supervise starts the gateway again whenever it dies, at once, unless it dies at its start again and again.
func (g *gateway) supervise() {
	defer close(g.over)
	const longest = time.Second
	var pause time.Duration
	for {
		g.mu.Lock()
		process := g.process
		g.mu.Unlock()
		began := time.Now()
		<-process.done
		if time.Since(began) > 2*time.Second {
			pause = 0
		}
		select {
		case <-g.stopping:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause+50*time.Millisecond, longest)
		g.d.log.Warn("the gateway ended and is started again", "why", process.err)
		for {
			err := g.start()
			if err == nil {
				break
			}
			g.d.log.Error("the gateway could not be started again", "error", err)
			select {
			case <-g.stopping:
				return
			case <-time.After(longest):
			}
		}
		select {
		case <-g.stopping:
			return
		default:
		}
	}
}

// ready waits until the gateway takes sessions.
func (g *gateway) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := g.ask(ctx, "/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway is not ready: %w; its log is %s and ends\n%s", err, filepath.Join(g.d.dir, "log", "gateway.log"), g.lastWords())
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func (g *gateway) ask(ctx context.Context, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+path, nil)
	if err != nil {
		return err
	}
	answer, err := g.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	return nil
}

// lastWords is the end of the gateway's log.
func (g *gateway) lastWords() []byte {
	data, _ := os.ReadFile(filepath.Join(g.d.dir, "log", "gateway.log")) // there may be none yet
	return data[max(0, len(data)-2000):]
}

// end ends the gateway for good.
func (g *gateway) end() {
	g.mu.Lock()
	close(g.stopping)
	process := g.process
	g.mu.Unlock()
	process.end(15 * time.Second)
	<-g.over
}

// plainEnvironment is this process's, without what would change how the stock programs behave.
func plainEnvironment(more ...string) []string {
	var env []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "SALLYPORT_") || strings.HasPrefix(name, "LC_") || name == "SSH_AUTH_SOCK" || name == "LANGUAGE" {
			continue
		}
		env = append(env, pair)
	}
	return append(append(env, "LC_ALL=C"), more...)
}

// clientSecret is the gateway's at the provider.
func (d *Demo) clientSecret() string {
	if d.secret == "" {
		d.secret = rand.Text()
	}
	return d.secret
}
