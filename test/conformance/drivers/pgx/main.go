// Command pgx is the scenario with github.com/jackc/pgx: its own protocol code, binary by default, pipelines.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sallyport/test/conformance/drivers/steps"
)

func main() {
	var s scenario
	steps.Run([]steps.Step{
		{Name: "connect", Do: s.connect}, {Name: "simple", Do: s.simple}, {Name: "prepared", Do: s.prepared},
		{Name: "execution-modes", Do: s.modes}, {Name: "binary", Do: s.binary}, {Name: "batch", Do: s.batch},
		{Name: "batch-error", Do: s.batchError}, {Name: "pipeline", Do: s.pipeline}, {Name: "copy-in-and-out", Do: s.copy},
		{Name: "copy-error", Do: s.copyError}, {Name: "cursor", Do: s.cursor}, {Name: "notify", Do: s.notify},
		{Name: "notice", Do: s.notice}, {Name: "cancel", Do: s.cancel}, {Name: "big-values", Do: s.bigValues},
		{Name: "many-rows", Do: s.manyRows}, {Name: "error", Do: s.error}, {Name: "transaction", Do: s.transaction},
		{Name: "large-object", Do: s.largeObject}, {Name: "startup-options", Do: s.startupOptions},
		{Name: "many-connections", Do: s.manyConnections}, {Name: "no-such-database", Do: s.noSuchDatabase},
		{Name: "terminated", Do: s.terminated}, {Name: "access-ends-and-is-renewed", Do: s.accessEnds},
	})
}

type scenario struct {
	conn    *pgx.Conn
	notices []string
}

var same = steps.Same

// code is nil when err is the server's error of that SQLSTATE.
func code(err error, want string) error {
	var failure *pgconn.PgError
	if errors.As(err, &failure) && failure.Code == want {
		return nil
	}
	return fmt.Errorf("got error %v, want SQLSTATE %s", err, want)
}

func value[T any](ctx context.Context, conn *pgx.Conn, sql string, arguments ...any) (T, error) {
	rows, err := conn.Query(ctx, sql, arguments...)
	if err != nil {
		return *new(T), err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
}

// is runs a query of one value and compares it.
func is[T any](ctx context.Context, conn *pgx.Conn, want T, sql string, arguments ...any) error {
	got, err := value[T](ctx, conn, sql, arguments...)
	if err != nil {
		return err
	}
	return same(got, want)
}

func exec(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) connect(ctx context.Context) error {
	config, err := pgx.ParseConfig("")
	if err != nil {
		return err
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.notices = append(s.notices, n.Severity+" "+n.Message) }
	if s.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return err
	}
	return errors.Join(is(ctx, s.conn, int32(s.conn.PgConn().PID()), "select pg_backend_pid()"),
		is(ctx, s.conn, steps.Env("PGUSER")+"@"+steps.Env("PGDATABASE"), "select current_user || '@' || current_database()"))
}

func (s *scenario) simple(ctx context.Context) error {
	results, err := s.conn.PgConn().Exec(ctx, "select 1; create temp table s (i int); insert into s values (1), (2);;").ReadAll()
	if err != nil {
		return err
	}
	var tags []string
	for _, r := range results {
		tags = append(tags, r.CommandTag.String())
	}
	return same(tags, []string{"SELECT 1", "CREATE TABLE", "INSERT 0 2"})
}

func (s *scenario) prepared(ctx context.Context) error {
	description, err := s.conn.Prepare(ctx, "doubled", "select $1::int * 2")
	if err != nil {
		return err
	}
	if err := same(description.ParamOIDs, []uint32{23}); err != nil {
		return err
	}
	for i := range 50 {
		if err := is(ctx, s.conn, int32(i*2), "doubled", i); err != nil {
			return err
		}
	}
	return s.conn.Deallocate(ctx, "doubled")
}

func (s *scenario) modes(ctx context.Context) error {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		for i := range 5 {
			if err := is(ctx, s.conn, int32(i+1), "select $1::int + 1", mode, i); err != nil {
				return fmt.Errorf("mode %v: %w", mode, err)
			}
		}
	}
	return nil
}

