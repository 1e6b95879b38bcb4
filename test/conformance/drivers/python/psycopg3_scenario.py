"""The steps with psycopg 3: libpq, extended protocol, server-side parameters, pipelines."""

import os
import threading

import psycopg
import psycopg_pool
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

import steps
from psycopg_steps import Psycopg
from steps import Skip, same

conn = None


def open_connection(**more):
    return psycopg.connect("", autocommit=True, row_factory=tuple_row, **more)


both = Psycopg(psycopg, open_connection)


def connect():
    global conn
    conn = both.conn = open_connection()
    pid, user, database = conn.execute("select pg_backend_pid(), current_user, current_database()").fetchone()
    same(conn.info.backend_pid, pid)
    same((user, database), (os.environ["PGUSER"], os.environ["PGDATABASE"]))


def simple():
    row = conn.execute("select %s, %s::numeric, %s, %s::int[]", ("it's \\ é中", 10**30, Jsonb({"a": [1, None]}), [1, None, 3])).fetchone()
    same(row, ("it's \\ é中", 10**30, {"a": [1, None]}, [1, None, 3]))
    cur = conn.execute("select 1; select 2; select 3")
    got = [cur.fetchone()]
    while cur.nextset():
        got.append(cur.fetchone())
    same(got, [(1,), (2,), (3,)])


def prepared():
    for i in range(50):
        same(conn.execute("select %s::int * 2", (i,), prepare=True).fetchone(), (i * 2,))
    same(conn.execute("select count(*) from pg_prepared_statements").fetchone()[0] >= 1, True)


def binary():
    value = bytes(range(256)) * 5000
    cur = conn.cursor(binary=True)
    cur.execute("select %b::bytea, %b::int8, %b::float8, %b::timestamptz = now()", (value, 2**40, 0.1, None))
    same(cur.fetchone(), (value, 2**40, 0.1, None))


def batch():
    conn.execute("create temp table batched (i int, t text)")
    conn.cursor().executemany("insert into batched values (%s, %s)", [(i, str(i)) for i in range(2000)])
    if not psycopg.Pipeline.is_supported():
        raise Skip("this libpq has no pipelines")
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("select %s::int + count(*) from batched", (i,)) for i in range(300)]
        pipeline.sync()
        same([c.fetchone()[0] for c in cursors], [2000 + i for i in range(300)])


def batch_error():
    if not psycopg.Pipeline.is_supported():
        raise Skip("this libpq has no pipelines")
    try:
        with conn.pipeline():
            conn.execute("select 1")
            conn.execute("select 1/0")
            conn.execute("insert into batched values (-1)")
    except psycopg.errors.DivisionByZero:
        pass
    else:
        raise AssertionError("no error")
    same(conn.execute("select count(*) from batched where i = -1").fetchone(), (0,))


def copy_in_and_out():
    conn.execute("create temp table copied (i int, t text)")
    with conn.cursor() as cur:
        with cur.copy("copy copied from stdin") as copy:
            for i in range(20000):
                copy.write_row((i, f"row {i} \\ é\n"))
        same(cur.rowcount, 20000)
        with cur.copy("copy (select * from copied order by i) to stdout (format binary)") as copy:
            copy.set_types(["int4", "text"])
            same(list(copy.rows()), [(i, f"row {i} \\ é\n") for i in range(20000)])


def copy_error():
    try:
        with conn.cursor() as cur, cur.copy("copy copied from stdin") as copy:
            copy.write("1\ta\nx\tb\n")
            for _ in range(2000):
                copy.write("2\tc\n" * 50)
    except psycopg.errors.InvalidTextRepresentation as error:
        same(error.diag.context.startswith("COPY copied, line 2"), True)
    else:
        raise AssertionError("a row that is no number was taken")
    try:
        with conn.cursor() as cur, cur.copy("copy copied from stdin") as copy:
            copy.write("1\ta\n")
            raise KeyError("the client gives up")
    except psycopg.errors.QueryCanceled as error:
        same("the client gives up" in error.diag.message_primary, True)
    else:
        raise AssertionError("a COPY that the client gave up was taken")
    same(conn.execute("select count(*) from copied").fetchone(), (20000,))


def cursor():
    with conn.transaction(), conn.cursor("named") as cur:
        cur.execute("select i from generate_series(1, 1000) i")
        got = cur.fetchmany(100)
        cur.scroll(100)
        got += cur.fetchall()
    same([row[0] for row in got], list(range(1, 101)) + list(range(201, 1001)))


def stream():
    same(sum(row[0] for row in conn.cursor().stream("select i from generate_series(1, %s) i", (20000,))), 200010000)


def notify():
    conn.execute("listen conformance")
    with open_connection() as other:
        pid = other.info.backend_pid
        other.execute("select pg_notify('conformance', 'hello')")
        timer = threading.Timer(10, conn.close)  # ends the wait below
        timer.start()
        got = next(conn.notifies())
        timer.cancel()
    same((got.channel, got.payload, got.pid), ("conformance", "hello", pid))
    conn.execute("unlisten *")


def notice():
    seen = []
    conn.add_notice_handler(lambda diag: seen.append((diag.severity, diag.message_primary)))
    conn.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
    same(seen, [("NOTICE", "one"), ("WARNING", "two")])


def transaction():
    conn.execute("create temp table t (i int)")
    try:
        with conn.transaction():
            conn.execute("insert into t values (1)")
            try:
                with conn.transaction():
                    conn.execute("insert into t values (2)")
                    conn.execute("select 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            same(conn.execute("select count(*) from t").fetchone(), (1,))
            raise psycopg.Rollback
    except psycopg.Rollback:
        pass
    same(conn.execute("select count(*) from t").fetchone(), (0,))


def two_phase():
    with open_connection() as other:
        if other.execute("show max_prepared_transactions").fetchone() == ("0",):
            try:
                other.execute("begin; prepare transaction 'conformance'")
            except psycopg.errors.ObjectNotInPrerequisiteState:
                return
            raise AssertionError("prepared with no room for it")
        other.execute("begin; select 1; prepare transaction 'conformance'")
        other.execute("rollback prepared 'conformance'")


def parameter_status():
    conn.execute("set application_name = 'renamed'")
    conn.execute("set timezone = 'Asia/Tokyo'")
    same(conn.info.parameter_status("application_name"), "renamed")
    same(conn.info.timezone.key, "Asia/Tokyo")


def terminated():
    caught = both.terminated()
    same("terminating connection due to administrator command" in str(caught), True)  # psycopg2 may show the second of the server's last words


def access_ends_and_is_renewed():
    with psycopg_pool.ConnectionPool("", min_size=4, max_size=4, timeout=30) as pool:

        def use():
            with pool.connection(timeout=2) as c:
                c.execute("select 1")

        both.access_ends(pool, pool.putconn, use, (psycopg.OperationalError, psycopg_pool.PoolTimeout))


steps.run([connect, simple, prepared, binary, batch, batch_error, copy_in_and_out, copy_error, cursor, stream, notify, notice,
           both.cancel, both.big_values, both.many_rows, both.error, transaction, two_phase, parameter_status, both.startup_options,
           both.many_connections, both.no_such_database, terminated, access_ends_and_is_renewed])
