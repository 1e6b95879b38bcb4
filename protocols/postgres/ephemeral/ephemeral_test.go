package ephemeral

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/refusal"
)

// TestRoleOfAGrant: what the role is, that it has its group's privileges and no others, and that it goes with its grant.
func TestRoleOfAGrant(t *testing.T) {
	h := newHouse(t)
	var said []string
	h.before = func(sql string) error { said = append(said, sql); return nil }
	h.begin("g-one")
	l, err := h.roles.Login(t.Context(), h.wanted("g-one", "read"))
	h.must(err)
	c, err := h.connect(t.Context(), l.User, l.Password, "postgres")
	h.must(err)
	defer c.Close(t.Context())
	l.Done()
	for _, sql := range said {
		if strings.Contains(sql, l.Password) {
			t.Errorf("the password stands in %q", sql)
		}
	}
	h.before = nil
	if !strings.HasPrefix(l.User, "sp_"+h.roles.tag+"_") || !strings.HasSuffix(l.User, "_one") {
		t.Errorf("the role is called %s", l.User)
	}
	rows, err := h.run("postgres", "postgres", `select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls, rolconnlimit, rolinherit, rolcanlogin,
		rolvaliduntil - now() > interval '1 hour' and rolvaliduntil - now() <= interval '1 hour 5 minutes', shobj_description(oid, 'pg_authid'),
		(select string_agg(g.rolname, ',') from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid) from pg_roles r where rolname = `+literal(l.User))
	h.must(err)
	want := []string{"f", "3", "t", "t", "t", "sallyport: read@orders for grant g-one", "readers"}
	if len(rows) != 1 || !slices.Equal(rows[0], want) {
		t.Errorf("the role is %q, want %q", rows, want)
	}
	if rows, err := c.Query("select n from stock"); err != nil || rows[0][0] != "10" {
		t.Errorf("reading: %v, %v", rows, err)
	}
	for _, sql := range []string{"delete from stock", "create table mine ()", "alter role " + identifier(l.User) + " valid until 'infinity'", "alter role " + identifier(l.User) + " connection limit 50", "create role another"} {
		if _, err := c.Query(sql); sqlState(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	h.end("g-one")
	h.clean()
	if _, err := c.Query("select 1"); err == nil {
		t.Error("its session went on")
	}
	for _, kind := range []string{"role.intended", "role.made", "role.dropped"} {
		if events := h.events(kind); len(events) != 1 || events[0].Grant != "g-one" || events[0].Fields["role"] != l.User {
			t.Errorf("%s: %+v", kind, events)
		}
	}
	if _, err := h.roles.Login(t.Context(), h.wanted("g-one", "read")); refusal.Of(err) == nil || refusal.Of(err).Code != refusal.NoGrant {
		t.Errorf("after the end: %v", err)
	}
	h.clean()
}

// TestPasswordIsGoodForOneLogin: each session has its own, and what its user makes of it (ALTER ROLE, or settings that a login trips over)
// holds until the next.
func TestPasswordIsGoodForOneLogin(t *testing.T) {
	h := newHouse(t)
	h.begin("g-one")
	first, err := h.roles.Login(t.Context(), h.wanted("g-one", "read"))
	h.must(err)
	c, err := h.connect(t.Context(), first.User, first.Password, "postgres")
	h.must(err)
	defer c.Close(t.Context())
	first.Done()
	for _, sql := range []string{
		"alter role " + identifier(first.User) + " password 'known to alice'", "alter role " + identifier(first.User) + " set default_transaction_read_only = on",
		"alter role " + identifier(first.User) + " set search_path = nowhere",
	} {
		if _, err := c.Query(sql); err != nil {
			t.Fatal(err)
		}
	}
	second, err := h.roles.Login(t.Context(), h.wanted("g-one", "read"))
	h.must(err)
	for _, old := range []string{first.Password, "known to alice"} {
		if c, err := h.connect(t.Context(), first.User, old, "postgres"); err == nil {
			c.Close(t.Context())
			t.Errorf("an old password is good")
		}
	}
	d, err := h.connect(t.Context(), second.User, second.Password, "postgres")
	h.must(err)
	defer d.Close(t.Context())
	if rows, err := d.Query("select n from stock"); err != nil || rows[0][0] != "10" {
		t.Errorf("with the settings of the session before: %v, %v", rows, err)
	}
	second.Done()
	h.end("g-one")
	h.clean()
}

// TestWhatARoleLeaves: it owns things in two databases, holds locks, runs a statement, is a member of others and others of it.
func TestWhatARoleLeaves(t *testing.T) {
	h := newHouse(t)
	h.begin("g-left")
	c := h.login("g-left", "write", "postgres")
	d := h.login("g-left", "write", "shop")
	e := h.login("g-left", "write", "postgres")
	role := h.roleNames()[0]
	for _, sql := range []string{
		"create table left_behind (id serial primary key); insert into left_behind default values",
		"create view seen as select * from left_behind", "create type mood as enum ('good')",
		`create function trap() returns text language sql security definer as 'select current_user::text'`,
		"create function pg_temp.gone() returns int language sql as 'select 1'", "select lo_create(4711)",
		// A trap for who makes roles: an operator that fits better than the catalogue's where the names of what was left are put together.
		"create function grab(text, regprocedure) returns text language plpgsql as 'begin execute ''grant writers to other''; return ''x''; end'",
		"create operator || (leftarg = text, rightarg = regprocedure, function = grab)",
		"alter default privileges grant select on tables to public", "grant select on left_behind to other",
	} {
		if _, err := c.Query(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if _, err := d.Query("create table elsewhere (id int); create function trap() returns text language sql security definer as 'select current_user::text'"); err != nil {
		t.Fatal(err)
	}
	_, granting := c.Query("grant " + identifier(role) + " to other") // before 16 anybody may who is logged in as the role
	// Somebody made it a member elsewhere, with the right to pass that on, which it did: from 16 on it is the grantor.
	_, err := h.run("postgres", "postgres", "grant pg_monitor to "+identifier(role)+" with admin option")
	h.must(err)
	_, err = c.Query("grant pg_monitor to other")
	h.must(err)
	if _, err := c.Query("begin; lock table stock in share mode"); err != nil {
		t.Fatal(err)
	}
	sleeping := make(chan error, 1)
	go func() { _, err := e.Query("select pg_sleep(600)"); sleeping <- err }()
	h.eventually("the statement runs", func() bool {
		rows, err := h.run("postgres", "postgres", "select 1 from pg_stat_activity where state = 'active' and query like 'select pg_sleep(600)%'")
		h.must(err)
		return len(rows) == 1
	})
	h.end("g-left")
	h.clean()
	if err := <-sleeping; err == nil {
		t.Error("its statement ended by itself")
	}
	for database, want := range map[string]string{"postgres": "left_behind,left_behind_id_seq,seen", "shop": "elsewhere"} {
		rows, err := h.run("postgres", database, `select string_agg(relname, ',' order by relname) from pg_class where relowner = 'sallyport_estate'::regrole and relkind in ('r', 'v', 'S')`)
		h.must(err)
		if rows[0][0] != want {
			t.Errorf("in %s the heir has %q, want %q", database, rows[0][0], want)
		}
		if _, err := h.run("other", database, "select trap()"); sqlState(err) != "42501" {
			t.Errorf("in %s what the role left can be run by others: %v", database, err)
		}
		rows, err = h.run("postgres", database, "select proowner::regrole::text from pg_proc where proname = 'trap'")
		h.must(err)
		if rows[0][0] != "sallyport_estate" {
			t.Errorf("in %s the function is %s's", database, rows[0][0])
		}
	}
	if rows, err := h.run("postgres", "postgres", "select pg_has_role('other', 'writers', 'member')"); err != nil || rows[0][0] != "f" {
		t.Errorf("who makes roles ran what the role had left: %v, %v", rows, err)
	}
	if rows, err := h.run("postgres", "postgres", "select count(*) from left_behind"); err != nil || rows[0][0] != "1" {
		t.Errorf("its rows: %v, %v", rows, err)
	}
	dropped := append(h.events("role.dropped"), h.events("role.partly_dropped")...) // the latter where the machine was too slow for the first try
	said := fmt.Sprint(dropped)
	for _, want := range []string{"backends_ended:3", "shop: table public.elsewhere", "postgres: function public.trap()"} {
		if !strings.Contains(said, want) {
			t.Errorf("the audit log does not say %q: %+v", want, dropped)
		}
	}
	if granting == nil && dropped[0].Fields["was_granted_to"] != "other" {
		t.Errorf("that it was granted to others is not said: %+v", dropped[0].Fields)
	}
	for _, database := range []string{"postgres", "shop"} {
		_, err := h.run("postgres", database, "drop owned by sallyport_estate cascade; grant create on schema public to sallyport_estate")
		h.must(err)
	}
	_, err = h.run("postgres", "postgres", "grant select on stock to readers; revoke pg_monitor from other")
	h.must(err)
}

// TestIntentBeforeEffect is I5: no role is on a server without a row that names it, whose name comes from its grant; wherever the gateway dies,
// what it had begun is known at the next start, and gone.
func TestIntentBeforeEffect(t *testing.T) {
	h := newHouse(t)
	died := errors.New("the gateway died")
	for step := 1; ; step++ {
		grant := fmt.Sprintf("g-step%d", step)
		h.begin(grant)
		said := 0
		var mu sync.Mutex
		h.mu.Lock()
		h.before = func(sql string) error {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(sql, "create role") {
				var n int
				if err := h.store.Read().QueryRow(`SELECT count(*) FROM ephemeral_roles WHERE grant_id = ? AND name = ?`, grant, h.roles.prefix()+strings.TrimPrefix(grant, "g-")).Scan(&n); err != nil || n != 1 {
					t.Errorf("a role is made, and there is no row of it: %d, %v", n, err)
				}
			}
			if strings.Contains(sql, "pg_roles where left(") { // the sweep's
				return nil
			}
			if said++; said == step {
				h.roles.cancel() // nothing more is written
				return died
			}
			if said > step {
				return died
			}
			return nil
		}
		h.mu.Unlock()
		l, err := h.roles.Login(t.Context(), h.wanted(grant, "read"))
		if err == nil {
			l.Done()
		}
		h.end(grant)
		h.eventually("the gateway died or it is clean", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return said >= step || len(h.roles.Pending()) == 0 && h.roles.Live() == 0
		})
		h.roles.Close()
		h.mu.Lock()
		h.before = nil
		h.mu.Unlock()
		mu.Lock()
		through := said < step
		mu.Unlock()
		for _, role := range h.roleNames() {
			var n int
			h.must(h.store.Read().QueryRow(`SELECT count(*) FROM ephemeral_roles WHERE name = ?`, role).Scan(&n))
			if n != 1 {
				t.Fatalf("step %d: role %s is there, and no row", step, role)
			}
		}
		h.open()
		h.clean()
		if through {
			if step < 15 {
				t.Fatalf("only %d steps were seen", step)
			}
			t.Logf("the gateway died at each of %d statements", step-1)
			return
		}
	}
}

// TestTargetDownAtTheEnd: access does not wait for it; the roles are tried for ever, said aloud once, and go when it is back.
func TestTargetDownAtTheEnd(t *testing.T) {
	h := newHouse(t)
	const grants = 5
	for i := range grants {
		grant := fmt.Sprintf("g-down%d", i)
		h.begin(grant)
		h.login(grant, "read", "postgres")
	}
	h.stop()
	for i := range grants {
		h.end(fmt.Sprintf("g-down%d", i))
	}
	h.eventually("it is said", func() bool { return len(h.events("role.cleanup_stuck")) > 0 })
	pending := h.roles.Pending()
	if len(pending) != grants || !pending[0].Stuck || pending[0].Error == "" || pending[0].Ended.IsZero() {
		t.Errorf("pending: %+v", pending)
	}
	tries := pending[0].Attempts
	h.eventually("it is tried again", func() bool { return h.roles.Pending()[0].Attempts > tries+3 })
	if events := h.events("role.cleanup_stuck"); len(events) != 1 || events[0].Fields["roles"] != fmt.Sprint(grants) || events[0].Target != "orders" {
		t.Errorf("it was said as %+v", events)
	}
	h.roles.Close() // and over a restart
	h.open()
	h.eventually("all are known after a restart", func() bool { return len(h.roles.Pending()) == grants })
	h.must(h.start())
	h.clean()
}

// TestOneThatStaysHoldsUpNoOther: a prepared transaction keeps its role, and only its role.
func TestOneThatStaysHoldsUpNoOther(t *testing.T) {
	h := newHouse(t)
	h.begin("g-stays")
	h.begin("g-goes")
	c := h.login("g-stays", "write", "postgres")
	if _, err := c.Query("begin; create table prepared (); prepare transaction 'left'"); err != nil {
		t.Fatal(err)
	}
	h.login("g-goes", "read", "postgres")
	h.end("g-stays")
	h.eventually("it is said", func() bool { return len(h.events("role.cleanup_stuck")) > 0 })
	h.end("g-goes")
	h.eventually("the other one is gone", func() bool { return len(h.events("role.dropped")) == 1 })
	pending := h.roles.Pending()
	if len(pending) != 1 || pending[0].Grant != "g-stays" || !strings.Contains(pending[0].Error, `prepared transaction "left"`) {
		t.Errorf("pending: %+v", pending)
	}
	rows, err := h.run("postgres", "postgres", "select rolcanlogin from pg_roles where rolname = "+literal(pending[0].Role))
	if err != nil || len(rows) != 1 || rows[0][0] != "f" {
		t.Errorf("it may log in: %v, %v", rows, err)
	}
	_, err = h.run("postgres", "postgres", "rollback prepared 'left'")
	h.must(err)
	h.roles.Retry("orders")
	h.clean()
}

// TestSweep: roles of this gateway without a row are dropped; those of grants that go on, and those of others, are left alone (I7).
func TestSweep(t *testing.T) {
	h := newHouse(t)
	h.begin("g-lives")
	c := h.login("g-lives", "read", "postgres")
	foreign, near := "sp_aaaaaaaa_stray", h.roles.prefix()+"Not A Grant"
	_, err := h.run("maker", "postgres", fmt.Sprintf("create role %s login; create role %s; create role %s", identifier(h.roles.prefix()+"stray"), identifier(foreign), identifier(near)))
	h.must(err)
	h.eventually("the stray one is gone", func() bool { return !slices.Contains(h.roleNames(), h.roles.prefix()+"stray") })
	if found := h.events("role.found"); len(found) != 1 || found[0].Grant != "g-stray" {
		t.Errorf("the audit log says %+v", found)
	}
	for _, name := range []string{foreign, near, h.roles.prefix() + "lives"} {
		if !slices.Contains(h.roleNames(), name) {
			t.Errorf("%s is gone", name)
		}
	}
	h.must(h.reach(t.Context(), h.target, "", h.wanted("g-lives", "read").Who, "", "", func(_ context.Context, c Conn) (string, error) {
		warnings, err := h.roles.Strangers(c)
		if len(warnings) != 1 || !strings.Contains(warnings[0], foreign) {
			t.Errorf("warnings: %q", warnings)
		}
		return "", err
	}))
	if _, err := c.Query("select 1"); err != nil {
		t.Errorf("the session of a grant that goes on: %v", err)
	}
	_, err = h.run("maker", "postgres", fmt.Sprintf("drop role %s; drop role %s", identifier(foreign), identifier(near)))
	h.must(err)
	h.end("g-lives")
	h.clean()
}

// TestGrantsEndWhileSessionsBegin: whatever comes first, nothing is left.
func TestGrantsEndWhileSessionsBegin(t *testing.T) {
	h := newHouse(t)
	var all sync.WaitGroup
	for i := range 6 {
		grant := fmt.Sprintf("g-race%d", i)
		h.begin(grant)
		for range 4 {
			all.Go(func() {
				for {
					l, err := h.roles.Login(context.Background(), h.wanted(grant, "read"))
					if err != nil {
						if r := refusal.Of(err); r == nil || r.Code != refusal.NoGrant {
							t.Errorf("%s: %v", grant, err)
						}
						return
					}
					if c, err := h.connect(context.Background(), l.User, l.Password, "postgres"); err == nil {
						c.Close(context.Background())
					} else if _, running := h.running(grant); running && !strings.Contains(err.Error(), "too many connections") {
						t.Errorf("%s: %v", grant, err)
					}
					l.Done()
				}
			})
		}
	}
	h.eventually("all have begun", func() bool { return h.roles.Live() == 6 })
	for i := range 6 {
		h.end(fmt.Sprintf("g-race%d", i))
	}
	all.Wait()
	h.clean()
	if dropped := h.events("role.dropped"); len(dropped) != 6 {
		t.Errorf("%d roles were dropped", len(dropped))
	}
}

// TestNotMade: where a role can't be made, its user is told so, and nothing stays.
func TestNotMade(t *testing.T) {
	h := newHouse(t)
	h.begin("g-none")
	w := h.wanted("g-none", "read")
	w.Account.MemberOf = []string{"nobody knows"}
	if _, err := h.roles.Login(t.Context(), w); refusal.Of(err) == nil || refusal.Of(err).Code != refusal.TargetFailed || strings.Contains(err.Error(), "nobody knows") {
		t.Errorf("the refusal is %v", err)
	}
	if names := h.roleNames(); len(names) != 0 {
		t.Errorf("there is %v", names)
	}
	h.end("g-none")
	h.clean()
	for _, bad := range []string{"", "g-", `g-a"b`, "x-one", "g-" + strings.Repeat("a", 60)} {
		if _, err := h.roles.name(bad); err == nil {
			t.Errorf("%q is taken for a grant's id", bad)
		}
	}
}

// TestTargetOutOfTheConfiguration: its roles are not forgotten, and what is to be done is said.
func TestTargetOutOfTheConfiguration(t *testing.T) {
	h := newHouse(t)
	h.begin("g-gone")
	h.login("g-gone", "read", "postgres")
	h.mu.Lock()
	h.target.Name = "renamed"
	h.mu.Unlock()
	h.end("g-gone")
	h.eventually("it is said", func() bool { return len(h.events("role.cleanup_stuck")) > 0 })
	if pending := h.roles.Pending(); len(pending) != 1 || !strings.Contains(pending[0].Error, "not configured any more") {
		t.Errorf("pending: %+v", pending)
	}
	h.mu.Lock()
	h.target.Name = "orders"
	h.mu.Unlock()
	h.clean()
}

// TestTrial: what making and dropping takes is tried and leaves nothing; what is missing is named.
func TestTrial(t *testing.T) {
	h := newHouse(t)
	try := func() (warnings []string, failed error) {
		t.Helper()
		c, err := h.connect(t.Context(), "maker", "", "postgres")
		h.must(err)
		defer c.Close(t.Context())
		return Trial(c, h.target, h.account("write"))
	}
	if warnings, err := try(); err != nil || len(warnings) != 0 {
		t.Errorf("all is there: %q, %v", warnings, err)
	}
	for spoil, c := range map[string]struct{ mend, says string }{
		"alter role maker nocreaterole":                        {"alter role maker createrole", "CREATEROLE"},
		"revoke sallyport_estate from maker":                   {"grant sallyport_estate to maker", "sallyport_estate"},
		"revoke pg_signal_backend from maker":                  {"grant pg_signal_backend to maker", "pg_signal_backend"},
		"alter role sallyport_estate login":                    {"alter role sallyport_estate nologin", "may log in"},
		"grant readers to sallyport_estate":                    {"revoke readers from sallyport_estate", "is a member of readers"},
		"alter role writers createdb":                          {"alter role writers nocreatedb", "SET ROLE"},
		"grant pg_read_server_files to writers":                {"revoke pg_read_server_files from writers", "pg_read_server_files"},
		"revoke create on schema public from sallyport_estate": {"grant create on schema public to sallyport_estate", "in schema public"},
		"alter role writers rename to scribes":                 {"alter role scribes rename to writers", "writers"},
	} {
		_, err := h.run("postgres", "postgres", spoil)
		h.must(err)
		warnings, failed := try()
		if said := fmt.Sprint(warnings, failed); !strings.Contains(said, c.says) {
			t.Errorf("after %s it says %s", spoil, said)
		}
		_, err = h.run("postgres", "postgres", c.mend)
		h.must(err)
	}
	if names := h.roleNames(); len(names) != 0 {
		t.Errorf("the trial left %v", names)
	}
}

// TestThreeThousandGrants: all roles of 3,000 grants that end at once go, each once, and the server is as before. It takes minutes; make
// bench runs it.
func TestThreeThousandGrants(t *testing.T) {
	if os.Getenv("SALLYPORT_LONG") == "" {
		t.Skip("takes minutes: make bench runs it, with SALLYPORT_LONG=1")
	}
	const grants = 3000
	h := newHouse(t)
	began := time.Now()
	for i := range grants {
		grant := fmt.Sprintf("g-many%d", i)
		h.begin(grant)
		l, err := h.roles.Login(t.Context(), h.wanted(grant, "read"))
		h.must(err)
		l.Done()
	}
	t.Logf("%d roles were made in %v", grants, time.Since(began).Round(time.Millisecond))
	rows, err := h.run("postgres", "postgres", "select max(length(relacl::text)) from pg_class")
	h.must(err)
	t.Logf("the longest list of privileges has %s bytes", rows[0][0])
	h.mu.Lock()
	clear(h.until)
	h.mu.Unlock()
	began = time.Now()
	h.end("g-many0")
	for deadline := time.Now().Add(10 * time.Minute); len(h.roles.Pending())+h.roles.Live() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are left: %+v", len(h.roles.Pending()), h.roles.Pending()[0])
		}
	}
	t.Logf("and dropped in %v, by %d connections", time.Since(began).Round(time.Millisecond), h.acts)
	h.clean()
	if dropped := h.events("role.dropped"); len(dropped) != grants {
		t.Errorf("%d were dropped", len(dropped))
	}
}
