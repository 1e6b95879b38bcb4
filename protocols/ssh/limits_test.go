package ssh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport/configs"
	"sallyport/protocols/ssh/sshtest"
	"sallyport/recorder"
)

// role adds an account of web-1 that has these limits, and gives alice a grant for it.
func (r *rig) role(account string, limits configs.SSHLimits) string {
	r.t.Helper()
	return r.roleAt(account, "web-1", limits)
}

// roleAt is role on a target.
func (r *rig) roleAt(account, target string, limits configs.SSHLimits) string {
	r.t.Helper()
	at := slices.IndexFunc(r.config.Targets, func(t configs.Target) bool { return t.Name == target })
	r.config.Targets[at].Accounts = append(r.config.Targets[at].Accounts, configs.Account{Name: account, User: r.account})
	r.config.Roles = append(r.config.Roles, configs.Role{
		Name: account, Accounts: []string{account + "@" + target}, Limits: configs.RoleLimits{SSH: limits},
	})
	policy := r.config.Policies[0]
	policy.Name, policy.Roles, policy.Accounts = account, []string{account}, nil
	r.config.Policies = append([]configs.Policy{policy}, r.config.Policies...)
	if err := r.grants.Reload(r.t.Context(), r.config); err != nil {
		r.t.Fatal(err)
	}
	r.grant(account, target)
	return account + "@" + target
}

func TestRoleSaysWhatRuns(t *testing.T) {
	r := newRig(t)
	off := false
	on := true
	restart := r.role("restart", configs.SSHLimits{Commands: []string{"echo restarted", "tty; true"}})
	watch := r.role("watch", configs.SSHLimits{Commands: []string{"tty; true"}, Terminal: &on})
	plain := r.role("plain", configs.SSHLimits{Terminal: &off})
	files := r.role("files", configs.SSHLimits{Shell: &off, Exec: &off})
	shell := r.role("noshell", configs.SSHLimits{Shell: &off, SFTP: &off, SCP: &off})
	for name, test := range map[string]struct {
		user, command, out, errs string
		status                   int
	}{
		"the command":           {restart, "echo restarted", "restarted\n", "", 0},
		"another command":       {restart, "id", "", "allows not this command", 1},
		"a shell":               {restart, "", "", "allows nothing but certain commands", 1},
		"no command for files":  {files, "id", "", "allows no commands", 1},
		"no shell":              {shell, "", "", "allows no shell", 1},
		"a command":             {shell, "echo yes", "yes\n", "", 0},
		"the command with more": {restart, "echo restarted # ", "", "allows not this command", 1},
		"no scp":                {shell, "scp -f /etc/hostname", "", "allows no scp", 1},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"-T", test.user + "@gw"}
			if test.command != "" {
				args = append(args, test.command)
			}
			out, errs, status := r.ssh("", args...)
			if out != test.out || status != test.status || !strings.Contains(errs, test.errs) {
				t.Errorf("%q, %q, status %d", out, errs, status)
			}
		})
	}
	// A terminal, asked for on top of a command that may run, is refused in words, and the command does not run.
	for _, test := range []struct {
		args   []string
		shown  string
		status int
	}{
		{[]string{"-t", restart + "@gw", "tty; true"}, "sallyport: restart@web-1 allows no terminal\r\n", 1},
		{[]string{"-t", watch + "@gw", "tty; true"}, "/dev/pts/", 0},
		{[]string{plain + "@gw"}, "sallyport: plain@web-1 allows no terminal\r\n", 1},
	} {
		term := r.terminal(t, test.args...)
		term.expect(test.shown)
		if status := term.status(); status != test.status || strings.Contains(term.shown(), "not a tty") {
			t.Errorf("%s: status %d, %q", test.args, status, term.shown())
		}
	}
	if out, errs, status := r.ssh("tty\n", "-T", plain+"@gw"); !strings.Contains(out, "not a tty") {
		t.Errorf("without a terminal: %q, %q, status %d", out, errs, status)
	}
	name := r.write("copied", "some text")
	scp := func(args ...string) (string, int) {
		_, errs, status := run(t, r.command("scp", args...), "")
		return errs, status
	}
	for _, flag := range []string{"-O", "-s"} {
		if errs, status := scp(flag, name, "scp://"+strings.ReplaceAll(files, "@", "%40")+"@gw/"+filepath.Join(r.dir, "there"+flag)); status != 0 {
			t.Errorf("scp %s by a role that may: %s", flag, errs)
		}
		if errs, status := scp(flag, name, "scp://"+strings.ReplaceAll(shell, "@", "%40")+"@gw/"+filepath.Join(r.dir, "nowhere")); status == 0 || !strings.Contains(errs, "allows no") {
			t.Errorf("scp %s by a role that may not: status %d, %s", flag, status, errs)
		}
	}
}

