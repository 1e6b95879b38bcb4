package authn

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/authn/scim"
	"sallyport/configs"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
)

// How much one provider may keep here.
const (
	maxDirectoryPeople = 100_000
	maxDirectoryGroups = 10_000
)

// directory is what one provider provisions. It implements scim.Directory; nothing in it reads or changes what is another provider's.
type directory struct {
	s        *Service
	provider configs.Provider
}

// matchOf is by what the provider's directory knows somebody, as identities keep it: with the rule in it, so that what was kept by
// another rule matches nobody. "" is nobody.
func matchOf(p configs.Provider, value string) string {
	if p.SCIM == nil || value == "" {
		return ""
	}
	claim, attribute := p.SCIM.Claim, p.SCIM.Attribute
	if claim == "" {
		claim = "sub"
	}
	if attribute == "" {
		attribute = "externalId"
	}
	if attribute == "userName" { // RFC 7643, section 4.1.1: case does not matter
		value = strings.ToLower(value)
	}
	return claim + " " + attribute + " " + value
}

// knownBy is the match of a provisioned person.
func (d *directory) knownBy(userName, externalID string) string {
	if d.provider.SCIM.Attribute == "userName" {
		return matchOf(d.provider, userName)
	}
	return matchOf(d.provider, externalID)
}

// directoryOf is that of an issuer; nil where it does not provision.
func (s *Service) directoryOf(issuer string) *directory {
	for _, p := range s.config.AllProviders() {
		if p.Issuer == issuer && p.SCIM != nil {
			return &directory{s, p}
		}
	}
	return nil
}

