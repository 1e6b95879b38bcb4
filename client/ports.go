package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/client/tunnel"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// The files of a home that a tunnel keeps: the key by which its SSH ports prove themselves, from one time to the next, and
// what ssh is told to trust.
const (
	fileTunnelKey   = "tunnel_ssh_host"
	fileTunnelKnown = "tunnel_known_hosts"
)

// TunnelOptions say which local ports to open. Those of RunOptions mean the same; without a reason nothing is asked for, and
// the grants that there are count.
type TunnelOptions struct {
	RunOptions
	// Listen are the ports in the order of the accounts, as tunnel.Listen takes them; those that are missing are any that
	// are free.
	Listen []string
	// Ready is told of the ports once all are open.
	Ready func([]LocalPort) error
}

// LocalPort is one end of a tunnel on this machine.
type LocalPort struct {
	Account string `json:"account"`
	Target  string `json:"target"`
	Kind    string `json:"kind"`
	// Host and Port are where it is; of a socket Host is the path and Port 0.
	Host string `json:"host"`
	Port int    `json:"port,omitempty"`
	// Connect is a line to paste: a program that uses it.
	Connect string `json:"connect"`
	// URL and JDBC are addresses of a PostgreSQL target.
	URL  string `json:"url,omitempty"`
	JDBC string `json:"jdbc_url,omitempty"`
	// Until is when its grant ends; zero without a grant, or while its time has not begun.
	Until time.Time `json:"until,omitzero"`
}

// Tunnel opens the ports and carries what comes there until the context ends, or the sign-in. What was asked for is given
// back then.
func Tunnel(ctx context.Context, home Home, o TunnelOptions) error {
	r := &run{o: o.RunOptions}
	defer r.giveBack(context.WithoutCancel(ctx))
	if err := r.signIn(ctx, home); err != nil {
		return err
	}
	if o.Reason != "" {
		if err := r.ask(ctx); err != nil {
			return err
		}
	}
	t := &tunnels{run: r, home: home}
	if err := t.renew(ctx); err != nil {
		return err
	}
	targets, err := narrow(t.certificates.Targets, o.Accounts)
	if err != nil {
		return err
	}
	t.targets = targets
	serving, stop := context.WithCancel(ctx)
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	defer stop()
	var ports []LocalPort
	for i, account := range o.Accounts {
		address := "0"
		if i < len(o.Listen) {
			address = o.Listen[i]
		}
		port, local, err := t.open(serving, account, address)
		if err != nil {
			return err
		}
		ports = append(ports, local)
		open.Go(func() { _ = port.Serve(serving) }) // ends with serving
	}
	if !tunnel.Knows {
		r.say("this system does not say whose program connects: every program on this machine can use these ports while they are open")
	}
	grants := t.standings(ctx)
	for i, p := range ports {
		ports[i].Until = grants[p.Account+"@"+p.Target].Until
	}
	if err := o.Ready(ports); err != nil {
		return err
	}
	return t.watch(ctx, grants)
}

// tunnels is one Tunnel.
type tunnels struct {
	*run
	home    Home
	targets []api.Connection

	mu           sync.Mutex // held while certificates are renewed
	certificates api.Certificates
	tls          tls.Certificate
	ssh          ssh.Signer
	hostKey      ssh.Signer
	renewed      time.Time
}

// renew has fresh keys certified. They stay in memory.
func (t *tunnels) renew(ctx context.Context) error {
	keys, err := newKeys()
	if err != nil {
		return err
	}
	var c api.Certificates
	if err := t.client.Do(ctx, http.MethodPost, "/v1/certificates", keys.public, &c); err != nil {
		return err
	}
	old := t.issued
	pair, err := tls.X509KeyPair([]byte(c.TLSCertificate), keys.tls)
	if err != nil {
		return fmt.Errorf("the gateway's client certificate: %w", err)
	}
	key, err := ssh.ParsePrivateKey(keys.ssh)
	if err != nil {
		return err
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.SSHCertificate))
	if err != nil {
		return fmt.Errorf("the gateway's user certificate: %w", err)
	}
	certificate, ok := public.(*ssh.Certificate)
	if !ok {
		return errors.New("the gateway's user certificate is none")
	}
	if t.ssh, err = ssh.NewCertSigner(certificate, key); err != nil {
		return fmt.Errorf("the gateway's user certificate: %w", err)
	}
	t.tls, t.certificates, t.issued, t.renewed = pair, c, c.ID, time.Now()
	if old != "" {
		// It opens nothing new; what it opened goes on.
		_ = t.client.Do(ctx, http.MethodDelete, "/v1/credentials/"+url.PathEscape(old), nil, nil) // else it ends by itself
	}
	return nil
}

