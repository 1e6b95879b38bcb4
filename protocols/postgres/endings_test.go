package postgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/configs"
	"sallyport/grant"
)

// endingsTimes is how often each row of TestEndings is run, and the environment variable that says otherwise: 100 and more
// make the percentiles mean something.
const (
	endingsTimes    = 3
	endingsVariable = "SALLYPORT_TEST_ENDINGS"
)

// endingBound is what no ending may exceed on however busy a machine; what it takes is in the table that is printed.
const endingBound = 15 * time.Second

// endingState is a state that a session can be in when its grant is taken away.
type endingState struct {
	name string
	// begin brings a session into the state and returns its backend.
	begin func(*endings) uint32
	// until is the condition on the backend's row of pg_stat_activity that says that it is in the state.
	until string
	// still is set where the state is one that lasts, such as a full window, and not one that a session passes through.
	still bool
}

// endings are the means of bringing sessions into states, and of looking at the target beside the gateway.
type endings struct {
	*house
	superuser *pgx.Conn // straight to the target
	blocker   *pgx.Conn // another such
}

// Statements whose end has to be brought about. Who does not want to be ended switches off that the server looks after its
// client.
const (
	trapping   = "do $$ begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end $$"
	unwatched  = "set client_connection_check_interval = 0"
	muchOutput = "select repeat('x', 1000) from generate_series(1, 100000000)"
)

var allEndings = []endingState{
	{"statement running", func(h *endings) uint32 { return h.runs("select pg_sleep(60)") }, "wait_event = 'PgSleep'", false},
	{"prepared statement running", (*endings).prepared, "wait_event = 'PgSleep'", false},
	{"statement waiting for a lock", (*endings).locked, "wait_event_type = 'Lock'", false},
	{"DO block that traps query_canceled", func(h *endings) uint32 { return h.runs(trapping) }, "wait_event = 'PgSleep'", false},
	{"the same, unwatched by its server", func(h *endings) uint32 { return h.runs(unwatched, trapping) }, "wait_event = 'PgSleep'", false},
	{"idle", func(h *endings) uint32 { return h.runs("select 1", "") }, "state = 'idle'", false},
	{"idle in transaction", func(h *endings) uint32 { return h.runs("begin", "insert into endings values (1)", "") }, "state = 'idle in transaction'", false},
	{"COPY in", (*endings).copyIn, "state = 'active' and query like 'copy%'", true},
	{"COPY out, client reads", (*endings).copyOut, "state = 'active' and query like 'copy%'", false},
	{"COPY out, client SIGSTOPped", (*endings).stopped, "wait_event = 'ClientWrite'", true},
	{"client SIGSTOPped, statement running", (*endings).stoppedWaiting, "wait_event = 'PgSleep'", false},
	{"full window", (*endings).fullWindow, "wait_event = 'ClientWrite'", true},
	{"pipeline", (*endings).pipeline, "wait_event = 'PgSleep'", false},
	{"LISTEN", func(h *endings) uint32 { return h.runs("listen endings", "") }, "state = 'idle' and query = 'listen endings'", false},
	{"no slot left, statement running", func(h *endings) uint32 { return h.crowded("select pg_sleep(60)") }, "wait_event = 'PgSleep'", false},
	{"no slot left, DO block that traps", func(h *endings) uint32 { return h.crowded(trapping) }, "wait_event = 'PgSleep'", false},
}

