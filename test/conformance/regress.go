package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// PostgreSQL's own regression tests: psql runs SQL scripts and what it prints is compared with what it always printed.
// They reach every statement class, type and error of the server, and psql's COPY, \c, \watch, cursors and large objects.

func regressInput(b *bench) string { return filepath.Join(b.out, "staged", "regress") }

// stageRegress copies the tests to where the server's account can read them and builds the module of C functions that
// some of them load into the server.
func stageRegress(ctx context.Context, b *bench) error {
	input := regressInput(b)
	if err := os.CopyFS(input, os.DirFS(filepath.Join(b.source, "src/test/regress"))); err != nil {
		return err
	}
	library := filepath.Join(input, "lib")
	if err := os.Mkdir(library, 0o755); err != nil {
		return err
	}
	if err := tool(ctx, input, "gcc", "-O1", "-fPIC", "-shared", "-I", filepath.Join(b.headers, "usr/include/postgresql", b.major, "server"),
		"-o", filepath.Join(library, "regress.so"), filepath.Join(input, "regress.c")); err != nil {
		return err
	}
	for _, module := range []string{"refint.so", "autoinc.so"} { // the tests look for these beside regress.so
		if err := os.Symlink(filepath.Join(b.libdir, module), filepath.Join(library, module)); err != nil {
			return err
		}
	}
	return nil
}

func runRegress(ctx context.Context, b *bench, s *side) ([]result, error) {
	input := regressInput(b)
	return regress(ctx, b, s, filepath.Join(b.libdir, "pgxs/src/test/regress/pg_regress"), filepath.Join(input, "parallel_schedule"),
		"--inputdir="+input, "--dlpath="+filepath.Join(input, "lib"))
}

func isolationInput(b *bench) string { return filepath.Join(b.out, "staged", "isolation") }

// The isolation tests drive several connections step by step and look from one at what another waits for. That needs the
// server's real process ids in the start-up answer, and notifications and errors to arrive in order.
func stageIsolation(_ context.Context, b *bench) error {
	return os.CopyFS(isolationInput(b), os.DirFS(filepath.Join(b.source, "src/test/isolation")))
}

func runIsolation(ctx context.Context, b *bench, s *side) ([]result, error) {
	input := isolationInput(b)
	driver, schedule := filepath.Join(b.libdir, "pgxs/src/test/isolation/pg_isolation_regress"), filepath.Join(input, "isolation_schedule")
	results, err := regress(ctx, b, s, driver, schedule, "--inputdir="+input)
	// The driver looks every ten milliseconds whether a session waits, and prints what the session has said by then. Where
	// processors are scarce that is too soon now and then, straight as well. So what failed is run again by itself, and the
	// table says so; what is wrong and not late fails again.
	for time := 2; err == nil && time <= 3; time++ {
		for i, r := range results {
			if err != nil || r.outcome == passed {
				continue
			}
			alone := *s
			alone.dir = filepath.Join(s.dir, fmt.Sprintf("%s-%d", r.test, time))
			var again []result
			if again, err = regressTests(ctx, b, &alone, driver, []string{r.test}, "--inputdir="+input, r.test); err == nil {
				results[i] = again[0]
				results[i].times = time
			}
		}
	}
	return results, err
}

// regress runs one of the two drivers over a whole schedule, one test at a time: with more, tests on a small machine fail
// by their timing, straight and through alike.
func regress(ctx context.Context, b *bench, s *side, driver, schedule string, arguments ...string) ([]result, error) {
	scheduled, err := readSchedule(schedule)
	if err != nil {
		return nil, err
	}
	return regressTests(ctx, b, s, driver, scheduled, append(arguments, "--schedule="+schedule)...)
}

// regressTests runs a driver with arguments that say which tests, and gives the result of each of these.
func regressTests(ctx context.Context, b *bench, s *side, driver string, scheduled []string, arguments ...string) ([]result, error) {
	args := append([]string{driver, "--bindir=" + b.bindir, "--outputdir=" + s.dir, "--max-connections=1",
		"--host=" + s.superuser["host"], "--port=" + s.superuser["port"], "--user=" + s.superuser["user"]}, arguments...)
	out, err := b.do(ctx, s, command{as: s.superuser, log: "log", args: args})
	ran := readRegress(out)
	if err != nil && len(ran) == 0 {
		return nil, fmt.Errorf("no test ran: %w", err)
	}
	results := make([]result, 0, len(scheduled))
	for _, test := range scheduled {
		switch status, found := ran[test]; {
		case !found && err == nil:
			return nil, fmt.Errorf("the driver reported success and said nothing of %s", test)
		case !found:
			results = append(results, result{test: test, outcome: failed, why: "did not run to its end: " + err.Error()})
		case strings.HasPrefix(status, "ok"):
			results = append(results, result{test: test, outcome: passed})
		default:
			shown, readErr := os.ReadFile(filepath.Join(s.dir, "results", test+".out"))
			if readErr != nil {
				return nil, readErr
			}
			results = append(results, result{test: test, outcome: failed, why: status + "; see " + filepath.Join(s.dir, "regression.diffs"), shown: string(shown)})
		}
	}
	return results, nil
}

// readSchedule gives the tests of a schedule in order.
func readSchedule(name string) ([]string, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var tests []string
	for line := range strings.Lines(string(content)) {
		if names, found := strings.CutPrefix(strings.TrimSpace(line), "test:"); found {
			tests = append(tests, strings.Fields(names)...)
		}
	}
	if len(tests) == 0 {
		return nil, errors.New("no tests in " + name)
	}
	return tests, nil
}

var (
	regressLine = regexp.MustCompile(`(?m)^(?:test)?\s+(\S+)\s+\.\.\. (ok|FAILED|failed \(ignored\))(.*)$`)
	// From version 16 on the driver speaks TAP.
	regressTAP = regexp.MustCompile(`(?m)^(ok|not ok)\s+\d+\s+[-+] (\S+)(.*)$`)
)

// readRegress gives what the driver said of each test.
func readRegress(out string) map[string]string {
	said := map[string]string{}
	for _, match := range regressLine.FindAllStringSubmatch(out, -1) {
		said[match[1]] = strings.TrimSpace(match[2] + match[3])
	}
	for _, match := range regressTAP.FindAllStringSubmatch(out, -1) {
		said[match[2]] = strings.TrimSpace(match[1] + match[3])
	}
	return said
}
