package ephemeral

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/session"
)

// server is a real PostgreSQL server, made by initdb for these tests. SALLYPORT_TEST_POSTGRES_BIN names the programs of another
// version (test/tools/newer-server 18).
type server struct {
	dir, port string
	process   *exec.Cmd
}

var theServer struct {
	once sync.Once
	s    *server
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if s := theServer.s; s != nil {
		s.stop()
		os.RemoveAll(s.dir)
	}
	os.Exit(code)
}

func program(name string) string {
	if dir := os.Getenv("SALLYPORT_TEST_POSTGRES_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(dirs) == 0 {
		return name
	}
	return filepath.Join(dirs[len(dirs)-1], name)
}

// command is one of the server's programs, as somebody who is not root.
func (s *server) command(name string, args ...string) (*exec.Cmd, error) {
	command := exec.Command(program(name), args...)
	command.Dir = s.dir
	if os.Geteuid() != 0 {
		return command, nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return command, os.Chown(s.dir, uid, gid)
}

func newServer() (*server, error) {
	dir, err := os.MkdirTemp("", "sallyport-roles-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir}
	init, err := s.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
	if err != nil {
		return nil, err
	}
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	hba := "host all postgres,maker,other 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(dir, "data", "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	if err := s.start(); err != nil {
		return nil, err
	}
	_, err = s.run("postgres", "postgres", `create role readers nologin; create role writers nologin; create role sallyport_estate nologin;
		create role maker login createrole; create role other login;
		grant sallyport_estate, pg_signal_backend, pg_read_all_stats to maker; grant create on schema public to writers, sallyport_estate;
		create table stock (id int primary key, n int); insert into stock values (1, 10); grant select on stock to readers;
		grant select, insert, update, delete on stock to writers; grant readers, writers to maker with admin option`)
	if err == nil {
		_, err = s.run("postgres", "postgres", "create database shop")
	}
	if err == nil {
		_, err = s.run("postgres", "shop", "grant create on schema public to writers, sallyport_estate")
	}
	return s, err
}

// start starts the server's process and waits until it answers.
func (s *server) start() error {
	var err error
	s.process, err = s.command("postgres", "-D", filepath.Join(s.dir, "data"), "-p", s.port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "max_connections=60", "-c", "max_prepared_transactions=5", "-c", "log_min_messages=fatal", "-c", "shared_buffers=32MB")
	if err != nil {
		return err
	}
	var log bytes.Buffer
	s.process.Stderr = &log
	if err := s.process.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err = s.run("postgres", "postgres", "select 1"); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("the server did not come up: %w\n%s", err, log.String())
		}
	}
}

func (s *server) stop() {
	s.process.Process.Signal(syscall.SIGINT)
	s.process.Wait()
}

// run runs SQL as a role that needs no password.
func (s *server) run(role, database, sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := s.connect(ctx, role, "", database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	return conn.Query(sql)
}

func (s *server) connect(ctx context.Context, role, password, database string) (*conn, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%s sslmode=disable connect_timeout=5 application_name=test", s.port))
	if err != nil {
		return nil, err
	}
	config.User, config.Password, config.Database = role, password, database
	c, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &conn{c}, nil
}

// conn is a Conn by another library than the gateway's.
type conn struct{ *pgconn.PgConn }

func (c *conn) Query(sql string) ([][]string, error) {
	results, err := c.Exec(context.Background(), sql).ReadAll()
	var rows [][]string
	for _, r := range results {
		rows = nil
		for _, cells := range r.Rows {
			row := make([]string, len(cells))
			for i, cell := range cells {
				row[i] = string(cell)
			}
			rows = append(rows, row)
		}
		err = errors.Join(err, r.Err)
	}
	return rows, err
}

// house is Roles on a real store and a real server, with grants that begin and end as the test says.
type house struct {
	*server
	t      *testing.T
	store  *store.Store
	roles  *Roles
	target configs.Target
	more   []configs.Target

	mu     sync.Mutex
	until  map[string]time.Time
	broken error                  // what reaching the target comes to
	before func(sql string) error // asked before each statement
	after  func(sql string)       // told after each
	acts   int
}

// quick are waits for tests.
var quick = times{first: 10 * time.Millisecond, most: 100 * time.Millisecond, stuck: 300 * time.Millisecond, again: time.Hour, sweep: 50 * time.Millisecond, settle: time.Millisecond}

func newHouse(t *testing.T) *house {
	t.Helper()
	theServer.once.Do(func() { theServer.s, theServer.err = newServer() })
	if theServer.err != nil {
		t.Fatal(theServer.err)
	}
	h := &house{server: theServer.s, t: t, until: map[string]time.Time{}, target: configs.Target{
		Name: "orders", Kind: configs.KindPostgres, Address: "127.0.0.1:" + theServer.s.port, Database: "postgres", MakeRolesWith: "maker", Heir: "sallyport_estate",
		Accounts: []configs.Account{
			{Name: "maker"}, {Name: "read", Ephemeral: true, MemberOf: []string{"readers"}, ConnectionLimit: 3},
			{Name: "write", Ephemeral: true, MemberOf: []string{"readers", "writers"}, ConnectionLimit: 3},
		},
	}}
	var err error
	h.store, err = storetest.Open(t.Context(), t.TempDir())
	h.must(err)
	h.open()
	t.Cleanup(func() {
		h.roles.Close()
		h.store.Close()
		rows, err := h.run("postgres", "postgres", "select rolname from pg_roles where rolname like 'sp\\_%'")
		h.must(err)
		for _, row := range rows {
			for _, database := range []string{"postgres", "shop"} {
				_, err := h.run("postgres", database, "drop owned by "+identifier(row[0])+" cascade")
				h.must(err)
			}
			_, err := h.run("postgres", "postgres", "drop role "+identifier(row[0]))
			h.must(err)
		}
	})
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// open is the gateway's start.
func (h *house) open() {
	h.t.Helper()
	var err error
	h.roles, err = open(context.Background(), Options{Store: h.store, Log: testLog(h.t), Reach: h.reach, Targets: h.targets, Running: h.running}, quick)
	h.must(err)
}

func (h *house) targets() []configs.Target {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]configs.Target{h.target}, h.more...)
}