// proofs are the certificates, renewed when their time is nearly over.
func (t *tunnels) proofs(ctx context.Context) (tls.Certificate, ssh.Signer, api.Gateway, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left, life := time.Until(t.certificates.Expires), t.certificates.Expires.Sub(t.renewed)
	if left < min(life/4, 10*time.Minute) {
		if err := t.renew(ctx); err != nil && (left <= 0 || refusal.Of(err) != nil) {
			if refusal.Of(err) != nil {
				err = &tunnel.Final{Err: err}
			}
			return tls.Certificate{}, nil, api.Gateway{}, err
		}
	}
	return t.tls, t.ssh, t.certificates.Gateway, nil
}

// open opens the port of one account.
func (t *tunnels) open(ctx context.Context, account Account, address string) (*tunnel.Port, LocalPort, error) {
	local := LocalPort{Account: account.Name, Target: account.Target}
	for _, target := range t.targets {
		if target.Name != account.Target {
			continue
		}
		if err := plain(target); err != nil {
			return nil, local, err
		}
		local.Kind = target.Kind
		carry, err := t.carryTo(target, account)
		if err != nil {
			return nil, local, err
		}
		port, err := tunnel.Listen(ctx, address, carry, func(err error) { t.say("%s: %v", account, err) })
		if err != nil {
			return nil, local, err
		}
		local.Host, local.Port = port.Host(), port.Number()
		return port, t.describe(local, target), nil
	}
	return nil, local, fmt.Errorf("the gateway does not say how target %s is reached", account.Target)
}

func (t *tunnels) carryTo(target api.Connection, account Account) (tunnel.Carry, error) {
	if target.Kind == configs.KindPostgres {
		shared := target.Host == t.certificates.Gateway.Postgres.Host && target.Port == t.certificates.Gateway.Postgres.Port
		return tunnel.Postgres(account.Name, func(named string) string { return databaseAt(target, shared, named) },
			func(ctx context.Context) (net.Conn, error) { return t.dialPostgres(ctx, target) }), nil
	}
	if t.certificates.Gateway.SSH.Port == 0 {
		return nil, errors.New("the gateway offers no SSH")
	}
	if err := t.proveHost(); err != nil {
		return nil, err
	}
	return tunnel.SSH(t.hostKey, func(ctx context.Context) (*tunnel.Far, error) { return t.dialSSH(ctx, account) }), nil
}

// databaseAt is what the gateway calls the database that a program names: on its shared listener the name chooses the
// target too.
func databaseAt(target api.Connection, shared bool, named string) string {
	switch {
	case named == "" || named == target.Name:
		return target.Database
	case !shared || strings.HasPrefix(named, target.Name+"/"):
		return named
	}
	return target.Name + "/" + named
}

func (t *tunnels) dialPostgres(ctx context.Context, target api.Connection) (net.Conn, error) {
	certificate, _, gateway, err := t.proofs(ctx)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: target.Host, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"postgresql"}}
	if gateway.CA != "" {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(gateway.CA))
	}
	conn, err := t.dial(ctx, target.Host, target.Port)
	if err != nil {
		return nil, err
	}
	// SSLRequest, and the one byte that answers it (PostgreSQL's documentation, "Message Flow", SSL session encryption).
	answer := make([]byte, 1)
	_, err = conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47})
	if err == nil {
		_, err = conn.Read(answer)
	}
	if err == nil && answer[0] != 'S' {
		err = &tunnel.Final{Err: errors.New("the gateway declines TLS")}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("reach the gateway: %w", err)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			err = &tunnel.Final{Err: err}
		}
		return nil, fmt.Errorf("reach the gateway: %w", err)
	}
	return secure, nil
}

func (t *tunnels) dialSSH(ctx context.Context, account Account) (*tunnel.Far, error) {
	_, signer, gateway, err := t.proofs(ctx)
	if err != nil {
		return nil, err
	}
	authority, _, _, _, err := ssh.ParseAuthorizedKey([]byte(gateway.HostAuthority))
	if err != nil {
		return nil, &tunnel.Final{Err: fmt.Errorf("the gateway's host authority: %w", err)}
	}
	checker := &ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool { return string(key.Marshal()) == string(authority.Marshal()) }}
	conn, err := t.dial(ctx, gateway.SSH.Host, gateway.SSH.Port)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(gateway.SSH.Host, strconv.Itoa(gateway.SSH.Port))
	far, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User: account.String(), Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: checker.CheckHostKey, HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
		BannerCallback: func(message string) error {
			t.say("%s: %s", account, strings.TrimSpace(message))
			return nil
		},
	})
	if err != nil {
		conn.Close()
		return nil, &tunnel.Final{Err: fmt.Errorf("sign in at the gateway: %w", err)}
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		far.Close()
		return nil, err
	}
	return &tunnel.Far{Conn: far, Channels: channels, Requests: requests}, nil
}

// dial connects to the gateway, with a deadline for what is said before the tunnel stands.
func (t *tunnels) dial(ctx context.Context, host string, port int) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("reach the gateway: %w", err)
	}
	return conn, conn.SetDeadline(time.Now().Add(30 * time.Second))
}

