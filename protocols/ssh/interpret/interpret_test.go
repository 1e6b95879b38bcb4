package interpret

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"sallyport/recorder"
	"sallyport/recorder/format"
)

func answered(channel uint32, data string) format.Event {
	return format.Event{Type: format.TypeAnswered, Channel: channel, Data: []byte(data)}
}

// run interprets events, one every second, and drops what all items share.
func run(events ...format.Event) []recorder.Item {
	p := New(format.Header{Session: "s-1"})
	var items []recorder.Item
	emit := func(item recorder.Item) {
		item.Session, item.At, item.Time = "", 0, time.Time{}
		items = append(items, item)
	}
	for i, e := range events {
		e.At = time.Duration(i+1) * time.Second
		p.Interpret(e, emit)
	}
	p.Finish(emit)
	return items
}

// resumed is run with another interpreter that goes on before event cut, where the first has a state.
func resumed(t *testing.T, cut int, events []format.Event) []recorder.Item {
	p := New(format.Header{Session: "s-1"})
	var items []recorder.Item
	emit := func(item recorder.Item) {
		item.Session, item.At, item.Time = "", 0, time.Time{}
		items = append(items, item)
	}
	for i, e := range events {
		if state, ok := p.State(); ok && i == cut {
			p = New(format.Header{Session: "s-1"})
			if err := p.Resume(state); err != nil {
				t.Fatal(err)
			}
		}
		e.At = time.Duration(i+1) * time.Second
		p.Interpret(e, emit)
	}
	p.Finish(emit)
	return items
}

func number(n int) *int { return &n }

