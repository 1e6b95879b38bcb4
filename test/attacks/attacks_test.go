//go:build unix

// Package attacks does to a running gateway what nobody should, and looks at three things each time: that the one who
// did it is told what is wrong, that the audit log knows, and that everything else goes on.
package attacks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// scene is a rig with two people at work in it, whom nothing that happens may disturb.
type scene struct {
	*rig.Rig
	t        *testing.T
	pid      int
	database *pgx.Conn
	shell    *conversation
	https    string // addresses
	postgres string
	orders   string
	ssh      string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{Rig: rig.Start(t, rig.Checked(t)), t: t}
	s.https, s.postgres, s.ssh = s.address("https"), s.address("postgres"), s.address("ssh")
	s.orders = "127.0.0.1:" + regexp.MustCompile(`port=(\d+)`).FindStringSubmatch(s.Env["SALLYPORT_PG"])[1]
	s.arrive()
	return s
}

// arrive opens the bystanders' sessions.
func (s *scene) arrive() {
	s.t.Helper()
	var err error
	if s.pid, err = s.GatewayPID(); err != nil {
		s.t.Fatal(err)
	}
	if s.database, err = s.Connect(s.t.Context(), "SALLYPORT_PG"); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.database.Close(context.Background()) })
	s.shell = converse(s.t, exec.Command("ssh", "-F", s.Env["SALLYPORT_SSH_CONFIG"], "-o", "BatchMode=yes", "web-1", "cat"))
	s.undisturbed()
}

// address is one of the gateway's listeners, as its configuration says.
func (s *scene) address(listener string) string {
	s.t.Helper()
	found := regexp.MustCompile(`(?m)^  ` + listener + `: "?([0-9.:]+)`).FindStringSubmatch(s.configuration())
	if found == nil {
		s.t.Fatalf("sallyport.yaml has no listener %s", listener)
	}
	return found[1]
}

func (s *scene) configuration() string {
	s.t.Helper()
	text, err := os.ReadFile(s.Path("sallyport.yaml"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// undisturbed checks that the same gateway runs and that both bystanders' sessions work.
func (s *scene) undisturbed() {
	s.t.Helper()
	if pid, err := s.GatewayPID(); err != nil || pid != s.pid {
		s.t.Fatalf("the gateway is another process: %d instead of %d, %v", pid, s.pid, err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	var n int
	if err := s.database.QueryRow(ctx, "SELECT 6*7").Scan(&n); err != nil || n != 42 {
		s.t.Fatalf("the bystander's database session: %d, %v", n, err)
	}
	s.shell.say(s.t, fmt.Sprintf("still here %d", time.Now().UnixNano()))
}

// conversation is a program that repeats what it hears.
type conversation struct {
	in  io.Writer
	out io.Reader
}

func converse(t *testing.T, cmd *exec.Cmd) *conversation {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return &conversation{in, out}
}

// say says a line and waits for its echo.
func (c *conversation) say(t *testing.T, line string) {
	t.Helper()
	heard := make(chan error, 1)
	go func() {
		if _, err := io.WriteString(c.in, line+"\n"); err != nil {
			heard <- err
			return
		}
		echo := make([]byte, len(line)+1)
		if _, err := io.ReadFull(c.out, echo); err != nil {
			heard <- err
			return
		}
		if string(echo) != line+"\n" {
			heard <- fmt.Errorf("heard %q", echo)
			return
		}
		heard <- nil
	}()
	select {
	case err := <-heard:
		if err != nil {
			t.Fatalf("the bystander's ssh session: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the bystander's ssh session is silent")
	}
}

// audited checks that the audit log has an event in which all of the words stand.
func (s *scene) audited(words ...string) {
	s.t.Helper()
	var log string
	s.Until(20*time.Second, fmt.Sprintf("the audit log tells of %q", words), func() error {
		log = s.As("carol", "audit", "--json").Stdout
		for line := range strings.Lines(log) {
			if containsAll(line, words) {
				return nil
			}
		}
		return errors.New(log[max(0, len(log)-3000):])
	})
}

func containsAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// tells checks an outcome: it failed, and each of the words was said.
func (s *scene) tells(out rig.Outcome, words ...string) {
	s.t.Helper()
	if out.Code == 0 {
		s.t.Errorf("it succeeded:\n%s", out.Text())
	}
	if !containsAll(out.Text(), words) {
		s.t.Errorf("exit %d; %q is not all said:\n%s", out.Code, words, out.Text())
	}
}

// exchange sends bytes to an address and returns what comes back until the peer closes; it fails the test if the peer
// does not close in time. Many may go on at once.
func exchange(t *testing.T, address string, send []byte, patience time.Duration) []byte {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Error(err)
		return nil
	}
	if _, err := conn.Write(send); err != nil {
		t.Logf("%s closed while it was sent to: %v", address, err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s still holds the connection after %s", address, patience)
	}
	return answer
}

// get asks the gateway over HTTPS, without a token.
func (s *scene) get(path string) (status int, text string) {
	s.t.Helper()
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(read(s.t, s.Env["SALLYPORT_CA"])) {
		s.t.Fatal("SALLYPORT_CA names no certificate")
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority}, DisableKeepAlives: true}}
	answer, err := client.Get(s.Env["SALLYPORT_URL"] + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}
