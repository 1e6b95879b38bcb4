//go:build unix

// Package faults produces failures: it kills the gateway at random instants and at named places of the write path, and
// compares what the target says it got with what the recordings say was sent.
package faults

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// statements is how many numbered statements a round sends at least.
const statements = 200

// numbered is the number of a statement: storm, round, way of sending, worker, count. Each is sent once at most.
var numbered = regexp.MustCompile(`storm-\d+-[a-z]+-\d+-\d+`)

// places are the named points of the write path at which the gateway kills itself; "" is a kill from outside at a random
// instant.
var places = []string{"", "record-before-write", "", "record-half-written", "", "record-after-write", "", "record-after-sync", "", "wal-before-write", "wal-half-written", "wal-after-write", "wal-after-sync", ""}

// TestKillStorm is property P1: received ⊆ recorded. Whatever statement the target's own log has, a recording has too,
// also after the gateway was killed at any instant.
func TestKillStorm(t *testing.T) {
	for _, level := range []string{"written", "synced"} {
		t.Run(level, func(t *testing.T) {
			s := newStorm(t, rig.Binary(t, ""), "--durability", level)
			for round, place := range places {
				if level == "written" && strings.HasPrefix(place, "wal-") {
					continue // no session uses the shared log at this level
				}
				if level == "written" && place == "record-after-sync" {
					place = "" // nothing is synced at this level
				}
				s.round(round, place)
				if lost := s.lost(); len(lost) > 0 {
					t.Fatalf("round %d (%s): the target got statements that no recording has: %v", round, describe(place), lost)
				}
			}
			if out := s.rig.As("carol", "verify"); out.Code != 0 {
				t.Errorf("after %d crashes the log is not whole: exit %d\n%s", s.crashes, out.Code, out.Text())
			}
			for name := range ways {
				if !slices.ContainsFunc(slices.Collect(maps.Keys(s.answered)), func(number string) bool { return strings.Contains(number, "-"+name+"-") }) {
					t.Errorf("no %s statement was ever answered", name)
				}
			}
			t.Logf("%d statements sent, %d answered, %d received by the target, %d crashes", s.sent.Load(), len(s.answered), s.received, s.crashes)
		})
	}
}

// TestKillStormFindsForwarding runs the storm on a build that makes the mistake: it forwards before it records. A storm
// that does not find it is worth nothing.
func TestKillStormFindsForwarding(t *testing.T) {
	s := newStorm(t, rig.Binary(t, "forwardfirst"))
	for round := range 10 {
		s.round(round, "")
		if lost := s.lost(); len(lost) > 0 {
			t.Logf("found in round %d: the target got %d statements that no recording has", round, len(lost))
			return
		}
	}
	t.Error("ten rounds found nothing wrong with a gateway that forwards before it records")
}

func describe(place string) string {
	if place == "" {
		return "kill -9"
	}
	return place
}

type storm struct {
	t       *testing.T
	rig     *rig.Rig
	sent    atomic.Int64
	crashes int

	mu       sync.Mutex
	answered map[string]bool // numbers whose result came back
	received int             // numbered statements in the target's log, of the last comparison
}

func newStorm(t *testing.T, binary string, flags ...string) *storm {
	return &storm{t: t, rig: rig.Start(t, binary, flags...), answered: map[string]bool{}}
}

// round sends numbered statements in every way while the gateway is killed under them.
func (s *storm) round(round int, place string) {
	s.t.Helper()
	s.under(place, statements, func(ctx context.Context, over *atomic.Bool) (senders []func()) {
		for worker := range 2 {
			for name, send := range ways {
				mode := pgx.QueryExecModeCacheStatement
				if name == "pipelined" {
					mode = pgx.QueryExecModeExec
				}
				count := 0 // statements are numbered across reconnects
				senders = append(senders, func() {
					s.connection(ctx, mode, send, over, func() string {
						count++
						return fmt.Sprintf("storm-%d-%s-%d-%d", round, name, worker, count)
					})
				})
			}
		}
		return senders
	})
}

