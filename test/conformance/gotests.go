package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// A Go driver's own tests come in its module: hundreds of cases of what its authors thought of, more than the scenarios
// here have. A test's name is PACKAGE.TEST; subtests count with their test. (lib/pq's tests are not here: they want a server
// that is set up just so, with certificates and accounts of theirs, and wait for minutes where it is not.)

// goModule is a driver whose tests are run: as the superuser, in a database of their own, prepared as its authors say.
type goModule struct {
	path     string
	packages []string
	database string
	setup    string
	takes    []string // variables that take the connection string
	leave    []string // PACKAGE.TEST that are not run; expected.txt has the reasons
}

var pgxModule = goModule{
	path: "github.com/jackc/pgx/v5", packages: []string{".", "pgconn", "pgxpool", "pgtype", "stdlib"}, database: "conformance_pgx",
	setup: "create extension hstore; create extension ltree; create domain uint64 as numeric(20,0)",
	takes: []string{"PGX_TEST_DATABASE", "PGX_TEST_TCP_CONN_STRING"},
}

func (m goModule) staged(b *bench) string { return filepath.Join(b.out, "staged", m.database) }

func (m goModule) program(b *bench, name string) string {
	return filepath.Join(m.staged(b), name, "conformance.test")
}

// build compiles the tests of the version that go.mod names, in a copy, because the module cache cannot be written.
func (m goModule) build(ctx context.Context, b *bench) error {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", m.path)
	list.Dir = b.here
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("find %s: %w", m.path, err)
	}
	if err := os.CopyFS(m.staged(b), os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		return err
	}
	for _, name := range m.packages {
		if err := tool(ctx, filepath.Join(m.staged(b), name), "go", "test", "-c", "-o", m.program(b, name), "."); err != nil {
			return fmt.Errorf("compile the tests of %s: %w", path.Join(m.path, name), err)
		}
	}
	return nil
}

func (m goModule) run(ctx context.Context, b *bench, s *side) ([]result, error) {
	as := s.superuser.with("dbname", m.database)
	if _, err := b.do(ctx, s, command{as: s.superuser, log: "log", args: []string{"createdb", m.database}}); err != nil {
		return nil, err
	}
	if _, err := b.do(ctx, s, command{as: as, log: "log", args: []string{"psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-c", m.setup}}); err != nil {
		return nil, err
	}
	var env []string
	for _, variable := range m.takes {
		env = append(env, variable+"="+as.text())
	}
	var results []result
	for _, name := range m.packages {
		label := path.Base(strings.TrimSuffix(path.Join(m.path, name), "/v5"))
		var skip []string
		for _, left := range m.leave {
			if test, here := strings.CutPrefix(left, label+"."); here {
				skip = append(skip, "^"+test+"$")
				results = append(results, result{test: left, outcome: skipped, why: "left out"})
			}
		}
		// No PG variables: some tests are of how the driver reads them, and set their own.
		out, err := b.do(ctx, s, command{env: env, dir: filepath.Join(m.staged(b), name), log: label + ".log",
			args: []string{m.program(b, name), "-test.v", "-test.run=^Test", "-test.skip=" + strings.Join(skip, "|"), "-test.timeout=10m"}})
		ran := readGoTests(label, out)
		if err != nil && len(ran) == 0 {
			return nil, err
		}
		if len(ran) == 0 {
			return nil, errors.New("the tests of " + label + " ended well and none ran")
		}
		results = append(results, ran...)
	}
	return results, nil
}

var (
	goVerdict = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+) \(`)
	goStart   = regexp.MustCompile(`(?m)^=== RUN   (Test[^/\s]+)$`)
)

// readGoTests reads what a test program prints. A test that began and has no verdict (a panic, a deadline) has failed.
func readGoTests(label, out string) []result {
	said := map[string]outcome{}
	for _, match := range goStart.FindAllStringSubmatch(out, -1) {
		said[match[1]] = failed
	}
	for _, match := range goVerdict.FindAllStringSubmatch(out, -1) {
		said[match[2]] = map[string]outcome{"PASS": passed, "FAIL": failed, "SKIP": skipped}[match[1]]
	}
	results := make([]result, 0, len(said))
	for name, o := range said {
		results = append(results, result{test: label + "." + name, outcome: o, why: "see " + label + ".log"})
	}
	return results
}
