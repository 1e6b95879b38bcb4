package console

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/recorder/terminal"
)

// span is a length of time as people say it, to the minute; under a minute to the second.
func span(d time.Duration) string {
	if d <= 0 {
		return "none"
	}
	if d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	d = d.Round(time.Minute)
	days, hours, minutes := int(d/(24*time.Hour)), int(d/time.Hour)%24, int(d/time.Minute)%60
	var parts []string
	for _, p := range []struct {
		n    int
		unit string
	}{{days, "d"}, {hours, "h"}, {minutes, "min"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.unit))
		}
	}
	return strings.Join(parts, " ")
}

// clock is a moment since a session began.
func clock(at time.Duration) string {
	return fmt.Sprintf("%02d:%02d:%02d.%03d", int(at.Hours()), int(at.Minutes())%60, int(at.Seconds())%60, at.Milliseconds()%1000)
}

// took is how long a statement ran.
func took(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return d.Round(time.Millisecond).String()
}

// size is a number of bytes as people say it.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// states are the states of a grant as people say them.
var states = map[string]string{
	"pending": "waits for approval", "approved": "ready to use", "active": "in use", "ended": "over", "denied": "denied",
	"withdrawn": "taken back", "lapsed": "lapsed",
}

// endings are the reasons for which sessions and grants end.
var endings = map[string]string{
	"client_closed": "closed by the client", "target_closed": "closed by the target", "target_failed": "the target failed",
	"killed": "killed", "recorder_failed": "could not be recorded", "draining": "the gateway shut down",
	"protocol_violation": "broke the protocol", "identity_disabled": "the account was closed", "refused": "refused",
	"crashed": "the gateway died", "grant_expired": "the grant ran out", "grant_revoked": "the grant was revoked",
	"grant_released": "the grant was given back", "expired": "ran out", "released": "given back", "revoked": "revoked",
	"identity_gone": "the person is gone", "policy_removed": "the policy no longer allows it", "target_removed": "the target was removed",
	"clock_went_back": "the clock went back", "store_lost": "the store was lost",
}

func ending(reason string) string {
	if said, ok := endings[reason]; ok {
		return said
	}
	return strings.ReplaceAll(reason, "_", " ")
}

// sentence makes one of a refusal's words.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(first)) + s[size:]
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	return s
}

// plain is text that others wrote, with what would turn the reading direction or not be seen at all made visible; lines are
// kept. That it is no HTML is the templates' doing.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Cf, r) && r != '\u200d' {
			return unicode.ReplacementChar
		}
		return r
	}, terminal.Text(s, true))
}
