package ssh

import (
	"errors"
	"strings"
	"unicode"

	"sallyport/internal/refusal"
)

// The exit statuses of what the gateway itself answers instead of a command; documented in docs/ssh.md.
const (
	exitRefused = 1   // no grant, no such target: something for the user to do
	exitFailed  = 255 // target, recorder or gateway not available: what ssh itself exits with when a connection fails
)

// words is a refusal as users see it, in lines that end with newline.
func words(r *refusal.Refusal, newline string) string {
	var b strings.Builder
	b.WriteString("sallyport: " + shown(r.Message) + newline)
	for _, line := range []string{r.Detail, r.Hint} {
		if line != "" {
			b.WriteString("  " + shown(line) + newline)
		}
	}
	return b.String()
}

// oneLine is a refusal in one line without its end, for whom nobody waits: scripts, and what shows a line of what they say.
func oneLine(r *refusal.Refusal) string {
	text := "sallyport: " + shown(r.Message)
	if r.Detail != "" {
		text += ": " + shown(r.Detail)
	}
	if r.Hint != "" {
		text += "; next: " + shown(r.Hint)
	}
	return text
}

// wordsFor is a refusal for somebody at a terminal, or for what has none.
func wordsFor(r *refusal.Refusal, terminal bool) string {
	if terminal {
		return words(r, "\n")
	}
	return oneLine(r) + "\n"
}

// shown is s without what a terminal would obey, for words that may hold what somebody typed.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// exitOf is the exit status that says what kind of no it was.
func exitOf(r *refusal.Refusal) uint32 {
	switch r.Code {
	case refusal.TargetFailed, refusal.RecorderFailed, refusal.Unwitnessed, refusal.Draining, refusal.TooMany:
		return exitFailed
	default:
		return exitRefused
	}
}

// asRefusal is err as something that can be told to a user. What is none is the gateway's own failure, whose text is for
// its log.
func (h *Handler) asRefusal(err error) *refusal.Refusal {
	if r := refusal.Of(err); r != nil {
		return r
	}
	var cut *cutError
	if errors.As(err, &cut) {
		return refusal.New(refusal.NoGrant, "%s", cut.sentence)
	}
	h.Log.Error("an SSH session could not begin", "error", err)
	return refusal.New(refusal.RecorderFailed, "the gateway could not begin a session").WithHint("tell its administrators; its log has the reason")
}