func (s *scenario) binary(ctx context.Context) error {
	blob := bytes.Repeat([]byte{0, 255, '\\', '\n'}, 1<<18)
	at := time.Date(2020, 2, 29, 12, 0, 0, 123456000, time.UTC)
	return errors.Join(is(ctx, s.conn, blob, "select $1::bytea", blob), is(ctx, s.conn, 0.1, "select $1::float8", 0.1),
		is(ctx, s.conn, at, "select $1::timestamptz at time zone 'UTC'", at), is(ctx, s.conn, []string{"a", "é中", ""}, "select $1::text[]", []string{"a", "é中", ""}),
		is(ctx, s.conn, map[string]any{"a": nil}, "select $1::jsonb", map[string]any{"a": nil}), is[*string](ctx, s.conn, nil, "select $1::text", nil))
}

func (s *scenario) batch(ctx context.Context) error {
	if err := exec(ctx, s.conn, "create temp table batched (i int primary key, t text)"); err != nil {
		return err
	}
	var batch pgx.Batch
	for i := range 2000 {
		batch.Queue("insert into batched values ($1, $2)", i, strings.Repeat("x", i))
	}
	if err := s.conn.SendBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	return is(ctx, s.conn, int64(2000*1999/2), "select sum(length(t)) from batched")
}

func (s *scenario) batchError(ctx context.Context) error {
	var batch pgx.Batch
	for _, i := range []int{-1, -2, 0, -3} { // 0 is there
		batch.Queue("insert into batched values ($1, '')", i)
	}
	if err := code(s.conn.SendBatch(ctx, &batch).Close(), "23505"); err != nil {
		return err
	}
	return is(ctx, s.conn, int64(0), "select count(*) from batched where i < 0")
}

// pipeline has a Sync after some statements and an error in one of its segments, which must spare the others.
func (s *scenario) pipeline(ctx context.Context) error {
	p := s.conn.PgConn().StartPipeline(ctx)
	for segment := range 50 {
		for range 4 {
			p.SendQueryParams("select 10 / $1::int", [][]byte{fmt.Append(nil, segment%5)}, nil, nil, nil)
		}
		if err := p.Sync(); err != nil {
			return err
		}
	}
	var good, bad, ends int
	for ends < 50 {
		results, err := p.GetResults()
		if err != nil {
			if code(err, "22012") != nil {
				return err
			}
			bad++
			continue
		}
		switch r := results.(type) {
		case *pgconn.ResultReader:
			if one := r.Read(); one.Err == nil && len(one.Rows) == 1 {
				good++
			} else if code(one.Err, "22012") == nil {
				bad++
			} else {
				return fmt.Errorf("a result of %d rows and error %v", len(one.Rows), one.Err)
			}
		case *pgconn.PipelineSync:
			ends++
		}
	}
	return errors.Join(same([]int{good, bad}, []int{160, 10}), p.Close(), is(ctx, s.conn, int32(1), "select 1"))
}

func (s *scenario) copy(ctx context.Context) error {
	if err := exec(ctx, s.conn, "create temp table copied (i int, t text)"); err != nil {
		return err
	}
	count, err := s.conn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"i", "t"}, pgx.CopyFromSlice(20000, func(i int) ([]any, error) { return []any{i, fmt.Sprintf("row %d \\ é\n", i)}, nil }))
	if err != nil {
		return err
	}
	if err := same(count, int64(20000)); err != nil {
		return err
	}
	var first, second bytes.Buffer
	if _, err := s.conn.PgConn().CopyTo(ctx, &first, "copy (select * from copied order by i) to stdout (format binary)"); err != nil {
		return err
	}
	if err := exec(ctx, s.conn, "create temp table again (like copied)"); err != nil {
		return err
	}
	if _, err := s.conn.PgConn().CopyFrom(ctx, bytes.NewReader(first.Bytes()), "copy again from stdin (format binary)"); err != nil {
		return err
	}
	if _, err := s.conn.PgConn().CopyTo(ctx, &second, "copy (select * from again order by i) to stdout (format binary)"); err != nil {
		return err
	}
	return same(first.Len() > 400000 && bytes.Equal(first.Bytes(), second.Bytes()), true)
}

