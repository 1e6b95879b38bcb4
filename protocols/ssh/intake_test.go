package ssh

import (
	"bytes"
	"errors"
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
	stuckAfter = windowSize + 2*largestBuffer
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
	costs(t, before, tinyHeap+2*windowSize)
	got := must(io.ReadAll(drip))(t)
	if zeroes := bytes.Count(got, []byte{0}); zeroes != len(got)-tiny || zeroes < windowSize {
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
	r := newRig(t)
	r.oddTarget(t)
	r.handler.purse.ahead = littleAhead
	c, conn := r.corkedClient("me@odd")
	deaf, closed := start(t, c, "deaf")
	start(t, c, "deaf") // stays, so that the connection still has somebody to wait for
	go io.Copy(io.Discard, deaf.Stderr())
	sent := fill(t, deaf)
	conn.flushing(t)
	borrowed := func() bool { return r.handler.purse.left.Load() < purseSize }
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
	r := newRig(t)
	r.oddTarget(t)
	r.handler.purse.ahead = littleAhead
	r.handler.purse.left.Store(0)
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
	for n := 0; n < 4*maxAhead && err == nil; n += len(piece) {
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

// packets is a channel's stream for an intake: what is put in comes out.
type packets struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     bytes.Buffer
	ended   bool
}

func newPackets() *packets {
	p := &packets{}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *packets) put(data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buf.Write(data)
	p.changed.Broadcast()
}

func (p *packets) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.changed.Broadcast()
}

func (p *packets) left() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Len()
}

func (p *packets) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.Len() == 0 && !p.ended {
		p.changed.Wait()
	}
	if p.buf.Len() == 0 {
		return 0, io.EOF
	}
	return p.buf.Read(b)
}

// TestIntake: what is read ahead comes first and in order, reading goes back to the channel itself when nothing is left, and of a
// flood nothing comes after a gap.
func TestIntake(t *testing.T) {
	f, p := newFlow(newPurse()), newPackets()
	flooded := make(chan struct{})
	i := newIntake(f, p.Read, func() { close(flooded) })
	read := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(i, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v; not %q", got, err, want)
		}
	}
	p.put([]byte("direct"))
	read("direct")
	p.put([]byte("one "))
	i.readAhead()
	eventually(t, "it is read ahead", func() bool { return p.left() == 0 })
	p.put([]byte("two"))
	eventually(t, "so is what comes later", func() bool { return p.left() == 0 })
	read("one two")
	read("") // nothing is held
	next := make(chan string)
	go func() {
		b := make([]byte, 10)
		n, _ := i.Read(b)
		next <- string(b[:n])
	}()
	eventually(t, "it waits", func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.waiting
	})
	p.put([]byte("three"))
	if got := <-next; got != "three" {
		t.Fatalf("%q", got)
	}
	if i.mu.Lock(); i.pumping {
		t.Error("it still reads ahead although somebody reads")
	}
	i.mu.Unlock()

	// A flood: window after window.
	for range maxAhead / windowSize {
		i.readAhead()
		p.put(make([]byte, windowSize))
		eventually(t, "a window is read ahead", func() bool { return p.left() < aheadChunk && !i.reading() })
	}
	select {
	case <-flooded:
		t.Fatal("it is no flood yet")
	default:
	}
	if held := f.ahead.Load(); held < maxAhead || held > maxAhead+2*aheadChunk {
		t.Errorf("%d bytes are read ahead", held)
	}
	if i.readAhead() {
		t.Error("more is read ahead than may be")
	}
	i.giveUp()
	<-flooded
	p.put(make([]byte, windowSize))
	eventually(t, "what comes then is read all the same", func() bool { return p.left() == 0 })
	n, err := io.Copy(io.Discard, i)
	if !errors.Is(err, errFlooded) || n < maxAhead || n > maxAhead+2*aheadChunk {
		t.Errorf("%d bytes, %v", n, err)
	}
	if held := f.ahead.Load(); held != 0 {
		t.Errorf("%d bytes are still accounted for", held)
	}
	p.end()
}

// TestFlowExpectsWhatCanBe: how much may wait depends on what the channels can hold of proper packets: a window for each that was read
// and is not now, next to nothing for those of which nothing was read, and one window for both streams of a channel. So channels that are
// opened before or during a flood don't hide it.
func TestFlowExpectsWhatCanBe(t *testing.T) {
	// noticed is how much comes, of which nobody reads anything, until a stream is read ahead.
	noticed := func(f *flow, i *intake) (came int64) {
		for pumping := false; !pumping; came += 1 << 10 {
			if came > 1<<30 {
				t.Fatal("it is never noticed")
			}
			f.came(1 << 10)
			i.mu.Lock()
			pumping = i.pumping
			i.mu.Unlock()
		}
		return came
	}
	ends := []func(){}
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	stream := func(f *flow, read bool) *intake {
		p := newPackets()
		i := newIntake(f, p.Read, func() {})
		ends = append(ends, p.end)
		if read {
			p.put([]byte("first"))
			if _, err := i.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		return i
	}
	const most = flowSlack + windowCost + flowStep
	f := newFlow(newPurse())
	if n := noticed(f, stream(f, true)); n < windowSize || n > most {
		t.Errorf("alone: %d", n)
	}
	f = newFlow(newPurse())
	flooded := stream(f, true)
	for range maxChannels {
		stream(f, false)
	}
	if n := noticed(f, flooded); n < windowSize || n > most+maxChannels*earlyCost {
		t.Errorf("beside channels on which nothing runs: %d", n)
	}
	f = newFlow(newPurse())
	flooded = stream(f, true)
	stream(f, true).shares(flooded)
	if n := noticed(f, flooded); n < windowSize || n > most {
		t.Errorf("with the channel's other stream: %d", n)
	}
}