// under runs senders, each again and again, until at least so many things were sent and the gateway was killed under them: at a place of
// its write path, or from outside at a random instant. Then it leaves a gateway without faults that is ready.
func (s *storm) under(place string, least int64, prepare func(ctx context.Context, over *atomic.Bool) (senders []func())) {
	s.t.Helper()
	if place != "" {
		// A gateway that is started now kills itself when it comes to the place for the Nth time, and so does the next.
		s.write("gateway.env", fmt.Sprintf("SALLYPORT_FAULTS=1\nSALLYPORT_CRASH_AT=%s:%d\n", place, 20+rand.IntN(60)))
		s.rig.KillGateway()
	}
	s.rig.Ready()
	before := s.pid()

	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	start := s.sent.Load()
	var over atomic.Bool
	var workers sync.WaitGroup
	defer func() { // also where the round fails
		over.Store(true)
		cancel()
		workers.Wait()
	}()
	for _, send := range prepare(ctx, &over) {
		workers.Go(func() {
			for !over.Load() && ctx.Err() == nil {
				send()
			}
		})
	}
	if place == "" {
		threshold := start + rand.Int64N(least)
		s.rig.Until(time.Minute, "something is sent", func() error {
			if s.sent.Load() <= threshold {
				return errors.New("too little so far")
			}
			return nil
		})
		time.Sleep(rand.N(20 * time.Millisecond)) // a random instant
		s.rig.KillGateway()
	}
	s.rig.Until(2*time.Minute, "enough was sent and the gateway was killed", func() error {
		switch sent := s.sent.Load() - start; {
		case s.pid() == before:
			return errors.New("the gateway still runs")
		case sent < least:
			return fmt.Errorf("%d of %d sent", sent, least)
		}
		return nil
	})
	over.Store(true)
	workers.Wait()
	s.crashes++
	if place != "" {
		if err := os.Remove(s.rig.Path("gateway.env")); err != nil {
			s.t.Fatal(err)
		}
		s.rig.KillGateway() // the next one is without faults
	}
	s.rig.Ready()
}

func (s *storm) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.rig.Path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *storm) pid() int {
	s.t.Helper()
	pid, err := s.rig.GatewayPID()
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// way of sending statements: sends a few under fresh numbers and reports those that were answered.
type way func(ctx context.Context, conn *pgx.Conn, next func() string, answered func(string)) error

var ways = map[string]way{
	// The simple protocol, several statements in one message every now and then.
	"plain": func(ctx context.Context, conn *pgx.Conn, next func() string, answered func(string)) error {
		a, b := next(), next()
		if _, err := conn.PgConn().Exec(ctx, "SELECT '"+a+"'").ReadAll(); err != nil {
			return err
		}
		answered(a)
		if _, err := conn.PgConn().Exec(ctx, "SELECT '"+b+"'; SELECT 1").ReadAll(); err != nil {
			return err
		}
		answered(b)
		return nil
	},
	// A prepared statement, the number in a parameter.
	"prepared": func(ctx context.Context, conn *pgx.Conn, next func() string, answered func(string)) error {
		number := next()
		var echo string
		if err := conn.QueryRow(ctx, "SELECT $1::text", number).Scan(&echo); err != nil {
			return err
		}
		answered(number)
		return nil
	},
	// Twenty statements before the first answer is read.
	// Parameters without a name or a description first, so that nothing waits for an answer.
	"pipelined": func(ctx context.Context, conn *pgx.Conn, next func() string, answered func(string)) error {
		batch := &pgx.Batch{}
		var numbers []string
		for range 20 {
			number := next()
			numbers = append(numbers, number)
			batch.Queue("SELECT '"+number+"', $1::int", 1)
		}
		results := conn.SendBatch(ctx, batch)
		defer results.Close()
		for _, number := range numbers {
			if _, err := results.Exec(); err != nil {
				return err
			}
			answered(number)
		}
		return results.Close()
	},
	// COPY both ways, with rows on their way when the gateway dies.
	"copied": func(ctx context.Context, conn *pgx.Conn, next func() string, answered func(string)) error {
		in, out := next(), next()
		if _, err := conn.PgConn().Exec(ctx, "CREATE TEMP TABLE IF NOT EXISTS copied (line text)").ReadAll(); err != nil {
			return err
		}
		rows := strings.NewReader(strings.Repeat("one line of many\n", 2000))
		if _, err := conn.PgConn().CopyFrom(ctx, rows, "COPY copied FROM STDIN /* '"+in+"' */"); err != nil {
			return err
		}
		answered(in)
		if _, err := conn.PgConn().CopyTo(ctx, io.Discard, "COPY (SELECT '"+out+"', * FROM generate_series(1, 2000)) TO STDOUT"); err != nil {
			return err
		}
		answered(out)
		return nil
	},
}

// connection sends statements in one way until the connection breaks or the round is over.
func (s *storm) connection(ctx context.Context, mode pgx.QueryExecMode, send way, over *atomic.Bool, next func() string) {
	config, err := pgx.ParseConfig(s.rig.Env["SALLYPORT_PG"])
	if err != nil {
		s.t.Error(err)
		over.Store(true)
		return
	}
	config.ConnectTimeout = 10 * time.Second
	config.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return // the gateway is being started again
	}
	defer conn.Close(context.WithoutCancel(ctx))
	numbers := func() string {
		s.sent.Add(1)
		return next()
	}
	answered := func(number string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answered[number] = true
	}
	for !over.Load() {
		if err := send(ctx, conn, numbers, answered); err != nil {
			return
		}
	}
}

