package grant

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/internal/store"
	"sallyport/internal/store/storetest"
)

// crowd fills a store with grants that give access and grants that are over.
func crowd(b *testing.B, w *world, live, past int) {
	b.Helper()
	now := w.clocks.now()
	template := Grant{
		ID: "g-000000", State: Active, Target: "orders", Account: "ro", Reason: "because", Policy: "read", Duration: time.Hour, Total: time.Hour, Requested: now,
		From: now, Until: now.Add(time.Hour), Version: 2,
	}
	identity := func(n string) string {
		who := person("x", "engineers")
		who.Subject, who.Name = "n"+n, "N"
		text, err := json.Marshal(who)
		if err != nil {
			b.Fatal(err)
		}
		return string(text)
	}
	template.Identity = person("x", "engineers")
	err := w.db.Do(b.Context(), func(tx *store.Tx) error {
		if err := insert(b.Context(), tx, template); err != nil {
			return err
		}
		const rest = `target, account, reason, policy, duration, needed, may_approve, requested, decide_by, activate_by, started, until, source, ticket, total, idle, extensions,
			extension, terms, end_reason, ended_by, end_comment`
		for _, some := range []struct {
			n     int
			state string
			ended int64
			id    string
		}{{live, "active", 0, "l"}, {past, "ended", now.UnixNano(), "p"}} {
			const atATime = 50_000 // so that no statement takes longer than the store lets one
			for from := 1; from <= some.n; from += atATime {
				if _, err := tx.ExecContext(b.Context(), `INSERT INTO grants (id, version, state, issuer, subject, identity, ended_at, `+rest+`)
					WITH RECURSIVE n(i) AS (SELECT CAST(? AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i < CAST(? AS INTEGER))
					SELECT CAST(? AS TEXT) || n.i, 2, CAST(? AS TEXT), issuer, 'n' || n.i, replace(CAST(? AS TEXT), '"nX"', '"n' || n.i || '"'), CAST(? AS BIGINT), `+rest+`
					FROM grants, n WHERE id = 'g-000000'`,
					from, min(from+atATime-1, some.n), some.id, some.state, identity("X"), some.ended); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// Letting somebody in who has a grant, of a hundred thousand that live and a million that are over: all that the gateway does
// between a proven identity and a lease. With SALLYPORT_TEST_STORE=postgres the crowd stands in a PostgreSQL database.
func BenchmarkAdmission(b *testing.B) {
	live, past := 100_000, 1_000_000
	if text := os.Getenv("SALLYPORT_BENCH_GRANTS"); text != "" { // a smaller crowd
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		live, past = n, 10*n
	}
	w := &world{t: b, dir: b.TempDir(), clocks: newClocks(), config: example()}
	w.config.Policies[1].When = `target.labels.env == "prod"`
	w.start()
	b.Cleanup(func() { w.stop() })
	w.stop() // with its tables made
	func() {
		var err error
		if w.db, err = storetest.Open(b.Context(), w.dir); err != nil {
			b.Fatal(err)
		}
		defer w.db.Close()
		crowd(b, w, live, past)
	}()
	began := time.Now()
	w.start()
	b.Logf("%d grants that live and %d that are over; loaded in %s", live, past, time.Since(began))
	who := func(i int) authn.Identity {
		x := person("x", "engineers")
		x.Subject = fmt.Sprint("n", i%live+1)
		return x
	}
	if n := len(w.entries()); n != live+1 {
		b.Fatalf("%d grants live", n)
	}
	b.Run("lease", func(b *testing.B) {
		i := 0
		for b.Loop() {
			l, err := w.Lease(b.Context(), who(i), "orders", "ro")
			if err != nil {
				b.Fatal(err)
			}
			l.Return()
			i++
		}
	})
	b.Run("live", func(b *testing.B) {
		l, err := w.Lease(b.Context(), who(1), "orders", "ro")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Return()
		for b.Loop() {
			if err := l.Live(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
