package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
	"sallyport/recorder"
	"sallyport/recorder/format"
	"sallyport/session"
)

// house is the real rooms around a Handler, with the real server as target.
type house struct {
	t        *testing.T
	cluster  *cluster
	dir      string
	store    *store.Store
	recorder *recorder.Recorder
	authn    *authn.Service
	grants   *grant.Service
	sessions *session.Manager
	handler  *Handler
	config   *configs.Config
	shared   string // address of the shared listener
	own      string // address of the target's own one
	ca       string // file that the server certificate verifies with
	grant    grant.Grant
	alice    person
}

// person is somebody who has signed in and has a certificate.
type person struct {
	authn.Identity
	certificate, key string // files
	pair             tls.Certificate
}

func newHouse(t *testing.T, change ...func(*Options)) *house {
	t.Helper()
	return newHouseWith(t, func(*configs.Config) {}, []grant.Ask{
		{Target: "orders", Account: "writer", Reason: "test"}, {Target: "orders", Account: "wrong", Reason: "test"},
		{Target: "plain", Account: "open", Reason: "test"}, {Target: "plain", Account: "postgres", Reason: "test"},
		{Target: "plain", Account: "repl", Reason: "test"}, {Target: "down", Account: "writer", Reason: "test"},
	}, change...)
}

// newHouseOf is newHouse with a changed configuration, in which Alice asks for less.
func newHouseOf(t *testing.T, configure func(*configs.Config), asks ...grant.Ask) *house {
	t.Helper()
	return newHouseWith(t, configure, asks)
}

func newHouseWith(t *testing.T, configure func(*configs.Config), asks []grant.Ask, change ...func(*Options)) *house {
	t.Helper()
	h := &house{t: t, cluster: startCluster(t), dir: t.TempDir()}
	ctx := context.Background()
	password := filepath.Join(h.dir, "password")
	h.must(os.WriteFile(password, []byte(appPassword+"\n"), 0o600))
	target := h.cluster.target
	target.Durability = configs.Written
	target.ServerName = "orders.test"
	target.Accounts = []configs.Account{
		{Name: "writer", User: "app", Password: configs.SecretRef("file:" + password)},
		{Name: "wrong", User: "app", Password: configs.SecretRef("file:" + filepath.Join(h.dir, "nothing"))},
	}
	plain := target
	plain.Name, plain.ServerName, plain.TLS.Mode = "plain", "", "off"
	plain.Accounts = []configs.Account{{Name: "open"}, {Name: "postgres"}, {Name: "repl", Replication: true}}
	down := target
	address, err := freePort()
	h.must(err)
	down.Name, down.ServerName, down.Address = "down", "", fmt.Sprintf("127.0.0.1:%d", address)
	hour := configs.Duration(time.Hour)
	config := &configs.Config{
		State: h.dir, URL: "https://gateway.test", Targets: []configs.Target{target, plain, down, {Name: "web-1", Kind: configs.KindSSH, Address: "127.0.0.1:1"}},
		Provider:    configs.Provider{Issuer: "https://login.example", ClientID: "x"},
		Credentials: configs.Credentials{SignIn: hour, Certificate: hour},
		Recording:   configs.Recording{Durability: configs.Written, AllowVolatile: true, Reserve: 1},
		Policies: []configs.Policy{{
			Name: "p", Groups: []string{"engineers"}, Accounts: []string{"*@*"}, MaxDuration: hour, DefaultDuration: hour,
			ReasonLength: 1, Approve: configs.Approve{Auto: true, Start: hour, Within: hour},
		}},
		Permissions: []configs.Permission{{Groups: []string{"security"}, May: []string{"*"}}},
	}
	configure(config)
	h.config = config
	log := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h.store, err = storetest.Open(ctx, h.dir)
	h.must(err)
	h.recorder, err = recorder.Open(ctx, recorder.Options{Dir: h.dir, Config: config.Recording, Store: h.store, Log: log,
		Interpreters: map[string]func(format.Header) recorder.Interpreter{configs.KindPostgres: Interpreter}})
	h.must(err)
	h.authn, err = authn.Open(ctx, config, h.store, log)
	h.must(err)
	h.grants, err = grant.Open(ctx, config, h.store, log)
	h.must(err)
	h.sessions, err = session.Open(ctx, session.Options{Store: h.store, Recorder: h.recorder, Authn: h.authn, Config: config, Log: log})
	h.must(err)
	ca, certificate, key, err := makeCertificate()
	h.must(err)
	h.ca = filepath.Join(h.dir, "ca.pem")
	h.must(os.WriteFile(h.ca, ca, 0o600))
	pair, err := tls.X509KeyPair(certificate, key)
	h.must(err)
	options := Options{
		Authn: h.authn, Grants: h.grants, Sessions: h.sessions, URL: config.URL, HandshakeTimeout: 10 * time.Second, Log: log,
		TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }},
	}
	for _, f := range change {
		f(&options)
	}
	h.handler = New(options)
	serving, stop := context.WithCancel(ctx)
	var open sync.WaitGroup
	h.shared = h.listen(serving, &open, h.handler)
	h.own = h.listen(serving, &open, h.handler.ForTarget("orders"))
	t.Cleanup(func() {
		now, cancel := context.WithCancel(ctx)
		cancel()
		h.sessions.Drain(now)
		stop()
		open.Wait()
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		h.grants.Close()
		h.authn.Close(ctx)
		h.recorder.Close(ctx)
		h.store.Close()
	})
	h.alice = h.signIn("alice", "engineers")
	for _, ask := range asks {
		g, err := h.grants.Request(ctx, h.alice.Identity, ask)
		h.must(err)
		if h.grant.ID == "" {
			h.grant = g
		}
	}
	return h
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// testLog sends the gateway's log to the test's.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (h *house) listen(ctx context.Context, open *sync.WaitGroup, handler interface {
	Serve(context.Context, net.Conn)
}) string {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	context.AfterFunc(ctx, func() { l.Close() })
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { handler.Serve(ctx, conn) })
		}
	})
	return l.Addr().String()
}

