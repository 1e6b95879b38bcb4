//go:build unix

// Package acme has a real gateway get its server certificate from a real ACME authority (Pebble, Let's Encrypt's for tests),
// which validates by asking the gateway.
package acme

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const patience = 90 * time.Second

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// start runs a program for the time of the test and returns where its output goes.
func start(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	log := filepath.Join(dir, filepath.Base(name)+".log")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, file, file
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		file.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("%s said:\n%s", name, text)
		}
	})
	return log
}

func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// served is the certificate that the gateway shows for a name.
func served(address, name string, roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", address, &tls.Config{ServerName: name, RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func TestServerCertificate(t *testing.T) {
	for _, way := range []string{"TLS-ALPN-01", "HTTP-01"} {
		t.Run(way, func(t *testing.T) { certified(t, way) })
	}
}

func certified(t *testing.T, way string) {
	dir := t.TempDir()
	bin := func(name string) string { return filepath.Join(dir, name) }
	run(t, ".", "go", "build", "-o", dir+"/", "github.com/letsencrypt/pebble/v2/cmd/pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv")
	run(t, "../../..", "go", "build", "-o", bin("sallyport"), "./cmd/sallyport")

	https, httpPort, directory, management, dns := port(t), port(t), port(t), port(t), port(t)
	run(t, dir, bin("sallyport"), "init", filepath.Join(dir, "pebble-tls"), "--host", "localhost", "--issuer", "https://x.example", "--self-signed")
	ca := filepath.Join(dir, "pebble-tls", "tls.crt")
	nobody := port(t)
	asks := map[string]string{"TLS-ALPN-01": https, "HTTP-01": nobody}[way] // only the way that is tested leads to the gateway
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": "127.0.0.1:" + directory, "managementListenAddress": "127.0.0.1:" + management,
		"certificate": ca, "privateKey": filepath.Join(dir, "pebble-tls", "tls.key"), "httpPort": number(httpPort), "tlsPort": number(asks),
	}})
	if err != nil {
		t.Fatal(err)
	}
	listen := ""
	if way == "HTTP-01" {
		listen = "127.0.0.1:" + httpPort
	}
	for name, text := range map[string]string{"pebble.json": string(config), "sallyport.yaml": fmt.Sprintf(`
state: state
url: https://gateway.example.test:%s
listen: {https: "127.0.0.1:%s"}
tls: {acme: {accept_terms: true, directory: "https://localhost:%s/dir", ca: %s, listen: "%s"}}
provider: {issuer: https://login.example, client_id: x}
recording: {durability: written, reserve: 1MiB}
`, https, https, directory, ca, listen)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, dir, bin("pebble-challtestsrv"), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", "127.0.0.1:"+dns, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", "127.0.0.1:"+port(t))
	start(t, dir, bin("pebble"), "-config", "pebble.json", "-dnsserver", "127.0.0.1:"+dns)
	roots := authority(t, ca, management)
	log := start(t, dir, bin("sallyport"), "serve", "-c", "sallyport.yaml")

	address := "127.0.0.1:" + https
	var leaf *x509.Certificate
	until(t, "the gateway has a certificate of the authority's", func() (err error) {
		leaf, err = served(address, "gateway.example.test", roots)
		return err
	})
	// Nobody has certificates asked for by naming other hosts.
	if other, err := served(address, "mallory.example.test", roots); err == nil || other != nil {
		t.Error("a stranger's name was certified")
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: "mallory.example.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(leaf) {
		t.Errorf("another name is answered with the certificate of %v", got.DNSNames)
	}
	conn.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "gateway.example.test"}}}
	answer, err := client.Get("https://" + address + "/healthz")
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", answer, err)
	}
	// Keys are for the gateway alone, and after a restart nobody is asked again.
	files, err := filepath.Glob(filepath.Join(dir, "state", "acme", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	text, err := os.ReadFile(log)
	if err != nil || strings.Contains(string(text), "PRIVATE KEY") {
		t.Errorf("the log holds a key, or %v", err)
	}
}

func number(text string) int {
	n, _ := strconv.Atoi(text) // of our own
	return n
}

func until(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// authority is Pebble's root, which is another one each time.
func authority(t *testing.T, ca, management string) *x509.CertPool {
	t.Helper()
	own, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(own)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, ServerName: "localhost"}}}
	roots := x509.NewCertPool()
	until(t, "the authority answers", func() error {
		answer, err := client.Get("https://127.0.0.1:" + management + "/roots/0")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if block, _ := pem.Decode(text); err != nil || block == nil {
			return fmt.Errorf("it sends no certificate: %w", err)
		}
		roots.AppendCertsFromPEM(text)
		return nil
	})
	return roots
}
