// Command conformance runs other people's PostgreSQL tests twice, straight at a server and through the gateway, and
// compares. It promises: whatever passes direct must pass through the gateway, or the run fails and names it; a test
// that did not run, on either side, must stand in expected.txt with a reason, or the run fails too.
//
// It installs what it needs (Debian, as root), keeps downloads in a cache directory, starts the rig of
// `sallyport demo --env` unless told to use a running one, and ends what it started. docs/conformance.md says what
// each suite is for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suite is one body of tests. run gives one result a test it knows of, in any order; an error means that the suite could
// not be run at all, which is a failure of the run and never a skip.
type suite struct {
	name    string
	timeout time.Duration // for one side
	prepare func(context.Context, *bench) error
	run     func(context.Context, *bench, *side) ([]result, error)
	newer   bool // run with a newer PostgreSQL too
}

// The order is from quick to slow, so that a broken gateway is seen early.
var suites = []suite{
	{name: "libpq_pipeline", timeout: 5 * time.Minute, prepare: buildPipeline, run: runPipeline, newer: true},
	{name: "psycopg2", timeout: 3 * time.Minute, run: python("psycopg2")},
	{name: "psycopg3", timeout: 3 * time.Minute, run: python("psycopg3")},
	{name: "asyncpg", timeout: 3 * time.Minute, run: python("asyncpg")},
	{name: "pgx", timeout: 3 * time.Minute, prepare: buildGo("pgx"), run: runGo("pgx")},
	{name: "lib-pq", timeout: 3 * time.Minute, prepare: buildGo("libpq"), run: runGo("libpq")},
	{name: "node-postgres", timeout: 3 * time.Minute, prepare: prepareNode, run: runNode},
	{name: "pgjdbc", timeout: 3 * time.Minute, prepare: buildJava, run: runJava},
	{name: "pgx-tests", timeout: 10 * time.Minute, prepare: pgxModule.build, run: pgxModule.run},
	{name: "pgbench", timeout: 10 * time.Minute, run: runPgbench, newer: true},
	{name: "dump-restore", timeout: 10 * time.Minute, run: runDump, newer: true},
	{name: "isolation", timeout: 30 * time.Minute, prepare: stageIsolation, run: runIsolation, newer: true},
	{name: "pg_regress", timeout: 30 * time.Minute, prepare: stageRegress, run: runRegress, newer: true},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := conformance(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		stop()
		os.Exit(1)
	}
}

func conformance(ctx context.Context, arguments []string) (err error) {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	env := flags.String("env", "", "use the running rig that wrote this `file` (sallyport demo --env FILE) instead of starting one")
	binary := flags.String("sallyport", "../../bin/sallyport", "the `binary` whose rig is started")
	only := flags.String("only", "", "run these suites only, comma-separated; a suite's tests are run whole")
	major := flags.String("postgres", packaged, "the server's `major` version; with another than Debian 12's, server, psql and suites of a newer Debian are run: the suites that are the server's own")
	cache := flags.String("cache", "", "keep downloads in this `directory` (default: sallyport-conformance in the user's cache, or $SALLYPORT_CONFORMANCE_CACHE)")
	keep := flags.String("out", "", "write logs and the table into this new `directory` (default: a temporary one, kept)")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	chosen, err := choose(*only, *major)
	if err != nil {
		return err
	}
	expected, err := readExpected("expected.txt")
	if err != nil {
		return err
	}
	b, err := newBench(*major, *cache, *keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := install(ctx, b); err != nil {
		return err
	}
	if *env == "" {
		rig, err := startRig(ctx, *binary, b)
		if err != nil {
			return err
		}
		defer func() {
			if err = errors.Join(err, rig.stop()); err == nil {
				err = b.forget()
			}
		}()
		*env = rig.env
	}
	if err := b.connect(ctx, *env); err != nil {
		return err
	}

	var report report
	for _, s := range chosen {
		c := compare(ctx, b, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report = append(report, c)
	}
	text, verdict := report.judge(expected)
	fmt.Print(text)
	if err := os.WriteFile(filepath.Join(b.out, "table.md"), []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nLogs of every suite: %s\n", b.out)
	return errors.Join(verdict, b.verify(ctx))
}

// compare runs one suite on both sides. A suite that breaks is in the report as broken and does not keep the others from
// running.
func compare(ctx context.Context, b *bench, s suite) comparison {
	c := comparison{suite: s.name}
	if b.major != packaged {
		c.suite += "-" + b.major // expected.txt tells them apart
	}
	if s.prepare != nil {
		if err := s.prepare(ctx, b); err != nil {
			c.broken = fmt.Errorf("prepare: %w", err)
			return c
		}
	}
	for _, on := range []*side{b.direct, b.gateway} {
		b.say("%s, %s", s.name, on.name)
		if err := b.clean(ctx); err != nil {
			c.broken = fmt.Errorf("clean the cluster before the %s run: %w", on.name, err)
			return c
		}
		bounded, cancel := context.WithTimeout(ctx, s.timeout)
		results, err := s.run(bounded, b, on.in(s.name))
		cancel()
		if err != nil {
			c.broken = errors.Join(c.broken, fmt.Errorf("%s: %w", on.name, err))
		}
		c.add(on.name, results)
	}
	return c
}

func choose(only, major string) ([]suite, error) {
	suites := suites
	if major != packaged {
		suites = slices.DeleteFunc(slices.Clone(suites), func(s suite) bool { return !s.newer })
	}
	if only == "" {
		return suites, nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			names := make([]string, 0, len(suites))
			for _, s := range suites {
				names = append(names, s.name)
			}
			return nil, fmt.Errorf("no suite %q; there are %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, suites[i])
	}
	return chosen, nil
}
