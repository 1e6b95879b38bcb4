package interpret

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sallyport/recorder/item"
)

// searchDepth is how far ahead an answer is looked for that does not fit the next expectation.
const searchDepth = 64

// answered takes one message of the target, or a mark in its place.
func (i *Interpreter) answered(f frame) {
	if f.typ == markCut {
		r := cursor{b: f.body}
		t := r.byte()
		length, n := binary.Uvarint(r.b)
		f = frame{typ: t, body: r.b[max(n, 0):], size: int64(min(length, 1<<31)) - 5}
	}
	switch f.typ {
	case markRows, markCopy:
		i.counted(f)
	case '1':
		if e := i.want(func(e *expect) bool { return e.kind == kindParse }, "ParseComplete"); e != nil {
			i.setStmt(e.name, e.stmt)
			i.pop()
		}
	case '2':
		if e := i.want(func(e *expect) bool { return e.kind == kindBind }, "BindComplete"); e != nil {
			if s := i.stmts[e.portal.stmtName]; s != e.portal.stmt {
				e.portal.stmt, e.portal.corrected = s, e.portal.ref != 0
			}
			i.setPortal(e.name, e.portal)
			i.pop()
		}
	case '3':
		if e := i.want(func(e *expect) bool { return e.kind == kindClose }, "CloseComplete"); e != nil {
			if e.object == 'S' {
				delete(i.stmts, e.name)
			} else {
				i.dropPortal(e.name)
			}
			i.pop()
		}
	case 't':
		i.parameterTypes(f.body)
	case 'T':
		i.skipMarks()
		if e := i.queue.head(); e != nil && e.kind != kindQuery {
			if i.want(func(e *expect) bool { return e.kind == kindDescribe }, "RowDescription") != nil {
				i.pop()
			}
		}
	case 'n':
		if i.want(func(e *expect) bool { return e.kind == kindDescribe }, "NoData") != nil {
			i.pop()
		}
	case 'G', 'H', 'W':
		if e := i.want(runs, "a COPY's beginning"); e != nil && f.typ != 'H' {
			e.copyIn = true
		}
	case 'C':
		i.complete(f.body)
	case 'I':
		if e := i.want(runs, "EmptyQueryResponse"); e != nil {
			i.result(e, item.Item{})
			i.done(e)
		}
	case 's':
		if e := i.want(func(e *expect) bool { return e.kind == kindExecute }, "PortalSuspended"); e != nil {
			e.portal.suspended = true
			i.pop()
		}
	case 'V':
		if e := i.want(func(e *expect) bool { return e.kind == kindFunction }, "FunctionCallResponse"); e != nil {
			i.result(e, item.Item{Bytes: max(f.size-4, 0)})
		}
	case 'E':
		i.failed(f.body)
	case 'Z':
		i.readyForQuery(f.body)
	case 'S':
		i.parameterStatus(f.body)
	default:
		// Notices, notifications, keys, the end of COPY data and whatever newer servers say answer nothing.
	}
}

// runs is true of what gives rows, COPY data and a command tag.
func runs(e *expect) bool { return e.kind == kindQuery || e.kind == kindExecute }

// want finds the expectation that an answer is for, which should be the next. Others before it got no answer.
func (i *Interpreter) want(match func(*expect) bool, what string) *expect {
	i.skipMarks()
	if e := i.queue.head(); e != nil && match(e) {
		return e
	}
	for n := 0; n < min(i.queue.len(), searchDepth); n++ {
		if !match(i.queue.at(n)) {
			continue
		}
		silent := true
		for ; n > 0; n-- {
			if e := i.queue.at(0); e.kind != kindSync && e.kind != kindCopyEnd && e.kind != kindGone {
				silent = false
				i.unknown(e, "its answer did not come in its turn")
			}
			i.pop()
		}
		if !silent {
			i.lost(what + " came where another answer was due")
		}
		return i.queue.head()
	}
	i.lost(what + " came and nothing asked for it")
	return nil
}

// skipMarks takes the ends of COPY data off the front of the queue: nothing answers them.
func (i *Interpreter) skipMarks() {
	for e := i.queue.head(); e != nil && e.kind == kindCopyEnd; e = i.queue.head() {
		i.pop()
	}
}

// pop takes the first expectation off the queue.
func (i *Interpreter) pop() {
	if i.queue.len() == 0 {
		return
	}
	i.settle(i.queue.at(0))
	i.queue.drop()
}

