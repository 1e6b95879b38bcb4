package session

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"sallyport/authn"
	"sallyport/internal/store"
)

// TestFind states that each filter admits what it says, that pages follow each other without gap or repetition, and that
// nothing beyond Visible is found.
func TestFind(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.alice, authn.Identity{Issuer: "https://login.example", Subject: "b%b", Name: "Bob O'Hara", Email: "bob@example.com"}
	began := time.UnixMilli(1_700_000_000_000).UTC()
	row := func(n int, who authn.Identity, target, protocol string, ended bool) {
		t.Helper()
		identity, err := json.Marshal(who)
		if err != nil {
			t.Fatal(err)
		}
		var end any
		if ended {
			end = began.Add(time.Hour).UnixMilli()
		}
		err = h.store.Do(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO sessions (id, protocol, identity, target, account, grant_id, reason, approvers, client, started, ended) VALUES (?, ?, ?, ?, 'app', ?, '', '[]', '', ?, ?)`,
				idAt(began.Add(time.Duration(n)*time.Minute)), protocol, identity, target, fmt.Sprintf("g-%d", n), began.Add(time.Duration(n)*time.Minute).UnixMilli(), end)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	id := func(n int) string { return idAt(began.Add(time.Duration(n) * time.Minute)) }
	row(1, alice, "orders", "postgres", true)
	row(2, bob, "orders", "postgres", true)
	row(3, alice, "web-1", "ssh", false)
	row(4, bob, "web-1", "ssh", true)
	row(5, bob, "stock", "postgres", false)
	for _, test := range []struct {
		name   string
		filter Filter
		want   []int
	}{
		{"everything", Filter{}, []int{5, 4, 3, 2, 1}},
		{"live", Filter{Live: true}, []int{5, 3}},
		{"a person by name, in any case", Filter{Person: "o'HARA"}, []int{5, 4, 2}},
		{"a person by mail", Filter{Person: "bob@"}, []int{5, 4, 2}},
		{"a percent sign is a percent sign", Filter{Person: "b%"}, []int{5, 4, 2}},
		{"a wildcard is none", Filter{Person: "%"}, []int{5, 4, 2}},
		{"nobody", Filter{Person: "' OR 1=1 --"}, nil},
		{"target and protocol", Filter{Target: "web-1", Protocol: "ssh"}, []int{4, 3}},
		{"account", Filter{Account: "deploy"}, nil},
		{"grant", Filter{Grant: "g-2"}, []int{2}},
		{"since", Filter{Since: began.Add(4 * time.Minute)}, []int{5, 4}},
		{"until", Filter{Until: began.Add(2 * time.Minute)}, []int{1}},
		{"a page", Filter{Limit: 2}, []int{5, 4}},
		{"the next page", Filter{Limit: 2, Before: id(4)}, []int{3, 2}},
		{"the last page", Filter{Limit: 2, Before: id(2)}, []int{1}},
		{"one's own", Filter{Visible: &Visible{Owner: alice.Key()}}, []int{3, 1}},
		{"one's own, and on targets", Filter{Visible: &Visible{Owner: alice.Key(), Targets: []string{"stock", "none"}}}, []int{5, 3, 1}},
		{"both bounds", Filter{Target: "orders", Visible: &Visible{Owner: alice.Key(), Targets: []string{"stock"}}}, []int{1}},
	} {
		found, err := h.sessions.Find(t.Context(), test.filter)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		var ids []string
		for _, i := range found {
			ids = append(ids, i.ID)
		}
		var want []string
		for _, n := range test.want {
			want = append(want, id(n))
		}
		if !slices.Equal(ids, want) {
			t.Errorf("%s: %v, want %v", test.name, ids, want)
		}
	}
}