// TestEndings is P2 for every state a session can be in: its grant is revoked, and its backend is gone from the target, what
// it had not committed is rolled back. It prints how long that took, from the call that revokes.
func TestEndings(t *testing.T) {
	times := endingsTimes
	if s := os.Getenv(endingsVariable); s != "" {
		var err error
		if times, err = strconv.Atoi(s); err != nil || times < 1 {
			t.Fatalf("%s=%s is no number of repetitions", endingsVariable, s)
		}
	}
	h := &endings{house: newHouseOf(t, func(c *configs.Config) {
		c.Targets[0].Accounts = append(c.Targets[0].Accounts, configs.Account{Name: "ender", User: "postgres"})
		c.Targets[0].EndWith = "ender" // only used where the account's own login fails
	})}
	carol := h.signIn("carol", "security")
	h.superuser, h.blocker = h.straight("postgres"), h.straight("postgres")
	_, err := h.superuser.Exec(t.Context(), "drop table if exists endings; create table endings (n int); grant insert, select on endings to app")
	h.must(err)

	table := []string{fmt.Sprintf("%-38s %5s %9s %9s %9s", "state when the grant is revoked", "times", "p50", "p99", "longest")}
	for _, e := range allEndings {
		t.Run(e.name, func(t *testing.T) {
			if runtime.GOOS != "linux" && strings.Contains(e.name, "SIGSTOP") {
				t.Skip("whether a process has stopped is read from /proc")
			}
			times := times
			if e.still && os.Getenv(endingsVariable) == "" {
				times = 1 // it takes seconds to be sure of the state
			}
			var took []time.Duration
			for range times {
				took = append(took, h.end(t, e, carol))
			}
			slices.Sort(took)
			table = append(table, fmt.Sprintf("%-38s %5d %9s %9s %9s", e.name, times, percentile(took, 50), percentile(took, 99), percentile(took, 100)))
		})
	}
	t.Logf("from revoking to the backend gone:\n%s", strings.Join(table, "\n"))
}

// percentile is the p-th one of sorted durations, by nearest rank.
func percentile(sorted []time.Duration, p int) time.Duration {
	rank := (len(sorted)*p + 99) / 100
	return sorted[rank-1].Round(time.Millisecond)
}