// lookUp is what the directory says of whom it knows by that match: their groups, and whether they may not sign in. One whom it does
// not know may not, unless the configuration admits them; nor may one whom it knows twice.
func (d *directory) lookUp(ctx context.Context, tx *store.Tx, match string) (groups []string, closed bool, err error) {
	column, value := "external_id", ""
	if d.provider.SCIM.Attribute == "userName" {
		column = "user_key"
	}
	if prefix := matchOf(d.provider, "x"); match != "" && strings.HasPrefix(match, prefix[:len(prefix)-1]) {
		value = match[len(prefix)-1:]
	}
	if value == "" {
		return nil, !d.provider.SCIM.AdmitUnknown, nil
	}
	rows, err := tx.QueryContext(ctx, `SELECT id FROM directory_people WHERE provider = ? AND `+column+` = ? AND active = 1 LIMIT 2`, d.provider.Issuer, value)
	if err != nil {
		return nil, true, fmt.Errorf("look up somebody in the provider's directory: %w", err)
	}
	active, err := column1(rows)
	if err != nil {
		return nil, true, err
	}
	var known int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM directory_people WHERE provider = ? AND `+column+` = ?`, d.provider.Issuer, value).Scan(&known); err != nil {
		return nil, true, fmt.Errorf("look up somebody in the provider's directory: %w", err)
	}
	if known == 0 {
		return nil, !d.provider.SCIM.AdmitUnknown, nil
	}
	if known > 1 || len(active) != 1 {
		return nil, true, nil
	}
	rows, err = tx.QueryContext(ctx, `SELECT g.name FROM directory_members m JOIN directory_groups g ON g.id = m.group_id WHERE m.person = ? AND g.provider = ? ORDER BY g.name`, active[0], d.provider.Issuer)
	if err != nil {
		return nil, true, fmt.Errorf("groups of somebody in the provider's directory: %w", err)
	}
	if groups, err = column1(rows); err != nil {
		return nil, true, err
	}
	if only := d.provider.Groups; len(only) > 0 {
		groups = slices.DeleteFunc(groups, func(group string) bool { return !slices.Contains(only, group) })
	}
	return groups, false, nil
}

func column1(rows *sql.Rows) ([]string, error) {
	all, err := column[string](rows)
	if err != nil {
		return nil, fmt.Errorf("look into the provider's directory: %w", err)
	}
	return all, nil
}

// known is what the provider's directory says of somebody who signs in.
type known struct {
	match  string
	groups []string
	closed int64 // since when
}

// known looks it up; nothing where the provider has none.
func (s *Service) known(ctx context.Context, tx *store.Tx, who Identity) (k known, err error) {
	d := s.directoryOf(who.Issuer)
	if d == nil || who.Kind != Human {
		return k, nil
	}
	k.match = matchOf(d.provider, who.match)
	groups, closed, err := d.lookUp(ctx, tx, k.match)
	if k.groups = groups; closed {
		k.closed = stamp(s.now())
	}
	return k, err
}

// name gives an identity the groups of its provider and of that one's directory, as the tables keep them.
func (i *Identity) name(groups, directory []byte) error {
	var of, more []string
	if err := errors.Join(json.Unmarshal(groups, &of), json.Unmarshal(directory, &more)); err != nil {
		return fmt.Errorf("groups of %s: %w", i.Key(), err)
	}
	i.Groups = merged(of, more)
	return nil
}

// merged are groups and those of more that are not among them.
func merged(groups, more []string) []string { return append(groups, without(more, groups)...) }

// apply has those identities count as the directory says now that are known by one of the matches: who is closed loses their
// sign-ins, in the same transaction. It tells those who listen once it is committed, by tell.
func (d *directory) apply(ctx context.Context, tx *store.Tx, matches []string, tell *[]Identity) error {
	for _, match := range matches {
		if match == "" {
			continue
		}
		if err := d.applyTo(ctx, tx, `issuer = ? AND matched = ?`, []any{d.provider.Issuer, match}, tell); err != nil {
			return err
		}
	}
	return nil
}

func (d *directory) applyTo(ctx context.Context, tx *store.Tx, which string, args []any, tell *[]Identity) error {
	rows, err := tx.QueryContext(ctx, `SELECT issuer, subject, name, email, matched, directory, closed FROM identities WHERE kind = 'human' AND `+which, args...)
	if err != nil {
		return fmt.Errorf("who is known by the provider's directory: %w", err)
	}
	type one struct {
		Identity
		match, groups string
		closed        int64
	}
	defer rows.Close()
	var all []one
	for rows.Next() {
		o := one{Identity: Identity{Kind: Human}}
		if err := rows.Scan(&o.Issuer, &o.Subject, &o.Name, &o.Email, &o.match, &o.groups, &o.closed); err != nil {
			return fmt.Errorf("who is known by the provider's directory: %w", err)
		}
		all = append(all, o)
	}
	if err := errors.Join(rows.Close(), rows.Err()); err != nil {
		return fmt.Errorf("who is known by the provider's directory: %w", err)
	}
	for _, o := range all {
		groups, closed, err := d.lookUp(ctx, tx, o.match)
		if err != nil {
			return err
		}
		since := o.closed
		switch {
		case !closed:
			since = 0
		case since == 0:
			since = stamp(d.s.now())
		}
		if text := inJSON(groups); text != o.groups || since != o.closed {
			if _, err := tx.ExecContext(ctx, `UPDATE identities SET directory = ?, closed = ? WHERE id = ?`, text, since, identityID(o.Issuer, o.Subject)); err != nil {
				return fmt.Errorf("what the provider's directory says of %s: %w", o.Key(), err)
			}
			var before []string
			if err := json.Unmarshal([]byte(o.groups), &before); err != nil {
				return fmt.Errorf("what the provider's directory said of %s: %w", o.Key(), err)
			}
			if text != o.groups {
				if err := tx.Audit(groupsChanged(o.Identity, "the provider's directory (SCIM) says so", without(before, groups), without(groups, before))); err != nil {
					return err
				}
				*tell = append(*tell, o.Identity)
			}
		}
		if since != 0 && o.closed == 0 {
			const why = "the provider's directory (SCIM) has closed the account"
			if err := errors.Join(d.s.end(ctx, tx, o.Identity, system, why), d.s.bar(ctx, tx, o.Identity, why)); err != nil {
				return err
			}
			if err := tx.Audit(store.AuditEvent{Kind: "login.withdrawn", Actor: system.Actor, Reason: why, Fields: map[string]string{"identity": o.Key(), "name": o.Label()}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// openDirectories has every identity count as the configuration and the directories say now: another rule, fewer groups that count,
// or a provider that provisions no more.
func (s *Service) openDirectories(ctx context.Context) error {
	var tell []Identity // nobody listens yet
	return s.store.Do(ctx, func(tx *store.Tx) error {
		var provisioned []any
		for _, p := range s.config.AllProviders() {
			d := s.directoryOf(p.Issuer)
			if d == nil {
				continue
			}
			provisioned = append(provisioned, p.Issuer)
			if p.SCIM.Claim == "" || p.SCIM.Claim == "sub" { // known without asking
				prefix := matchOf(p, "x")
				prefix = prefix[:len(prefix)-1]
				value := `subject`
				if p.SCIM.Attribute == "userName" {
					value = `lower(subject)`
				}
				if _, err := tx.ExecContext(ctx, `UPDATE identities SET matched = CAST(? AS TEXT) || `+value+` WHERE issuer = ? AND kind = 'human'`, prefix, p.Issuer); err != nil {
					return fmt.Errorf("by what the provider's directory knows people: %w", err)
				}
			}
			if err := d.applyTo(ctx, tx, `issuer = ?`, []any{p.Issuer}, &tell); err != nil {
				return err
			}
		}
		not := ""
		if len(provisioned) > 0 {
			not = ` AND issuer NOT IN (?` + strings.Repeat(`, ?`, len(provisioned)-1) + `)`
		}
		if _, err := tx.ExecContext(ctx, `UPDATE identities SET directory = '[]', closed = 0 WHERE (directory <> '[]' OR closed <> 0)`+not, provisioned...); err != nil {
			return fmt.Errorf("forget the directories of providers that have none: %w", err)
		}
		return nil
	})
}

// change runs a change of the directory, and tells those who listen whose groups it changed.
func (d *directory) change(ctx context.Context, f func(tx *store.Tx, tell *[]Identity) error) error {
	var tell []Identity
	err := d.s.store.Do(ctx, func(tx *store.Tx) error {
		tell = nil
		return f(tx, &tell)
	})
	if err != nil {
		return err
	}
	for _, who := range tell {
		err = errors.Join(err, d.s.tell(ctx, who))
	}
	return err
}

// event tells of a change.
func (d *directory) event(ctx context.Context, kind, did, id, name string, more map[string]string) store.AuditEvent {
	fields := map[string]string{"did": did, "id": id, "name": name, "provider": d.provider.Issuer}
	for k, v := range more {
		fields[k] = v
	}
	return store.AuditEvent{Kind: kind, Actor: "scim " + d.provider.Issuer, ActorName: "SCIM", Client: visitorOf(ctx).address, Fields: fields}
}

const personColumns = `id, user_name, external_id, active, body, created, modified`

func scanPerson(scan func(...any) error) (p scim.Person, err error) {
	var active, created, modified int64
	var body []byte
	if err := scan(&p.ID, &p.UserName, &p.ExternalID, &active, &body, &created, &modified); err != nil {
		return p, err
	}
	p.Active, p.Created, p.Modified = active != 0, unstamp(created), unstamp(modified)
	return p, json.Unmarshal(body, &p.Body)
}

// People implements scim.Directory. Names of attributes are scim's.
func (d *directory) People(ctx context.Context, q scim.Query) (page []scim.Person, all int, err error) {
	where, args := `provider = ?`, []any{d.provider.Issuer}
	switch q.Attribute {
	case "id":
		where, args = where+` AND id = ?`, append(args, q.Value)
	case "username":
		where, args = where+` AND user_key = ?`, append(args, strings.ToLower(q.Value))
	case "externalid":
		where, args = where+` AND external_id = ?`, append(args, q.Value)
	case "displayname":
		return nil, 0, refusal.New(refusal.Invalid, "users are found by id, userName and externalId")
	}
	read := d.s.store.Read()
	if err := read.QueryRowContext(ctx, `SELECT count(*) FROM directory_people WHERE `+where, args...).Scan(&all); err != nil {
		return nil, 0, fmt.Errorf("read the provider's directory: %w", err)
	}
	rows, err := read.QueryContext(ctx, `SELECT `+personColumns+` FROM directory_people WHERE `+where+` ORDER BY created, id LIMIT ? OFFSET ?`, append(args, q.Count, q.Start)...) //nolint:gosec // where is one of the texts above
	if err != nil {
		return nil, 0, fmt.Errorf("read the provider's directory: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		p, err := scanPerson(rows.Scan)
		if err != nil {
			return nil, 0, fmt.Errorf("read the provider's directory: %w", err)
		}
		page = append(page, p)
	}
	return page, all, rows.Err()
}

// PutPerson implements scim.Directory.
func (d *directory) PutPerson(ctx context.Context, id string, change func(*scim.Person) error) (p scim.Person, err error) {
	err = d.change(ctx, func(tx *store.Tx, tell *[]Identity) error {
		p = scim.Person{}
		did, now := "created", unstamp(stamp(d.s.now())) // as it will be read
		if id == "" {
			p.ID, p.Created = newID("p-"), now
			if err := d.room(ctx, tx, "directory_people", maxDirectoryPeople); err != nil {
				return err
			}
		} else if p, err = d.person(ctx, tx, id); err != nil {
			return err
		} else {
			did = "changed"
		}
		before := p
		if err := change(&p); err != nil {
			return err
		}
		if id != "" && p == before {
			return nil
		}
		p.Modified = now
		var other int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM directory_people WHERE provider = ? AND id <> ? AND (user_key = ? OR external_id = ? AND external_id <> '')`,
			d.provider.Issuer, p.ID, strings.ToLower(p.UserName), p.ExternalID).Scan(&other); err != nil {
			return fmt.Errorf("keep a user: %w", err)
		}
		if other > 0 {
			return refusal.New(refusal.Conflict, "there is another user with that userName or externalId")
		}
		body, err := json.Marshal(p.Body)
		if err != nil {
			return err
		}
		active := 0
		if p.Active {
			active = 1
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO directory_people (id, provider, user_name, user_key, external_id, active, body, created, modified) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET user_name = excluded.user_name, user_key = excluded.user_key, external_id = excluded.external_id, active = excluded.active, body = excluded.body, modified = excluded.modified`,
			p.ID, d.provider.Issuer, p.UserName, strings.ToLower(p.UserName), p.ExternalID, active, string(body), stamp(p.Created), stamp(now)); err != nil {
			return fmt.Errorf("keep a user: %w", err)
		}
		if err := tx.Audit(d.event(ctx, "directory.person", did, p.ID, p.UserName, map[string]string{"external_id": p.ExternalID, "active": strconv.FormatBool(p.Active)})); err != nil {
			return err
		}
		return d.apply(ctx, tx, slices.Compact([]string{d.knownBy(before.UserName, before.ExternalID), d.knownBy(p.UserName, p.ExternalID)}), tell)
	})
	return p, err
}

func (d *directory) room(ctx context.Context, tx *store.Tx, table string, most int) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+table+` WHERE provider = ?`, d.provider.Issuer).Scan(&n); err != nil {
		return fmt.Errorf("count %s: %w", table, err)
	}
	if n >= most {
		return refusal.New(refusal.TooMany, "there are %d of them already, which is the most", most)
	}
	return nil
}

func (d *directory) person(ctx context.Context, tx *store.Tx, id string) (scim.Person, error) {
	p, err := scanPerson(tx.QueryRowContext(ctx, `SELECT `+personColumns+` FROM directory_people WHERE provider = ? AND id = ?`, d.provider.Issuer, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return p, refusal.New(refusal.NotFound, "there is no such user")
	}
	if err != nil {
		return p, fmt.Errorf("read the provider's directory: %w", err)
	}
	return p, nil
}

// DeletePerson implements scim.Directory.
func (d *directory) DeletePerson(ctx context.Context, id string, check func(scim.Person) error) error {
	return d.change(ctx, func(tx *store.Tx, tell *[]Identity) error {
		p, err := d.person(ctx, tx, id)
		if err == nil {
			err = check(p)
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM directory_people WHERE id = ?`, id); err != nil {
			return fmt.Errorf("delete a user: %w", err)
		}
		if err := tx.Audit(d.event(ctx, "directory.person", "deleted", p.ID, p.UserName, map[string]string{"external_id": p.ExternalID})); err != nil {
			return err
		}
		match := d.knownBy(p.UserName, p.ExternalID)
		if err := d.apply(ctx, tx, []string{match}, tell); err != nil || !d.provider.SCIM.AdmitUnknown {
			return err
		}
		// Who may sign in unknown loses what they have all the same: it was given to somebody who is no more.
		return d.endMatched(ctx, tx, match)
	})
}

