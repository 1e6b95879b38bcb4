package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"sallyport/internal/refusal"
	"sallyport/web/api"
)

// What people wrote can't move the cursor, recolour or reorder a table.
func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain – Ünïcode": "plain – Ünïcode",
		"a\nb\tc":         "a b c",
		"\x1b[2Jgone":     `\u001b[2Jgone`,
		"\u009b2J":        `\u009b2J`,
		"a\u202eb":        `a\u202eb`,
		"\xff":            `\ufffd`,
		"\r\x00\x7f":      `\u000d\u0000\u007f`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestMoment(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, zone),
		"2026-01-31T15:04":     time.Date(2026, 1, 31, 15, 4, 0, 0, zone),
		"2026-01-31 15:04:05":  time.Date(2026, 1, 31, 15, 4, 5, 0, zone),
		"2026-01-31T15:04:05Z": time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC),
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
	} {
		if got, err := moment(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "2026-13-01", "-5m"} {
		if got, err := moment(in, now); err == nil {
			t.Errorf("%q was taken for %v", in, got)
		}
	}
}

func TestCutAccount(t *testing.T) {
	for in, want := range map[string][2]string{
		"app@orders": {"app", "orders"}, "a@b@orders": {"a@b", "orders"}, "app": {}, "@orders": {}, "app@": {}, "": {},
	} {
		account, target, found := cutAccount(in)
		if account != want[0] || target != want[1] || found != (want[0] != "") {
			t.Errorf("%q: %q, %q, %v", in, account, target, found)
		}
	}
}

// docs/cli.md promises the exit codes.
func TestExitCodes(t *testing.T) {
	for code, want := range map[refusal.Code]int{
		refusal.NotAuthenticated: 4, refusal.CredentialExpired: 4,
		refusal.NotPermitted: 3, refusal.NoGrant: 3, refusal.IdentityDisabled: 3, refusal.UnknownTarget: 3, refusal.UnknownAccount: 3,
		refusal.Invalid:  2,
		refusal.NotFound: 1, refusal.Conflict: 1, refusal.TargetFailed: 1, refusal.RecorderFailed: 1, refusal.Draining: 1, api.Internal: 1,
	} {
		if got := report(io.Discard, refusal.New(code, "no")); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
	if got := report(io.Discard, errors.New("broken")); got != 1 {
		t.Errorf("a failure: %d", got)
	}
	if got := report(io.Discard, nil); got != 0 {
		t.Errorf("no error: %d", got)
	}
}

func TestReportSaysWhatWhyAndWhatNext(t *testing.T) {
	var b strings.Builder
	report(&b, refusal.New(refusal.NotPermitted, "you may not").WithDetail("Carol \x1b[1m may").WithHint("ask her"))
	want := "sallyport: you may not\n  Why:  Carol \\u001b[1m may\n  Next: ask her\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// Every command explains itself, shows how it is used and has the flags that hold everywhere; names and short words end without a full
// stop. What is wrong about its arguments is a usage error, which exits with 2 and names --help, and so is a word behind commands that
// only have others.
func TestCommandsAreWhole(t *testing.T) {
	checked := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, c := range c.Commands() {
			if c.Name() == "help" || c.Hidden {
				continue
			}
			checked++
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("%s: %q", c.CommandPath(), c.Short)
			}
			if c.InheritedFlags().Lookup("json") == nil {
				t.Errorf("%s has no --json", c.CommandPath())
			}
			completion := strings.HasPrefix(c.CommandPath(), "sallyport completion")
			if !c.HasSubCommands() && c.Example == "" && !completion {
				t.Errorf("%s has no example", c.CommandPath())
			}
			if c.RunE == nil || c.Args == nil {
				t.Errorf("%s runs whatever its arguments are", c.CommandPath())
				continue
			}
			for _, args := range [][]string{nil, {"a"}, {"a", "b"}, {"a", "b", "c"}} {
				if err := c.Args(c, args); err != nil && report(io.Discard, err) != exitUsage {
					t.Errorf("%s %q: %v", c.CommandPath(), args, err)
				}
			}
			walk(c)
		}
	}
	walk(newRootCommand())
	if checked < 50 {
		t.Errorf("only %d commands", checked)
	}
}

// Times are read in the user's zone unless they say their own.
func TestPointInTime(t *testing.T) {
	zone := time.FixedZone("there", 2*3600)
	for in, want := range map[string]string{
		"2026-12-24T22:00": "2026-12-24T20:00:00Z", "2026-12-24": "2026-12-23T22:00:00Z", "2026-12-24T22:00:00Z": "2026-12-24T22:00:00Z",
		"soon": "", "2h": "",
	} {
		got, ok := pointInTime(in, zone)
		if ok != (want != "") || ok && got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %s, %v; want %s", in, got, ok, want)
		}
	}
}

// TestJSONIsPlain: JSON shows controls and what reorders text as escapes, and says the same.
func TestJSONIsPlain(t *testing.T) {
	for _, text := range []string{"plain – Ünïcode <&>", "a\u009b2Jb", "a\u202eb\u2066c", "\x7f\u0085\u2028", "\x1b[2J", "日本\u200f語", "\u009b", ""} {
		var b strings.Builder
		if err := printJSON(&b, map[string]string{"reason": text}); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q is printed with %U in it: %q", text, r, b.String())
			}
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back["reason"] != text {
			t.Errorf("%q comes back as %q, %v", text, back["reason"], err)
		}
	}
}

// What flags take of a few words is completed; a flag that is not there would be a panic.
func TestFlagsAreCompleted(t *testing.T) {
	root := newRootCommand()
	var out strings.Builder
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetArgs([]string{"__complete", "export", "--format", ""})
	if err := root.Execute(); err != nil || !strings.Contains(out.String(), "asciicast-v2\n") || !strings.Contains(out.String(), ":4") {
		t.Errorf("%q, %v", out.String(), err)
	}
}
