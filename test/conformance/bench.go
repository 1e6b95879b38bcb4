package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// packaged is the major version that Debian 12 has, whose suites are run where no other is named.
const packaged = "15"

// bench is the workplace of one run: directories, the server's version, and the two sides to compare.
type bench struct {
	cache string // downloads and what is unpacked from them, by version
	out   string // this run's logs, results and staged files, readable by the runner
	here  string // this package's own directory

	major          string // of PostgreSQL, such as 15
	bindir, libdir string // where Debian keeps that version's programs and modules
	version        string // the server's, such as 15.18
	source         string // PostgreSQL's source of that version
	headers        string // the server's development files of that version, unpacked
	loader         string // of a newer PostgreSQL's programs, beside their libraries

	// runner is the operating-system account that owns the cluster, when we are root and it is another. Suites run as it,
	// because the server must be able to read and write the files that pg_regress names.
	runner *syscall.Credential

	exports         map[string]string // the rig's variables
	direct, gateway *side
}

// side is one way to the same server: superuser and ordinary account, with the files they name readable by the runner.
type side struct {
	name             string
	superuser, plain conninfo
	root             string
	dir              string // of the suite that is running
}

// in is s with a directory for one suite, which begins empty.
func (s *side) in(suite string) *side {
	inside := *s
	inside.dir = filepath.Join(s.root, suite, s.name)
	return &inside
}

func newBench(major, cache, out string) (*bench, error) {
	if cache == "" {
		cache = os.Getenv("SALLYPORT_CONFORMANCE_CACHE")
	}
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no place for downloads: %w; name one with -cache", err)
		}
		cache = filepath.Join(user, "sallyport-conformance")
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(here, "expected.txt")); err != nil {
		return nil, errors.New("run this from its own directory: go run -C test/conformance .")
	}
	if out == "" {
		if out, err = os.MkdirTemp("", "sallyport-conformance-"); err != nil {
			return nil, err
		}
	} else if err = os.Mkdir(out, 0o755); err != nil {
		return nil, err
	}
	if out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	return &bench{major: major, cache: cache, out: out, here: here}, os.Chmod(out, 0o755)
}

func (b *bench) say(format string, arguments ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, arguments...))
}

// connect reads the rig's variables and finds out whose the cluster is.
func (b *bench) connect(ctx context.Context, envFile string) error {
	exports, err := readExports(ctx, envFile)
	if err != nil {
		return err
	}
	b.exports = exports
	read := func(name string) (conninfo, error) {
		text := exports[name]
		if text == "" {
			return nil, fmt.Errorf("%s does not set %s", envFile, name)
		}
		parsed, err := parseConninfo(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", envFile, name, err)
		}
		return parsed, nil
	}
	b.direct, b.gateway = &side{name: "direct", root: b.out}, &side{name: "gateway", root: b.out}
	for _, s := range []struct {
		into *conninfo
		name string
	}{
		{&b.direct.superuser, "SALLYPORT_PG_SUPERUSER_DIRECT"}, {&b.gateway.superuser, "SALLYPORT_PG_SUPERUSER"},
		{&b.direct.plain, "SALLYPORT_PG_DIRECT"}, {&b.gateway.plain, "SALLYPORT_PG"},
	} {
		if *s.into, err = read(s.name); err != nil {
			return err
		}
	}
	conn, err := b.administer(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var data, version string
	if err := conn.QueryRow(ctx, "select current_setting('data_directory'), split_part(current_setting('server_version'), ' ', 1)").Scan(&data, &version); err != nil {
		return fmt.Errorf("ask the server about itself: %w", err)
	}
	if version != b.version {
		return fmt.Errorf("the rig's server is %s and the installed programs are %s; start the rig anew", version, b.version)
	}
	if err := b.runAs(data); err != nil {
		return err
	}
	return b.lendKeys()
}

// administer opens a connection of the harness's own: the superuser's, direct.
func (b *bench) administer(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, b.direct.superuser.text())
	if err != nil {
		return nil, fmt.Errorf("connect straight to the rig's server as its superuser: %w", err)
	}
	return conn, nil
}

func (b *bench) runAs(data string) error {
	info, err := os.Stat(data)
	if err != nil {
		return fmt.Errorf("the server must run on this machine: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	switch {
	case int(owner.Uid) == os.Getuid():
		return nil
	case os.Getuid() != 0:
		return fmt.Errorf("the cluster belongs to user %d: run as root or as that user", owner.Uid)
	}
	b.runner = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid, NoSetGroups: false}
	return nil
}

// directory makes a directory of the runner's.
func (b *bench) directory(name string, mode os.FileMode) error {
	if err := os.MkdirAll(name, mode); err != nil {
		return err
	}
	return b.give(name)
}

