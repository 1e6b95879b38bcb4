package ssh

import (
	"slices"
	"strings"
	"testing"

	"sallyport/protocols/ssh/interpret"
	"sallyport/recorder"
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
	var lines []string
	for _, item := range r.items(r.ended().ID) {
		if item.Kind == recorder.ItemCommand && item.Via == interpret.ViaScreen {
			lines = append(lines, item.Command)
			if item.Fields["heuristic"] == "" {
				t.Errorf("it is not marked as a guess: %+v", item)
			}
		}
	}
	if want := []string{"echo one", "stty -echo; read x; stty echo", "echo one again", "exit 3"}; !slices.Equal(lines, want) {
		t.Errorf("%q, want %q; it showed %q", lines, want, term.shown())
	}
}
