package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// forwards is what passes where a role allows it: everything that the account "everything" may, which everything adds to
// the rig.
var forwards = []scenario{
	{name: "forward/local", run: forward("-L", func(s *side, port int, to string) string { return fmt.Sprintf("127.0.0.1:%d:%s", port, to) }, ping)},
	{name: "forward/remote", run: forward("-R", func(s *side, port int, to string) string { return fmt.Sprintf("127.0.0.1:%d:%s", port, to) }, ping)},
	{name: "forward/dynamic", run: forward("-D", func(s *side, port int, to string) string { return fmt.Sprintf("127.0.0.1:%d", port) }, socks)},
	{name: "forward/local-nobody-there", run: forward("-L", func(s *side, port int, to string) string { return fmt.Sprintf("127.0.0.1:%d:127.0.0.1:1", port) }, ping)},
	{name: "forward/stdio", run: func(ctx context.Context, s *side) (string, error) {
		to, stop, err := echoServer("127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer stop()
		h, err := s.asEverything(ctx, "through standard input and output\n", "-W", to, "web-1")
		return h.String(), err
	}},
	{name: "forward/socket", run: func(ctx context.Context, s *side) (string, error) {
		l, err := net.Listen("unix", s.path("there"))
		if err != nil {
			return "", err
		}
		defer l.Close()
		go echoAll(l)
		return s.whileForwarding(ctx, []string{"-L", s.path("here") + ":" + s.path("there")}, func() (string, error) { return ping("unix", s.path("here"), "") })
	}},
	{name: "forward/editor", run: editor},
	{name: "forward/agent", run: func(ctx context.Context, s *side) (string, error) {
		cmd := s.command(ctx, "bash", "-c", `eval "$(ssh-agent -s)" >/dev/null; trap 'kill $SSH_AGENT_PID' EXIT; ssh-keygen -q -t ed25519 -N "" -C "in the agent" -f key && ssh-add -q key
ssh -A -F "$SIDE_CONFIG" $EVERYTHING web-1 'ssh-add -l | cut -d" " -f1,3-; echo data >d; ssh-keygen -Y sign -q -n x -f '"$SIDE_WORK"'/key.pub '"$SIDE_WORK"'/key.pub && echo signed'`)
		cmd.Env = append(cmd.Env, "EVERYTHING="+strings.Join(s.everything(), " "))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}},
}

// everything are ssh's flags for the account that may forward.
func (s *side) everything() []string { return s.as("everything") }

// as are ssh's flags for an account of the gateway's.
func (s *side) as(account string) []string {
	switch s.name {
	case "jump":
		return []string{"-l", account}
	case "address":
		return []string{"-l", account + "@web-1"}
	}
	return nil
}

func (s *side) asEverything(ctx context.Context, stdin string, args ...string) (heard, error) {
	return s.ssh(ctx, stdin, append(s.everything(), args...)...)
}

// whileForwarding runs ssh -N with flags, does something as soon as it can, and ends it.
func (s *side) whileForwarding(ctx context.Context, flags []string, f func() (string, error)) (string, error) {
	args := append([]string{"-F", s.config, "-N", "-o", "ExitOnForwardFailure=yes"}, s.everything()...)
	cmd := s.command(ctx, "ssh", append(append(args, flags...), "web-1")...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var out string
	err := errors.New("not tried")
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if out, err = f(); err == nil || !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	for over := false; !over; { // a signal just before ssh begins to wait is lost on OpenSSH 9.2
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		select {
		case <-ended:
			over = true
		case <-time.After(200 * time.Millisecond):
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w; ssh said %s", err, said.String())
	}
	return out, nil
}

func forward(flag string, place func(*side, int, string) string, try func(network, address, to string) (string, error)) func(context.Context, *side) (string, error) {
	return func(ctx context.Context, s *side) (string, error) {
		to, stop, err := echoServer("127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer stop()
		port, err := freePort()
		if err != nil {
			return "", err
		}
		return s.whileForwarding(ctx, []string{flag, place(s, port, to)}, func() (string, error) {
			return try("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), to)
		})
	}
}

// ping says something of some size, ends its side, and hears it again.
func ping(network, address, _ string) (string, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return "", err
	}
	return say(conn)
}

func say(conn net.Conn) (string, error) {
	defer conn.Close()
	said := strings.Repeat("to be echoed ", 100000)
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, said)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(conn)
	<-wrote // where nobody is there, it fails at some time
	return fmt.Sprintf("%d bytes came back, the same: %v, %v\n", len(got), string(got) == said, err == nil), nil
}

// socks is ping through a SOCKS 5 proxy (RFC 1928).
func socks(network, address, to string) (string, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return "", err
	}
	request := append([]byte{5, 1, 0, 5, 1, 0, 1}, net.ParseIP(host).To4()...)
	if _, err := conn.Write(append(request, byte(n>>8), byte(n))); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(conn, make([]byte, 2+10)); err != nil {
		return "", err
	}
	return say(conn)
}

func echoServer(at string) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return "", nil, err
	}
	go echoAll(l)
	return l.Addr().String(), func() { l.Close() }, nil
}

func echoAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// allowEverything gives the rig an account that may do all that a role can allow and one for an editor, and alice grants for them.
func allowEverything(ctx context.Context) error {
	state := os.Getenv("SALLYPORT_STATE")
	file := filepath.Join(state, "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), "name: everything") {
		before, after, found := strings.Cut(string(text), "\npolicies:\n")
		if !found || !strings.Contains(before, "kind: ssh") {
			return fmt.Errorf("%s does not look as this program knows it", file)
		}
		at := strings.LastIndex(before, "      - name: ")
		_, user, found := strings.Cut(before[at:], "user: ")
		if !found {
			return fmt.Errorf("%s: the last account has no user", file)
		}
		user, _, _ = strings.Cut(user, "\n")
		changed := before + "\n      - name: everything\n        user: " + user + "\n      - name: editor\n        user: " + user + `
roles:
  - name: editor
    accounts: ["editor@web-1"]
    limits:
      ssh: {forward: ["127.0.0.1:*"]}
  - name: everything
    accounts: ["everything@web-1"]
    limits:
      ssh: {agent: true, remote_forward: true, unix_sockets: true, dynamic_forward: true}
policies:
  - name: everything
    groups: [engineers]
    roles: [everything, editor]
    max_duration: 12h
    approve: {auto: true}
` + after
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			return err
		}
	}
	if err := reloadAndRequest(ctx, "everything@web-1", "everything"); err != nil {
		return err
	}
	return reloadAndRequest(ctx, "editor@web-1", "editor")
}

// reloadAndRequest has the gateway read its configuration anew until it knows an account at last, and asks for it as alice. A
// reason of its own tells whose it is.
func reloadAndRequest(ctx context.Context, account, reason string) error {
	pid, err := os.ReadFile(os.Getenv("SALLYPORT_PID_FILE"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		return err
	}
	if err := syscall.Kill(n, syscall.SIGHUP); err != nil {
		return err
	}
	var out []byte
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		request := exec.CommandContext(ctx, os.Getenv("SALLYPORT_BIN"), "request", account, "--duration", "6h", "--reason", "conformance: "+reason)
		request.Env = append(os.Environ(), "SALLYPORT_HOME="+os.Getenv("SALLYPORT_HOME_ALICE"))
		if out, err = request.CombinedOutput(); err == nil || strings.Contains(string(out), "already") {
			return nil
		}
	}
	return fmt.Errorf("alice gets no grant for %s: %w: %s", account, err, out)
}
