package session

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sallyport/internal/refusal"
)

// Filter narrows Find; what is empty narrows nothing.
type Filter struct {
	Live     bool   // only those that live
	Person   string // part of name, e-mail or subject, in any case of letters
	Target   string
	Account  string
	Protocol string
	Grant    string
	// Since and Until bound when it began: at or after, and before.
	Since, Until time.Time
	// Before is a session's id: only older ones. It is how the next page begins where the last one ended.
	Before string
	// Limit is how many at most; 0: all.
	Limit int
	// Visible bounds what may be seen at all; nil: everything.
	Visible *Visible
}

// Visible are the sessions of one identity, and those on some targets.
type Visible struct {
	Owner   string // authn.Identity.Key
	Targets []string
}

// idSlack is how far the time in a session's id and that of its beginning may be apart: ids are what the register is ordered
// by, so that a bound on them keeps the rest of it from being read.
const idSlack = 10 * time.Minute

// Find returns the sessions that the filter admits, newest first. What it costs depends on how many it passes over, not
// on how many there are.
func (m *Manager) Find(ctx context.Context, f Filter) ([]Info, error) {
	var where []string
	var args []any
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	among := func(column string, values []any) {
		and(column+` IN (?`+strings.Repeat(`, ?`, len(values)-1)+`)`, values...)
	}
	if f.Live {
		and(`ended IS NULL`)
	}
	for column, value := range map[string]string{"target": f.Target, "account": f.Account, "protocol": f.Protocol, "grant_id": f.Grant} {
		if value != "" {
			and(column+` = ?`, value)
		}
	}
	if f.Person != "" {
		people, err := m.people(ctx, f.Person)
		if err != nil {
			return nil, err
		}
		if len(people) == 0 {
			return []Info{}, nil
		}
		among(`person`, people)
	}
	if !f.Since.IsZero() {
		and(`id >= ?`, idAt(f.Since.Add(-idSlack)))
		and(`started >= ?`, f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		and(`id <= ?`, idAt(f.Until.Add(idSlack)))
		and(`started < ?`, f.Until.UnixMilli())
	}
	if f.Before != "" {
		and(`id < ?`, f.Before) // ids sort by time
	}
	if v := f.Visible; v != nil && len(v.Targets) == 0 {
		and(`owner = ?`, v.Owner)
	} else if v != nil {
		values := []any{v.Owner}
		for _, t := range v.Targets {
			values = append(values, t)
		}
		and(`(owner = ? OR target IN (?`+strings.Repeat(`, ?`, len(v.Targets)-1)+`))`, values...)
	}
	query := `SELECT ` + infoColumns + ` FROM sessions`
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	query += ` ORDER BY id DESC`
	if f.Limit > 0 {
		query += fmt.Sprintf(` LIMIT %d`, f.Limit)
	}
	rows, err := m.store.Read().QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("find sessions: %w", err)
	}
	defer rows.Close()
	infos := []Info{}
	for rows.Next() {
		info, err := scanInfo(rows)
		if err != nil {
			return nil, fmt.Errorf("find sessions: %w", err)
		}
		infos = append(infos, info)
	}
	return infos, rows.Err()
}

// mostPeople bounds the people that a part of a name may stand for.
const mostPeople = 1000

// people are those whose name, e-mail address or subject has the part in it. Each is looked at once, however many sessions
// they had.
func (m *Manager) people(ctx context.Context, part string) ([]any, error) {
	rows, err := m.store.Read().QueryContext(ctx, `WITH RECURSIVE each(person) AS (
			SELECT min(person) FROM sessions
			UNION ALL
			SELECT (SELECT min(s.person) FROM sessions s WHERE s.person > each.person) FROM each WHERE each.person IS NOT NULL
		) SELECT person FROM each WHERE replace(person, lower(?), '') <> person LIMIT ?`, part, mostPeople+1)
	if err != nil {
		return nil, fmt.Errorf("find people: %w", err)
	}
	defer rows.Close()
	var people []any
	for rows.Next() {
		var person string
		if err := rows.Scan(&person); err != nil {
			return nil, fmt.Errorf("find people: %w", err)
		}
		people = append(people, person)
	}
	if len(people) > mostPeople {
		return nil, refusal.New(refusal.Invalid, "%q is in more than %d people's names", part, mostPeople).WithHint("write more of the name")
	}
	return people, rows.Err()
}
