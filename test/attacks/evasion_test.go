//go:build unix

package attacks

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"sallyport/test/rig"
)

// TestEvasion is a user with a grant who wants to do more, longer, or unseen.
func TestEvasion(t *testing.T) {
	s := newScene(t)
	t.Run("what runs outlives the session", s.outlive)
	t.Run("all connections of an account", s.takeAll)
	t.Run("a goodbye hides what still runs", s.leave)
	t.Run("files moved over a terminal", s.filesOverTerminal)
	t.Run("a session that begins while its grant ends", s.race)
	t.Run("many who decide at once", s.decideAtOnce)
	t.Run("names that are lines and commands", s.forge)
	t.Run("a connection kept from before signing out", s.keptConnection) // the last: it signs Alice out
}

// outlive has a role make every login of its own fail, or blind, so that the gateway can't end a statement that does not
// let itself be cancelled.
func (s *scene) outlive(t *testing.T) {
	admin := s.admin(t)
	execute(t, admin, "CREATE ROLE bystander; GRANT bystander TO app")
	for name, settings := range map[string][]string{
		"nothing":           nil,
		"a missing library": {"local_preload_libraries = 'sallyport_missing'"},
		"a time-out":        {"statement_timeout = 1"},
		"an idle time-out":  {"idle_session_timeout = 1"},
		"another role":      {"role = 'bystander'"}, // which is shown no other role's backends
		"a deferred start":  {"default_transaction_isolation = 'serializable'", "default_transaction_read_only = on", "default_transaction_deferrable = on"},
	} {
		t.Run(name, func(t *testing.T) {
			defer execute(t, admin, "ALTER ROLE app RESET ALL")
			conn, err := s.Connect(t.Context(), "SALLYPORT_PG")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			execute(t, conn, "SET client_connection_check_interval = 0; SET default_transaction_isolation = 'serializable'")
			for _, setting := range settings {
				execute(t, conn, "ALTER ROLE app SET "+setting)
			}
			pid := conn.PgConn().PID()
			go func() {
				_ = conn.PgConn().Exec(context.Background(), trap).Close() // it is cut
			}()
			rig.Until(t, 20*time.Second, "the statement runs", func() error { return runs(t, admin, pid, true) })
			if out := s.As("carol", "kill", s.newest(t)); out.Code != 0 {
				t.Fatal(out.Text())
			}
			rig.Until(t, 20*time.Second, "the statement has ended", func() error { return runs(t, admin, pid, false) })
		})
	}
}

// takeAll takes every connection that the role may have, and then changes its password: the gateway can't log in as the
// role any more, and has to end what runs as another account.
func (s *scene) takeAll(t *testing.T) {
	admin := s.admin(t)
	var was string
	if err := admin.QueryRow(t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'").Scan(&was); err != nil {
		t.Fatal(err)
	}
	defer execute(t, admin, "ALTER ROLE app CONNECTION LIMIT -1 PASSWORD '"+was+"'")
	const most = 3 // one is the bystander's
	execute(t, admin, fmt.Sprintf("ALTER ROLE app CONNECTION LIMIT %d", most))
	var pids []uint32
	var sessions []string
	for range most - 1 {
		conn, err := s.Connect(t.Context(), "SALLYPORT_PG")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		execute(t, conn, "SET client_connection_check_interval = 0")
		pids, sessions = append(pids, conn.PgConn().PID()), append(sessions, s.newest(t))
		go func() { _ = conn.PgConn().Exec(context.Background(), trap).Close() }() // it is cut
		rig.Until(t, 20*time.Second, "the statement runs", func() error { return runs(t, admin, conn.PgConn().PID(), true) })
	}
	execute(t, s.database, "ALTER ROLE app PASSWORD 'mine alone'") // which every role may do
	var killing sync.WaitGroup
	for _, id := range sessions {
		killing.Go(func() { s.As("carol", "kill", id) })
	}
	killing.Wait()
	for _, pid := range pids {
		rig.Until(t, 20*time.Second, "the statement has ended", func() error { return runs(t, admin, pid, false) })
	}
}

// trap is a statement that does not let itself be cancelled.
const trap = `DO $$ BEGIN FOR i IN 1..600 LOOP
	BEGIN PERFORM pg_sleep(1); EXCEPTION WHEN query_canceled THEN END; END LOOP; END $$`

// leave says goodbye behind a statement that is still to run, and goes before the answers come.
func (s *scene) leave(t *testing.T) {
	admin := s.admin(t)
	conn, err := s.Connect(t.Context(), "SALLYPORT_PG")
	if err != nil {
		t.Fatal(err)
	}
	execute(t, conn, "SET client_connection_check_interval = 0")
	pid, session := conn.PgConn().PID(), s.newest(t)
	hijacked, err := conn.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	raw, ok := hijacked.Conn.(*tls.Conn)
	if !ok {
		t.Fatalf("the connection is %T", hijacked.Conn)
	}
	short := query("SELECT pg_sleep(0.5)")
	last := append(query("DO $$ BEGIN PERFORM pg_sleep(600); END $$"), 'X', 0, 0, 0, 4)
	if _, err := raw.Write(append(append(short, short...), last...)); err != nil {
		t.Fatal(err)
	}
	rig.Until(t, 20*time.Second, "the first statement runs", func() error { return runs(t, admin, pid, true) })
	if err := raw.NetConn().(*net.TCPConn).SetLinger(0); err != nil { // a reset, so that the answers can't be written
		t.Fatal(err)
	}
	raw.NetConn().Close()
	rig.Until(t, 20*time.Second, "the last statement runs", func() error {
		var sql string
		if err := admin.QueryRow(t.Context(), "SELECT query FROM pg_stat_activity WHERE pid = $1", int32(pid)).Scan(&sql); err != nil || !strings.HasPrefix(sql, "DO") {
			return fmt.Errorf("backend %d runs %q: %w", pid, sql, err)
		}
		return nil
	})
	if now := s.newest(t); now != session {
		t.Fatalf("session %s is over, and its statement runs on", session)
	}
	if out := s.As("carol", "kill", session); out.Code != 0 {
		t.Fatal(out.Text())
	}
	rig.Until(t, 20*time.Second, "nothing runs any more", func() error { return runs(t, admin, pid, false) })
}

