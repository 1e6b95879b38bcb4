package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

var begun = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sample is a session as its items.
type sample struct {
	header format.Header
	items  []item.Item
	whole  bool
}

// words are what samples are made of: common and rare, in many scripts, with what databases and terminals dislike.
var words = []string{
	"SELECT", "select", "from", "orders", "Orders", "WHERE", "id", "=", "42", "'O''Brien'", `"Quoted"`, "drop table", "émigré", "ÄRGER",
	"ärger", "İstanbul", "ſ", "K", "日本語", "日本", "\U0001F600", "/etc/passwd", "-rf", "a_b%c", "NUL\x00inside", "bad\xff\xfe bytes", "tab\tand\nline",
	"AND", "OR", "NEAR(", "*", "^", "x",
}

func phrase(r *rand.Rand) string {
	var parts []string
	for range 1 + r.IntN(5) {
		parts = append(parts, words[r.IntN(len(words))])
	}
	return strings.Join(parts, " ")
}

// random makes a session of everything that there is.
func random(r *rand.Rand, n int) sample {
	s := sample{whole: r.IntN(4) > 0, header: format.Header{
		Session: fmt.Sprintf("s-%04d", n), Protocol: []string{"postgres", "ssh"}[n%2], Target: []string{"orders", "web-1", "web-2"}[r.IntN(3)],
		Account: []string{"app", "report"}[r.IntN(2)], Grant: fmt.Sprintf("g-%d", r.IntN(4)), Started: begun.Add(time.Duration(n) * time.Hour),
		Identity: format.Party{Name: []string{"Alice", "Bob"}[r.IntN(2)]},
	}}
	add := func(it item.Item) {
		it.Session, it.Number, it.At = s.header.Session, len(s.items)+1, time.Duration(len(s.items))*time.Minute
		it.Time = s.header.Started.Add(it.At)
		s.items = append(s.items, it)
	}
	add(item.Item{Kind: item.Start, Header: &s.header})
	one := 1
	for ref := range r.IntN(12) {
		switch r.IntN(5) {
		case 0:
			add(item.Item{Kind: item.Statement, Ref: ref + 1, SQL: phrase(r), Params: []item.Param{{Text: "left out"}}, Via: "execute"})
		case 1:
			add(item.Item{Kind: item.Command, Channel: 1, Ref: ref + 1, Via: "exec", Command: phrase(r)})
		case 2:
			add(item.Item{Kind: item.File, Command: "rename", Path: "/" + phrase(r), SHA256: []string{"", "9f86d081884c7d65"}[r.IntN(2)], Error: []string{"", "no such file"}[r.IntN(2)]})
		case 3:
			add(item.Item{Kind: item.Other, Command: phrase(r), Text: "more"})
		case 4:
			for range 1 + r.IntN(4) { // lines come in pieces
				add(item.Item{Kind: item.Output, Channel: uint32(r.IntN(2)), Stream: "stdout", Data: []byte(phrase(r) + []string{"", "\r\n", "\x1b[31m"}[r.IntN(3)])})
			}
		}
		switch r.IntN(4) {
		case 0:
			add(item.Item{Kind: item.Result, Ref: ref + 1, SQLState: "42P01", Error: "no such table"})
		case 1:
			add(item.Item{Kind: item.Result, Ref: ref + 1, Tag: "SELECT 1"})
		case 2:
			add(item.Item{Kind: item.Exit, Channel: 1, Ref: ref + 1, ExitStatus: &one})
		}
	}
	if s.whole {
		add(item.Item{Kind: item.End, Reason: "client_closed"})
	}
	return s
}

