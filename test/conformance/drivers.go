package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The drivers' scenarios run as the ordinary account and use nothing of the database's but what is temporary.

func driverProgram(b *bench, name string) string {
	return filepath.Join(b.out, "staged", "drivers", name)
}

// scenario runs a driver's program and reads its lines.
func scenario(ctx context.Context, b *bench, s *side, env []string, args ...string) ([]result, error) {
	url, closing, err := b.offer(ctx, s)
	if err != nil {
		return nil, err
	}
	out, err := b.do(ctx, s, command{as: s.plain, log: "log", env: append(env, "CONFORMANCE_ACCESS="+url), args: args})
	if err := closing(); err != nil {
		return nil, fmt.Errorf("give the account back its access: %w", err)
	}
	results := readSteps(out)
	if err != nil {
		if len(results) == 0 {
			return nil, err
		}
		// A scenario that dies half-way has steps without a result on this side, which counts; this says why.
		results = append(results, verdict("ran-to-its-end", err))
		return results, nil
	}
	if len(results) == 0 {
		return nil, errors.New("the scenario ended well and reported no step")
	}
	return append(results, verdict("ran-to-its-end", nil)), nil
}

func readSteps(out string) []result {
	var results []result
	for line := range strings.Lines(out) {
		for word, o := range map[string]outcome{"ok ": passed, "not ok ": failed, "skip ": skipped} {
			if rest, found := strings.CutPrefix(line, word); found {
				name, why, _ := strings.Cut(strings.TrimSpace(rest), ": ")
				results = append(results, result{test: name, outcome: o, why: why})
			}
		}
	}
	return results
}

func python(driver string) func(context.Context, *bench, *side) ([]result, error) {
	return func(ctx context.Context, b *bench, s *side) ([]result, error) {
		if err := b.stage("python"); err != nil {
			return nil, err
		}
		// Debian's own interpreter, because the drivers are Debian's packages.
		return scenario(ctx, b, s, []string{"PYTHONDONTWRITEBYTECODE=1"}, "/usr/bin/python3", filepath.Join(driverProgram(b, "python"), driver+"_scenario.py"))
	}
}

// stage copies a driver's files to where the runner can read them.
func (b *bench) stage(driver string) error {
	to := driverProgram(b, driver)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	return os.CopyFS(to, os.DirFS(filepath.Join(b.here, "drivers", driver)))
}

func buildGo(driver string) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		return tool(ctx, b.here, "go", "build", "-o", driverProgram(b, driver), "./drivers/"+driver)
	}
}

func runGo(driver string) func(context.Context, *bench, *side) ([]result, error) {
	return func(ctx context.Context, b *bench, s *side) ([]result, error) {
		return scenario(ctx, b, s, nil, driverProgram(b, driver))
	}
}

func prepareNode(ctx context.Context, b *bench) error {
	if err := b.stage("node"); err != nil {
		return err
	}
	return tool(ctx, driverProgram(b, "node"), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", filepath.Join(b.cache, "npm"))
}

func runNode(ctx context.Context, b *bench, s *side) ([]result, error) {
	return scenario(ctx, b, s, nil, "node", filepath.Join(driverProgram(b, "node"), "scenario.js"))
}

// jars are the driver and a pool, which wants a logger's interface.
const jars = "/usr/share/java/postgresql.jar:/usr/share/java/HikariCP.jar:/usr/share/java/slf4j-api.jar"

func buildJava(ctx context.Context, b *bench) error {
	if err := b.stage("java"); err != nil {
		return err
	}
	return tool(ctx, driverProgram(b, "java"), "javac", "-encoding", "UTF-8", "-cp", jars, "Scenario.java")
}

func runJava(ctx context.Context, b *bench, s *side) ([]result, error) {
	env := []string{"JAVA_TOOL_OPTIONS=-Dfile.encoding=UTF-8"}
	if s.plain["sslkey"] != "" {
		// The driver reads keys as PKCS#12 and not as PEM. The file is as safe as the key beside it.
		bundle := s.plain["sslkey"] + ".p12"
		if err := tool(ctx, b.out, "openssl", "pkcs12", "-export", "-name", "user", "-passout", "pass:conformance",
			"-inkey", s.plain["sslkey"], "-in", s.plain["sslcert"], "-out", bundle); err != nil {
			return nil, fmt.Errorf("make the driver's key file: %w", err)
		}
		if err := b.give(bundle); err != nil {
			return nil, err
		}
		env = append(env, "CONFORMANCE_PKCS12="+bundle)
	}
	return scenario(ctx, b, s, env, "java", "-cp", jars+":"+driverProgram(b, "java"), "Scenario")
}
