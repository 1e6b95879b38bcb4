package interpret

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"sallyport/recorder/format"
)

func packet(kind byte, body ...[]byte) []byte {
	b := append([]byte{kind}, bytes.Join(body, nil)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
func str(s string) []byte { return append(u32(uint32(len(s))), s...) }
func write(data string) []byte {
	return packet(sftpWrite, u32(7), str("h"), u64(0), str(data))
}

func split(f *Filter, pieces ...[]byte) (said, content, all []byte) {
	for _, p := range pieces {
		f.Split(p,
			func(b []byte) { said = append(said, b...); all = append(all, b...) },
			func(b []byte) { content = append(content, b...); all = append(all, b...) })
	}
	return said, content, all
}

func TestFilterTakesOutContentsOnly(t *testing.T) {
	open := packet(3, u32(1), str("/etc/motd"), u32(26), u32(0))
	closing := packet(4, u32(9), str("h"))
	stream := bytes.Join([][]byte{open, write("secret words"), write(""), write("more"), closing}, nil)
	wantSaid := bytes.Join([][]byte{
		open,
		bytes.TrimSuffix(write("secret words"), []byte("secret words")),
		write(""),
		bytes.TrimSuffix(write("more"), []byte("more")),
		closing,
	}, nil)
	for size := 1; size <= len(stream); size++ {
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		said, content, all := split(NewFilter(true), pieces...)
		if !bytes.Equal(said, wantSaid) || string(content) != "secret wordsmore" || !bytes.Equal(all, stream) {
			t.Fatalf("pieces of %d bytes: said %q, content %q", size, said, content)
		}
	}
}

func TestFilterOfServer(t *testing.T) {
	stream := append(packet(sftpData, u32(7), str("the file")), packet(101, u32(8), u32(1), str("EOF"), str(""))...)
	said, content, _ := split(NewFilter(false), stream)
	if string(content) != "the file" || bytes.Contains(said, []byte("the file")) || !bytes.Contains(said, []byte("EOF")) {
		t.Fatalf("said %q, content %q", said, content)
	}
}

func TestFilterKeepsWhatIsNotSFTP(t *testing.T) {
	for _, stream := range []string{"\x00\x00\x00\x00\x06abc", "\xff\xff\xff\xff\x06abcdefghijklmnopq", "hello, world"} {
		said, content, _ := split(NewFilter(true), []byte(stream))
		if string(said) != stream || len(content) != 0 {
			t.Errorf("%q: said %q, content %q", stream, said, content)
		}
	}
}

// FuzzFilter: nothing is lost or reordered, and where the stream is cut makes no difference, neither to what is content nor to the hashes
// of files.
func FuzzFilter(f *testing.F) {
	f.Add(write("abc"), 3, true)
	f.Add(packet(sftpData, u32(7), str("the file")), 9, false)
	f.Add([]byte("\xff\xff\xff\xff\x06"), 2, true)
	f.Add(sftpClient, 77, true)
	f.Add(sftpServer, 78, false)
	f.Add(append(write("abc"), packet(sftpClose, u32(9), str("h"))...), 20, true)
	f.Add(append(packet(sftpRead, u32(7), str("h"), u64(0), u32(9)), packet(sftpClose, u32(9), str("h"))...), 20, true)
	f.Fuzz(func(t *testing.T, stream []byte, at int, fromClient bool) {
		at = min(max(at, 0), len(stream))
		both := func() (*Filter, func() []format.Bulk) {
			client, server := NewFilters()
			if fromClient {
				return client, client.Whole
			}
			client.Split(packet(sftpRead, u32(7), str("h"), u64(0), u32(9)), func([]byte) {}, func([]byte) {})
			return server, func() []format.Bulk {
				client.Split(packet(sftpClose, u32(9), str("h")), func([]byte) {}, func([]byte) {})
				return client.Whole()
			}
		}
		filter, whole := both()
		said, content, all := split(filter, stream)
		if !bytes.Equal(all, stream) {
			t.Fatalf("split %q into %q", stream, all)
		}
		filter2, whole2 := both()
		said2, content2, _ := split(filter2, stream[:at], stream[at:])
		if !bytes.Equal(said, said2) || !bytes.Equal(content, content2) {
			t.Fatalf("cut at %d: said %q and %q", at, said, said2)
		}
		if a, b := whole(), whole2(); !slices.Equal(a, b) {
			t.Fatalf("cut at %d: files %+v and %+v", at, a, b)
		}
	})
}
