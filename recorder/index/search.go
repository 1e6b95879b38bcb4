package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// Query says what to look for.
type Query struct {
	Text string // any part of a text; upper and lower case are the same
	// Protocol, Target, Account and Grant narrow it where they are not empty.
	Protocol, Target, Account, Grant string
	// Admit says of a session whether its entries are wanted; nil means all are.
	Admit  func(format.Header) bool
	Errors bool // only what failed
	// Since and Until bound when it happened: at or after, and before. Zero means no bound.
	Since, Until time.Time
}

// Hit is an entry that was found.
type Hit struct {
	Header *format.Header // shared by the hits of a session; not to be changed
	Item   item.Item
	Line   string // the text
}

const (
	// mostTrigrams is how many of a text's trigrams lead to candidates; more would hardly exclude anything.
	mostTrigrams = 5
	// mostRanges is how many runs of sessions are looked at one by one; more are looked at as one, and filtered.
	mostRanges = 1000
	// mostGroup is how many candidates of one session are held at once.
	mostGroup = 4096
)

// Search gives the hits, the session registered last first, and in a session in order. What is written meanwhile is not
// seen.
func (x *Index) Search(ctx context.Context, q Query) iter.Seq2[Hit, error] {
	return func(yield func(Hit, error) bool) {
		tx, err := x.reads.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		if err != nil {
			yield(Hit{}, fmt.Errorf("search: %w", classify(err)))
			return
		}
		defer tx.Rollback()
		s := &search{ctx: ctx, tx: tx, query: q, folded: Fold(q.Text), yield: yield}
		err = s.run()
		if err != nil && !errors.Is(err, errEnough) {
			yield(Hit{}, fmt.Errorf("search: %w", classify(err)))
		}
	}
}

// errEnough ends a search whose caller wants no more.
var errEnough = errors.New("enough")

// search is one search under way.
type search struct {
	ctx    context.Context
	tx     *sql.Tx
	query  Query
	folded string
	yield  func(Hit, error) bool

	fetch     *sql.Stmt // one entry
	fewFailed bool
	number    int64          // of the session that header is of
	header    *format.Header // nil: not admitted
}

func (s *search) run() (err error) {
	if s.fetch, err = s.tx.PrepareContext(s.ctx, `SELECT at, failed, text, item FROM entries WHERE id = ?`); err != nil {
		return err
	}
	defer s.fetch.Close()
	if err := s.countFailed(); err != nil {
		return err
	}
	ranges, err := s.ranges()
	if err != nil {
		return err
	}
	for _, r := range ranges {
		if err := s.between(firstOf(r[0]), lastOf(r[1])); err != nil {
			return err
		}
	}
	return nil
}

// ranges are runs of sessions that may hold hits, the newest first.
func (s *search) ranges() ([][2]int64, error) {
	until := int64(math.MaxInt64)
	if !s.query.Until.IsZero() {
		until = s.query.Until.UnixNano()
	}
	q := s.query
	if q.Protocol == "" && q.Target == "" && q.Account == "" && q.Grant == "" && q.Until.IsZero() {
		return [][2]int64{{0, 1<<31 - 2}}, nil
	}
	rows, err := s.tx.QueryContext(s.ctx, `SELECT number FROM sessions WHERE entries > 0 AND started < ?1 AND (?2 = '' OR protocol = ?2) AND
		(?3 = '' OR target = ?3) AND (?4 = '' OR account = ?4) AND (?5 = '' OR grant_id = ?5) ORDER BY number DESC`,
		until, q.Protocol, q.Target, q.Account, q.Grant)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ranges [][2]int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		if last := len(ranges) - 1; last >= 0 && ranges[last][0] == n+1 {
			ranges[last][0] = n
		} else {
			ranges = append(ranges, [2]int64{n, n})
		}
	}
	if len(ranges) > mostRanges {
		ranges = [][2]int64{{ranges[len(ranges)-1][0], ranges[0][1]}}
	}
	return ranges, rows.Err()
}

// between looks at the entries from first to last, session by session from the last.
func (s *search) between(first, last int64) error {
	for last >= first {
		group, more, err := s.group(first, last)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
		// Too many to hold: this session is looked at from its beginning, and the rest after it.
		number := sessionOf(group)
		if err := s.forwards(max(first, firstOf(number)), min(last, lastOf(number))); err != nil {
			return err
		}
		last = firstOf(number) - 1
	}
	return nil
}

// group looks at candidates backwards and gives each session's in order, until one session has too many: then it names a
// candidate of that session.
func (s *search) group(first, last int64) (of int64, more bool, err error) {
	rows, err := s.candidates(first, last, "DESC")
	if err != nil {
		return 0, false, err
	}
	defer rows.Close()
	var held []int64
	give := func() error {
		slices.Reverse(held)
		for _, id := range held {
			if err := s.look(id); err != nil {
				return err
			}
		}
		held = held[:0]
		return nil
	}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return 0, false, err
		}
		if len(held) > 0 && sessionOf(held[0]) != sessionOf(id) {
			if err := give(); err != nil {
				return 0, false, err
			}
		}
		if len(held) == 0 {
			if err := s.session(sessionOf(id)); err != nil {
				return 0, false, err
			}
		}
		if s.header == nil {
			continue
		}
		if held = append(held, id); len(held) > mostGroup {
			return id, true, nil
		}
	}
	if err := rows.Err(); err != nil {
		return 0, false, err
	}
	return 0, false, give()
}

