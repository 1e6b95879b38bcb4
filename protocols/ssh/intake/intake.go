// Package intake keeps what waits to be read on the channels of SSH connections from costing more than its bytes.
//
// The library keeps each packet of data that nobody has read yet as a piece of its own, and its window counts bytes alone. So
// a peer that fills a window of 2 MiB with packets of one byte costs it a hundred megabytes, on every channel whose other end
// takes nothing. A window can't be held back: whatever is read is credited at once. What can be done is to notice, and to read
// ahead into a buffer of the gateway's own, where a byte is a byte:
//
//	Flow    counts, for one connection, what came in against what was read of its channels
//	Stream  is one stream of one channel; mostly the channel itself is read, without a step between
//	Purse   is what all connections may have waiting beyond what is expected of each
//
// While more waits unread than proper packets could be, the streams that nobody reads are read ahead, up to MaxAhead of each. Then
// the window stops the sender, as it would have without reading ahead, and what it may still send lies in the library at the
// library's price. That is paid out of a purse which all connections share; so a program that writes a byte at a time to a receiver
// that is slow, or stopped for the night, waits and loses nothing. Only when the purse is empty is a channel given up, the one that
// wants more, and nothing else.
package intake

import (
	"errors"
	"sync"
	"sync/atomic"
)

const (
	// WindowSize is what the library lets a peer send on a channel before it is read.
	WindowSize = 2 << 20
	// windowCost is what a full window of proper packets is on the wire; flowSlack is what may wait besides.
	windowCost = WindowSize + 64<<10
	flowSlack  = 1 << 20
	flowStep   = 256 << 10 // bytes on the wire between two looks, at least
	// earlyCost is what may wait of a channel that nothing was read of yet: what a client sends before its command runs.
	earlyCost = 4 << 10
	// MaxAhead is how much is read ahead of one stream, and maxAheadAll of all streams of one connection.
	MaxAhead    = 2 * WindowSize
	maxAheadAll = 8 * WindowSize
	aheadChunk  = 32 << 10
	// maxPacket is how much data a packet has at most; packetCost is what it has besides on the wire at the very least: its
	// length, header, padding and tag.
	maxPacket  = 32 << 10
	packetCost = 34
	// tinyCost is what a window of packets of one byte is on the wire; in the library it is a third more.
	tinyCost = WindowSize * (packetCost + 2)
	// PurseSize is what may wait of all connections beyond what is expected of each, in bytes on the wire: two such windows.
	PurseSize = 2*tinyCost + flowSlack
)

// Purse is what all connections may have waiting beyond what is expected of each.
type Purse struct {
	left  atomic.Int64
	ahead int // what is read ahead of a stream before it is asked for
}

// NewPurse is a purse of so many bytes on the wire (PurseSize), for streams of which so many are read ahead (MaxAhead).
func NewPurse(size int64, ahead int) *Purse {
	p := &Purse{ahead: ahead}
	p.left.Store(size)
	return p
}

// Left is what is still in it.
func (p *Purse) Left() int64 { return p.left.Load() }

func (p *Purse) take(n int64) bool {
	if p.left.Add(-n) >= 0 {
		return true
	}
	p.left.Add(n)
	return false
}

// Flow is one connection's account. What is on the wire and not yet read is estimated from above: what else there is on a
// connection, such as requests, counts as unread until a look finds everybody reading.
type Flow struct {
	purse    *Purse
	received atomic.Int64 // bytes on the wire since the last settling
	taken    atomic.Int64 // the same of what was read, with what packets cost on the wire
	next     atomic.Int64 // received, at which to look again
	ahead    atomic.Int64 // bytes that are read ahead now

	mu       sync.Mutex
	streams  map[*Stream]struct{}
	borrowed int64 // from the purse
}

// NewFlow is the account of a connection of which nothing has been read yet.
func NewFlow(p *Purse) *Flow {
	f := &Flow{purse: p, streams: map[*Stream]struct{}{}}
	f.next.Store(flowSlack)
	return f
}

