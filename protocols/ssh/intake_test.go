package ssh

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"sallyport/protocols/ssh/intake"
)

// corked is a connection whose writes are put together while it is corked, as many tiny packets would cost a system call each.
type corked struct {
	net.Conn
	on  atomic.Bool
	mu  sync.Mutex
	buf []byte
}

func (c *corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	if c.on.Load() && len(c.buf) < 64<<10 {
		return len(p), nil
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return len(p), err
}

func (c *corked) uncork() error {
	c.on.Store(false)
	_, err := c.Write(nil)
	return err
}

// corkedClient is a connection of the library's client over a corked one.
func (r *rig) corkedClient(user string) (*xssh.Client, *corked) {
	r.t.Helper()
	conn := &corked{Conn: must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))))(r.t)}
	c, channels, requests, err := xssh.NewClientConn(conn, gatewayHost, &xssh.ClientConfig{
		User: user, Auth: []xssh.AuthMethod{xssh.PublicKeys(r.signer)}, HostKeyCallback: xssh.FixedHostKey(r.authn.HostKey().PublicKey()),
		HostKeyAlgorithms: []string{r.authn.HostKey().PublicKey().Type()},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	client := xssh.NewClient(c, channels, requests)
	r.t.Cleanup(func() { client.Close() })
	return client, conn
}

// start starts a command without reading anything of it.
func start(t *testing.T, c *xssh.Client, command string) (channel xssh.Channel, closed <-chan struct{}) {
	t.Helper()
	channel, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { xssh.DiscardRequests(requests); close(ended) }()
	if ok, err := channel.SendRequest("exec", true, xssh.Marshal(struct{ C string }{command})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	return channel, ended
}

// goesOn shows that the connection serves other channels, and by that that all that was sent before has been taken in.
func goesOn(t *testing.T, c *xssh.Client) {
	t.Helper()
	if out, err := must(c.NewSession())(t).Output("still here"); err != nil || string(out) != "still here\n" {
		t.Fatalf("%q, %v", out, err)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// tiny is how many packets of one byte a test sends, and tinyHeap what they may cost: the library alone would take 48 bytes for
// each.
const (
	tiny     = 200_000
	tinyHeap = 7 << 20
	// stuckAfter is what a receiver that does not read and the gateway before it take, and a little that then waits.
	stuckAfter = intake.WindowSize + 2*largestBuffer
)

// TestTinyPackets: a client sends a byte a packet to a target that reads nothing. What waits costs little more than its bytes, no
// other channel waits, and nothing is lost when the target reads again.
func TestTinyPackets(t *testing.T) {
	r := newRig(t)
	r.oddTarget(t)
	c, conn := r.corkedClient("me@odd")
	deaf, _ := start(t, c, "deaf")
	go io.Copy(io.Discard, deaf.Stderr())
	sent := fill(t, deaf)
	goesOn(t, c)
	before := heap()
	conn.on.Store(true)
	for i := range tiny {
		if _, err := deaf.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.uncork(); err != nil {
		t.Fatal(err)
	}
	goesOn(t, c)
	costs(t, before, tinyHeap)
	go func() {
		deaf.SendRequest("signal", false, xssh.Marshal(struct{ S string }{"USR1"})) // hear
		deaf.CloseWrite()
	}()
	got := must(io.ReadAll(deaf))(t)
	want := strconv.Itoa(sent+tiny) + " " + strconv.Itoa(tiny/256*255*128+sumTo(tiny%256)) + "\n"
	if string(got) != want {
		t.Errorf("the target had %q, not %q: how much it had and the sum of it", got, want)
	}
}

// costs fails unless the tiny packets come to cost no more than that, once the gateway has taken them from the library, which it may
// still be about.
func costs(t *testing.T, before, most int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d bytes that nobody reads cost no more than %d", tiny, most), func() bool { return heap()-before <= most })
}

func sumTo(n int) int { return n * (n - 1) / 2 }

// fill sends zeroes until nothing more is taken for the moment.
func fill(t *testing.T, channel io.Writer) (sent int) {
	t.Helper()
	piece := make([]byte, 32<<10)
	for range stuckAfter / len(piece) {
		n, err := channel.Write(piece)
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	return sent
}

// TestTinyPacketsOfATarget is the same for what a target sends and the client does not read.
func TestTinyPacketsOfATarget(t *testing.T) {
	r := newRig(t)
	dripped := r.oddTarget(t)
	c := r.client("me@odd")
	before := heap()
	drip, _ := start(t, c, "drip")
	select {
	case <-dripped: // is asked of nobody through the gateway: channels that are opened meanwhile may hold something as well
	case <-time.After(deadline):
		t.Fatal("the target can't send all of it")
	}
	goesOn(t, c)
	// The client of this test, which is the same program, keeps a window full of what it does not read, and the gateway some.
	costs(t, before, tinyHeap+2*intake.WindowSize)
	got := must(io.ReadAll(drip))(t)
	if zeroes := bytes.Count(got, []byte{0}); zeroes != len(got)-tiny || zeroes < intake.WindowSize {
		t.Errorf("of %d bytes the client had %d", tiny, len(got)-zeroes)
	}
}

// small is the most for which a packet is no larger than for one byte: 52 bytes.
const small = 18

// littleAhead is how much is read ahead of a stream in tests that send more than that.
const littleAhead = 256 << 10

// flushing has what is corked sent on every now and then, so that a sender who is stopped has sent what he could.
func (c *corked) flushing(t *testing.T) {
	c.on.Store(true)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.on.Store(false)
				_, err := c.Write(nil)
				if c.on.Store(true); err != nil {
					return
				}
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
}

// TestSmallPacketsWait: a program that writes a few bytes at a time, on and on, to one that reads nothing for now is stopped by the
// window, and loses neither its channel nor a byte. What it costs is paid out of the purse, and goes back there.
func TestSmallPacketsWait(t *testing.T) {
	r := newRig(t, func(o *Options) { o.purse = intake.NewPurse(intake.PurseSize, littleAhead) })
	r.oddTarget(t)
	c, conn := r.corkedClient("me@odd")
	deaf, closed := start(t, c, "deaf")
	start(t, c, "deaf") // stays, so that the connection still has somebody to wait for
	go io.Copy(io.Discard, deaf.Stderr())
	sent := fill(t, deaf)
	conn.flushing(t)
	borrowed := func() bool { return r.handler.purse.Left() < intake.PurseSize }
	pieces := 0
	wrote := make(chan error, 1)
	go func() {
		piece := bytes.Repeat([]byte{1}, small)
		for end := time.Now().Add(deadline); !borrowed() && time.Now().Before(end); pieces++ {
			if _, err := deaf.Write(piece); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- deaf.CloseWrite()
	}()
	eventually(t, "so much waits that it is paid for", borrowed)
	goesOn(t, c)
	select {
	case <-closed:
		t.Fatal("the channel is lost")
	default:
	}
	go deaf.SendRequest("signal", false, xssh.Marshal(struct{ S string }{"USR1"})) // hear
	got := must(io.ReadAll(deaf))(t)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintln(sent+pieces*small, pieces*small); string(got) != want {
		t.Errorf("the target had %q, not %q: how much it had and the sum of it", got, want)
	}
	goesOn(t, c)
	eventually(t, "it is given back", func() bool { return !borrowed() })
}

// TestSmallPacketsWithoutEnd: when the purse is empty, who goes on sending what nobody takes loses the channel, is told, and nothing
// else happens; what the target had is not ended as if it were whole.
func TestSmallPacketsWithoutEnd(t *testing.T) {
	r := newRig(t, func(o *Options) { o.purse = intake.NewPurse(0, littleAhead) })
	r.oddTarget(t)
	c, conn := r.corkedClient("me@odd")
	late := time.AfterFunc(deadline, func() { c.Close() }) // who is stopped instead writes no more
	defer late.Stop()
	deaf, closed := start(t, c, "deaf")
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(deaf.Stderr())
		said <- string(text)
	}()
	go io.Copy(io.Discard, deaf)
	fill(t, deaf)
	conn.on.Store(true)
	var err error
	piece := make([]byte, small)
	for n := 0; n < 4*intake.MaxAhead && err == nil; n += len(piece) {
		_, err = deaf.Write(piece)
	}
	if err == nil {
		t.Fatal("all was taken")
	}
	if err := conn.uncork(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(deadline):
		t.Fatal("the channel stays open")
	}
	if text := <-said; !strings.Contains(text, "more than the target takes") {
		t.Errorf("the client was told %q", text)
	}
	goesOn(t, c)
	if out, err := must(c.NewSession())(t).Output("ended"); err != nil || string(out) != "false\n" {
		t.Errorf("the target was told of an end: %q, %v", out, err)
	}
}
