package ssh

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/protocols/ssh/rules"
)

func TestParseAddress(t *testing.T) {
	for user, want := range map[string]address{
		"root@web-1":            {"root", "web-1"},
		"root+web-1":            {"root", "web-1"},
		"a.b@corp.example@db":   {"a.b@corp.example", "db"},
		"a+b+db":                {"a+b", "db"},
		"a+b@db":                {"a+b", "db"},
		"alice":                 {"alice", ""},
		"":                      {"", ""},
		"@web-1":                {"", "web-1"},
		"root@":                 {"root", ""},
		"root@../../etc/passwd": {"root", "../../etc/passwd"},
	} {
		if got := parseAddress(user); got != want {
			t.Errorf("%q: %+v, want %+v", user, got, want)
		}
	}
}

func TestAskedMay(t *testing.T) {
	env := func(name, value string) *xssh.Request {
		return &xssh.Request{Type: "env", Payload: xssh.Marshal(struct{ Name, Value string }{name, value})}
	}
	request := func(kind string) *xssh.Request { return &xssh.Request{Type: kind} }
	for name, test := range map[string]struct {
		before asked
		r      *xssh.Request
		want   string // refused, ignored, or passed
	}{
		"shell":                     {asked{}, request("shell"), "passed"},
		"exec":                      {asked{}, request("exec"), "passed"},
		"second command":            {asked{started: true}, request("exec"), "refused"},
		"terminal after command":    {asked{started: true}, request("pty-req"), "refused"},
		"variable":                  {asked{}, env("LANG", "C"), "passed"},
		"variable that runs things": {asked{}, env("LD_PRELOAD", "/x"), "refused"},
		"malformed variable":        {asked{}, &xssh.Request{Type: "env", Payload: []byte{0, 0, 0, 9, 1}}, "refused"},
		"too much environment":      {asked{environment: rules.MaxEnvironment}, env("LANG", "C"), "refused"},
		"terminal":                  {asked{}, request("pty-req"), "passed"},
		"resize without terminal":   {asked{}, request("window-change"), "ignored"},
		"resize":                    {asked{terminal: true}, request("window-change"), "passed"},
		"signal":                    {asked{}, request("signal"), "passed"},
		"break":                     {asked{}, request("break"), "passed"},
		"X11":                       {asked{}, request("x11-req"), "refused"},
		"agent":                     {asked{}, request("auth-agent-req@openssh.com"), "refused"},
		"unknown":                   {asked{}, request("hello@example.com"), "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			reason, ignore := test.before.may(test.r)
			got := "passed"
			if ignore {
				got = "ignored"
			} else if reason != "" {
				got = "refused"
			}
			if got != test.want {
				t.Errorf("%s (%s), want %s", got, reason, test.want)
			}
		})
	}
}

// drain feeds requests to a queue nobody reads, and then reads it.
func drain(requests []*xssh.Request) (waited []*xssh.Request, floods int) {
	in := make(chan *xssh.Request, len(requests))
	for _, r := range requests {
		in <- r
	}
	close(in)
	q := newQueue()
	q.feed(in, func() { floods++ })
	for {
		r, ok := q.next()
		if !ok {
			return waited, floods
		}
		waited = append(waited, r)
	}
}

func TestQueueMergesAndBounds(t *testing.T) {
	var storm []*xssh.Request
	for i := range 10000 {
		storm = append(storm, &xssh.Request{Type: "window-change", Payload: []byte(fmt.Sprint(i))})
	}
	if waited, floods := drain(storm); len(waited) != 1 || string(waited[0].Payload) != "9999" || floods != 0 {
		t.Errorf("of a storm of changes %d waited, and %d floods", len(waited), floods)
	}
	mixed := []*xssh.Request{storm[0], {Type: "signal"}, storm[1], storm[2]}
	if waited, _ := drain(mixed); len(waited) != 3 || waited[2] != storm[2] {
		t.Errorf("%d waited of changes around a signal", len(waited))
	}
	flood := make([]*xssh.Request, 3*maxQueued)
	for i := range flood {
		flood[i] = &xssh.Request{Type: "signal"}
	}
	if waited, floods := drain(flood); len(waited) != maxQueued || floods != 1 {
		t.Errorf("%d waited of a flood, told %d times", len(waited), floods)
	}
	const size = 60 << 10
	for i := range flood {
		flood[i] = &xssh.Request{Type: "env", Payload: make([]byte, size)}
	}
	if waited, floods := drain(flood); len(waited) != maxQueuedBytes/size || floods != 1 {
		t.Errorf("%d of %d bytes each waited, told %d times", len(waited), size, floods)
	}
}

