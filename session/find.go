package session

import (
	"context"
	"fmt"
	"strings"
	"time"
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

// Find returns the sessions that the filter admits, newest first. What it costs depends on how many it passes over, not
// on how many there are.
func (m *Manager) Find(ctx context.Context, f Filter) ([]Info, error) {
	var where []string
	var args []any
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
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
		const part = `instr(lower(json_extract(CAST(identity AS TEXT), '$.%s')), lower(?)) > 0`
		and(`(`+fmt.Sprintf(part, "name")+` OR `+fmt.Sprintf(part, "email")+` OR `+fmt.Sprintf(part, "subject")+`)`, f.Person, f.Person, f.Person)
	}
	if !f.Since.IsZero() {
		and(`started >= ?`, f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		and(`started < ?`, f.Until.UnixMilli())
	}
	if f.Before != "" {
		and(`id < ?`, f.Before) // ids sort by time
	}
	if v := f.Visible; v != nil {
		condition := `json_extract(CAST(identity AS TEXT), '$.issuer') || ' ' || json_extract(CAST(identity AS TEXT), '$.subject') = ?`
		values := []any{v.Owner}
		if len(v.Targets) > 0 {
			condition += ` OR target IN (?` + strings.Repeat(`, ?`, len(v.Targets)-1) + `)`
			for _, t := range v.Targets {
				values = append(values, t)
			}
		}
		and(`(`+condition+`)`, values...)
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
