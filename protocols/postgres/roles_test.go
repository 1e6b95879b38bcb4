package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/configs"
	"sallyport/grant"
	"sallyport/internal/refusal"
	"sallyport/internal/store"
	"sallyport/protocols/postgres/ephemeral"
	"sallyport/recorder"
)

// rolesHouse is a house whose target makes a role for each grant on account reader.
func rolesHouse(t *testing.T) (*house, *ephemeral.Roles) {
	t.Helper()
	h := newHouseOf(t, func(c *configs.Config) {
		target := &c.Targets[1] // plain, on which roles need no password
		target.MakeRolesWith, target.Heir = "maker", "estate"
		target.Accounts = append(target.Accounts, configs.Account{Name: "maker"}, configs.Account{
			Name: "reader", Ephemeral: true, MemberOf: []string{"clerks"}, ConnectionLimit: 3,
		})
	}, grant.Ask{Target: "plain", Account: "reader", Reason: "test"})
	if _, err := h.cluster.asSuperuser(`do $$ begin if not exists (select from pg_roles where rolname = 'maker') then
		create role clerks; create role estate; create role maker login createrole; grant clerks to maker with admin option;
		grant estate, pg_signal_backend, pg_read_all_stats to maker; grant create on schema public to clerks, estate; end if; end $$`); err != nil {
		t.Fatal(err)
	}
	roles, err := h.handler.KeepRoles(t.Context(), h.store, func() []configs.Target { return h.config.Targets })
	h.must(err)
	t.Cleanup(roles.Close)
	return h, roles
}

