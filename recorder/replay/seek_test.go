package replay

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

func given(items ...item.Item) iter.Seq2[item.Item, error] {
	return func(yield func(item.Item, error) bool) {
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	}
}

func TestPoints(t *testing.T) {
	zone := time.FixedZone("here", 2*3600)
	began := time.Date(2026, 1, 31, 21, 30, 0, 5e8, time.UTC) // 23:30 here
	for text, want := range map[string]time.Duration{
		"90s":                  90 * time.Second,
		"+1h2m":                62 * time.Minute,
		"0s":                   0,
		"23:30":                0, // the minute in which it began
		"23:45":                15*time.Minute - 500*time.Millisecond,
		"00:10:30":             40*time.Minute + 30*time.Second - 500*time.Millisecond, // the next day
		"2026-01-31T23:31":     time.Minute - 500*time.Millisecond,
		"2026-02-01 00:30:00":  time.Hour - 500*time.Millisecond,
		"2026-01-31T21:31:00Z": time.Minute - 500*time.Millisecond,
	} {
		p, err := ParsePoint(text, zone)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, ok := p.at(began, zone); !ok || got != want {
			t.Errorf("%s is %v after the beginning, want %v", text, got, want)
		}
	}
	for _, text := range []string{"", "soon", "-5s", "25:00", "2026-13-01"} {
		if _, err := ParsePoint(text, zone); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, ok := (Point{}).at(began, zone); ok {
		t.Error("no point is one")
	}
}

func point(t *testing.T, text string) Point {
	t.Helper()
	p, err := ParsePoint(text, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var began = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func beginning(protocol string) item.Item {
	return item.Item{Kind: item.Start, Header: &format.Header{Session: "s-1", Protocol: protocol, Started: began}}
}

// Of a terminal what came before is painted at once, what follows takes its time, and what is after is not shown.
func TestSeekingInATerminal(t *testing.T) {
	out := func(at time.Duration, text string) item.Item {
		return item.Item{Kind: item.Output, At: at, Data: []byte(text)}
	}
	items := given(beginning("ssh"), out(10*time.Second, "one\r\n"), out(20*time.Second, "two\r\n"), out(40*time.Second, "three\r\n"), out(50*time.Second, "four\r\n"))
	var waited []time.Duration
	o := Options{From: point(t, "30s"), To: point(t, "12:00:45"), wait: func(_ context.Context, d time.Duration) error {
		waited = append(waited, d)
		return nil
	}}
	var b bytes.Buffer
	if err := Play(t.Context(), items, &b, o); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if !strings.Contains(text, "one\r\ntwo\r\nthree\r\n") || strings.Contains(text, "four") || !strings.HasSuffix(text, resetTerminal) {
		t.Errorf("shown: %q", text)
	}
	var total time.Duration
	for _, d := range waited {
		total += d
	}
	if total != 10*time.Second {
		t.Errorf("waited %v", waited)
	}
	waited = nil
	o = Options{Live: true, wait: o.wait}
	if err := Play(t.Context(), items, &b, o); err != nil {
		t.Fatal(err)
	}
	for _, d := range waited {
		if d != 0 {
			t.Errorf("live output waited %v", d)
		}
	}
}

func TestSeekingInATimelineAndMarkers(t *testing.T) {
	say := func(at time.Duration, sql string) item.Item {
		return item.Item{Kind: item.Statement, At: at, Time: began.Add(at), SQL: sql}
	}
	items := given(beginning("postgres"), say(time.Second, "SELECT 1"), say(5*time.Second, "SELECT\n  2\x1b[2J"), say(9*time.Second, "SELECT 3"),
		item.Item{Kind: item.Command, At: 9500 * time.Millisecond, Via: "shell"}, item.Item{Kind: item.Note, At: 9600 * time.Millisecond, Text: "no marker"})
	var b bytes.Buffer
	if err := Play(t.Context(), items, &b, Options{From: point(t, "2s"), To: point(t, "9s")}); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.Contains(text, "SELECT 1") || !strings.Contains(text, "SELECT 3") || strings.Contains(text, "shell") || !strings.Contains(text, "session s-1") {
		t.Errorf("shown: %s", text)
	}
	var got []string
	for m, err := range Markers(items, Options{From: point(t, "2s")}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Offset()+" "+m.Label)
		if p := point(t, m.Offset()); p.offset != m.At {
			t.Errorf("a marker's place reads back as %v", p.offset)
		}
	}
	if want := `5s SELECT 2\x1b[2J|9s SELECT 3|9.5s shell`; strings.Join(got, "|") != want {
		t.Errorf("%s", strings.Join(got, "|"))
	}
}
