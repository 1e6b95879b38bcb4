// Package interpret turns the recorded bytes of a PostgreSQL session into what they meant: which statements ran, with
// which parameters, how they ended.
//
// It is pure: the same events give the same items, now or years later. It stands any bytes, in bounded memory, because
// a recording holds what a hostile peer sent. A statement comes out when it was sent and its result when the answer
// came, so a recording that breaks off says "sent; outcome unknown". It mirrors what the server does with the messages
// (which of them fail together, what replaces what); where it lost the thread it says so and goes on at the next place
// that is sure. It never decides whether a byte may pass, so a wrong guess costs a label and nothing else.
package interpret

import (
	"strings"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// Interpreter is a *Interpreter for one session.
type Interpreter struct {
	client frames
	server frames

	now   time.Duration
	emit  func(item.Item)
	ref   int // of the last statement
	ended int // ref of the last statement that got a result, for errors that come after it

	tables
	queue queue
	// skipping is true from an error in the extended protocol until the client's next Sync: the server discards.
	skipping bool
	encoding string // client_encoding as the server reported it
	notes    int    // how often the thread was lost; only the first are said
	settings map[string]string
	// running is the last Query or Execute that was sent: COPY data belongs to it, also before the server has asked for it.
	running  *expect
	copyData []byte // kept COPY data that is not yet emitted
	ready    bool   // the first ReadyForQuery was seen
}

// New is the constructor for recorder.Options.Interpreters.
func New(format.Header) *Interpreter {
	return &Interpreter{tables: newTables(), settings: map[string]string{}, running: &expect{}}
}

// Interpret takes the session's events in order. Events of other types are not Postgres's business.
func (i *Interpreter) Interpret(event format.Event, emit func(item.Item)) {
	i.now, i.emit = event.At, emit
	switch event.Type {
	case TypeClient:
		if !i.client.feed(event.Data, i.said) {
			i.lost("the client's bytes are not framed as messages")
		}
		i.flushCopy()
	case TypeServer:
		if !i.server.feed(event.Data, i.answered) {
			i.lost("the target's bytes are not framed as messages")
		}
	case TypeClientBulk:
		i.bulk(event.Data)
	}
}

// Finish says of everything still open that its outcome is unknown.
func (i *Interpreter) Finish(emit func(item.Item)) {
	i.emit = emit
	for e := i.queue.head(); e != nil; e = i.queue.head() {
		i.unknown(e, "the session ended before an answer came")
		i.pop()
	}
	i.dropPortals()
}

// maxNotes bounds what a peer that makes no sense can fill an export with.
const maxNotes = 100

// lost notes that the interpreter lost the thread.
func (i *Interpreter) lost(why string) {
	i.notes++
	switch {
	case i.notes < maxNotes:
		i.emit(item.Item{Kind: item.Note, At: i.now, Text: "unattributed: " + why})
	case i.notes == maxNotes:
		i.emit(item.Item{Kind: item.Note, At: i.now, Text: "unattributed: and more of the like, which are not listed"})
	}
}

// statement emits a statement that was sent just now and returns its ref.
func (i *Interpreter) statement(it item.Item) int {
	i.ref++
	it.Kind, it.At, it.Ref = item.Statement, i.now, i.ref
	i.emit(it)
	return i.ref
}

// result emits how the statement of an expectation ended.
func (i *Interpreter) result(e *expect, it item.Item) {
	it.Kind, it.At, it.Ref = item.Result, i.now, e.ref
	it.Duration = max(i.now-e.at, 0)
	e.at = i.now // a simple query has several results, one after the other
	e.results++
	i.ended = e.ref
	if p := e.portal; p != nil && p.corrected && p.stmt != nil {
		// Which statement a Bind really took was only known when the server confirmed it.
		it.SQL = mask(p.stmt.text)
	}
	i.emit(it)
}

// unknown closes an expectation whose answer did not come.
func (i *Interpreter) unknown(e *expect, why string) {
	if e.ref == 0 || e.results > 0 || e.kind == kindGone {
		return
	}
	i.result(e, item.Item{Error: "outcome unknown: " + why, Rows: rowsOf(e)})
}

// text makes an item's SQL of a statement's bytes: passwords masked, and where the bytes are no UTF-8, the raw ones
// beside, with the encoding they are in.
func (i *Interpreter) text(it *item.Item, s *statement) {
	it.SQL = mask(s.text)
	if valid := strings.ToValidUTF8(it.SQL, "\uFFFD"); valid != it.SQL {
		it.Data, it.SQL = []byte(it.SQL), valid
		if i.encoding != "" {
			setField(it, "client_encoding", i.encoding)
		}
	}
	if s.sum != "" {
		it.SHA256, it.Bytes = s.sum, s.size
		setField(it, "cut", "only the beginning of the text is shown; its length and SHA-256 are those of the whole message")
	} else if s.size > int64(len(s.text)) {
		it.Bytes = s.size
		setField(it, "cut", "only the beginning of the text is shown")
	}
}

func setField(it *item.Item, name, value string) {
	if it.Fields == nil {
		it.Fields = map[string]string{}
	}
	it.Fields[name] = value
}
