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

	"sallyport/recorder"
	"sallyport/recorder/format"
)

// Interpreter is a recorder.Interpreter for one session.
type Interpreter struct {
	client frames
	server frames

	now   time.Duration
	emit  func(recorder.Item)
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
func New(format.Header) recorder.Interpreter {
	return &Interpreter{tables: newTables(), settings: map[string]string{}, running: &expect{}}
}

// Interpret takes the session's events in order. Events of other types are not Postgres's business.
func (i *Interpreter) Interpret(event recorder.Event, emit func(recorder.Item)) {
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
func (i *Interpreter) Finish(emit func(recorder.Item)) {
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
		i.emit(recorder.Item{Kind: recorder.ItemNote, At: i.now, Text: "unattributed: " + why})
	case i.notes == maxNotes:
		i.emit(recorder.Item{Kind: recorder.ItemNote, At: i.now, Text: "unattributed: and more of the like, which are not listed"})
	}
}

// statement emits a statement that was sent just now and returns its ref.
func (i *Interpreter) statement(item recorder.Item) int {
	i.ref++
	item.Kind, item.At, item.Ref = recorder.ItemStatement, i.now, i.ref
	i.emit(item)
	return i.ref
}

// result emits how the statement of an expectation ended.
func (i *Interpreter) result(e *expect, item recorder.Item) {
	item.Kind, item.At, item.Ref = recorder.ItemResult, i.now, e.ref
	item.Duration = max(i.now-e.at, 0)
	e.at = i.now // a simple query has several results, one after the other
	e.results++
	i.ended = e.ref
	if p := e.portal; p != nil && p.corrected && p.stmt != nil {
		// Which statement a Bind really took was only known when the server confirmed it.
		item.SQL = mask(p.stmt.text)
	}
	i.emit(item)
}

// unknown closes an expectation whose answer did not come.
func (i *Interpreter) unknown(e *expect, why string) {
	if e.ref == 0 || e.results > 0 || e.kind == kindGone {
		return
	}
	i.result(e, recorder.Item{Error: "outcome unknown: " + why, Rows: rowsOf(e)})
}

// text makes an item's SQL of a statement's bytes: passwords masked, and where the bytes are no UTF-8, the raw ones
// beside, with the encoding they are in.
func (i *Interpreter) text(item *recorder.Item, s *statement) {
	item.SQL = mask(s.text)
	if valid := strings.ToValidUTF8(item.SQL, "\uFFFD"); valid != item.SQL {
		item.Data, item.SQL = []byte(item.SQL), valid
		if i.encoding != "" {
			setField(item, "client_encoding", i.encoding)
		}
	}
	if s.sum != "" {
		item.SHA256, item.Bytes = s.sum, s.size
		setField(item, "cut", "only the beginning of the text is shown; its length and SHA-256 are those of the whole message")
	} else if s.size > int64(len(s.text)) {
		item.Bytes = s.size
		setField(item, "cut", "only the beginning of the text is shown")
	}
}

func setField(item *recorder.Item, name, value string) {
	if item.Fields == nil {
		item.Fields = map[string]string{}
	}
	item.Fields[name] = value
}
