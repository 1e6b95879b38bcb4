package postgres

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/configs"
	"sallyport/grant"
)

// Setup is what an administrator of the target does once so that the gateway, and only the gateway, can log in to the
// target's accounts: SQL, pg_hba.conf lines, and the same as Ansible tasks. Nothing in it is secret. GATEWAY stands for
// the address from which the gateway connects.
func Setup(target configs.Target) []configs.Instruction {
	var sql, hba, conf, ansible strings.Builder
	sql.WriteString("SET password_encryption = 'scram-sha-256';\n")
	if target.Ephemeral() {
		setUpEphemeral(&sql, &hba, target)
	}
	for _, a := range target.Accounts {
		if a.Ephemeral || a.Name == target.MakeRolesWith {
			continue
		}
		role := quoteIdentifier(a.UserName())
		fmt.Fprintf(&sql, `CREATE ROLE %[1]s LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION;
\password %[1]s
GRANT CONNECT ON DATABASE %[2]s TO %[1]s;
-- and just the privileges it needs: the gateway adds none and can take none away
`, role, quoteIdentifier(target.Database))
		fmt.Fprintf(&hba, "hostssl  all  %-20s  GATEWAY/32  scram-sha-256\n", role)
		fmt.Fprintf(&hba, "host     all  %-20s  all         reject\n", role)
		fmt.Fprintf(&ansible, `- name: Role %[1]s for Sallyport
  community.postgresql.postgresql_user:
    name: %[1]q
    password: "{{ sallyport_%[2]s_password }}"
    role_attr_flags: LOGIN,NOSUPERUSER,NOCREATEROLE,NOCREATEDB,NOREPLICATION
- name: Only the gateway may log in as %[1]s
  community.postgresql.postgresql_pg_hba:
    dest: "{{ postgresql_hba_file }}"
    contype: hostssl
    users: %[1]q
    source: "{{ sallyport_gateway }}/32"
    method: scram-sha-256
`, a.UserName(), strings.ReplaceAll(a.Name, "-", "_"))
	}
	fmt.Fprintf(&conf, `ssl = on                                 # with a certificate for %s
password_encryption = scram-sha-256
client_connection_check_interval = 2s    # PostgreSQL 14 and later: notice soon that a client is gone
`, target.TLS.ServerName)
	return []configs.Instruction{
		{Name: "sql", Title: "As a superuser, in psql; \\password asks for the password and sends only its SCRAM verifier", Text: sql.String()},
		{Name: "pg_hba", Title: "In pg_hba.conf, before other lines; then: SELECT pg_reload_conf();", Text: hba.String()},
		{Name: "postgresql_conf", Title: "In postgresql.conf", Text: conf.String()},
		{Name: "ansible", Title: "The same as Ansible tasks (collection community.postgresql)", Text: ansible.String()},
	}
}

// quoteIdentifier writes an SQL identifier so that it means just that name.
func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// setUpEphemeral is what accounts with ephemeral: true need: who makes their roles, who inherits from them, and the roles with the
// privileges, whose members are let in from the gateway alone.
func setUpEphemeral(sql, hba *strings.Builder, target configs.Target) {
	maker, ok := grant.Account(target, target.MakeRolesWith)
	if !ok {
		return
	}
	name, heir := quoteIdentifier(maker.UserName()), quoteIdentifier(target.Heir)
	fmt.Fprintf(sql, `-- makes a role for each grant and drops it; nobody connects as it
CREATE ROLE %[1]s LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 10;
\password %[1]s
GRANT pg_signal_backend, pg_read_all_stats TO %[1]s;
-- gets what such a role leaves owned, and can do nothing with it
CREATE ROLE %[2]s NOLOGIN;
GRANT %[2]s TO %[1]s;
`, name, heir)
	fmt.Fprintf(hba, "hostssl  all  %-20s  GATEWAY/32  scram-sha-256\n", name)
	fmt.Fprintf(hba, "host     all  %-20s  all         reject\n", name)
	var done []string
	for _, a := range target.Accounts {
		for _, group := range a.MemberOf {
			if slices.Contains(done, group) {
				continue
			}
			done = append(done, group)
			role := quoteIdentifier(group)
			fmt.Fprintf(sql, `-- has the privileges of account %[4]s; grant it just those
CREATE ROLE %[1]s NOLOGIN;
GRANT %[1]s TO %[2]s WITH ADMIN OPTION;    -- PostgreSQL 16 and later, better: WITH ADMIN TRUE, INHERIT FALSE, SET FALSE
GRANT CONNECT ON DATABASE %[3]s TO %[1]s;
-- for each schema in which %[1]s may create: GRANT CREATE ON SCHEMA … TO %[5]s;
`, role, name, quoteIdentifier(target.Database), a.Name, heir)
			fmt.Fprintf(hba, "hostssl  all  %-20s  GATEWAY/32  scram-sha-256\n", "+"+role)
			fmt.Fprintf(hba, "host     all  %-20s  all         reject\n", "+"+role)
		}
	}
}
