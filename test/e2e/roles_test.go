//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/test/rig"
)

// TestRoleMadeForAGrant: a real gateway makes a role for a grant and drops it with the grant, also after it was killed in the middle of a session;
// where that fails it shows, and is done once what was in the way is mended.
func TestRoleMadeForAGrant(t *testing.T) {
	r := rig.Start(t, rig.Binary(t, ""))
	admin := func(sql string) string {
		t.Helper()
		out := r.PSQL("SALLYPORT_PG_SUPERUSER_DIRECT", "-c", sql)
		if out.Code != 0 {
			t.Fatalf("%s: %s", sql, out.Text())
		}
		return strings.TrimSpace(out.Stdout)
	}
	const password = "the password of who makes roles"
	for _, sql := range []string{
		"create role clerks", "create role sallyport_estate", "create role maker login createrole password '" + password + "'",
		"grant clerks to maker with admin option", "grant sallyport_estate, pg_signal_backend, pg_read_all_stats to maker",
		"grant connect on database orders to clerks, maker", "grant create on schema public to clerks, sallyport_estate",
	} {
		admin(sql)
	}
	if err := os.WriteFile(r.Path("secrets", "maker"), []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	file := r.Path("sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(
		"    kind: postgres\n", "    kind: postgres\n    make_roles_with: maker\n",
		"    accounts:\n      - name: app\n", fmt.Sprintf(`    accounts:
      - {name: maker, password: "file:%s"}
      - {name: clerk, ephemeral: true, member_of: [clerks]}
      - name: app
`, r.Path("secrets", "maker")),
		"policies:\n", `policies:
  - {name: clerks, groups: [engineers], accounts: ["clerk@orders", "maker@orders"], max_duration: 1h, approve: {auto: true}}
`).Replace(string(text))
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	reload(t, r)
	if out := r.As("carol", "targets", "check", "orders"); !strings.Contains(out.Stdout, "a role for each grant, made by maker") || strings.Contains(out.Stdout, "FAILED  clerk") {
		t.Errorf("%s", out.Text())
	}
	type grant struct{ ID string }
	ask := func() (g grant) {
		t.Helper()
		r.Ask(&g, "alice", "request", "clerk@orders", "--duration", "20m", "--reason", "INC-42: stock is wrong")
		return g
	}
	r.Env["SALLYPORT_PG_CLERK"] = strings.Replace(r.Env["SALLYPORT_PG"], "user=app", "user=clerk", 1)
	const roles = `select string_agg(rolname, ',') from pg_roles where rolname like 'sp\_%'`
	g := ask()
	conn, err := r.Connect(t.Context(), "SALLYPORT_PG_CLERK")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var role string
	if err := conn.QueryRow(t.Context(), "select current_user").Scan(&role); err != nil {
		t.Fatal(err)
	}
	if there := admin(roles); there != role || !strings.HasSuffix(role, strings.TrimPrefix(g.ID, "g-")) {
		t.Fatalf("grant %s runs as %q, and there is %q", g.ID, role, there)
	}
	if _, err := conn.Exec(t.Context(), "create table made_by_clerk ()"); err != nil {
		t.Fatal(err)
	}
	go conn.Exec(t.Context(), "select pg_sleep(600)") // the gateway is killed meanwhile
	const running = "select count(*) from pg_stat_activity where query like 'select pg_sleep(600)%' and usename like 'sp%'"
	r.Until(30*time.Second, "the statement runs", func() error {
		if n := admin(running); n != "1" {
			return errors.New(n)
		}
		return nil
	})
	r.EndGateway(syscall.SIGKILL)
	r.Ready()
	r.Until(30*time.Second, "what the crashed session left is ended", func() error {
		if n := admin(running); n != "0" {
			return errors.New(n)
		}
		return nil
	})
	if out := r.PSQL("SALLYPORT_PG_CLERK", "-c", "select current_user"); out.Stdout != role+"\n" {
		t.Errorf("after the crash the grant goes on as %s", out.Text())
	}

	type cleanup struct {
		Role, Grant, Error string
		Attempts           int
	}
	pending := func() (all []cleanup) {
		t.Helper()
		var s struct{ Cleanups []cleanup }
		r.Ask(&s, "carol", "status")
		return s.Cleanups
	}
	admin("alter role maker nologin")
	if out := r.As("alice", "release", g.ID); out.Code != 0 {
		t.Fatal(out.Text())
	}
	r.Until(30*time.Second, "it shows that the role is still there", func() error {
		if all := pending(); len(all) != 1 || all[0].Role != role || all[0].Grant != g.ID || all[0].Attempts == 0 || all[0].Error == "" {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	if out := r.As("carol", "status"); !strings.Contains(out.Stdout, role) {
		t.Errorf("%s", out.Text())
	}
	if out := r.PSQL("SALLYPORT_PG_CLERK", "-c", "select 1"); out.Code == 0 {
		t.Error("a grant that was given back lets in")
	}
	admin("alter role maker login")
	if out := r.As("carol", "targets", "check", "orders"); !strings.Contains(out.Stdout, "made by maker") {
		t.Errorf("%s", out.Text())
	}
	r.Until(30*time.Second, "the role is gone", func() error {
		if there := admin(roles); there != "" || len(pending()) != 0 {
			return errors.New(there)
		}
		return nil
	})
	if owner := admin("select relowner::regrole from pg_class where relname = 'made_by_clerk'"); owner != "sallyport_estate" {
		t.Errorf("what it owned is %s's", owner)
	}
	if log, err := os.ReadFile(r.Env["SALLYPORT_TARGET_LOG"]); err != nil || strings.Contains(strings.ToLower(string(log)), "error:  permission denied") {
		t.Errorf("the server's log has refusals, or can't be read: %v", err)
	}
	if out := r.As("alice", "request", "maker@orders", "--reason", "INC-43: roles"); out.Code == 0 || !strings.Contains(out.Text(), "the gateway's own") {
		t.Errorf("the account that makes roles can be asked for: %s", out.Text())
	}
	r.Env["SALLYPORT_PG_MAKER"] = strings.Replace(r.Env["SALLYPORT_PG"], "user=app", "user=maker", 1)
	if out := r.PSQL("SALLYPORT_PG_MAKER", "-c", "select 1"); out.Code == 0 || !strings.Contains(out.Text(), "the gateway's own") {
		t.Errorf("the account that makes roles lets people in: %s", out.Text())
	}
}
