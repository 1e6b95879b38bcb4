//go:build unix

package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"sallyport/test/rig"
)

// sshPlaces are some of places: each costs a restart, and TestKillStorm has them all.
var sshPlaces = []string{"", "record-half-written", "record-after-write", ""}

// TestKillStormSSH is property P1 for SSH: every command that the target ran and every change that it made to a file by sftp
// stands in a recording, also after the gateway was killed at any instant. Each command leaves a line of its own in a file
// on the target, each sftp request a directory: that is the target's own log.
func TestKillStormSSH(t *testing.T) {
	for _, level := range []string{"written", "synced"} {
		t.Run(level, func(t *testing.T) {
			s := newSSHStorm(t, rig.Binary(t, ""), "--durability", level, "--no-target-log")
			for round, place := range sshPlaces {
				s.round(round, place)
				if lost := s.lost(); len(lost) > 0 {
					t.Fatalf("round %d (%s): the target did what no recording has: %v", round, describe(place), lost)
				}
			}
			if out := s.rig.As("carol", "verify"); out.Code != 0 {
				t.Errorf("the log is not whole: exit %d\n%s", out.Code, out.Text())
			}
			for name, n := range s.did {
				if n == 0 {
					t.Errorf("the target did nothing by %s", name)
				}
			}
			t.Logf("%d sent; done by the target: %v", s.sent.Load(), s.did)
		})
	}
}

// TestKillStormSSHFindsForwarding runs it on a build that forwards before it records.
func TestKillStormSSHFindsForwarding(t *testing.T) {
	s := newSSHStorm(t, rig.Binary(t, "forwardfirst"), "--no-target-log")
	for round := range 10 {
		s.round(round, "")
		if lost := s.lost(); len(lost) > 0 {
			t.Logf("found in round %d: the target did %d things that no recording has", round, len(lost))
			return
		}
	}
	t.Error("ten rounds found nothing wrong with a gateway that forwards before it records")
}

type sshStorm struct {
	storm
	dir string         // on the target, which is this machine
	did map[string]int // what the target did, by way, of the last comparison
	ssh *ssh.ClientConfig
	to  string
}

func newSSHStorm(t *testing.T, binary string, flags ...string) *sshStorm {
	s := &sshStorm{storm: storm{t: t, rig: rig.Start(t, binary, flags...), answered: map[string]bool{}}}
	s.dir = s.rig.Path("storm")
	if err := os.MkdirAll(filepath.Join(s.dir, "made"), 0o755); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	file, err := os.Open(s.rig.Env["SALLYPORT_SSH_CONFIG"])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); { // the first section is the gateway's own
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if _, known := settings[key]; !known {
			settings[key] = strings.Trim(value, `"`)
		}
	}
	key, err := os.ReadFile(settings["IdentityFile"])
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(settings["CertificateFile"])
	if err != nil {
		t.Fatal(err)
	}
	certificate, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(certificate.(*ssh.Certificate), signer)
	if err != nil {
		t.Fatal(err)
	}
	s.to = net.JoinHostPort("127.0.0.1", settings["Port"])
	s.ssh = &ssh.ClientConfig{
		User: "deploy@web-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(certified)}, Timeout: 10 * time.Second,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	}
	return s
}

// sshWays send numbered things over one connection until it breaks or over is set.
var sshWays = map[string]func(s *sshStorm, c *ssh.Client, over *atomic.Bool, next func() string) error{
	"exec": func(s *sshStorm, c *ssh.Client, over *atomic.Bool, next func() string) error {
		for !over.Load() {
			session, err := c.NewSession()
			if err != nil {
				return err
			}
			err = session.Run("echo " + next() + " >>" + filepath.Join(s.dir, "ran"))
			session.Close()
			if err != nil {
				return err
			}
		}
		return nil
	},
	// Commands that go out without waiting for the one before.
	"parallel": func(s *sshStorm, c *ssh.Client, over *atomic.Bool, next func() string) error {
		for !over.Load() {
			var group sync.WaitGroup
			var failed atomic.Bool
			for range 5 {
				number := next()
				group.Go(func() {
					session, err := c.NewSession()
					if err == nil {
						err = session.Run("echo " + number + " >>" + filepath.Join(s.dir, "ran"))
						session.Close()
					}
					if err != nil {
						failed.Store(true)
					}
				})
			}
			group.Wait()
			if failed.Load() {
				return errors.New("broken")
			}
		}
		return nil
	},
	"sftp": func(s *sshStorm, c *ssh.Client, over *atomic.Bool, next func() string) error {
		files, err := sftp.NewClient(c)
		if err != nil {
			return err
		}
		defer files.Close()
		for !over.Load() {
			var group sync.WaitGroup
			var failed atomic.Bool
			for range 8 { // in one go
				number := next()
				group.Go(func() {
					if files.Mkdir(filepath.Join(s.dir, "made", number)) != nil {
						failed.Store(true)
					}
				})
			}
			group.Wait()
			if failed.Load() {
				return errors.New("broken")
			}
		}
		return nil
	},
}

