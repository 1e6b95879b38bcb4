//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sallyport/test/bench/wait"
)

// openPostgres opens a session that runs a statement without end.
func openPostgres(ctx context.Context, b *bench, i int) (live, error) {
	s := live{name: account(i) + "@" + targetPostgres}
	var err error
	if s.grant, err = b.grant(ctx, targetPostgres, i); err != nil {
		return s, err
	}
	_, port, err := net.SplitHostPort(b.gateway)
	if err != nil {
		return s, err
	}
	home := b.env("SALLYPORT_HOME_ALICE")
	config, err := pgx.ParseConfig(fmt.Sprintf("host=localhost port=%s dbname=%s user=%s sslmode=verify-full sslrootcert='%s' sslcert='%s/tls.crt' sslkey='%[5]s/tls.key' connect_timeout=60",
		port, targetPostgres, account(i), b.env("SALLYPORT_CA"), home))
	if err != nil {
		return s, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return s, err
	}
	if err := conn.QueryRow(ctx, "select pg_backend_pid()").Scan(&s.process); err != nil {
		return s, errors.Join(err, conn.Close(ctx))
	}
	// From here on the socket itself is read, so that its end is seen and not the driver's opinion.
	raw, err := conn.PgConn().Hijack()
	if err != nil {
		return s, err
	}
	const statement = "select pg_sleep(86400)\x00"
	query := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(statement)))
	if _, err := raw.Conn.Write(append(query, statement...)); err != nil {
		return s, errors.Join(err, raw.Conn.Close())
	}
	var last bytes.Buffer
	closed := make(chan time.Time, 1)
	go func() {
		_, _ = io.Copy(&last, io.LimitReader(raw.Conn, 1<<20)) // that it ends is what is waited for
		closed <- time.Now()
	}()
	s.closed = closed
	s.close = raw.Conn.Close
	s.said = func() error {
		defer raw.Conn.Close()
		if !bytes.Contains(last.Bytes(), []byte("57P01")) {
			return fmt.Errorf("the client was told %q", &last)
		}
		return nil
	}
	s.listed = func() (there bool, err error) {
		err = b.stat.QueryRow(ctx, "select exists (select from pg_stat_activity where pid = $1)", s.process).Scan(&there)
		return there, err
	}
	// It is to run on the server when it is cut.
	return s, wait.Until(ctx, time.Minute, "the statement runs", func() error {
		b.looking.Lock()
		defer b.looking.Unlock()
		var runs bool
		err := b.stat.QueryRow(ctx, "select exists (select from pg_stat_activity where pid = $1 and wait_event = 'PgSleep')", s.process).Scan(&runs)
		if err == nil && !runs {
			err = errors.New("it does not run yet")
		}
		return err
	})
}

func openCommand(ctx context.Context, b *bench, i int) (live, error) {
	return openSSH(ctx, b, i, false)
}

func openTerminal(ctx context.Context, b *bench, i int) (live, error) {
	return openSSH(ctx, b, i, true)
}

// openSSH opens a connection that runs a command without end. As with the stock client, the connection is left once the command's
// channel is closed.
func openSSH(ctx context.Context, b *bench, i int, terminal bool) (s live, err error) {
	s.name = account(i) + "@" + targetSSH
	if s.grant, err = b.grant(ctx, targetSSH, i); err != nil {
		return s, err
	}
	config, address, err := b.sshConfig()
	if err != nil {
		return s, err
	}
	config.User = account(i) + "@" + targetSSH
	conn, err := ssh.Dial("tcp", address, config)
	if err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, conn.Close())
		}
	}()
	session, err := conn.NewSession()
	if err != nil {
		return s, err
	}
	if terminal {
		if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
			return s, err
		}
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return s, err
	}
	said, err := session.StderrPipe()
	if err != nil {
		return s, err
	}
	if err := session.Start("echo $$ $PPID; exec sleep 86400"); err != nil {
		return s, err
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		why, _ := io.ReadAll(io.LimitReader(said, 4<<10)) // it is for the error
		return s, fmt.Errorf("the command did not begin: %w: %s", err, why)
	}
	var command, sshd int
	if _, err := fmt.Sscan(line, &command, &sshd); err != nil {
		return s, fmt.Errorf("the command said %q: %w", line, err)
	}
	s.process = command
	if !terminal && os.Getuid() == 0 {
		s.process = sshd // which passes signals on to users' processes, and not to root's
	}
	var words, more bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(&words, said) }) // the connection's end says all
	reading.Go(func() { _, _ = io.Copy(&more, lines) })
	closed := make(chan time.Time, 1)
	go func() {
		_ = session.Wait() // killed, or without a status
		_ = conn.Close()   // as above
		_ = conn.Wait()
		closed <- time.Now()
	}()
	s.closed = closed
	s.close = func() error {
		_ = syscall.Kill(command, syscall.SIGKILL) // without a terminal it would outlive its connection; else it may be gone
		return conn.Close()
	}
	s.said = func() error {
		if s.process == sshd {
			_ = syscall.Kill(command, syscall.SIGKILL) // as above
		}
		reading.Wait()
		if told := words.String() + more.String(); !strings.Contains(told, "revoked") {
			return fmt.Errorf("the client was told %q", told)
		}
		return nil
	}
	return s, nil
}

// sshConfig reads alice's certificate and what the gateway's host keys are certified by, once.
func (b *bench) sshConfig() (*ssh.ClientConfig, string, error) {
	b.looking.Lock()
	defer b.looking.Unlock()
	if b.ssh == nil {
		home := b.env("SALLYPORT_HOME_ALICE")
		key, err := os.ReadFile(home + "/ssh_key")
		if err != nil {
			return nil, "", err
		}
		signer, err := ssh.ParsePrivateKey(key)
		if err != nil {
			return nil, "", err
		}
		text, err := os.ReadFile(home + "/ssh_key-cert.pub")
		if err != nil {
			return nil, "", err
		}
		public, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			return nil, "", err
		}
		certificate, ok := public.(*ssh.Certificate)
		if !ok {
			return nil, "", errors.New("alice's certificate is none")
		}
		if signer, err = ssh.NewCertSigner(certificate, signer); err != nil {
			return nil, "", err
		}
		known, err := knownhosts.New(home + "/known_hosts")
		if err != nil {
			return nil, "", err
		}
		b.ssh = &ssh.ClientConfig{Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: known, Timeout: time.Minute}
	}
	config := *b.ssh
	return &config, b.sshAddress, nil
}
