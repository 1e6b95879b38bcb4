package ssh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/protocols/ssh/interpret"
	"sallyport/recorder/format"
)

const (
	// keepOutput is how much of a command's output without a terminal is recorded whole, both streams together, unless the
	// target says otherwise. The rest is recorded by length and hash. What a terminal shows is recorded whole, unless the
	// target says how much of it may come while nothing is typed.
	keepOutput = 8 << 20
	// keepScript is how much of the input of a shell or another interpreter without a terminal is recorded whole, unless the
	// target says otherwise.
	keepScript = 1 << 20
	// hashEvery is how many bytes at least are between two hashes of a stream that comes in small pieces. A hash of a
	// few bytes would give them away.
	hashEvery = 4 << 10
)

// bulk counts and hashes what is recorded by length and hash.
type bulk struct {
	format.Bulk
	channel uint32
	hash    hash.Hash // nil: the length alone
	hashed  int64     // Bytes at the last hash that was recorded
	text    []byte    // of the last event
}

func newBulk(channel uint32, fromClient bool, stream, why string) *bulk {
	b := &bulk{Bulk: format.Bulk{FromClient: fromClient, Stream: stream, Why: why}, channel: channel}
	if why != interpret.WhyTyped {
		b.hash = sha256.New()
	}
	return b
}

func (b *bulk) add(data []byte) {
	b.Bytes += int64(len(data))
	if b.hash != nil {
		b.hash.Write(data)
	}
}

// event is the stream's state so far; last says that it is the final one. It is good until the next call.
func (b *bulk) event(last bool) format.Event {
	b.SHA256 = ""
	if b.hash != nil && (last || b.Bytes-b.hashed >= hashEvery) {
		b.SHA256, b.hashed = hex.EncodeToString(b.hash.Sum(nil)), b.Bytes
	}
	b.text = b.Append(b.text[:0])
	return format.Event{Type: format.TypeBulk, Channel: b.channel, Data: b.text}
}

// keeper turns one direction of a channel's data into the events that record it.
type keeper struct {
	channel uint32
	kind    format.Type // of what is kept whole
	filter  splitter    // nil: none
	bulk    *bulk
	whole   *atomic.Int64 // what may still be kept whole; nil: nothing
	left    bool          // something was not kept whole
	shown   bool          // on a terminal: the recording says where something is missing
	said    bytes.Buffer
	buf     [2]format.Event // what events returns
}

// splitter tells the contents of files apart from what is said about them.
type splitter interface {
	Split(chunk []byte, said, content func([]byte))
}

// wholes is a splitter that also knows the hashes of whole files.
type wholes interface{ Whole() []format.Bulk }

// The ways to keep a direction.

// keepCounts keeps length and hash, or for typed input the length alone.
func keepCounts(channel uint32, fromClient bool, stream, why string) *keeper {
	return &keeper{channel: channel, bulk: newBulk(channel, fromClient, stream, why)}
}

// keepSFTP keeps everything but the contents of files, which are kept by length and hash, all together and file by file.
func keepSFTP(channel uint32) (in, out *keeper) {
	in, out = keepFiles(channel, true, nil), keepFiles(channel, false, nil)
	in.filter, out.filter = filters(interpret.NewFilters(in.bulk.hash, out.bulk.hash))
	return in, out
}

// keepSCP is keepSFTP for the old scp.
func keepSCP(channel uint32) (in, out *keeper) {
	in, out = keepFiles(channel, true, nil), keepFiles(channel, false, nil)
	in.filter, out.filter = filters(interpret.NewSCPFilters(in.bulk.hash, out.bulk.hash))
	return in, out
}

func filters[F splitter](client, server F) (in, out splitter) { return client, server }

func keepFiles(channel uint32, fromClient bool, filter splitter) *keeper {
	k := &keeper{channel: channel, kind: format.TypeAnswered, filter: filter}
	stream := "stdout"
	if fromClient {
		k.kind, stream = format.TypeSaid, "stdin"
	}
	k.bulk = newBulk(channel, fromClient, stream, interpret.WhyFile)
	return k
}

// keepWhole keeps the first bytes whole, as many as are left in whole.
func keepWhole(channel uint32, kind format.Type, stream string, whole *atomic.Int64) *keeper {
	return &keeper{channel: channel, kind: kind, bulk: newBulk(channel, false, stream, interpret.WhyLong), whole: whole}
}

// keepInput keeps the first bytes of what an interpreter is fed, as keepWhole does.
func keepInput(channel uint32, whole *atomic.Int64) *keeper {
	return &keeper{channel: channel, kind: format.TypeSaid, bulk: newBulk(channel, true, "stdin", interpret.WhyInput), whole: whole}
}