// counted adds rows or COPY data to what is running.
func (i *Interpreter) counted(f frame) {
	count, size, _, ok := twoNumbers(f.body)
	if !ok {
		i.lost("a mark makes no sense")
		return
	}
	if f.typ == markRows {
		if e := i.want(runs, "DataRow"); e != nil {
			e.rows += count
			e.bytes += size
			if e.portal != nil {
				e.portal.rows += count
			}
		}
	} else if e := i.want(runs, "CopyData"); e != nil {
		e.bytes += size
	}
}

// complete takes a CommandComplete.
func (i *Interpreter) complete(body []byte) {
	r := cursor{b: body}
	tag := valid(r.string())
	e := i.want(runs, "CommandComplete")
	if e == nil {
		i.emit(item.Item{Kind: item.Result, At: i.now, Tag: tag})
		return
	}
	it := item.Item{Tag: tag, Rows: rowsOf(e), Bytes: e.bytes}
	if e.portal != nil {
		e.portal.suspended = false
	}
	if affected, ok := affectedRows(tag); ok && (it.Rows == nil || *it.Rows == 0) {
		it.Rows = &affected
	}
	if e.copyIn {
		it.Bytes = e.copied
		i.swallowed()
	}
	i.result(e, it)
	switch {
	case tag == "DEALLOCATE ALL" || tag == "DISCARD ALL":
		unnamed := i.stmts[""]
		clear(i.stmts)
		if unnamed != nil {
			i.stmts[""] = unnamed
		}
	case tag == "DEALLOCATE" && e.dealloc != "":
		delete(i.stmts, e.dealloc)
	case tag == "PREPARE" && e.prepare != "":
		i.setStmt(e.prepare, e.stmt)
	}
	i.done(e)
}

// done ends an Execute; a simple query goes on until ReadyForQuery.
func (i *Interpreter) done(e *expect) {
	if e.kind == kindExecute {
		i.pop()
	}
	e.rows, e.bytes, e.copied, e.copyIn = 0, 0, 0, false
}

// swallowed forgets the Syncs that the client sent between a COPY's beginning and the end of its data: the server reads
// and ignores them there.
func (i *Interpreter) swallowed() {
	for n := 1; n < min(i.queue.len(), searchDepth); n++ {
		switch e := i.queue.at(n); e.kind {
		case kindSync:
			e.kind = kindGone
		case kindCopyEnd:
			e.kind = kindGone
			return
		case kindGone:
		default:
			return
		}
	}
}

// failed takes an ErrorResponse.
func (i *Interpreter) failed(body []byte) {
	it := item.Item{}
	severity := errorFields(body, &it)
	i.skipMarks()
	e := i.queue.head()
	if severity == "FATAL" || severity == "PANIC" {
		if e != nil && e.ref != 0 && e.results == 0 {
			i.result(e, it)
			return
		}
		it.Kind, it.At, it.Text = item.Note, i.now, "the target ended the session: "+it.Error
		i.emit(it)
		return
	}
	switch {
	case e == nil:
		i.lost("an error came and nothing was running")
		it.Kind, it.At = item.Result, i.now
		i.emit(it)
	case e.kind == kindSync: // a commit at the Sync failed: a deferred constraint
		i.result(&expect{ref: i.ended, at: i.now}, it)
	case e.kind == kindQuery || e.kind == kindFunction:
		it.Rows = rowsOf(e)
		i.result(e, it)
		e.copyIn = false
	default:
		i.failedExtended(e, it)
	}
}

// failedExtended ends everything up to the next Sync, also a simple query that stands before it.
func (i *Interpreter) failedExtended(e *expect, it item.Item) {
	var portalGone *portal
	stmtGone := e.stmt
	switch e.kind {
	case kindExecute:
		it.Rows = rowsOf(e)
		i.result(e, it)
	case kindParse, kindBind:
		portalGone = e.portal
		if !i.runsLater(portalGone, stmtGone) {
			i.neverRan(e, it)
		}
	default:
		other := it
		other.Kind, other.At, other.Command = item.Other, i.now, "describe or close"
		i.emit(other)
	}
	i.pop()
	for e := i.queue.head(); e != nil; e = i.queue.head() {
		if e.kind == kindSync {
			return
		}
		if e.ref != 0 && e.results == 0 {
			// The Execute of what failed has that error; others only never came to run.
			if p := e.portal; p != nil && (p == portalGone || stmtGone != nil && p.stmt == stmtGone) {
				i.result(e, it)
			} else {
				i.result(e, item.Item{Error: discarded})
			}
		}
		i.pop()
	}
	i.skipping = true
}

// runsLater reports whether an Execute of what failed was already sent.
func (i *Interpreter) runsLater(p *portal, s *statement) bool {
	for n := range min(i.queue.len(), searchDepth) {
		e := i.queue.at(n)
		if e.kind == kindSync {
			return false
		}
		if e.kind == kindExecute && e.portal != nil && (e.portal == p || s != nil && e.portal.stmt == s) {
			return true
		}
	}
	return false
}

