package interpret

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// What a real server said, as kept by the tests of package postgres (go test ./protocols/postgres -run Interpretation -update).
func transcripts(t testing.TB) map[string][]format.Event {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d transcripts, %v", len(files), err)
	}
	all := map[string][]format.Event{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var events []format.Event
		if err := json.Unmarshal(b, &events); err != nil {
			t.Fatal(err)
		}
		all[file] = events
	}
	return all
}

func interpretAll(events []format.Event) []item.Item {
	var items []item.Item
	emit := func(i item.Item) { items = append(items, i) }
	i := New(format.Header{})
	for _, e := range events {
		i.Interpret(e, emit)
	}
	i.Finish(emit)
	return items
}

func message(t byte, body string) []byte {
	b := []byte{t, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)+4))
	return append(b, body...)
}

// TestRealConversations holds for what a real server says: every result finds its statement, and how the bytes were cut into
// events makes no difference.
func TestRealConversations(t *testing.T) {
	for file, events := range transcripts(t) {
		items := interpretAll(events)
		statements, results := map[int]bool{}, map[int]bool{}
		for _, i := range items {
			switch i.Kind {
			case item.Note:
				if strings.HasPrefix(i.Text, "unattributed") {
					t.Errorf("%s: %s", file, i.Text)
				}
			case item.Statement:
				statements[i.Ref] = true
			case item.Result:
				if !statements[i.Ref] {
					t.Errorf("%s: a result of statement %d, which was not sent before", file, i.Ref)
				}
				results[i.Ref] = true
			}
		}
		for ref := range statements {
			if !results[ref] && !strings.Contains(file, "B8") { // a fetch from a cursor of SQL's that ends in the middle
				t.Errorf("%s: statement %d has no result", file, ref)
			}
		}
		var pieces []format.Event
		for _, e := range events {
			if e.Type == TypeClientBulk {
				pieces = append(pieces, e)
				continue
			}
			for i := range e.Data {
				pieces = append(pieces, format.Event{Type: e.Type, At: e.At, Data: e.Data[i : i+1]})
			}
		}
		if again := interpretAll(pieces); !reflect.DeepEqual(items, again) {
			t.Errorf("%s: byte by byte it means something else:\n%+v\n%+v", file, items, again)
		}
	}
}

// TestStatementComesWhenSent is what makes a recording that breaks off say what may have run.
func TestStatementComesWhenSent(t *testing.T) {
	var items []item.Item
	emit := func(i item.Item) { items = append(items, i) }
	i := New(format.Header{})
	i.Interpret(format.Event{Type: TypeClient, Data: message('P', "\x00delete from t where id = $1\x00\x00\x00")}, emit)
	i.Interpret(format.Event{Type: TypeClient, Data: message('B', "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x015\x00\x00")}, emit)
	if len(items) != 0 {
		t.Fatalf("something ran before Execute: %+v", items)
	}
	i.Interpret(format.Event{Type: TypeClient, Data: message('E', "\x00\x00\x00\x00\x00")}, emit)
	if len(items) != 1 || items[0].SQL != "delete from t where id = $1" || len(items[0].Params) != 1 || items[0].Params[0].Text != "5" {
		t.Fatalf("got %+v", items)
	}
}

func TestHugeStatement(t *testing.T) {
	sql := "select '" + strings.Repeat("x", 3<<20) + "'"
	data := message('Q', sql+"\x00")
	var events []format.Event
	for len(data) > 0 {
		n := min(len(data), 60_000)
		events, data = append(events, format.Event{Type: TypeClient, Data: data[:n]}), data[n:]
	}
	items := interpretAll(events)
	if len(items) != 2 || len(items[0].SQL) != keepBody || items[0].SHA256 == "" || items[0].Bytes != int64(len(sql)) {
		t.Fatalf("got %d items, %d bytes of SQL, hash %q, size %d", len(items), len(items[0].SQL), items[0].SHA256, items[0].Bytes)
	}
}

func TestTextThatIsNoUTF8(t *testing.T) {
	items := interpretAll([]format.Event{
		{Type: TypeServer, Data: message('S', "client_encoding\x00LATIN1\x00")},
		{Type: TypeClient, Data: message('Q', "select '\xe4'\x00")},
	})
	if i := items[0]; i.SQL != "select '\uFFFD'" || string(i.Data) != "select '\xe4'" || i.Fields["client_encoding"] != "LATIN1" {
		t.Fatalf("got %+v", i)
	}
}

