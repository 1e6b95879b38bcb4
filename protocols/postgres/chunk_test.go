package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"sallyport/protocols/postgres/interpret"
	"sallyport/protocols/postgres/wire"
)

func message(t byte, body string) []byte {
	b := []byte{t, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)+4))
	return append(b, body...)
}

func newClientChunk() *clientChunk {
	return &clientChunk{walker: wire.Walker{Limits: &wire.ClientLimits, Hold: hold}, sum: sha256.New(), whole: keepCopy}
}

// TestClientChunkRecordsWhatPasses holds for chunks of any size: what is recorded raw is what passes, in order, but for COPY
// data beyond what is kept, of which number, length and hash are recorded before it passes.
func TestClientChunkRecordsWhatPasses(t *testing.T) {
	var stream, kept, left []byte
	say := func(m []byte) { stream, kept = append(stream, m...), append(kept, m...) }
	say(message('Q', "copy t from stdin\x00"))
	copied := 0
	for i := range 40 {
		m := message('d', string(bytes.Repeat([]byte{byte(i)}, 3000)))
		if copied+len(m) <= keepCopy {
			copied += len(m)
			say(m)
		} else {
			stream, left = append(stream, m...), append(left, m[5:]...)
		}
	}
	say(message('S', "")) // stands between CopyData and changes nothing
	huge := message('d', string(bytes.Repeat([]byte{'x'}, 200_000)))
	stream, left = append(stream, huge...), append(left, huge[5:]...)
	say(message('c', ""))
	say(message('Q', "select '"+string(bytes.Repeat([]byte{'y'}, 100_000))+"'\x00"))
	say(message('X', ""))
	for _, size := range []int{7, 1000, 8192, 60_000, len(stream)} {
		c := newClientChunk()
		var buf, passed, recorded []byte
		var frames, sum = uint64(0), []byte(nil)
		ready := int64(0)
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			buf, rest = append(buf, rest[:n]...), rest[n:]
			end, err := c.take(buf)
			if err != nil {
				t.Fatal(err)
			}
			ready += c.ready
			for _, e := range c.events {
				switch e.Type {
				case interpret.TypeClient:
					recorded = append(recorded, e.Data...)
				case interpret.TypeClientBulk:
					count, k := binary.Uvarint(e.Data)
					_, l := binary.Uvarint(e.Data[k:])
					frames += count
					sum = bytes.Clone(e.Data[k+l:])
				}
			}
			passed = append(passed, buf[:end]...)
			buf = buf[end:]
		}
		want := sha256.Sum256(left)
		if !bytes.Equal(passed, stream) || !bytes.Equal(recorded, kept) || !bytes.Equal(sum, want[:]) {
			t.Fatalf("in pieces of %d: %d of %d passed, %d of %d recorded, sum right: %v", size, len(passed), len(stream), len(recorded), len(kept), bytes.Equal(sum, want[:]))
		}
		if wantFrames := uint64(40 - copied/3005 + 1); frames != wantFrames || ready != 3 || !c.goodbye {
			t.Fatalf("in pieces of %d: %d frames left out, want %d; %d answers due; goodbye %v", size, frames, wantFrames, ready, c.goodbye)
		}
	}
}

func TestNothingPassesAfterGoodbye(t *testing.T) {
	c := newClientChunk()
	stream := append(message('X', ""), message('Q', "drop table t\x00")...)
	end, err := c.take(stream)
	if err != nil || end != 5 || !c.goodbye {
		t.Fatalf("got %d, %v", end, err)
	}
}

func BenchmarkClientChunk(b *testing.B) {
	var stream []byte
	for _, m := range [][]byte{
		message('B', "\x00stmt\x00\x00\x00\x00\x01\x00\x00\x00\x0242\x00\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', ""),
	} {
		stream = append(stream, m...)
	}
	c := newClientChunk()
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.take(stream); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTargetChunk(b *testing.B) {
	stream := message('T', string(make([]byte, 100)))
	for range 190 {
		stream = append(stream, message('D', string(make([]byte, 160)))...)
	}
	stream = append(append(stream, message('C', "SELECT 190\x00")...), message('Z', "I")...)
	c := targetChunk{walker: wire.Walker{Limits: &wire.TargetLimits, Hold: hold}}
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.take(stream); err != nil {
			b.Fatal(err)
		}
		if len(c.log.Take()) > 256 {
			b.Fatal("rows were recorded")
		}
	}
}

// TestSteadyStateAllocatesNothing keeps the benchmarks' promise.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	said := append(message('B', "\x00stmt\x00\x00\x00\x00\x00\x00\x00"), message('S', "")...)
	up := newClientChunk()
	if n := testing.AllocsPerRun(100, func() { _, _ = up.take(said) }); n != 0 {
		t.Errorf("%v allocations a chunk of the client's", n)
	}
	answered := append(message('D', string(make([]byte, 160))), message('Z', "I")...)
	down := targetChunk{walker: wire.Walker{Limits: &wire.TargetLimits, Hold: hold}}
	if n := testing.AllocsPerRun(100, func() { _, _ = down.take(answered); down.log.Take() }); n != 0 {
		t.Errorf("%v allocations a chunk of the target's", n)
	}
}