// Came is told of each read from the wire, by the one goroutine that reads there. It does not wait.
func (f *Flow) Came(n int) {
	if f.received.Add(int64(n)) >= f.next.Load() {
		f.look()
	}
}

// took is told of each read from a channel: the bytes, and what their packets must at least have had besides. Where small ones
// came together in one read it is too little, so that nobody can hide a flood behind what is read of other channels.
func (f *Flow) took(n int) {
	packets := max(1, (n+maxPacket-1)/maxPacket)
	f.taken.Add(int64(n + packets*packetCost))
}

// look has the streams that nobody reads read ahead, when more waits than there should.
func (f *Flow) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	received := f.received.Load()
	waiting, allowed := received-f.taken.Load(), flowSlack+f.borrowed
	var stuck []*Stream
	for i := range f.streams {
		if i.reading() {
			continue
		}
		stuck = append(stuck, i)
		if i.beside == nil || i.beside.reading() { // they have one window together
			allowed += i.proper()
		}
	}
	if waiting > 0 && len(stuck) > 0 && waiting <= allowed {
		f.next.Store(received + max(allowed-waiting, flowStep))
		return
	}
	if waiting > allowed {
		var full []*Stream
		for _, i := range stuck {
			if !i.readAhead() {
				full = append(full, i)
			}
		}
		if len(full) > 0 && f.borrow(waiting-allowed+flowStep, int64(len(full))*tinyCost) {
			f.next.Store(received + flowStep)
			return
		}
		for _, i := range full {
			i.giveUp()
		}
	}
	f.settle()
}

// borrow reports whether so much more may wait. Beyond most, what the windows that are full can cost, it does not wait but was read
// in fewer reads than packets.
func (f *Flow) borrow(more, most int64) bool {
	if n := min(more, most-f.borrowed); n > 0 {
		if !f.purse.take(n) {
			return false
		}
		f.borrowed += n
		more -= n
	}
	f.taken.Add(more)
	return true
}

// settle begins a new count: nothing waits any more, or it is being read.
func (f *Flow) settle() {
	f.received.Store(0)
	f.taken.Store(0)
	f.next.Store(flowSlack)
	f.purse.left.Add(f.borrowed)
	f.borrowed = 0
}

func (f *Flow) add(i *Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams[i] = struct{}{}
}

// Remove says that a stream is not read any more. What was read ahead of it is forgotten.
func (f *Flow) Remove(i *Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.streams, i)
	if len(f.streams) == 0 { // nobody is waited for; a connection that ends comes here as well
		f.purse.left.Add(f.borrowed)
		f.borrowed = 0
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop()
}

// Stream reads one stream of a channel. Read is for one goroutine.
type Stream struct {
	flow   *Flow
	read   func([]byte) (int, error)
	flood  func()      // called once, in a goroutine of its own, when it is given up
	beside *Stream     // the other stream of its channel, with which it shares a window; nil: it has one of its own
	begun  atomic.Bool // it was read at least once

	mu      sync.Mutex
	changed *sync.Cond
	inside  bool // somebody is in read
	waiting bool // Read waits for what is read ahead
	pumping bool // a goroutine reads ahead, and nobody else reads
	pumps   int  // how many times one has been started
	quota   int  // how much more it may
	chunks  [][]byte
	held    int   // bytes in chunks
	err     error // after what is in chunks
}

// ErrFlooded is what reading a stream that was given up ends with.
var ErrFlooded = errors.New("too much came that nobody takes")

// New is a stream of a channel on the flow's connection, until Flow.Remove. read reads it; flood is called once, in a goroutine of its own, when
// it is given up: more came than is kept of what nobody takes.
func New(f *Flow, read func([]byte) (int, error), flood func()) *Stream {
	i := &Stream{flow: f, read: read, flood: flood}
	i.changed = sync.NewCond(&i.mu)
	f.add(i)
	return i
}

// Shares says that it has its window together with another stream.
func (i *Stream) Shares(other *Stream) {
	i.flow.mu.Lock()
	defer i.flow.mu.Unlock()
	i.beside = other
}

