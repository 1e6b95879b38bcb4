package ephemeral

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"sallyport/configs"
)

// Trial does on a server all that making and dropping the role of an account takes, in one transaction that is taken back. The error says
// which step failed; warnings are what makes the roles around it more than they should be, each a sentence. c is a connection
// as the target's make_roles_with to its own database.
func Trial(c Conn, t configs.Target, account configs.Account) (warnings []string, err error) {
	var random [5]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	name := configs.EphemeralPrefix + "check_" + hex.EncodeToString(random[:])
	_, verifier, err := newPassword()
	if err != nil {
		return nil, err
	}
	role := identifier(name)
	steps := []struct{ what, sql string }{
		{"begin", patient}, {"begin", "begin"},
		{"make a role (it needs CREATEROLE)", fmt.Sprintf("create role %s login nosuperuser nocreaterole nocreatedb noreplication nobypassrls inherit connection limit %d password %s valid until %s",
			role, account.ConnectionLimit, literal(verifier), literal(time.Now().UTC().Format("2006-01-02 15:04:05+00")))},
	}
	for _, group := range account.MemberOf {
		steps = append(steps, struct{ what, sql string }{
			fmt.Sprintf("make it a member of %s (it needs: GRANT %s TO … WITH ADMIN OPTION)", group, identifier(group)), fmt.Sprintf("grant %s to %s", identifier(group), role),
		})
	}
	steps = append(steps, []struct{ what, sql string }{
		{"comment on it", fmt.Sprintf("comment on role %s is 'sallyport: a trial'", role)},
		{"give it a new password", fmt.Sprintf("alter role %s login password %s", role, literal(verifier))},
		{"take its settings back", fmt.Sprintf("alter role %s reset all", role)},
		{"forbid it to log in", fmt.Sprintf("alter role %s nologin connection limit 0 password null", role)},
		{"become a member of it", fmt.Sprintf("grant %s to current_user", role)},
		{fmt.Sprintf("give what it owns to %s (it needs to be a member of that role)", t.Heir), fmt.Sprintf("reassign owned by %s to %s", role, identifier(t.Heir))},
		{"drop what is left", fmt.Sprintf("drop owned by %s", role)},
		{"drop it", fmt.Sprintf("drop role %s", role)},
	}...)
	for _, step := range steps {
		if _, err := c.Query(step.sql); err != nil {
			_, _ = c.Query("rollback") // the connection ends anyway
			return nil, fmt.Errorf("account %s can't %s: %w", t.MakeRolesWith, step.what, err)
		}
	}
	if _, err := c.Query("rollback"); err != nil {
		return nil, err
	}
	for _, question := range questions(t, account) {
		rows, err := c.Query(question)
		if err != nil {
			return warnings, fmt.Errorf("ask the target about the roles: %w", err)
		}
		for _, row := range rows {
			warnings = append(warnings, row[0])
		}
	}
	return warnings, nil
}

// questions are answered by sentences of what is wrong.
func questions(t configs.Target, account configs.Account) []string {
	heir := literal(t.Heir)
	var groups []string
	for _, group := range account.MemberOf {
		groups = append(groups, literal(group))
	}
	of := strings.Join(groups, ", ")
	return []string{
		`select current_user || ' is a superuser: CREATEROLE is enough' from pg_roles where rolname = current_user and rolsuper`,
		`select current_user || ' is no member of ' || r || ': ' || why from (values
('pg_signal_backend', 'it can''t end the sessions of a role whose grant is over'),
('pg_read_all_stats', 'it can''t tell whether a session that was ended is gone')) v (r, why) where not pg_has_role(current_user, r, 'member')`,
		`select 'the heir ' || rolname || ' may log in or do more than own things: it should be NOLOGIN and nothing else' from pg_roles
where rolname = ` + heir + ` and (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)`,
		`select 'the heir ' || r.rolname || ' is a member of ' || g.rolname || ': what runs as it should be able to do nothing' from pg_auth_members a
join pg_roles r on r.oid = a.member join pg_roles g on g.oid = a.roleid where r.rolname = ` + heir,
		`select 'role ' || rolname || ' has attributes (SUPERUSER, CREATEROLE, CREATEDB, REPLICATION or BYPASSRLS), which its members use by SET ROLE' from pg_roles
where rolname in (` + of + `) and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)`,
		`select distinct 'role ' || g.rolname || ' is a member of ' || d.rolname || ': it can run programs, read or write files on the server, or end others'' sessions'
from pg_roles g join pg_roles d on pg_has_role(g.oid, d.oid, 'member') where g.rolname in (` + of + `) and not g.rolsuper
and d.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend')`,
		`select 'in schema ' || quote_ident(n.nspname) || ' role ' || g.rolname || ' may create, and the heir may not: functions and types left there keep their role from being dropped'
from pg_namespace n join pg_roles g on g.rolname in (` + of + `) join pg_roles h on h.rolname = ` + heir + `
where n.nspname !~ '^pg_' and has_schema_privilege(g.oid, n.oid, 'create') and not has_schema_privilege(h.oid, n.oid, 'create') limit 20`,
	}
}

// Strangers are roles on a server that look like ours and are not this gateway's: another's, or this one's from before its store was lost.
func (r *Roles) Strangers(c Conn) (warnings []string, err error) {
	rows, err := c.Query(`select rolname from pg_roles where rolname ~ '^` + configs.EphemeralPrefix + `[a-z2-7]{8}_[a-z0-9]+$' and left(rolname, ` +
		fmt.Sprint(len(r.prefix())) + `) <> ` + literal(r.prefix()) + ` limit 20`)
	for _, row := range rows {
		warnings = append(warnings, "role "+row[0]+" was made for a grant, and not by this gateway: it is another's, or is left from before the store was lost; then drop it")
	}
	return warnings, err
}