// TestRoleSaysWhatGoesWithASession: how many sessions a connection carries, and which variables pass.
func TestRoleSaysWhatGoesWithASession(t *testing.T) {
	r := newRig(t)
	off := false
	c := r.client(r.role("once", configs.SSHLimits{Multiplex: &off}))
	run := func(c *xssh.Client) error {
		s, err := c.NewSession()
		if err != nil {
			return err
		}
		_, err = s.Output("true")
		return err
	}
	if err := run(c); err != nil {
		t.Fatal(err)
	}
	var refused *xssh.OpenChannelError
	if err := run(c); !errors.As(err, &refused) || refused.Reason != xssh.Prohibited || !strings.Contains(refused.Message, "allows one session a connection") {
		t.Errorf("another on the same connection: %v", err)
	}
	if err := run(r.client("once@web-1")); err != nil {
		t.Errorf("on another connection: %v", err)
	}
	env := r.client(r.role("env", configs.SSHLimits{Environment: []string{"APP_ENV"}}))
	s := must(env.NewSession())(t)
	if err := s.Setenv("APP_ENV", "test"); err != nil {
		t.Error(err)
	}
	if err := s.Setenv("APP_OTHER", "test"); err == nil {
		t.Error("a variable that the role does not name is passed on")
	}
	if out, err := s.Output("echo $APP_ENV,$APP_OTHER"); err != nil || string(out) != "test,\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestRoleIsNarrowedUnderWay: what a configuration takes away is gone from sessions that are open.
func TestRoleIsNarrowedUnderWay(t *testing.T) {
	r := newRig(t)
	user := r.role("narrow", configs.SSHLimits{})
	c := r.client(user)
	if _, err := must(c.NewSession())(t).Output("true"); err != nil {
		t.Fatal(err)
	}
	off := false
	r.config.Roles[0].Limits.SSH.Exec = &off
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	var exit *xssh.ExitError
	if out, err := must(c.NewSession())(t).Output("echo still"); !errors.As(err, &exit) || exit.ExitStatus() != 1 || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
}

// TestNoCommandLeft: commands of which a configuration leaves none are no licence to forward, or to run nothing at all.
func TestNoCommandLeft(t *testing.T) {
	r := newRig(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	echo(t, l)
	user := r.role("left", configs.SSHLimits{Commands: []string{"true"}})
	accounts := r.config.Targets[0].Accounts
	accounts[len(accounts)-1].Forwarding = true
	r.config.Roles[0].Limits.SSH.Commands = []string{"id"}
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	c := r.client(user)
	for _, line := range []string{"true", "id", ""} {
		var exit *xssh.ExitError
		if out, err := must(c.NewSession())(t).Output(line); !errors.As(err, &exit) || exit.ExitStatus() != 1 || len(out) > 0 {
			t.Errorf("%q: %q, %v", line, out, err)
		}
	}
	if conn, err := c.Dial("tcp", l.Addr().String()); err == nil {
		conn.Close()
		t.Error("it forwards")
	}
}

// TestNoTunnelToOtherTargets: what another target gets is recorded and needs a grant for it, so no tunnel leads there, however
// its address is written.
func TestNoTunnelToOtherTargets(t *testing.T) {
	r := newRig(t)
	got := make(chan struct{}, 100)
	address := sshtest.Listen(t, func(net.Conn) { got <- struct{}{} })
	r.config.Targets[3].Address = address
	_, port := must2(net.SplitHostPort(address))(t)
	user := r.role("all", configs.SSHLimits{DynamicForward: true, Forward: []string{"*:*"}})
	c := r.client(user)
	for _, host := range []string{"127.0.0.1", "localhost", "LOCALHOST.", "0.0.0.0", "::1", "::ffff:127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.01", "127.0.0.1.",
		"*", "", "::1%lo", "127.0.0.1 ", "127.0.0.1\x00.example", "localhost..", "\uff11\uff12\uff17.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:0:0:1"} {
		conn, err := c.Dial("tcp", net.JoinHostPort(host, port))
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
			t.Errorf("%s: a tunnel to a target: %v", host, err)
		}
	}
	if len(got) > 0 {
		t.Errorf("%d connections reached a target without a grant", len(got))
	}
	// Whatever name or port leads to an SSH server, nothing of SSH passes: neither what a server says first nor what a client does.
	silent := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer silent.Close()
	heard := make(chan []byte, 1)
	go func() {
		conn, err := silent.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		heard <- all
	}()
	conn := must(c.Dial("tcp", silent.Addr().String()))(t)
	for _, b := range []byte("SSH-2.0-client\r\n") {
		if _, err := conn.Write([]byte{b}); err != nil {
			break
		}
	}
	if all := <-heard; len(all) > 0 {
		t.Errorf("a server heard %q", all)
	}
	conn.Close()
}

// TestTunnelsSpeakNoSSH: a connection that is forwarded, from the client or to it, is cut when one of its ends speaks SSH, in however small
// pieces, and the other has heard nothing of it.
func TestTunnelsSpeakNoSSH(t *testing.T) {
	r := newRig(t)
	c := r.client(r.role("all", configs.SSHLimits{DynamicForward: true, RemoteForward: true}))
	heard := make(chan string)
	hear := func(conn net.Conn, err error) {
		if err != nil {
			heard <- err.Error()
			return
		}
		all, _ := io.ReadAll(conn) // it is cut
		conn.Close()
		heard <- string(all)
	}
	speak := func(conn net.Conn, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, piece := range []string{"S", "SH", "-2.0-client\r\n"} {
			_, _ = conn.Write([]byte(piece)) // it is cut
		}
		select {
		case got := <-heard:
			if got != "" {
				t.Errorf("the other end hears %q", got)
			}
		case <-time.After(deadline):
			t.Fatal("the tunnel goes on")
		}
	}
	at := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer at.Close()
	go func() { hear(at.Accept()) }()
	speak(c.Dial("tcp", at.Addr().String()))
	remote := must(c.Listen("tcp", "127.0.0.1:0"))(t)
	go func() { hear(remote.Accept()) }()
	speak(net.Dial("tcp", remote.Addr().String()))
	c.Close()
	notes := 0
	for _, item := range r.items(r.ended().ID) {
		if item.Kind == recorder.ItemNote && strings.Contains(item.Text, "go around the recording") {
			notes++
		}
	}
	if notes != 2 {
		t.Errorf("%d notes", notes)
	}
}

// echo answers every connection with what it says.
func echo(t *testing.T, l net.Listener) {
	t.Cleanup(func() { l.Close() })
	sshtest.Accept(l, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
}

func pingPong(conn net.Conn, err error) error {
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "ping" {
		return fmt.Errorf("%q: %w", got, err)
	}
	return nil
}

func TestRoleSaysWhatIsForwarded(t *testing.T) {
	r := newRig(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	echo(t, l)
	socket := filepath.Join(r.dir, "socket")
	echo(t, must(net.Listen("unix", socket))(t))
	nothing := r.role("nothing", configs.SSHLimits{})
	named := r.role("named", configs.SSHLimits{Forward: []string{l.Addr().String(), "*:22"}})
	all := r.role("all", configs.SSHLimits{DynamicForward: true, RemoteForward: true, UnixSockets: true})
	commands := r.role("commands", configs.SSHLimits{Commands: []string{"true"}, DynamicForward: true, RemoteForward: true, UnixSockets: true, Forward: []string{"*:*"}})

	other := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	echo(t, other)
	ownSSHD := fmt.Sprintf("127.0.0.1:%d", r.sshd.port)
	for _, test := range []struct {
		user, network, address string
		want                   bool
	}{
		{nothing, "tcp", l.Addr().String(), false},
		{nothing, "unix", socket, false},
		{named, "tcp", l.Addr().String(), true},
		{named, "tcp", other.Addr().String(), false},
		{named, "tcp", ownSSHD, false},
		{named, "tcp", "localhost:22", false},
		{named, "unix", socket, false},
		{all, "tcp", other.Addr().String(), true},
		{all, "tcp", ownSSHD, false},
		{all, "unix", socket, true},
		{commands, "tcp", l.Addr().String(), false},
		{commands, "unix", socket, false},
	} {
		conn, err := r.client(test.user).Dial(test.network, test.address)
		if err := pingPong(conn, err); (err == nil) != test.want {
			t.Errorf("%s to %s %s: %v", test.user, test.network, test.address, err)
		}
	}
	for _, user := range []string{nothing, named, commands} {
		if l, err := r.client(user).Listen("tcp", "127.0.0.1:0"); err == nil {
			l.Close()
			t.Errorf("%s may have the target listen", user)
		}
		if l, err := r.client(user).ListenUnix(filepath.Join(r.dir, "s")); err == nil {
			l.Close()
			t.Errorf("%s may have the target listen at a socket", user)
		}
	}
	c := r.client(all)
	remote := must(c.Listen("tcp", "127.0.0.1:0"))(t)
	if again, err := c.Listen("tcp", remote.Addr().String()); err == nil { // and the one that is there goes on
		again.Close()
		t.Error("the target listens twice at one place")
	}
	go func() {
		conn, err := remote.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	if err := pingPong(net.Dial("tcp", remote.Addr().String())); err != nil {
		t.Errorf("back through the gateway: %v", err)
	}
	if err := remote.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the target listens no more", func() bool {
		conn, err := net.Dial("tcp", remote.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	path := filepath.Join(r.dir, "remote-socket")
	at := must(c.ListenUnix(path))(t)
	go func() {
		conn, err := at.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	if err := pingPong(net.Dial("unix", path)); err != nil {
		t.Errorf("back through a socket: %v", err)
	}
	c.Close()
	info := r.ended()
	var opens, counted int
	for _, item := range r.items(info.ID) {
		if item.Kind == recorder.ItemOther && strings.HasPrefix(item.Command, "target opens forwarded-") {
			opens++
		}
		if item.Kind == recorder.ItemBulk && item.Bytes == 4 && (item.Fields["port"] != "" || item.Fields["path"] != "") {
			counted++
		}
	}
	if opens != 2 || counted != 4 {
		t.Errorf("recorded: %d opens, %d counts with a destination", opens, counted)
	}
}

func TestAgentIsForwardedWhereTheRoleSays(t *testing.T) {
	r := newRig(t)
	off := r.role("noagent", configs.SSHLimits{})
	on := true
	allowed := r.role("agent", configs.SSHLimits{Agent: &on})
	commands := r.role("agentcommands", configs.SSHLimits{Agent: &on, Commands: []string{"ssh-add -l"}})
	for user, want := range map[string]bool{off: false, allowed: true, commands: false} {
		c := r.client(user)
		keyring := agent.NewKeyring()
		if err := keyring.Add(agent.AddedKey{PrivateKey: newPrivate(t), Comment: "a key of alice's"}); err != nil {
			t.Fatal(err)
		}
		if err := agent.ForwardToAgent(c, keyring); err != nil {
			t.Fatal(err)
		}
		s := must(c.NewSession())(t)
		if err := agent.RequestAgentForwarding(s); (err == nil) != want {
			t.Errorf("%s: %v", user, err)
		}
		out, err := s.CombinedOutput("ssh-add -l")
		if got := strings.Contains(string(out), "a key of alice's"); got != want {
			t.Errorf("%s: %q, %v", user, out, err)
		}
	}
}
