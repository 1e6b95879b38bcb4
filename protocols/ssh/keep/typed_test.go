package keep

import (
	"bytes"
	"slices"
	"strings"
	"testing"

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
			e := &Typed{}
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
					e.Typed([]byte(s[1:]))
				} else {
					take(e.Shown([]byte(s[1:])))
				}
			}
			take(e.Last())
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
		e := &Typed{}
		var said []byte
		take := func(events []format.Event) {
			for _, event := range events {
				if event.Type == format.TypeSaid {
					said = append(said, event.Data...)
				}
			}
		}
		cut = min(max(cut, 0), len(typed), len(shown))
		e.Typed([]byte(typed[:cut]))
		take(e.Shown([]byte(shown[:cut])))
		e.Typed([]byte(typed[cut:]))
		take(e.Shown([]byte(shown[cut:])))
		take(e.Last())
		if len(said) > len(typed) {
			t.Fatalf("%q is recorded of %q", said, typed)
		}
		var plain Typed // for its reading of keys
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