// lost are the numbers that the target's log has more often than all recordings together.
func (s *storm) lost() []string {
	s.t.Helper()
	received, recorded := s.targetLog(), s.recordings()
	s.received = 0
	var lost []string
	for number, n := range received {
		s.received += n
		if recorded[number] < n {
			lost = append(lost, fmt.Sprintf("%s: received %d times, recorded %d times", number, n, recorded[number]))
		}
	}
	// What keeps this test honest: an answered statement was received, so it must stand in the log that is compared.
	s.mu.Lock()
	defer s.mu.Unlock()
	for number := range s.answered {
		if received[number] == 0 {
			s.t.Fatalf("%s was answered but is not in the target's log: the log is not read right", number)
		}
	}
	slices.Sort(lost)
	return lost
}

// targetLog counts the numbered statements in the target's own log, once nothing runs on it any more.
func (s *storm) targetLog() map[string]int {
	s.t.Helper()
	ctx := s.t.Context()
	direct, err := s.rig.Connect(ctx, "SALLYPORT_PG_SUPERUSER_DIRECT")
	if err != nil {
		s.t.Fatal(err)
	}
	defer direct.Close(ctx)
	s.rig.Until(time.Minute, "the account's backends on the target have ended", func() error {
		var n int
		err := direct.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").Scan(&n)
		if err == nil && n > 0 {
			err = fmt.Errorf("there are %d", n)
		}
		return err
	})
	// The log is written by a process of its own, in order: once it has this, it has all that came before.
	marker := fmt.Sprintf("marker %d", rand.Uint64())
	if _, err := direct.Exec(ctx, "SELECT '"+marker+"'"); err != nil {
		s.t.Fatal(err)
	}
	var log []byte
	s.rig.Until(time.Minute, "the target's log is written", func() error {
		log, err = os.ReadFile(s.rig.Env["SALLYPORT_TARGET_LOG"])
		if err == nil && !strings.Contains(string(log), marker) {
			err = errors.New("the marker is not in it")
		}
		return err
	})
	return countReceived(s.t, log)
}

// The columns of PostgreSQL's csvlog that are read (its documentation, section 20.8.4).
const (
	columnMessage = 13
	columnDetail  = 14
)

// countReceived counts numbered statements that the server began to run: "statement: …" for the simple protocol and
// "execute NAME: …" for the extended one, whose parameters stand in the detail.
func countReceived(t testing.TB, log []byte) map[string]int {
	t.Helper()
	reader := csv.NewReader(strings.NewReader(string(log)))
	reader.FieldsPerRecord = -1
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatalf("read the target's log: %v", err)
	}
	counts := map[string]int{}
	for _, row := range rows {
		if len(row) <= columnDetail {
			t.Fatalf("the target's log has a row of %d columns: %v", len(row), row)
		}
		message := row[columnMessage]
		if strings.HasPrefix(message, "statement: ") || strings.HasPrefix(message, "execute ") {
			for _, number := range numbered.FindAllString(message+" "+row[columnDetail], -1) {
				counts[number]++
			}
		}
	}
	return counts
}

// recordings counts the numbered statements in all recordings, as the export tells them.
func (s *storm) recordings() map[string]int {
	s.t.Helper()
	out := s.rig.As("carol", "export", "--all", "--format", "jsonl")
	if out.Code != 0 {
		s.t.Fatalf("export: exit %d\n%s", out.Code, out.Stderr)
	}
	counts := map[string]int{}
	for line := range strings.Lines(out.Stdout) {
		var item struct {
			Kind   string
			SQL    string
			Params []struct{ Text string }
		}
		if err := json.Unmarshal([]byte(line), &item); err != nil {
			s.t.Fatalf("export: %v: %s", err, line)
		}
		if item.Kind != "statement" {
			continue
		}
		text := item.SQL
		for _, p := range item.Params {
			text += " " + p.Text
		}
		for _, number := range numbered.FindAllString(text, -1) {
			counts[number]++
		}
	}
	return counts
}