func TestInterpret(t *testing.T) {
	exec := Request(1, "exec", true, ssh.Marshal(oneString{"uname -a"}))
	shell := Request(1, "shell", true, nil)
	pty := Request(1, "pty-req", true, ssh.Marshal(ptyRequest{Terminal: "xterm", Columns: 80, Lines: 24}))
	sftp := Request(1, "subsystem", true, ssh.Marshal(oneString{"sftp"}))
	said := func(b ...[]byte) format.Event {
		return format.Event{Type: format.TypeSaid, Channel: 1, Data: bytes.Join(b, nil)}
	}
	said2 := func(b ...[]byte) format.Event {
		return format.Event{Type: format.TypeAnswered, Channel: 1, Data: bytes.Join(b, nil)}
	}
	status := func(id, code uint32) []byte { return packet(sftpStatus, u32(id), u32(code), str(""), str("")) }
	for name, test := range map[string]struct {
		events []format.Event
		want   []recorder.Item
	}{
		"exec with exit status": {
			[]format.Event{Open(1, "session", nil), exec, Reply(1, "exec", true), answered(1, "Linux\n"),
				{Type: format.TypeAnsweredError, Channel: 1, Data: []byte("oops")},
				TargetRequest(1, "exit-status", false, ssh.Marshal(exitStatus{3}))},
			[]recorder.Item{
				{Kind: recorder.ItemCommand, Channel: 1, Ref: 1, Via: "exec", Command: "uname -a"},
				{Kind: recorder.ItemOutput, Channel: 1, Stream: "stdout", Data: []byte("Linux\n"), Text: "Linux\n", Bytes: 6},
				{Kind: recorder.ItemOutput, Channel: 1, Stream: "stderr", Data: []byte("oops"), Text: "oops", Bytes: 4},
				{Kind: recorder.ItemExit, Channel: 1, Ref: 1, ExitStatus: number(3), Duration: 4 * time.Second},
			},
		},
		"shell with terminal, resize, a rune in two pieces, signal": {
			[]format.Event{pty, shell, answered(1, "caf\xc3"), answered(1, "\xa9"),
				Request(1, "window-change", false, ssh.Marshal(windowChange{Columns: 100, Lines: 1 << 31})),
				TargetRequest(1, "exit-signal", false, ssh.Marshal(exitSignal{Signal: "HUP"}))},
			[]recorder.Item{
				{Kind: recorder.ItemCommand, Channel: 1, Ref: 1, Via: "shell", Terminal: "xterm", Columns: 80, Lines: 24},
				{Kind: recorder.ItemOutput, Channel: 1, Stream: "stdout", Data: []byte("caf"), Text: "caf", Bytes: 3},
				{Kind: recorder.ItemOutput, Channel: 1, Stream: "stdout", Data: []byte("é"), Text: "é", Bytes: 2},
				{Kind: recorder.ItemResize, Channel: 1, Columns: 100, Lines: 10000},
				{Kind: recorder.ItemExit, Channel: 1, Ref: 1, Signal: "HUP", Duration: 4 * time.Second},
			},
		},
		"refused by the target": {
			[]format.Event{exec, Reply(1, "exec", false)},
			[]recorder.Item{
				{Kind: recorder.ItemCommand, Channel: 1, Ref: 1, Via: "exec", Command: "uname -a"},
				{Kind: recorder.ItemExit, Channel: 1, Ref: 1, Error: "the target refused it"},
			},
		},
		"sftp": {
			[]format.Event{sftp,
				said(packet(1, u32(3)), packet(sftpOpen, u32(1), str("a.txt"), u32(26), u32(0))),
				said2(packet(2, u32(3)), packet(sftpHandle, u32(1), str("h"))),
				said(bytes.TrimSuffix(write("12345"), []byte("12345"))),
				said2(status(7, 0)),
				said(packet(sftpClose, u32(2), str("h")), packet(sftpRemove, u32(3), str("b.txt"))),
				said2(status(2, 0), status(3, 3)),
				format.JSON(format.TypeBulk, 1, format.Bulk{FromClient: true, Stream: "stdin", Bytes: 5, SHA256: "ab", Why: WhyFile}),
				{Type: TypeClosed, Channel: 1},
			},
			[]recorder.Item{
				{Kind: recorder.ItemCommand, Channel: 1, Ref: 1, Via: "subsystem", Command: "sftp"},
				{Kind: recorder.ItemFile, Channel: 1, Command: "upload", Path: "a.txt", Bytes: 5, Duration: 5 * time.Second},
				{Kind: recorder.ItemFile, Channel: 1, Command: "remove", Path: "b.txt", Error: "permission denied", Duration: time.Second},
				{Kind: recorder.ItemBulk, Channel: 1, Stream: "stdin", Bytes: 5, SHA256: "ab", Text: WhyFile},
			},
		},
		"tunnel": {
			[]format.Event{Open(2, "direct-tcpip", ssh.Marshal(DirectTCPIP{Host: "db", Port: 5432}))},
			[]recorder.Item{{Kind: recorder.ItemOther, Channel: 2, Command: "open direct-tcpip", Fields: map[string]string{"host": "db", "port": "5432"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, run(test.events...)); diff != "" {
				t.Errorf("items (-want +got):\n%s", diff)
			}
			for cut := range test.events {
				if diff := cmp.Diff(test.want, resumed(t, cut, test.events)); diff != "" {
					t.Errorf("gone on with before event %d (-want +got):\n%s", cut, diff)
				}
			}
		})
	}
}

// FuzzInterpret: any bytes in any events are stood, and memory stays in bounds.
func FuzzInterpret(f *testing.F) {
	f.Add([]byte("\x43\x01\x20"), []byte("x"))
	f.Add(Request(1, "subsystem", true, ssh.Marshal(oneString{"sftp"})).Data, write("abc"))
	f.Add(TargetRequest(1, "exit-status", false, ssh.Marshal(exitStatus{3})).Data, packet(sftpOpen, u32(1), str("a"), u32(1)))
	f.Add(sftpClient, sftpServer)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		p := New(format.Header{})
		items := 0
		emit := func(recorder.Item) { items++ }
		for _, kind := range []format.Type{TypeOpen, TypeRequest, TypeReply, TypeTargetRequest, format.TypeSaid, format.TypeAnswered,
			format.TypeAnsweredError, format.TypeBulk, TypeOpenRefused, TypeEOF, TypeClosed} {
			for _, data := range [][]byte{a, b} {
				for channel := range uint32(2) {
					p.Interpret(format.Event{Type: kind, Channel: channel, Data: data}, emit)
				}
			}
		}
		p.Interpret(Request(1, "subsystem", true, ssh.Marshal(oneString{"sftp"})), emit)
		for _, data := range [][]byte{a, b, a} {
			p.Interpret(format.Event{Type: format.TypeSaid, Channel: 1, Data: data}, emit)
			p.Interpret(format.Event{Type: format.TypeAnswered, Channel: 1, Data: data}, emit)
		}
		p.Finish(emit)
		if most := 100 + 10*(len(a)+len(b)); items > most {
			t.Fatalf("%d items out of %d bytes", items, len(a)+len(b))
		}
	})
}
