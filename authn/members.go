package authn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Members are the people who were in one of the groups when they last signed in here, or are by the file of groups, and may still sign in. Somebody who never
// did is not known.
func (s *Service) Members(ctx context.Context, groups []string) ([]Identity, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	rows, err := s.store.Read().QueryContext(ctx, `SELECT issuer, subject, kind, name, email, groups, directory FROM identities WHERE disabled = 0 AND closed = 0 AND kind = ?`, Human)
	if err != nil {
		return nil, fmt.Errorf("look for the members of %s: %w", strings.Join(groups, ", "), err)
	}
	defer rows.Close()
	var members []Identity
	for rows.Next() {
		var who Identity
		var in, directory []byte
		if err := rows.Scan(&who.Issuer, &who.Subject, &who.Kind, &who.Name, &who.Email, &in, &directory); err != nil {
			return nil, fmt.Errorf("look for the members of %s: %w", strings.Join(groups, ", "), err)
		}
		if err := who.name(in, directory); err != nil {
			return nil, err
		}
		who.Groups = s.withFile(who)
		if slices.ContainsFunc(who.Groups, func(g string) bool { return slices.Contains(groups, g) }) {
			members = append(members, who)
		}
	}
	return members, rows.Err()
}

// GroupsNow are the groups that a person is in as is known now, from all that names any; none where they may not sign in any more,
// or never did. It asks no provider.
func (s *Service) GroupsNow(ctx context.Context, who Identity) ([]string, error) {
	var barred bool
	err := s.store.Read().QueryRowContext(ctx, `SELECT disabled <> 0 OR closed <> 0 FROM identities WHERE id = ?`, identityID(who.Issuer, who.Subject)).Scan(&barred)
	if barred || errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", who.Key(), err)
	}
	now, err := s.Current(ctx, who)
	return now.Groups, err
}
