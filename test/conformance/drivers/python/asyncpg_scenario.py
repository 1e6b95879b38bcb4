"""The steps with asyncpg: its own protocol code, binary everywhere, prepared statements for everything."""

import asyncio
import datetime
import decimal
import io
import os

import asyncpg

import steps
from steps import same

conn = None


async def connect():
    global conn
    conn = await asyncpg.connect()
    row = await conn.fetchrow("select pg_backend_pid(), current_user::text, current_database()::text")
    same(tuple(row), (conn.get_server_pid(), os.environ["PGUSER"], os.environ["PGDATABASE"]))


async def simple():
    same(await conn.execute("create temp table s (i int); insert into s values (1), (2)"), "INSERT 0 2")
    same(await conn.execute("do $$ begin end $$"), "DO")


async def prepared():
    statement = await conn.prepare("select $1::int * 2")
    same([await statement.fetchval(i) for i in range(50)], [i * 2 for i in range(50)])
    same([p.name for p in statement.get_parameters()], ["int4"])


async def binary():
    value = ("it's \\ é中", decimal.Decimal(10) ** 30, bytes(range(256)) * 5000, [1, None, 3], 0.1, 2**40,
             datetime.datetime(2020, 2, 29, 12, tzinfo=datetime.timezone.utc), datetime.timedelta(days=1, seconds=2))
    row = await conn.fetchrow("select $1::text, $2::numeric, $3::bytea, $4::int[], $5::float8, $6::int8, $7::timestamptz, $8::interval", *value)
    same(tuple(row), value)


async def composite_types():
    # An enumeration and a record make asyncpg ask the catalogue about types in the middle of other work.
    row = await conn.fetchrow("select row(1, 'a'::text, null) as r, '[1,5)'::int4range as g, '{a,b}'::name[] as n")
    same((tuple(row["r"]), row["g"].lower, row["n"]), ((1, "a", None), 1, ["a", "b"]))


async def batch():
    await conn.execute("create temp table batched (i int, t text)")
    await conn.executemany("insert into batched values ($1, $2)", [(i, str(i)) for i in range(5000)])
    same(await conn.fetchval("select count(*) from batched"), 5000)


async def batch_error():
    try:
        await conn.executemany("insert into batched values ($1, (1 / $1)::text)", [(i,) for i in (1, 2, 0, 3)])
    except asyncpg.DivisionByZeroError:
        pass
    else:
        raise AssertionError("no error")
    same(await conn.fetchval("select count(*) from batched"), 5000)


async def copy_in_and_out():
    await conn.execute("create temp table copied (i int, t text)")
    records = [(i, f"row {i} \\ é\n") for i in range(20000)]
    same(await conn.copy_records_to_table("copied", records=records), "COPY 20000")
    out = io.BytesIO()
    same(await conn.copy_from_query("select * from copied order by i", output=out), "COPY 20000")
    same(out.getvalue().decode(), "".join(f"{i}\trow {i} \\\\ é\\n\n" for i in range(20000)))
    same(await conn.copy_to_table("copied", source=io.BytesIO(out.getvalue())), "COPY 20000")


async def copy_error():
    async def rows():
        yield b"1\ta\nx\tb\n"
        for _ in range(2000):
            yield b"2\tc\n" * 50
    try:
        await conn.copy_to_table("copied", source=rows())
    except asyncpg.InvalidTextRepresentationError as error:
        same(error.context.startswith("COPY copied, line 2"), True)
    else:
        raise AssertionError("a row that is no number was taken")
    same(await conn.fetchval("select count(*) from copied"), 40000)


async def cursor():
    async with conn.transaction():
        got = [row[0] async for row in conn.cursor("select i from generate_series(1, 1000) i", prefetch=100)]
        portal = await conn.cursor("select i from generate_series(1, 1000) i")
        got += [row[0] for row in await portal.fetch(10)]
    same(got, list(range(1, 1001)) + list(range(1, 11)))


async def notify():
    got = asyncio.Queue()
    await conn.add_listener("conformance", lambda _, pid, channel, payload: got.put_nowait((pid, channel, payload)))
    other = await asyncpg.connect()
    await other.execute("notify conformance, 'hello'")
    same(await asyncio.wait_for(got.get(), 10), (other.get_server_pid(), "conformance", "hello"))
    await other.close()


async def notice():
    seen = []
    conn.add_log_listener(lambda _, message: seen.append(message.message))
    await conn.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
    await conn.fetchval("select 1")
    same(seen, ["one", "two"])


async def cancel():
    try:
        await conn.fetchval("select pg_sleep(30)", timeout=0.5)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("not cancelled")
    same(await asyncio.wait_for(conn.fetchval("select 1"), 10), 1)