const sshStatements = 60 // of a round at least, as each command is a process

func (s *sshStorm) round(round int, place string) {
	s.t.Helper()
	s.under(place, sshStatements, func(_ context.Context, over *atomic.Bool) (senders []func()) {
		for name, send := range sshWays {
			count := 0
			senders = append(senders, func() {
				s.connect(send, over, func() string {
					count++
					s.sent.Add(1)
					return fmt.Sprintf("storm-%d-%s-0-%d", round, name, count)
				})
			})
		}
		return senders
	})
}

func (s *sshStorm) connect(send func(*sshStorm, *ssh.Client, *atomic.Bool, func() string) error, over *atomic.Bool, next func() string) {
	c, err := ssh.Dial("tcp", s.to, s.ssh)
	if err != nil {
		time.Sleep(20 * time.Millisecond) // the gateway is being started again
		return
	}
	defer c.Close()
	stop := time.AfterFunc(30*time.Second, func() { c.Close() }) // a killed gateway's connections break by themselves; this bounds the rest
	defer stop.Stop()
	_ = send(s, c, over, next) // it breaks when the gateway is killed
}

// lost are the numbers of what the target did more often than recordings have it.
func (s *sshStorm) lost() []string {
	s.t.Helper()
	did := s.done()
	recorded := s.recordedSSH()
	s.did = map[string]int{"exec": 0, "parallel": 0, "sftp": 0}
	var lost []string
	for number, n := range did {
		s.did[strings.Split(number, "-")[2]] += n
		if recorded[number] < n {
			lost = append(lost, fmt.Sprintf("%s: done %d times, recorded %d times", number, n, recorded[number]))
		}
	}
	slices.Sort(lost)
	return lost
}

// done is what the target did, once what a killed gateway left running there has ended.
func (s *sshStorm) done() map[string]int {
	s.t.Helper()
	look := func() map[string]int {
		counts := map[string]int{}
		text, err := os.ReadFile(filepath.Join(s.dir, "ran"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.t.Fatal(err)
		}
		for _, number := range strings.Fields(string(text)) {
			counts[number]++
		}
		made, err := os.ReadDir(filepath.Join(s.dir, "made"))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, entry := range made {
			counts[entry.Name()]++
		}
		return counts
	}
	last, since := look(), time.Now()
	s.rig.Until(time.Minute, "the target is quiet", func() error {
		if now := look(); len(now) != len(last) {
			last, since = now, time.Now()
		}
		if time.Since(since) < 500*time.Millisecond {
			return errors.New("it still does things")
		}
		return nil
	})
	return last
}

// recordedSSH counts the numbers in the recordings' commands and file operations.
func (s *sshStorm) recordedSSH() map[string]int {
	s.t.Helper()
	out := s.rig.As("carol", "export", "--all", "--format", "jsonl")
	if out.Code != 0 {
		s.t.Fatalf("export: exit %d\n%s", out.Code, out.Stderr)
	}
	counts := map[string]int{}
	for line := range strings.Lines(out.Stdout) {
		var item struct{ Kind, Command, Path string }
		if err := json.Unmarshal([]byte(line), &item); err != nil {
			s.t.Fatalf("export: %v: %s", err, line)
		}
		text := ""
		switch item.Kind {
		case "command":
			text = item.Command
		case "file":
			text = item.Path
		}
		for _, number := range numbered.FindAllString(text, -1) {
			counts[number]++
		}
	}
	return counts
}
