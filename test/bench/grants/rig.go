//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"sallyport/client"
	"sallyport/test/bench/wait"
	"sallyport/web/api"
)

// The gateway's targets of this run: a server of its own, which lets a thousand in, and the rig's sshd.
const (
	targetPostgres = "bench-postgres"
	targetSSH      = "bench-ssh"
)

type bench struct {
	options            options
	dir                string
	engineer, security *client.Client
	gateway            string    // host:port of the shared listener for PostgreSQL
	sshAddress         string    // and of that for SSH
	server             *exec.Cmd // PostgreSQL
	looking            sync.Mutex
	stat               *pgx.Conn         // the superuser's; used by one at a time, under looking while sessions are opened
	ssh                *ssh.ClientConfig // alice's, once read; under looking
	granted            sync.Map          // ids of alice's grants, by ACCOUNT@TARGET
	report             strings.Builder
}

func (b *bench) env(name string) string { return os.Getenv(name) }

// start starts PostgreSQL and gives the gateway the targets. What is returned is to be closed even with an
// error.
func start(ctx context.Context, o options) (*bench, error) {
	if os.Getenv("SALLYPORT_STATE") == "" {
		return nil, errors.New("there is no rig; run it with: test/tools/with-rig --no-target-log -- go run ./test/bench/grants")
	}
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir}
	if b.engineer, err = b.person("SALLYPORT_HOME_ALICE"); err != nil {
		return b, err
	}
	if b.security, err = b.person("SALLYPORT_HOME_CAROL"); err != nil {
		return b, err
	}
	port, err := b.startPostgres(ctx)
	if err != nil {
		return b, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := b.targets(ctx, port); err != nil {
		return b, fmt.Errorf("give the gateway its targets: %w", err)
	}
	return b, nil
}

// startPostgres makes a cluster in which the role app needs no password: what a login costs is not measured here.
func (b *bench) startPostgres(ctx context.Context) (port int, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is good
	if len(found) == 0 {
		return 0, errors.New("its programs were not found; install them: apt-get install postgresql")
	}
	bin, as := found[len(found)-1], &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 { // which PostgreSQL refuses to be
		somebody, err := user.Lookup("postgres")
		if err != nil {
			return 0, err
		}
		uid, err1 := strconv.Atoi(somebody.Uid)
		gid, err2 := strconv.Atoi(somebody.Gid)
		if err := errors.Join(err1, err2, os.Chown(b.dir, uid, gid)); err != nil {
			return 0, err
		}
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port = free.Addr().(*net.TCPAddr).Port
	free.Close()
	data := filepath.Join(b.dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = b.dir, as
	if out, err := initdb.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("initdb: %w: %s", err, out)
	}
	log, err := os.Create(filepath.Join(b.dir, "postgres.log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	// As many again as there are sessions: to cancel a statement is a connection too.
	most := 2*(b.options.sessions+b.options.revokes) + 100
	b.server = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port), "-k", b.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections="+strconv.Itoa(most), "-c", "fsync=off")
	b.server.Dir, b.server.SysProcAttr, b.server.Stdout, b.server.Stderr = b.dir, as, log, log
	if err := b.server.Start(); err != nil {
		b.server = nil
		return 0, err
	}
	err = wait.Until(ctx, time.Minute, "it answers", func() error {
		b.stat, err = pgx.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", port))
		return err
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name()) // it is for the error
		return 0, fmt.Errorf("%w: %s", err, text)
	}
	_, err = b.stat.Exec(ctx, "create role app login")
	return port, err
}

// targets writes them into the gateway's configuration, each with as many accounts as there are to be sessions, since a grant is
// one for each account, and waits until alice sees them.
func (b *bench) targets(ctx context.Context, port int) error {
	file := filepath.Join(b.env("SALLYPORT_STATE"), "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(text), "\npolicies:\n")
	at := strings.LastIndex(before, "  - name: web-1\n")
	if !found || at < 0 {
		return fmt.Errorf("%s does not look as this program knows it", file)
	}
	web, _, _ := strings.Cut(before[at:], "    accounts:\n")
	_, login, _ := strings.Cut(before[at:], "        user: ")
	login, _, _ = strings.Cut(login, "\n")
	login = strings.Trim(login, `"`)
	var more strings.Builder
	accounts := func(as string) {
		fmt.Fprintf(&more, "    durability: %s\n    accounts:\n", b.options.durability)
		for i := range b.options.sessions + b.options.revokes {
			fmt.Fprintf(&more, "      - {name: %s, user: %s}\n", account(i), as)
		}
	}
	fmt.Fprintf(&more, "  - name: %s\n    kind: postgres\n    address: \"127.0.0.1:%d\"\n    database: postgres\n    tls: {mode: \"off\"}\n", targetPostgres, port)
	accounts("app")
	more.WriteString(strings.Replace(web, "web-1", targetSSH, 1))
	accounts(login)
	changed := before + "\n" + more.String() + "policies:\n  - {name: bench, groups: [engineers], accounts: [\"*@bench-*\"], max_duration: 12h, approve: {auto: true, start: 12h}}\n" + after
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	for line := range strings.Lines(changed) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		address, err := strconv.Unquote(value)
		switch {
		case err != nil: // it is not about an address
		case name == "postgres" && b.gateway == "":
			b.gateway = address
		case name == "ssh" && b.sshAddress == "":
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return err
			}
			b.sshAddress = net.JoinHostPort("localhost", port) // the name that the gateway's host keys are certified for
		}
	}
	pid, err := os.ReadFile(b.env("SALLYPORT_PID_FILE"))
	if err != nil {
		return err
	}
	gateway, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		return err
	}
	if err := syscall.Kill(gateway, syscall.SIGHUP); err != nil {
		return err
	}
	return wait.Until(ctx, time.Minute, "alice sees the targets", func() error {
		targets, err := client.List[api.Offer](ctx, b.engineer, "/v1/targets")
		if err == nil && !slices.ContainsFunc(targets, func(o api.Offer) bool { return o.Target == targetSSH }) {
			err = errors.New("they are not there")
		}
		return err
	})
}

// watch returns a channel that gets the time at which a process ends, the zero time where that can't be known.
func watch(pid int) (<-chan time.Time, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	exited := make(chan time.Time, 1)
	go func() {
		defer unix.Close(fd)
		for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
			switch {
			case err != nil && !errors.Is(err, unix.EINTR):
				exited <- time.Time{}
				return
			case n == 1:
				exited <- time.Now()
				return
			}
		}
	}()
	return exited, nil
}

func (b *bench) close() error {
	var errs []error
	if b.stat != nil {
		errs = append(errs, b.stat.Close(context.Background()))
	}
	if b.server != nil {
		errs = append(errs, b.server.Process.Signal(syscall.SIGINT))
		_ = b.server.Wait() // that it was asked to end is its status
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}
