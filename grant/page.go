package grant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"sallyport/authn"
	"sallyport/internal/refusal"
)

// Filter narrows Find; what is empty narrows nothing.
type Filter struct {
	// All includes those that are over.
	All bool
	// Mine leaves out other people's.
	Mine bool
	// Target and Account are whole names.
	Target, Account string
	// Keep, where given, chooses among what is left.
	Keep func(Grant) bool
	// Before is a grant's id: only those asked for before it. It is how the next page begins where the last one ended.
	Before string
	// Limit is how many at most; 0: all.
	Limit int
}

// pageOfRows is how many rows Find reads at a time: more than an answer holds, for not everybody sees all of them.
const pageOfRows = 500

// Find returns the grants that the filter admits and the identity may see, newest first, and whether there are more. It
// reads no more than it passes over.
func (s *Service) Find(ctx context.Context, who authn.Identity, f Filter) (found []Grant, more bool, err error) {
	if err := inEmergency(who); err != nil {
		return nil, false, err
	}
	var where []string
	var args []any
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if !f.All {
		and(isOpen)
	}
	if f.Mine {
		and(`issuer = ? AND subject = ?`, who.Issuer, who.Subject)
	}
	if f.Target != "" {
		and(`target = ?`, f.Target)
	}
	if f.Account != "" {
		and(`account = ?`, f.Account)
	}
	const before = `(requested < ? OR requested = ? AND id > ?)`
	fixed, values := len(where), len(args)
	if f.Before != "" {
		last, err := load(ctx, s.store.Read(), canonical(f.Before))
		if errors.Is(err, errNoRow) || err == nil && !s.sees(who, last) {
			return nil, false, refusal.New(refusal.NotFound, "there is no request %.64q to begin after", f.Before)
		}
		if err != nil {
			return nil, false, fmt.Errorf("find grants: %w", err)
		}
		at := last.Requested.UnixNano()
		and(before, at, at, last.ID)
	}
	for {
		clause := `WHERE true`
		if len(where) > 0 {
			clause = `WHERE ` + strings.Join(where, ` AND `)
		}
		limit := pageOfRows
		if f.Limit == 0 {
			limit = math.MaxInt32
		}
		rows, err := query(ctx, s.store.Read(), limit, clause+` ORDER BY requested DESC, id`, args...)
		if err != nil {
			return nil, false, fmt.Errorf("find grants: %w", err)
		}
		for _, g := range rows {
			if !s.sees(who, g) || f.Keep != nil && !f.Keep(g) {
				continue
			}
			if f.Limit > 0 && len(found) == f.Limit {
				return found, true, nil
			}
			found = append(found, g)
		}
		if len(rows) < limit {
			return found, false, nil
		}
		last := rows[len(rows)-1]
		at := last.Requested.UnixNano()
		where, args = append(where[:fixed:fixed], before), append(args[:values:values], at, at, last.ID)
	}
}