// TestLosesTheThreadAndFindsIt gives answers that fit nothing; the next sure place is ReadyForQuery.
func TestLosesTheThreadAndFindsIt(t *testing.T) {
	items := interpretAll([]format.Event{
		{Type: TypeServer, Data: message('Z', "I")},
		{Type: TypeClient, Data: message('Q', "select 1\x00")},
		{Type: TypeServer, Data: append(message('2', ""), message('Z', "I")...)},
		{Type: TypeClient, Data: message('Q', "select 2\x00")},
		{Type: TypeServer, Data: append(message('C', "SELECT 1\x00"), message('Z', "I")...)},
	})
	var got []string
	for _, i := range items {
		got = append(got, string(i.Kind)+" "+i.SQL+i.Tag+i.Text+i.Error)
	}
	want := []string{
		"statement select 1", "note unattributed: BindComplete came and nothing asked for it",
		"result outcome unknown: the target was ready without having answered it", "statement select 2", "result SELECT 1",
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %q\nwant %q", got, want)
	}
}

// TestMemoryIsBounded prepares many large statements and binds many large parameters that are never executed nor closed.
func TestMemoryIsBounded(t *testing.T) {
	i := New(format.Header{})
	emit := func(item.Item) {}
	text := strings.Repeat("x", 200_000)
	for n := range 800 {
		name := string(binary.BigEndian.AppendUint32([]byte("s"), uint32(n|0x01010101)))
		i.Interpret(format.Event{Type: TypeClient, Data: message('P', name+"\x00select '"+text+"'\x00\x00\x00")}, emit)
		i.Interpret(format.Event{Type: TypeClient, Data: message('B', name+"\x00"+name+"\x00\x00\x00\x00\x01"+string(binary.BigEndian.AppendUint32(nil, uint32(len(text))))+text+"\x00\x00")}, emit)
		i.Interpret(format.Event{Type: TypeServer, Data: append(message('1', ""), message('2', "")...)}, emit)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 3*maxHeld {
		t.Errorf("%d MiB are held after 320 MiB went through", m.HeapAlloc>>20)
	}
	if len(i.stmts) == 0 {
		t.Error("nothing is remembered")
	}
	runtime.KeepAlive(i)
}

func TestServerLogKeepsControlMessagesAndCountsRows(t *testing.T) {
	var log ServerLog
	add := func(b []byte) { log.Add(b[0], true, len(b), b) }
	row := message('D', "\x00\x01\x00\x00\x00\x01x")
	add(message('T', "abc"))
	add(row)
	add(row)
	log.Add('D', true, 1005, append(message('D', "")[:5], make([]byte, 95)...)) // a row in two pieces
	log.Add('D', false, 1005, make([]byte, 905))
	add(message('C', "SELECT 3\x00"))
	big := message('E', "SERROR\x00M"+strings.Repeat("x", 20_000)+"\x00\x00")
	log.Add('E', true, len(big), big[:10_000])
	log.Add('E', false, len(big), big[10_000:])
	add(message('Z', "I"))
	var got []frame
	var r frames
	if !r.feed(log.Take(), func(f frame) { got = append(got, f) }) || len(got) != 5 {
		t.Fatalf("got %d frames", len(got))
	}
	if got[0].typ != 'T' || got[2].typ != 'C' || got[4].typ != 'Z' || got[3].typ != markCut || len(got[3].body) > keepCut+10 {
		t.Errorf("got %c %c %c, cut %d with %d bytes", got[0].typ, got[2].typ, got[4].typ, got[3].typ, len(got[3].body))
	}
	if rows, size, _, ok := twoNumbers(got[1].body); got[1].typ != markRows || !ok || rows != 3 || size != 7+7+1000 {
		t.Errorf("got %d rows of %d bytes, %v", rows, size, ok)
	}
	if len(log.Take()) != 0 {
		t.Error("taken twice")
	}
}

func FuzzInterpret(f *testing.F) {
	for _, events := range transcripts(f) {
		var script []byte
		for _, e := range events {
			script = append(append(script, byte(e.Type), byte(len(e.Data)>>8), byte(len(e.Data))), e.Data...)
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		count := 0
		emit := func(i item.Item) {
			count++
			if _, err := json.Marshal(i); err != nil {
				t.Fatal(err)
			}
		}
		i := New(format.Header{})
		for len(script) > 3 {
			kind, n := script[0], min(int(script[1])<<8|int(script[2]), len(script)-3)
			i.Interpret(format.Event{Type: format.Type(kind), Data: script[3 : 3+n]}, emit)
			script = script[3+n:]
		}
		i.Finish(emit)
	})
}
