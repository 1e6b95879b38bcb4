package recorder

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/configs"
	"sallyport/recorder/format"
)

// talk is a protocol of statements, some of which fail, and a terminal.
type talk struct{ ref int }

func (k *talk) Interpret(event Event, emit func(Item)) {
	switch event.Type {
	case format.TypeSaid:
		k.ref++
		emit(Item{Kind: ItemStatement, Ref: k.ref, SQL: string(event.Data)})
	case format.TypeAnswered:
		emit(Item{Kind: ItemOutput, Stream: "stdout", Data: event.Data})
	case format.TypeAnsweredError:
		emit(Item{Kind: ItemResult, Ref: k.ref, Error: string(event.Data), SQLState: "42601"})
	}
}

func (*talk) Finish(func(Item)) {}

var talking = map[string]func(format.Header) Interpreter{"test": func(format.Header) Interpreter { return &talk{} }}

// openIndexed opens a recorder with an index, as a gateway does.
func openIndexed(t testing.TB, dir string) *Recorder {
	t.Helper()
	r, err := Open(t.Context(), Options{
		Dir: dir, Log: testLog(t), Index: filepath.Join(dir, "index.db"), Interpreters: talking,
		Config: configs.Recording{Durability: configs.Written},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

// indexed waits until everything that has ended is in the index.
func indexed(t testing.TB, r *Recorder) {
	t.Helper()
	var s IndexStatus
	eventually(t, "the index is made", func() bool {
		s, _ = r.IndexStatus()
		return s.Error == "" && s.Behind == 0 && s.Sessions+s.Live == len(r.sessions())
	})
}

// events make a session's talk, some of it broken off anywhere.
func chatter(r *rand.Rand) []Event {
	words := []string{"SELECT", "drop table", "orders", "id = 42", "émigré", "/etc/passwd", "x", "日本語", "\xff", "\x00"}
	var events []Event
	for range 1 + r.IntN(20) {
		var text []string
		for range 1 + r.IntN(4) {
			text = append(text, words[r.IntN(len(words))])
		}
		e := said(strings.Join(text, " "))
		switch r.IntN(4) {
		case 0:
			e.Type = format.TypeAnswered
		case 1:
			e.Type, e.Data = format.TypeAnswered, append(e.Data, '\n')
		case 2:
			events = append(events, e)
			e = Event{Type: format.TypeAnsweredError, Data: []byte("no")}
		}
		events = append(events, e)
	}
	return events
}

// agree compares searches by the index with searches that read everything.
func agree(t *testing.T, r *Recorder, rnd *rand.Rand) {
	t.Helper()
	texts := []string{"select", "drop table", "orders id", "x", "42", "é", "日本語", "passwd", "\xff", "\x00 x", "nowhere", "sel"}
	sessions, err := r.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := range 40 {
		q := Query{Text: texts[i%len(texts)], Errors: rnd.IntN(3) == 0}
		if rnd.IntN(3) == 0 {
			q.Target = fmt.Sprint("t-", rnd.IntN(3))
		}
		if rnd.IntN(4) == 0 {
			q.Person = "ali"
		}
		if rnd.IntN(4) == 0 {
			q.Account = "app"
		}
		if rnd.IntN(4) == 0 {
			q.Limit = 1 + rnd.IntN(10)
		}
		if rnd.IntN(4) == 0 {
			q.Since = sessions[rnd.IntN(len(sessions))].Started
		}
		if rnd.IntN(4) == 0 {
			q.Until = sessions[rnd.IntN(len(sessions))].Started
		}
		got := collect(t, r.Search(t.Context(), q))
		reader := searching{recorder: r, ctx: t.Context(), query: q}
		var want []Match
		reader.yield = func(m Match, err error) bool {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, m)
			return q.Limit == 0 || len(want) < q.Limit
		}
		reader.read(sessions)
		total += len(want)
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if diff := cmp.Diff(strings.Split(string(b), `{"session"`), strings.Split(string(a), `{"session"`)); diff != "" {
			t.Fatalf("%+v (-read +index):\n%s", q, diff)
		}
	}
	if total == 0 {
		t.Fatal("nothing was found at all: this test sees nothing")
	}
}

func someHeader(n int) format.Header {
	h := header(fmt.Sprintf("s%04d", n))
	h.Target, h.Account = fmt.Sprint("t-", n%3), []string{"app", "report"}[n%2]
	if n%4 == 0 {
		h.Identity.Name, h.Identity.Email = "Bob", ""
	}
	return h
}

// What the index finds is what reading all finds: in sessions that have ended and live ones, after a restart, after a
// rebuild, in an index that was deleted or spoilt, and when it can't be had at all.
func TestTheIndexFindsWhatReadingFinds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 7))
	dir := t.TempDir()
	r := openIndexed(t, dir)
	n := 0
	var live []*Recording
	grow := func(sessions int) {
		for range sessions {
			rec, err := r.Begin(t.Context(), someHeader(n), "")
			if err != nil {
				t.Fatal(err)
			}
			live = append(live, rec)
			n++
		}
		for _, rec := range live {
			if err := rec.Record(t.Context(), chatter(rnd)...); err != nil {
				t.Fatal(err)
			}
		}
		for len(live) > 3 {
			if err := live[0].End(format.End{Reason: "done"}); err != nil {
				t.Fatal(err)
			}
			live = live[1:]
		}
	}
	grow(6)
	agree(t, r, rnd) // at once: nothing waits for the index
	indexed(t, r)
	agree(t, r, rnd)
	grow(10)
	agree(t, r, rnd)
	indexed(t, r)

	if err := r.RebuildIndex(); err != nil {
		t.Fatal(err)
	}
	agree(t, r, rnd) // while it is made
	indexed(t, r)
	agree(t, r, rnd)

	// What makes it useless under way is noticed by the search that meets it.
	if err := os.Truncate(filepath.Join(dir, "index.db"), 20000); err != nil {
		t.Fatal(err)
	}
	agree(t, r, rnd)
	grow(3)
	indexed(t, r)
	agree(t, r, rnd)

	for _, spoil := range []func(path string) error{
		os.Remove,
		func(path string) error { return os.WriteFile(path, []byte("no index"), 0o600) },
		func(string) error { return nil },
	} {
		live = nil // open recordings are closed as crashed by the next start
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := spoil(filepath.Join(dir, "index.db")); err != nil {
			t.Fatal(err)
		}
		r = openIndexed(t, dir)
		agree(t, r, rnd)
		indexed(t, r)
		grow(4)
		agree(t, r, rnd)
	}

	r.Close(t.Context())
	for _, end := range []string{"", "-wal", "-shm"} {
		os.Remove(filepath.Join(dir, "index.db"+end))
	}
	if err := os.Mkdir(filepath.Join(dir, "index.db"), 0o700); err != nil { // can't be opened, nor removed
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.db", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, live = openIndexed(t, dir), nil
	grow(2)
	agree(t, r, rnd)
	if s, ok := r.IndexStatus(); !ok || s.Error == "" || s.Behind == 0 {
		t.Errorf("an index that cannot be had: %+v", s)
	}
}

