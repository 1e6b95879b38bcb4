package replay

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"sallyport/recorder/item"
)

// TestSegments states that the pieces of a recording follow the player's rules, hold every output once and in order, and begin
// with what was shown before them.
func TestSegments(t *testing.T) {
	const each, total = 100 * time.Millisecond, 100
	items := func(from time.Duration) iter.Seq2[item.Item, error] {
		return func(yield func(item.Item, error) bool) {
			if !yield(item.Item{Kind: item.Command, Via: "shell", Channel: 1, Columns: 40, Lines: 5}, nil) {
				return
			}
			for n := range total {
				at := time.Duration(n) * each
				if n == 50 && !yield(item.Item{Kind: item.Resize, Channel: 1, At: at, Columns: 60, Lines: 6}, nil) {
					return
				}
				if !yield(item.Item{Kind: item.Output, Channel: 1, At: at, Data: fmt.Appendf(nil, "line %d <\x1b]0;title\x07\xff>\r\n", n)}, nil) {
					return
				}
				if !yield(item.Item{Kind: item.Output, Channel: 2, At: at, Data: []byte("another channel")}, nil) {
					return
				}
			}
		}
	}
	s := Divide([]time.Duration{0, 5 * time.Millisecond, 2 * time.Second, 2*time.Second + 3*time.Millisecond, 7300 * time.Millisecond, time.Hour}, total*each)
	if len(s.Starts) != 3 || s.Starts[0] != 0 || s.Starts[1] != 2*time.Second+time.Microsecond {
		t.Fatalf("%v", s)
	}
	index, err := json.Marshal(s.Index(40, 5, []Marker{{At: time.Second, Label: "here"}}, func(n int) string { return fmt.Sprint("segments/", n) }))
	if err != nil || !strings.Contains(string(index), `"duration":10,"markers":[[1,"here"]],"segments":[{"start":0,"url":"segments/0"}`) {
		t.Errorf("%s %v", index, err)
	}
	var all strings.Builder
	for n := range s.Starts {
		var w strings.Builder
		if err := s.Segment(items(s.Starts[n]), &w, n, 1); err != nil {
			t.Fatal(err)
		}
		var segment struct {
			Snapshot struct {
				Cols, Rows int
				Init       string
			}
			Events [][3]any
		}
		if err := json.Unmarshal([]byte(w.String()), &segment); err != nil {
			t.Fatalf("%v in %s", err, w.String())
		}
		from, to, _ := s.Bounds(n)
		if at := segment.Events[0][0].(float64); at != from.Seconds() {
			t.Errorf("segment %d begins at %v, want %v", n, at, from.Seconds())
		}
		last := -1.0
		for _, e := range segment.Events {
			at := e[0].(float64)
			if at < last || at < from.Seconds() || n < len(s.Starts)-1 && at >= to.Seconds() {
				t.Errorf("segment %d: an event at %v, after %v, of %v to %v", n, at, last, from, to)
			}
			if last = at; e[1] == "o" {
				all.WriteString(e[2].(string))
			}
		}
		if n == len(s.Starts)-1 && last != s.Duration.Seconds() {
			t.Errorf("the last event is at %v", last)
		}
		if n > 0 && !strings.Contains(segment.Snapshot.Init, fmt.Sprintf("line %d ", int(from/each))) {
			t.Errorf("segment %d begins with %q", n, segment.Snapshot.Init)
		}
		if want := map[int]int{0: 40, 1: 40, 2: 60}[n]; segment.Snapshot.Cols != want {
			t.Errorf("segment %d is %d wide", n, segment.Snapshot.Cols)
		}
	}
	var want strings.Builder
	for n := range total {
		fmt.Fprintf(&want, "line %d <\uFFFD>\r\n", n)
	}
	if all.String() != want.String() {
		t.Errorf("the pieces hold %q", all.String())
	}
	if err := s.Segment(items(0), &all, 3, 1); err == nil {
		t.Error("there is a fourth segment")
	}
}
