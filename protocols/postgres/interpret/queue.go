package interpret

import "time"

// kind is what a client message expects as its answer.
type kind byte

const (
	kindGone     kind = iota // answered or discarded already
	kindQuery                // results, then ReadyForQuery
	kindParse                // ParseComplete
	kindBind                 // BindComplete
	kindDescribe             // (ParameterDescription,) RowDescription or NoData
	kindExecute              // CommandComplete, EmptyQueryResponse or PortalSuspended
	kindClose                // CloseComplete
	kindSync                 // ReadyForQuery
	kindFunction             // FunctionCallResponse, then ReadyForQuery
	kindCopyEnd              // nothing: it marks where the client's data ended
)

// expect is an answer that must still come.
type expect struct {
	kind    kind
	number  uint64
	at      time.Duration
	name    string // of the statement or portal
	object  byte   // of Describe and Close: 'S' or 'P'
	stmt    *statement
	portal  *portal
	ref     int // of the statement item, if there is one
	rows    int64
	bytes   int64
	results int
	copyIn  bool
	copied  int64 // bytes of COPY data that the client sent for it
	// dealloc and prepare are what a statement in SQL does to the names, once it has succeeded.
	dealloc, prepare string
}

// queue holds what is expected, in the order of the client's messages, which is that of the answers.
type queue struct {
	entries []*expect
	start   int
	last    uint64
}

// maxQueue bounds a pipeline that is never answered.
const maxQueue = 1 << 18

func (q *queue) len() int         { return len(q.entries) - q.start }
func (q *queue) at(i int) *expect { return q.entries[q.start+i] }
func (q *queue) full() bool       { return q.len() >= maxQueue }

func (q *queue) push(e *expect) {
	q.last++
	e.number = q.last
	q.entries = append(q.entries, e)
}

// head is the first that is not gone, nil if there is none.
func (q *queue) head() *expect {
	for q.start < len(q.entries) {
		if e := q.entries[q.start]; e.kind != kindGone {
			return e
		}
		q.drop()
	}
	return nil
}

func (q *queue) drop() {
	q.entries[q.start] = nil
	q.start++
	if q.start == len(q.entries) {
		q.entries, q.start = q.entries[:0], 0
	} else if q.start > 1024 && q.start > len(q.entries)/2 {
		n := copy(q.entries, q.entries[q.start:])
		clear(q.entries[n:])
		q.entries, q.start = q.entries[:n], 0
	}
}