// TestAFileIsFoundByItsHash: and where there is none, by nothing in its stead.
func TestAFileIsFoundByItsHash(t *testing.T) {
	const sum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	s := sample{header: format.Header{Session: "s-1"}, items: []item.Item{
		{Kind: item.File, Command: "upload", Path: "/a", SHA256: sum}, {Kind: item.File, Command: "upload", Path: "/b"},
		{Kind: item.Bulk, Stream: "stdin", SHA256: sum},
	}}
	var found []string
	for _, e := range s.entries() {
		if line, ok := e.Match(Fold(strings.ToUpper(sum[:20]))); ok && line == sum {
			found = append(found, e.Item.Path)
		}
	}
	if len(found) != 1 || found[0] != "/a" {
		t.Errorf("found %q", found)
	}
}

// entries are all that can be found in a session, with what failed known.
func (s sample) entries() []Entry {
	var all []Entry
	x := Extractor{Emit: func(e Entry) { all = append(all, e) }, Failed: func(n int64) { all[n].Failed = true }}
	for _, it := range s.items {
		x.Item(it)
	}
	return all
}

// scan is the search that the index must equal, the newest session first.
func scan(samples []sample, q Query) []Hit {
	var hits []Hit
	for _, s := range slices.Backward(samples) {
		h := s.header
		if q.Protocol != "" && h.Protocol != q.Protocol || q.Target != "" && h.Target != q.Target || q.Account != "" && h.Account != q.Account ||
			q.Grant != "" && h.Grant != q.Grant || q.Admit != nil && !q.Admit(h) {
			continue
		}
		for _, e := range s.entries() {
			line, found := e.Match(Fold(q.Text))
			if !found || q.Errors && !e.Failed || !q.Since.IsZero() && e.Item.Time.Before(q.Since) || !q.Until.IsZero() && !e.Item.Time.Before(q.Until) {
				continue
			}
			hits = append(hits, Hit{Header: &s.header, Item: e.Item, Line: line})
		}
	}
	return hits
}

// fill brings sessions into the index as they come: interleaved, in batches of any size, what is there already left out.
func fill(t testing.TB, x *Index, samples []sample, r *rand.Rand) {
	t.Helper()
	var headers []format.Header
	for _, s := range samples {
		headers = append(headers, s.header)
	}
	if err := x.Register(t.Context(), headers); err != nil {
		t.Fatal(err)
	}
	states, err := x.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type feed struct {
		sample
		extractor Extractor
		at        int
		batch     Batch
	}
	var feeds []*feed
	for _, s := range samples {
		if states[s.header.Session].Whole {
			continue
		}
		if err := x.Clear(t.Context(), s.header.Session); err != nil {
			t.Fatal(err)
		}
		f := &feed{sample: s}
		f.extractor.Emit = func(e Entry) { f.batch.Entries = append(f.batch.Entries, e) }
		f.extractor.Failed = func(n int64) { f.batch.Failed = append(f.batch.Failed, n) }
		feeds = append(feeds, f)
	}
	for len(feeds) > 0 {
		i := r.IntN(len(feeds))
		f := feeds[i]
		for range 1 + r.IntN(6) {
			if f.at < len(f.items) {
				f.extractor.Item(f.items[f.at])
				f.at++
			}
		}
		f.batch.Whole = f.whole && f.at == len(f.items)
		if err := x.Append(t.Context(), f.header.Session, f.batch); err != nil {
			t.Fatal(err)
		}
		f.batch = Batch{From: f.batch.From + int64(len(f.batch.Entries))}
		if f.at == len(f.items) {
			feeds = slices.Delete(feeds, i, i+1)
		}
	}
}

func found(t testing.TB, x *Index, q Query) []Hit {
	t.Helper()
	var hits []Hit
	for h, err := range x.Search(t.Context(), q) {
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		hits = append(hits, h)
	}
	return hits
}

