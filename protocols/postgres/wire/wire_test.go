package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// message builds a frame.
func message(t byte, body string) []byte {
	b := []byte{t, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)+4))
	return append(b, body...)
}

func TestWalkerFindsFramesInAnyPieces(t *testing.T) {
	var stream []byte
	for _, m := range [][]byte{
		message('Q', "select 1\x00"), message('S', ""), message('d', string(make([]byte, 300))), message('H', ""), message('X', ""),
	} {
		stream = append(stream, m...)
	}
	for size := 1; size <= len(stream); size++ {
		w := Walker{Limits: &ClientLimits, Hold: 64}
		var types []byte
		var passed []byte
		buf := []byte{}
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			buf, rest = append(buf, rest[:n]...), rest[n:]
			for len(buf) > 0 {
				p, err := w.Next(buf)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Data) == 0 {
					break
				}
				if p.First {
					types = append(types, p.Type)
				}
				if p.Length <= w.Hold && !(p.First && p.Last) {
					t.Fatalf("a frame of %d bytes came in pieces", p.Length)
				}
				passed = append(passed, p.Data...)
				buf = buf[len(p.Data):]
			}
		}
		if string(types) != "QSdHX" || !bytes.Equal(passed, stream) || w.Inside() || len(buf) != 0 {
			t.Fatalf("in pieces of %d: types %q, %d of %d bytes, %d left", size, types, len(passed), len(stream), len(buf))
		}
	}
}

func TestWalkerRefuses(t *testing.T) {
	tests := []struct {
		name string
		head string
	}{
		{"length 3", "Q\x00\x00\x00\x03"},
		{"length 0", "Q\x00\x00\x00\x00"},
		{"length -1", "Q\xff\xff\xff\xff"},
		{"a Sync over the small limit", "S\x00\x00\x30\x00"},
		{"a query over the large limit", "Q\x3f\xff\xff\xff"},
		{"a type that does not exist", "z\x00\x00\x00\x04"},
		{"a password after authentication", "p\x00\x00\x00\x05\x00"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := Walker{Limits: &ClientLimits, Hold: 8192}
			_, err := w.Next([]byte(test.head))
			if _, ok := errors.AsType[*FrameError](err); !ok {
				t.Fatalf("got %v, want a FrameError", err)
			}
		})
	}
	w := Walker{Limits: &ClientLimits, Hold: 8192}
	if p, err := w.Next([]byte("Q\x3f\xff\xff\xfe")); err != nil || p.Length != 1<<30-1 || !p.First || p.Last {
		t.Fatalf("the largest query a server takes: got %+v, %v", p, err)
	}
}

func FuzzWalker(f *testing.F) {
	f.Add(append(message('Q', "select 1\x00"), message('X', "")...), 7)
	f.Add([]byte("d\x00\x00\xff\xffabc"), 2)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if size <= 0 {
			size = 1
		}
		w := Walker{Limits: &ClientLimits, Hold: 16}
		var buf, passed []byte
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			buf, rest = append(buf, rest[:n]...), rest[n:]
			for len(buf) > 0 {
				p, err := w.Next(buf)
				if err != nil {
					return
				}
				if len(p.Data) == 0 {
					if len(buf) > 16 {
						t.Fatalf("%d bytes are held back", len(buf))
					}
					break
				}
				passed, buf = append(passed, p.Data...), buf[len(p.Data):]
			}
		}
		if !bytes.Equal(append(passed, buf...), stream) {
			t.Fatal("bytes were lost, doubled or changed")
		}
	})
}

func BenchmarkWalker(b *testing.B) {
	row := message('D', string(make([]byte, 160)))
	chunk := bytes.Repeat(row, 32<<10/len(row))
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	w := Walker{Limits: &TargetLimits, Hold: 8192}
	for b.Loop() {
		for rest := chunk; len(rest) > 0; {
			p, err := w.Next(rest)
			if err != nil || len(p.Data) == 0 {
				b.Fatal(err)
			}
			rest = rest[len(p.Data):]
		}
	}
}
