package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// OpenSSH's own tests start sshd themselves, with another configuration for each case. So that they meet the gateway in between,
// this program stands in for sshd. Called for one connection (-i), it carries it to the gateway; called as a daemon, it listens and
// does so for each. Whenever the gateway dials its target "regress", the real sshd is started for that one connection, with the
// configuration that the test named last. Everything else is the real sshd's.
//
// The client stays the stock ssh. A script around it says who it is at the gateway, and which host key that has; the tests' own
// user and host keys prove nothing there.

const realSSHD = "/usr/sbin/sshd"

// calling is how a test called sshd.
type calling struct {
	Args   []string
	Dir    string
	Env    []string
	Daemon bool
}

// shimVariable names the bridge's socket, for the process that stands in for sshd.
const shimVariable = "SALLYPORT_REGRESS_BRIDGE"

// shim is the process that stands in for sshd. It returns its exit status.
func shim(args []string) int {
	var inetd, other bool
	for _, a := range args {
		switch {
		case a == "-i":
			inetd = true
		case a == "-t" || a == "-T" || a == "-V" || a == "-G":
			other = true
		}
	}
	if other {
		cmd := exec.Command(realSSHD, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		_ = cmd.Run() // what it is, the status says
		return max(cmd.ProcessState.ExitCode(), 0)
	}
	dir, err := os.Getwd()
	if err == nil {
		err = carry(calling{Args: args, Dir: dir, Env: os.Environ(), Daemon: !inetd})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "in sshd's place:", err)
		return 255
	}
	return 0
}

// carry tells the bridge how sshd was called, and carries one connection to the gateway unless it is to be a daemon.
func carry(c calling) error {
	bridge, err := net.Dial("unix", os.Getenv(shimVariable))
	if err != nil {
		return err
	}
	defer bridge.Close()
	if err := json.NewEncoder(bridge).Encode(c); err != nil {
		return err
	}
	var answer struct{ Gateway, Error string }
	if err := json.NewDecoder(bridge).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	if c.Daemon {
		return nil
	}
	gateway, err := net.Dial("tcp", answer.Gateway)
	if err != nil {
		return err
	}
	defer gateway.Close()
	go func() {
		_, _ = io.Copy(gateway, os.Stdin)
		_ = gateway.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, gateway)
	return err
}

// bridge is where the gateway finds its target, and where the processes in sshd's place report.
type bridge struct {
	gateway string // its address for clients
	target  net.Listener
	socket  net.Listener
	options []string // of the real sshd, beside the test's: the gateway's login, and the host key it knows

	mu      sync.Mutex
	last    calling
	daemons []func()
}

func newBridge(ctx context.Context, socket, gateway string, options []string) (*bridge, error) {
	b := &bridge{gateway: gateway, options: options}
	port, err := regressPort() // one for all tests, so that the gateway is told once
	if err != nil {
		return nil, err
	}
	if b.target, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		return nil, err
	}
	if b.socket, err = net.Listen("unix", socket); err != nil {
		b.target.Close()
		return nil, err
	}
	go accepting(b.target, func(conn net.Conn) { b.serveTarget(ctx, conn) })
	go accepting(b.socket, func(conn net.Conn) { b.called(ctx, conn) })
	return b, nil
}

func accepting(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

func (b *bridge) close() {
	b.target.Close()
	b.socket.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, stop := range b.daemons {
		stop()
	}
}

var regressPort = sync.OnceValues(freePort)

// called takes a report.
func (b *bridge) called(ctx context.Context, conn net.Conn) {
	var c calling
	if json.NewDecoder(conn).Decode(&c) != nil {
		return
	}
	b.mu.Lock()
	b.last = c
	b.mu.Unlock()
	answer := map[string]string{"Gateway": b.gateway}
	if c.Daemon {
		if err := b.daemon(ctx, c); err != nil {
			answer["Error"] = err.Error()
		}
	}
	_ = json.NewEncoder(conn).Encode(answer)
}

// serveTarget is sshd for one of the gateway's connections.
func (b *bridge) serveTarget(ctx context.Context, conn net.Conn) {
	b.mu.Lock()
	c := b.last
	b.mu.Unlock()
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return
	}
	defer file.Close()
	args := slices.Concat([]string{"-i"}, b.options, slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return a == "-i" || a == "-D" }))
	cmd := exec.CommandContext(ctx, realSSHD, args...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout = c.Dir, c.Env, file, file
	cmd.WaitDelay = time.Second
	conn.Close() // sshd alone holds it now
	if cmd.Start() != nil {
		return
	}
	file.Close()
	_ = cmd.Wait()
}