// keepShown is keepWhole for a terminal, whose recording says where something is left out.
func keepShown(channel uint32, kind format.Type, stream string, whole *atomic.Int64) *keeper {
	k := keepWhole(channel, kind, stream, whole)
	k.shown = true
	return k
}

// keepAll keeps everything.
func keepAll(channel uint32, kind format.Type) *keeper { return &keeper{channel: channel, kind: kind} }

// events are what records data. They are good until the next call, and mostly cost no memory: a key typed is one such call, and
// its echo another.
func (k *keeper) events(data []byte) []format.Event {
	events := k.buf[:0]
	switch {
	case k.bulk == nil:
		return append(events, format.Event{Type: k.kind, Channel: k.channel, Data: data})
	case k.filter != nil:
		return k.split(events, data)
	case k.whole != nil:
		k.bulk.add(data)
		left := k.whole.Add(-int64(len(data)))
		if left >= 0 {
			return append(events, format.Event{Type: k.kind, Channel: k.channel, Data: data})
		}
		k.left = true
		if first := left+int64(len(data)) >= 0; first && k.shown {
			events = append(events, format.JSON(format.TypeNote, k.channel, format.Note{
				Kind: "left_out", Text: "more output than is recorded whole came at once; until something is typed, only its length and hash are recorded",
			}))
		}
		return append(events, k.bulk.event(false))
	default:
		k.bulk.add(data)
		return append(events, k.bulk.event(false))
	}
}

func (k *keeper) split(events []format.Event, data []byte) []format.Event {
	k.said.Reset()
	before := k.bulk.Bytes
	k.filter.Split(data, func(b []byte) { k.said.Write(b) }, k.bulk.add)
	if w, ok := k.filter.(wholes); ok { // before what ends the files
		for _, file := range w.Whole() {
			events = append(events, format.JSON(format.TypeBulk, k.channel, file))
		}
	}
	if k.said.Len() > 0 {
		events = append(events, format.Event{Type: k.kind, Channel: k.channel, Data: k.said.Bytes()})
	}
	if k.bulk.Bytes != before {
		events = append(events, k.bulk.event(false))
	}
	return events
}

// last are the events at the stream's end: the hash of all of it.
func (k *keeper) last() []format.Event {
	if k.bulk == nil || k.bulk.Bytes == 0 || k.bulk.Bytes == k.bulk.hashed || k.bulk.hash == nil ||
		k.whole != nil && !k.left {
		return nil
	}
	return []format.Event{k.bulk.event(true)}
}

// quiet watches the copying of a target's output, to know when what came before an exit status has gone out: the
// library hands over data and requests apart from each other. When the copier of a stream has been waiting for data for
// a while although the exit status is here, there was none before it. Waiting for the end of the output instead would
// hang on a background process that keeps it open.
type quiet struct {
	mu      sync.Mutex
	reads   uint64 // reads that have returned
	waiting bool   // in a read
	ended   bool
}

// quietTime is how long all streams must have been waiting.
const quietTime = 5 * time.Millisecond

// read runs one read.
func (q *quiet) read(f func([]byte) (int, error), buf []byte) (int, error) {
	q.set(func() { q.waiting = true })
	n, err := f(buf)
	q.set(func() { q.waiting, q.reads = false, q.reads+1 })
	return n, err
}

func (q *quiet) end() { q.set(func() { q.ended = true }) }

func (q *quiet) set(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f()
}

// state is how many reads have returned, and whether nothing is on its way to the client.
func (q *quiet) state() (reads uint64, idle bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reads, q.waiting || q.ended
}

// settle returns when all streams have been idle for a while, or stop is closed.
func settle(streams []*quiet, stop <-chan struct{}) {
	tick := time.NewTicker(quietTime)
	defer tick.Stop()
	for last, was := sum(streams); ; {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		reads, idle := sum(streams)
		if idle && was && reads == last {
			return
		}
		last, was = reads, idle
	}
}

func sum(streams []*quiet) (reads uint64, idle bool) {
	idle = true
	for _, q := range streams {
		n, i := q.state()
		reads += n
		idle = idle && i
	}
	return reads, idle
}

// banner finds an SSH server or client at the beginning of a tunnel's stream. Until it is sure it holds the bytes back.
type banner struct {
	held []byte
	sure bool
}

var sshBanner = []byte("SSH-")

// take returns the bytes that may go on, or found.
func (b *banner) take(data []byte) (pass []byte, found bool) {
	if b.sure {
		return data, false
	}
	b.held = append(b.held, data...)
	if n := min(len(b.held), len(sshBanner)); !bytes.Equal(b.held[:n], sshBanner[:n]) {
		b.sure = true
		return b.held, false
	}
	return nil, len(b.held) >= len(sshBanner)
}

// rest are the bytes held back, at the stream's end.
func (b *banner) rest() []byte {
	if b.sure {
		return nil
	}
	return b.held
}