// recordAndIndex is a gateway that is killed while it records and indexes.
func recordAndIndex(dir string) {
	r, err := Open(context.Background(), Options{
		Dir: dir, Index: filepath.Join(dir, "index.db"), Interpreters: talking,
		Config: configs.Recording{Durability: configs.Written}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	var live []*Recording
	for n := len(r.sessions()); ; n++ {
		rec, err := r.Begin(context.Background(), someHeader(n), "")
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		live = append(live, rec)
		for _, rec := range live {
			rec.Record(context.Background(), chatter(rnd)...)
		}
		if len(live) > 5 {
			live[0].End(format.End{Reason: "done"})
			live = live[1:]
		}
		found := 0
		for range r.Search(context.Background(), Query{Text: "select"}) { // which brings the index up to date
			found++
		}
		fmt.Println("found", found)
	}
}

// After a kill -9 at any instant of recording and indexing, the index finds what reading finds.
func TestTheIndexSurvivesKills(t *testing.T) {
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(9, 9))
	for round := range 4 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "SALLYPORT_TEST_INDEX_CHILD="+dir)
		child.Stderr = t.Output()
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Some sessions long, and then in the midst of whatever it does.
		lines := 4 + rnd.IntN(8)
		b := make([]byte, 1)
		for lines > 0 {
			if _, err := out.Read(b); err != nil {
				t.Fatalf("round %d: the child ended by itself: %v", round, err)
			}
			if b[0] == '\n' {
				lines--
			}
		}
		killed := time.AfterFunc(time.Duration(rnd.IntN(20))*time.Millisecond, func() { child.Process.Kill() })
		child.Wait()
		killed.Stop()
		r := openIndexed(t, dir)
		agree(t, r, rnd)
		indexed(t, r)
		agree(t, r, rnd)
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