func TestBannerFindsSSH(t *testing.T) {
	for name, test := range map[string]struct {
		pieces []string
		found  bool
		passed string
	}{
		"an SSH server":       {[]string{"SSH-2.0-x"}, true, ""},
		"byte by byte":        {[]string{"S", "S", "H", "-"}, true, ""},
		"something else":      {[]string{"SSL", "abc"}, false, "SSLabc"},
		"http":                {[]string{"HTTP/1.1"}, false, "HTTP/1.1"},
		"short":               {[]string{"SS"}, false, "SS"},
		"later in the stream": {[]string{"xSSH-"}, false, "xSSH-"},
		"nothing":             {nil, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, passed, found := &banner{}, "", false
			for _, p := range test.pieces {
				pass, f := b.take([]byte(p))
				passed, found = passed+string(pass), found || f
			}
			if !found {
				passed += string(b.rest())
			}
			if found != test.found || passed != test.passed {
				t.Errorf("found %v, passed %q", found, passed)
			}
		})
	}
}

// TestSettleWaitsForOutput: the status goes out when the copiers have had nothing for a while, and not while they have.
func TestSettleWaitsForOutput(t *testing.T) {
	busy, idle := &quiet{}, &quiet{}
	idle.set(func() { idle.waiting = true })
	busy.set(func() { busy.reads = 1 }) // in a write
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		settle([]*quiet{busy, idle}, nil)
	}()
	select {
	case <-settled:
		t.Fatal("settled while output was being written")
	case <-time.After(10 * quietTime):
	}
	busy.set(func() { busy.waiting = true })
	select {
	case <-settled:
	case <-time.After(10 * time.Second):
		t.Fatal("never settled")
	}
}

func TestShownHasNothingThatATerminalObeys(t *testing.T) {
	if got := shown("a\x1b]52;c;x\x07b\u202ec\xff\n"); got != "a?]52;c;x?b?c??" {
		t.Errorf("%q", got)
	}
}

func TestKeyIDIsOneField(t *testing.T) {
	id := loginNote{session: "s-1", grant: "g-1"}
	id.who.Name = "Al ice,\nroot sess=x\x1b"
	if got, want := id.keyID(), "Al_ice__root_sess_x_ sess=s-1 grant=g-1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestWritersStandInOneFile: whoever reviews what can reach a target reads target_write.go and nothing else.
func TestWritersStandInOneFile(t *testing.T) {
	files, err := filepath.Glob("*.go")
	inner, err2 := filepath.Glob("*/*.go")
	if err := errors.Join(err, err2); err != nil || len(files) == 0 || len(inner) == 0 {
		t.Fatal(files, inner, err)
	}
	files = append(files, inner...)
	writer := regexp.MustCompile(`(?i)target(\.Stderr\(\))?\.(Write|SendRequest|CloseWrite|Close|OpenChannel)\(`)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := len(writer.FindAll(text, -1))
		switch {
		case file == "target_write.go":
			found = n
		case strings.HasSuffix(file, "_test.go"):
		case n > 0:
			t.Errorf("%s writes to a target: %q", file, writer.Find(text))
		}
	}
	if found != 7 {
		t.Errorf("target_write.go has %d writers; is this test looking for the right thing?", found)
	}
}
