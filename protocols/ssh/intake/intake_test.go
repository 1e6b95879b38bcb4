package intake

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"sallyport/protocols/ssh/sshtest"
)

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
	f, p := NewFlow(NewPurse(PurseSize, MaxAhead)), newPackets()
	flooded := make(chan struct{})
	i := New(f, p.Read, func() { close(flooded) })
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
	sshtest.Eventually(t, "it is read ahead", func() bool { return p.left() == 0 })
	p.put([]byte("two"))
	sshtest.Eventually(t, "so is what comes later", func() bool { return p.left() == 0 })
	read("one two")
	read("") // nothing is held
	next := make(chan string)
	go func() {
		b := make([]byte, 10)
		n, _ := i.Read(b)
		next <- string(b[:n])
	}()
	sshtest.Eventually(t, "it waits", func() bool {
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
	for range MaxAhead / WindowSize {
		i.readAhead()
		p.put(make([]byte, WindowSize))
		sshtest.Eventually(t, "a window is read ahead", func() bool { return p.left() < aheadChunk && !i.reading() })
	}
	select {
	case <-flooded:
		t.Fatal("it is no flood yet")
	default:
	}
	if held := f.ahead.Load(); held < MaxAhead || held > MaxAhead+2*aheadChunk {
		t.Errorf("%d bytes are read ahead", held)
	}
	if i.readAhead() {
		t.Error("more is read ahead than may be")
	}
	i.giveUp()
	<-flooded
	p.put(make([]byte, WindowSize))
	sshtest.Eventually(t, "what comes then is read all the same", func() bool { return p.left() == 0 })
	n, err := io.Copy(io.Discard, i)
	if !errors.Is(err, ErrFlooded) || n < MaxAhead || n > MaxAhead+2*aheadChunk {
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
	noticed := func(f *Flow, i *Stream) (came int64) {
		for pumping := false; !pumping; came += 1 << 10 {
			if came > 1<<30 {
				t.Fatal("it is never noticed")
			}
			f.Came(1 << 10)
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
	stream := func(f *Flow, read bool) *Stream {
		p := newPackets()
		i := New(f, p.Read, func() {})
		ends = append(ends, p.end)
		if read {
			p.put([]byte("first"))
			if _, err := i.Read(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		return i
	}
	const maxChannels = 64
	const most = flowSlack + windowCost + flowStep
	f := NewFlow(NewPurse(PurseSize, MaxAhead))
	if n := noticed(f, stream(f, true)); n < WindowSize || n > most {
		t.Errorf("alone: %d", n)
	}
	f = NewFlow(NewPurse(PurseSize, MaxAhead))
	flooded := stream(f, true)
	for range maxChannels {
		stream(f, false)
	}
	if n := noticed(f, flooded); n < WindowSize || n > most+maxChannels*earlyCost {
		t.Errorf("beside channels on which nothing runs: %d", n)
	}
	f = NewFlow(NewPurse(PurseSize, MaxAhead))
	flooded = stream(f, true)
	stream(f, true).Shares(flooded)
	if n := noticed(f, flooded); n < WindowSize || n > most {
		t.Errorf("with the channel's other stream: %d", n)
	}
}
