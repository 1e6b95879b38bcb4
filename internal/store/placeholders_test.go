package store

import "testing"

func TestNumbered(t *testing.T) {
	for query, want := range map[string]string{
		`SELECT 1`:                             `SELECT 1`,
		`SELECT ? WHERE a = ? LIMIT ?`:         `SELECT $1 WHERE a = $2 LIMIT $3`,
		`SELECT '?', "what?", ?`:               `SELECT '?', "what?", $1`,
		`SELECT 'it''s ?', ?`:                  `SELECT 'it''s ?', $1`,
		"SELECT ? -- really?\n, ?":             "SELECT $1 -- really?\n, $2",
		"SELECT ? -- really?":                  "SELECT $1 -- really?",
		`SELECT ?, 'open ?`:                    `SELECT $1, 'open ?`,
		`VALUES (?,?,?,?,?,?,?,?,?,?,?) -- ''`: `VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11) -- ''`,
	} {
		if got := numbered(query); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
}
