package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/grant"
	"sallyport/recorder"
	"sallyport/session"
)

func TestPsql(t *testing.T) {
	h := newHouse(t)
	for name, connection := range map[string]string{
		"own listener":             h.connection(h.alice),
		"server name":              h.onShared(h.alice, "host=orders.test", "hostaddr=127.0.0.1"),
		"shared, target":           h.onShared(h.alice, "dbname=orders"),
		"shared, target, database": h.onShared(h.alice, "dbname=orders/template1"),
		"without TLS to target":    h.onShared(h.alice, "dbname=plain/postgres", "user=open"),
	} {
		out, err := h.runPsql(connection, "-c", "select current_user, current_database()", "-c", `select 1/0`)
		want := "app|postgres"
		switch name {
		case "shared, target, database":
			want = "app|template1"
		case "without TLS to target":
			want = "open|postgres"
		}
		if err == nil || !strings.Contains(out, want) || !strings.Contains(out, "division by zero") {
			t.Errorf("%s: got %q, %v", name, out, err)
			continue
		}
		info := h.ended()
		if info.EndReason != session.EndClientClosed {
			t.Errorf("%s: ended as %s: %s", name, info.EndReason, info.EndDetail)
		}
		if got := h.statements(info.ID); !slices.Equal(got, []string{"select current_user, current_database()", "select 1/0"}) {
			t.Errorf("%s: recorded %q", name, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	h := newHouse(t)
	bob := h.signIn("bob", "engineers") // may ask, but has not
	stranger := h.alice
	other := newHouse(t)
	stranger.certificate, stranger.key = other.alice.certificate, other.alice.key
	tests := []struct {
		name       string
		connection string
		want       []string
	}{
		{"no TLS", h.connection(h.alice, "sslmode=disable"), []string{"FATAL:  this gateway speaks TLS only", "DETAIL:", "HINT:", "sslmode=verify-full"}},
		{"no certificate", h.connection(h.alice, "sslcert=/nonexistent", "sslkey=/nonexistent"), []string{"FATAL:  no client certificate was presented", "DETAIL:", "sallyport login --gateway https://gateway.test"}},
		{"another gateway's certificate", h.connection(stranger), []string{"FATAL:  ", "not issued by this gateway"}},
		{"no grant", h.connection(bob), []string{"FATAL:  ", "sallyport request writer@orders --duration 30m --reason"}},
		{"no such account", h.connection(h.alice, "user=root"), []string{"FATAL:  ", "root"}},
		{"no such target", h.onShared(h.alice, "dbname=nowhere"), []string{"FATAL:  ", "nowhere"}},
		{"no target named", h.onShared(h.alice, "dbname=/x"), []string{"FATAL:  no target was named", "dbname=TARGET"}},
		{"a target of another protocol", h.onShared(h.alice, "dbname=web-1"), []string{"FATAL:  target web-1 is not a PostgreSQL server"}},
		{"a parameter that changes who one is", h.connection(h.alice, "options='-c role=postgres'"), []string{`FATAL:  start-up parameter "role" is not passed on`}},
		{"a parameter that loads code", h.connection(h.alice, "options='-clocal_preload_libraries=x'"), []string{`"local_preload_libraries" is not passed on`}},
		{"options that are none", h.connection(h.alice, "options='-f s'"), []string{"FATAL:  the start-up options can't be passed on"}},
		{"replication", h.connection(h.alice, "replication=database"), []string{"FATAL:  account writer@orders may not be used for replication"}},
		{"a database that is not there", h.connection(h.alice, "dbname=nowhere"), []string{`FATAL:  database "nowhere" does not exist`}},
		{"a target that is down", h.onShared(h.alice, "dbname=down"), []string{"FATAL:  target down can't be reached", "HINT:"}},
		{"a secret that is not there", h.connection(h.alice, "user=wrong"), []string{"FATAL:  the gateway has no password for wrong@orders"}},
	}
	for _, test := range tests {
		out, err := h.runPsql(test.connection, "-c", "select 'let ' || 'in'")
		if err == nil || strings.Contains(out, "let in") {
			t.Errorf("%s: let in: %s", test.name, out)
		}
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: the user sees no %q in:\n%s", test.name, want, out)
			}
		}
		if strings.Contains(out, appPassword) {
			t.Errorf("%s: the user sees the secret", test.name)
		}
	}
	if _, err := h.runPsql(h.connection(h.alice, "options='-c intervalstyle=postgres_verbose -c search_path=pg_catalog'"), "-c", "select 1"); err != nil {
		t.Errorf("harmless options were refused: %v", err)
	}
}

func TestReplicationWhereAllowed(t *testing.T) {
	h := newHouse(t)
	out, err := h.runPsql(h.onShared(h.alice, "user=repl", "dbname=plain/postgres", "replication=database"), "-c", "IDENTIFY_SYSTEM")
	if err != nil || !strings.Contains(out, "|postgres") {
		t.Fatalf("got %q, %v", out, err)
	}
	if got := h.statements(h.ended().ID); !slices.Equal(got, []string{"IDENTIFY_SYSTEM"}) {
		t.Errorf("recorded %q", got)
	}
}

// TestPgx drives everything that pgx does over the wire and compares what it sees with what was recorded.
func TestPgx(t *testing.T) {
	h := newHouse(t)
	conn := h.pgx()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	var pid uint32
	h.must(conn.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid))
	if pid != conn.PgConn().PID() {
		t.Errorf("the client was told process id %d and is %d", conn.PgConn().PID(), pid)
	}
	_, err := conn.Exec(ctx, "create temp table t (id int8 primary key, name text, made timestamptz)")
	h.must(err)
	_, err = conn.Exec(ctx, "insert into t values ($1, $2, now())", 7, "seven")
	h.must(err)
	_, err = conn.Exec(ctx, "insert into t values ($1, $2, now())", 7, "seven again")
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "23505" {
		t.Errorf("a duplicate: got %v", err)
	}
	var batch pgx.Batch
	for n := range 500 {
		batch.Queue("insert into t values ($1, $2, now())", 1000+n, fmt.Sprintf("batch %d", n))
	}
	h.must(conn.SendBatch(ctx, &batch).Close())
	pipeline := conn.PgConn().StartPipeline(ctx)
	for n := range 3 {
		pipeline.SendQueryParams("select $1::text", [][]byte{fmt.Appendf(nil, "pipe %d", n)}, nil, nil, nil)
		h.must(pipeline.Sync())
	}
	h.must(pipeline.Close())
	copied, err := conn.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id", "name"}, pgx.CopyFromSlice(20_000, func(n int) ([]any, error) {
		return []any{int64(100_000 + n), strings.Repeat("c", 50)}, nil
	}))
	if err != nil || copied != 20_000 {
		t.Errorf("COPY in: %d, %v", copied, err)
	}
	var out bytes.Buffer
	if _, err := conn.PgConn().CopyTo(ctx, &out, "copy t to stdout"); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 20_501 {
		t.Errorf("COPY out: %d lines, %v", bytes.Count(out.Bytes(), []byte("\n")), err)
	}
	big := make([]byte, 20<<20)
	rand.Read(big)
	var back []byte
	h.must(conn.QueryRow(ctx, "select $1::bytea", big).Scan(&back))
	if !bytes.Equal(big, back) {
		t.Error("a large value came back changed")
	}
	var rows int
	h.must(conn.QueryRow(ctx, "select count(*) from t").Scan(&rows))
	if rows != 20_501 {
		t.Errorf("%d rows", rows)
	}
	_, err = conn.Exec(ctx, "select repeat('x', 100000) from generate_series(1, 200)", pgx.QueryExecModeSimpleProtocol)
	h.must(err)
	h.must(conn.Close(ctx))

	info := h.ended()
	if info.EndReason != session.EndClientClosed {
		t.Errorf("ended as %s: %s", info.EndReason, info.EndDetail)
	}
	statements, results := map[int]recorder.Item{}, map[int]recorder.Item{}
	batched := 0
	for _, i := range h.items(info.ID) {
		switch i.Kind {
		case recorder.ItemStatement:
			statements[i.Ref] = i
			if len(i.Params) == 2 && strings.HasPrefix(i.Params[1].Text, "batch ") && i.Params[0].Text == fmt.Sprint(1000+batched) {
				batched++
			}
		case recorder.ItemResult:
			results[i.Ref] = i
		case recorder.ItemNote:
			if strings.HasPrefix(i.Text, "unattributed") {
				t.Error(i.Text)
			}
		}
	}
	if batched != 500 {
		t.Errorf("%d statements of the batch were recorded with their parameters", batched)
	}
	find := func(sql string) (recorder.Item, recorder.Item) {
		for ref, s := range statements {
			if strings.HasPrefix(s.SQL, sql) {
				return s, results[ref]
			}
		}
		t.Errorf("no statement like %q was recorded", sql)
		return recorder.Item{}, recorder.Item{}
	}
	if _, r := find("copy \"t\""); r.Tag != "COPY 20000" || r.Bytes < 20_000*50 {
		t.Errorf("COPY in: recorded %+v", r)
	}
	if _, r := find("copy t to stdout"); r.Tag != "COPY 20501" || r.Bytes != int64(out.Len()) {
		t.Errorf("COPY out: recorded %+v", r)
	}
	if s, r := find("select $1::bytea"); len(s.Params) != 1 || r.Tag != "SELECT 1" {
		t.Errorf("large value: recorded %d parameters, %+v", len(s.Params), r)
	}
	if _, r := find("select repeat"); r.Rows == nil || *r.Rows != 200 {
		t.Errorf("large rows: recorded %+v", r)
	}
	for ref := range statements {
		if _, ok := results[ref]; !ok {
			t.Errorf("statement %d %q has no result", ref, statements[ref].SQL)
		}
	}
}

