"""The steps with psycopg2: libpq, simple protocol only, parameters put into the text by the client."""

import io
import os
import select
import threading
import time

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

import steps
from steps import same

conn = None


def open_connection(**more):
    return psycopg2.connect("", **more)


def connect():
    global conn
    conn = open_connection()
    conn.autocommit = True
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


def when_asleep(pid, act):
    """Calls act with another connection's cursor once the server is in pg_sleep there."""
    other = open_connection()
    other.autocommit = True
    cur = other.cursor()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        cur.execute("select wait_event from pg_stat_activity where pid = %s", (pid,))
        if cur.fetchone() == ("PgSleep",):
            break
    act(cur)
    other.close()


def cancel():
    canceller = threading.Thread(target=when_asleep, args=(conn.get_backend_pid(), lambda _: conn.cancel()))
    canceller.start()
    try:
        conn.cursor().execute("select pg_sleep(30)")
    except psycopg2.errors.QueryCanceled:
        pass
    else:
        raise AssertionError("not cancelled")
    finally:
        canceller.join()
    cur = conn.cursor()
    cur.execute("select 1")
    same(cur.fetchone(), (1,))


def big_values():
    value = "0123456789abcdef" * (1 << 20)
    cur = conn.cursor()
    cur.execute("select length(%s), repeat('x', 32 << 20)", (value,))
    length, big = cur.fetchone()
    same(length, len(value))
    same(len(big), 32 << 20)


def many_rows():
    cur = conn.cursor()
    cur.execute("select i, md5(i::text) from generate_series(1, 100000) i")
    same(sum(row[0] for row in cur), 5000050000)


def error():
    cur = conn.cursor()
    cur.execute("create temp table once (i int constraint only_once primary key)")
    cur.execute("insert into once values (1)")
    try:
        cur.execute("insert into once values (1)")
    except psycopg2.errors.UniqueViolation as caught:
        same((caught.diag.constraint_name, caught.diag.message_detail), ("only_once", "Key (i)=(1) already exists."))
    else:
        raise AssertionError("no error")
    try:
        cur.execute("select nonsense")
    except psycopg2.errors.UndefinedColumn as caught:
        same(caught.diag.statement_position, "8")
    else:
        raise AssertionError("no error")


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


def startup_options():
    other = open_connection(options="-c work_mem=7MB -c search_path=pg_catalog", application_name="conformance of psycopg2")
    cur = other.cursor()
    cur.execute("select current_setting('work_mem'), current_setting('search_path'), current_setting('application_name')")
    same(cur.fetchone(), ("7MB", "pg_catalog", "conformance of psycopg2"))
    other.close()


def many_connections():
    connections = [open_connection() for _ in range(20)]
    pids = {c.get_backend_pid() for c in connections}
    for c in connections:
        c.close()
    same(len(pids), 20)


def no_such_database():
    try:
        open_connection(dbname="conformance_nowhere")
    except psycopg2.OperationalError as caught:
        same('database "conformance_nowhere" does not exist' in str(caught), True)
    else:
        raise AssertionError("connected to a database that is not there")


def terminated():
    other = open_connection()
    pid = other.get_backend_pid()
    killer = threading.Thread(target=when_asleep, args=(pid, lambda cur: cur.execute("select pg_terminate_backend(%s)", (pid,))))
    killer.start()
    try:
        other.cursor().execute("select pg_sleep(30)")
    except psycopg2.OperationalError:
        same(other.closed, 2)  # the driver's word for "broken"; of the server's two last words it shows either
        return
    finally:
        killer.join()
    raise AssertionError("a terminated backend answered")


def pool_use(pool):
    """The way this driver's pool is used: what broke is given back to be closed."""
    c = pool.getconn()
    try:
        c.autocommit = True
        with c.cursor() as cur:
            cur.execute("select pg_backend_pid()")
            return cur.fetchone()[0]
    finally:
        pool.putconn(c, close=bool(c.closed))


def pool_use_at_once(pool, count):
    """Uses so many of the pool's connections at the same time and gives their process ids."""
    got = [pool.getconn() for _ in range(count)]
    for c in got:
        c.autocommit = True
        c.cursor().execute("select 1")
    pids = {c.get_backend_pid() for c in got}
    for c in got:
        pool.putconn(c)
    same(len(pids), count)
    return pids


def access_ends_and_is_renewed():
    pool = psycopg2.pool.ThreadedConnectionPool(4, 4, "")
    before = pool_use_at_once(pool, 4)
    busy = pool.getconn()
    ender = threading.Thread(target=when_asleep, args=(busy.get_backend_pid(), lambda _: steps.access("end")))
    ender.start()
    try:
        busy.cursor().execute("select pg_sleep(60)")
    except psycopg2.OperationalError:
        pass  # of the server's two last words the driver shows either
    else:
        raise AssertionError("the statement outlived the access")
    finally:
        ender.join()
    pool.putconn(busy, close=True)
    for _ in range(5):  # three that are broken, and new ones
        try:
            pool_use(pool)
        except psycopg2.OperationalError:
            continue
        raise AssertionError("the pool works without access")
    steps.access("renew")
    steps.eventually(lambda: pool_use(pool), psycopg2.OperationalError)
    same(pool_use_at_once(pool, 4) & before, set())
    pool.closeall()


steps.run([connect, simple, prepared, binary, batch, copy_in_and_out, copy_error, cursor, notify, notice, cancel, big_values,
           many_rows, error, transaction, large_object, parameter_status, startup_options, many_connections,
           no_such_database, terminated, access_ends_and_is_renewed])
