package ephemeral

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sallyport/configs"
)

// This file holds what is said to servers to drop a role: forbid, end, find what it left, give that to the heir, drop, look. Each
// step is a transaction of its own, as a role that may not log in any more is worth having even where the rest fails.

// endTime bounds the wait for the role's server processes to go; endLooks is the time between two looks.
const (
	endTime  = 3 * time.Second
	endLooks = 20 * time.Millisecond
)

// mostNamed is how many of the things that a role left are named in the audit log.
const mostNamed = 50

// residue is what a role left behind.
type residue struct {
	ended     int      // server processes
	databases []string // where it owned things or had privileges of its own
	owned     []string // what it owned, by database
	grantedTo []string // roles that were made members of it
	more      bool     // there was more than is named
}

func (l residue) fields() map[string]string {
	fields := map[string]string{}
	if l.ended > 0 {
		fields["backends_ended"] = strconv.Itoa(l.ended)
	}
	if len(l.owned) > 0 {
		fields["given_to_heir"] = strings.Join(l.owned, ", ")
	}
	if len(l.grantedTo) > 0 {
		fields["was_granted_to"] = strings.Join(l.grantedTo, ", ")
	}
	if l.more {
		fields["more"] = "there was more than is named here"
	}
	return fields
}

func (l *residue) own(what string) {
	if len(l.owned) < mostNamed {
		l.owned = append(l.owned, what)
	} else {
		l.more = true
	}
}

// forbid keeps the role from logging in. It reports whether there is a role.
func forbid(c Conn, name string) (there bool, err error) {
	if err := begin(c, name); err != nil {
		return false, err
	}
	_, err = c.Query(fmt.Sprintf("alter role %s nologin connection limit 0 password null", identifier(name)))
	if sqlState(err) == stateUndefinedObject {
		_, err := c.Query("rollback")
		return false, err
	}
	if err != nil {
		return false, err
	}
	_, err = c.Query("commit")
	return true, err
}

// endBackends ends the role's server processes and waits until they are gone.
func endBackends(c Conn, name string, left *residue) error {
	seen := map[string]bool{}
	for deadline := time.Now().Add(endTime); ; time.Sleep(endLooks) {
		rows, err := c.Query("select pid, pg_terminate_backend(pid) from pg_stat_activity where usename = " + literal(name) + " limit 500")
		if err != nil {
			return fmt.Errorf("end its sessions: %w", err)
		}
		for _, row := range rows {
			seen[row[0]] = true
		}
		left.ended = len(seen)
		if len(rows) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return &finding{fmt.Sprintf("server process %s does not end although it was told to", rows[0][0])}
		}
	}
}

// find looks for what keeps the role from being dropped, all over the server (pg_shdepend), and for whom it was granted to.
func find(c Conn, name string, left *residue) error {
	rows, err := c.Query("select gid, database from pg_prepared_xacts where owner = " + literal(name) + " limit 1")
	if err != nil {
		return fmt.Errorf("look for its prepared transactions: %w", err)
	}
	if len(rows) > 0 {
		return &finding{fmt.Sprintf("it left the prepared transaction %q in database %s; a superuser can finish it there: ROLLBACK PREPARED", rows[0][0], rows[0][1])}
	}
	rows, err = c.Query(`select distinct coalesce(d.datname, current_database()) from pg_shdepend s left join pg_database d on d.oid = s.dbid
where s.refclassid = 'pg_authid'::regclass and s.refobjid = (select oid from pg_roles where rolname = ` + literal(name) + `) limit 500`)
	if err != nil {
		return fmt.Errorf("look for what it owns: %w", err)
	}
	left.databases = nil
	for _, row := range rows {
		left.databases = append(left.databases, row[0])
	}
	rows, err = c.Query(`select m.rolname from pg_auth_members a join pg_roles m on m.oid = a.member join pg_roles r on r.oid = a.roleid
where r.rolname = ` + literal(name) + ` and m.rolname <> current_user limit ` + strconv.Itoa(mostNamed))
	if err != nil {
		return fmt.Errorf("look for its members: %w", err)
	}
	for _, row := range rows {
		left.grantedTo = append(left.grantedTo, row[0])
	}
	return nil
}