func (b *bench) give(names ...string) error {
	if b.runner == nil {
		return nil
	}
	for _, name := range names {
		if err := os.Chown(name, int(b.runner.Uid), int(b.runner.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// lendKeys copies the files that the connection strings name to where the runner can read them, and names the copies.
// libpq refuses a key that others can read, so a shared file would not do.
func (b *bench) lendKeys() error {
	dir := filepath.Join(b.out, "keys")
	if err := b.directory(dir, 0o700); err != nil {
		return err
	}
	count := 0
	for _, s := range []*side{b.direct, b.gateway} {
		for _, c := range []conninfo{s.superuser, s.plain} {
			for _, key := range []string{"sslrootcert", "sslcert", "sslkey", "passfile"} {
				if c[key] == "" || c[key] == "system" {
					continue
				}
				content, err := os.ReadFile(c[key])
				if err != nil {
					return fmt.Errorf("read the %s of %s: %w", key, s.name, err)
				}
				count++
				lent := filepath.Join(dir, strconv.Itoa(count)+"."+key)
				if err := os.WriteFile(lent, content, 0o600); err != nil {
					return err
				}
				if err := b.give(lent); err != nil {
					return err
				}
				c[key] = lent
			}
		}
	}
	return nil
}

// close forgets the keys and the staged programs; logs and table stay.
func (b *bench) close() error {
	return errors.Join(os.RemoveAll(filepath.Join(b.out, "keys")), os.RemoveAll(filepath.Join(b.out, "staged")))
}

// clean brings the cluster back to what the suites expect to find, whatever the suite before left.
func (b *bench) clean(ctx context.Context) error {
	conn, err := b.administer(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	const databases = `select datname from pg_database where datname in ('regression', 'isolation_regression') or datname like 'conformance%'`
	for _, c := range []struct{ what, list, drop string }{
		{"databases", databases, "drop database %I with (force)"},
		{"tablespaces", "select spcname from pg_tablespace where spcname like 'regress%'", "drop tablespace %I"},
		{"roles", "select rolname from pg_roles where rolname like 'regress%' or rolname like 'conformance%'", "drop role %I"},
	} {
		rows, err := conn.Query(ctx, "select format($1, name) from ("+c.list+") as found(name)", c.drop)
		if err != nil {
			return err
		}
		statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("list the %s: %w", c.what, err)
		}
		for _, statement := range statements {
			if _, err := conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
	}
	return nil
}

// command is one program run for a suite as the runner, connected the way c says.
type command struct {
	as    conninfo
	dir   string // where it runs, if not in the suite's directory
	log   string // file name inside the suite's directory that takes what it prints
	stdin string
	env   []string
	args  []string
}

// do runs it and gives what it printed, standard output first. The error holds the end of standard error.
func (b *bench) do(ctx context.Context, s *side, c command) (string, error) {
	home := filepath.Join(b.out, "home")
	for _, dir := range []string{home, filepath.Dir(s.dir), s.dir} {
		if err := b.directory(dir, 0o755); err != nil {
			return "", err
		}
	}
	// The programs of the suites are to be behind the server and the gateway where processors are scarce: some look from one
	// session, after ten milliseconds, whether another waits, and print in between what came of that one. What a server had
	// said before stands in the client's socket then, straight; through a gateway that was not given a processor for so
	// long, it does not yet.
	run := exec.CommandContext(ctx, "nice", append([]string{"-n", "7"}, c.args...)...)
	run.Dir = s.dir
	if c.dir != "" {
		run.Dir = c.dir
	}
	run.Env = append([]string{"PATH=" + b.bindir + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + home, "LANG=C.UTF-8", "TMPDIR=" + s.dir}, c.as.environment()...)
	run.Env = append(run.Env, c.env...)
	run.Stdin = strings.NewReader(c.stdin)
	var out, errs bytes.Buffer
	run.Stdout, run.Stderr = &out, &errs
	// Drivers of tests start programs of their own, which must not outlive a deadline.
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: b.runner}
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
	run.WaitDelay = 10 * time.Second
	err := run.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("ended: %w", context.Cause(ctx))
	}
	log, openErr := os.OpenFile(filepath.Join(s.dir, c.log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if openErr != nil {
		return "", openErr
	}
	_, writeErr := fmt.Fprintf(log, "$ %s\n%s%s\n", strings.Join(c.args, " "), out.Bytes(), errs.Bytes())
	if err := errors.Join(writeErr, log.Close()); err != nil {
		return "", err
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(c.args[0]), err, tail(errs.String()))
	}
	return out.String(), err
}

// tail is the end of a text, on one line, for an error.
func tail(text string) string {
	const most = 600
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = "…" + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	return text
}

// verdict turns an error into a test's result.
func verdict(test string, err error) result {
	if err != nil {
		return result{test: test, outcome: failed, why: err.Error()}
	}
	return result{test: test, outcome: passed}
}
