package authn

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/configs"
)

// Members are the people who were in one of the groups when they last signed in here, or are by the file of groups, and may still sign in. Somebody who never
// did is not known.
func (s *Service) Members(ctx context.Context, groups []string) ([]Identity, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	var members []Identity
	err := s.eachPerson(ctx, s.store.Read(), func(who Identity, barred bool) {
		if !barred && slices.ContainsFunc(who.Groups, func(g string) bool { return slices.Contains(groups, g) }) {
			members = append(members, who)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("look for the members of %s: %w", strings.Join(groups, ", "), err)
	}
	return members, nil
}

// eachPerson gives all people who are known in a database to f, with the groups that they are in; barred: they may not sign in any
// more.
func (s *Service) eachPerson(ctx context.Context, db *sql.DB, f func(who Identity, barred bool)) error {
	rows, err := db.QueryContext(ctx, `SELECT issuer, subject, kind, name, email, groups, directory, disabled <> 0 OR closed <> 0 FROM identities WHERE kind = ?`, Human)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var who Identity
		var in, directory []byte
		var barred bool
		if err := rows.Scan(&who.Issuer, &who.Subject, &who.Kind, &who.Name, &who.Email, &in, &directory, &barred); err != nil {
			return err
		}
		if err := who.name(in, directory); err != nil {
			return err
		}
		who.Groups = s.withFile(who)
		f(who, barred)
	}
	return rows.Err()
}

// KnownPeople are the people who may sign in, as a gateway's database and the file of groups know them, without a gateway: those who have
// signed in or whom a provider's directory told of, and those of whom the file says that they are in a group.
func KnownPeople(ctx context.Context, config *configs.Config, db *sql.DB) ([]Identity, error) {
	s := &Service{config: config}
	of := map[string][]string{}
	if config.GroupFile != "" {
		groups, err := configs.ReadGroups(config.GroupFile)
		if err != nil {
			return nil, err
		}
		of, _ = s.byMember(groups)
		s.file.of.Store(&of)
	}
	var people []Identity
	seen := map[string]bool{}
	err := s.eachPerson(ctx, db, func(who Identity, barred bool) {
		seen[who.Key()] = true
		if !barred {
			people = append(people, who)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("look for who is known: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(of)) {
		if !seen[key] {
			issuer, subject, _ := strings.Cut(key, " ")
			people = append(people, Identity{Issuer: issuer, Subject: subject, Kind: Human, Groups: of[key]})
		}
	}
	return people, nil
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