// filesOverTerminal asks for a terminal first, on which what is typed is not recorded, and then for sftp on it.
func (s *scene) filesOverTerminal(t *testing.T) {
	client := s.sshClient(t, "deploy@web-1")
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	raw := ssh.TerminalModes{}
	for _, mode := range []uint8{ssh.ECHO, ssh.ICANON, ssh.ISIG, ssh.IXON, ssh.IXOFF, ssh.ICRNL, ssh.INLCR, ssh.IGNCR, ssh.OPOST, ssh.ONLCR, ssh.IEXTEN, ssh.ISTRIP, ssh.INPCK, ssh.PARENB, ssh.IXANY} {
		raw[mode] = 0
	}
	raw[ssh.CS8] = 1
	if err := session.RequestPty("xterm", 24, 80, raw); err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("/tmp", fmt.Sprintf("sallyport-unseen-%d", time.Now().UnixNano()))
	if err := session.RequestSubsystem("sftp"); err == nil {
		made := make(chan error, 1)
		go func() {
			files, err := sftp.NewClientPipe(out, in)
			if err == nil {
				err = files.Mkdir(name)
			}
			if err == nil {
				err = files.RemoveDirectory(name)
			}
			made <- err
		}()
		select {
		case err := <-made:
			t.Logf("sftp on a terminal: %v", err)
		case <-time.After(20 * time.Second):
			t.Log("sftp on a terminal does not answer")
		}
	}
	client.Close()
	rig.Until(t, 20*time.Second, "the recording is whole", func() error {
		out := s.As("carol", "export", "--all", "--format", "jsonl")
		if out.Code != 0 || !strings.Contains(out.Stdout, name) {
			return fmt.Errorf("no recording has the request about %s", name)
		}
		return nil
	})
}

// keptConnection keeps a connection from before signing out, on which nothing was asked for yet.
func (s *scene) keptConnection(t *testing.T) {
	client := s.sshClient(t, "deploy@web-1")
	defer client.Close()
	if out := s.As("alice", "logout"); out.Code != 0 {
		t.Fatal(out.Text())
	}
	session, err := client.NewSession()
	if err != nil {
		return // refused is what it should be
	}
	out, err := session.CombinedOutput("echo still in")
	if err == nil || strings.Contains(string(out), "still in") {
		t.Errorf("who has signed out begins a session: %q, %v", out, err)
	}
	if !strings.Contains(string(out), "signed out") {
		t.Errorf("the user is not told why: %q", out)
	}
}

// sshClient is Alice's own connection to the gateway, for an address.
func (s *scene) sshClient(t *testing.T, user string) *ssh.Client {
	t.Helper()
	client, err := s.tryClient(t, user)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (s *scene) tryClient(t *testing.T, user string) (*ssh.Client, error) {
	t.Helper()
	home := s.Env["SALLYPORT_HOME_ALICE"]
	key, err := ssh.ParsePrivateKey(read(t, filepath.Join(home, "ssh_key")))
	if err != nil {
		t.Fatal(err)
	}
	certificate, _, _, _, err := ssh.ParseAuthorizedKey(read(t, filepath.Join(home, "ssh_key-cert.pub")))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(certificate.(*ssh.Certificate), key)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Dial("tcp", s.ssh, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the gateway is the victim here
		Timeout:         20 * time.Second,
	})
}

// admin is a connection of the cluster's superuser past the gateway.
func (s *scene) admin(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := s.Connect(t.Context(), "SALLYPORT_PG_SUPERUSER_DIRECT")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// newest is the id of Alice's newest session.
func (s *scene) newest(t *testing.T) string {
	t.Helper()
	var sessions []struct{ ID string }
	out := s.As("alice", "sessions", "--json")
	if err := json.Unmarshal([]byte(out.Stdout), &sessions); err != nil || len(sessions) == 0 {
		t.Fatalf("no session: %v\n%s", err, out.Text())
	}
	return sessions[0].ID
}

// runs returns nil if the backend sleeps in a statement, or does not, as wanted.
func runs(t *testing.T, admin *pgx.Conn, pid uint32, want bool) error {
	t.Helper()
	var active bool
	if err := admin.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep')", int32(pid)).Scan(&active); err != nil {
		t.Fatal(err)
	}
	if active != want {
		return fmt.Errorf("backend %d sleeps: %t", pid, active)
	}
	return nil
}

// execute runs a statement by the simple protocol.
func execute(t *testing.T, conn interface{ PgConn() *pgconn.PgConn }, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// query is a Query message.
func query(sql string) []byte {
	b := append([]byte{'Q'}, binary.BigEndian.AppendUint32(nil, uint32(len(sql)+5))...)
	return append(append(b, sql...), 0)
}