// queries are every part of every word, and whole phrases, with every filter.
func queries(r *rand.Rand, samples []sample, count int) []Query {
	var all []Query
	for range count {
		text := phrase(r)
		if all := samples[r.IntN(len(samples))].entries(); len(all) > 0 && r.IntN(2) == 0 {
			text = all[r.IntN(len(all))].Texts[0]
		}
		from := r.IntN(len(text))
		text = text[from : from+1+r.IntN(len(text)-from)]
		q := Query{Text: text}
		if r.IntN(3) == 0 {
			q.Target = []string{"orders", "web-1", "nowhere"}[r.IntN(3)]
		}
		if r.IntN(4) == 0 {
			q.Account = "app"
		}
		if r.IntN(5) == 0 {
			q.Grant = "g-1"
		}
		if r.IntN(5) == 0 {
			q.Protocol = "ssh"
		}
		if r.IntN(4) == 0 {
			q.Admit = func(h format.Header) bool { return h.Identity.Name == "Alice" }
		}
		if r.IntN(4) == 0 {
			q.Since = begun.Add(time.Duration(r.IntN(40*60)) * time.Minute)
		}
		if r.IntN(4) == 0 {
			q.Until = begun.Add(time.Duration(r.IntN(40*60)) * time.Minute)
		}
		q.Errors = r.IntN(4) == 0
		all = append(all, q)
	}
	return all
}

func check(t *testing.T, x *Index, samples []sample, r *rand.Rand, count int) {
	t.Helper()
	hits := 0
	for _, q := range queries(r, samples, count) {
		got, want := found(t, x, q), scan(samples, q)
		for _, hits := range [][]Hit{got, want} { // as everybody sees them, which is JSON
			for i := range hits {
				hits[i].Item, hits[i].Line = asJSON(t, hits[i].Item), strings.ToValidUTF8(hits[i].Line, "\uFFFD")
			}
		}
		hits += len(want)
		if diff := cmp.Diff(want, got); diff != "" {
			q.Admit = nil
			t.Fatalf("%+v (-scan +index):\n%s", q, diff)
		}
	}
	if hits < count/4 {
		t.Fatalf("only %d hits in %d searches: this test sees nothing", hits, count)
	}
}

func asJSON(t *testing.T, it item.Item) (out item.Item) {
	t.Helper()
	data, err := json.Marshal(it)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func openTest(t testing.TB, path string) (*Index, bool) {
	t.Helper()
	x, fresh, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x, fresh
}

// A search of the index finds what reading everything would find, however the index came to be: in one go, piece by
// piece, after being opened again, after sessions were taken out.
func TestFindsWhatAScanFinds(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var samples []sample
			for n := range 40 {
				samples = append(samples, random(r, n))
			}
			path := filepath.Join(t.TempDir(), "index.db")
			x, fresh := openTest(t, path)
			if !fresh {
				t.Error("a new index is not told as one")
			}
			fill(t, x, samples[:20], r)
			check(t, x, samples[:20], r, 60)
			x.Close()
			x, fresh = openTest(t, path)
			if fresh {
				t.Error("an index that is there is made again")
			}
			fill(t, x, samples, r)
			check(t, x, samples, r, 100)
			for _, i := range []int{30, 7, 0} {
				if err := x.Forget(t.Context(), samples[i].header.Session); err != nil {
					t.Fatal(err)
				}
				samples = slices.Delete(samples, i, i+1)
			}
			check(t, x, samples, r, 60)
		})
	}
}

// One session with more hits than a search holds at once comes in order all the same, among others.
func TestManyHitsInOneSession(t *testing.T) {
	x, _ := openTest(t, filepath.Join(t.TempDir(), "index.db"))
	var samples []sample
	for n, count := range []int{3, mostGroup + 100, 2} {
		s := sample{whole: true, header: format.Header{Session: fmt.Sprint("s-", n), Started: begun.Add(time.Duration(n) * time.Hour)}}
		for i := range count {
			s.items = append(s.items, item.Item{Session: s.header.Session, Kind: item.Statement, Number: i + 1, Ref: i + 1, SQL: fmt.Sprint("SELECT ", i), Time: s.header.Started})
		}
		samples = append(samples, s)
	}
	fill(t, x, samples, rand.New(rand.NewPCG(1, 1)))
	for _, q := range []Query{{Text: "select"}, {Text: "s"}, {Text: "SELECT 4"}} {
		if diff := cmp.Diff(scan(samples, q), found(t, x, q)); diff != "" {
			t.Errorf("%q: %s", q.Text, diff)
		}
	}
	taken := 0
	for range x.Search(t.Context(), Query{Text: "select"}) { // a caller may stop
		if taken++; taken == 5 {
			break
		}
	}
	found(t, x, Query{Text: "select 1"})
}

