package postgres

import (
	"fmt"
	"strings"

	"sallyport/configs"
)

// Setup is what an administrator of the target does once so that the gateway, and only the gateway, can log in to the
// target's accounts: SQL, pg_hba.conf lines, and the same as Ansible tasks. Nothing in it is secret.
func Setup(target configs.Target) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("-- What target %s (%s) needs. GATEWAY is the address from which the gateway connects.", target.Name, target.Address)
	line("")
	line("-- 1. As a superuser, in psql. Each account is a role with just the privileges it needs: the gateway adds none and")
	line("--    can take none away. \\password asks for the password and sends only its SCRAM verifier.")
	line("SET password_encryption = 'scram-sha-256';")
	for _, a := range target.Accounts {
		role := quoteIdentifier(a.UserName())
		line("CREATE ROLE %s LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION;", role)
		line("\\password %s", role)
		line("GRANT CONNECT ON DATABASE %s TO %s;", quoteIdentifier(target.Database), role)
	}
	line("")
	line("-- 2. In pg_hba.conf, before other lines, then: SELECT pg_reload_conf();")
	for _, a := range target.Accounts {
		line("hostssl  all  %-20s  GATEWAY/32  scram-sha-256", quoteIdentifier(a.UserName()))
		line("host     all  %-20s  all         reject", quoteIdentifier(a.UserName()))
	}
	line("")
	line("-- 3. In postgresql.conf: the server must have a certificate for the name %q (ssl = on), and should", target.TLS.ServerName)
	line("--    notice within seconds that a client is gone: client_connection_check_interval = '2s' (PostgreSQL 14 and later).")
	line("")
	line("-- 4. On the gateway, the password goes where the configuration says:")
	for _, a := range target.Accounts {
		reference := string(a.Password)
		if reference == "" {
			reference = "password is missing for this account: write password: file:PATH, env:NAME or command:PROGRAM"
		}
		line("--    %s@%s: %s", a.Name, target.Name, reference)
	}
	line("")
	line("-- The same with Ansible (collection community.postgresql):")
	for _, a := range target.Accounts {
		line(`- name: Role %[1]s for Sallyport
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
    method: scram-sha-256`, a.UserName(), strings.ReplaceAll(a.Name, "-", "_"))
	}
	line("")
	line("-- Then, here: sallyport targets check %s", target.Name)
	return b.String()
}

// quoteIdentifier writes an SQL identifier so that it means just that name.
func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