// asReader connects as the account whose role is made for the grant.
func (h *house) asReader() *pgx.Conn {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), h.onShared(h.alice, "user=reader", "dbname=plain/postgres"))
	h.must(err)
	h.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (h *house) audited(kind string) (all []store.AuditEvent) {
	h.t.Helper()
	events, err := h.store.Outbox(context.Background(), 0, 100_000)
	h.must(err)
	for _, e := range events {
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	for e, err := range h.recorder.Audit(context.Background(), recorder.AuditFilter{}) {
		h.must(err)
		if e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

// TestRoleMadeForAGrant: sessions of an ephemeral account run as a role of the grant's own; when it is revoked they end like all others, whatever
// they run, and the role goes, with what it owned given to the heir.
func TestRoleMadeForAGrant(t *testing.T) {
	h, roles := rolesHouse(t)
	first, second := h.asReader(), h.asReader()
	var one, two string
	h.must(first.QueryRow(t.Context(), "select session_user").Scan(&one))
	h.must(second.QueryRow(t.Context(), "select current_user").Scan(&two))
	if owner, ours := roles.Owner(one); one != two || !ours || owner != h.grant.ID {
		t.Fatalf("the sessions of grant %s run as %s and %s", h.grant.ID, one, two)
	}
	if _, err := first.Exec(t.Context(), "create table left_by_reader ()"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := second.Exec(context.Background(), "select pg_sleep(600)"); ended <- err }()
	pid := h.active("select pg_sleep(600)%")
	began := time.Now()
	_, err := h.grants.Release(t.Context(), h.alice.Identity, h.grant.ID)
	h.must(err)
	h.backendGone(pid)
	t.Logf("the statement was gone %v after the release", time.Since(began).Round(time.Millisecond))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "SQLSTATE 57") {
		t.Errorf("the session was told %v", err)
	}
	h.eventually("the role is gone", func() bool {
		rows, err := h.cluster.asSuperuser("select 1 from pg_roles where rolname = '" + one + "'")
		h.must(err)
		return len(rows) == 0 && len(roles.Pending()) == 0 && roles.Live() == 0
	})
	rows, err := h.cluster.asSuperuser("select relowner::regrole from pg_class where relname = 'left_by_reader'")
	h.must(err)
	if len(rows) != 1 || rows[0][0] != "estate" {
		t.Errorf("what it owned is %v's", rows)
	}
	_, err = h.cluster.asSuperuser("drop table left_by_reader")
	h.must(err)
	h.eventually("all sessions have ended", func() bool { return h.sessions.Live() == 0 })
	if left := h.audited("session.left_running"); len(left) != 0 {
		t.Errorf("%+v", left)
	}
	if _, err := pgx.Connect(t.Context(), h.onShared(h.alice, "user=reader", "dbname=plain/postgres")); err == nil || !strings.Contains(err.Error(), "28000") {
		t.Errorf("after the end: %v", err)
	}
}

// TestRoleThatTakesAllItsConnections: sessions beyond the limit are told what a server tells, and a role that holds all of its connections is ended
// all the same.
func TestRoleThatTakesAllItsConnections(t *testing.T) {
	h, roles := rolesHouse(t)
	var open []*pgx.Conn
	for range 3 {
		open = append(open, h.asReader())
	}
	if _, err := pgx.Connect(t.Context(), h.onShared(h.alice, "user=reader", "dbname=plain/postgres")); err == nil || !strings.Contains(err.Error(), "53300") {
		t.Errorf("one too many: %v", err)
	}
	var role string
	h.must(open[0].QueryRow(t.Context(), "select current_user").Scan(&role))
	trap := fmt.Sprintf(`alter role %q password 'mine'; do $$ begin loop begin perform pg_sleep(600); exception when query_canceled then null; end; end loop; end $$`, role)
	go open[0].PgConn().Exec(context.Background(), trap).ReadAll()
	pid := h.active("alter role %")
	list, err := h.sessions.List(t.Context(), false)
	h.must(err)
	for _, s := range list { // one session alone: the grant goes on
		if s.Live && s.Account == "reader" {
			h.must(h.sessions.Kill(t.Context(), s.ID, h.alice.Identity, "test"))
		}
	}
	h.backendGone(pid)
	if left := h.audited("session.left_running"); len(left) != 0 {
		t.Errorf("%+v", left)
	}
	again := h.asReader() // with a password of its own
	h.must(again.Ping(t.Context()))
	_, err = h.grants.Release(t.Context(), h.alice.Identity, h.grant.ID)
	h.must(err)
	h.eventually("the role is gone", func() bool { return len(roles.Pending()) == 0 && roles.Live() == 0 })
}

// TestMakerIsForNobody: nobody is given, or connects as, the account that makes roles, whatever policies say.
func TestMakerIsForNobody(t *testing.T) {
	h, _ := rolesHouse(t)
	_, err := h.grants.Request(t.Context(), h.alice.Identity, grant.Ask{Target: "plain", Account: "maker", Reason: "test"})
	if !refusal.Is(err, refusal.NotPermitted) {
		t.Errorf("it can be asked for, or is not refused for that: %v", err)
	}
	_, err = pgx.Connect(t.Context(), h.onShared(h.alice, "user=maker", "dbname=plain/postgres"))
	if err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("it was let in, or not refused for that: %v", err)
	}
}

// TestCheckOfAnEphemeralAccount: what making its role takes is tried, and what is missing named.
func TestCheckOfAnEphemeralAccount(t *testing.T) {
	h, _ := rolesHouse(t)
	target := h.config.Targets[1]
	account, _ := grant.Account(target, "reader")
	result, err := h.handler.Check(t.Context(), h.alice.Identity, target, account)
	if err != nil || len(result.Warnings) != 0 || !strings.Contains(result.User, "made by maker") {
		t.Errorf("%+v, %v", result, err)
	}
	account.MemberOf = []string{"strangers"}
	if _, err := h.handler.Check(t.Context(), h.alice.Identity, target, account); err == nil || !strings.Contains(fmt.Sprint(err), "strangers") {
		t.Errorf("%v", err)
	}
}

// TestSetupOfRolesMadeForGrants: what `targets setup` prints is all that the check asks for.
func TestSetupOfRolesMadeForGrants(t *testing.T) {
	h, _ := rolesHouse(t)
	target := h.config.Targets[1]
	target.MakeRolesWith, target.Heir = "setup-maker", "setup estate"
	target.Accounts = []configs.Account{
		{Name: "setup-maker", User: "setup_maker"},
		{Name: "reading", Ephemeral: true, MemberOf: []string{"setup_read"}, ConnectionLimit: 5},
		{Name: "writing", Ephemeral: true, MemberOf: []string{"setup_read", "setup_write"}, ConnectionLimit: 5},
	}
	parts := Setup(target)
	var sql []string
	for line := range strings.Lines(parts[0].Text) {
		if !strings.HasPrefix(line, `\`) {
			sql = append(sql, line)
		}
	}
	if _, err := h.cluster.asSuperuser(strings.Join(sql, "")); err != nil {
		t.Fatalf("%v in\n%s", err, parts[0].Text)
	}
	for _, account := range target.Accounts[1:] {
		result, err := h.handler.Check(t.Context(), h.alice.Identity, target, account)
		if err != nil || len(result.Warnings) != 0 {
			t.Errorf("%s: %v, %v", account.Name, result.Warnings, err)
		}
	}
	for _, line := range []string{`+"setup_read"`, `+"setup_write"`, `"setup_maker"`} {
		if strings.Count(parts[1].Text, line) != 2 { // from the gateway, and from nowhere else
			t.Errorf("pg_hba has %s not twice:\n%s", line, parts[1].Text)
		}
	}
}
