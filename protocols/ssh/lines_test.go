package ssh

import (
	"slices"
	"strings"
	"testing"

	"sallyport/protocols/ssh/interpret"
	"sallyport/recorder"
	"sallyport/recorder/replay"
)

// TestLinesOfAShell: what somebody types at a shell's prompt is read from the screen and marked as such; what is typed where nothing is
// shown is not there.
func TestLinesOfAShell(t *testing.T) {
	r := newRig(t)
	r.grant("me", "web-1")
	term := r.terminal(t, "-tt", "me@web-1@gw", "bash --norc --noprofile -i")
	prompts := 0
	at := func() { // waits for one prompt more
		prompts++
		eventually(t, "the next prompt", func() bool { return strings.Count(term.shown(), "at> ") >= prompts })
	}
	term.send("PS1='at''> '; bind 'set enable-bracketed-paste off'\n")
	at()
	for _, line := range []string{"echo one", "stty -echo; read x; stty echo", "\x1b[A\x1b[A again"} {
		term.send(line)
		if strings.Contains(line, "read") {
			term.send("\n")
			eventually(t, "the echo is off", func() bool { return strings.Contains(term.shown(), "stty echo\r\n") })
			term.send("opensesame\n")
		} else {
			term.send("\n")
		}
		at()
	}
	term.send("exit 3\n")
	if status := term.status(); status != 3 {
		t.Errorf("status %d; it showed %q", status, term.shown())
	}
	var (
		lines         []string
		timeline      strings.Builder
		marked, found bool
	)
	for _, item := range r.items(r.ended().ID) {
		if item.Kind == recorder.ItemCommand && item.Via == interpret.ViaScreen {
			lines = append(lines, item.Command)
			if item.Fields["heuristic"] == "" {
				t.Errorf("it is not marked as a guess: %+v", item)
			}
		}
	}
	// Wherever people read it, it says that it is a guess.
	if err := replay.Timeline(t.Context(), must(r.recorder.Items(t.Context(), r.last().ID))(t), &timeline, replay.Options{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(timeline.String(), "$ echo one again  "+recorder.Guessed) {
		t.Errorf("the timeline does not say that it is a guess:\n%s", timeline.String())
	}
	for m, err := range replay.Markers(must(r.recorder.Items(t.Context(), r.last().ID))(t), replay.Options{}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Label == "echo one again "+recorder.Guessed {
			marked = true
		}
	}
	if !marked {
		t.Error("no mark on the replay's line says that it is a guess")
	}
	for m, err := range r.recorder.Search(t.Context(), recorder.Query{Text: "echo one again", Limit: 10}) {
		if err != nil {
			t.Fatal(err)
		}
		found = found || m.Item.Guess() && m.Line == "echo one again"
	}
	if !found {
		t.Error("search does not find it, or not as a guess")
	}
	if want := []string{"echo one", "stty -echo; read x; stty echo", "echo one again", "exit 3"}; !slices.Equal(lines, want) {
		t.Errorf("%q, want %q; it showed %q", lines, want, term.shown())
	}
}
