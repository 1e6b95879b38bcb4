"""The steps with psycopg2: libpq, simple protocol only, parameters put into the text by the client."""

import io
import os
import select

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

import steps
from psycopg_steps import Psycopg
from steps import same

conn = None


def open_connection(**more):
    return psycopg2.connect("", **more)


both = Psycopg(psycopg2, open_connection)


def connect():
    global conn
    conn = both.conn = both.alone()
    cur = conn.cursor()
    cur.execute("select pg_backend_pid(), current_user, current_database()")
    pid, user, database = cur.fetchone()
    same(conn.get_backend_pid(), pid)
    same(user, os.environ["PGUSER"])
    same(database, os.environ["PGDATABASE"])


def simple():
    cur = conn.cursor()
    cur.execute("select %s, %s::numeric, %s::jsonb, %s::int[]", ("it's \\ é中", 10**30, '{"a": [1, null]}', [1, None, 3]))
    same(cur.fetchone(), ("it's \\ é中", 10**30, {"a": [1, None]}, [1, None, 3]))
    cur.execute("select 1; select 2; select 3")
    same(cur.fetchone(), (3,))
    cur.execute("select")
    same(cur.fetchall(), [()])


def prepared():
    cur = conn.cursor()
    cur.execute("prepare doubled(int) as select $1 * 2")
    for i in range(50):
        cur.execute("execute doubled(%s)", (i,))
        same(cur.fetchone(), (i * 2,))
    cur.execute("deallocate doubled")


def binary():
    value = bytes(range(256)) * 5000
    cur = conn.cursor()
    cur.execute("select %s::bytea", (psycopg2.Binary(value),))
    same(bytes(cur.fetchone()[0]), value)


def batch():
    cur = conn.cursor()
    cur.execute("create temp table batched (i int, t text)")
    psycopg2.extras.execute_values(cur, "insert into batched values %s", [(i, str(i)) for i in range(5000)], page_size=500)
    psycopg2.extras.execute_batch(cur, "update batched set t = t || %s where i = %s", [("x", i) for i in range(1000)])
    cur.execute("select count(*), count(*) filter (where t like '%x') from batched")
    same(cur.fetchone(), (5000, 1000))


def copy_in_and_out():
    cur = conn.cursor()
    cur.execute("create temp table copied (i int, t text)")
    text = "".join(f"{i}\trow {i} \\\\ é\n" for i in range(20000))
    cur.copy_expert("copy copied from stdin", io.StringIO(text))
    same(cur.rowcount, 20000)
    out = io.StringIO()
    cur.copy_expert("copy (select * from copied order by i) to stdout", out)
    same(out.getvalue(), text)


def copy_error():
    cur = conn.cursor()
    try:
        cur.copy_expert("copy copied from stdin", io.StringIO("1\ta\nx\tb\n" + "2\tc\n" * 100000))
    except psycopg2.errors.InvalidTextRepresentation as error:
        same(error.diag.context.startswith("COPY copied, line 2"), True)
    else:
        raise AssertionError("a row that is no number was taken")
    cur.execute("select count(*) from copied")
    same(cur.fetchone(), (20000,))


def cursor():
    with open_connection() as other:
        with other.cursor("named") as cur:
            cur.itersize = 100
            cur.execute("select i from generate_series(1, 1000) i")
            same([row[0] for row in cur], list(range(1, 1001)))
    other.close()


def notify():
    conn.cursor().execute("listen conformance")
    other = open_connection()
    other.autocommit = True
    other.cursor().execute("notify conformance, 'hello'")
    if select.select([conn], [], [], 10) == ([], [], []):
        raise AssertionError("no notification within ten seconds")
    conn.poll()
    got = conn.notifies.pop()
    same((got.channel, got.payload, got.pid), ("conformance", "hello", other.get_backend_pid()))
    other.close()


def notice():
    del conn.notices[:]
    conn.cursor().execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
    same([n.strip() for n in conn.notices], ["NOTICE:  one", "WARNING:  two"])


def transaction():
    other = open_connection()
    cur = other.cursor()
    cur.execute("create temp table t (i int)")
    other.commit()
    cur.execute("insert into t values (1)")
    try:
        cur.execute("select 1/0")
    except psycopg2.errors.DivisionByZero:
        pass
    same(other.info.transaction_status, psycopg2.extensions.TRANSACTION_STATUS_INERROR)
    try:
        cur.execute("select 1")
    except psycopg2.errors.InFailedSqlTransaction:
        pass
    else:
        raise AssertionError("a failed transaction went on")
    other.rollback()
    cur.execute("select count(*) from t")
    same(cur.fetchone(), (0,))
    other.close()


def large_object():
    other = open_connection()
    value = bytes(range(256)) * 4096
    lo = other.lobject(0, "wb")
    lo.write(value)
    lo.seek(1000)
    lo.close()
    same(other.lobject(lo.oid, "rb").read(), value)
    other.rollback()
    other.close()


def parameter_status():
    cur = conn.cursor()
    cur.execute("set application_name = 'renamed'; set timezone = 'Asia/Tokyo'; set standard_conforming_strings = on")
    same(conn.get_parameter_status("application_name"), "renamed")
    same(conn.get_parameter_status("TimeZone"), "Asia/Tokyo")
    same(conn.get_parameter_status("server_version"), conn.get_parameter_status("server_version").strip())


def access_ends_and_is_renewed():
    pool = psycopg2.pool.ThreadedConnectionPool(4, 4, "")

    def use():
        """The way this driver's pool is used: what broke is given back to be closed."""
        c = pool.getconn()
        try:
            c.autocommit = True
            c.cursor().execute("select 1")
        finally:
            pool.putconn(c, close=bool(c.closed))

    both.access_ends(pool, lambda c: pool.putconn(c, close=True), use, psycopg2.OperationalError)
    pool.closeall()


steps.run([connect, simple, prepared, binary, batch, copy_in_and_out, copy_error, cursor, notify, notice, both.cancel, both.big_values,
           both.many_rows, both.error, transaction, large_object, parameter_status, both.startup_options, both.many_connections,
           both.no_such_database, both.terminated, access_ends_and_is_renewed])
