package browser

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demo is a running `sallyport demo`, and what it printed.
type demo struct {
	url       string
	homes     string
	passwords map[string]string
	binary    string
	pins      []string // hashes of the public keys of gateway and provider
}

// startDemo builds the gateway from this repository, starts its demo and ends it with the test.
func startDemo(t *testing.T) *demo {
	t.Helper()
	binary := os.Getenv("SALLYPORT_BIN")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "sallyport")
		for _, program := range []string{"", "-verify"} {
			build := exec.CommandContext(t.Context(), "go", "build", "-o", binary+program, "./cmd/sallyport"+program)
			build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
		}
	}
	command := exec.Command(binary, "demo")
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	d := &demo{passwords: map[string]string{}, binary: binary}
	ready, ended := make(chan struct{}), make(chan error, 1)
	var printed strings.Builder
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			d.read(lines.Text())
			printed.WriteString(lines.Text() + "\n")
			if strings.HasPrefix(lines.Text(), "Ctrl-C") {
				close(ready)
			}
		}
		ended <- command.Wait()
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = command.Process.Kill()
			t.Error("the demo did not end")
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the demo did not start: %v\n%s", err, printed.String())
	case <-time.After(2 * time.Minute):
		t.Fatal("the demo is not ready after two minutes")
	}
	if d.url == "" || d.homes == "" || len(d.passwords) != 3 {
		t.Fatalf("the demo printed too little: %+v\n%s", d, printed.String())
	}
	return d
}

var (
	consoleLine  = regexp.MustCompile(`(https://\S+)/console/`)
	homesLine    = regexp.MustCompile(`SALLYPORT_HOME=(\S+)/\$1;`)
	passwordLine = regexp.MustCompile(`^  (alice|bob|carol) +(\S+) +\w+$`)
)

func (d *demo) read(line string) {
	if m := consoleLine.FindStringSubmatch(line); m != nil {
		d.url = m[1]
	}
	if m := homesLine.FindStringSubmatch(line); m != nil {
		d.homes = strings.Trim(m[1], "'")
	}
	if m := passwordLine.FindStringSubmatch(line); m != nil {
		d.passwords[m[1]] = m[2]
	}
}

// pin verifies a server of the demo by its authority, and has the browser, whose own list of authorities is left alone,
// take exactly that server's key.
func (d *demo) pin(t *testing.T, address string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(filepath.Join(filepath.Dir(d.homes), "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{RootCAs: pool, ServerName: u.Hostname()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	d.pins = append(d.pins, base64.StdEncoding.EncodeToString(sum[:]))
}

// as is a stock program in a person's environment, with its input open.
func (d *demo) as(ctx context.Context, person, name string, args ...string) *exec.Cmd {
	home := filepath.Join(d.homes, person)
	command := exec.CommandContext(ctx, name, args...)
	command.Env = append(os.Environ(), "SALLYPORT_HOME="+home, "PGSERVICEFILE="+filepath.Join(home, "pg_service.conf"))
	return command
}