func (s *scenario) copyError(ctx context.Context) error {
	_, err := s.conn.PgConn().CopyFrom(ctx, strings.NewReader("1\ta\nx\tb\n"+strings.Repeat("2\tc\n", 100000)), "copy copied from stdin")
	return errors.Join(code(err, "22P02"), is(ctx, s.conn, int64(20000), "select count(*) from copied"))
}

func (s *scenario) cursor(ctx context.Context) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "declare c cursor for select i from generate_series(1, 1000) i"); err != nil {
		return err
	}
	total := 0
	for {
		rows, err := tx.Query(ctx, "fetch 70 from c")
		if err != nil {
			return err
		}
		part, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		if len(part) == 0 {
			return same(total, 500500)
		}
		for _, i := range part {
			total += i
		}
	}
}

func (s *scenario) notify(ctx context.Context) error {
	if err := exec(ctx, s.conn, "listen conformance"); err != nil {
		return err
	}
	other, err := pgx.Connect(ctx, "")
	if err != nil {
		return err
	}
	defer other.Close(ctx)
	if err := exec(ctx, other, "select pg_notify('conformance', 'hello')"); err != nil {
		return err
	}
	got, err := s.conn.WaitForNotification(ctx)
	if err != nil {
		return err
	}
	return same(*got, pgconn.Notification{PID: other.PgConn().PID(), Channel: "conformance", Payload: "hello"})
}

func (s *scenario) notice(ctx context.Context) error {
	s.notices = nil
	if err := exec(ctx, s.conn, "do $$ begin raise notice 'one'; raise warning 'two'; end $$"); err != nil {
		return err
	}
	return same(s.notices, []string{"NOTICE one", "WARNING two"})
}

func (s *scenario) cancel(ctx context.Context) error {
	cancelled := make(chan error, 1)
	go func() {
		other, err := pgx.Connect(ctx, "")
		if err != nil {
			cancelled <- err
			return
		}
		defer other.Close(ctx)
		cancelled <- steps.WhenAsleep(func() (string, error) { return value[string](ctx, other, waitsFor, s.conn.PgConn().PID()) },
			func() error { return s.conn.PgConn().CancelRequest(ctx) })
	}()
	_, err := s.conn.Exec(ctx, "select pg_sleep(30)")
	return errors.Join(code(err, "57014"), <-cancelled, is(ctx, s.conn, int32(1), "select 1"))
}

func (s *scenario) bigValues(ctx context.Context) error {
	big := strings.Repeat("0123456789abcdef", 1<<20)
	got, err := value[string](ctx, s.conn, "select repeat('x', 32 << 20)")
	return errors.Join(err, same(len(got), 32<<20), is(ctx, s.conn, int32(len(big)), "select length($1)", big))
}

func (s *scenario) manyRows(ctx context.Context) error {
	rows, err := s.conn.Query(ctx, "select i, md5(i::text) from generate_series(1, 100000) i")
	if err != nil {
		return err
	}
	var i, total int
	var t string
	if _, err := pgx.ForEachRow(rows, []any{&i, &t}, func() error { total += i; return nil }); err != nil {
		return err
	}
	return same(total, 5000050000)
}

func (s *scenario) error(ctx context.Context) error {
	if err := exec(ctx, s.conn, "create temp table once (i int constraint only_once primary key)", "insert into once values (1)"); err != nil {
		return err
	}
	_, err := s.conn.Exec(ctx, "insert into once values ($1)", 1)
	var failure *pgconn.PgError
	if !errors.As(err, &failure) {
		return fmt.Errorf("got %v, want an error of the server's", err)
	}
	_, unknown := s.conn.Exec(ctx, "select nonsense")
	var position *pgconn.PgError
	if !errors.As(unknown, &position) {
		return fmt.Errorf("got %v, want an error of the server's", unknown)
	}
	return errors.Join(same([]string{failure.Code, failure.ConstraintName, failure.Detail}, []string{"23505", "only_once", "Key (i)=(1) already exists."}),
		same([]any{position.Code, position.Position}, []any{"42703", int32(8)}))
}