// owns is what a role owns in a database, and what of it others might run: the second column revokes that.
const owns = `select 'function ' || p.oid::regprocedure, 'revoke all on routine ' || p.oid::regprocedure || ' from public' from pg_proc p where p.proowner = %[1]s
union all select case relkind when 'v' then 'view ' when 'S' then 'sequence ' when 'm' then 'materialized view ' when 'f' then 'foreign table ' else 'table ' end || c.oid::regclass, ''
from pg_class c where c.relowner = %[1]s and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
union all select 'schema ' || quote_ident(nspname), '' from pg_namespace where nspowner = %[1]s
union all select 'large object ' || oid, '' from pg_largeobject_metadata where lomowner = %[1]s
limit 500`

// giveAway gives what the role owns in one database to the heir and takes its privileges there. The heir can do nothing: who gets a
// function with SECURITY DEFINER, a trigger or a view lends its owner's rights to those who use it. Functions can't be run
// by others any more.
func giveAway(c Conn, name, heir, database string, left *residue) error {
	if err := begin(c, name); err != nil {
		return err
	}
	role := identifier(name)
	// Membership is what REASSIGN OWNED asks for; it goes with the role.
	if _, err := c.Query(fmt.Sprintf("grant %s to current_user", role)); err != nil {
		return fmt.Errorf("become a member of it: %w", err)
	}
	rows, err := c.Query(fmt.Sprintf(owns, "(select oid from pg_roles where rolname = "+literal(name)+")"))
	if err != nil {
		return fmt.Errorf("list what it owns in database %s: %w", database, err)
	}
	for _, row := range rows {
		if row[1] != "" {
			if _, err := c.Query(row[1]); err != nil {
				return fmt.Errorf("keep others from running %s in database %s: %w", row[0], database, err)
			}
		}
		left.own(database + ": " + row[0])
	}
	if len(rows) == 500 {
		left.more = true
	}
	for _, sql := range []string{
		fmt.Sprintf("reassign owned by %s to %s", role, identifier(heir)), fmt.Sprintf("drop owned by %s", role), "commit",
	} {
		if _, err := c.Query(sql); err != nil {
			return fmt.Errorf("give what it owns in database %s to %s: %w", database, heir, err)
		}
	}
	return nil
}

// drop drops the role and looks whether it is gone.
func drop(c Conn, name string) error {
	if err := begin(c, name); err != nil {
		return err
	}
	for _, sql := range []string{"drop role if exists " + identifier(name), "commit"} {
		if _, err := c.Query(sql); err != nil {
			return fmt.Errorf("drop it: %w", err)
		}
	}
	there, err := exists(c, name)
	if err == nil && there {
		err = &finding{"it is still there after it was dropped"}
	}
	return err
}

// page is how many names are asked for at a time.
const page = 500

// strays are the roles of a gateway on a server.
func strays(c Conn, prefix string) (names []string, err error) {
	after := ""
	for {
		rows, err := c.Query(fmt.Sprintf("select rolname from pg_roles where left(rolname, %d) = %s and rolname > %s order by rolname limit %d",
			len(prefix), literal(prefix), literal(after), page))
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			names = append(names, row[0])
		}
		if len(rows) < page {
			return names, nil
		}
		after = names[len(names)-1]
	}
}

// maker finds a target and whether it can drop roles.
func (r *Roles) maker(name string) (configs.Target, error) {
	for _, t := range r.Targets() {
		if t.Name == name {
			if t.MakeRolesWith == "" {
				return t, fmt.Errorf("target %s has no make_roles_with any more; name the account again, or drop the role by hand", name)
			}
			return t, nil
		}
	}
	return configs.Target{}, fmt.Errorf("target %s is not configured any more; configure it again, or drop the role by hand", name)
}