// Read implements io.Reader. After a flood it gives what was read ahead before, and then ErrFlooded.
func (i *Stream) Read(p []byte) (int, error) {
	i.begun.Store(true)
	i.mu.Lock()
	for i.pumping && i.inside && i.held == 0 && i.err == nil {
		i.waiting = true
		i.changed.Wait()
	}
	i.waiting = false
	if i.held > 0 {
		defer i.mu.Unlock()
		return i.takeAhead(p), nil
	}
	if i.err != nil {
		defer i.mu.Unlock()
		return 0, i.err
	}
	i.pumping = false // the goroutine is not reading, so it ends
	i.changed.Broadcast()
	i.inside = true
	i.mu.Unlock()
	n, err := i.read(p)
	i.flow.took(n)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.inside, i.err = false, err
	return n, err
}

func (i *Stream) takeAhead(p []byte) (n int) {
	for n < len(p) && len(i.chunks) > 0 {
		k := copy(p[n:], i.chunks[0])
		n += k
		if i.chunks[0] = i.chunks[0][k:]; len(i.chunks[0]) == 0 {
			i.chunks = i.chunks[1:]
		}
	}
	i.held -= n
	i.flow.ahead.Add(-int64(n))
	if i.held == 0 {
		i.flow.next.Store(0) // what was borrowed can be given back
	}
	return n
}

// reading says that somebody takes what comes, or that nothing does.
func (i *Stream) reading() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.inside || i.err != nil
}

// proper is what may wait of it on the wire in proper packets.
func (i *Stream) proper() int64 {
	if !i.begun.Load() {
		return earlyCost
	}
	return windowCost
}

// readAhead reads ahead what now waits and what comes then, up to another window, or reports false when it has read so much ahead
// already that it must wait. It does not wait itself.
func (i *Stream) readAhead() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.inside || i.err != nil {
		return true
	}
	if i.held >= i.flow.purse.ahead || i.flow.ahead.Load() >= maxAheadAll {
		return false
	}
	i.pumpOn()
	return true
}

// giveUp has what still comes read, so that the library does not keep it, and goes nowhere with it.
func (i *Stream) giveUp() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.inside || i.err != nil {
		return
	}
	i.err = ErrFlooded
	go i.flood()
	i.pumpOn()
}

// pumpOn lets the goroutine that reads ahead read another window; i.mu is held.
func (i *Stream) pumpOn() {
	i.quota = WindowSize
	if i.pumping {
		i.changed.Broadcast()
		return
	}
	i.pumping = true
	i.pumps++
	go i.pump(i.pumps)
}

// pump reads ahead until Read goes on by itself, or another pump was started after that.
func (i *Stream) pump(number int) {
	buf := make([]byte, aheadChunk)
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.pumping && i.pumps == number {
		flooded := errors.Is(i.err, ErrFlooded)
		if i.quota <= 0 && !flooded {
			i.changed.Wait()
			continue
		}
		i.inside = true
		i.mu.Unlock()
		n, err := i.read(buf)
		i.flow.took(n)
		i.mu.Lock()
		i.inside = false
		if !flooded {
			i.keep(buf[:n])
			i.quota -= n
			i.err = err
		}
		if err != nil || i.waiting {
			i.pumping = false
		}
		i.changed.Broadcast()
	}
}

func (i *Stream) keep(data []byte) {
	i.held += len(data)
	i.flow.ahead.Add(int64(len(data)))
	for len(data) > 0 {
		last := len(i.chunks) - 1
		if last < 0 || len(i.chunks[last]) == cap(i.chunks[last]) {
			i.chunks = append(i.chunks, make([]byte, 0, aheadChunk))
			last++
		}
		chunk := i.chunks[last]
		n := copy(chunk[len(chunk):cap(chunk)], data)
		i.chunks[last], data = chunk[:len(chunk)+n], data[n:]
	}
}

// drop forgets what was read ahead; nothing more is kept.
func (i *Stream) drop() {
	i.flow.ahead.Add(-int64(i.held))
	i.chunks, i.held = nil, 0
	if i.err == nil {
		i.err = ErrFlooded
	}
}
