package console

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/recorder/item"
	"sallyport/web/api"
)

// told is items as a recording gives them, numbered.
func told(items ...item.Item) iter.Seq2[item.Item, error] {
	return func(yield func(item.Item, error) bool) {
		for i, it := range items {
			it.Number = i + 1
			if !yield(it, nil) {
				return
			}
		}
	}
}

func statement(ref int, sql string, params ...item.Param) item.Item {
	return item.Item{Kind: item.Statement, Ref: ref, SQL: sql, Params: params}
}

func result(ref int, tag string, took time.Duration) item.Item {
	return item.Item{Kind: item.Result, Ref: ref, Tag: tag, Duration: took}
}

func failed(ref int, state, message string) item.Item {
	return item.Item{Kind: item.Result, Ref: ref, SQLState: state, Error: message}
}

var ended = item.Item{Kind: item.End, Reason: "client_closed"}

func texts(t timeline) (all []string) {
	for _, m := range t.Moments {
		all = append(all, m.Text)
	}
	return all
}

func TestTimelineFilters(t *testing.T) {
	items := func() iter.Seq2[item.Item, error] {
		return told(
			statement(1, "select 1"), result(1, "SELECT 1", time.Millisecond),
			statement(2, "/* c */ -- d\n (insert into t values ($1))", item.Param{Text: "O'Hara"}, item.Param{Null: true}), result(2, "INSERT 0 1", 2*time.Second),
			statement(3, "with x as (delete from t returning *) select * from x"), result(3, "SELECT 2", time.Millisecond),
			statement(4, "CREATE TABLE t2 ()"), statement(5, "nonsense"), result(4, "CREATE TABLE", time.Millisecond), failed(5, "42601", "syntax error"),
			statement(6, "drop table t"), ended,
		)
	}
	for _, test := range []struct {
		choice choice
		want   []string
	}{
		{choice{Show: "all"}, []string{"select 1", "/* c */ -- d\n (insert into t values ($1))", "with x as (delete from t returning *) select * from x", "CREATE TABLE t2 ()", "nonsense", "drop table t", "ended: client_closed"}},
		{choice{Show: "writes"}, []string{"/* c */ -- d\n (insert into t values ($1))"}},
		{choice{Show: "ddl"}, []string{"CREATE TABLE t2 ()", "drop table t"}},
		{choice{Show: "errors"}, []string{"nonsense"}},
		{choice{Show: "slow", Slow: time.Second}, []string{"/* c */ -- d\n (insert into t values ($1))"}},
		{choice{Show: "all", Text: "TABLE T"}, []string{"CREATE TABLE t2 ()", "drop table t"}},
		{choice{Show: "all", From: 8}, []string{"nonsense", "drop table t", "ended: client_closed"}},
	} {
		got, err := follow(items(), "postgres", test.choice)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(texts(got), test.want) {
			t.Errorf("%+v: %q, want %q", test.choice, texts(got), test.want)
		}
		if !got.Complete || got.Damaged != 0 || got.Next != 0 {
			t.Errorf("%+v: %+v", test.choice, got)
		}
	}
	all, err := follow(items(), "postgres", choice{Show: "all"})
	if err != nil {
		t.Fatal(err)
	}
	if m := all.Moments[1]; !slices.Equal(m.Params, []string{"'O''Hara'", "NULL"}) || m.Took != 2*time.Second || !strings.Contains(m.Outcome, "INSERT 0 1") || m.Failed {
		t.Errorf("%+v", m)
	}
	if m := all.Moments[4]; !m.Failed || !strings.Contains(m.Outcome, "42601") || !strings.Contains(m.Outcome, "syntax error") {
		t.Errorf("%+v", m)
	}
	if m := all.Moments[5]; m.Outcome != "" {
		t.Errorf("a statement without a result ended: %+v", m)
	}
}

// Pages follow each other without gap or repetition, and only as much is read as a page needs.
func TestTimelinePages(t *testing.T) {
	const statements = 2*pageOfMoments + 7
	read := 0
	items := func(yield func(item.Item, error) bool) {
		n := 0
		next := func(it item.Item) bool {
			n++
			read++
			it.Number = n
			return yield(it, nil)
		}
		for i := range statements {
			if !next(statement(i+1, fmt.Sprintf("select %d", i))) || !next(result(i+1, "SELECT 1", 0)) {
				return
			}
		}
	}
	var all []string
	from := 1
	for page := range 3 {
		read = 0
		got, err := follow(items, "postgres", choice{Show: "all", From: from})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, texts(got)...)
		if page < 2 && (len(got.Moments) != pageOfMoments || got.Next == 0 || got.Complete) || page == 2 && got.Next != 0 {
			t.Errorf("page %d has %d moments, the next begins at %d", page, len(got.Moments), got.Next)
		}
		if most := 2*pageOfMoments*(page+1) + 4; read > most {
			t.Errorf("page %d read %d items, more than %d", page, read, most)
		}
		from = got.Next
	}
	if len(all) != statements {
		t.Fatalf("%d moments, want %d", len(all), statements)
	}
	for i, text := range all {
		if text != fmt.Sprintf("select %d", i) {
			t.Fatalf("moment %d is %q", i, text)
		}
	}
}