async def big_values():
    value = "0123456789abcdef" * (1 << 20)
    row = await conn.fetchrow("select length($1::text), repeat('x', 32 << 20)", value)
    same((row[0], len(row[1])), (len(value), 32 << 20))


async def many_rows():
    same(sum(row[0] for row in await conn.fetch("select i, md5(i::text) from generate_series(1, 100000) i")), 5000050000)


async def error():
    await conn.execute("create temp table once (i int constraint only_once primary key)")
    await conn.execute("insert into once values (1)")
    try:
        await conn.execute("insert into once values ($1)", 1)
    except asyncpg.UniqueViolationError as caught:
        same((caught.constraint_name, caught.detail), ("only_once", "Key (i)=(1) already exists."))
    else:
        raise AssertionError("no error")
    try:
        await conn.fetch("select nonsense")
    except asyncpg.UndefinedColumnError as caught:
        same(caught.position, "8")
    else:
        raise AssertionError("no error")


async def transaction():
    await conn.execute("create temp table t (i int)")
    outer = conn.transaction(isolation="serializable")
    await outer.start()
    await conn.execute("insert into t values (1)")
    try:
        async with conn.transaction():
            await conn.execute("select 1/0")
    except asyncpg.DivisionByZeroError:
        pass
    same(await conn.fetchval("select count(*) from t"), 1)
    await outer.rollback()
    same(await conn.fetchval("select count(*) from t"), 0)


async def parameter_status():
    await conn.execute("set timezone = 'Asia/Tokyo'")
    same(conn.get_settings().TimeZone, "Asia/Tokyo")


async def startup_options():
    other = await asyncpg.connect(server_settings={"work_mem": "7MB", "search_path": "pg_catalog", "application_name": "conformance of asyncpg"})
    row = await other.fetchrow("select current_setting('work_mem'), current_setting('search_path'), current_setting('application_name')")
    same(tuple(row), ("7MB", "pg_catalog", "conformance of asyncpg"))
    await other.close()


async def pool():
    async with asyncpg.create_pool(min_size=10, max_size=10) as connections:
        async def one(i):
            async with connections.acquire() as c:
                return await c.fetchval("select $1::int from pg_sleep(0.01)", i)
        same(await asyncio.gather(*(one(i) for i in range(200))), list(range(200)))


async def no_such_database():
    try:
        await asyncpg.connect(database="conformance_nowhere")
    except asyncpg.InvalidCatalogNameError:
        return
    raise AssertionError("connected to a database that is not there")


async def terminated():
    other = await asyncpg.connect()
    pid = other.get_server_pid()
    asleep = asyncio.ensure_future(other.fetchval("select pg_sleep(30)"))
    while await conn.fetchval("select wait_event from pg_stat_activity where pid = $1", pid) != "PgSleep":
        same(asleep.done(), False)
    await conn.fetchval("select pg_terminate_backend($1)", pid)
    try:
        await asleep
    except (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError):
        return  # which of the two is a race inside the driver, on one machine with one server
    raise AssertionError("a terminated backend answered")


async def access_ends_and_is_renewed():
    lost = (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError)
    refused = asyncpg.InvalidAuthorizationSpecificationError
    async with asyncpg.create_pool(min_size=4, max_size=4) as connections:
        async def use_at_once():
            got = [await connections.acquire() for _ in range(4)]
            pids = {await c.fetchval("select pg_backend_pid()") for c in got}
            for c in got:
                await connections.release(c)
            same(len(pids), 4)
            return pids
        before = await use_at_once()
        busy = await connections.acquire()
        asleep = asyncio.ensure_future(busy.fetchval("select pg_sleep(60)"))
        async with connections.acquire() as other:
            while await other.fetchval("select wait_event from pg_stat_activity where pid = $1", busy.get_server_pid()) != "PgSleep":
                same(asleep.done(), False)
        await asyncio.to_thread(steps.access, "end")
        try:
            await asleep
        except lost:
            pass
        else:
            raise AssertionError("the statement outlived the access")
        await connections.release(busy)
        was_refused = False
        for _ in range(5):
            try:
                await connections.fetchval("select 1", timeout=10)
            except refused:
                was_refused = True
            except lost:
                pass
            else:
                raise AssertionError("the pool works without access")
        same(was_refused, True)
        await asyncio.to_thread(steps.access, "renew")
        same(await connections.fetchval("select 1", timeout=10), 1)
        same(await use_at_once() & before, set())


asyncio.run(steps.run_async([connect, simple, prepared, binary, composite_types, batch, batch_error, copy_in_and_out, copy_error,
                             cursor, notify, notice, cancel, big_values, many_rows, error, transaction, parameter_status,
                             startup_options, pool, no_such_database, terminated,
                             access_ends_and_is_renewed]))
