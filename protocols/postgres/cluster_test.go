package postgres

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
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

	"sallyport/configs"
	"sallyport/protocols/postgres/server"
	"sallyport/protocols/postgres/wire"
)

// cluster is a real PostgreSQL server, made by initdb for this run of the tests, with TLS and SCRAM.
type cluster struct {
	address string
	ca      string // file
	target  configs.Target
}

// appPassword is that of the role app, which the gateway logs in with.
const appPassword = "correct horse battery staple"

var theCluster struct {
	once sync.Once
	c    *cluster
	err  error
	stop func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	if theCluster.stop != nil {
		theCluster.stop()
	}
	os.Exit(code)
}

// startCluster returns the tests' server, started by the first who needs it.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	if _, err := exec.LookPath("initdb"); err != nil {
		if len(binDirs()) == 0 {
			t.Fatal("PostgreSQL's server programs are needed: apt-get install postgresql")
		}
	}
	theCluster.once.Do(func() { theCluster.c, theCluster.stop, theCluster.err = newCluster() })
	if theCluster.err != nil {
		t.Fatal(theCluster.err)
	}
	return theCluster.c
}

func binDirs() []string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	return dirs
}

func serverProgram(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	dirs := binDirs()
	return filepath.Join(dirs[len(dirs)-1], name)
}

// unprivileged makes a command run as somebody else if we are root, as PostgreSQL wants.
func unprivileged(command *exec.Cmd) error {
	if os.Geteuid() != 0 {
		return nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return os.Chown(command.Dir, uid, gid)
}

func newCluster() (*cluster, func(), error) {
	dir, err := os.MkdirTemp("", "sallyport-pg-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() { os.RemoveAll(dir) }
	run := func(name string, args ...string) error {
		command := exec.Command(serverProgram(name), args...)
		command.Dir = dir
		if err := unprivileged(command); err != nil {
			return err
		}
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, out)
		}
		return nil
	}
	data := filepath.Join(dir, "data")
	if err := run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"); err != nil {
		return nil, remove, err
	}
	ca, certificate, key, err := makeCertificate()
	if err != nil {
		return nil, remove, err
	}
	hba := "hostssl all localhost 127.0.0.1/32 cert\nhostssl all app,weak 127.0.0.1/32 scram-sha-256\nhost all md5er 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\nhost all maker 127.0.0.1/32 trust\nhost all +clerks 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
	for name, text := range map[string][]byte{
		"ca.pem": ca, "client.crt": certificate, "client.key": key, "data/ca.crt": ca, "data/server.crt": certificate, "data/server.key": key, "data/pg_hba.conf": []byte(hba),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, remove, err
		}
	}
	if info, err := os.Stat(data); err == nil && os.Geteuid() == 0 {
		owner := info.Sys().(*syscall.Stat_t)
		for _, name := range []string{"server.crt", "server.key", "ca.crt", "pg_hba.conf"} {
			if err := os.Chown(filepath.Join(data, name), int(owner.Uid), int(owner.Gid)); err != nil {
				return nil, remove, err
			}
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, remove, err
	}
	server := exec.Command(serverProgram("postgres"), "-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "ssl=on", "-c", "ssl_ca_file=ca.crt", "-c", "fsync=off", "-c", "max_connections=60", "-c", "wal_level=logical",
		"-c", "log_min_messages=fatal", "-c", "shared_buffers=32MB")
	server.Dir = dir
	var log bytes.Buffer
	server.Stderr = &log
	if err := unprivileged(server); err != nil {
		return nil, remove, err
	}
	if err := server.Start(); err != nil {
		return nil, remove, err
	}
	stop := func() {
		server.Process.Signal(syscall.SIGINT) // fast shutdown
		server.Wait()
		remove()
	}
	c := &cluster{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), ca: filepath.Join(dir, "ca.pem")}
	c.target = configs.Target{
		Name: "orders", Kind: configs.KindPostgres, Address: c.address, Database: "postgres",
		TLS: configs.TargetTLS{Mode: "verify-full", CA: c.ca},
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := c.asSuperuser(`create role app login password '` + appPassword + `'`)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			stop()
			return nil, remove, fmt.Errorf("the server did not come up: %w\n%s", err, log.String())
		}
	}
	_, err = c.asSuperuser(`set password_encryption = md5; create role md5er login password 'x'; reset password_encryption;
		create role clear login password 'x'; create role open login; create role localhost login; grant all on schema public to app, open; create role repl login replication`)
	if err != nil {
		stop()
		return nil, remove, err
	}
	return c, stop, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// asSuperuser runs SQL straight on the server.
func (c *cluster) asSuperuser(sql string) ([][]string, error) {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	plain := c.target
	plain.TLS.Mode = "off"
	b, err := server.Login(conn, server.Credentials{Target: plain, User: "postgres", Params: []wire.Param{{Name: "database", Value: "postgres"}}})
	if err != nil {
		return nil, err
	}
	defer b.Bye()
	return b.Query(sql)
}

// makeCertificate makes an authority and a server certificate for 127.0.0.1 and localhost.
func makeCertificate() (ca, certificate, key []byte, err error) {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return nil, nil, nil, err
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost", "orders.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, authority, &serverKey.PublicKey, authorityKey)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return nil, nil, nil, err
	}
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return encode("CERTIFICATE", authorityDER), encode("CERTIFICATE", serverDER), encode("PRIVATE KEY", keyDER), nil
}
