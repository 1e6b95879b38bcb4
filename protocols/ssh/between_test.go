package ssh

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/configs"
)

// What is between a client and its server, which the gateway is, and does not go through it.

// TestNoMoreSessions: a client that said so gets no more, and its connection ends, as with sshd.
func TestNoMoreSessions(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	c := r.client("me@web-1")
	first := must(c.NewSession())(t)
	if ok, _, err := c.SendRequest("no-more-sessions@openssh.com", true, nil); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if out, err := first.Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("the one that was there: %q, %v", out, err)
	}
	if s, err := c.NewSession(); err == nil {
		s.Close()
		t.Error("there are more sessions")
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case <-ended:
	case <-time.After(deadline):
		t.Error("the connection goes on")
	}
}

// TestServersAnnouncements: the target's keys are not the gateway's, and are not announced as such; and whether it lives each side is
// told by the gateway, also while the other is stuck.
func TestServersAnnouncements(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	conn := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))))(t)
	client, channels, requests, err := xssh.NewClientConn(conn, "", &xssh.ClientConfig{
		User: "me@web-1", Auth: []xssh.AuthMethod{xssh.PublicKeys(r.signer)}, HostKeyCallback: xssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var mu sync.Mutex
	var announced []string
	over := make(chan struct{})
	go func() {
		defer close(over)
		for q := range requests {
			mu.Lock()
			announced = append(announced, q.Type)
			mu.Unlock()
			_ = q.Reply(false, nil)
		}
	}()
	none := make(chan *xssh.Request)
	close(none)
	c := xssh.NewClient(client, channels, none)
	if out, err := must(c.NewSession())(t).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Fatalf("%q, %v", out, err)
	}
	if ok, _, err := c.SendRequest("hostkeys-prove-00@openssh.com", true, nil); ok || err != nil {
		t.Errorf("the proof of a key: %v, %v", ok, err)
	}
	client.Close()
	<-over
	if len(announced) > 0 {
		t.Errorf("the client heard of %q", announced)
	}

	r.oddTarget(t)
	odd := r.client("me@odd")
	stuck := must(odd.NewSession())(t)
	go func() { _ = stuck.Start("stuck") }()
	for range 3 {
		if ok, _, err := odd.SendRequest("keepalive@openssh.com", true, nil); !ok || err != nil {
			t.Errorf("is it there: %v, %v", ok, err)
		}
	}
	if out, err := must(odd.NewSession())(t).Output("alive"); err != nil || string(out) != "answered answered\n" {
		t.Errorf("the target asked whether the client is there: %q, %v", out, err)
	}
}

// TestEarlyData: what a client says before its command is known to run reaches the command, all of it and in order, also where nothing
// but the end of it comes after.
func TestEarlyData(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	for _, wanted := range []bool{false, true} {
		for range 3 {
			c := r.client("me@web-1") // the first channel of a connection waits for the target to be dialled
			channel, requests, err := c.OpenChannel("session", nil)
			if err != nil {
				t.Fatal(err)
			}
			go xssh.DiscardRequests(requests)
			var asked sync.WaitGroup
			exec := func() {
				if ok, err := channel.SendRequest("exec", wanted, xssh.Marshal(struct{ C string }{"cat"})); ok != wanted || err != nil {
					t.Error(ok, err)
				}
			}
			if wanted { // whose answer it does not wait for; which of both is first is open
				asked.Go(exec)
			} else {
				exec()
			}
			asked.Go(func() {
				_, err := channel.Write(data)
				if err := errors.Join(err, channel.CloseWrite()); err != nil {
					t.Error(err)
				}
			})
			got, err := io.ReadAll(channel)
			asked.Wait()
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d of %d bytes came back, %v", len(got), len(data), err)
			}
			c.Close()
		}
	}
}

// TestHostKeysAsClientsKnowThem: by the authority, or by the plain key, which the certificate is for as well; never by anything else,
// and never for another name.
func TestHostKeysAsClientsKnowThem(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	plain, authority, stranger := line(r.authn.HostKey().PublicKey()), line(r.authn.HostAuthority()), line(newSigner(t).PublicKey())
	for name, test := range map[string]struct {
		known string
		args  []string
		ok    bool
	}{
		"the authority, for the gateway alone": {"@cert-authority " + gatewayHost + " " + authority, []string{"me@web-1@gw"}, true},
		"the plain key":                        {gatewayHost + " " + plain, []string{"me@web-1@gw"}, true},
		"the plain key, both hops":             {gatewayHost + ",web-1 " + plain, []string{"me@web-1"}, true},
		"the key as another name's":            {"other " + plain, []string{"me@web-1@gw"}, false},
		"another authority":                    {"@cert-authority * " + stranger, []string{"me@web-1@gw"}, false},
		"another key":                          {gatewayHost + " " + stranger, []string{"me@web-1@gw"}, false},
		"another target's name":                {"@cert-authority * " + authority, []string{"-o", "HostKeyAlias=web-2", "me@web-1"}, false},
		"nothing":                              {"", []string{"me@web-1@gw"}, false},
	} {
		file := r.write("known-"+strings.ReplaceAll(name, " ", "-"), test.known+"\n")
		config := strings.ReplaceAll(string(must(os.ReadFile(filepath.Join(r.dir, "config")))(t)), filepath.Join(r.dir, "known_hosts"), file)
		r.write("config-known", config)
		cmd := r.command("ssh", append(test.args, "echo here")...)
		cmd.Args[2] = filepath.Join(r.dir, "config-known")
		out, errs, status := run(t, cmd, "")
		if ok := status == 0 && out == "here\n" && errs == ""; ok != test.ok {
			t.Errorf("%s: %q, %q, status %d", name, out, errs, status)
		}
	}
}

// TestAnswersThatNeverCome: a target that never answers, be it a channel, a command or a request about the connection, holds up that
// one alone, and not for ever; what it opens too late leads nowhere.
func TestAnswersThatNeverCome(t *testing.T) {
	r := newRig(t, func(o *Options) { o.AnswerTimeout = 3 * time.Second })
	r.oddTarget(t)
	c := r.client("me@odd")
	if err := must(c.NewSession())(t).Run("mute"); err != nil {
		t.Fatal(err)
	}
	channel, command, listen := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		_, _, err := c.OpenChannel("session", nil)
		channel <- err
	}()
	eventually(t, "the target holds a channel", r.held.Load) // until then another could be the one that it holds
	stuck := must(c.NewSession())(t)
	go func() { command <- stuck.Start("stuck") }()
	silent := r.client(r.roleAt("listens", "odd", configs.SSHLimits{RemoteForward: true}))
	if err := must(silent.NewSession())(t).Run("silent"); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := silent.Listen("tcp", "127.0.0.1:1")
		listen <- err
	}()
	if out, err := must(c.NewSession())(t).Output("meanwhile"); err != nil || string(out) != "meanwhile\n" {
		t.Errorf("%q, %v", out, err)
	}
	for what, answer := range map[string]<-chan error{"the channel": channel, "the command": command, "the place to listen at": listen} {
		select {
		case err := <-answer:
			var refused *xssh.OpenChannelError
			if err == nil || what == "the channel" && (!errors.As(err, &refused) || refused.Reason != xssh.ConnectionFailed) {
				t.Errorf("%s: it was told %v", what, err)
			}
		case <-time.After(deadline):
			t.Fatalf("%s: it waits for ever", what)
		}
	}
	if out, err := must(c.NewSession())(t).Output("afterwards"); err != nil || string(out) != "afterwards\n" {
		t.Errorf("%q, %v", out, err)
	}
}
