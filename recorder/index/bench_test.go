package index

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// million is how many statements the large benchmark searches.
const million = 1_000_000

// statement is like what applications send: much the same again and again, with other values in it.
func statement(r *rand.Rand, n int) string {
	switch n % 5 {
	case 0:
		return fmt.Sprintf("SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = %d", r.IntN(1e6))
	case 1:
		return fmt.Sprintf("UPDATE orders SET status = 'shipped', changed = now() WHERE id = %d AND status = 'packed'", r.IntN(1e6))
	case 2:
		return fmt.Sprintf("INSERT INTO events (kind, subject, body) VALUES ('login', 'user-%05d', '{\"from\": \"10.%d.%d.%d\"}')", r.IntN(1e5), r.IntN(256), r.IntN(256), r.IntN(256))
	case 3:
		return fmt.Sprintf("SELECT count(*) FROM sessions WHERE token = '%016x'", r.Uint64())
	}
	return fmt.Sprintf("DELETE FROM carts WHERE updated < now() - interval '%d minutes' AND owner = 'user-%05d'", r.IntN(500), r.IntN(1e5))
}

// openMillion is an index of a million statements in 1,000 sessions. Building it takes minutes, so it is kept among the
// machine's temporary files for the next time.
func openMillion(b *testing.B) *Index {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("sallyport-bench-%d-index-%d.db", os.Getuid(), version))
	x, _ := openTest(b, path)
	r := rand.New(rand.NewPCG(1, 2))
	const sessions = 1000
	var headers []format.Header
	for s := range sessions {
		headers = append(headers, format.Header{
			Session: fmt.Sprintf("s-%06d", s), Protocol: "postgres", Target: fmt.Sprintf("db-%02d", s%50), Account: "app", Grant: fmt.Sprint("g-", s/3),
			Identity: format.Party{Name: fmt.Sprint("Person ", s%40)}, Started: begun.Add(time.Duration(s) * time.Hour),
		})
	}
	states, err := x.Sessions(b.Context())
	if err == nil {
		err = x.Register(b.Context(), headers)
	}
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for s, h := range headers {
		batch := Batch{Whole: true}
		for n := range million / sessions {
			sql := statement(r, n)
			if s == 17 && n == 500 {
				sql = "DROP TABLE audit_trail"
			}
			at := time.Duration(n) * time.Second
			batch.Entries = append(batch.Entries, Entry{Item: item.Item{Kind: item.Statement, Number: n + 2, Ref: n + 1, At: at, SQL: sql}, Texts: []string{sql}, Failed: n%100 == 8})
		}
		if states[h.Session].Whole {
			continue
		}
		if err := x.Append(b.Context(), h.Session, batch); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%s: %d statements, %d MiB, indexed in %v", path, million, info.Size()>>20, time.Since(began).Round(time.Second))
	return x
}

// BenchmarkSearchMillion searches a million statements of 1,000 sessions for the first thousand hits. It runs only with
// SALLYPORT_BENCH_LARGE=1. To reach: 200 ms a search.
func BenchmarkSearchMillion(b *testing.B) {
	if os.Getenv("SALLYPORT_BENCH_LARGE") != "1" {
		b.Skip("set SALLYPORT_BENCH_LARGE=1")
	}
	x := openMillion(b)
	const most = 1000 // what the command line asks for
	for _, q := range []struct {
		name string
		Query
	}{
		{"one", Query{Text: "drop table audit"}},
		{"none", Query{Text: "pg_read_file"}},
		{"every", Query{Text: "select"}},
		{"number", Query{Text: "id = 77123"}},
		{"user", Query{Text: "user-00042"}},
		{"address", Query{Text: "10.17.99."}},
		{"long", Query{Text: "DELETE FROM carts WHERE updated < now() - interval '77 minutes' AND owner = 'user-004"}},
		{"target", Query{Text: "status = 'shipped'", Target: "db-07"}},
		{"person", Query{Text: "update orders", Admit: func(h format.Header) bool { return h.Identity.Name == "Person 7" }}},
		{"errors", Query{Text: "token = ", Errors: true}},
		{"noerror", Query{Text: "update orders", Errors: true}},
		{"day", Query{Text: "user-000", Since: begun.Add(480 * time.Hour), Until: begun.Add(504 * time.Hour)}},
		{"short", Query{Text: "pg", Target: "db-07"}},
	} {
		b.Run(q.name, func(b *testing.B) {
			hits := 0
			for b.Loop() {
				hits = 0
				for _, err := range x.Search(b.Context(), q.Query) {
					if err != nil {
						b.Fatal(err)
					}
					if hits++; hits == most {
						break
					}
				}
			}
			b.ReportMetric(float64(hits), "hits")
		})
	}
}
