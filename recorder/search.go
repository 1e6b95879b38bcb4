package recorder

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/terminal"
)

// Query narrows a Search.
type Query struct {
	Text   string // matched in statements, commands, paths, terminal lines; case-insensitive substring
	Person string // part of name, e-mail or subject
	Target string
	Grant  string
	// Since and Until bound when it happened: at or after, and before. Zero means no bound.
	Since time.Time
	Until time.Time
	Limit int // of matches; 0 means none
}

// Match is one place where Query.Text was found.
type Match struct {
	Session string        `json:"session"`
	Header  format.Header `json:"header"`
	Item    Item          `json:"item"`
	Line    string        `json:"line"`
}

// Search finds statements, commands, paths and terminal lines, the newest session first, live ones included as far as
// they are safe. A terminal line is found by what a terminal would have shown of it: joined from the pieces in which it
// came, without escape sequences; Match.Item is the output with which it ended. An error of one recording does not end
// the search; one of ctx does.
func (r *Recorder) Search(ctx context.Context, q Query) iter.Seq2[Match, error] {
	return func(yield func(Match, error) bool) {
		sessions, err := r.Sessions(ctx)
		if err != nil {
			yield(Match{}, err)
			return
		}
		s := searcher{query: q, text: strings.ToLower(q.Text), left: q.Limit, yield: yield}
		for _, header := range slices.Backward(sessions) {
			if !q.admits(header) {
				continue
			}
			items, err := r.Items(ctx, header.Session)
			if err != nil {
				if !yield(Match{Session: header.Session, Header: header}, err) {
					return
				}
				continue
			}
			if !s.session(ctx, header, items) {
				return
			}
		}
	}
}

// admits reports whether a session may hold a match.
func (q Query) admits(h format.Header) bool {
	return (q.Target == "" || h.Target == q.Target) &&
		(q.Grant == "" || h.Grant == q.Grant) &&
		(q.Person == "" || contains(h.Identity.Name, q.Person) || contains(h.Identity.Email, q.Person) || contains(h.Identity.Subject, q.Person)) &&
		(q.Until.IsZero() || h.Started.Before(q.Until))
}

func contains(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

// searcher looks through sessions.
type searcher struct {
	query Query
	text  string // in lower case
	left  int
	yield func(Match, error) bool
}

// stream is one terminal's or pipe's text.
type stream struct {
	channel uint32
	name    string
}

// session looks through one session and reports whether to go on with the next.
func (s *searcher) session(ctx context.Context, header format.Header, items iter.Seq2[Item, error]) bool {
	lines := map[stream]*terminal.Lines{}
	last := map[stream]Item{}
	goOn := true
	match := func(item Item, line string) {
		if !goOn || !strings.Contains(strings.ToLower(line), s.text) || !s.query.during(item.Time) {
			return
		}
		goOn = s.yield(Match{Session: header.Session, Header: header, Item: item, Line: line}, nil)
		if s.left--; s.left == 0 {
			goOn = false
		}
	}
	for item, err := range items {
		if err != nil {
			goOn = goOn && s.yield(Match{Session: header.Session, Header: header}, err) && ctx.Err() == nil
			return goOn
		}
		switch item.Kind {
		case ItemOutput:
			from := stream{item.Channel, item.Stream}
			if lines[from] == nil {
				lines[from] = new(terminal.Lines)
			}
			last[from] = item
			lines[from].Write(item.Data, func(line string) { match(item, line) })
		case ItemStatement, ItemCommand, ItemFile, ItemOther:
			for _, text := range []string{item.SQL, item.Command, item.Path} {
				if text != "" && strings.Contains(strings.ToLower(text), s.text) {
					match(item, text)
					break
				}
			}
		}
		if !goOn {
			return false
		}
	}
	for from, l := range lines {
		l.Finish(func(line string) { match(last[from], line) })
	}
	return goOn
}

func (q Query) during(t time.Time) bool {
	return (q.Since.IsZero() || !t.Before(q.Since)) && (q.Until.IsZero() || t.Before(q.Until))
}
