package interpret

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// TestFilesAreHashedWhole: "c" is what the client sends, "s" what the server does, in this order and cut at any place.
func TestFilesAreHashedWhole(t *testing.T) {
	open := func(name string) []byte { return packet(sftpOpen, u32(1), str(name), u32(26), u32(0)) }
	write := func(id uint32, handle string, at uint64, data string) []byte {
		return packet(sftpWrite, u32(id), str(handle), u64(at), str(data))
	}
	get := func(id uint32, handle string, at uint64) []byte {
		return packet(sftpRead, u32(id), str(handle), u64(at), u32(100))
	}
	data := func(id uint32, data string) []byte { return packet(sftpData, u32(id), str(data)) }
	status := func(id, code uint32) []byte { return packet(sftpStatus, u32(id), u32(code), str(""), str("")) }
	closing := func(handle string) []byte { return packet(sftpClose, u32(9), str(handle)) }
	sum := func(s string) string {
		h := sha256.Sum256([]byte(s))
		return hex.EncodeToString(h[:])
	}
	const c, s = true, false
	type step struct {
		client bool
		bytes  []byte
	}
	for name, test := range map[string]struct {
		steps []step
		want  string
	}{
		"written": {[]step{{c, open("a")}, {c, write(2, "h", 0, "some ")}, {c, write(3, "h", 5, "words")}, {c, closing("h")}}, "up 68 10 " + sum("some words")},
		"two at once": {[]step{{c, write(2, "h", 0, "a")}, {c, write(3, "i", 0, "b")}, {c, write(4, "h", 1, "c")}, {c, closing("i")}, {c, closing("h")}},
			"up 69 1 " + sum("b") + "; up 68 2 " + sum("ac")},
		"written out of order": {[]step{{c, write(2, "h", 5, "words")}, {c, write(3, "h", 0, "some ")}, {c, closing("h")}}, "up 68 10 "},
		"gone on with":         {[]step{{c, write(2, "h", 100, "words")}, {c, closing("h")}}, "up 68 5 "},
		"written twice":        {[]step{{c, write(2, "h", 0, "a")}, {c, write(2, "h", 0, "b")}, {c, closing("h")}}, "up 68 2 "},
		"read":                 {[]step{{c, get(2, "h", 0)}, {c, get(3, "h", 4)}, {s, data(2, "read")}, {s, data(3, "here")}, {c, get(4, "h", 8)}, {s, status(4, 1)}, {c, closing("h")}}, "down 68 8 " + sum("readhere")},
		"read, answers anyhow": {[]step{{c, get(2, "h", 0)}, {c, get(3, "h", 4)}, {s, data(3, "here")}, {s, data(2, "read")}, {c, closing("h")}}, "down 68 8 "},
		"read, a short answer": {[]step{{c, get(2, "h", 0)}, {c, get(3, "h", 4)}, {s, data(2, "re")}, {s, data(3, "here")}, {c, closing("h")}}, "down 68 6 "},
		"an answer to nothing": {[]step{{s, data(2, "read")}, {c, get(2, "h", 0)}, {c, closing("h")}}, "down 68 0 " + sum("")},
		"both":                 {[]step{{c, get(2, "h", 0)}, {s, data(2, "old")}, {c, write(3, "h", 0, "new")}, {c, closing("h")}}, "up 68 3 " + sum("new") + "; down 68 3 " + sum("old")},
		"a handle again":       {[]step{{c, write(2, "h", 0, "a")}, {c, closing("h")}, {c, write(2, "h", 0, "b")}, {c, closing("h")}}, "up 68 1 " + sum("a") + "; up 68 1 " + sum("b")},
		"one, and then another": {[]step{{c, write(2, "h", 0, "first")}, {c, closing("h")}, {c, write(3, "i", 0, "second")}, {c, closing("i")}},
			"up 68 5 " + sum("first") + "; up 69 6 " + sum("second")},
		"one after content of nobody's": {[]step{{c, get(2, "h", 0)}, {s, data(7, "nobody's")}, {s, data(2, "mine")}, {c, closing("h")}}, "down 68 4 " + sum("mine")},
		"not closed":                    {[]step{{c, write(2, "h", 0, "a")}}, ""},
		"closed without a thing":        {[]step{{c, closing("h")}}, ""},
	} {
		for _, size := range []int{1, 2, 3, 7, 13, 1000, -1, -5, -1000} {
			client, server := NewFilters()
			up, down := func([]byte) {}, func([]byte) {}
			if size < 0 { // with the streams' own hashes
				size = -size
				sent, received := sha256.New(), sha256.New()
				client, server = NewFilters(sent, received)
				up, down = func(b []byte) { sent.Write(b) }, func(b []byte) { received.Write(b) }
			}
			nothing := func([]byte) {}
			var got []string
			for _, step := range test.steps {
				f, content := server, down
				if step.client {
					f, content = client, up
				}
				for rest := step.bytes; len(rest) > 0; {
					n := min(size, len(rest))
					f.Split(rest[:n], nothing, content)
					rest = rest[n:]
					for _, b := range f.Whole() {
						got = append(got, fmt.Sprintf("%s %s %d %s", map[bool]string{true: "up", false: "down"}[b.FromClient], b.Stream, b.Bytes, b.SHA256))
					}
				}
			}
			if all := strings.Join(got, "; "); all != test.want {
				t.Errorf("%s, in pieces of %d: %q, want %q", name, size, all, test.want)
			}
		}
	}
}

// TestFollowingFilesIsBounded: handles and reads without end cost no more than so many.
func TestFollowingFilesIsBounded(t *testing.T) {
	client, server := NewFilters()
	nothing := func([]byte) {}
	for i := range uint32(3 * sftpMaxPending) {
		client.Split(packet(sftpRead, u32(i), str(fmt.Sprint(i%(3*sftpMaxHandles))), u64(0), u32(1)), nothing, nothing)
		client.Split(packet(sftpWrite, u32(i), str(strings.Repeat("h", 300)), u64(0), str("x")), nothing, nothing)
		server.Split(packet(sftpStatus, bytes.Repeat([]byte{1}, 2000)), nothing, nothing)
	}
	if h, r := len(client.files.handles), len(client.files.reads); h > sftpMaxHandles || r > sftpMaxPending || cap(client.packet) > 1<<10 || cap(server.packet) > 1<<10 {
		t.Errorf("%d handles, %d reads, packets of %d and %d", h, r, cap(client.packet), cap(server.packet))
	}
}
