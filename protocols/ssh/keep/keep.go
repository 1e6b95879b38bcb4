// Package keep says how the data of a channel are recorded: whole, by length and hash, or as operations on files. A Keeper turns one
// direction of a channel into the events that record it; a Typed follows what is typed on a terminal, to record what it showed of that.
// Nothing here decides whether a byte may pass.
package keep

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync/atomic"

	"sallyport/protocols/ssh/interpret"
	"sallyport/recorder/format"
)

const (
	// Output is how much of a command's output without a terminal is recorded whole, both streams together, unless the
	// target says otherwise. The rest is recorded by length and hash. What a terminal shows is recorded whole, unless the
	// target says how much of it may come while nothing is typed.
	Output = 8 << 20
	// Script is how much of the input of a shell or another interpreter without a terminal is recorded whole, unless the
	// target says otherwise.
	Script = 1 << 20
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

// Keeper turns one direction of a channel's data into the events that record it.
type Keeper struct {
	channel uint32
	kind    format.Type // of what is kept whole
	filter  splitter    // nil: none
	bulk    *bulk
	whole   *atomic.Int64 // what may still be kept whole; nil: nothing
	left    bool          // something was not kept whole
	shown   bool          // on a terminal: the recording says where something is missing
	said    bytes.Buffer
	buf     [2]format.Event // what Events returns
}

// splitter tells the contents of files apart from what is said about them.
type splitter interface {
	Split(chunk []byte, said, content func([]byte))
}

// wholes is a splitter that also knows the hashes of whole files.
type wholes interface{ Whole() []format.Bulk }

// The ways to keep a direction.

// Counts keeps length and hash, or for typed input the length alone.
func Counts(channel uint32, fromClient bool, stream, why string) *Keeper {
	return &Keeper{channel: channel, bulk: newBulk(channel, fromClient, stream, why)}
}

// SFTP keeps everything but the contents of files, which are kept by length and hash, all together and file by file.
func SFTP(channel uint32) (in, out *Keeper) {
	in, out = files(channel, true, nil), files(channel, false, nil)
	in.filter, out.filter = filters(interpret.NewFilters(in.bulk.hash, out.bulk.hash))
	return in, out
}

// SCP is SFTP for the old scp.
func SCP(channel uint32) (in, out *Keeper) {
	in, out = files(channel, true, nil), files(channel, false, nil)
	in.filter, out.filter = filters(interpret.NewSCPFilters(in.bulk.hash, out.bulk.hash))
	return in, out
}

func filters[F splitter](client, server F) (in, out splitter) { return client, server }

func files(channel uint32, fromClient bool, filter splitter) *Keeper {
	k := &Keeper{channel: channel, kind: format.TypeAnswered, filter: filter}
	stream := "stdout"
	if fromClient {
		k.kind, stream = format.TypeSaid, "stdin"
	}
	k.bulk = newBulk(channel, fromClient, stream, interpret.WhyFile)
	return k
}

// Whole keeps the first bytes whole, as many as are left in whole.
func Whole(channel uint32, kind format.Type, stream string, whole *atomic.Int64) *Keeper {
	return &Keeper{channel: channel, kind: kind, bulk: newBulk(channel, false, stream, interpret.WhyLong), whole: whole}
}

// Input keeps the first bytes of what an interpreter is fed, as Whole does.
func Input(channel uint32, whole *atomic.Int64) *Keeper {
	return &Keeper{channel: channel, kind: format.TypeSaid, bulk: newBulk(channel, true, "stdin", interpret.WhyInput), whole: whole}
}

// Shown is Whole for a terminal, whose recording says where something is left out.
func Shown(channel uint32, kind format.Type, stream string, whole *atomic.Int64) *Keeper {
	k := Whole(channel, kind, stream, whole)
	k.shown = true
	return k
}

// All keeps everything.
func All(channel uint32, kind format.Type) *Keeper { return &Keeper{channel: channel, kind: kind} }

// Events are what records data. They are good until the next call, and mostly cost no memory: a key typed is one such call, and
// its echo another.
func (k *Keeper) Events(data []byte) []format.Event {
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

func (k *Keeper) split(events []format.Event, data []byte) []format.Event {
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

// Last are the events at the stream's end: the hash of all of it.
func (k *Keeper) Last() []format.Event {
	if k.bulk == nil || k.bulk.Bytes == 0 || k.bulk.Bytes == k.bulk.hashed || k.bulk.hash == nil ||
		k.whole != nil && !k.left {
		return nil
	}
	return []format.Event{k.bulk.event(true)}
}
