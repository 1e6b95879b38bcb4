package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgproto3/v2"

	"sallyport/internal/refusal"
	"sallyport/protocols/postgres/guard"
	"sallyport/protocols/postgres/interpret"
	"sallyport/protocols/postgres/wire"
	"sallyport/recorder/format"
	"sallyport/session"
)

// This file holds what a role or an account limits beyond what the account's privileges do: read-only transactions, and
// guardrails. Both are seat belts, and cost nothing where they are off.

// guardedHold is up to how large a frame passes whole where statements are looked at.
const guardedHold = guard.TextMost + 4<<10

const readOnlySetting = "default_transaction_read_only"

// limits are what holds for a session.
type limits struct {
	readOnly bool
	guard    *guard.Guard
	// settings are what settings that the target reports have to be, on which the limits stand.
	settings map[string]string
}

func limitsOf(o session.Opening) limits {
	role := o.Lease.Limits()
	l := limits{readOnly: role.ReadOnly || o.Account.ReadOnly, guard: guard.New(role.Guardrails), settings: map[string]string{}}
	if l.readOnly {
		l.settings[readOnlySetting] = "on" // reported from PostgreSQL 14 on
	}
	if l.guard != nil { // otherwise the server reads a text in another way than the guard
		l.settings["client_encoding"], l.settings["standard_conforming_strings"] = "UTF8", "on"
	}
	return l
}

// ReadyGuardrails makes the parser of statements ready, which takes a second or more, before the first session needs it.
func ReadyGuardrails() { guard.New([]string{guard.Unreadable}) }

// suits refuses settings with which the limits do not hold.
func (l *limits) suits(settings map[string]string) error {
	for name, want := range l.settings {
		if is, told := settings[name]; told && is != want {
			return refusal.New(refusal.NotPermitted, "a limit of this session needs %s to be %s, and it is %s", name, want, is).
				WithHint("leave that setting as it is")
		}
	}
	return nil
}

// limited is the ending of a session whose limits do not hold any more, or whose statement can't be refused in any other way.
func (r *relay) limited(err error) *ending {
	refused := refusal.Of(err)
	if refused == nil {
		refused = refusal.New(refusal.NotPermitted, "%s", err)
	}
	r.session.Refused(refused)
	return &ending{session.Ending{Reason: session.EndRefused, Sentence: refused.Message}, appendRefusal(nil, refused)}
}

// mayPass looks at a frame that begins, and keeps what it found of one that may not.
func (c *clientChunk) mayPass(p wire.Piece) bool {
	if p.Type != 'Q' && p.Type != 'P' {
		return true
	}
	text := p.Data[wire.HeaderSize:]
	whole := p.Last
	if p.Type == 'P' { // behind the statement's name
		_, rest, ok := wire.String(text)
		text, whole = rest, whole && ok
	}
	if sql, _, ok := wire.String(text); ok {
		text = sql
	}
	var err error
	if whole {
		err = c.check(text)
	} else {
		err = &guard.Refusal{Class: guard.Unreadable, What: fmt.Sprintf("a message of %d bytes (the most is %d)", p.Length, guardedHold)}
	}
	if err == nil {
		return true
	}
	c.refused, c.text, c.kind = err, text, p.Type
	return false
}

// beginnings are what is said of a statement that is refused: how it begins, for the recording, and the same masked, for the audit log and
// who is told of that. What is recorded is masked too where the cut would leave of what is masked a part that nobody knows for one.
func beginnings(whole string, masked func(string) string) (recorded, told string) {
	const shown = 200 // bytes
	begin := func(text string) string { return strings.ToValidUTF8(text[:min(len(text), shown)], "") }
	hidden := masked(whole)
	if recorded, told = begin(whole), begin(hidden); !strings.HasPrefix(hidden, masked(recorded)) {
		recorded = told
	}
	return recorded, told
}

// refuse tells the client that a statement is not passed on. Where nothing else is under way it is an error like any other,
// and the session goes on. In a transaction or behind other commands the target would have to know, so there the session
// ends, and its transaction is rolled back.
func (r *relay) refuse(c *clientChunk) *ending {
	recorded, text := beginnings(interpret.Mask(string(c.text)), r.session.Masked)
	refused := refusal.New(refusal.NotPermitted, "%s", c.refused).WithDetail("It was not passed on to %s. The statement begins: %s", r.session.Opening().Target.Name, text).
		WithHint("the guardrails of your role are against accidents; ask for a role without this one if you mean it")
	class := guard.Unreadable
	if g, ok := errors.AsType[*guard.Refusal](c.refused); ok {
		class = g.Class
	}
	note := format.Note{Kind: "postgres.guardrail", Text: "not passed on: " + c.refused.Error(), Fields: map[string]string{"class": class, "statement": recorded}}
	if r.session.Observe(format.JSON(format.TypeNote, 0, note)) != nil {
		return ended
	}
	answer := appendError(nil, stateNotPermitted, refused.Message, refused.Detail, refused.Hint)
	c.dropping, c.again = 'S', true
	if c.kind == 'Q' {
		answer = append(answer, readyForQuery...)
		c.dropping = 'Q'
	}
	said := false
	if !r.unsynced.Load() {
		var err error
		if said, err = r.out.answer(answer, r.asked); err != nil {
			return r.clientEnded()
		}
	}
	if !said {
		return r.limited(refused)
	}
	r.session.Refused(refused)
	return nil
}

// readyForQuery is the gateway's own, outside of a transaction.
var readyForQuery = []byte{'Z', 0, 0, 0, 5, 'I'}

// drop takes what belongs to a refused statement and is not passed on: that one message, or everything up to the Sync that
// ends what it began.
func (r *relay) drop(c *clientChunk, arrived []byte) (end int, why *ending) {
	c.again = false
	for end < len(arrived) {
		before := c.walker
		p, err := c.walker.Next(arrived[end:])
		if err != nil {
			return 0, r.violated(err)
		}
		if len(p.Data) == 0 {
			return end, nil
		}
		if p.First && p.Type == 'X' {
			c.walker, c.dropping, c.again = before, 0, true
			return end, nil
		}
		end += len(p.Data)
		if !p.Last || c.dropping == 'S' && p.Type != 'S' {
			continue
		}
		if c.dropping == 'S' {
			if _, err := r.out.answer(readyForQuery, r.asked); err != nil {
				return 0, r.clientEnded()
			}
		}
		c.dropping, c.again = 0, true
		return end, nil
	}
	return end, nil
}

// appendError is appendFatal for an error after which the session goes on.
func appendError(b []byte, state, message, detail, hint string) []byte {
	frame, err := (&pgproto3.ErrorResponse{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: state,
		Message: clean(message), Detail: clean(detail), Hint: clean(hint),
	}).Encode(b)
	if err != nil {
		return b // only for a text of gigabytes
	}
	return frame
}
