package interpret

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport/recorder"
	"sallyport/recorder/format"
)

// typing is a terminal session as it is recorded: "<" is what came back, ">" how much was typed.
func typing(columns uint32, steps ...string) []format.Event {
	events := []format.Event{
		Request(1, "pty-req", true, ssh.Marshal(ptyRequest{Terminal: "xterm", Columns: columns, Lines: 24})),
		Request(1, "shell", true, nil),
	}
	total := int64(0)
	for _, s := range steps {
		if text, ok := strings.CutPrefix(s, ">"); ok {
			total += int64(len(text))
			b, _ := json.Marshal(format.Bulk{FromClient: true, Stream: "stdin", Why: WhyTyped, Bytes: total})
			events = append(events, format.Event{Type: format.TypeBulk, Channel: 1, Data: b})
			continue
		}
		events = append(events, format.Event{Type: format.TypeAnswered, Channel: 1, Data: []byte(s[1:])})
	}
	return events
}

// entered are the lines that are read from the screen, each event a second after the one before, or all at once.
func entered(t *testing.T, every time.Duration, cut int, events []format.Event) []string {
	t.Helper()
	var lines []string
	emit := func(it recorder.Item) {
		if it.Kind == recorder.ItemCommand && it.Via == ViaScreen {
			if it.Fields["heuristic"] == "" {
				t.Error("a guess is not marked as one")
			}
			lines = append(lines, it.Command)
		}
	}
	p := New(format.Header{})
	for i, e := range events {
		if i == cut {
			state, ok := p.State()
			if !ok {
				t.Fatal("it has no state")
			}
			if p = New(format.Header{}); p.Resume(state) != nil {
				t.Fatal("it does not go on")
			}
		}
		e.At = time.Duration(i) * every
		p.Interpret(e, emit)
	}
	p.Finish(emit)
	return lines
}

func TestLinesAreReadFromTheScreen(t *testing.T) {
	long := "echo " + strings.Repeat("long ", 30) + "end"
	for name, test := range map[string]struct {
		steps []string
		want  []string
	}{
		"a line": {[]string{"<$ ", ">l", "<l", ">s", "<s", ">\r", "<\r\nfile\r\n$ "}, []string{"ls"}},
		"a coloured prompt, bracketed paste": {[]string{
			"<\x1b[?2004h\x1b]0;me@web-1: ~\x07\x1b[01;32mme@web-1\x1b[00m:\x1b[01;34m~\x1b[00m$ ", ">id", "<id", ">\r", "<\r\n\x1b[?2004l\r", "<uid=0\r\n\x1b[?2004h$ ",
		}, []string{"id"}},
		"corrected":              {[]string{"<$ ", ">lx\x7fs", "<lx\b\x1b[Ks", ">\r", "<\r\n"}, []string{"ls"}},
		"inserted before":        {[]string{"<$ ", ">able", "<able", ">\x01", "<\b\b\b\b", ">c", "<cable\b\b\b\b", ">\r", "<\r\n"}, []string{"cable"}},
		"out of history":         {[]string{"<$ ", ">\x1b[A", "<make test", ">\r", "<\r\nok\r\n$ "}, []string{"make test"}},
		"another prompt":         {[]string{"<~$ ", ">cd /x\r", "<cd /x\r\n/x$ ", ">id\r", "<id\r\n"}, []string{"cd /x", "id"}},
		"several at once":        {[]string{"<$ ", ">id\rpwd\r", "<id\r\nuid=0\r\n$ pwd\r\n/x\r\n$ "}, []string{"id", "pwd"}},
		"a password":             {[]string{"<$ ", ">su\r", "<su\r\nPassword: ", ">hunter2\r", "<\r\n# ", ">id\r", "<id\r\n"}, []string{"su", "id"}},
		"empty lines":            {[]string{"<$ ", ">\r", "<\r\n$ ", ">\r", "<\r\n$ "}, nil},
		"only output":            {[]string{"<$ \r\nline\r\nline\r\n"}, nil},
		"a program's input":      {[]string{"<$ ", ">cat\r", "<cat\r\n", ">text\r", "<text\r\ntext\r\n"}, []string{"cat"}},
		"before the prompt came": {[]string{"<$ ", ">sleep 1\r", "<sleep 1\r\n", ">id\r", "<id\r\n", "<$ id\r\nuid=0\r\n$ "}, []string{"sleep 1", "id"}},
		"a longer row":           {[]string{"<$ ", ">" + long, "<" + long[:78] + "\r\n"[:0] + long[78:], ">\r", "<\r\n"}, []string{long}},
		"completed, with a list": {[]string{
			"<$ ", ">ls f", "<ls f", ">\t\t", "<\r\nfile1  file2\r\n$ ls f", ">ile1", "<ile1", ">\r", "<\r\n",
		}, []string{"ls file1"}},
		"an editor": {[]string{
			"<$ ", ">vi x\r", "<vi x\r\n\x1b[?1049h\x1b[22;0;0t\x1b[H~\r\n~", ">ihello\rworld\x1b:wq\r", "<hello\r\nworld", "<\x1b[?1049l$ ", ">id\r", "<id\r\n",
		}, []string{"vi x", "id"}},
		"a prompt at the right":    {[]string{"<% \x1b[75G12:00\x1b[3G", ">ls", "<ls", ">\r", "<\r\n"}, []string{"ls"}},
		"characters that are wide": {[]string{"<$ ", ">echo 漢字", "<echo 漢字", ">\r", "<\r\n"}, []string{"echo 漢字"}},
	} {
		t.Run(name, func(t *testing.T) {
			events := typing(80, test.steps...)
			for _, every := range []time.Duration{time.Millisecond, time.Second} {
				if name == "completed, with a list" && every == time.Second {
					continue // the list comes with the key, within moments
				}
				for cut := range events {
					if got := entered(t, every, cut, events); !slices.Equal(got, test.want) {
						t.Fatalf("with %s between, gone on with before event %d: %q, want %q", every, cut, got, test.want)
					}
				}
			}
		})
	}
}

// FuzzTypedLines: whatever a target shows while somebody types, the lines are no more than what was shown and stay in bounds.
func FuzzTypedLines(f *testing.F) {
	f.Add("$ ", "ls\r\nfile\r\n$ ", 3)
	f.Add("\x1b[?1049h", "x\r\n\x1b[?1049l$ ", 300)
	f.Add("\x1b[9999;9999H$ \x1b[7m", "\x1b[1;1H\x1b[Kx\r\n", 1)
	files, err := filepath.Glob("../../../recorder/terminal/testdata/screens/*.screen")
	if err != nil || len(files) == 0 {
		f.Fatal("no screens: ", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b[:len(b)/2]), string(b[len(b)/2:]), 7)
	}
	f.Fuzz(func(t *testing.T, before, after string, typed int) {
		var l typedLines
		shown, lines := 0, 0
		emit := func(line string) { lines += len(line) }
		at := time.Duration(0)
		for range 3 {
			for _, out := range []string{before, after} {
				at += 150 * time.Millisecond
				l.output([]byte(out), at, 80, emit)
				shown += len(out)
				l.typed(l.Seen+int64(typed%1000), 80, emit)
			}
		}
		l.decide(80, emit)
		if len(l.Row) > maxRow {
			t.Fatalf("%d bytes of a row are kept", len(l.Row))
		}
		if most := 200*80*24 + 8*shown; lines > most {
			t.Fatalf("%d bytes of lines out of %d that were shown", lines, shown)
		}
	})
}