func TestCancelFromPgx(t *testing.T) {
	h := newHouse(t)
	conn := h.pgx()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(60)")
		done <- err
	}()
	h.active("select pg_sleep(60)")
	h.must(conn.PgConn().CancelRequest(context.Background()))
	if pgErr, ok := errors.AsType[*pgconn.PgError](<-done); !ok || pgErr.Code != "57014" {
		t.Fatalf("got %v, want 57014", pgErr)
	}
	var one int
	h.must(conn.QueryRow(context.Background(), "select 1").Scan(&one)) // the session goes on
}

// TestCancelFromPsql presses Ctrl-C in the stock psql, whose CancelRequest is in clear text.
func TestCancelFromPsql(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := h.psql(ctx, h.connection(h.alice), "-c", "select pg_sleep(60)")
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	h.must(command.Start())
	h.active("select pg_sleep(60)")
	h.must(command.Process.Signal(syscall.SIGINT))
	if err := command.Wait(); err == nil || !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Fatalf("got %v: %s", err, out.String())
	}
	var acts int
	for _, i := range h.items(h.ended().ID) {
		if i.Kind == recorder.ItemNote && i.Fields["act"] == string(session.ActCancel) {
			acts++
		}
	}
	if acts == 0 {
		t.Error("the cancel is not in the record")
	}
}

