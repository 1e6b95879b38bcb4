package postgres

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/protocols/postgres/interpret"
	"sallyport/protocols/postgres/server"
	"sallyport/protocols/postgres/wire"
	"sallyport/recorder"
	"sallyport/recorder/format"
)

// update keeps what the real server said in interpret/testdata, where interpret's own tests read it.
var update = flag.Bool("update", false, "write interpret/testdata")

// transcript is a conversation with the real server, recorded as the relay records it.
type transcript struct {
	t        *testing.T
	conn     net.Conn
	up       *clientChunk
	down     *targetChunk
	events   []recorder.Event
	answered string // the types of the server's messages
}

func newTranscript(t *testing.T) *transcript {
	c := startCluster(t)
	plain := c.target
	plain.TLS.Mode = "off"
	conn := dialTest(t, c.address)
	b, err := server.Login(conn, server.Credentials{Target: plain, User: "open", Params: []wire.Param{{Name: "database", Value: "postgres"}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &transcript{t: t, conn: conn, up: newClientChunk(), down: &targetChunk{walker: wire.Walker{Limits: &wire.TargetLimits, Hold: hold}}}
	s.record(recorder.Event{Type: interpret.TypeServer, Data: b.Ready})
	return s
}

func (s *transcript) record(e recorder.Event) {
	e.Data = slices.Clone(e.Data)
	s.events = append(s.events, e)
}

// send records and sends messages, in one chunk.
func (s *transcript) send(messages ...[]byte) *transcript {
	s.t.Helper()
	chunk := slices.Concat(messages...)
	if end, err := s.up.take(chunk); err != nil || end != len(chunk) {
		s.t.Fatal(end, err)
	}
	for _, e := range s.up.events {
		s.record(e)
	}
	if _, err := s.conn.Write(chunk); err != nil {
		s.t.Fatal(err)
	}
	return s
}

// until reads until a message of that type has come n times.
func (s *transcript) until(t byte, n int) *transcript {
	s.t.Helper()
	want := strings.Count(s.answered, string(rune(t))) + n
	for strings.Count(s.answered, string(rune(t))) < want {
		frame, err := s.readFrame()
		if err != nil {
			s.t.Fatalf("after %q: %v", s.answered, err)
		}
		s.answered += string(rune(frame[0]))
		if _, err := s.down.take(frame); err != nil {
			s.t.Fatal(err)
		}
		if data := s.down.log.Take(); len(data) > 0 {
			s.record(recorder.Event{Type: interpret.TypeServer, Data: data})
		}
	}
	return s
}

func (s *transcript) readFrame() ([]byte, error) {
	head := make([]byte, 5)
	if _, err := readFull(s.conn, head); err != nil {
		return nil, err
	}
	frame := append(head, make([]byte, binary.BigEndian.Uint32(head[1:])-4)...)
	_, err := readFull(s.conn, frame[5:])
	return frame, err
}

func readFull(conn net.Conn, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := conn.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// items are what the transcript meant, one line each.
func (s *transcript) items() []string {
	var lines []string
	emit := func(i recorder.Item) { lines = append(lines, line(i)) }
	i := interpret.New(format.Header{})
	for _, e := range s.events {
		i.Interpret(e, emit)
	}
	i.Finish(emit)
	return lines
}

// line is an item without what differs from run to run.
func line(i recorder.Item) string {
	b := fmt.Sprintf("%s %d", i.Kind, i.Ref)
	add := func(name, value string) {
		if value != "" {
			b += " " + name + "=" + value
		}
	}
	add("via", i.Via)
	add("command", i.Command)
	add("sql", i.SQL)
	for _, p := range i.Params {
		switch {
		case p.Null:
			add("param", "NULL")
		case p.Binary != nil:
			add("param", fmt.Sprintf("%x", p.Binary))
		default:
			add("param", "'"+p.Text+"'")
		}
	}
	add("tag", i.Tag)
	if i.Rows != nil {
		add("rows", fmt.Sprint(*i.Rows))
	}
	add("state", i.SQLState)
	if i.SQLState == "" {
		add("error", i.Error)
	}
	add("text", strings.TrimSpace(i.Text))
	for _, name := range []string{"portal", "statement", "prepared", "suspended", "frames"} {
		add(name, i.Fields[name])
	}
	return b
}

// The client's messages.
func query(sql string) []byte { return message('Q', sql+"\x00") }

func parse(name, sql string, oids ...uint32) []byte {
	b := binary.BigEndian.AppendUint16([]byte(name+"\x00"+sql+"\x00"), uint16(len(oids)))
	for _, oid := range oids {
		b = binary.BigEndian.AppendUint32(b, oid)
	}
	return message('P', string(b))
}

// bind binds text values; nil is NULL.
func bind(portal, statement string, values ...any) []byte {
	return bindAs(portal, statement, nil, values...)
}

func bindAs(portal, statement string, formats []uint16, values ...any) []byte {
	b := binary.BigEndian.AppendUint16([]byte(portal+"\x00"+statement+"\x00"), uint16(len(formats)))
	for _, f := range formats {
		b = binary.BigEndian.AppendUint16(b, f)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		text := fmt.Sprint(v)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
	}
	return message('B', string(append(b, 0, 0)))
}

func describe(object byte, name string) []byte { return message('D', string(rune(object))+name+"\x00") }
func closeIt(object byte, name string) []byte  { return message('C', string(rune(object))+name+"\x00") }
func execute(portal string, limit uint32) []byte {
	return message('E', string(binary.BigEndian.AppendUint32([]byte(portal+"\x00"), limit)))
}

var (
	sync_ = message('S', "")
	flush = message('H', "")
)

// TestInterpretationAgainstServer has conversations with the real server in which the answer depends on the server's finer rules,
// and looks what the record of each is taken to mean.
func TestInterpretationAgainstServer(t *testing.T) {
	tests := []struct {
		name string
		talk func(*transcript)
		want []string
	}{
		{"simple query", func(s *transcript) {
			s.send(query("select generate_series(1, 3)")).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=select generate_series(1, 3)",
			"result 1 tag=SELECT 3 rows=3",
		}},
		{"several statements and an error in one query", func(s *transcript) {
			s.send(query("select 1; select 2; select 1/0; select 4")).until('Z', 1)
			s.send(query("select 5")).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=select 1; select 2; select 1/0; select 4",
			"result 1 tag=SELECT 1 rows=1", "result 1 tag=SELECT 1 rows=1", "result 1 state=22012",
			"statement 2 via=simple sql=select 5", "result 2 tag=SELECT 1 rows=1",
		}},
		{"empty queries", func(s *transcript) {
			s.send(query("")).until('Z', 1)
			s.send(parse("", ""), bind("", ""), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=simple", "result 1",
			"statement 2 via=execute", "result 2",
		}},
		{"extended, text, NULL and binary parameters", func(s *transcript) {
			s.send(parse("s", "select $1::int4, $2::text, $3::text", 23, 25), bindAs("", "s", []uint16{1, 0, 0}, "\x00\x00\x00\x2a", "x", nil), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=execute sql=select $1::int4, $2::text, $3::text param='42' param='x' param=NULL",
			"result 1 tag=SELECT 1 rows=1",
		}},
		{"one format for all, and types known from a Describe", func(s *transcript) {
			s.send(parse("s", "select $1::int8 + $2::int8"), describe('S', "s"), sync_).until('Z', 1)
			s.send(bindAs("", "s", []uint16{1}, "\x00\x00\x00\x00\x00\x00\x00\x07", "\xff\xff\xff\xff\xff\xff\xff\xff"), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=execute sql=select $1::int8 + $2::int8 param='7' param='-1'",
			"result 1 tag=SELECT 1 rows=1",
		}},
		{"a binary parameter of unknown type stays bytes", func(s *transcript) {
			s.send(parse("", "select $1::int4"), bindAs("", "", []uint16{1}, "\x00\x00\x00\x01"), execute("", 0), sync_).until('Z', 1)
		}, []string{"statement 1 via=execute sql=select $1::int4 param=00000001", "result 1 tag=SELECT 1 rows=1"}},
		{"B1: an error skips to the Sync, a simple query before it too", func(s *transcript) {
			s.send(parse("", "select 1/0"), bind("", ""), execute("", 0), query("select 'skipped'"), parse("x", "select 2"), bind("", "x"), execute("", 0), sync_).until('Z', 1)
			s.send(query("select 3")).until('Z', 1)
		}, []string{
			"statement 1 via=execute sql=select 1/0", "statement 2 via=simple sql=select 'skipped'", "statement 3 via=execute sql=select 2",
			"result 1 state=22012",
			"result 2 error=not run: the server discards what follows an error up to the next Sync",
			"result 3 error=not run: the server discards what follows an error up to the next Sync",
			"statement 4 via=simple sql=select 3", "result 4 tag=SELECT 1 rows=1",
		}},
		{"B1 with a flush: what is sent after the error was seen is skipped too", func(s *transcript) {
			s.send(parse("", "select nothing"), flush).until('E', 1)
			s.send(query("select 'skipped'"), parse("y", "select 2"), bind("", "y"), execute("", 0), sync_).until('Z', 1)
			s.send(bind("", "y"), sync_).until('Z', 1)
		}, []string{
			"other 0 command=parse sql=select nothing state=42703",
			"statement 1 via=simple sql=select 'skipped'", "result 1 error=not run: the server discards what follows an error up to the next Sync",
			"statement 2 via=execute sql=select 2", "result 2 error=not run: the server discards what follows an error up to the next Sync",
			"other 0 command=bind state=26000",
		}},
		{"B2: two Syncs in flight, an error in the first part", func(s *transcript) {
			s.send(parse("", "select 1/0"), bind("", ""), execute("", 0), sync_, parse("", "select 2"), bind("", ""), execute("", 0), sync_).until('Z', 2)
		}, []string{
			"statement 1 via=execute sql=select 1/0", "statement 2 via=execute sql=select 2",
			"result 1 state=22012", "result 2 tag=SELECT 1 rows=1",
		}},
		{"B3: a name that is taken keeps its text", func(s *transcript) {
			s.send(parse("a", "select 'old'"), sync_).until('Z', 1)
			s.send(parse("a", "select 'new'"), sync_, bind("", "a"), execute("", 0), sync_).until('Z', 2)
			s.send(bind("", "a"), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=execute sql=select 'new'", // as far as was known when it was sent
			"other 0 command=parse sql=select 'new' state=42P05",
			"result 1 sql=select 'old' tag=SELECT 1 rows=1", // and this is what it was
			"statement 2 via=execute sql=select 'old'", "result 2 tag=SELECT 1 rows=1",
		}},
		{"B5: a simple query destroys the unnamed statement", func(s *transcript) {
			s.send(parse("", "select 1"), sync_).until('Z', 1)
			s.send(query("select 2")).until('Z', 1)
			s.send(bind("", ""), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=select 2", "result 1 tag=SELECT 1 rows=1",
			"statement 2 via=execute portal= (a cursor opened in SQL, or none)", "result 2 state=26000",
		}},
		{"B6: statements of SQL and of the protocol share their names", func(s *transcript) {
			s.send(query("prepare \"P q\" as select $1::int")).until('Z', 1)
			s.send(bind("", "P q", 7), execute("", 0), sync_).until('Z', 1)
			s.send(parse("b", "select 8"), sync_).until('Z', 1)
			s.send(query("execute b")).until('Z', 1)
			s.send(query("deallocate b")).until('Z', 1)
			s.send(bind("", "b"), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=prepare \"P q\" as select $1::int", "result 1 tag=PREPARE",
			"statement 2 via=execute sql=prepare \"P q\" as select $1::int param='7' prepared=in SQL, as P q", "result 2 tag=SELECT 1 rows=1",
			"statement 3 via=simple sql=execute b", "result 3 tag=SELECT 1 rows=1",
			"statement 4 via=simple sql=deallocate b", "result 4 tag=DEALLOCATE",
			"statement 5 via=execute statement=b (prepared in SQL, out of sight)", "result 5 state=26000",
		}},
		{"B7: DISCARD ALL forgets statements", func(s *transcript) {
			s.send(parse("d", "select 9"), sync_).until('Z', 1)
			s.send(query("discard all")).until('Z', 1)
			s.send(bind("", "d"), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=discard all", "result 1 tag=DISCARD ALL",
			"statement 2 via=execute statement=d (prepared in SQL, out of sight)", "result 2 state=26000",
		}},
		{"B8: Execute of a cursor that SQL declared", func(s *transcript) {
			s.send(query("begin; declare c cursor for select generate_series(1, 5)")).until('Z', 1)
			s.send(execute("c", 2), execute("c", 0), sync_).until('Z', 1)
			s.send(query("commit")).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=begin; declare c cursor for select generate_series(1, 5)", "result 1 tag=BEGIN", "result 1 tag=DECLARE CURSOR",
			"statement 2 via=execute portal=c (a cursor opened in SQL, or none)",
			"statement 3 via=execute portal=c (a cursor opened in SQL, or none)",
			"result 3 tag=SELECT 3 rows=3",
			"statement 4 via=simple sql=commit", "result 4 tag=COMMIT",
		}},
		{"B9: rows in parts are counted by frames, and told once", func(s *transcript) {
			s.send(query("begin")).until('Z', 1)
			s.send(parse("", "select generate_series(1, 10)"), bind("p", ""), execute("p", 4), sync_).until('Z', 1)
			s.send(execute("p", 4), sync_).until('Z', 1)
			s.send(execute("p", 4), sync_).until('Z', 1)
			s.send(query("commit")).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=begin", "result 1 tag=BEGIN",
			"statement 2 via=execute sql=select generate_series(1, 10)",
			"result 2 tag=SELECT 2 rows=10",
			"statement 3 via=simple sql=commit", "result 3 tag=COMMIT",
		}},
		{"B10: a portal that is not read to its end, and ends with its transaction", func(s *transcript) {
			s.send(parse("", "select generate_series(1, 10)"), bind("", ""), execute("", 4), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=execute sql=select generate_series(1, 10)",
			"result 1 rows=4 suspended=the client did not ask for more rows",
		}},
		{"B11: Close of what does not exist", func(s *transcript) {
			s.send(closeIt('S', "nothing"), closeIt('P', "nothing"), sync_).until('Z', 1)
			s.send(query("select 1")).until('Z', 1)
		}, []string{"statement 1 via=simple sql=select 1", "result 1 tag=SELECT 1 rows=1"}},
		{"B18: notices and changed settings answer nothing", func(s *transcript) {
			s.send(query("do $$ begin raise notice 'hello'; end $$"), query("set datestyle = german"), query("select 1")).until('Z', 3)
		}, []string{
			"statement 1 via=simple sql=do $$ begin raise notice 'hello'; end $$", "statement 2 via=simple sql=set datestyle = german", "statement 3 via=simple sql=select 1",
			"result 1 tag=DO", "result 2 tag=SET", "result 3 tag=SELECT 1 rows=1",
		}},
		{"B20: function calls, with NULL and with a wrong number of arguments", func(s *transcript) {
			// 1598 is random(); 480 is int4(int8), strict.
			s.send(message('F', "\x00\x00\x06\x3e\x00\x00\x00\x00\x00\x00")).until('Z', 1)
			s.send(message('F', "\x00\x00\x01\xe0\x00\x01\x00\x01\x00\x01\xff\xff\xff\xff\x00\x01")).until('Z', 1)
			s.send(message('F', "\x00\x00\x01\xe0\x00\x00\x00\x00\x00\x00")).until('Z', 1)
			s.send(query("select 1")).until('Z', 1)
		}, []string{
			"statement 1 via=function command=function 1598", "result 1",
			"statement 2 via=function command=function 480 param=NULL", "result 2",
			"statement 3 via=function command=function 480", "result 3 state=08P01",
			"statement 4 via=simple sql=select 1", "result 4 tag=SELECT 1 rows=1",
		}},
		{"B22: queries of no length and with a NUL inside", func(s *transcript) {
			s.send(message('Q', "")).until('Z', 1)
			s.send(message('Q', "select 1\x00; drop table t\x00")).until('Z', 1)
			s.send(query("select 2")).until('Z', 1)
		}, []string{
			"statement 1 via=simple", "result 1 state=08P01",
			"statement 2 via=simple sql=select 1", "result 2 state=08P01",
			"statement 3 via=simple sql=select 2", "result 3 tag=SELECT 1 rows=1",
		}},
		{"a commit that fails at the Sync", func(s *transcript) {
			s.send(query("create temp table parent (id int primary key); create temp table child (id int references parent deferrable initially deferred)")).until('Z', 1)
			s.send(parse("", "insert into child values (1)"), bind("", ""), execute("", 0), sync_).until('Z', 1)
			s.send(query("select 1")).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=create temp table parent (id int primary key); create temp table child (id int references parent deferrable initially deferred)",
			"result 1 tag=CREATE TABLE", "result 1 tag=CREATE TABLE",
			"statement 2 via=execute sql=insert into child values (1)", "result 2 tag=INSERT 0 1 rows=1", "result 2 state=23503",
			"statement 3 via=simple sql=select 1", "result 3 tag=SELECT 1 rows=1",
		}},
		{"COPY in and out", func(s *transcript) {
			s.send(query("create temp table t (a int)")).until('Z', 1)
			s.send(query("copy t from stdin")).until('G', 1)
			s.send(message('d', "1\n"), sync_, flush, message('d', "2\n"), message('c', "")).until('Z', 1) // C1: Sync and Flush are ignored
			s.send(query("copy t to stdout")).until('Z', 1)
			s.send(query("select 1")).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=create temp table t (a int)", "result 1 tag=CREATE TABLE",
			"statement 2 via=simple sql=copy t from stdin", "input 2 via=copy text=1", "input 2 via=copy text=2", "result 2 tag=COPY 2 rows=2",
			"statement 3 via=simple sql=copy t to stdout", "result 3 tag=COPY 2 rows=2",
			"statement 4 via=simple sql=select 1", "result 4 tag=SELECT 1 rows=1",
		}},
		{"C2: a Sync sent with an extended COPY is swallowed", func(s *transcript) {
			s.send(query("create temp table t (a int)")).until('Z', 1)
			s.send(parse("", "copy t from stdin"), bind("", ""), execute("", 0), sync_).until('G', 1)
			s.send(message('d', "1\n"), message('c', ""), sync_).until('Z', 1)
			s.send(parse("", "select 1"), bind("", ""), execute("", 0), sync_).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=create temp table t (a int)", "result 1 tag=CREATE TABLE",
			"statement 2 via=execute sql=copy t from stdin", "input 2 via=copy text=1", "result 2 tag=COPY 1 rows=1",
			"statement 3 via=execute sql=select 1", "result 3 tag=SELECT 1 rows=1",
		}},
		{"C4: CopyFail, and data that comes late", func(s *transcript) {
			s.send(query("create temp table t (a int)")).until('Z', 1)
			s.send(query("copy t from stdin")).until('G', 1)
			s.send(message('d', "1\n"), message('f', "changed my mind\x00"), message('d', "2\n"), message('c', "")).until('Z', 1)
			s.send(query("select 1")).until('Z', 1)
		}, []string{
			"statement 1 via=simple sql=create temp table t (a int)", "result 1 tag=CREATE TABLE",
			"statement 2 via=simple sql=copy t from stdin", "input 2 via=copy text=1", "other 2 command=copy given up text=changed my mind", "input 2 via=copy text=2", "result 2 state=57014",
			"statement 3 via=simple sql=select 1", "result 3 tag=SELECT 1 rows=1",
		}},
		{"C5: a query inside of COPY ends the session", func(s *transcript) {
			s.send(query("create temp table t (a int)")).until('Z', 1)
			s.send(query("copy t from stdin")).until('G', 1)
			s.send(query("select 1")).until('E', 2)
		}, []string{
			"statement 1 via=simple sql=create temp table t (a int)", "result 1 tag=CREATE TABLE",
			"statement 2 via=simple sql=copy t from stdin", "statement 3 via=simple sql=select 1", "result 2 state=08P01",
			"note 0 state=08P01 text=the target ended the session: terminating connection because protocol synchronization was lost",
			"result 3 error=outcome unknown: the session ended before an answer came",
		}},
		{"passwords are masked", func(s *transcript) {
			s.send(query("alter role open password 'hunter2'")).until('Z', 1)
		}, []string{"statement 1 via=simple sql=alter role open password '********'", "result 1 tag=ALTER ROLE"}},
		{"a statement that the recording ends with", func(s *transcript) {
			s.send(query("select pg_sleep(0.01)"))
		}, []string{"statement 1 via=simple sql=select pg_sleep(0.01)", "result 1 error=outcome unknown: the session ended before an answer came"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newTranscript(t)
			test.talk(s)
			got := s.items()
			if !slices.Equal(got, test.want) {
				t.Errorf("the server answered %q\ngot:\n\t%s\nwant:\n\t%s", s.answered, strings.Join(got, "\n\t"), strings.Join(test.want, "\n\t"))
			}
			if *update {
				keepTranscript(t, test.name, s.events)
			}
		})
	}
}

// keepTranscript writes the events of a conversation for interpret's own tests.
func keepTranscript(t *testing.T, name string, events []recorder.Event) {
	t.Helper()
	b, err := json.MarshalIndent(events, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	file := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	if err := os.MkdirAll("interpret/testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("interpret/testdata", file+".json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}
