package recorder

import (
	"context"
	"iter"
	"slices"

	"sallyport/internal/refusal"
	"sallyport/recorder/format"
	"sallyport/recorder/index"
)

// scan searches one recording by reading it, and gives its matches in order. It is what the index must equal, and takes
// its place for what is not in it.
func (r *Recorder) scan(ctx context.Context, header format.Header, q Query, yield func(Match, error) bool) bool {
	items, err := r.items(ctx, header.Session, (*Recorder).newLinesTeller)
	if refusal.Is(err, refusal.NotFound) { // purged meanwhile
		return true
	}
	if err != nil {
		return yield(Match{Session: header.Session, Header: header}, err)
	}
	s := scanner{query: q, header: header, folded: index.Fold(q.Text), mask: r.masker(header).Text, yield: yield}
	return s.run(ctx, items)
}

type scanner struct {
	query   Query
	header  format.Header
	folded  string
	mask    func(string) string
	yield   func(Match, error) bool
	stopped bool

	count int64
	held  []held // what may yet fail, where only that is wanted
}

type held struct {
	number int64
	match  Match
	failed bool
}

func (s *scanner) run(ctx context.Context, items iter.Seq2[Item, error]) bool {
	x := index.Extractor{Emit: s.emit, Failed: s.failed, Mask: s.mask}
	for item, err := range items {
		if err != nil {
			return !s.stopped && s.yield(Match{Session: s.header.Session, Header: s.header}, err) && ctx.Err() == nil
		}
		x.Item(item)
		if s.stopped {
			return false
		}
	}
	for _, h := range s.held {
		if h.failed && !s.yield(h.match, nil) {
			return false
		}
	}
	return !s.stopped
}

func (s *scanner) emit(e index.Entry) {
	number := s.count
	s.count++
	if s.stopped || !s.query.during(e.Item.Time) {
		return
	}
	line, found := e.Match(s.folded)
	if !found {
		return
	}
	match := Match{Session: s.header.Session, Header: s.header, Item: e.Item, Line: line}
	if s.query.Errors {
		s.held = append(s.held, held{number, match, e.Failed})
		return
	}
	s.stopped = !s.yield(match, nil)
}

func (s *scanner) failed(number int64) {
	if i, found := slices.BinarySearchFunc(s.held, number, func(h held, n int64) int { return int(h.number - n) }); found {
		s.held[i].failed = true
	}
}