// neverRan tells of a Parse or Bind that failed before anything was asked to run.
func (i *Interpreter) neverRan(e *expect, it item.Item) {
	it.Kind, it.At, it.Command = item.Other, i.now, "parse"
	it.Duration = max(i.now-e.at, 0)
	s := e.stmt
	if e.portal != nil {
		it.Command, it.Params = "bind", e.portal.params
		s = e.portal.stmt
	}
	if s != nil {
		i.text(&it, s)
	}
	i.emit(it)
}

// readyForQuery ends a simple query, a function call, or a row of extended messages at its Sync.
func (i *Interpreter) readyForQuery(body []byte) {
	i.skipMarks()
	first := !i.ready
	i.ready = true
	for {
		e := i.queue.head()
		if e == nil {
			if !first {
				i.lost("the target was ready and nothing had been asked")
			}
			break
		}
		ends := e.kind == kindSync || e.kind == kindQuery || e.kind == kindFunction
		if !ends && e.kind != kindCopyEnd {
			i.lost("the target was ready before all answers came")
		}
		i.unknown(e, "the target was ready without having answered it")
		if e.kind == kindQuery {
			delete(i.stmts, "")
			i.dropPortal("")
		}
		i.pop()
		if ends {
			break
		}
	}
	if len(body) == 1 && body[0] == 'I' { // portals end with their transaction
		i.dropPortals()
	}
}

// dropPortal forgets a portal; one that was not asked for the rest of its rows has its result now.
func (i *Interpreter) dropPortal(name string) {
	p := i.portals[name]
	if p == nil {
		return
	}
	delete(i.portals, name)
	if p.suspended {
		rows := p.rows
		i.result(&expect{ref: p.ref, at: p.at}, item.Item{Rows: &rows, Fields: map[string]string{"suspended": "the client did not ask for more rows"}})
	}
}

func (i *Interpreter) dropPortals() {
	for _, name := range slices.Sorted(maps.Keys(i.portals)) {
		i.dropPortal(name)
	}
}

// parameterTypes takes a ParameterDescription, which comes before the answer to a Describe of a statement.
func (i *Interpreter) parameterTypes(body []byte) {
	e := i.want(func(e *expect) bool { return e.kind == kindDescribe && e.object == 'S' }, "ParameterDescription")
	if e == nil {
		return
	}
	s := i.stmts[e.name]
	if s == nil || s.bySQL {
		return
	}
	r := cursor{b: body}
	var oids []uint32
	for n := min(int(r.uint16()), len(r.b)/4); n > 0; n-- {
		oids = append(oids, r.uint32())
	}
	i.hold(4*max(len(oids)-len(s.oids), 0), &i.queue)
	s.oids = oids
}

// parameterStatus watches what the server reports about the session itself.
func (i *Interpreter) parameterStatus(body []byte) {
	r := cursor{b: body}
	name, value := r.string(), valid(r.string())
	switch name {
	case "client_encoding":
		i.encoding = value
	case "session_authorization", "is_superuser":
		if before, known := i.settings[name]; known && before != value && i.ready {
			i.emit(item.Item{Kind: item.Note, At: i.now, Text: name + " is now " + value + " (before: " + before + ")"})
		}
		i.settings[name] = value
	}
}

// errorFields reads an ErrorResponse into an item and returns its severity.
func errorFields(body []byte, it *item.Item) (severity string) {
	r := cursor{b: body}
	for {
		field := r.byte()
		if field == 0 || r.short {
			return severity
		}
		value := valid(r.string())
		switch field {
		case 'S':
			if severity == "" {
				severity = value
			}
		case 'V':
			severity = value
		case 'C':
			it.SQLState = value
		case 'M':
			it.Error = value
		case 'D':
			setField(it, "detail", value)
		case 'H':
			setField(it, "hint", value)
		case 'P':
			setField(it, "position", value)
		case 'W':
			setField(it, "where", value)
		}
	}
}

// rowsOf is the number of rows counted, nil where nothing of the kind came.
func rowsOf(e *expect) *int64 {
	rows := e.rows
	if e.portal != nil {
		rows = e.portal.rows
	}
	if rows == 0 {
		return nil
	}
	return &rows
}

// affectedRows is the number at the end of a command tag.
func affectedRows(tag string) (int64, bool) {
	_, last, ok := cutLast(tag, " ")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(last, 10, 64)
	return n, err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if n := strings.LastIndex(s, sep); n >= 0 {
		return s[:n], s[n+len(sep):], true
	}
	return s, "", false
}
