"""The steps that psycopg2 and psycopg 3 do in the same way, each with a protocol of its own below."""

import threading
import time

import steps
from steps import same


class Psycopg:
    """Both drivers behind what they have in common. open_connection gives another connection; it takes keywords."""

    def __init__(self, driver, open_connection):
        self.driver = driver
        self.open_connection = open_connection
        self.conn = None  # the first step makes it

    def alone(self, **more):
        """Another connection on which every statement is a transaction of its own."""
        other = self.open_connection(**more)
        other.autocommit = True
        return other

    def row(self, sql, arguments=None):
        cur = self.conn.cursor()
        cur.execute(sql, arguments)
        return cur.fetchone()

    def when_asleep(self, pid, act):
        """Calls act with another connection's cursor once the server is in pg_sleep there."""
        other = self.alone()
        cur = other.cursor()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            cur.execute("select wait_event from pg_stat_activity where pid = %s", (pid,))
            if cur.fetchone() == ("PgSleep",):
                break
        act(cur)
        other.close()

    def asleep_until(self, conn, act):
        """Has the connection sleep until act ends that, and gives the error."""
        actor = threading.Thread(target=self.when_asleep, args=(conn.info.backend_pid, act))
        actor.start()
        try:
            conn.cursor().execute("select pg_sleep(60)")
        except self.driver.Error as error:
            return error
        finally:
            actor.join()
        raise AssertionError("it slept undisturbed")

    def cancel(self):
        caught = self.asleep_until(self.conn, lambda _: self.conn.cancel())
        same(isinstance(caught, self.driver.errors.QueryCanceled), True)
        same(self.row("select 1"), (1,))

    def big_values(self):
        value = "0123456789abcdef" * (1 << 20)
        length, big = self.row("select length(%s), repeat('x', 32 << 20)", (value,))
        same((length, len(big)), (len(value), 32 << 20))

    def many_rows(self):
        cur = self.conn.cursor()
        cur.execute("select i, md5(i::text) from generate_series(1, 100000) i")
        same(sum(row[0] for row in cur), 5000050000)

    def error(self):
        cur = self.conn.cursor()
        cur.execute("create temp table once (i int constraint only_once primary key)")
        cur.execute("insert into once values (1)")
        try:
            cur.execute("insert into once values (%s)", (1,))
        except self.driver.errors.UniqueViolation as caught:
            same((caught.diag.constraint_name, caught.diag.message_detail), ("only_once", "Key (i)=(1) already exists."))
        else:
            raise AssertionError("no error")
        try:
            cur.execute("select nonsense")
        except self.driver.errors.UndefinedColumn as caught:
            same(caught.diag.statement_position, "8")
        else:
            raise AssertionError("no error")

    def startup_options(self):
        name = "conformance of " + self.driver.__name__
        other = self.alone(options="-c work_mem=7MB -c search_path=pg_catalog", application_name=name)
        cur = other.cursor()
        cur.execute("select current_setting('work_mem'), current_setting('search_path'), current_setting('application_name')")
        same(cur.fetchone(), ("7MB", "pg_catalog", name))
        other.close()

    def many_connections(self):
        connections = [self.open_connection() for _ in range(20)]
        pids = {c.info.backend_pid for c in connections}
        for c in connections:
            c.close()
        same(len(pids), 20)

    def no_such_database(self):
        try:
            self.open_connection(dbname="conformance_nowhere")
        except self.driver.OperationalError as caught:
            same('database "conformance_nowhere" does not exist' in str(caught), True)
        else:
            raise AssertionError("connected to a database that is not there")

    def terminated(self):
        other = self.alone()
        pid = other.info.backend_pid
        caught = self.asleep_until(other, lambda cur: cur.execute("select pg_terminate_backend(%s)", (pid,)))
        same(isinstance(caught, self.driver.OperationalError), True)
        same(bool(other.closed), True)
        return caught

    def pool_use_at_once(self, pool, count):
        """Uses so many of the pool's connections at the same time and gives their process ids."""
        got = [pool.getconn() for _ in range(count)]
        for c in got:
            c.autocommit = True
            c.cursor().execute("select 1")
        pids = {c.info.backend_pid for c in got}
        for c in got:
            pool.putconn(c)
        same(len(pids), count)
        return pids

    def access_ends(self, pool, give_back, use, errors):
        """The account's access ends under a pool of four and is given back. use uses one of the pool's and raises one of errors where none is good."""
        before = self.pool_use_at_once(pool, 4)
        busy = pool.getconn()
        busy.autocommit = True
        caught = self.asleep_until(busy, lambda _: steps.access("end"))
        same(isinstance(caught, self.driver.OperationalError), True)
        give_back(busy)
        for _ in range(5):  # three that are broken, and then new ones or none
            try:
                use()
            except errors:
                continue
            raise AssertionError("the pool works without access")
        steps.access("renew")
        steps.eventually(use, errors)
        same(self.pool_use_at_once(pool, 4) & before, set())
