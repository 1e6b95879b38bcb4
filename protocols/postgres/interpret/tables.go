package interpret

import (
	"strings"
	"time"

	"sallyport/recorder/item"
)

// statement is a prepared statement, named or not, or the text of a simple query.
type statement struct {
	text  string
	size  int64  // of the whole text, or of the whole message where sum is set
	sum   string // SHA-256 of the whole message, where it was too large to keep
	oids  []uint32
	bySQL bool // made by PREPARE, not by Parse
}

// portal is a statement bound to its parameters.
type portal struct {
	name      string
	stmt      *statement
	stmtName  string
	params    []item.Param // until the first Execute
	ref       int          // of its statement item; 0 before the first Execute
	at        time.Duration
	rows      int64
	suspended bool // it gave a part of its rows, and was not asked for the rest
	corrected bool // stmt turned out to be another than it was said to be
}

// tables are the server's prepared statements and portals as far as the server has confirmed them, and over them what
// the client has sent and expects to be so. One name space holds what Parse and SQL's PREPARE make.
type tables struct {
	stmts   map[string]*statement
	portals map[string]*portal
	// The expected ones, by the number of the expectation that will confirm them; nil means that the name will be free.
	nextStmts   map[string]next[*statement]
	nextPortals map[string]next[*portal]
	// What the server discards never comes to be, but what is said of it should name it all the same.
	discardedStmts   map[string]*statement
	discardedPortals map[string]*portal
	held             int // bytes of text and parameters, at least those still held
}

type next[T any] struct {
	value T
	by    uint64
}

func newTables() tables {
	return tables{
		stmts: map[string]*statement{}, portals: map[string]*portal{},
		nextStmts: map[string]next[*statement]{}, nextPortals: map[string]next[*portal]{},
	}
}

// Bounds on what is remembered for a client that never tidies up.
const (
	maxNames = 1 << 16  // of each kind
	maxHeld  = 64 << 20 // bytes
	leastCut = 1 << 10  // what is kept of a text when there is too much
)

func (t *tables) stmt(name string) *statement {
	if s, ok := t.discardedStmts[name]; ok {
		return s
	}
	if n, ok := t.nextStmts[name]; ok {
		return n.value
	}
	return t.stmts[name]
}

func (t *tables) portal(name string) *portal {
	if p, ok := t.discardedPortals[name]; ok {
		return p
	}
	if n, ok := t.nextPortals[name]; ok {
		return n.value
	}
	return t.portals[name]
}

// settle removes what an expectation had announced.
func (t *tables) settle(e *expect) {
	if n, ok := t.nextStmts[e.name]; ok && n.by == e.number {
		delete(t.nextStmts, e.name)
	}
	if n, ok := t.nextPortals[e.name]; ok && n.by == e.number {
		delete(t.nextPortals, e.name)
	}
}

// discard remembers, up to the next Sync, what a discarded Parse or Bind would have made.
func (t *tables) discard(e *expect) {
	switch {
	case len(t.discardedStmts)+len(t.discardedPortals) >= searchDepth:
	case e.kind == kindParse:
		if t.discardedStmts == nil {
			t.discardedStmts = map[string]*statement{}
		}
		t.discardedStmts[e.name] = e.stmt
	case e.kind == kindBind:
		if t.discardedPortals == nil {
			t.discardedPortals = map[string]*portal{}
		}
		t.discardedPortals[e.name] = e.portal
	}
}

func (t *tables) setStmt(name string, s *statement) {
	if _, known := t.stmts[name]; known || len(t.stmts) < maxNames {
		t.stmts[name] = s
	}
}

func (t *tables) setPortal(name string, p *portal) {
	if _, known := t.portals[name]; known || len(t.portals) < maxNames {
		t.portals[name] = p
	}
}

// hold counts what is about to be remembered. When it is too much, what is really still held is counted again, and if
// that is too much too, all texts are cut and all parameters dropped.
func (t *tables) hold(n int, q *queue) {
	t.held += n
	if t.held <= maxHeld {
		return
	}
	seen := map[*statement]bool{}
	total := 0
	each := func(f func(*statement), g func(*portal)) {
		visit := func(s *statement) {
			if s != nil && !seen[s] {
				seen[s] = true
				f(s)
			}
		}
		visitPortal := func(p *portal) {
			if p != nil {
				visit(p.stmt)
				g(p)
			}
		}
		clear(seen)
		for _, s := range t.stmts {
			visit(s)
		}
		for _, s := range t.nextStmts {
			visit(s.value)
		}
		for _, p := range t.portals {
			visitPortal(p)
		}
		for _, p := range t.nextPortals {
			visitPortal(p.value)
		}
		for i := range q.len() {
			visit(q.at(i).stmt)
			visitPortal(q.at(i).portal)
		}
	}
	each(func(s *statement) { total += len(s.text) + 4*len(s.oids) }, func(p *portal) { total += sizeOf(p.params) })
	if total > maxHeld/2 {
		each(func(s *statement) {
			if len(s.text) > leastCut {
				s.text = strings.Clone(s.text[:leastCut])
			}
		}, func(p *portal) { p.params = nil })
		total = min(total, leastCut*len(seen))
	}
	t.held = total
}

func sizeOf(params []item.Param) int {
	n := 64 * len(params)
	for _, p := range params {
		n += len(p.Text) + len(p.Binary)
	}
	return n
}
