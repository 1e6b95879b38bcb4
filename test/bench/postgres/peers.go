package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endpoint is one way to the same server.
type endpoint struct {
	name string
	conn string // libpq connection string
	fake string // the same to the fake server, for idle connections; empty: none
	pid  int    // the process between, whose CPU time and memory are looked at; 0: none
}

// peers starts the others.
func (b *bench) peers(ctx context.Context) error {
	port := func(name string) string { return strconv.Itoa(b.ports[name]) }
	common := "host=localhost dbname=orders user=app sslmode=verify-full sslrootcert=" + b.exports["SALLYPORT_CA"]
	password, err := os.ReadFile(filepath.Join(b.state, "secrets", "app"))
	if err != nil {
		return err
	}
	secret := strings.TrimSpace(string(password))
	pass := filepath.Join(b.dir, "pgpass")
	if err := os.WriteFile(pass, []byte("*:*:*:app:"+secret+"\n"), 0o600); err != nil {
		return err
	}
	b.endpoints = append(b.endpoints, endpoint{name: "direct TLS", conn: b.exports["SALLYPORT_PG_DIRECT"]})

	users := fmt.Sprintf("%q %q\n%q \"\"\n", "app", secret, "fake")
	bouncer := fmt.Sprintf(`[databases]
orders = host=127.0.0.1 port=%s dbname=orders user=app
fake = host=127.0.0.1 port=%s dbname=fake user=fake
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = session
default_pool_size = 5000
max_client_conn = 5000
max_db_connections = 0
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = require
client_tls_cert_file = %s
client_tls_key_file = %s
log_connections = 0
log_disconnections = 0
`, port("postgres"), port("fake"), port("pgbouncer"), b.own("users.txt"), b.own("gateway.crt"), b.own("gateway.key"))
	if err := b.lend(map[string]string{"users.txt": users, "pgbouncer.ini": bouncer}); err != nil {
		return err
	}
	pid, err := b.run(b.runner, "pgbouncer", port("pgbouncer"), "/usr/sbin/pgbouncer", "-q", b.own("pgbouncer.ini"))
	if err != nil {
		return err
	}
	b.endpoints = append(b.endpoints, endpoint{
		name: "PgBouncer", pid: pid,
		conn: common + " port=" + port("pgbouncer"), fake: common + " port=" + port("pgbouncer") + " user=fake dbname=fake",
	})

	haproxy := fmt.Sprintf(`global
  maxconn 5000
  nbthread 2
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen postgres
  bind 127.0.0.1:%s
  server postgres 127.0.0.1:%s
`, port("haproxy"), port("postgres"))
	if err := b.lend(map[string]string{"haproxy.cfg": haproxy}); err != nil {
		return err
	}
	if pid, err = b.run(nil, "haproxy", port("haproxy"), "/usr/sbin/haproxy", "-db", "-f", b.own("haproxy.cfg")); err != nil {
		return err
	}
	b.endpoints = append(b.endpoints, endpoint{name: "HAProxy (TLS passed through)", conn: common + " passfile=" + pass + " port=" + port("haproxy"), pid: pid})

	self, err := os.Executable()
	if err != nil {
		return err
	}
	if pid, err = b.run(nil, "blind", port("blind"), self, "blind", "127.0.0.1:"+port("blind"), "127.0.0.1:"+port("postgres"),
		"127.0.0.1:"+port("fake"), b.own("gateway.crt"), b.own("gateway.key")); err != nil {
		return err
	}
	b.endpoints = append(b.endpoints, endpoint{
		name: "blind Go TLS proxy", conn: common + " passfile=" + pass + " port=" + port("blind"), pid: pid,
		fake: common + " port=" + port("blind") + " user=fake dbname=fake",
	})

	gateway, err := b.gatewayPID()
	if err != nil {
		return err
	}
	through := withoutDatabase(b.exports["SALLYPORT_PG"]) + " port=" + port("gateway")
	for _, level := range b.levels() {
		b.endpoints = append(b.endpoints, endpoint{
			name: "Sallyport, " + strings.ReplaceAll(level, "-", ", "), conn: through + " dbname=bench-" + level + "/orders", pid: gateway,
			fake: through + " user=fake dbname=fake-" + level,
		})
	}
	return ctx.Err()
}

// own is a file of the peers', in a directory that the account of PostgreSQL can read.
func (b *bench) own(name string) string { return filepath.Join(b.dir, "peers", name) }

func (b *bench) lend(files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(b.own(name), []byte(text), 0o600); err != nil {
			return err
		}
		if b.runner != nil {
			if err := os.Chown(b.own(name), int(b.runner.Uid), int(b.runner.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// run starts a program and waits until it listens on the port.
func (b *bench) run(as *syscall.Credential, name, port string, command ...string) (pid int, err error) {
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, filepath.Join(b.dir, "peers")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.stops = append(b.stops, func() error {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		return nil
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return cmd.Process.Pid, nil
		}
		select {
		case why := <-ended:
			ended <- why
			text, _ := os.ReadFile(log.Name()) // it is for the error
			return 0, fmt.Errorf("%s ended: %w: %s", name, why, text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return 0, errors.New(name + " does not listen")
		}
	}
}

// withoutDatabase takes the words out of a connection string that the caller sets itself.
func withoutDatabase(conn string) string {
	words := strings.Fields(conn)
	kept := words[:0]
	for _, w := range words {
		if !strings.HasPrefix(w, "dbname=") && !strings.HasPrefix(w, "port=") {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}