func (h *house) running(grant string) (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	until, known := h.until[grant]
	return until, known && time.Now().Before(until)
}

// begin has a grant begin.
func (h *house) begin(grant string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until[grant] = time.Now().Add(time.Hour)
}

// end has it end, which the gateway audits.
func (h *house) end(grant string) {
	h.t.Helper()
	h.mu.Lock()
	delete(h.until, grant)
	h.mu.Unlock()
	h.must(h.store.Audit(context.Background(), store.AuditEvent{Kind: "grant.ended", Actor: "system", Grant: grant}))
}

// reach is Reach without the gateway.
func (h *house) reach(ctx context.Context, t configs.Target, database string, _ authn.Identity, _ session.ActKind, _ string, do func(context.Context, Conn) (string, error)) error {
	h.mu.Lock()
	broken := h.broken
	h.acts++
	h.mu.Unlock()
	if broken != nil {
		return broken
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if database == "" {
		database = t.Database
	}
	c, err := h.connect(ctx, t.MakeRolesWith, "", database)
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	_, err = do(ctx, asked{c, h})
	return err
}

// asked is a Conn on which statements can fail.
type asked struct {
	*conn
	house *house
}

func (a asked) Query(sql string) ([][]string, error) {
	a.house.mu.Lock()
	before, after := a.house.before, a.house.after
	a.house.mu.Unlock()
	if before != nil {
		if err := before(sql); err != nil {
			return nil, err
		}
	}
	rows, err := a.conn.Query(sql)
	if after != nil {
		after(sql)
	}
	return rows, err
}

func (h *house) account(name string) configs.Account {
	for _, a := range h.target.Accounts {
		if a.Name == name {
			return a
		}
	}
	h.t.Fatalf("no account %s", name)
	return configs.Account{}
}

func (h *house) wanted(grant, account string) Wanted {
	return Wanted{Grant: grant, Who: authn.Identity{Issuer: "https://login.example", Subject: "alice"}, Target: h.target, Account: h.account(account)}
}

// login makes the role and logs in with it, to a database.
func (h *house) login(grant, account, database string) *conn {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l, err := h.roles.Login(ctx, h.wanted(grant, account))
	h.must(err)
	defer l.Done()
	c, err := h.connect(ctx, l.User, l.Password, database)
	h.must(err)
	h.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// roleNames are the roles of grants that are on the server.
func (h *house) roleNames() (names []string) {
	h.t.Helper()
	rows, err := h.run("postgres", "postgres", "select rolname from pg_roles where rolname like 'sp\\_%'")
	h.must(err)
	for _, row := range rows {
		names = append(names, row[0])
	}
	return names
}

func (h *house) eventually(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("it never came to be that %s; pending: %+v", what, h.roles.Pending())
		}
	}
}

// clean waits until there is neither a role nor a row.
func (h *house) clean() {
	h.t.Helper()
	h.eventually("no role and no row is left", func() bool {
		var n int
		h.must(h.store.Read().QueryRow("SELECT count(*) FROM ephemeral_roles").Scan(&n))
		return n == 0 && len(h.roleNames()) == 0
	})
}

// events are the audit events of a kind.
func (h *house) events(kind string) (all []store.AuditEvent) {
	h.t.Helper()
	events, err := h.store.Outbox(context.Background(), 0, 1_000_000)
	h.must(err)
	for _, e := range events {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t}, nil))
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(b)))
	return len(b), nil
}