func (d *directory) endMatched(ctx context.Context, tx *store.Tx, match string) error {
	if match == "" {
		return nil
	}
	rows, err := tx.QueryContext(ctx, `SELECT subject FROM identities WHERE issuer = ? AND matched = ?`, d.provider.Issuer, match)
	if err != nil {
		return fmt.Errorf("who is known by the provider's directory: %w", err)
	}
	subjects, err := column1(rows)
	if err != nil {
		return err
	}
	for _, subject := range subjects {
		who := Identity{Issuer: d.provider.Issuer, Subject: subject}
		const why = "deleted in the provider's directory (SCIM)"
		if err := errors.Join(d.s.end(ctx, tx, who, system, why), d.s.bar(ctx, tx, who, why)); err != nil {
			return err
		}
		if err := tx.Audit(store.AuditEvent{Kind: "login.withdrawn", Actor: system.Actor, Reason: why, Fields: map[string]string{"identity": who.Key()}}); err != nil {
			return err
		}
	}
	return nil
}

// scanGroup reads a group without its members.
func scanGroup(scan func(...any) error) (g scim.Group, err error) {
	var created, modified int64
	err = scan(&g.ID, &g.Name, &g.ExternalID, &created, &modified)
	g.Created, g.Modified = unstamp(created), unstamp(modified)
	return g, err
}