func TestABatchThatDoesNotFollowIsRefused(t *testing.T) {
	x, _ := openTest(t, filepath.Join(t.TempDir(), "index.db"))
	h := format.Header{Session: "s-1", Started: begun}
	if err := x.Register(t.Context(), []format.Header{h}); err != nil {
		t.Fatal(err)
	}
	b := Batch{Entries: []Entry{{Texts: []string{"one"}}}}
	if err := x.Append(t.Context(), "s-1", b); err != nil {
		t.Fatal(err)
	}
	if err := x.Append(t.Context(), "s-1", b); !errors.Is(err, errOrder) {
		t.Fatalf("the same batch again: %v", err)
	}
	if hits := found(t, x, Query{Text: "one"}); len(hits) != 1 {
		t.Fatalf("%d hits", len(hits))
	}
}

// A file that is no index, or no longer one, is made anew; other errors are not taken for that.
func TestAnIndexThatCannotBeReadIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing":      os.Remove,
		"empty":        func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"no database":  func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("no database ", 1000)), 0o600) },
		"cut short":    func(p string) error { return os.Truncate(p, 5000) },
		"other tables": func(p string) error { return alter(p, `DROP TABLE entries`) },
		"other version": func(p string) error {
			return alter(p, fmt.Sprintf("PRAGMA user_version = %d", version+1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "index.db")
			x, _ := openTest(t, path)
			fill(t, x, []sample{random(rand.New(rand.NewPCG(1, 1)), 1)}, rand.New(rand.NewPCG(1, 1)))
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			x, fresh := openTest(t, path)
			if !fresh {
				t.Fatal("it was taken for an index")
			}
			if all, err := x.Sessions(t.Context()); err != nil || len(all) != 0 {
				t.Fatalf("%v, %v", all, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
	if _, _, err := Open(t.Context(), filepath.Join(t.TempDir(), "no", "such", "directory", "index.db")); err == nil {
		t.Error("an index in no directory was opened")
	}
}

func alter(path, statement string) error {
	x, err := open(context.Background(), path)
	if err != nil {
		return err
	}
	_, err = x.writes.Exec(statement)
	return errors.Join(err, x.Close())
}

// What goes wrong later, in a file that was good when it was opened, is told as damage.
func TestDamageIsToldAsSuch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	x, _ := openTest(t, path)
	r := rand.New(rand.NewPCG(3, 3))
	var samples []sample
	for n := range 30 {
		samples = append(samples, random(r, n))
	}
	fill(t, x, samples, r)
	if _, err := x.writes.Exec(`DELETE FROM entries`); err != nil {
		t.Fatal(err)
	}
	for _, err := range x.Search(t.Context(), Query{Text: "select"}) {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("entries are gone: %v", err)
		}
		return
	}
	t.Error("nothing was said")
}

func TestTrigrams(t *testing.T) {
	for text, want := range map[string]string{
		"":      "",
		"ab":    "",
		"日本":    "",
		"日本語":   `"日本語"`,
		"abcd":  `"abc" AND "bcd"`,
		`a"b`:   `"a""b"`,
		"aaaaa": `"aaa"`,
	} {
		if got := trigrams(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	long := trigrams(Fold(strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789", 20)))
	if n := strings.Count(long, " AND ") + 1; n > mostTrigrams {
		t.Errorf("%d trigrams", n)
	}
}