// A pipeline without results does not grow in memory, and shows what there is.
func TestTimelineOfAPipelineWithoutAnswers(t *testing.T) {
	var items []item.Item
	for i := range 3 * mostOpen {
		items = append(items, statement(i+1, "select 1"))
	}
	got, err := follow(told(items...), "postgres", choice{Show: "all", From: 1})
	if err != nil || len(got.Moments) != pageOfMoments || got.Next != pageOfMoments+1 {
		t.Errorf("%d moments, next %d, %v", len(got.Moments), got.Next, err)
	}
}

func TestTimelineOfSSH(t *testing.T) {
	status := 3
	got, err := follow(told(
		item.Item{Kind: item.Command, Channel: 4, Ref: 1, Via: "shell", Terminal: "xterm", Columns: 80, Lines: 24},
		item.Item{Kind: item.Output, Channel: 4, Data: []byte("hello\x1b[2J")},
		item.Item{Kind: item.Command, Channel: 5, Ref: 2, Via: "exec", Command: "rm -rf /\x1b]0;x\a"},
		item.Item{Kind: item.Output, Channel: 5, Data: []byte("no"), Bytes: 2},
		item.Item{Kind: item.Note, Command: "damage", Text: "a hole"},
		item.Item{Kind: item.Exit, Channel: 5, Ref: 2, ExitStatus: &status},
		ended,
	), "ssh", choice{Show: "all"})
	if err != nil {
		t.Fatal(err)
	}
	want := []channel{{Number: 4, Command: "shell", Terminal: true, Columns: 80, Lines: 24}, {Number: 5, Command: `rm -rf /\x1b]0;x\x07`}}
	if !slices.Equal(got.Channels, want) {
		t.Errorf("channels %+v, want %+v", got.Channels, want)
	}
	if got.Damaged != 1 || !got.Complete || got.Output != 11 {
		t.Errorf("%+v", got)
	}
	if len(got.Moments) != 4 || got.Moments[1].Text != `rm -rf /\x1b]0;x\x07` || !got.Moments[1].Failed || !got.Moments[2].Failed || got.Moments[0].Failed {
		t.Errorf("moments %q", texts(got))
	}
}

func TestTimelineStopsAtAnError(t *testing.T) {
	broken := errors.New("the disk is gone")
	_, err := follow(func(yield func(item.Item, error) bool) {
		if yield(statement(1, "select 1"), nil) {
			yield(item.Item{}, broken)
		}
	}, "postgres", choice{})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\tc":               "a\nb\tc",
		"\x1b[31mred":           `\x1b[31mred`,
		"admin\u202etxt.exe":    "admin\uFFFDtxt.exe",
		"zero\u200bwidth\ufeff": "zero\uFFFDwidth\uFFFD",
		"<b>":                   "<b>", // the templates' business
		"👩\u200d💻":              "👩\u200d💻",
		"\xff":                  "\uFFFD",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "none", 0: "none", 12 * time.Second: "12 s", time.Minute: "1 min", 90 * time.Minute: "1 h 30 min",
		26*time.Hour + time.Minute: "1 d 2 h 1 min", 59*time.Minute + 50*time.Second: "1 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

// TestGuessesAreMarked: a command that was read from a terminal's screen is called that wherever the console lists it.
func TestGuessesAreMarked(t *testing.T) {
	guess := item.Item{Kind: item.Command, Channel: 1, Via: item.Screen, Command: "rm -r x"}
	sent := item.Item{Kind: item.Command, Channel: 1, Via: "exec", Command: "rm -r x"}
	for _, c := range []struct {
		it     item.Item
		marked bool
	}{{guess, true}, {sent, false}} {
		m := momentOf(c.it, "ssh")
		if got := slices.Contains(m.Params, item.Guessed); got != c.marked || m.Text != "rm -r x" {
			t.Errorf("in the list %+v is %+v", c.it, m)
		}
		if got := placeOf(api.Match{Item: c.it, Line: c.it.Command}).Guessed != ""; got != c.marked {
			t.Errorf("among what was found, %+v is a guess: %v", c.it, got)
		}
	}
}