// proveHost loads the key of the SSH ports, or makes it.
func (t *tunnels) proveHost() error {
	if t.hostKey != nil {
		return nil
	}
	data, err := os.ReadFile(t.home.Path(fileTunnelKey))
	if errors.Is(err, fs.ErrNotExist) {
		var keys keyPair
		if keys, err = newKeys(); err == nil {
			data = keys.ssh
			err = t.home.write(fileTunnelKey, data, 0o600)
		}
	}
	if err != nil {
		return fmt.Errorf("the key of SSH ports: %w", err)
	}
	if t.hostKey, err = ssh.ParsePrivateKey(data); err != nil {
		return fmt.Errorf("the key of SSH ports, %s: %w; remove it and start again", t.home.Path(fileTunnelKey), err)
	}
	line := "sallyport-tunnel " + string(ssh.MarshalAuthorizedKey(t.hostKey.PublicKey()))
	return t.home.write(fileTunnelKnown, []byte(line), 0o644)
}

// describe adds the lines that are pasted.
func (t *tunnels) describe(p LocalPort, target api.Connection) LocalPort {
	if p.Kind == configs.KindPostgres {
		database := target.Database
		if p.Port == 0 {
			directory, port := filepath.Split(p.Host)
			number := strings.TrimPrefix(port, ".s.PGSQL.")
			p.Connect = fmt.Sprintf("psql \"host=%s port=%s dbname=%s user=%s\"", filepath.Clean(directory), number, database, p.Account)
			return p
		}
		at := url.URL{Scheme: "postgresql", User: url.User(p.Account), Host: net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), Path: "/" + database, RawQuery: "sslmode=disable"}
		p.URL, p.Connect = at.String(), "psql "+shellWord(at.String())
		at.User, at.RawQuery = nil, url.Values{"user": {p.Account}, "sslmode": {"disable"}}.Encode()
		p.JDBC = "jdbc:" + at.String()
		return p
	}
	trust := "-o HostKeyAlias=sallyport-tunnel -o UserKnownHostsFile=" + shellWord(t.home.Path(fileTunnelKnown))
	if p.Port == 0 {
		p.Connect = fmt.Sprintf("ssh -o ProxyCommand='nc -U %s' %s %s", p.Host, trust, p.Target)
	} else {
		p.Connect = fmt.Sprintf("ssh -p %d %s %s", p.Port, trust, p.Host)
	}
	return p
}

// standings are the identity's own grants for the ports' accounts, as they stand, by ACCOUNT@TARGET; what can't be
// asked now is missing.
func (t *tunnels) standings(ctx context.Context) map[string]api.Grant {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var all []api.Grant
	if t.client.Do(ctx, http.MethodGet, "/v1/grants", nil, &all) != nil {
		return nil
	}
	found := map[string]api.Grant{}
	for _, a := range t.o.Accounts {
		found[a.String()] = api.Grant{}
		for _, g := range all {
			if g.Identity.Issuer == t.who.Issuer && g.Identity.Subject == t.who.Subject && g.Target == a.Target && g.Account == a.Name && open(g) && g.State != "pending" {
				found[a.String()] = g
			}
		}
	}
	return found
}

// tellLeft are the times before the end of a grant at which people are told of it.
var tellLeft = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// watch tells people what becomes of the grants, until the context or the sign-in ends.
func (t *tunnels) watch(ctx context.Context, before map[string]api.Grant) error {
	told := map[string]time.Duration{} // by grant, the shortest time that was told
	for _, a := range t.o.Accounts {
		t.sayStanding(a, before[a.String()])
	}
	every := time.NewTicker(watchEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
		if !time.Now().Before(t.who.Expires) {
			return refusal.New(refusal.CredentialExpired, "your sign-in has ended, and the tunnel with it").WithHint("sallyport login")
		}
		now := t.standings(ctx)
		if now == nil {
			continue // the gateway cuts what is over, whether it can be asked or not
		}
		for _, a := range t.o.Accounts {
			g, old := now[a.String()], before[a.String()]
			if g.ID != old.ID || g.State != old.State || !g.Until.Equal(old.Until) {
				t.sayStanding(a, g)
				delete(told, g.ID)
			}
			if g.Until.IsZero() {
				continue
			}
			left := time.Until(g.Until)
			for _, at := range tellLeft {
				last, was := told[g.ID]
				if left <= at && (!was || at < last) {
					if told[g.ID] = at; g.Until.Equal(old.Until) {
						t.say("%s: %s left, until %s", a, brief(left), clock(g.Until))
					}
					break
				}
			}
		}
		before = now
	}
}

func (t *tunnels) sayStanding(a Account, g api.Grant) {
	switch {
	case g.ID == "":
		t.say("%s: no grant; ask for one with: sallyport request %s", a, a)
	case g.Until.IsZero():
		t.say("%s: grant %s for %s, whose time begins with the first connection", a, g.ID, brief(g.Duration))
	default:
		t.say("%s: grant %s, %s left, until %s", a, g.ID, brief(time.Until(g.Until)), clock(g.Until))
	}
}
