package recorder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/recorder/format"
)

// shouting is an Interpreter that makes a statement of what is said, one item late.
type shouting struct{ held *Item }

func (s *shouting) Interpret(event Event, emit func(Item)) {
	if event.Type == format.TypeSaid {
		s.Finish(emit)
		s.held = &Item{Kind: ItemStatement, At: event.At, SQL: string(event.Data)}
	}
}

func (s *shouting) Finish(emit func(Item)) {
	if s.held != nil {
		emit(*s.held)
		s.held = nil
	}
}

func told(t *testing.T, r *Recorder, session string) []Item {
	t.Helper()
	items, err := r.Items(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, items)
}

func TestItems(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	r.Interpreters = map[string]func(format.Header) Interpreter{"test": func(format.Header) Interpreter { return &shouting{} }}
	rec := begin(t, r, "s1")
	if err := rec.Record(t.Context(), said("SELECT 1"), format.JSON(format.TypeNote, 0, format.Note{Kind: "warned", Text: "soon"}),
		format.JSON(format.TypeConnected, 0, format.Connected{Local: "a", Remote: "b", BackendPID: 42, Serial: 11526125837594357761}), said("SELECT 2")); err != nil {
		t.Fatal(err)
	}
	if live := told(t, r, "s1"); live[len(live)-1].Kind != ItemEnd || live[len(live)-1].Reason != "unfinished" {
		t.Errorf("a live session ends with %+v", live[len(live)-1])
	}
	if err := rec.End(format.End{Reason: "killed", Detail: "by bob"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, item := range told(t, r, "s1") {
		if item.Command == "connected" && (item.Fields["backend_pid"] != "42" || item.Fields["certificate_serial"] != "11526125837594357761") {
			t.Errorf("connected: %v", item.Fields)
		}
		if item.Session != "s1" || item.Number != i+1 || item.Time.IsZero() || i > 0 && item.At <= 0 {
			t.Errorf("item %d: %+v", i, item)
		}
		got = append(got, fmt.Sprintf("%s/%s%s%s%s%s", item.Kind, item.SQL, item.Command, item.Reason, item.Text, item.Fields["backend_pid"]))
	}
	want := "start/ note/warnedsoon note/connected42 statement/SELECT 1 statement/SELECT 2 end/killedby bob"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestSessionsOldestFirst(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	for _, s := range []string{"c", "a", "b"} {
		begin(t, r, s)
	}
	sessions, err := r.Sessions(t.Context())
	if err != nil || len(sessions) != 3 || sessions[0].Session != "c" || sessions[2].Session != "b" {
		t.Fatalf("%v %v", sessions, err)
	}
}

func TestSearch(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	r.Interpreters = map[string]func(format.Header) Interpreter{"test": func(format.Header) Interpreter { return &shouting{} }}
	sql := begin(t, r, "sql")
	if err := sql.Record(t.Context(), said("DROP TABLE orders"), said("SELECT 1")); err != nil {
		t.Fatal(err)
	}
	h := header("term")
	h.Protocol, h.Target, h.Grant, h.Identity = "other", "web-1", "g-2", format.Party{Subject: "2", Name: "Bob"}
	term, err := r.Begin(t.Context(), h, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range []string{"$ ls\r\n\x1b[1mdro", "\x1b[3", "1mp t\x1b]0;title\x07able", " x\x1b[0m\r\nother\r\n$ last drop table"} {
		if err := term.Record(t.Context(), Event{Type: format.TypeAnswered, Data: []byte(piece)}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for i, c := range []struct {
		query Query
		want  string
	}{
		{Query{Text: "drop table"}, "term:drop table x|term:$ last drop table|sql:DROP TABLE orders"},
		{Query{Text: "DROP", Limit: 2}, "term:drop table x|term:$ last drop table"},
		{Query{Text: "drop", Target: "orders"}, "sql:DROP TABLE orders"},
		{Query{Text: "drop", Grant: "g-1"}, "sql:DROP TABLE orders"},
		{Query{Text: "drop", Person: "ALICE@"}, "sql:DROP TABLE orders"},
		{Query{Text: "drop", Person: "carol"}, ""},
		{Query{Text: "drop", Since: now.Add(time.Hour)}, ""},
		{Query{Text: "drop", Until: now.Add(-time.Hour)}, ""},
		{Query{Text: "title"}, ""},
		{Query{Text: "dropped"}, ""},
	} {
		var got []string
		for _, m := range collect(t, r.Search(t.Context(), c.query)) {
			got = append(got, m.Session+":"+m.Line)
			if m.Header.Session != m.Session || m.Item.Number == 0 {
				t.Errorf("%d: %+v", i, m)
			}
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%d: got %q, want %q", i, got, c.want)
		}
	}
}

func TestExport(t *testing.T) {
	r := openRecorder(t, t.TempDir(), configs.Written)
	r.Interpreters = map[string]func(format.Header) Interpreter{"test": func(format.Header) Interpreter { return &shouting{} }}
	rec := begin(t, r, "s1")
	if err := rec.Record(t.Context(), said("SELECT '<&>'")); err != nil {
		t.Fatal(err)
	}
	if err := rec.End(format.End{Reason: "done"}); err != nil {
		t.Fatal(err)
	}
	for form, want := range map[string]string{"jsonl": `"sql":"SELECT '<&>'"`, "text": "SELECT '<&>'", "asciicast": "SELECT '<&>'", "asciicast-v2": "SELECT '<&>'"} {
		var out bytes.Buffer
		if err := r.Export(t.Context(), "s1", form, &out, ExportOptions{}); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", form, err, out.String())
		}
		if form != "text" {
			for line := range strings.Lines(out.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("%s: no JSON: %s", form, line)
				}
			}
		}
	}
	if err := r.Export(t.Context(), "s1", "video", &bytes.Buffer{}, ExportOptions{}); !refusal.Is(err, refusal.Invalid) {
		t.Error(err)
	}
	if err := r.Export(t.Context(), "nobody", "jsonl", &bytes.Buffer{}, ExportOptions{}); !refusal.Is(err, refusal.NotFound) {
		t.Error(err)
	}
}
