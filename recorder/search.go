package recorder

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/recorder/index"
)

// Query narrows a Search.
type Query struct {
	Text     string // matched in statements, commands, paths, terminal lines; case-insensitive substring
	Person   string // part of name, e-mail or subject
	Target   string
	Account  string
	Protocol string
	Grant    string
	// Errors leaves only statements that ended in an error, commands that did with a status other than 0 or by a signal,
	// and operations on files that were refused.
	Errors bool
	// Since and Until bound when it happened: at or after, and before. Zero means no bound.
	Since time.Time
	Until time.Time
	Limit int // of matches; 0 means none
}

// Match is one place where Query.Text was found. Item is without what is long and not searched: the bytes of output, a
// statement's parameters.
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
//
// What is in the index (Options.Index) is found there, after it was brought up to date; other recordings are read. Either
// way the result is the same. A locked recording is not searched: for each that might have matches there is the refusal
// (Locked).
func (r *Recorder) Search(ctx context.Context, q Query) iter.Seq2[Match, error] {
	return func(yield func(Match, error) bool) {
		left := q.Limit
		s := searching{recorder: r, ctx: ctx, query: q}
		s.yield = func(m Match, err error) bool {
			s.given = true
			if !yield(m, err) {
				return false
			}
			if err == nil {
				left--
			}
			return left != 0 || err != nil
		}
		s.run()
	}
}

// searching is one search under way. Its functions report whether to go on.
type searching struct {
	recorder *Recorder
	ctx      context.Context
	query    Query
	yield    func(Match, error) bool
	given    bool    // something was yielded
	apart    []apart // sessions that the index does not have, or not all of; the newest last
}

// apart is a session that is not, or not wholly, found through the index.
type apart struct {
	header format.Header
	// pending are lines that are under way in a session that is otherwise in the index; a session without is read.
	indexed bool
	pending []index.Entry
}

func (s *searching) run() {
	r := s.recorder
	x, apart, err := r.indexer.ready(s.ctx)
	if err != nil {
		s.yield(Match{}, err)
		return
	}
	if x == nil {
		all, err := r.Sessions(s.ctx)
		if err != nil {
			s.yield(Match{}, err)
			return
		}
		s.read(all)
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(x.ctx, cancel)()
	s.apart = apart
	skip := map[string]bool{}
	for _, a := range apart {
		skip[a.header.Session] = !a.indexed
	}
	for hit, err := range x.index.Search(ctx, index.Query{
		Text: s.query.Text, Protocol: s.query.Protocol, Target: s.query.Target, Account: s.query.Account, Grant: s.query.Grant,
		Errors: s.query.Errors, Since: s.query.Since, Until: s.query.Until,
		Admit: func(h format.Header) bool { return !skip[h.Session] && s.query.admits(h) && r.has(h.Session) },
	}) {
		if err != nil {
			s.failed(err)
			return
		}
		if !s.before(*hit.Header) {
			return
		}
		if !s.yield(Match{Session: hit.Header.Session, Header: *hit.Header, Item: hit.Item, Line: hit.Line}, nil) {
			return
		}
	}
	if s.before(format.Header{}) {
		s.locked()
	}
}

// locked tells of locked recordings that might have matches.
func (s *searching) locked() {
	r := s.recorder
	r.mu.Lock()
	all := slices.SortedFunc(maps.Values(r.locked), byAge)
	r.mu.Unlock()
	for _, h := range slices.Backward(all) {
		if s.query.admits(h) && !s.yield(Match{Session: h.Session, Header: h}, RefuseLocked(h.Session)) {
			return
		}
	}
}

// failed ends a search whose index did not do. With nothing given yet, everything is read instead.
func (s *searching) failed(err error) {
	r := s.recorder
	if s.ctx.Err() != nil {
		s.yield(Match{}, s.ctx.Err())
		return
	}
	r.Log.Error("the search index failed", "error", err)
	if errors.Is(err, index.ErrDamaged) {
		r.indexer.damaged()
	}
	if s.given {
		s.yield(Match{}, refusal.New(refusal.RecorderFailed, "the search index failed half-way").
			WithDetail("what was found is not all there may be; the index is being made anew").WithHint("search again").Because(err))
		return
	}
	all, err := r.Sessions(s.ctx)
	if err != nil {
		s.yield(Match{}, err)
		return
	}
	s.read(all)
}

// read searches sessions by reading them, the newest first.
func (s *searching) read(sessions []format.Header) {
	for _, header := range slices.Backward(sessions) {
		if s.query.admits(header) && !s.recorder.scan(s.ctx, header, s.query, s.yield) {
			return
		}
	}
}

// before searches what stands apart and is newer than a session whose turn it is.
func (s *searching) before(turn format.Header) bool {
	for len(s.apart) > 0 {
		a := s.apart[len(s.apart)-1]
		if byAge(a.header, turn) <= 0 {
			return true
		}
		s.apart = s.apart[:len(s.apart)-1]
		if !s.query.admits(a.header) {
			continue
		}
		if !a.indexed {
			if !s.recorder.scan(s.ctx, a.header, s.query, s.yield) {
				return false
			}
			continue
		}
		sc := scanner{query: s.query, header: a.header, folded: index.Fold(s.query.Text), yield: s.yield}
		for _, e := range a.pending {
			if sc.emit(e); sc.stopped {
				return false
			}
		}
	}
	return true
}

// has reports whether there is a recording of that session.
func (r *Recorder) has(session string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.paths[session]
	return ok
}

// admits reports whether a session may hold a match.
func (q Query) admits(h format.Header) bool {
	return (q.Target == "" || h.Target == q.Target) &&
		(q.Account == "" || h.Account == q.Account) &&
		(q.Protocol == "" || h.Protocol == q.Protocol) &&
		(q.Grant == "" || h.Grant == q.Grant) &&
		(q.Person == "" || contains(h.Identity.Name, q.Person) || contains(h.Identity.Email, q.Person) || contains(h.Identity.Subject, q.Person)) &&
		(q.Until.IsZero() || h.Started.Before(q.Until))
}

func contains(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

func (q Query) during(t time.Time) bool {
	return (q.Since.IsZero() || !t.Before(q.Since)) && (q.Until.IsZero() || t.Before(q.Until))
}
