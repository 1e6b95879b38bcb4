package interpret

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"unicode/utf8"

	"sallyport/recorder/item"
)

// Via words of items.
const (
	viaSimple   = "simple"
	viaExecute  = "execute"
	viaFunction = "function"
	viaCopy     = "copy"
)

const discarded = "not run: the server discards what follows an error up to the next Sync"

// said takes one message of the client.
func (i *Interpreter) said(f frame) {
	if f.typ != 'd' {
		i.flushCopy()
	}
	r := cursor{b: f.body}
	switch f.typ {
	case 'Q':
		i.query(f, &r)
	case 'P':
		i.parse(f, &r)
	case 'B':
		i.bind(&r)
	case 'D', 'C':
		i.describeOrClose(f.typ, &r)
	case 'E':
		i.execute(&r)
	case 'F':
		i.function(f, &r)
	case 'S':
		i.skipping, i.discardedStmts, i.discardedPortals = false, nil, nil
		i.expect(&expect{kind: kindSync})
	case 'd':
		i.running.copied += f.size
		if len(i.copyData) > keepBody {
			i.flushCopy()
		}
		i.copyData = append(i.copyData, f.body...)
	case 'c', 'f':
		if f.typ == 'f' {
			i.emit(item.Item{Kind: item.Other, At: i.now, Ref: i.running.ref, Command: "copy given up", Text: valid(r.string())})
		}
		if i.queue.head() != nil {
			i.expect(&expect{kind: kindCopyEnd})
		}
	case 'H', 'X': // Flush asks for no answer; after Terminate none comes
	default:
		i.lost("a message of type " + strconv.QuoteRune(rune(f.typ)) + " from the client")
	}
}

// expect queues an answer that must come. While the server discards, none will.
func (i *Interpreter) expect(e *expect) {
	e.at = i.now
	if runs(e) {
		i.running = e
	}
	if i.skipping {
		if e.ref != 0 {
			i.result(e, item.Item{Error: discarded})
		}
		i.discard(e)
		return
	}
	if i.queue.full() {
		i.lost("too many messages wait for an answer")
		i.reset()
	}
	i.queue.push(e)
	switch e.kind {
	case kindQuery: // a simple query ends the unnamed ones
		i.nextStmts[""] = next[*statement]{by: e.number}
		i.nextPortals[""] = next[*portal]{by: e.number}
	case kindParse:
		i.nextStmts[e.name] = next[*statement]{e.stmt, e.number}
	case kindBind:
		i.nextPortals[e.name] = next[*portal]{e.portal, e.number}
	case kindClose:
		if e.object == 'S' {
			i.nextStmts[e.name] = next[*statement]{by: e.number}
		} else {
			i.nextPortals[e.name] = next[*portal]{by: e.number}
		}
	}
}

// reset gives up what was expected.
func (i *Interpreter) reset() {
	for e := i.queue.head(); e != nil; e = i.queue.head() {
		i.unknown(e, "the interpreter lost the thread")
		i.pop()
	}
	clear(i.nextStmts)
	clear(i.nextPortals)
}

func (i *Interpreter) query(f frame, r *cursor) {
	s := &statement{text: r.string(), size: f.size - 1, sum: f.sum}
	it := item.Item{Via: viaSimple}
	i.text(&it, s)
	e := &expect{kind: kindQuery, ref: i.statement(it)}
	i.effects(e, s.text)
	i.expect(e)
}

// effects remembers what a statement in SQL will do to the names.
func (i *Interpreter) effects(e *expect, sql string) {
	e.prepare, e.dealloc = nameEffects(sql)
	if e.prepare != "" {
		e.stmt = i.remember(&statement{text: sql, size: int64(len(sql)), bySQL: true})
	}
}

func (i *Interpreter) parse(f frame, r *cursor) {
	name := r.string()
	s := &statement{text: r.string()}
	s.size, s.sum = int64(len(s.text)), f.sum
	if f.sum != "" {
		s.size = f.size
	}
	for n := min(int(r.uint16()), len(r.b)/4); n > 0; n-- {
		s.oids = append(s.oids, r.uint32())
	}
	i.expect(&expect{kind: kindParse, name: name, stmt: i.remember(s)})
}

