package session

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/internal/store"
)

// BenchmarkFind measures pages of a register of a million sessions: the first, one from its middle, and narrowed ones.
func BenchmarkFind(b *testing.B) {
	const total, people = 1_000_000, 300
	h := newHouse(b)
	identities := make([][]byte, people)
	for i := range identities {
		identities[i], _ = json.Marshal(authn.Identity{
			Issuer: "https://login.example", Subject: fmt.Sprint(i), Name: fmt.Sprintf("Person %d", i), Email: fmt.Sprintf("p%d@example.com", i), Groups: []string{"engineers", "on-call"},
		})
	}
	began := time.UnixMilli(1_700_000_000_000)
	id := func(n int) string { return idAt(began.Add(time.Duration(n) * time.Second)) }
	err := h.store.Do(b.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(`PRAGMA cache_size = -400000`); err != nil { // in KiB: the indexes grow at random places
			return err
		}
		insert, err := tx.Prepare(`INSERT INTO sessions (id, protocol, identity, target, account, grant_id, reason, approvers, client, started, ended) VALUES (?, 'postgres', ?, ?, 'app', ?, 'INC-42: a reason as people write them', '["Bob"]', '10.0.0.1:4711', ?, ?)`)
		if err != nil {
			return err
		}
		defer insert.Close()
		for n := range total {
			var ended any
			if n < total-20 {
				ended = began.UnixMilli() + int64(n)*1000 + 500
			}
			if _, err := insert.Exec(id(n), identities[n%people], fmt.Sprintf("target-%d", n%50), fmt.Sprintf("g-%d", n/3), began.UnixMilli()+int64(n)*1000, ended); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		f    Filter
	}{
		{"first", Filter{}},
		{"middle", Filter{Before: id(total / 2)}},
		{"live", Filter{Live: true}},
		{"person", Filter{Person: "person 17"}},
		{"nobody", Filter{Person: "nobody of that name"}},
		{"target", Filter{Target: "target-7", Before: id(total / 2)}},
		{"grant", Filter{Grant: "g-1000"}},
		{"mine", Filter{Visible: &Visible{Owner: "https://login.example 17"}}},
		{"mine-and-targets", Filter{Visible: &Visible{Owner: "https://login.example 17", Targets: []string{"target-1", "target-2"}}}},
		{"old", Filter{Until: began.Add(time.Hour)}},
		{"one-hour", Filter{Since: began.Add(100 * time.Hour), Until: began.Add(101 * time.Hour)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.f.Limit = 51
			for b.Loop() {
				if _, err := h.sessions.Find(b.Context(), c.f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
