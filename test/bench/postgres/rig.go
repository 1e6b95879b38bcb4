package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"sallyport/test/bench/wait"
)

// bench is one run.
type bench struct {
	options   options
	dir       string // everything of this run
	state     string // the rig's
	exports   map[string]string
	ports     map[string]int
	runner    *syscall.Credential // who owns the cluster, where we are root
	endpoints []endpoint
	stops     []func() error // in the order of the starts
	report    strings.Builder
}

// programs are what a run needs beside the rig.
var programs = []string{"pgbench", "psql", "/usr/sbin/pgbouncer", "/usr/sbin/haproxy"}

// start starts the rig and the peers. The bench is returned for closing even with an error.
func start(ctx context.Context, o options) (*bench, error) {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w; install it: apt-get install postgresql-contrib postgresql-client pgbouncer haproxy", err)
		}
	}
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, state: filepath.Join(dir, "state"), ports: map[string]int{}}
	if err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(filepath.Join(dir, "peers"), 0o755)); err != nil {
		return b, err
	}
	if err := b.startRig(ctx); err != nil {
		return b, err
	}
	if err := b.furnish(ctx); err != nil {
		return b, fmt.Errorf("furnish the server: %w", err)
	}
	if err := b.targets(ctx); err != nil {
		return b, fmt.Errorf("give the gateway its targets: %w", err)
	}
	if err := b.peers(ctx); err != nil {
		return b, err
	}
	return b, b.choose()
}

func (b *bench) startRig(ctx context.Context) error {
	env := filepath.Join(b.dir, "env")
	log, err := os.Create(filepath.Join(b.dir, "rig.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	binary, err := filepath.Abs(b.options.binary)
	if err != nil {
		return err
	}
	cmd := exec.Command(binary, "demo", "--env", env, "--state", b.state, "--no-target-log", "--durability", "written")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the rig: %w; build it with `make build`", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.stops = append(b.stops, func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
			return nil
		case <-time.After(time.Minute):
			return errors.Join(errors.New("the rig does not end"), cmd.Process.Kill())
		}
	})
	if err := wait.Until(ctx, 3*time.Minute, "the rig is ready", func() error {
		select {
		case why := <-ended:
			ended <- why
			text, _ := os.ReadFile(log.Name()) // it is for the error
			return wait.Final(fmt.Errorf("the rig ended: %w: %s", why, text))
		default:
		}
		_, err := os.Stat(env)
		return err
	}); err != nil {
		return err
	}
	shell := exec.CommandContext(ctx, "sh", "-c", `. "$1" && exec env -0`, "sh", env)
	out, err := shell.Output()
	if err != nil {
		return fmt.Errorf("read the rig's variables: %w", err)
	}
	b.exports = map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, "SALLYPORT_") {
			b.exports[name] = value
		}
	}
	return nil
}

// furnish makes the tables, and lets the server's neighbours in without TLS.
func (b *bench) furnish(ctx context.Context) error {
	admin, err := pgx.Connect(ctx, b.exports["SALLYPORT_PG_SUPERUSER_DIRECT"])
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	b.ports["postgres"] = int(admin.Config().Port)
	var hba string
	if err := admin.QueryRow(ctx, "show hba_file").Scan(&hba); err != nil {
		return err
	}
	info, err := os.Stat(hba)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t); int(owner.Uid) != os.Getuid() {
		b.runner = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	}
	rules, err := os.ReadFile(hba)
	if err != nil {
		return err
	}
	if err := os.WriteFile(hba, append(rules, "host all app 127.0.0.1/32 scram-sha-256\n"...), 0o600); err != nil {
		return err
	}
	for _, sql := range []string{
		"select pg_reload_conf()",
		"alter system set fsync = off", // the server's own disk is not what is measured
		"select pg_reload_conf()",
		"create unlogged table bench_rows as select i as id, md5(i::text) as a, md5((i * 7)::text) as b, i * 3.5 as c, now() as d from generate_series(1, 10000) i",
		"create unlogged table bench_in (line text)",
		fmt.Sprintf("create unlogged table bench_out as select repeat(md5(i::text), 3) as line from generate_series(1, %d) i", b.options.copyMB*1_000_000/97),
		"grant all on bench_rows, bench_in, bench_out to app",
		"vacuum analyze",
	} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	out, err := exec.CommandContext(ctx, "pgbench", "-q", "-i", "-s", "10", "-d", b.exports["SALLYPORT_PG_DIRECT"]).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	return nil
}