func (i *Interpreter) remember(s *statement) *statement {
	i.hold(len(s.text)+4*len(s.oids), &i.queue)
	return s
}

// bind reads a Bind: the portal comes first, then the statement.
func (i *Interpreter) bind(r *cursor) {
	p := &portal{name: r.string(), stmtName: r.string()}
	p.stmt = i.stmt(p.stmtName)
	var oids []uint32
	if p.stmt != nil {
		oids = p.stmt.oids
	}
	p.params = params(r, oids)
	i.hold(sizeOf(p.params), &i.queue)
	i.expect(&expect{kind: kindBind, name: p.name, portal: p})
}

func (i *Interpreter) describeOrClose(t byte, r *cursor) {
	e := &expect{kind: kindDescribe, object: r.byte(), name: r.string()}
	if t == 'C' {
		e.kind = kindClose
	} else if e.object == 'S' {
		e.stmt = i.stmt(e.name)
	}
	i.expect(e)
}

func (i *Interpreter) execute(r *cursor) {
	name := r.string()
	p := i.portal(name)
	if p == nil { // a cursor that SQL declared can be fetched from like a portal
		p = &portal{name: name}
	}
	e := &expect{kind: kindExecute, portal: p, ref: p.ref}
	if p.ref == 0 {
		it := item.Item{Via: viaExecute, Params: p.params}
		switch {
		case p.stmt != nil:
			i.text(&it, p.stmt)
			if p.stmt.bySQL {
				setField(&it, "prepared", "in SQL, as "+valid(p.stmtName))
			}
		case p.stmtName != "":
			setField(&it, "statement", valid(p.stmtName)+" (prepared in SQL, out of sight)")
		default:
			setField(&it, "portal", valid(name)+" (a cursor opened in SQL, or none)")
		}
		p.ref, p.params = i.statement(it), nil
		p.at, e.ref = i.now, p.ref
	}
	if p.stmt != nil {
		i.effects(e, p.stmt.text)
	}
	i.expect(e)
}

func (i *Interpreter) function(f frame, r *cursor) {
	oid := r.uint32()
	it := item.Item{Via: viaFunction, Command: "function " + strconv.FormatUint(uint64(oid), 10), Params: params(r, nil)}
	if f.sum != "" {
		it.SHA256, it.Bytes = f.sum, f.size
	}
	i.expect(&expect{kind: kindFunction, ref: i.statement(it)})
}

// flushCopy emits the COPY data that was kept, in one item for what came together.
func (i *Interpreter) flushCopy() {
	if len(i.copyData) == 0 {
		return
	}
	it := item.Item{Kind: item.Input, At: i.now, Ref: i.running.ref, Via: viaCopy, Bytes: int64(len(i.copyData))}
	if utf8.Valid(i.copyData) {
		it.Text = string(i.copyData)
	} else {
		it.Data = bytes.Clone(i.copyData)
	}
	i.copyData = i.copyData[:0]
	i.emit(it)
}

// bulk takes COPY data that was kept by length and hash.
func (i *Interpreter) bulk(data []byte) {
	count, size, sum, ok := twoNumbers(data)
	if !ok {
		i.lost("an event about COPY data makes no sense")
		return
	}
	i.running.copied += size
	it := item.Item{Kind: item.Bulk, At: i.now, Ref: i.running.ref, Via: viaCopy, Bytes: size, Fields: map[string]string{"frames": strconv.FormatInt(count, 10)}}
	if len(sum) == sha256.Size {
		it.SHA256 = hex.EncodeToString(sum)
	} else { // a Sealer's
		it.Text = valid(string(sum))
	}
	i.emit(it)
}

// cursor reads a message's body; past the end everything is zero or empty, and short says so.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.short, c.b = true, nil
		return nil
	}
	taken := c.b[:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// string reads up to a NUL, or, where the body was cut, what there is.
func (c *cursor) string() string {
	for i, b := range c.b {
		if b == 0 {
			s := string(c.b[:i])
			c.b = c.b[i+1:]
			return s
		}
	}
	s := string(c.b)
	c.b, c.short = nil, true
	return s
}
