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
)

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
