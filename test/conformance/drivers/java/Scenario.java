import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.*;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;

/** The steps with pgjdbc: extended protocol, binary transfer after five executions, portals by fetch size, batches. */
public class Scenario {
    interface Step { void run() throws Exception; }

    static Connection connection;

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    /** The driver reads none of libpq's variables, so they are translated. The key comes as PKCS#12, which it can read. */
    static Connection openIn(String database, String... more) throws SQLException {
        return DriverManager.getConnection(url(database), properties(more));
    }

    static String url(String database) { return "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + database; }

    static Properties properties(String... more) {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        // Without one it looks into the file that PGPASSFILE names.
        if (System.getenv("PGPASSWORD") != null) p.setProperty("password", System.getenv("PGPASSWORD"));
        String mode = env("PGSSLMODE", "disable");
        p.setProperty("sslmode", mode);
        if (!mode.equals("disable")) {
            if (System.getenv("PGSSLROOTCERT") != null) p.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
            if (System.getenv("CONFORMANCE_PKCS12") != null) {
                p.setProperty("sslkey", System.getenv("CONFORMANCE_PKCS12"));
                p.setProperty("sslpassword", "conformance");
            }
        }
        for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
        return p;
    }

    static Connection open(String... more) throws SQLException { return openIn(System.getenv("PGDATABASE"), more); }

    static void same(Object got, Object want) {
        if (!Objects.equals(got, want)) throw new AssertionError("got " + got + ", want " + want);
    }

    static void step(String name, Step step) {
        try {
            step.run();
            System.out.println("ok " + name);
        } catch (Throwable t) {
            t.printStackTrace();
            System.out.println("not ok " + name + ": " + String.valueOf(t).replaceAll("\\s+", " "));
        }
    }

    static void execute(String sql) throws SQLException {
        try (Statement s = connection.createStatement()) { s.execute(sql); }
    }

    static long number(String sql) throws SQLException {
        try (Statement s = connection.createStatement(); ResultSet r = s.executeQuery(sql)) { r.next(); return r.getLong(1); }
    }

    static PSQLException fails(String state, Step step) throws Exception {
        try {
            step.run();
        } catch (PSQLException e) {
            same(e.getSQLState(), state);
            return e;
        }
        throw new AssertionError("no error, want " + state);
    }

    /** Acts once the server is in pg_sleep in the session of that process id. */
    static void whenAsleep(int pid, Step act) {
        try (Connection other = open(); PreparedStatement s = other.prepareStatement("select coalesce(wait_event, '') from pg_stat_activity where pid = ?")) {
            s.setInt(1, pid);
            for (long end = System.nanoTime() + 10_000_000_000L; System.nanoTime() < end; ) {
                try (ResultSet r = s.executeQuery()) { if (r.next() && r.getString(1).equals("PgSleep")) break; }
            }
            act.run();
        } catch (Exception e) {
            e.printStackTrace();
        }
    }

    /** Has the account's access ended ("end") or given back ("renew"). */
    static void access(String what) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("CONFORMANCE_ACCESS") + "/" + what)).POST(HttpRequest.BodyPublishers.noBody()).build();
        HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new AssertionError(what + ": " + answer.body());
    }

    static int pid(Connection c) throws SQLException { return c.unwrap(PGConnection.class).getBackendPID(); }

    /** Uses four connections of the pool's at the same time and gives their process ids. */
    static Set<Integer> useAtOnce(HikariDataSource pool) throws SQLException {
        Set<Integer> pids = new HashSet<>();
        List<Connection> all = new ArrayList<>();
        try {
            for (int i = 0; i < 4; i++) {
                Connection c = pool.getConnection();
                all.add(c);
                try (Statement s = c.createStatement()) { s.execute("select 1"); }
                pids.add(pid(c));
            }
        } finally {
            for (Connection c : all) c.close();
        }
        same(pids.size(), 4);
        return pids;
    }

    public static void main(String[] args) throws Exception {
        step("connect", () -> {
            connection = open();
            try (Statement s = connection.createStatement(); ResultSet r = s.executeQuery("select pg_backend_pid(), current_user, current_database()")) {
                r.next();
                same(r.getInt(1), connection.unwrap(PGConnection.class).getBackendPID());
                same(r.getString(2), System.getenv("PGUSER"));
                same(r.getString(3), System.getenv("PGDATABASE"));
            }
        });
        step("simple", () -> {
            try (Statement s = connection.createStatement()) {
                same(s.execute("select 1; create temp table s (i int); insert into s values (1), (2)"), true);
                same(s.getMoreResults(), false);
                s.getMoreResults();
                same(s.getUpdateCount(), 2);
            }
            try (Connection c = open("preferQueryMode", "simple"); PreparedStatement s = c.prepareStatement("select ?::int + 1")) {
                s.setInt(1, 41);
                try (ResultSet r = s.executeQuery()) { r.next(); same(r.getInt(1), 42); }
            }
        });
        step("prepared", () -> {
            try (PreparedStatement s = connection.prepareStatement("select ?::int * 2, ?::text")) {
                for (int i = 0; i < 50; i++) {
                    s.setInt(1, i);
                    s.setString(2, "it's \\ é中");
                    try (ResultSet r = s.executeQuery()) { r.next(); same(r.getInt(1), i * 2); same(r.getString(2), "it's \\ é中"); }
                }
            }
        });
        step("binary", () -> {
            byte[] value = new byte[1 << 20];
            for (int i = 0; i < value.length; i++) value[i] = (byte) i;
            try (PreparedStatement s = connection.prepareStatement("select ?::bytea, ?::int8, ?::float8")) {
                for (int i = 0; i < 10; i++) {
                    s.setBytes(1, value);
                    s.setLong(2, 1L << 40);
                    s.setDouble(3, 0.1);
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        same(Arrays.equals(r.getBytes(1), value), true);
                        same(r.getLong(2), 1L << 40);
                        same(r.getDouble(3), 0.1);
                    }
                }
            }
        });
        step("batch", () -> {
            execute("create temp table batched (i int, t text)");
            try (PreparedStatement s = connection.prepareStatement("insert into batched values (?, ?)")) {
                for (int i = 0; i < 5000; i++) { s.setInt(1, i); s.setString(2, "row " + i); s.addBatch(); }
                same(s.executeBatch().length, 5000);
            }
            same(number("select count(*) from batched"), 5000L);
        });
        step("batch-error", () -> {
            try (PreparedStatement s = connection.prepareStatement("insert into batched values (?, (1 / ?)::text)")) {
                for (int i : new int[] {1, 2, 0, 3}) { s.setInt(1, -1); s.setInt(2, i); s.addBatch(); }
                s.executeBatch();
                throw new AssertionError("no error");
            } catch (BatchUpdateException e) {
                same(e.getSQLState(), "22012");
            }
            same(number("select 1"), 1L);
        });
        step("copy-in-and-out", () -> {
            execute("create temp table copied (i int, t text)");
            StringBuilder text = new StringBuilder();
            for (int i = 0; i < 20000; i++) text.append(i).append("\trow ").append(i).append(" \\\\ é\n");
            CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
            same(copy.copyIn("copy copied from stdin", new StringReader(text.toString())), 20000L);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            same(copy.copyOut("copy (select * from copied order by i) to stdout", out), 20000L);
            same(out.toString(StandardCharsets.UTF_8).equals(text.toString()), true);
        });
        step("copy-error", () -> {
            CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
            fails("22P02", () -> copy.copyIn("copy copied from stdin", new StringReader("1\ta\nx\tb\n" + "2\tc\n".repeat(100000))));
            same(number("select count(*) from copied"), 20000L);
        });
        step("cursor", () -> {
            connection.setAutoCommit(false);
            try (PreparedStatement s = connection.prepareStatement("select i from generate_series(1, 1000) i")) {
                s.setFetchSize(70);
                long sum = 0;
                try (ResultSet r = s.executeQuery()) { while (r.next()) sum += r.getInt(1); }
                same(sum, 500500L);
            } finally {
                connection.rollback();
                connection.setAutoCommit(true);
            }
        });
        step("notify", () -> {
            execute("listen conformance");
            try (Connection other = open(); Statement s = other.createStatement()) {
                s.execute("notify conformance, 'hello'");
                PGNotification[] got = connection.unwrap(PGConnection.class).getNotifications(10000);
                same(got == null ? 0 : got.length, 1);
                same(got[0].getName() + got[0].getParameter(), "conformancehello");
                same(got[0].getPID(), other.unwrap(PGConnection.class).getBackendPID());
            }
        });
        step("notice", () -> {
            try (Statement s = connection.createStatement()) {
                s.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$");
                same(s.getWarnings().getMessage() + s.getWarnings().getNextWarning().getMessage(), "onetwo");
            }
        });
        step("cancel", () -> {
            try (Statement s = connection.createStatement()) {
                int pid = pid(connection);
                Thread canceller = new Thread(() -> whenAsleep(pid, s::cancel));
                canceller.start();
                fails("57014", () -> s.execute("select pg_sleep(30)"));
                canceller.join();
            }
            same(number("select 1"), 1L);
        });
        step("big-values", () -> {
            String value = "0123456789abcdef".repeat(1 << 20);
            try (PreparedStatement s = connection.prepareStatement("select length(?), repeat('x', 32 << 20)")) {
                s.setString(1, value);
                try (ResultSet r = s.executeQuery()) { r.next(); same(r.getInt(1), value.length()); same(r.getString(2).length(), 32 << 20); }
            }
        });
        step("many-rows", () -> {
            long sum = 0;
            try (Statement s = connection.createStatement(); ResultSet r = s.executeQuery("select i, md5(i::text) from generate_series(1, 100000) i")) {
                while (r.next()) sum += r.getInt(1);
            }
            same(sum, 5000050000L);
        });
        step("error", () -> {
            execute("create temp table once (i int constraint only_once primary key)");
            execute("insert into once values (1)");
            PSQLException twice = fails("23505", () -> execute("insert into once values (1)"));
            same(twice.getServerErrorMessage().getConstraint(), "only_once");
            same(twice.getServerErrorMessage().getDetail(), "Key (i)=(1) already exists.");
            same(fails("42703", () -> execute("select nonsense")).getServerErrorMessage().getPosition(), 8);
        });
        step("transaction", () -> {
            execute("create temp table t (i int)");
            connection.setAutoCommit(false);
            execute("insert into t values (1)");
            Savepoint savepoint = connection.setSavepoint();
            fails("22012", () -> execute("select 1/0"));
            fails("25P02", () -> execute("select 1"));
            connection.rollback(savepoint);
            same(number("select count(*) from t"), 1L);
            connection.rollback();
            connection.setAutoCommit(true);
            same(number("select count(*) from t"), 0L);
        });
        step("startup-options", () -> {
            try (Connection c = open("options", "-c work_mem=7MB", "ApplicationName", "conformance of pgjdbc", "currentSchema", "pg_catalog");
                 Statement s = c.createStatement();
                 ResultSet r = s.executeQuery("select concat_ws(',', current_setting('work_mem'), current_setting('application_name'), current_setting('search_path'))")) {
                r.next();
                same(r.getString(1), "7MB,conformance of pgjdbc,pg_catalog");
            }
        });
        step("metadata", () -> {
            try (ResultSet r = connection.getMetaData().getTables(null, null, "batched", null)) { same(r.next(), true); }
            try (ResultSet r = connection.getMetaData().getColumns(null, null, "batched", null)) { r.next(); same(r.getString("COLUMN_NAME"), "i"); }
        });
        step("many-connections", () -> {
            List<Connection> all = new ArrayList<>();
            Set<Integer> pids = new HashSet<>();
            for (int i = 0; i < 20; i++) { Connection c = open(); all.add(c); pids.add(c.unwrap(PGConnection.class).getBackendPID()); }
            for (Connection c : all) c.close();
            same(pids.size(), 20);
        });
        step("no-such-database", () -> fails("3D000", () -> openIn("conformance_nowhere").close()));
        step("terminated", () -> {
            Connection other = open();
            number("select pg_terminate_backend(" + other.unwrap(PGConnection.class).getBackendPID() + ")::int");
            fails("57P01", () -> { try (Statement s = other.createStatement()) { s.execute("select pg_sleep(10)"); } });
        });
        step("access-ends-and-is-renewed", () -> {
            // Else the pool gives out what was used half a second ago without looking whether it is alive.
            System.setProperty("com.zaxxer.hikari.aliveBypassWindowMs", "0");
            HikariConfig config = new HikariConfig();
            config.setJdbcUrl(url(System.getenv("PGDATABASE")));
            config.setDataSourceProperties(properties());
            config.setMaximumPoolSize(4);
            config.setConnectionTimeout(2000);
            try (HikariDataSource pool = new HikariDataSource(config)) {
                Set<Integer> before = useAtOnce(pool);
                try (Connection busy = pool.getConnection(); Statement s = busy.createStatement()) {
                    int pid = pid(busy);
                    Thread ender = new Thread(() -> whenAsleep(pid, () -> access("end")));
                    ender.start();
                    fails("57P01", () -> s.execute("select pg_sleep(60)"));
                    ender.join();
                }
                // The pool looks whether a connection is alive before it gives it, so what one sees is that there is none.
                SQLException none = null;
                try (Connection c = pool.getConnection()) {
                    throw new AssertionError("the pool works without access");
                } catch (SQLTransientConnectionException e) {
                    none = e;
                }
                Throwable cause = none.getCause();
                same(cause instanceof SQLException ? ((SQLException) cause).getSQLState() : String.valueOf(cause), "28000");
                access("renew");
                for (long end = System.nanoTime() + 60_000_000_000L; ; ) {
                    try (Connection c = pool.getConnection()) {
                        break;
                    } catch (SQLTransientConnectionException e) {
                        if (System.nanoTime() > end) throw e;
                    }
                }
                Set<Integer> after = useAtOnce(pool);
                after.retainAll(before);
                same(after.isEmpty(), true);
            }
        });
        connection.close();
    }
}