// queries is what reads many rows, in a transaction or not.
type queries interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (d *directory) members(ctx context.Context, q queries, group string) (members []scim.Member, err error) {
	rows, err := q.QueryContext(ctx, `SELECT p.id, p.user_name FROM directory_members m JOIN directory_people p ON p.id = m.person WHERE m.group_id = ? AND p.provider = ? ORDER BY p.id`, group, d.provider.Issuer)
	if err != nil {
		return nil, fmt.Errorf("members of a group: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var m scim.Member
		if err := rows.Scan(&m.ID, &m.Display); err != nil {
			return nil, fmt.Errorf("members of a group: %w", err)
		}
		members = append(members, m)
	}
	return members, rows.Err()
}

// Groups implements scim.Directory.
func (d *directory) Groups(ctx context.Context, q scim.Query) (page []scim.Group, all int, err error) {
	where, args := `provider = ?`, []any{d.provider.Issuer}
	for attribute, column := range map[string]string{"id": "id", "externalid": "external_id", "displayname": "name"} {
		if q.Attribute == attribute {
			where, args = where+` AND `+column+` = ?`, append(args, q.Value)
		}
	}
	read := d.s.store.Read()
	if err := read.QueryRowContext(ctx, `SELECT count(*) FROM directory_groups WHERE `+where, args...).Scan(&all); err != nil {
		return nil, 0, fmt.Errorf("read the provider's directory: %w", err)
	}
	rows, err := read.QueryContext(ctx, `SELECT id, name, external_id, created, modified FROM directory_groups WHERE `+where+` ORDER BY created, id LIMIT ? OFFSET ?`, append(args, q.Count, q.Start)...) //nolint:gosec // where is one of the texts above
	if err != nil {
		return nil, 0, fmt.Errorf("read the provider's directory: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		g, err := scanGroup(rows.Scan)
		if err != nil {
			return nil, 0, fmt.Errorf("read the provider's directory: %w", err)
		}
		page = append(page, g)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, 0, fmt.Errorf("read the provider's directory: %w", err)
	}
	for i := range page {
		if page[i].Members, err = d.members(ctx, read, page[i].ID); err != nil {
			return nil, 0, err
		}
	}
	return page, all, nil
}

// PutGroup implements scim.Directory. Members that are no users of this provider's are left out: they might be another's.
func (d *directory) PutGroup(ctx context.Context, id string, change func(*scim.Group) error) (g scim.Group, err error) {
	err = d.change(ctx, func(tx *store.Tx, tell *[]Identity) error {
		g = scim.Group{}
		did, now := "created", unstamp(stamp(d.s.now())) // as it will be read
		if id == "" {
			g.ID, g.Created = newID("g-"), now
			if err := d.room(ctx, tx, "directory_groups", maxDirectoryGroups); err != nil {
				return err
			}
		} else if g, err = d.group(ctx, tx, id); err != nil {
			return err
		} else {
			did = "changed"
		}
		before := g
		before.Members = slices.Clone(g.Members)
		if err := change(&g); err != nil {
			return err
		}
		g.Modified = now
		var other int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM directory_groups WHERE provider = ? AND id <> ? AND name = ?`, d.provider.Issuer, g.ID, g.Name).Scan(&other); err != nil {
			return fmt.Errorf("keep a group: %w", err)
		}
		if other > 0 {
			return refusal.New(refusal.Conflict, "there is another group with that displayName")
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO directory_groups (id, provider, name, external_id, created, modified) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, external_id = excluded.external_id, modified = excluded.modified`,
			g.ID, d.provider.Issuer, g.Name, g.ExternalID, stamp(g.Created), stamp(now)); err != nil {
			return fmt.Errorf("keep a group: %w", err)
		}
		touched, added, removed, err := d.setMembers(ctx, tx, before, g)
		if err != nil {
			return err
		}
		if g.Members, err = d.members(ctx, tx, g.ID); err != nil {
			return err
		}
		if did == "changed" && g.Name == before.Name && g.ExternalID == before.ExternalID && len(added)+len(removed) == 0 {
			return nil
		}
		if err := tx.Audit(d.event(ctx, "directory.group", did, g.ID, g.Name, map[string]string{
			"added": listed(added), "removed": listed(removed), "members": strconv.Itoa(len(g.Members)),
		})); err != nil {
			return err
		}
		if did == "created" || g.Name != before.Name { // it is another group for all of them
			touched = nil
			for _, m := range append(before.Members, g.Members...) {
				touched = append(touched, m.ID)
			}
		}
		return d.applyToMembers(ctx, tx, touched, tell)
	})
	return g, err
}

// setMembers makes the members those of after, as far as they are people of this provider's; touched are those for whom it changed,
// added and removed their names.
func (d *directory) setMembers(ctx context.Context, tx *store.Tx, before, after scim.Group) (touched, added, removed []string, err error) {
	was, is := map[string]bool{}, map[string]bool{}
	for _, m := range before.Members {
		was[m.ID] = true
	}
	for _, m := range after.Members {
		is[m.ID] = true
		if was[m.ID] {
			continue
		}
		p, err := d.person(ctx, tx, m.ID)
		if refusal.Is(err, refusal.NotFound) {
			continue
		}
		if err != nil {
			return nil, nil, nil, err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO directory_members (group_id, person) VALUES (?, ?)`, after.ID, m.ID); err != nil {
			return nil, nil, nil, fmt.Errorf("add a member: %w", err)
		}
		was[m.ID] = true
		touched, added = append(touched, m.ID), append(added, p.UserName)
	}
	for _, m := range before.Members {
		if is[m.ID] {
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM directory_members WHERE group_id = ? AND person = ?`, after.ID, m.ID); err != nil {
			return nil, nil, nil, fmt.Errorf("remove a member: %w", err)
		}
		touched, removed = append(touched, m.ID), append(removed, m.Display)
	}
	return touched, added, removed, nil
}

func (d *directory) applyToMembers(ctx context.Context, tx *store.Tx, ids []string, tell *[]Identity) error {
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		p, err := d.person(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := d.apply(ctx, tx, []string{d.knownBy(p.UserName, p.ExternalID)}, tell); err != nil {
			return err
		}
	}
	return nil
}

func (d *directory) group(ctx context.Context, tx *store.Tx, id string) (scim.Group, error) {
	g, err := scanGroup(tx.QueryRowContext(ctx, `SELECT id, name, external_id, created, modified FROM directory_groups WHERE provider = ? AND id = ?`, d.provider.Issuer, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return g, refusal.New(refusal.NotFound, "there is no such group")
	}
	if err == nil {
		g.Members, err = d.members(ctx, tx, id)
	}
	if err != nil {
		return g, fmt.Errorf("read the provider's directory: %w", err)
	}
	return g, nil
}

// DeleteGroup implements scim.Directory.
func (d *directory) DeleteGroup(ctx context.Context, id string, check func(scim.Group) error) error {
	return d.change(ctx, func(tx *store.Tx, tell *[]Identity) error {
		g, err := d.group(ctx, tx, id)
		if err == nil {
			err = check(g)
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM directory_groups WHERE id = ?`, id); err != nil {
			return fmt.Errorf("delete a group: %w", err)
		}
		if err := tx.Audit(d.event(ctx, "directory.group", "deleted", g.ID, g.Name, map[string]string{"members": strconv.Itoa(len(g.Members))})); err != nil {
			return err
		}
		var ids []string
		for _, m := range g.Members {
			ids = append(ids, m.ID)
		}
		return d.applyToMembers(ctx, tx, ids, tell)
	})
}

// directoryTime bounds one request of a provider.
const directoryTime = 20 * time.Second