// daemon listens where the test's sshd would, until the process ends whose id stands in the test's file.
func (b *bridge) daemon(ctx context.Context, c calling) error {
	show := exec.CommandContext(ctx, realSSHD, append([]string{"-T"}, c.Args...)...)
	show.Dir, show.Env = c.Dir, c.Env
	out, err := show.Output()
	if err != nil {
		return fmt.Errorf("sshd -T: %w", err)
	}
	settings := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		settings[name] = value
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", settings["port"]))
	if err != nil {
		return err
	}
	holder := exec.CommandContext(ctx, "sleep", "3600")
	if err := holder.Start(); err != nil {
		l.Close()
		return err
	}
	pidFile := settings["pidfile"]
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(holder.Process.Pid)+"\n"), 0o644); err != nil {
		return errors.Join(err, l.Close(), holder.Process.Kill(), holder.Wait())
	}
	go accepting(l, func(conn net.Conn) {
		gateway, err := net.Dial("tcp", b.gateway)
		if err != nil {
			return
		}
		defer gateway.Close()
		go func() {
			_, _ = io.Copy(gateway, conn)
			_ = gateway.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(conn, gateway)
	})
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = holder.Wait() // a signal ends it
		l.Close()
		os.Remove(pidFile)
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.daemons = append(b.daemons, func() { _ = holder.Process.Kill(); <-over })
	return nil
}

// stage makes the programs that the tests are given on a side: ssh, and sshd where the gateway is in between.
func (s *side) stage(ctx context.Context) (env []string, stop func(), err error) {
	ssh, sshd, stop := "/usr/bin/ssh", realSSHD, func() {}
	if s.through {
		state := os.Getenv("SALLYPORT_STATE")
		if err := os.WriteFile(s.path("known"), []byte("* "+s.hostKey+"\n"), 0o600); err != nil {
			return nil, nil, err
		}
		ssh, sshd = s.path("ssh"), s.path("sshd")
		script := fmt.Sprintf("#!/bin/sh\nexec /usr/bin/ssh -o User=regress@regress -o IdentitiesOnly=yes -o IdentityFile=%s -o CertificateFile=%s -o UserKnownHostsFile=%s \"$@\"\n",
			s.key, s.certificate, s.path("known"))
		if err := os.WriteFile(ssh, []byte(script), 0o755); err != nil {
			return nil, nil, err
		}
		self, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		if err := os.Symlink(self, sshd); err != nil {
			return nil, nil, err
		}
		b, err := newBridge(ctx, s.path("b"), net.JoinHostPort(s.host, s.port), []string{
			"-o", "TrustedUserCAKeys=" + filepath.Join(state, "sshd", "target_ca.pub"),
			"-o", "HostKey=" + filepath.Join(state, "sshd", "host_key"),
		})
		if err != nil {
			return nil, nil, err
		}
		stop = b.close
		if err := allowRegress(ctx, b.target.Addr().String()); err != nil {
			b.close()
			return nil, nil, err
		}
		env = append(env, shimVariable+"="+s.path("b"))
	}
	port, err := freePort()
	if err != nil {
		stop()
		return nil, nil, err
	}
	return append(env, "TEST_SSH_SSH="+ssh, "TEST_SSH_SSHD="+sshd, "TEST_SSH_PORT="+strconv.Itoa(port)), stop, nil
}

// allowRegress has the gateway reach its target "regress" at an address, and gives alice a grant for it.
func allowRegress(ctx context.Context, address string) error {
	file := filepath.Join(os.Getenv("SALLYPORT_STATE"), "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.Contains(string(text), "name: regress\n") {
		return nil
	}
	before, after, found := strings.Cut(string(text), "\ntargets:\n")
	if !found {
		return fmt.Errorf("%s has no targets", file)
	}
	public, err := exec.CommandContext(ctx, "ssh-keygen", "-y", "-f", filepath.Join(os.Getenv("SALLYPORT_STATE"), "sshd", "host_key")).Output()
	if err != nil {
		return fmt.Errorf("ssh-keygen -y: %w", err)
	}
	me, err := exec.CommandContext(ctx, "id", "-un").Output()
	if err != nil {
		return err
	}
	target := fmt.Sprintf("  - name: regress\n    kind: ssh\n    address: %q\n    host_keys: [%q]\n    accounts:\n      - name: regress\n        user: %q\n",
		address, bytes.TrimSpace(public), bytes.TrimSpace(me))
	after = strings.Replace(after, `["everything@web-1"]`, `["everything@web-1", "regress@regress"]`, 1)
	if err := os.WriteFile(file, []byte(before+"\ntargets:\n"+target+after), 0o600); err != nil {
		return err
	}
	return reloadAndRequest(ctx, "regress@regress", "OpenSSH's own tests")
}
