package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const benchDatabase = "conformance_bench"

// runPgbench runs pgbench in each way it speaks to a server. It is no measurement here: every transaction must be done,
// none failed, and the books must balance afterwards.
func runPgbench(ctx context.Context, b *bench, s *side) ([]result, error) {
	as := s.superuser.with("dbname", benchDatabase)
	if _, err := b.do(ctx, s, command{as: s.superuser, log: "log", args: []string{"createdb", benchDatabase}}); err != nil {
		return []result{verdict("createdb", err)}, nil
	}
	const pipelined = `\set aid random(1, 100000)
\startpipeline
select abalance from pgbench_accounts where aid = :aid;
select count(*) from pgbench_branches;
update pgbench_accounts set abalance = abalance where aid = :aid;
\endpipeline
`
	script := filepath.Join(s.dir, "pipelined.sql")
	if err := os.WriteFile(script, []byte(pipelined), 0o644); err != nil {
		return nil, err
	}
	results := []result{verdict("createdb", nil)}
	for _, mode := range []struct {
		test     string
		args     []string
		want     int // transactions
		balanced bool
	}{
		{test: "initialise", args: []string{"-i", "-s", "1", "-I", "dtGvpf", "-q"}},
		{test: "initialise-by-copy", args: []string{"-i", "-s", "1", "-I", "dtgvpf", "-q"}},
		{test: "simple", args: []string{"-n", "-M", "simple", "-c", "4", "-j", "2", "-t", "250"}, want: 1000, balanced: true},
		{test: "extended", args: []string{"-n", "-M", "extended", "-c", "4", "-j", "2", "-t", "250"}, want: 1000, balanced: true},
		{test: "prepared", args: []string{"-n", "-M", "prepared", "-c", "4", "-j", "2", "-t", "250"}, want: 1000, balanced: true},
		{test: "select-only", args: []string{"-S", "-M", "prepared", "-c", "4", "-j", "2", "-t", "1000"}, want: 4000},
		{test: "many-clients", args: []string{"-S", "-M", "extended", "-c", "32", "-j", "2", "-t", "50"}, want: 1600},
		{test: "connect-each-time", args: []string{"-S", "-C", "-c", "4", "-j", "2", "-t", "25"}, want: 100},
		{test: "pipelined", args: []string{"-n", "-M", "prepared", "-f", script, "-c", "4", "-j", "2", "-t", "250"}, want: 1000},
		{test: "serialisation-retries", args: []string{"-N", "-M", "prepared", "--max-tries=100", "-c", "4", "-j", "2", "-t", "100"}, want: 400},
	} {
		args := append([]string{"pgbench"}, mode.args...)
		if mode.test == "serialisation-retries" {
			as = as.with("options", "-c default_transaction_isolation=serializable")
		}
		out, err := b.do(ctx, s, command{as: as, log: mode.test + ".log", args: args})
		if err == nil && mode.want > 0 {
			err = counted(out, mode.want)
		}
		if err == nil && mode.balanced {
			err = balanced(ctx, b, s, as)
		}
		results = append(results, verdict(mode.test, err))
	}
	return results, nil
}

var (
	processed = regexp.MustCompile(`transactions actually processed: (\d+)/(\d+)`)
	lost      = regexp.MustCompile(`number of failed transactions: (\d+)`)
)

func counted(out string, want int) error {
	done, bad := processed.FindStringSubmatch(out), lost.FindStringSubmatch(out)
	switch {
	case done == nil:
		return fmt.Errorf("pgbench did not say how many transactions it did: %s", tail(out))
	case done[1] != fmt.Sprint(want) || done[2] != done[1]:
		return fmt.Errorf("%s of %d transactions done", done[1], want)
	case bad != nil && bad[1] != "0":
		return fmt.Errorf("%s transactions failed", bad[1])
	}
	return nil
}

// balanced checks pgbench's invariant: each of its four tables tells the same total.
func balanced(ctx context.Context, b *bench, s *side, as conninfo) error {
	out, err := b.do(ctx, s, command{as: as, log: "log", args: []string{"psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-c",
		`select count(*), count(distinct total) from (values
			((select sum(abalance) from pgbench_accounts)), ((select sum(tbalance) from pgbench_tellers)),
			((select sum(bbalance) from pgbench_branches)), ((select coalesce(sum(delta), 0) from pgbench_history))) as books(total)`}})
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out); got != "4|1" {
		return fmt.Errorf("the books do not balance: %s totals, want 4|1", got)
	}
	return nil
}
