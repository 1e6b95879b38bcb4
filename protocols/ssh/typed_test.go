package ssh

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"sallyport/recorder"
	"sallyport/recorder/format"
)

// TestOnlyWhatWasShownIsRecordedOfInput: ">" is what is typed, "<" what the terminal shows.
func TestOnlyWhatWasShownIsRecordedOfInput(t *testing.T) {
	for name, test := range map[string]struct {
		steps []string
		want  []string // "?" is a line that was not shown
	}{
		"key by key":                  {[]string{">l", "<l", ">s", "<s", ">\r", "<\r\n"}, []string{"ls\r"}},
		"a line at once":              {[]string{">ls -l\r", "<ls -l\r\nfile\r\n$ "}, []string{"ls -l\r"}},
		"two lines at once":           {[]string{">id\rpwd\r", "<id\r\npwd\r\n"}, []string{"id\r", "pwd\r"}},
		"in colours":                  {[]string{">ls\r", "<\x1b[32ml\x1b[0m", "<\x1b[32ms\x1b[0m\x1b[?2004l\r", "<\r\n"}, []string{"ls\r"}},
		"corrected":                   {[]string{">lx", "<lx", ">\x7f", "<\b\x1b[K", ">s", "<s", ">\r", "<\r\n"}, []string{"lx\x7fs\r"}},
		"with arrows":                 {[]string{">\x1b[A", "<make", ">\x1bOD", "<\b", ">x", "<xe\b", ">\r", "<\r\n"}, []string{"\x1b[A\x1bODx\r"}},
		"a password":                  {[]string{">hunter2\r", "<\r\nwelcome\r\n"}, []string{"?"}},
		"a password, key by key":      {[]string{">h", ">u", ">n", ">\r", "<\r\n"}, []string{"?"}},
		"a password behind a line":    {[]string{">su\r", "<su\r\nPassword: ", ">hunter2\r", "<\r\n# ", ">id\r", "<id\r\n"}, []string{"su\r", "?", "id\r"}},
		"stars for a password":        {[]string{">h", "<*", ">u", "<*", ">\r", "<\r\n"}, []string{"?"}},
		"a letter of it by chance":    {[]string{">no\r", "<unknown\r\n"}, []string{"?"}},
		"its beginning by chance":     {[]string{">hunter2\r", "<hun\r\n"}, []string{"?"}},
		"never a new line":            {[]string{">secret\r", "<", ">more\r"}, []string{"?"}},
		"unfinished":                  {[]string{">shown", "<shown"}, []string{"shown"}},
		"unfinished and not shown":    {[]string{">secret"}, []string{"?"}},
		"longer than is followed":     {[]string{">" + strings.Repeat("x", maxTyped), ">yy\r", "<\r\n", ">id\r", "<id\r\n"}, []string{"?", "id\r"}},
		"nothing but output":          {[]string{"<a line\r\n"}, nil},
		"a program that shows no key": {[]string{">jjk", "<\x1b[2;1H\x1b[3;1H", ">ihello\x1b", "<hello", ">\r", "<\n"}, []string{"?"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := &typedInput{}
			var got []string
			take := func(events []format.Event) {
				for _, event := range events {
					if event.Type == format.TypeSaid {
						got = append(got, string(event.Data))
						continue
					}
					if bytes.Contains(event.Data, []byte("hunter")) || bytes.Contains(event.Data, []byte("secret")) {
						t.Errorf("a note tells it: %s", event.Data)
					}
					got = append(got, "?")
				}
			}
			for _, s := range test.steps {
				if s[0] == '>' {
					e.typed([]byte(s[1:]))
				} else {
					take(e.shown([]byte(s[1:])))
				}
			}
			take(e.last())
			if !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// FuzzTypedInput: whatever is typed and shown, what is recorded of it was shown: each of its characters, in order.
func FuzzTypedInput(f *testing.F) {
	f.Add("ls\r", "ls\r\n", 1)
	f.Add("hunter2\r", "hun\x1b[1mter3\r\n", 3)
	f.Add("\x1b[A\x1b\r", "\x1b]0;x\x07\n", 2)
	f.Fuzz(func(t *testing.T, typed, shown string, cut int) {
		e := &typedInput{}
		var said []byte
		take := func(events []format.Event) {
			for _, event := range events {
				if event.Type == format.TypeSaid {
					said = append(said, event.Data...)
				}
			}
		}
		cut = min(max(cut, 0), len(typed), len(shown))
		e.typed([]byte(typed[:cut]))
		take(e.shown([]byte(shown[:cut])))
		e.typed([]byte(typed[cut:]))
		take(e.shown([]byte(shown[cut:])))
		take(e.last())
		if len(said) > len(typed) {
			t.Fatalf("%q is recorded of %q", said, typed)
		}
		var plain typedInput // for its reading of keys
		plain.waiting = bytes.Clone(said)
		left := shown
		for plain.keys(); len(plain.waiting) > 0; plain.keys() {
			c := plain.waiting[0]
			plain.take()
			if c == '\r' {
				c = '\n'
			}
			n := strings.IndexByte(left, c)
			if n < 0 {
				t.Fatalf("%q is recorded, and %q was shown", said, shown)
			}
			left = left[n+1:]
		}
	})
}

// TestTypedInputIsRecordedWhereTheAccountSays: with a real shell; and without record_input nothing of it.
func TestTypedInputIsRecordedWhereTheAccountSays(t *testing.T) {
	r := newRig(t)
	for i := range r.config.Targets[0].Accounts {
		if a := &r.config.Targets[0].Accounts[i]; a.Name == "forwarder" {
			a.RecordInput = true
		}
	}
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{"me", "forwarder"} {
		r.grant(account, "web-1")
		term := r.terminal(t, "-tt", account+"@web-1@gw", "bash --norc --noprofile -i")
		prompts := 0
		at := func() {
			prompts++
			eventually(t, "the next prompt", func() bool { return strings.Count(term.shown(), "at> ") >= prompts })
		}
		term.send("PS1='at''> '; bind 'set enable-bracketed-paste off'\n")
		at()
		term.send("echo one\n")
		at()
		term.send("read -s -p 'sec''ret: ' x\n")
		term.expect("secret: ")
		term.send("opensesame\n")
		at()
		term.send("exit\n")
		term.status()
		var typed []string
		unseen := 0
		for _, item := range r.items(r.ended().ID) {
			switch {
			case item.Kind == recorder.ItemInput:
				typed = append(typed, string(item.Data))
			case item.Kind == recorder.ItemNote && item.Command == "not_shown":
				unseen++
			}
			if bytes.Contains(item.Data, []byte("opensesame")) || strings.Contains(item.Text+item.Command, "opensesame") {
				t.Errorf("a password that was not shown is recorded: %+v", item)
			}
		}
		if account == "me" {
			if len(typed) > 0 || unseen > 0 {
				t.Errorf("input is recorded that nobody asked for: %q", typed)
			}
			continue
		}
		if !slices.Contains(typed, "echo one\n") || unseen == 0 {
			t.Errorf("recorded are %q, and %d lines that were not shown; it showed %q", typed, unseen, term.shown())
		}
	}
}

// TestTypedInputIsLocked: with recipients, what was typed stands nowhere in what the gateway keeps, the gateway can't read it, and
// who holds the identity can.
func TestTypedInputIsLocked(t *testing.T) {
	r := newRig(t)
	auditor := must(age.GenerateHybridIdentity())(t)
	r.config.Recording.Recipients = []string{auditor.Recipient().String()}
	r.config.Targets[0].Accounts[0].RecordInput = true
	if err := r.grants.Reload(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	r.grant("me", "web-1")
	term := r.terminal(t, "-tt", "me@web-1@gw", "bash --norc --noprofile -i")
	term.send("PS1='at''> '; bind 'set enable-bracketed-paste off'\n")
	term.expect("at> ")
	const typed = "echo canary-typed-5f21"
	term.send(typed + "\n")
	term.expect("\ncanary-typed-5f21")
	term.send("exit\n")
	term.status()
	id := r.ended().ID
	if items, err := r.recorder.Items(t.Context(), id); err == nil {
		for item, err := range items {
			if err == nil && (item.Kind == recorder.ItemInput || item.Kind == recorder.ItemOutput) {
				t.Errorf("the gateway reads %+v", item)
			}
		}
	}
	var file string
	err := filepath.WalkDir(r.config.State, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if strings.HasSuffix(path, ".srec") && strings.Contains(path, id) {
			file = path
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // a log's segment that was not needed any more
			return nil
		}
		if bytes.Contains(content, []byte("canary-typed")) {
			t.Errorf("it stands plain in %s", path)
		}
		return err
	})
	if err != nil || file == "" {
		t.Fatalf("no recording: %v", err)
	}
	if c, err := recorder.OpenCopy(file, nil, must(age.GenerateHybridIdentity())(t)); err == nil {
		for item, err := range c.Items(t.Context()) {
			if err == nil && bytes.Contains(item.Data, []byte("canary")) {
				t.Errorf("somebody else's identity reads %+v", item)
			}
		}
		c.Close()
	}
	c := must(recorder.OpenCopy(file, nil, auditor))(t)
	defer c.Close()
	var said []string
	for item, err := range c.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if item.Kind == recorder.ItemInput {
			said = append(said, string(item.Data)+item.Text)
		}
	}
	if !strings.Contains(strings.Join(said, ""), typed) {
		t.Errorf("the auditor reads %q; it showed %q", said, term.shown())
	}
}
