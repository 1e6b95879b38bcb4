//go:build unix

package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The throw-away cluster's one database and its two logins.
const (
	pgDatabase  = "orders"
	pgAccount   = "app"
	pgSuperuser = "postgres"
)

// postgres is a throw-away cluster on loopback: TLS with a certificate of the demo's authority and SCRAM are the only way
// in. It has no socket in the file system.
type postgres struct {
	dir  string // of the cluster and its log
	port int
	bin  string // where initdb and postgres are
	log  string // csvlog of every statement, or empty
	as   *syscall.Credential

	passwords map[string]string // by login
	process   *process
}

// findPostgres looks for the server's programs, which most systems keep out of PATH.
func findPostgres() (string, error) {
	var candidates []string
	if path, err := exec.LookPath("pg_config"); err == nil {
		if out, err := exec.Command(path, "--bindir").Output(); err == nil {
			candidates = append(candidates, strings.TrimSpace(string(out)))
		}
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin", "/usr/local/pgsql/bin", "/usr/bin"} {
		found, _ := filepath.Glob(pattern) // the patterns are good
		slices.Reverse(found)              // the newest first
		candidates = append(candidates, found...)
	}
	for _, dir := range candidates {
		if executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errors.New("PostgreSQL's server programs (initdb, postgres) were not found; install them: `apt-get install postgresql` on Debian and Ubuntu, `dnf install postgresql-server` on Fedora, `brew install postgresql` on macOS")
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// serverUser is whom the cluster runs as where the demo is root, which PostgreSQL refuses to be; nil for everybody else.
func serverUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as; start the demo as another user")
}

// startPostgres makes a cluster in dir and starts it.
func startPostgres(ctx context.Context, d *Demo, dir string, port int) (*postgres, error) {
	p := &postgres{dir: dir, port: port, passwords: map[string]string{pgAccount: rand.Text(), pgSuperuser: rand.Text()}}
	var err error
	if p.bin, err = findPostgres(); err != nil {
		return nil, err
	}
	if p.as, err = serverUser(); err != nil {
		return nil, err
	}
	if !d.options.NoTargetLog {
		p.log = filepath.Join(dir, "log", "postgresql.csv")
	}
	if err := p.initialise(ctx, d); err != nil {
		return nil, fmt.Errorf("make a PostgreSQL cluster: %w", err)
	}
	output, err := os.OpenFile(filepath.Join(d.dir, "log", "postgres.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data())
	cmd.Stdout, cmd.Stderr, cmd.Dir = output, output, p.dir
	cmd.Env = plainEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	if p.process, err = d.register.start("postgres", cmd, syscall.SIGINT); err != nil { // SIGINT: fast shutdown
		return nil, err
	}
	if err := p.furnish(ctx, d); err != nil {
		p.process.end(5 * time.Second)
		return nil, fmt.Errorf("start PostgreSQL (see %s): %w", output.Name(), err)
	}
	return p, nil
}

// The cluster stands apart from its log, which outlives it.
func (p *postgres) cluster() string { return filepath.Join(p.dir, "cluster") }
func (p *postgres) data() string    { return filepath.Join(p.cluster(), "data") }

// initialise makes the cluster and writes its configuration.
func (p *postgres) initialise(ctx context.Context, d *Demo) error {
	for _, dir := range []string{p.dir, p.cluster(), filepath.Join(p.dir, "log")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mark(p.cluster()); err != nil {
		return err
	}
	if err := d.register.removeLater(p.cluster()); err != nil {
		return err
	}
	passwordFile := filepath.Join(p.cluster(), "password")
	if err := os.WriteFile(passwordFile, []byte(p.passwords[pgSuperuser]+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(passwordFile)
	if err := p.own(p.dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "-D", p.data(), "-U", pgSuperuser, "--pwfile", passwordFile,
		"--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions")
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	certificate, key, err := d.authority.issue(p.cluster(), "server")
	if err != nil {
		return err
	}
	settings := []string{
		"listen_addresses = '127.0.0.1'",
		"port = " + strconv.Itoa(p.port),
		"unix_socket_directories = ''",
		"max_connections = 300",
		"dynamic_shared_memory_type = mmap", // files in the cluster, which go with it however the server ends
		"ssl = on",
		"ssl_cert_file = " + quoteSetting(certificate),
		"ssl_key_file = " + quoteSetting(key),
		"password_encryption = 'scram-sha-256'",
	}
	if p.log != "" {
		settings = append(settings,
			"logging_collector = on", "log_destination = 'csvlog'", "log_statement = 'all'", "log_connections = on",
			"log_directory = "+quoteSetting(filepath.Dir(p.log)), "log_filename = 'postgresql.log'",
			"log_rotation_age = 0", "log_rotation_size = 0", "log_file_mode = 0644")
	}
	if err := appendFile(filepath.Join(p.data(), "postgresql.conf"), "\n# the demo's\n"+strings.Join(settings, "\n")+"\n"); err != nil {
		return err
	}
	access := "# TYPE DATABASE USER ADDRESS METHOD: TLS and a password, from this machine, and nothing else\n" +
		"hostssl all         all 127.0.0.1/32 scram-sha-256\n" +
		"hostssl replication all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(p.data(), "pg_hba.conf"), []byte(access), 0o600); err != nil {
		return err
	}
	return p.own(p.dir)
}

// own gives what the demo wrote as root to the user that the cluster runs as.
func (p *postgres) own(dir string) error {
	if p.as == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(p.as.Uid), int(p.as.Gid))
	})
}

// quoteSetting quotes a value for postgresql.conf.
func quoteSetting(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// connect is a straight connection, as the demo's own caretaker; its statements are kept out of the statement log.
func (p *postgres) connect(ctx context.Context, d *Demo, login, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig("host=localhost sslmode=verify-full sslrootcert=" + quoteValue(d.authority.file))
	if err != nil {
		return nil, err
	}
	config.Host, config.Port, config.User, config.Database, config.Password = "127.0.0.1", uint16(p.port), login, database, p.passwords[login]
	config.Fallbacks = nil
	config.ConnectTimeout = 5 * time.Second
	config.RuntimeParams["application_name"] = "sallyport-demo"
	if login == pgSuperuser {
		config.RuntimeParams["log_statement"] = "none"
	}
	return pgx.ConnectConfig(ctx, config)
}

// furnish waits until the cluster answers, and puts the account, the database and a few rows into it.
func (p *postgres) furnish(ctx context.Context, d *Demo) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var admin *pgx.Conn
	for {
		var err error
		if admin, err = p.connect(ctx, d, pgSuperuser, "postgres"); err == nil {
			break
		}
		select {
		case <-p.process.done:
			return fmt.Errorf("it ended at once: %w", p.process.err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	defer admin.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{
		"CREATE ROLE " + pgAccount + " LOGIN PASSWORD '" + p.passwords[pgAccount] + "'", // of rand.Text: letters and digits
		"CREATE DATABASE " + pgDatabase,
		"GRANT CREATE, TEMPORARY ON DATABASE " + pgDatabase + " TO " + pgAccount,
	} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("furnish it: %w", err)
		}
	}
	orders, err := p.connect(ctx, d, pgSuperuser, pgDatabase)
	if err != nil {
		return err
	}
	defer orders.Close(context.WithoutCancel(ctx))
	if _, err := orders.Exec(ctx, `
		CREATE TABLE orders (id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, customer text NOT NULL, item text NOT NULL, placed timestamptz NOT NULL DEFAULT now());
		INSERT INTO orders (customer, item) VALUES ('Ada', 'lamp'), ('Grace', 'clock'), ('Edsger', 'desk');
		GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO `+pgAccount+`;
		GRANT USAGE, CREATE ON SCHEMA public TO `+pgAccount); err != nil {
		return fmt.Errorf("furnish the database: %w", err)
	}
	return nil
}

// quoteValue quotes a value of a libpq connection string, where it needs it.
func quoteValue(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\r\n'\\=") {
		return s
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