// TestRevokeCutsWhatRuns is P2: the client is told why, and the statement is gone from the target.
func TestRevokeCutsWhatRuns(t *testing.T) {
	statements := map[string]string{
		"sleeping":                "select pg_sleep(60)",
		"trapping the cancel":     "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$",
		"trapping, and computing": "do $$ begin loop begin for i in 1..100000000 loop null; end loop; exception when query_canceled then null; end; end loop; end $$",
	}
	for name, sql := range statements {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			conn := h.pgx()
			done := make(chan error, 1)
			go func() {
				_, err := conn.Exec(context.Background(), sql)
				done <- err
			}()
			pid := h.active(sql[:10] + "%")
			began := time.Now()
			_, err := h.grants.Release(context.Background(), h.alice.Identity, h.grant.ID)
			h.must(err)
			err = <-done
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "57P01" || !strings.Contains(pgErr.Message, "administrator command") || pgErr.Hint == "" {
				t.Errorf("the client was told %v", err)
			}
			told := time.Since(began)
			h.backendGone(pid)
			t.Logf("the client was told after %v, the backend gone after %v", told, time.Since(began))
			if info := h.ended(); info.EndReason != "grant_released" {
				t.Errorf("ended as %s", info.EndReason)
			}
			_, err = pgx.Connect(context.Background(), h.connection(h.alice))
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "28000" || !strings.Contains(pgErr.Hint, "sallyport request writer@orders") {
				t.Errorf("connecting again: got %v", err)
			}
		})
	}
}

// TestCutWhileClientDoesNotRead has a client that stopped reading in the middle of a large result.
func TestCutWhileClientDoesNotRead(t *testing.T) {
	h := newHouse(t)
	c := h.dialTLS(h.own, nil)
	c.startup("user", "writer", "database", "postgres")
	c.write(query("select repeat('x', 1000) from generate_series(1, 100000000)"))
	pid := h.active("select repeat%")
	list, err := h.sessions.List(context.Background(), false)
	h.must(err)
	began := time.Now()
	h.must(h.sessions.Kill(context.Background(), list[0].ID, h.alice.Identity, "test"))
	h.backendGone(pid)
	t.Logf("the backend was gone after %v", time.Since(began))
	if info := h.ended(); info.EndReason != session.EndKilled {
		t.Errorf("ended as %s", info.EndReason)
	}
}

