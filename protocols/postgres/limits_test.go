package postgres

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/recorder"
)

// limited gives alice the account under a role with limits.
func limited(t *testing.T, limits configs.RoleLimits) *house {
	t.Helper()
	ReadyGuardrails() // which takes longer than a client waits where the race detector looks on
	return newHouseOf(t, func(c *configs.Config) {
		c.Roles = append(c.Roles, configs.Role{Name: "limited", Accounts: []string{"writer@orders"}, Limits: limits})
		for i := range c.Policies {
			c.Policies[i].Accounts = nil
			c.Policies[i].Roles = []string{"limited"}
		}
	}, grant.Ask{Target: "orders", Account: "writer", Reason: "test"})
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func runs(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.Exec(ctx, sql)
	return err
}

// TestGuardrails: what is refused is an error like any other, of which the target sees nothing, and the session goes on; in a
// transaction it ends, so that nothing of it is committed.
func TestGuardrails(t *testing.T) {
	h := limited(t, configs.RoleLimits{Guardrails: []string{"drop", "delete-without-where", "roles"}})
	ctx := context.Background()
	conn := h.pgx()
	h.must(runs(ctx, conn, "create temp table kept (a int)"))
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement} {
		for _, sql := range []string{"drop table kept", "delete from kept", "with d as (delete from kept returning *) select * from d", "set role postgres", "do $$ begin end $$", "drop tabel kept"} {
			if _, err := conn.Exec(ctx, sql, mode); codeOf(err) != "42501" {
				t.Fatalf("%s, %s: %v", mode, sql, err)
			}
		}
		var n int
		if err := conn.QueryRow(ctx, "select count(*) from kept where $1 = 1", mode, 1).Scan(&n); err != nil {
			t.Fatalf("%s: the session does not go on: %v", mode, err)
		}
		if _, err := conn.Exec(ctx, "delete from kept where a = 1", mode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Exec(ctx, "select '"+strings.Repeat("x", 100_000)+"'", pgx.QueryExecModeSimpleProtocol); codeOf(err) != "42501" {
		t.Fatalf("a statement too long to be looked at: %v", err)
	}
	h.must(runs(ctx, conn, "select 1"))

	// Behind others in a pipeline, and in a transaction, it ends the session.
	pipeline := conn.PgConn().StartPipeline(ctx)
	pipeline.SendQueryParams("select 1", nil, nil, nil, nil)
	pipeline.SendQueryParams("drop table kept", nil, nil, nil, nil)
	h.must(pipeline.Sync())
	err := pipeline.Close()
	if err == nil || !conn.IsClosed() {
		t.Fatalf("in a pipeline: %v, closed %t", err, conn.IsClosed())
	}
	if info := h.ended(); info.EndReason != "refused" || !strings.Contains(info.EndDetail, "DROP TABLE") {
		t.Fatalf("in a pipeline it ended by %q: %q", info.EndReason, info.EndDetail)
	}
	conn = h.pgx()
	tx, err := conn.Begin(ctx)
	h.must(err)
	if _, err := tx.Exec(ctx, "delete from pg_temp.kept"); codeOf(err) != "42501" || !conn.IsClosed() {
		t.Fatalf("in a transaction: %v", err)
	}
	out, err := h.runPsql(h.connection(h.alice), "-c", "drop table x")
	if err == nil || !strings.Contains(out, `DROP TABLE is refused by the guardrail "drop"`) {
		t.Fatalf("psql says %q, %v", out, err)
	}
}

// TestGuardrailsNeedTheServersReading: with another encoding or other string rules the guard would read something else than
// the server.
func TestGuardrailsNeedTheServersReading(t *testing.T) {
	h := limited(t, configs.RoleLimits{Guardrails: []string{"drop"}})
	if out, err := h.runPsql(h.connection(h.alice, "client_encoding=LATIN1"), "-c", "select 1"); err == nil || !strings.Contains(out, "client_encoding") {
		t.Errorf("another encoding at the start: %q, %v", out, err)
	}
	out, err := h.runPsql(h.connection(h.alice), "-c", "set standard_conforming_strings = off")
	if err == nil || !strings.Contains(out, "changes how statements are read") {
		t.Errorf("other string rules: %q, %v", out, err)
	}
}

// TestReadOnly: what the client sets at the start does not help it, and changing it later ends the session.
func TestReadOnly(t *testing.T) {
	h := limited(t, configs.RoleLimits{ReadOnly: true})
	ctx := context.Background()
	conn := h.pgx()
	if _, err := conn.Exec(ctx, "create table public.never (a int)"); codeOf(err) != "25006" {
		t.Fatalf("a write: %v", err)
	}
	h.must(runs(ctx, conn, "discard all"))
	if _, err := conn.Exec(ctx, "create table public.never (a int)"); codeOf(err) != "25006" {
		t.Fatalf("a write after discard all: %v", err)
	}
	if _, err := conn.Exec(ctx, "set default_transaction_read_only = off"); err == nil {
		t.Fatal("the change is answered as if it were nothing")
	}
	if !conn.IsClosed() {
		t.Error("the session goes on after the change")
	}
	if info := h.ended(); info.EndReason != "refused" || !strings.Contains(info.EndDetail, "default_transaction_read_only") {
		t.Errorf("it ended by %q: %q", info.EndReason, info.EndDetail)
	}
}

// TestCertificateTowardsTheTarget: the gateway proves itself by a certificate where the account has one.
func TestCertificateTowardsTheTarget(t *testing.T) {
	account := func(key string) func(*configs.Config) {
		return func(c *configs.Config) {
			dir := filepath.Dir(c.Targets[0].TLS.CA)
			c.Targets[0].Accounts = append(c.Targets[0].Accounts, configs.Account{
				Name: "localhost", Certificate: filepath.Join(dir, "client.crt"), Key: configs.SecretRef("file:" + filepath.Join(dir, key)),
			})
		}
	}
	ask := grant.Ask{Target: "orders", Account: "localhost", Reason: "test"}
	h := newHouseOf(t, account("client.key"), ask)
	if out, err := h.runPsql(h.connection(h.alice, "user=localhost"), "-c", "select current_user"); err != nil || out != "localhost" {
		t.Errorf("%q, %v", out, err)
	}
	h = newHouseOf(t, account("nothing.key"), ask)
	if out, err := h.runPsql(h.connection(h.alice, "user=localhost"), "-c", "select 1"); err == nil || !strings.Contains(out, "the gateway has no certificate for localhost@orders") {
		t.Errorf("without its key: %q, %v", out, err)
	}
}

// TestLockedOut: who takes their role from the gateway can't keep what runs, where the target has an account for that; where
// it has none, no other account is used, and the audit log says that something runs on.
func TestLockedOut(t *testing.T) {
	for _, endWith := range []string{"ender", ""} {
		h := newHouseOf(t, func(c *configs.Config) {
			c.Targets[0].Accounts = append(c.Targets[0].Accounts, configs.Account{Name: "ender", User: "postgres"})
			c.Targets[0].EndWith = endWith
		}, grant.Ask{Target: "orders", Account: "writer", Reason: "test"})
		ctx := context.Background()
		conn := h.pgx()
		pid := conn.PgConn().PID()
		go func() {
			_ = runs(ctx, conn, "do $$ begin for i in 1..600 loop begin perform pg_sleep(1); exception when query_canceled then end; end loop; end $$") // it is cut
		}()
		h.active("do $$ begin for%")
		_, err := h.cluster.asSuperuser("alter role app nologin")
		h.must(err)
		t.Cleanup(func() { h.cluster.asSuperuser("alter role app login") })
		_, err = h.grants.Revoke(ctx, h.signIn("carol", "security").Identity, h.grant.ID, "test")
		h.must(err)
		audited := map[string]string{"ender": "session.ended_as", "": "session.left_running"}[endWith]
		h.eventually("the audit log says "+audited, func() bool {
			for event, err := range h.recorder.Audit(ctx, recorder.AuditFilter{}) {
				h.must(err)
				if event.Kind == audited {
					return true
				}
			}
			return false
		})
		if endWith != "" {
			h.backendGone(pid)
		} else {
			rows, err := h.cluster.asSuperuser("select pg_terminate_backend(" + strconv.Itoa(int(pid)) + ")")
			h.must(err)
			if len(rows) != 1 || rows[0][0] != "t" {
				t.Errorf("it did not run on: %v", rows)
			}
		}
		h.must(func() error { _, err := h.cluster.asSuperuser("alter role app login"); return err }())
	}
}
