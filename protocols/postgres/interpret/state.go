package interpret

import (
	"encoding/json"
	"errors"
	"time"

	"sallyport/recorder/item"
)

// state is what an Interpreter knows while nothing is under way. Texts are bytes: they need not be UTF-8.
type state struct {
	Ref      int               `json:"ref"`
	Ended    int               `json:"ended"`
	Notes    int               `json:"notes,omitempty"`
	Encoding string            `json:"encoding,omitempty"`
	Settings map[string]string `json:"settings,omitempty"`
	Number   uint64            `json:"number"` // of the last expectation
	Stmts    []statementState  `json:"statements,omitempty"`
	Portals  []portalState     `json:"portals,omitempty"`
}

type statementState struct {
	Name  []byte   `json:"name,omitempty"`
	Text  []byte   `json:"text"`
	Size  int64    `json:"size"`
	Sum   string   `json:"sha256,omitempty"`
	OIDs  []uint32 `json:"oids,omitempty"`
	BySQL bool     `json:"by_sql,omitempty"`
}

type portalState struct {
	Name      []byte          `json:"name,omitempty"`
	StmtName  []byte          `json:"statement_name,omitempty"`
	Stmt      *statementState `json:"statement,omitempty"`
	Params    []item.Param    `json:"params,omitempty"`
	Ref       int             `json:"ref,omitempty"`
	At        time.Duration   `json:"at_ns,omitempty"`
	Rows      int64           `json:"rows,omitempty"`
	Suspended bool            `json:"suspended,omitempty"`
	Corrected bool            `json:"corrected,omitempty"`
}

// State implements recorder.Resumable. While an answer is due, or half of a message is there, it has none.
func (i *Interpreter) State() ([]byte, bool) {
	if i.queue.head() != nil || i.skipping || !i.ready || i.client.filled > 0 || i.server.filled > 0 || len(i.copyData) > 0 ||
		len(i.nextStmts) > 0 || len(i.nextPortals) > 0 {
		return nil, false
	}
	s := state{Ref: i.ref, Ended: i.ended, Notes: i.notes, Encoding: i.encoding, Settings: i.settings, Number: i.queue.last}
	for name, stmt := range i.stmts {
		if stmt != nil {
			s.Stmts = append(s.Stmts, stmt.state(name))
		}
	}
	for name, p := range i.portals {
		if p == nil {
			continue
		}
		ps := portalState{Name: []byte(name), StmtName: []byte(p.stmtName), Params: p.params, Ref: p.ref, At: p.at, Rows: p.rows,
			Suspended: p.suspended, Corrected: p.corrected}
		if p.stmt != nil {
			of := p.stmt.state("")
			ps.Stmt = &of
		}
		s.Portals = append(s.Portals, ps)
	}
	b, err := json.Marshal(s)
	return b, err == nil
}

// Resume implements recorder.Resumable.
func (i *Interpreter) Resume(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if len(s.Stmts) > maxNames || len(s.Portals) > maxNames {
		return errors.New("too many names")
	}
	i.ref, i.ended, i.notes, i.encoding, i.queue.last, i.ready = s.Ref, s.Ended, s.Notes, s.Encoding, s.Number, true
	for name, value := range s.Settings {
		i.settings[name] = value
	}
	for _, stmt := range s.Stmts {
		i.stmts[string(stmt.Name)] = stmt.statement()
	}
	for _, p := range s.Portals {
		portal := &portal{name: string(p.Name), stmtName: string(p.StmtName), params: p.Params, ref: p.Ref, at: p.At, rows: p.Rows,
			suspended: p.Suspended, corrected: p.Corrected}
		if p.Stmt != nil {
			portal.stmt = p.Stmt.statement()
		}
		i.portals[string(p.Name)] = portal
	}
	i.held = len(b)
	return nil
}

func (s *statement) state(name string) statementState {
	return statementState{Name: []byte(name), Text: []byte(s.text), Size: s.size, Sum: s.sum, OIDs: s.oids, BySQL: s.bySQL}
}

func (s *statementState) statement() *statement {
	return &statement{text: string(s.Text), size: s.Size, sum: s.Sum, oids: s.OIDs, bySQL: s.BySQL}
}