// TestClientVanishes kills a client in the middle of a statement.
func TestClientVanishes(t *testing.T) {
	h := newHouse(t)
	command := h.psql(context.Background(), h.connection(h.alice), "-c", "select pg_sleep(60)")
	h.must(command.Start())
	pid := h.active("select pg_sleep(60)")
	h.must(command.Process.Kill())
	_ = command.Wait()
	h.backendGone(pid)
	if info := h.ended(); info.EndReason != session.EndClientClosed {
		t.Errorf("ended as %s", info.EndReason)
	}
}

// TestGoodbyeLetsTheLastStatementFinish sends a statement and Terminate at once, as a straight connection allows.
func TestGoodbyeLetsTheLastStatementFinish(t *testing.T) {
	h := newHouse(t)
	_, err := h.cluster.asSuperuser("drop table if exists goodbye; create table goodbye (a int); grant insert on goodbye to app")
	h.must(err)
	c := h.dialTLS(h.own, nil)
	c.startup("user", "writer", "database", "postgres")
	c.write(append(query("insert into goodbye select 1 from pg_sleep(0.3)"), message('X', "")...))
	c.conn.Close()
	if info := h.ended(); info.EndReason != session.EndClientClosed {
		t.Errorf("ended as %s", info.EndReason)
	}
	rows, err := h.cluster.asSuperuser("select count(*) from goodbye")
	if err != nil || rows[0][0] != "1" {
		t.Errorf("got %v, %v", rows, err)
	}
}

func TestTargetEndsTheSession(t *testing.T) {
	h := newHouse(t)
	conn := h.pgx()
	_, err := h.cluster.asSuperuser(fmt.Sprintf("select pg_terminate_backend(%d)", conn.PgConn().PID()))
	h.must(err)
	_, err = conn.Exec(context.Background(), "select 1")
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "57P01" {
		t.Errorf("got %v", err)
	}
	if info := h.ended(); info.EndReason != session.EndTargetClosed {
		t.Errorf("ended as %s", info.EndReason)
	}
}

func TestCheck(t *testing.T) {
	h := newHouse(t)
	target, _ := h.grants.Target("orders")
	account, _ := grant.Account(target, "writer")
	result, err := h.handler.Check(context.Background(), h.alice.Identity, target, account)
	if err != nil || result.User != "app" || result.TLS != "TLS 1.3" || result.Version == "" || len(result.Warnings) != 0 {
		t.Errorf("got %+v, %v", result, err)
	}
	plain, _ := h.grants.Target("plain")
	super, _ := grant.Account(plain, "postgres")
	result, err = h.handler.Check(context.Background(), h.alice.Identity, plain, super)
	if err != nil || result.TLS != "off" || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "superuser") {
		t.Errorf("got %+v, %v", result, err)
	}
	down, _ := h.grants.Target("down")
	if _, err := h.handler.Check(context.Background(), h.alice.Identity, down, account); err == nil {
		t.Error("a target that is down was found well")
	}
	// From now on the target's version is known, and it is asked to watch the connection.
	var interval string
	h.must(h.pgx().QueryRow(context.Background(), "show client_connection_check_interval").Scan(&interval))
	if interval != "1s" {
		t.Errorf("client_connection_check_interval is %s", interval)
	}
}

// TestSweep ends what a session left, as after a crash: it reads the recording and finds the backend.
func TestSweep(t *testing.T) {
	h := newHouse(t)
	conn := h.pgx()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(60)")
		done <- err
	}()
	pid := h.active("select pg_sleep(60)")
	bystander := h.pgx()
	headers, err := h.recorder.Sessions(context.Background())
	h.must(err)
	h.must(h.handler.Sweep(context.Background(), h.recorder, headers[:1]))
	h.backendGone(pid)
	if pgErr, ok := errors.AsType[*pgconn.PgError](<-done); !ok || pgErr.Code != "57P01" {
		t.Errorf("got %v", pgErr)
	}
	h.must(bystander.Ping(context.Background()))
	if err := h.handler.Sweep(context.Background(), h.recorder, headers[:1]); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestManyAtOnce has sessions come, work and go, with and without goodbye.
func TestManyAtOnce(t *testing.T) {
	h := newHouse(t)
	const clients = 20
	errs := make(chan error, clients)
	for n := range clients {
		go func() {
			conn, err := pgx.Connect(context.Background(), h.connection(h.alice))
			if err != nil {
				errs <- err
				return
			}
			for k := range 30 {
				var got int
				if err := conn.QueryRow(context.Background(), "select $1::int", n*1000+k).Scan(&got); err != nil || got != n*1000+k {
					errs <- fmt.Errorf("got %d, %w", got, err)
					return
				}
			}
			errs <- conn.Close(context.Background())
		}()
	}
	for range clients {
		if err := <-errs; err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
}
