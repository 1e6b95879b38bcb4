// Command libpq is the scenario with github.com/lib/pq, through database/sql: text by default, unnamed statements, a pool.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"

	"sallyport/test/conformance/drivers/steps"
)

func main() {
	var s scenario
	steps.Run([]steps.Step{
		{Name: "connect", Do: s.connect}, {Name: "simple", Do: s.simple}, {Name: "prepared", Do: s.prepared},
		{Name: "binary", Do: s.binary}, {Name: "batch", Do: s.batch}, {Name: "copy-in", Do: s.copyIn}, {Name: "copy-error", Do: s.copyError},
		{Name: "cursor", Do: s.cursor}, {Name: "notify", Do: s.notify}, {Name: "notice", Do: s.notice}, {Name: "cancel", Do: s.cancel},
		{Name: "big-values", Do: s.bigValues}, {Name: "many-rows", Do: s.manyRows}, {Name: "error", Do: s.error},
		{Name: "transaction", Do: s.transaction}, {Name: "startup-options", Do: s.startupOptions}, {Name: "pool", Do: s.pool},
		{Name: "no-such-database", Do: s.noSuchDatabase}, {Name: "terminated", Do: s.terminated},
		{Name: "access-ends-and-is-renewed", Do: s.accessEnds},
	})
}

type scenario struct {
	db   *sql.DB
	conn *sql.Conn // one session of the pool's, for what lives in a session
}

var same = steps.Same

func code(err error, want string) error {
	var failure *pq.Error
	if errors.As(err, &failure) && string(failure.Code) == want {
		return nil
	}
	return fmt.Errorf("got error %v, want SQLSTATE %s", err, want)
}

func is[T any](ctx context.Context, conn *sql.Conn, want T, query string, arguments ...any) error {
	var got T
	if err := conn.QueryRowContext(ctx, query, arguments...).Scan(&got); err != nil {
		return err
	}
	return same(got, want)
}

func exec(ctx context.Context, conn *sql.Conn, statements ...string) error {
	for _, statement := range statements {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) connect(ctx context.Context) (err error) {
	if s.db, err = sql.Open("postgres", ""); err != nil {
		return err
	}
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return err
	}
	return is(ctx, s.conn, steps.Env("PGUSER")+"@"+steps.Env("PGDATABASE"), "select current_user || '@' || current_database()")
}

func (s *scenario) simple(ctx context.Context) error {
	return errors.Join(exec(ctx, s.conn, "create temp table s (i int); insert into s values (1), (2)", ""), is(ctx, s.conn, 2, "select count(*) from s"))
}

func (s *scenario) prepared(ctx context.Context) error {
	statement, err := s.conn.PrepareContext(ctx, "select $1::int * 2")
	if err != nil {
		return err
	}
	defer statement.Close()
	for i := range 50 {
		var got int
		if err := statement.QueryRowContext(ctx, i).Scan(&got); err != nil {
			return err
		}
		if err := same(got, i*2); err != nil {
			return err
		}
	}
	return nil
}

// binary turns the driver's binary parameters on, which also changes the messages it sends for a statement.
func (s *scenario) binary(ctx context.Context) error {
	db, err := sql.Open("postgres", "binary_parameters=yes")
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	blob := bytes.Repeat([]byte{0, 255, '\\', '\n'}, 1<<18)
	return errors.Join(is(ctx, conn, blob, "select $1::bytea", blob), is(ctx, conn, int64(1)<<40, "select $1::int8", int64(1)<<40),
		is(ctx, s.conn, blob, "select $1::bytea", blob), conn.Close())
}

func (s *scenario) batch(ctx context.Context) error {
	if err := exec(ctx, s.conn, "create temp table batched (i int, t text)"); err != nil {
		return err
	}
	tx, err := s.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for i := range 1000 {
		if _, err := tx.ExecContext(ctx, "insert into batched values ($1, $2)", i, "it's \\ é中"); err != nil {
			return err
		}
	}
	return errors.Join(tx.Commit(), is(ctx, s.conn, 1000, "select count(*) from batched where t = 'it''s \\ é中'"))
}

func (s *scenario) copyRows(ctx context.Context, table string, row func(int) []any) error {
	tx, err := s.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	statement, err := tx.PrepareContext(ctx, "copy "+table+" (i, t) from stdin")
	if err != nil {
		return err
	}
	for i := range 20000 {
		if _, err := statement.ExecContext(ctx, row(i)...); err != nil {
			return errors.Join(err, statement.Close())
		}
	}
	if _, err := statement.ExecContext(ctx); err != nil {
		return errors.Join(err, statement.Close())
	}
	return errors.Join(statement.Close(), tx.Commit())
}

