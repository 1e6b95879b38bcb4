package interpret

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/recorder"
)

// The two directions of an sftp session in which everything happens that is hard: many requests before an answer, answers in another
// order, a handle that is given again, failures, the symlink whose arguments OpenSSH has the other way round, extensions.
var (
	sftpClient = bytes.Join([][]byte{
		packet(1, u32(3)),
		packet(sftpOpen, u32(1), str("a"), u32(26), u32(0)), packet(sftpOpen, u32(2), str("b\xff"), u32(1), u32(0)), packet(sftpOpendir, u32(3), str(".")),
		packet(sftpWrite, u32(4), str("h0"), u64(0), str("twelve bytes")), packet(sftpWrite, u32(5), str("h0"), u64(12), str("")),
		packet(sftpRead, u32(6), str("h1"), u64(0), u32(32768)), packet(sftpRead, u32(7), str("h1"), u64(1<<40), u32(32768)),
		packet(sftpClose, u32(8), str("h0")), packet(sftpClose, u32(9), str("h1")), packet(sftpOpen, u32(10), str("c"), u32(1), u32(0)),
		packet(sftpRename, u32(11), str("a"), str("d")), packet(sftpSymlink, u32(12), str("to"), str("link")), packet(sftpRemove, u32(13), str("none")),
		packet(sftpSetstat, u32(14), str("d"), u32(7), u64(5), u32(1), u32(2), u32(0o644)),
		packet(sftpExtended, u32(15), str("posix-rename@openssh.com"), str("d"), str("e")), packet(sftpExtended, u32(16), str("copy-data"), str("h0"), u64(0), u64(0), str("h1"), u64(0)),
		packet(sftpExtended, u32(17), str("statvfs@openssh.com"), str("/")), packet(200), packet(sftpClose, u32(18), str("no such handle")),
	}, nil)
	sftpServer = bytes.Join([][]byte{
		packet(2, u32(3), str("posix-rename@openssh.com"), str("1")),
		packet(sftpHandle, u32(2), str("h1")), packet(sftpHandle, u32(1), str("h0")), packet(sftpStatus, u32(3), u32(3), str("no"), str("")),
		packet(sftpStatus, u32(4), u32(0), str(""), str("")), packet(sftpStatus, u32(5), u32(4), str(""), str("")),
		packet(sftpData, u32(6), str("data")), packet(sftpStatus, u32(7), u32(1), str(""), str("")),
		packet(sftpStatus, u32(9), u32(0), str(""), str("")), packet(sftpStatus, u32(8), u32(0), str(""), str("")), packet(sftpHandle, u32(10), str("h0")),
		packet(sftpStatus, u32(99), u32(0), str(""), str("")), packet(sftpStatus, u32(11), u32(0)), packet(sftpStatus, u32(13), u32(2)), packet(sftpStatus, u32(12), u32(77)),
		packet(sftpStatus, u32(14), u32(0)), packet(sftpStatus, u32(15), u32(0)), packet(sftpStatus, u32(16), u32(0)), packet(sftpStatus, u32(18), u32(4)),
	}, nil)
)

// follow follows both directions, the client's in pieces before the server's, without the contents of files, which are not recorded.
// It returns what is known then.
func follow(client, server [][]byte) ([]recorder.Item, *sftpSession) {
	s, fromClient, fromServer := newSFTPSession(), NewFilter(true), NewFilter(false)
	items := []recorder.Item{}
	emit := func(i recorder.Item) { items = append(items, i) }
	for _, b := range client {
		said, _, _ := split(fromClient, b)
		s.said(said, time.Second)
	}
	for _, b := range server {
		answered, _, _ := split(fromServer, b)
		s.answered(answered, 2*time.Second, emit)
	}
	return items, s
}

// TestSFTPSession: what is made of a hard session, wherever its streams are cut.
func TestSFTPSession(t *testing.T) {
	want := "list . permission denied; download b\uFFFD 4; upload a 12 failure; rename a; remove none no such file; symlink link status 77; setstat d; rename d; copy"
	said := func(items []recorder.Item) string {
		var all []string
		for _, i := range items {
			line := i.Command + " " + i.Path
			if i.Bytes > 0 {
				line += fmt.Sprint(" ", i.Bytes)
			}
			all = append(all, strings.TrimSpace(line+" "+i.Error))
		}
		return strings.Join(all, "; ")
	}
	for cut := range len(sftpClient) {
		at := min(cut, len(sftpServer))
		items, s := follow([][]byte{sftpClient[:cut], sftpClient[cut:]}, [][]byte{sftpServer[:at], sftpServer[at:]})
		if got := said(items); got != want || s.lost != "" {
			t.Fatalf("cut at %d: %s\nwant %s\n%s", cut, got, want, s.lost)
		}
	}
}

// TestSFTPNamesAreBounded: names of a megabyte without an answer are followed up to a bound, and then no more.
func TestSFTPNamesAreBounded(t *testing.T) {
	s := newSFTPSession()
	long := strings.Repeat("x", sftpMaxPacket-100)
	for id := range uint32(100) {
		s.said(packet(sftpRemove, u32(id), str(long)), 0)
		if s.names > sftpMaxNames {
			t.Fatalf("%d bytes of names are kept", s.names)
		}
	}
	if s.lost == "" {
		t.Error("it follows on")
	}
}

// FuzzSFTP: any two streams are stood; where they are cut makes no difference; what is remembered is bounded, and counted right.
func FuzzSFTP(f *testing.F) {
	f.Add(sftpClient, sftpServer, 100, 200)
	f.Add(sftpServer, sftpClient, 5, 9)
	f.Add(packet(sftpOpen, u32(1), str("a")), packet(sftpHandle, u32(1), str("")), 5, 3)
	f.Add(packet(sftpWrite, u32(1), u32(1<<31), u64(1<<63)), packet(sftpData, u32(1), u32(1<<32-1)), 12, 13)
	f.Fuzz(func(t *testing.T, client, server []byte, at, on int) {
		at, on = min(max(at, 0), len(client)), min(max(on, 0), len(server))
		want, whole := follow([][]byte{client}, [][]byte{server})
		got, pieces := follow([][]byte{client[:at], client[at:]}, [][]byte{server[:on], server[on:]})
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("cut at %d and %d: %s", at, on, cmp.Diff(want, got))
		}
		if len(want) > len(client)/9 {
			t.Fatalf("%d items of %d bytes", len(want), len(client))
		}
		for _, s := range []*sftpSession{whole, pieces} {
			names := 0
			for _, r := range s.pending {
				names += r.names()
			}
			for handle, file := range s.handles {
				names += len(handle) + len(file.path)
			}
			if names != s.names || names > sftpMaxNames || len(s.pending) > sftpMaxPending || len(s.handles) > sftpMaxHandles {
				t.Fatalf("%d requests, %d handles, %d bytes of names, counted as %d", len(s.pending), len(s.handles), names, s.names)
			}
		}
		if a, b := slices.Sorted(maps.Keys(whole.handles)), slices.Sorted(maps.Keys(pieces.handles)); !slices.Equal(a, b) {
			t.Fatalf("handles %q, cut at %d and %d %q", a, at, on, b)
		}
	})
}