// end brings a session into a state, revokes its grant, and returns how long its backend lived on.
func (h *endings) end(t *testing.T, e endingState, carol person) (took time.Duration) {
	// A test of its own, at whose end its clients go.
	t.Run("", func(t *testing.T) {
		inner := *h.house
		inner.t = t
		h := &endings{house: &inner, superuser: h.superuser, blocker: h.blocker}
		g, err := h.grants.Request(t.Context(), h.alice.Identity, grant.Ask{Target: "orders", Account: "writer", Reason: "test"})
		h.must(err)
		pid := e.begin(h)
		inARow := 0
		h.eventually(fmt.Sprintf("backend %d is such that %s", pid, e.until), func() bool {
			if inARow++; !h.there(pid, e.until) {
				inARow = 0
			}
			return inARow > 0 && !e.still || inARow > 10
		})

		began := time.Now()
		_, err = h.grants.Revoke(t.Context(), carol.Identity, g.ID, "test")
		h.must(err)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for h.there(pid, "true") {
			if time.Since(began) > endingBound {
				t.Fatalf("backend %d is still there %v after the grant was revoked", pid, endingBound)
			}
			<-tick.C
		}
		took = time.Since(began)

		if info := h.ended(); info.EndReason != "grant_revoked" {
			t.Errorf("the session ended as %s", info.EndReason)
		}
		var kept int
		h.must(h.superuser.QueryRow(t.Context(), "select count(*) from endings").Scan(&kept))
		if kept != 0 {
			t.Errorf("%d rows of a transaction that was never committed are there", kept)
		}
		if h.there(pid, "true") {
			t.Errorf("backend %d is there again", pid)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return took
}

// there says whether the process is a backend for which the condition holds.
func (h *endings) there(pid uint32, condition string) (is bool) {
	h.t.Helper()
	h.must(h.superuser.QueryRow(context.Background(), "select exists (select from pg_stat_activity where pid = $1 and backend_type = 'client backend' and ("+condition+"))", int32(pid)).Scan(&is))
	return is
}

// straight connects to the target without the gateway.
func (h *endings) straight(role string) *pgx.Conn {
	h.t.Helper()
	conn, err := h.tryStraight(role)
	h.must(err)
	h.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (h *endings) tryStraight(role string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return pgx.Connect(ctx, fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", role, h.cluster.address))
}

// runs runs statements, and does not wait for the last.
func (h *endings) runs(statements ...string) uint32 {
	h.t.Helper()
	conn := h.pgx()
	last := len(statements) - 1
	for _, sql := range statements[:last] {
		h.must(runs(context.Background(), conn, sql))
	}
	if statements[last] != "" {
		h.goes(func() { _ = runs(context.Background(), conn, statements[last]) }) // it is cut
	}
	return conn.PgConn().PID()
}

// goes runs what ends when the session does.
func (h *endings) goes(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	h.t.Cleanup(func() { <-done })
}

func (h *endings) prepared() uint32 {
	conn := h.pgx()
	_, err := conn.Prepare(context.Background(), "sleeps", "select pg_sleep($1)")
	h.must(err)
	h.goes(func() { _, _ = conn.Exec(context.Background(), "sleeps", 60.0) }) // it is cut
	return conn.PgConn().PID()
}

func (h *endings) locked() uint32 {
	ctx := context.Background()
	_, err := h.blocker.Exec(ctx, "begin; lock table endings in share mode")
	h.must(err)
	h.t.Cleanup(func() {
		if _, err := h.blocker.Exec(ctx, "rollback"); err != nil {
			h.t.Error(err)
		}
	})
	return h.runs("insert into endings values (1)")
}

// raw is a session of a client that says just what it is told to.
func (h *endings) raw(messages ...[]byte) *rawClient {
	h.t.Helper()
	c := h.dialTLS(h.own, nil)
	c.startup("user", "writer", "database", "postgres")
	h.must(c.conn.SetDeadline(time.Now().Add(5 * time.Minute)))
	c.write(slices.Concat(messages...))
	return c
}

// reads takes whatever comes.
func (c *rawClient) reads(h *endings) uint32 {
	h.goes(func() {
		for b := make([]byte, 64<<10); ; {
			if _, err := c.conn.Read(b); err != nil {
				return
			}
		}
	})
	return c.key.PID
}

func (h *endings) copyIn() uint32 {
	c := h.raw(query("copy endings from stdin"))
	for t := byte(0); t != 'G'; {
		var err error
		t, _, err = c.frame()
		h.must(err)
	}
	for range 10 {
		c.write(message('d', strings.Repeat("1\n", 4000)))
	}
	return c.reads(h)
}

func (h *endings) copyOut() uint32 {
	return h.raw(query("copy (" + muchOutput + ") to stdout")).reads(h)
}

func (h *endings) fullWindow() uint32 {
	return h.raw(query(muchOutput)).key.PID
}

// pipeline has statements that run one by one behind the one that is cancelled.
func (h *endings) pipeline() uint32 {
	var messages []byte
	for range 50 {
		messages = slices.Concat(messages, parse("", "select pg_sleep(60)"), bind("", ""), execute("", 0), message('S', ""))
	}
	return h.raw(query(unwatched), messages).reads(h)
}

// stopped is psql, stopped when nothing more can be written to it: that is what the condition waits for.
func (h *endings) stopped() uint32 { return h.stop("copy (" + muchOutput + ") to stdout") }

func (h *endings) stoppedWaiting() uint32 { return h.stop("select pg_sleep(60)") }

// stop stops a psql while a statement runs.
func (h *endings) stop(sql string) uint32 {
	h.t.Helper()
	command := h.psql(context.Background(), h.connection(h.alice), "-c", sql)
	h.must(command.Start())
	h.t.Cleanup(func() {
		_ = command.Process.Kill() // a stopped process can be killed
		_ = command.Wait()
	})
	pid := h.active(sql[:10] + "%")
	h.must(command.Process.Signal(syscall.SIGSTOP))
	h.eventually("psql has stopped", func() bool { return hasStopped(h.house, command) })
	return pid
}

func hasStopped(h *house, command *exec.Cmd) bool {
	h.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", command.Process.Pid))
	h.must(err)
	_, after, _ := strings.Cut(string(status), ") ")
	return strings.HasPrefix(after, "T")
}

// crowded runs a statement and then takes every connection that the target gives to who is no superuser, so that the gateway can't
// log in as the account to end it.
func (h *endings) crowded(sql string) uint32 {
	h.t.Helper()
	pid := h.runs(unwatched, sql)
	var crowd []*pgx.Conn
	for {
		conn, err := h.tryStraight("open")
		if err != nil {
			if code := codeOf(err); code != "53300" {
				h.t.Fatalf("filling the target ended in %v", err)
			}
			break
		}
		crowd = append(crowd, conn)
	}
	h.t.Cleanup(func() {
		for _, conn := range crowd {
			conn.Close(context.Background())
		}
		h.eventually("the crowd is gone", func() bool {
			var n int
			h.must(h.superuser.QueryRow(context.Background(), "select count(*) from pg_stat_activity where usename = 'open'").Scan(&n))
			return n == 0
		})
	})
	return pid
}