func (s *scenario) copyIn(ctx context.Context) error {
	return errors.Join(exec(ctx, s.conn, "create temp table copied (i int, t text)"),
		s.copyRows(ctx, "copied", func(i int) []any { return []any{i, fmt.Sprintf("row %d \\ é\n", i)} }),
		is(ctx, s.conn, 20000, "select count(*) from copied where t = format(E'row %s \\\\ é\\n', i)"))
}

func (s *scenario) copyError(ctx context.Context) error {
	err := s.copyRows(ctx, "copied", func(i int) []any {
		if i == 10 {
			return []any{"x", "no number"}
		}
		return []any{i, strings.Repeat("x", 100)}
	})
	return errors.Join(code(err, "22P02"), is(ctx, s.conn, 20000, "select count(*) from copied"))
}

func (s *scenario) cursor(ctx context.Context) error {
	tx, err := s.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "declare c cursor for select i from generate_series(1, 1000) i"); err != nil {
		return err
	}
	for total := 0; ; {
		rows, err := tx.QueryContext(ctx, "fetch 70 from c")
		if err != nil {
			return err
		}
		count := 0
		for rows.Next() {
			var i int
			if err := rows.Scan(&i); err != nil {
				return err
			}
			total += i
			count++
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if count == 0 {
			return same(total, 500500)
		}
	}
}

func (s *scenario) notify(ctx context.Context) error {
	listener := pq.NewListener("", time.Second, time.Minute, nil)
	defer listener.Close()
	if err := listener.Listen("conformance"); err != nil {
		return err
	}
	var pid int
	if err := s.conn.QueryRowContext(ctx, "select pg_backend_pid() from pg_notify('conformance', 'hello')").Scan(&pid); err != nil {
		return err
	}
	select {
	case got := <-listener.Notify:
		return same(*got, pq.Notification{BePid: pid, Channel: "conformance", Extra: "hello"})
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *scenario) notice(ctx context.Context) error {
	base, err := pq.NewConnector("")
	if err != nil {
		return err
	}
	var seen []string
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(base, func(n *pq.Error) { seen = append(seen, n.Message) }))
	defer db.Close()
	if _, err := db.ExecContext(ctx, "do $$ begin raise notice 'one'; raise warning 'two'; end $$"); err != nil {
		return err
	}
	return same(seen, []string{"one", "two"})
}

func (s *scenario) cancel(ctx context.Context) error {
	var pid int
	if err := s.conn.QueryRowContext(ctx, "select pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	sleep, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() {
		defer stop()
		watched <- steps.WhenAsleep(func() (string, error) { return event(ctx, s.db, pid) }, func() error { return nil })
	}()
	_, err := s.conn.ExecContext(sleep, "select pg_sleep(30)")
	if err == nil {
		return errors.New("not cancelled")
	}
	if err := <-watched; err != nil {
		return err
	}
	// The driver gives up a session that it cancelled in, and the pool brings another.
	s.conn.Close()
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return err
	}
	for {
		var left int
		if err := s.conn.QueryRowContext(ctx, "select count(*) from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'", pid).Scan(&left); err != nil || left == 0 {
			return err
		}
	}
}

func (s *scenario) bigValues(ctx context.Context) error {
	big := strings.Repeat("0123456789abcdef", 1<<20)
	var got string
	err := s.conn.QueryRowContext(ctx, "select repeat('x', 32 << 20)").Scan(&got)
	return errors.Join(err, same(len(got), 32<<20), is(ctx, s.conn, len(big), "select length($1)", big))
}

func (s *scenario) manyRows(ctx context.Context) error {
	rows, err := s.conn.QueryContext(ctx, "select i, md5(i::text) from generate_series(1, 100000) i")
	if err != nil {
		return err
	}
	defer rows.Close()
	total := 0
	for rows.Next() {
		var i int
		var t string
		if err := rows.Scan(&i, &t); err != nil {
			return err
		}
		total += i
	}
	return errors.Join(rows.Err(), same(total, 5000050000))
}

func (s *scenario) error(ctx context.Context) error {
	if err := exec(ctx, s.conn, "create temp table once (i int constraint only_once primary key)", "insert into once values (1)"); err != nil {
		return err
	}
	_, err := s.conn.ExecContext(ctx, "insert into once values ($1)", 1)
	var failure, position *pq.Error
	if !errors.As(err, &failure) {
		return fmt.Errorf("got %v, want an error of the server's", err)
	}
	_, err = s.conn.ExecContext(ctx, "select nonsense")
	if !errors.As(err, &position) {
		return fmt.Errorf("got %v, want an error of the server's", err)
	}
	return errors.Join(same([]string{string(failure.Code), failure.Constraint, failure.Detail}, []string{"23505", "only_once", "Key (i)=(1) already exists."}),
		same([]string{string(position.Code), position.Position}, []string{"42703", "8"}))
}

