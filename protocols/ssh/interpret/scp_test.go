package interpret

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport/recorder"
	"sallyport/recorder/format"
)

const scpStream = "T1 0 1 0\nD0755 0 tree\nC0644 5 one\n12345\x00C0600 0 empty\n\x00E\nC0644 3 C0644 9 odd\nabc\x00"

// TestSCPFilter: wherever the stream is cut, the contents are told apart.
func TestSCPFilter(t *testing.T) {
	for size := 1; size <= len(scpStream); size++ {
		var f SCPFilter
		var said, content bytes.Buffer
		for rest := []byte(scpStream); len(rest) > 0; {
			n := min(size, len(rest))
			f.Split(rest[:n], func(b []byte) { said.Write(b) }, func(b []byte) { content.Write(b) })
			rest = rest[n:]
		}
		if content.String() != "12345abc" || said.String() != "T1 0 1 0\nD0755 0 tree\nC0644 5 one\n\x00C0600 0 empty\n\x00E\nC0644 3 C0644 9 odd\n\x00" {
			t.Fatalf("in pieces of %d: said %q, content %q", size, said.String(), content.String())
		}
	}
}

// TestSCPFileThatIsNotTaken: what is refused has no contents, and the next line is one; a file of which some came has.
func TestSCPFileThatIsNotTaken(t *testing.T) {
	sent := sha256.New()
	client, server := NewSCPFilters(sent, sha256.New())
	var said, content bytes.Buffer
	split := func(f *SCPFilter, text string) {
		f.Split([]byte(text), func(b []byte) { said.Write(b) }, func(b []byte) { content.Write(b); sent.Write(b) })
	}
	split(server, "\x00")
	split(client, "C0644 5000 one\n")
	split(server, "\x01scp: /x/one: Permission denied\n")
	split(client, "C0644 5 two\n")
	split(server, "\x00")
	split(client, "12345\x00")
	split(server, "\x01scp: /x/two: No space left\n")
	split(client, "C0644 3 three\n")
	split(server, "\x00")
	split(client, "a")
	split(server, "\x02scp: lost\n")
	split(client, "bc\x00")
	if content.String() != "12345abc" || strings.Count(said.String(), "\nC0644 ") != 2 {
		t.Errorf("said %q, content %q", said.String(), content.String())
	}
	sum := func(s string) string {
		h := sha256.Sum256([]byte(s))
		return hex.EncodeToString(h[:])
	}
	if whole := client.Whole(); len(whole) != 2 || whole[0].SHA256 != sum("12345") || whole[1].SHA256 != sum("abc") || whole[1].Bytes != 3 {
		t.Errorf("hashes %+v", whole)
	}
	if whole := server.Whole(); len(whole) != 0 {
		t.Errorf("hashes %+v", whole)
	}
}

func TestSCPItems(t *testing.T) {
	said := func(b string) format.Event { return format.Event{Type: format.TypeSaid, Channel: 1, Data: []byte(b)} }
	got := run(
		Request(1, "exec", true, ssh.Marshal(oneString{"scp -r -p -t /srv/app"})),
		answered(1, "\x00"),
		said("T1 0 1 0\nD0755 0 tree\nC0644 5 one\n"), answered(1, "\x00"), said("\x00"), answered(1, "\x00"),
		said("E\nC0644 7 two\n"), answered(1, "\x01scp: /srv/app: No space left\n"),
		said("D0755 0 other\n"), answered(1, "\x01scp: /srv/app/other: Permission denied\n"), said("C0644 1 three\n"), answered(1, "\x00"),
		format.JSON(format.TypeBulk, 1, format.Bulk{Bytes: 1, SHA256: "ab", Why: WhyWhole}), said("\x00"),
	)
	fields := func(mode string) map[string]string {
		return map[string]string{"mode": mode, "via": "scp", "at": "/srv/app"}
	}
	want := []recorder.Item{
		{Kind: recorder.ItemCommand, Channel: 1, Ref: 1, Via: "exec", Command: "scp -r -p -t /srv/app"},
		{Kind: recorder.ItemFile, Channel: 1, Command: "upload", Path: "tree/one", Bytes: 5, Fields: fields("0644"), Duration: 2 * time.Second},
		{Kind: recorder.ItemFile, Channel: 1, Command: "upload", Path: "two", Bytes: 7, Fields: fields("0644"), Error: "scp: /srv/app: No space left", Duration: time.Second},
		{Kind: recorder.ItemFile, Channel: 1, Command: "upload", Path: "/srv/app", Fields: map[string]string{"via": "scp"}, Error: "scp: /srv/app/other: Permission denied"},
		{Kind: recorder.ItemFile, Channel: 1, Command: "upload", Path: "three", Bytes: 1, SHA256: "ab", Fields: fields("0644"), Duration: 3 * time.Second},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
}

func TestCommandsSayWhatTheirStreamsAre(t *testing.T) {
	for line, want := range map[string]string{
		"scp -t /x": "upload /x", "scp -rpf -- /x y": "download /x y", "/usr/bin/scp -v -p -t .": "upload .", "scp /a /b": "", "scpx -t /a": "",
		"/usr/lib/openssh/sftp-server -l INFO": "sftp", "cat sftp-server": "", "bash": "interprets", "sudo -n /bin/sh -s": "interprets",
		"cat | bash": "interprets", "python3.11 -": "interprets", "tar xf -": "", "rsync --server -logDtpre.iLsfxC . /x/": "rsync up /x/", "rsync --server --sender -l . /y": "rsync down /y",
	} {
		got := ""
		if upload, at, ok := SCP("exec", line); ok {
			got = map[bool]string{true: "upload ", false: "download "}[upload] + at
		} else if upload, at, ok := Rsync("exec", line); ok {
			got = map[bool]string{true: "rsync up ", false: "rsync down "}[upload] + at
		} else if SFTP("exec", line) {
			got = "sftp"
		} else if Interprets("exec", line) {
			got = "interprets"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// FuzzSCP: any stream is stood in any pieces, nothing is lost or doubled, and the pieces do not change what is content.
func FuzzSCP(f *testing.F) {
	f.Add([]byte(scpStream), uint8(3))
	f.Add([]byte("C0644 99999999999999999999 x\n"), uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		split := func(size int) (all, said, content []byte) {
			var filter SCPFilter
			for rest := stream; len(rest) > 0; {
				n := min(size, len(rest))
				filter.Split(rest[:n],
					func(b []byte) { all, said = append(all, b...), append(said, b...) },
					func(b []byte) { all, content = append(all, b...), append(content, b...) })
				rest = rest[n:]
			}
			return all, said, content
		}
		all, said, content := split(len(stream) + 1)
		if !bytes.Equal(all, stream) {
			t.Fatal("bytes were lost, doubled or moved")
		}
		_, said2, content2 := split(int(size) + 1)
		if len(said)+len(content) != len(said2)+len(content2) {
			t.Fatalf("pieces of %d change the sum", size)
		}
		items := 0
		s := scpSession{upload: true, at: "/x"}
		s.sent(said, 0, func(recorder.Item) { items++ })
		s.received(stream, 0, func(recorder.Item) { items++ })
		if items > 2*len(stream)+2 {
			t.Fatalf("%d items out of %d bytes", items, len(stream))
		}
	})
}
