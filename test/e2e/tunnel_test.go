//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/test/rig"
)

// localPort is a line of `sallyport tunnel --json`.
type localPort struct {
	Account, Target, Kind, Host, Connect, URL string
	Port                                      int
}

// tunnelled is a running `sallyport tunnel` of Alice's.
type tunnelled struct {
	cmd   *exec.Cmd
	ports []localPort
	said  *strings.Builder
	mu    *sync.Mutex
	end   chan error
}

func (t *tunnelled) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.said.String()
}

func openTunnel(t *testing.T, r *rig.Rig, args ...string) *tunnelled {
	t.Helper()
	u := &tunnelled{cmd: exec.Command(r.Env["SALLYPORT_BIN"], append([]string{"tunnel", "--json"}, args...)...), said: &strings.Builder{}, mu: &sync.Mutex{}, end: make(chan error, 1)}
	u.cmd.Env = append(os.Environ(), "SALLYPORT_HOME="+r.Env["SALLYPORT_HOME_ALICE"])
	out, err := u.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errors, err := u.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		buffer := make([]byte, 4096)
		for {
			n, err := errors.Read(buffer)
			u.mu.Lock()
			u.said.Write(buffer[:n])
			u.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	err = json.NewDecoder(out).Decode(&u.ports)
	go func() {
		_, _ = io.Copy(io.Discard, out)
		<-drained
		u.end <- u.cmd.Wait()
	}()
	if err != nil {
		t.Fatalf("it opens no ports: %v\n%s", err, u.text())
	}
	t.Cleanup(func() { _ = u.cmd.Process.Kill() }) // where the test did not end it
	return u
}

// close ends it as Ctrl-C does.
func (t *tunnelled) close(test *testing.T) {
	test.Helper()
	if err := t.cmd.Process.Signal(os.Interrupt); err != nil {
		test.Fatal(err)
	}
	select {
	case err := <-t.end:
		if err != nil {
			test.Errorf("Ctrl-C: %v\n%s", err, t.text())
		}
	case <-time.After(time.Minute):
		test.Fatalf("it does not end:\n%s", t.text())
	}
}

// sshAt are ssh's arguments for an SSH port; no key, no agent and no configuration.
func (p localPort) sshAt(r *rig.Rig, flag string) []string {
	return []string{
		"-F", "none", flag, strconv.Itoa(p.Port), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityFile=none", "-o", "StrictHostKeyChecking=yes",
		"-o", "HostKeyAlias=sallyport-tunnel", "-o", "UserKnownHostsFile=" + filepath.Join(r.Env["SALLYPORT_HOME_ALICE"], "tunnel_known_hosts"),
	}
}

// TestTunnel: programs without certificate, password or TLS get through a local port as its owner, and nobody else does.
func TestTunnel(t *testing.T) {
	r := rig.Start(t, rig.Binary(t, ""))
	sockets, err := os.MkdirTemp("", "tunnel-*") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	socket := filepath.Join(sockets, ".s.PGSQL.5432")
	u := openTunnel(t, r, "app@orders", "deploy@web-1", "app@orders", "--listen", "0", "--listen", "0", "--listen", socket)
	database, host := u.ports[0], u.ports[1]
	nothing := []string{"PGSERVICEFILE=/none", "PGSSLCERT=/none", "PGSSLKEY=/none", "HOME=/none"}
	psql := func(args ...string) rig.Outcome {
		return r.Run(nothing, "psql", append([]string{"-X", "-w", "-A", "-t", "-v", "ON_ERROR_STOP=1"}, args...)...)
	}

	t.Run("psql", func(t *testing.T) {
		if out := psql(database.URL, "-c", "SELECT current_user, 6*7"); out.Code != 0 || out.Stdout != "app|42\n" {
			t.Error(out.Text())
		}
		// Whatever user it names, it is the account; sslmode=prefer asks for encryption first.
		if out := psql(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=prefer", database.Port), "-c", "SELECT current_user, current_database()"); out.Stdout != "app|postgres\n" {
			t.Error(out.Text())
		}
		if out := psql("host="+sockets+" port=5432 user=x dbname=orders", "-c", "SELECT current_user"); out.Stdout != "app\n" {
			t.Error(out.Text())
		}
		if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
	})

	t.Run("cancel", func(t *testing.T) {
		cmd := exec.Command("psql", "-X", "-w", database.URL, "-c", "SELECT pg_sleep(60)")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r.Until(30*time.Second, "the statement runs", func() error {
			if out := psql(database.URL, "-c", "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"); out.Stdout != "1\n" {
				return fmt.Errorf("%s", out.Text())
			}
			return nil
		})
		_ = cmd.Process.Signal(os.Interrupt) // psql sends a CancelRequest
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("the statement is not cancelled")
		}
	})

	t.Run("ssh and scp", func(t *testing.T) {
		out := r.Run(nothing, "ssh", append(host.sshAt(r, "-p"), "127.0.0.1", "cat; echo to the side >&2; exit 7")...)
		if out.Code != 7 || !strings.Contains(out.Stderr, "to the side") {
			t.Errorf("%+v", out)
		}
		from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
		text := strings.Repeat("0123456789abcdef", 200_000)
		if err := os.WriteFile(from, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		copied := r.Path("copied-through-the-tunnel")
		for _, names := range [][2]string{{from, "127.0.0.1:" + copied}, {"127.0.0.1:" + copied, to}} {
			if out := r.Run(nothing, "scp", append(host.sshAt(r, "-P"), names[0], names[1])...); out.Code != 0 {
				t.Fatal(out.Text())
			}
		}
		if back, err := os.ReadFile(to); err != nil || string(back) != text {
			t.Errorf("it came back as %d bytes of %d, %v", len(back), len(text), err)
		}
	})

	t.Run("recorded as Alice's", func(t *testing.T) {
		if out := r.As("carol", "search", "SELECT current_user, 6*7"); out.Code != 0 || !strings.Contains(out.Stdout, "Alice") {
			t.Error(out.Text())
		}
	})

	t.Run("another user of the machine", func(t *testing.T) {
		if os.Getuid() != 0 || runtime.GOOS != "linux" {
			t.Skip("only root can be another user")
		}
		for _, line := range []string{database.URL, "host=" + sockets + " port=5432 user=x dbname=orders"} {
			cmd := exec.Command("psql", "-X", "-w", line, "-c", "SELECT 1")
			cmd.Env, cmd.Dir = append(os.Environ(), "HOME=/none", "PGCONNECT_TIMEOUT=20"), "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if out, err := cmd.CombinedOutput(); err == nil {
				t.Errorf("it got through: %s", out)
			}
		}
		r.Until(10*time.Second, "its user is told", func() error {
			if said := u.text(); !strings.Contains(said, "a connection of user 65534 was refused") {
				return fmt.Errorf("%s", said)
			}
			return nil
		})
	})

	t.Run("the gateway's refusal reaches the program", func(t *testing.T) {
		other := openTunnel(t, r, "report@orders")
		defer other.close(t)
		if out := psql(other.ports[0].URL, "-c", "SELECT 1"); out.Code == 0 || !strings.Contains(out.Stderr, "sallyport targets") {
			t.Errorf("%+v", out)
		}
	})

	t.Run("authorities are rotated under open doors", func(t *testing.T) {
		for _, args := range [][]string{{"login"}, {"tls-client"}, {"issuer"}, {"target"}, {"ssh-host"}} {
			if out := r.As("carol", append([]string{"ca", "rotate"}, args...)...); out.Code != 0 {
				t.Fatal(out.Text())
			}
		}
		if out := r.PSQL("SALLYPORT_PG", "-c", "SELECT 'certified before'"); out.Code != 0 {
			t.Error(out.Text())
		}
		if out := r.SSH("true"); out.Code != 0 {
			t.Error(out.Text())
		}
		if out := r.As("alice", "ca", "list"); out.Code != 3 {
			t.Errorf("somebody without the permission: %+v", out)
		}
		// The sshd trusts the next key once what setup prints is there; before that it would let the gateway in no more.
		var setup struct{ Parts []struct{ Name, Text string } }
		r.Ask(&setup, "carol", "targets", "setup", "web-1")
		for _, part := range setup.Parts {
			if part.Name == "trusted_ca" && strings.Count(part.Text, "ssh-ed25519 ") != 2 {
				t.Errorf("setup names not both target authorities:\n%s", part.Text)
			}
		}
		var list []struct {
			Name, Next string
			Old        []struct{ Until time.Time }
		}
		r.Ask(&list, "carol", "ca", "list")
		for _, a := range list {
			if published := a.Name == "target" || a.Name == "ssh-host"; (a.Next != "") != published || (len(a.Old) == 1) == published {
				t.Errorf("%+v", a)
			}
		}
		if out := r.As("carol", "audit"); strings.Count(out.Stdout, "authority.rotated") != 3 || strings.Count(out.Stdout, "authority.prepared") != 2 {
			t.Error("the audit log does not tell of it")
		}
	})

	t.Run("the gateway goes and comes back", func(t *testing.T) {
		pid, err := r.GatewayPID()
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.Until(time.Minute, "the port works again", func() error {
			if out := psql(database.URL, "-c", "SELECT 'back'"); out.Stdout != "back\n" {
				return fmt.Errorf("%s", out.Text())
			}
			return nil
		})
	})

	t.Run("Ctrl-C", func(t *testing.T) {
		r.Until(time.Minute, "it says how much time is left", func() error { // it asks every few seconds
			if !strings.Contains(u.text(), "left, until") {
				return errors.New(u.text())
			}
			return nil
		})
		u.close(t)
		if _, err := os.Stat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
		if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(database.Port))); err == nil {
			conn.Close()
			t.Error("the port is still open")
		}
		if out := r.As("carol", "audit"); !strings.Contains(out.Stdout, "credential.revoked") {
			t.Error("its certificate was not given back")
		}
	})

	t.Run("only loopback", func(t *testing.T) {
		for _, address := range []string{"0.0.0.0:0", "192.0.2.1:5433", ":5433", "example.com:5433"} {
			if out := r.As("alice", "tunnel", "app@orders", "--listen", address); out.Code == 0 || !strings.Contains(out.Stderr, "loopback") {
				t.Errorf("%s: %+v", address, out)
			}
		}
	})
}
