package postgres

import (
	"context"
	"fmt"
	"net"

	"sallyport/authn"
	"sallyport/configs"
	"sallyport/protocols/postgres/server"
	"sallyport/session"
)

// CheckResult is what `targets check` found at a target with one of its accounts.
type CheckResult struct {
	Account string `json:"account"`
	User    string `json:"user"`    // as the target knows it
	Version string `json:"version"` // the server's
	TLS     string `json:"tls"`     // "TLS 1.3", or "off"
	// Warnings are what makes the account more than an account for people should be, each a sentence.
	Warnings []string `json:"warnings,omitempty"`
}

// dangers are attributes and memberships that let an account undo what the gateway promises, or reach beyond the database.
// The first column of the answer is what it is, the second why it matters.
const dangers = `
select 'the role is a superuser', 'it can do anything on the server, also change what the server logs' from pg_roles where rolname = current_user and rolsuper
union all select 'the role may create roles (CREATEROLE)', 'it can make logins that do not come through the gateway' from pg_roles where rolname = current_user and rolcreaterole and not rolsuper
union all select 'the role may replicate (REPLICATION)', 'it can copy the whole server' from pg_roles where rolname = current_user and rolreplication and not rolsuper
union all select 'the role bypasses row security (BYPASSRLS)', 'row policies do not hold for it' from pg_roles where rolname = current_user and rolbypassrls and not rolsuper
union all select 'the role is a member of ' || r.rolname, 'it can run programs or read and write files on the server'
from pg_roles r where r.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
and pg_has_role(current_user, r.oid, 'member') and not (select rolsuper from pg_roles where rolname = current_user)
union all select 'the role may SET ROLE ' || quote_ident(r.rolname), 'it can do what that role may'
from pg_roles r where r.rolname <> current_user and r.rolname not like 'pg\_%' and pg_has_role(current_user, r.oid, 'member')
and not (select rolsuper from pg_roles where rolname = current_user)`

// waysAround are lines of pg_hba.conf that let the role in from anywhere: ways around the gateway. Mostly only a superuser, or who
// was granted it, may look.
const waysAround = `
select 'pg_hba.conf, line ' || line_number || ', lets it in from anywhere (' || coalesce(address, type) || ', ' || auth_method || ')', 'so it need not come through the gateway'
from pg_hba_file_rules where auth_method <> 'reject' and error is null and type like 'host%'
and (address = 'all' or netmask in ('0.0.0.0', '::'))
and user_name && array['all', current_user::text] and not database && array['replication']`

// mayLook says whether the role may see the rules, and mayEnd whether it may end other accounts' sessions.
const (
	mayLook = "select has_table_privilege('pg_catalog.pg_hba_file_rules', 'select') and has_function_privilege('pg_catalog.pg_hba_file_rules()', 'execute')"
	mayEnd  = "select pg_has_role(current_user, 'pg_signal_backend', 'member') or (select rolsuper from pg_roles where rolname = current_user)"
)

// Check logs in to a target with one of its accounts, as a session would, and looks what it finds. who asked for it; the act
// is audited.
func (h *Handler) Check(ctx context.Context, who authn.Identity, t configs.Target, account configs.Account) (CheckResult, error) {
	if account.Ephemeral {
		return h.checkEphemeral(ctx, who, t, account)
	}
	result := CheckResult{Account: account.Name}
	c, err := server.CredentialsOf(ctx, t, account)
	if err != nil {
		return result, err
	}
	c.Params = server.OwnParams(server.OwnDatabase(t), 0)
	err = h.sessions.ActOn(ctx, t, who, session.Act{Kind: session.ActCheck, Reason: "targets check", Do: func(_ context.Context, conn net.Conn) (string, error) {
		b, err := server.Login(conn, c)
		if err != nil {
			return "", err
		}
		defer b.Bye()
		h.versions.Store(t.Address, b.Version())
		result.Version, result.TLS = b.Params["server_version"], b.TLS()
		rows, err := b.Query("select current_user")
		if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
			return "", fmt.Errorf("ask the target who the gateway is there: %w", err)
		}
		result.User = rows[0][0]
		ask := []string{dangers}
		if may, err := b.Query(mayLook); err == nil && len(may) == 1 && may[0][0] == "t" { // before 10 there is no such view
			ask = append(ask, waysAround)
		}
		for _, sql := range ask {
			if rows, err = b.Query(sql); err != nil {
				return "", fmt.Errorf("ask the target what the role may do: %w", err)
			}
			for _, row := range rows {
				if len(row) == 2 {
					result.Warnings = append(result.Warnings, row[0]+": "+row[1])
				}
			}
		}
		if t.EndWith == account.Name {
			if may, err := b.Query(mayEnd); err != nil || len(may) != 1 || may[0][0] != "t" {
				result.Warnings = append(result.Warnings, "the role is the target's end_with and no member of pg_signal_backend: it can't end what another account left running")
			}
		}
		return "PostgreSQL " + result.Version, nil
	}})
	return result, err
}