func (s *scenario) transaction(ctx context.Context) error {
	if err := exec(ctx, s.conn, "create temp table t (i int)", "begin", "insert into t values (1)"); err != nil {
		return err
	}
	_, divided := s.conn.Exec(ctx, "select 1/0")
	status := s.conn.PgConn().TxStatus()
	_, after := s.conn.Exec(ctx, "select 1")
	return errors.Join(code(divided, "22012"), same(status, byte('E')), code(after, "25P02"), exec(ctx, s.conn, "rollback"),
		same(s.conn.PgConn().TxStatus(), byte('I')), is(ctx, s.conn, int64(0), "select count(*) from t"))
}

func (s *scenario) largeObject(ctx context.Context) error {
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	objects := tx.LargeObjects()
	oid, err := objects.Create(ctx, 0)
	if err != nil {
		return err
	}
	object, err := objects.Open(ctx, oid, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
	if err != nil {
		return err
	}
	content := bytes.Repeat([]byte{0, 1, 255}, 1<<18)
	if _, err := object.Write(content); err != nil {
		return err
	}
	if _, err := object.Seek(0, 0); err != nil {
		return err
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(object); err != nil {
		return err
	}
	return same(bytes.Equal(got.Bytes(), content), true)
}

func (s *scenario) startupOptions(ctx context.Context) error {
	config, err := pgx.ParseConfig("")
	if err != nil {
		return err
	}
	config.RuntimeParams["options"] = "-c work_mem=7MB -c search_path=pg_catalog"
	config.RuntimeParams["application_name"] = "conformance of pgx"
	other, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer other.Close(ctx)
	return is(ctx, other, "7MB,pg_catalog,conformance of pgx", "select concat_ws(',', current_setting('work_mem'), current_setting('search_path'), current_setting('application_name'))")
}

func (s *scenario) manyConnections(ctx context.Context) error {
	failures := make([]error, 20)
	var all sync.WaitGroup
	for i := range failures {
		all.Go(func() {
			conn, err := pgx.Connect(ctx, "")
			if err != nil {
				failures[i] = err
				return
			}
			failures[i] = errors.Join(is(ctx, conn, int32(i), "select $1::int", i), conn.Close(ctx))
		})
	}
	all.Wait()
	return errors.Join(failures...)
}

func (s *scenario) noSuchDatabase(ctx context.Context) error {
	_, err := pgx.Connect(ctx, "dbname=conformance_nowhere")
	return code(err, "3D000")
}

func (s *scenario) terminated(ctx context.Context) error {
	other, err := pgx.Connect(ctx, "")
	if err != nil {
		return err
	}
	defer other.Close(ctx)
	if err := is(ctx, s.conn, true, "select pg_terminate_backend($1)", other.PgConn().PID()); err != nil {
		return err
	}
	_, err = other.WaitForNotification(ctx)
	return code(err, "57P01")
}

// accessEnds is what a pool sees when the account's access ends under it and is given back.
func (s *scenario) accessEnds(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, "pool_min_conns=4 pool_max_conns=4")
	if err != nil {
		return err
	}
	defer pool.Close()
	return steps.Pool{
		Use: func(ctx context.Context) error {
			_, err := pool.Exec(ctx, "select 1")
			return err
		},
		UseAtOnce: func(ctx context.Context) (map[int]bool, error) {
			pids := map[int]bool{}
			for range 4 {
				conn, err := pool.Acquire(ctx)
				if err != nil {
					return nil, err
				}
				defer conn.Release()
				if _, err := conn.Exec(ctx, "select 1"); err != nil {
					return nil, err
				}
				pids[int(conn.Conn().PgConn().PID())] = true
			}
			return pids, same(len(pids), 4)
		},
		Sleep: func(ctx context.Context, asleep func(pid int)) error {
			busy, err := pool.Acquire(ctx)
			if err != nil {
				return err
			}
			defer busy.Release()
			asleep(int(busy.Conn().PgConn().PID()))
			_, err = busy.Exec(ctx, "select pg_sleep(60)")
			return err
		},
		Event: func(ctx context.Context, pid int) (event string, err error) {
			err = pool.QueryRow(ctx, waitsFor, pid).Scan(&event)
			return event, err
		},
		Gone:    func(err error) error { return code(err, "57P01") },
		Refused: func(err error) error { return code(err, "28000") },
	}.Ends(ctx)
}

// waitsFor asks what a server process waits for.
const waitsFor = "select coalesce(wait_event, '') from pg_stat_activity where pid = $1"