// forwards looks at the candidates of one session in order.
func (s *search) forwards(first, last int64) error {
	rows, err := s.candidates(first, last, "ASC")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		if err := s.look(id); err != nil {
			return err
		}
	}
	return rows.Err()
}

// candidates are the entries that may be hits.
func (s *search) candidates(first, last int64, order string) (*sql.Rows, error) {
	match, failed := trigrams(s.folded), ""
	switch {
	case match == "" && s.query.Errors, s.fewFailed:
		return s.tx.QueryContext(s.ctx, `SELECT id FROM entries WHERE failed AND id BETWEEN ? AND ? ORDER BY id `+order, first, last)
	case match == "":
		return s.tx.QueryContext(s.ctx, `SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id `+order, first, last)
	case s.query.Errors:
		failed = ` AND +rowid IN (SELECT id FROM entries WHERE failed)`
	}
	return s.tx.QueryContext(s.ctx, `SELECT rowid FROM trigrams WHERE trigrams MATCH ? AND rowid BETWEEN ? AND ?`+failed+` ORDER BY rowid `+order, match, first, last)
}

// countFailed finds out whether so few entries failed that each of them is better compared at once.
func (s *search) countFailed() error {
	if !s.query.Errors {
		return nil
	}
	var count int
	err := s.tx.QueryRowContext(s.ctx, `SELECT count(*) FROM (SELECT 1 FROM entries WHERE failed LIMIT ?)`, mostGroup+1).Scan(&count)
	s.fewFailed = count <= mostGroup
	return err
}

// trigrams is a text as FTS5's query for some of its trigrams, or nothing if it is too short to have any. Those with a
// digit or a letter that is not ASCII are taken first: a value is rarer than the words around it.
func trigrams(folded string) string {
	var starts []int
	for i := range folded {
		starts = append(starts, i)
	}
	if len(starts) < 3 {
		return ""
	}
	starts = append(starts, len(folded))
	var rare, common []string
	for i := range len(starts) - 3 {
		part := folded[starts[i]:starts[i+3]]
		if strings.ContainsFunc(part, func(c rune) bool { return c >= '0' && c <= '9' || c >= 0x80 }) {
			rare = append(rare, part)
		} else {
			common = append(common, part)
		}
	}
	parts := spread(rare, mostTrigrams)
	parts = append(parts, spread(common, mostTrigrams-len(parts))...)
	for i, part := range parts {
		parts[i] = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
	}
	return strings.Join(parts, " AND ")
}

// spread takes so many of a list, both ends included, and each only once.
func spread(list []string, most int) []string {
	var out []string
	for i := range min(len(list), most) {
		at := i
		if len(list) > most && most > 1 {
			at = i * (len(list) - 1) / (most - 1)
		}
		if !slices.Contains(out, list[at]) {
			out = append(out, list[at])
		}
	}
	return out
}

// session makes a session the current one.
func (s *search) session(number int64) error {
	if s.number == number {
		return nil
	}
	s.number, s.header = number, nil
	var body []byte
	if err := s.tx.QueryRowContext(s.ctx, `SELECT header FROM sessions WHERE number = ?`, number).Scan(&body); err != nil {
		return fmt.Errorf("%w: session %d: %w", ErrDamaged, number, err)
	}
	var h format.Header
	if err := json.Unmarshal(body, &h); err != nil {
		return fmt.Errorf("%w: session %d: %w", ErrDamaged, number, err)
	}
	if s.query.Admit == nil || s.query.Admit(h) {
		s.header = &h
	}
	return nil
}

// look compares a candidate and gives it if it is a hit.
func (s *search) look(id int64) error {
	if err := s.session(sessionOf(id)); err != nil || s.header == nil {
		return err
	}
	var at int64
	var failed bool
	var text, rest sql.RawBytes
	rows, err := s.fetch.QueryContext(s.ctx, id)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return errors.Join(rows.Err(), fmt.Errorf("%w: entry %d is missing", ErrDamaged, id))
	}
	if err := rows.Scan(&at, &failed, &text, &rest); err != nil {
		return err
	}
	when := s.header.Started.Add(time.Duration(at))
	if s.query.Errors && !failed || !s.query.Since.IsZero() && when.Before(s.query.Since) || !s.query.Until.IsZero() && !when.Before(s.query.Until) ||
		!strings.Contains(Fold(string(text)), s.folded) {
		return nil
	}
	e, err := decode(text, rest)
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", ErrDamaged, id, err)
	}
	line, found := e.Match(s.folded)
	if !found {
		return nil
	}
	if err := rows.Close(); err != nil { // before the caller takes its time
		return err
	}
	e.Item.Session, e.Item.At, e.Item.Time = s.header.Session, time.Duration(at), when
	if !s.yield(Hit{Header: s.header, Item: e.Item, Line: line}, nil) {
		return errEnough
	}
	return nil
}