func (s *scenario) transaction(ctx context.Context) error {
	if err := exec(ctx, s.conn, "create temp table t (i int)"); err != nil {
		return err
	}
	tx, err := s.conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		return err
	}
	_, inserted := tx.ExecContext(ctx, "insert into t values (1)")
	_, divided := tx.ExecContext(ctx, "select 1/0")
	_, after := tx.ExecContext(ctx, "select 1")
	return errors.Join(inserted, code(divided, "22012"), code(after, "25P02"), tx.Rollback(), is(ctx, s.conn, 0, "select count(*) from t"))
}

func (s *scenario) startupOptions(ctx context.Context) error {
	db, err := sql.Open("postgres", "application_name='conformance of lib/pq' work_mem=7MB options='-c search_path=pg_catalog'")
	if err != nil {
		return err
	}
	defer db.Close()
	var got string
	err = db.QueryRowContext(ctx, "select concat_ws(',', current_setting('work_mem'), current_setting('search_path'), current_setting('application_name'))").Scan(&got)
	return errors.Join(err, same(got, "7MB,pg_catalog,conformance of lib/pq"))
}

func (s *scenario) pool(ctx context.Context) error {
	db, err := sql.Open("postgres", "")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(10)
	failures := make([]error, 200)
	var all sync.WaitGroup
	for i := range failures {
		all.Go(func() {
			var got int
			failures[i] = db.QueryRowContext(ctx, "select $1::int from pg_sleep(0.01)", i).Scan(&got)
			if failures[i] == nil {
				failures[i] = same(got, i)
			}
		})
	}
	all.Wait()
	return errors.Join(failures...)
}

func (s *scenario) noSuchDatabase(ctx context.Context) error {
	db, err := sql.Open("postgres", "dbname=conformance_nowhere")
	if err != nil {
		return err
	}
	defer db.Close()
	return code(db.PingContext(ctx), "3D000")
}

func (s *scenario) terminated(ctx context.Context) error {
	other, pid, err := session(ctx, s.db)
	if err != nil {
		return err
	}
	defer other.Close()
	asleep := make(chan error, 1)
	go func() {
		_, err := other.ExecContext(ctx, "select pg_sleep(30)")
		asleep <- err
	}()
	if err := steps.WhenAsleep(func() (string, error) { return event(ctx, s.conn, pid) },
		func() error { return is(ctx, s.conn, true, "select pg_terminate_backend($1)", pid) }); err != nil {
		return err
	}
	return gone(<-asleep)
}

// gone is nil for an error that says that the session has ended. The driver keeps the server's own words to itself when the
// session ended under a statement.
func gone(err error) error {
	if errors.Is(err, driver.ErrBadConn) {
		return nil
	}
	return code(err, "57P01")
}

// accessEnds is what a pool sees when the account's access ends under it and is given back.
func (s *scenario) accessEnds(ctx context.Context) error {
	db, err := sql.Open("postgres", "")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	return steps.Pool{
		Use: func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, "select 1")
			return err
		},
		UseAtOnce: func(ctx context.Context) (map[int]bool, error) {
			pids := map[int]bool{}
			for range 4 {
				conn, pid, err := session(ctx, db)
				if err != nil {
					return nil, err
				}
				defer conn.Close()
				pids[pid] = true
			}
			return pids, same(len(pids), 4)
		},
		Sleep: func(ctx context.Context, asleep func(pid int)) error {
			busy, pid, err := session(ctx, db)
			if err != nil {
				return err
			}
			defer busy.Close()
			asleep(pid)
			_, err = busy.ExecContext(ctx, "select pg_sleep(60)")
			return err
		},
		Event: func(ctx context.Context, pid int) (string, error) { return event(ctx, db, pid) },
		Gone:  gone, Refused: func(err error) error { return code(err, "28000") },
	}.Ends(ctx)
}

// session takes one of the pool's and gives its process id.
func session(ctx context.Context, db *sql.DB) (conn *sql.Conn, pid int, err error) {
	if conn, err = db.Conn(ctx); err != nil {
		return nil, 0, err
	}
	if err := conn.QueryRowContext(ctx, "select pg_backend_pid()").Scan(&pid); err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	return conn, pid, nil
}

// event is what a server process waits for.
func event(ctx context.Context, from interface {
	QueryRowContext(ctx context.Context, query string, arguments ...any) *sql.Row
}, pid int) (event string, err error) {
	err = from.QueryRowContext(ctx, "select coalesce(wait_event, '') from pg_stat_activity where pid = $1", pid).Scan(&event)
	return event, err
}