// signIn makes somebody known and gives them a certificate.
func (h *house) signIn(name string, groups ...string) person {
	h.t.Helper()
	who, err := h.authn.SignIn(context.Background(), authn.Identity{
		Issuer: "https://login.example", Subject: name, Kind: authn.Human, Name: name, Groups: groups,
	}, "test")
	h.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.must(err)
	issued, err := h.authn.Certify(context.Background(), who, authn.Keys{TLS: &key.PublicKey})
	h.must(err)
	p := person{Identity: who, certificate: filepath.Join(h.dir, name+".crt"), key: filepath.Join(h.dir, name+".key")}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	h.must(err)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.TLS})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	h.must(os.WriteFile(p.certificate, certificate, 0o600))
	h.must(os.WriteFile(p.key, keyPEM, 0o600))
	p.pair, err = tls.X509KeyPair(certificate, keyPEM)
	h.must(err)
	return p
}

// connection is a connection string for the target's own listener.
func (h *house) connection(who person, more ...string) string {
	host, port, _ := net.SplitHostPort(h.own)
	return strings.Join(append([]string{
		"host=" + host, "port=" + port, "user=writer", "dbname=postgres", "sslmode=verify-full", "sslrootcert=" + h.ca,
		"sslcert=" + who.certificate, "sslkey=" + who.key, "connect_timeout=20",
	}, more...), " ")
}

// onShared is a connection string for the shared listener.
func (h *house) onShared(who person, more ...string) string {
	_, port, _ := net.SplitHostPort(h.shared)
	return h.connection(who, append([]string{"port=" + port}, more...)...)
}

// psql is the stock psql, without anybody's settings.
func (h *house) psql(ctx context.Context, connection string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "psql", append([]string{"-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", connection}, args...)...)
	command.Env = append(os.Environ(), "PGOPTIONS=", "LC_ALL=C")
	return command
}

// runPsql runs it to its end and returns what it printed.
func (h *house) runPsql(connection string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	out, err := h.psql(ctx, connection, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// pgx connects with pgx.
func (h *house) pgx(more ...string) *pgx.Conn {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, h.connection(h.alice, more...))
	h.must(err)
	h.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// backendGone waits until the process is no backend any more and returns how long that took.
func (h *house) backendGone(pid uint32) time.Duration {
	h.t.Helper()
	began := time.Now()
	h.eventually(fmt.Sprintf("backend %d is gone", pid), func() bool {
		rows, err := h.cluster.asSuperuser(fmt.Sprintf("select 1 from pg_stat_activity where pid = %d", pid))
		h.must(err)
		return len(rows) == 0
	})
	return time.Since(began)
}

// active waits until the process runs a statement like that.
func (h *house) active(like string) uint32 {
	h.t.Helper()
	var pid uint32
	h.eventually("a statement like "+like+" runs", func() bool {
		rows, err := h.cluster.asSuperuser("select pid from pg_stat_activity where state = 'active' and usename <> 'postgres' and query like '" + like + "'")
		h.must(err)
		if len(rows) == 1 {
			fmt.Sscan(rows[0][0], &pid)
		}
		return pid != 0
	})
	return pid
}

func (h *house) eventually(what string, holds func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("it never came to be that %s", what)
		}
	}
}

// ended waits for the newest session to have ended and returns it.
func (h *house) ended() session.Info {
	h.t.Helper()
	var info session.Info
	h.eventually("the session has ended", func() bool {
		list, err := h.sessions.List(context.Background(), true)
		h.must(err)
		if len(list) == 0 {
			return false
		}
		info = list[0]
		return !info.Live && !info.Ended.IsZero()
	})
	return info
}

// items is what the recording of a session means.
func (h *house) items(id string) []recorder.Item {
	h.t.Helper()
	items, err := h.recorder.Items(context.Background(), id)
	h.must(err)
	var list []recorder.Item
	for i, err := range items {
		h.must(err)
		list = append(list, i)
	}
	return list
}

// statements are the texts of what ran in a session.
func (h *house) statements(id string) (texts []string) {
	h.t.Helper()
	for _, i := range h.items(id) {
		if i.Kind == recorder.ItemStatement {
			texts = append(texts, i.SQL)
		}
	}
	return texts
}