// targets gives the gateway the same server four times over: at both levels, and the fake server at both.
func (b *bench) targets(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.stops = append(b.stops, listener.Close)
	go fake(listener)
	b.ports["fake"] = listener.Addr().(*net.TCPAddr).Port
	for _, name := range []string{"pgbouncer", "haproxy", "blind"} {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		b.ports[name] = free.Addr().(*net.TCPAddr).Port
		free.Close()
	}
	for _, name := range []string{"gateway.crt", "gateway.key"} {
		text, err := os.ReadFile(filepath.Join(b.state, name))
		if err != nil {
			return err
		}
		if err := b.lend(map[string]string{name: string(text)}); err != nil {
			return err
		}
	}
	file := filepath.Join(b.state, "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var targets strings.Builder
	for _, level := range b.levels() {
		more, err := locks(level)
		if err != nil {
			return err
		}
		durability, _, _ := strings.Cut(level, "-")
		fmt.Fprintf(&targets, `  - {name: bench-%[1]s, kind: postgres, %[6]s, address: "127.0.0.1:%[2]d", database: orders, durability: %[5]s, tls: {mode: "off"}, accounts: [{name: app, password: "file:%[3]s"}]}
  - {name: fake-%[1]s, kind: postgres, %[6]s, address: "127.0.0.1:%[4]d", database: fake, durability: %[5]s, tls: {mode: "off"}, accounts: [{name: fake}]}
`, level, b.ports["postgres"], filepath.Join(b.state, "secrets", "app"), b.ports["fake"], durability, more)
	}
	changed := strings.Replace(string(text), "\npolicies:\n", "\n"+targets.String()+`policies:
  - {name: bench, groups: [engineers], accounts: ["*@bench-*", "*@fake-*"], max_duration: 12h, approve: {auto: true}}
`, 1)
	if changed == string(text) {
		return fmt.Errorf("%s has no policies to put the bench's beside", file)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	pid, err := b.gatewayPID()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return err
	}
	var accounts []string
	for _, level := range b.levels() {
		accounts = append(accounts, "app@bench-"+level, "fake@fake-"+level)
	}
	for _, account := range accounts {
		if err := wait.Until(ctx, time.Minute, "alice has "+account, func() error {
			cmd := exec.CommandContext(ctx, b.exports["SALLYPORT_BIN"], "request", account, "--duration", "12h", "--reason", "the bench's run", "--json")
			cmd.Env = append(os.Environ(), "SALLYPORT_HOME="+b.exports["SALLYPORT_HOME_ALICE"])
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	// The shared listener's address stands in the configuration alone.
	for line := range strings.Lines(changed) {
		if address, ok := strings.CutPrefix(strings.TrimSpace(line), "postgres: "); ok {
			address, err := strconv.Unquote(address)
			if err != nil {
				return err
			}
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return err
			}
			b.ports["gateway"], err = strconv.Atoi(port)
			return err
		}
	}
	return errors.New("the gateway has no shared listener")
}

// levels are the ways through the gateway: a durability, and what is on beside.
func (b *bench) levels() []string {
	levels := []string{"written", "synced"}
	if b.options.everything {
		levels = append(levels, "written-locked", "written-everything")
	}
	return levels
}

// locks are a target's labels, and the recipients of its recordings, for one of these ways.
func locks(level string) (string, error) {
	var recipients [2]string
	for i := range recipients {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			return "", err
		}
		recipients[i] = identity.Recipient().String()
	}
	switch {
	case strings.HasSuffix(level, "-locked"):
		return fmt.Sprintf("labels: {env: bench}, recipients: [%s]", recipients[0]), nil
	case strings.HasSuffix(level, "-everything"): // pci masks card numbers
		return fmt.Sprintf(`labels: {env: bench, pci: "true"}, recipients: [%s], recipients_input: [%s]`, recipients[0], recipients[1]), nil
	}
	return "labels: {env: bench}", nil
}

func (b *bench) gatewayPID() (int, error) {
	text, err := os.ReadFile(b.exports["SALLYPORT_PID_FILE"])
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// choose leaves the endpoints that were asked for.
func (b *bench) choose() error {
	if len(b.options.endpoints) == 0 {
		return nil
	}
	var chosen []endpoint
	for _, beginning := range b.options.endpoints {
		found := len(chosen)
		for _, e := range b.endpoints {
			if strings.HasPrefix(strings.ToLower(e.name), strings.ToLower(beginning)) {
				chosen = append(chosen, e)
			}
		}
		if found == len(chosen) {
			return fmt.Errorf("-endpoints: none begins with %q", beginning)
		}
	}
	b.endpoints = chosen
	return nil
}

// machine is what a reader should know of it.
func (b *bench) machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it the report only says less
	model := "unknown processor"
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d x %s, load at the start %s, client and servers on the same machine", runtime.NumCPU(), model, strings.Join(strings.Fields(string(load))[:3], " "))
}

// close ends everything, the last first, and removes the directory.
func (b *bench) close() error {
	var errs []error
	for i := len(b.stops) - 1; i >= 0; i-- {
		errs = append(errs, b.stops[i]())
	}
	if b.options.keep {
		fmt.Println("\nLogs:", b.dir)
	} else {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}
