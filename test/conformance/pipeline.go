package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// libpq_pipeline is PostgreSQL's own test of pipelines: many messages in one write, answers matched one by one, errors in
// the middle. For some of its tests it also compares every message on the wire with a trace.

func pipelineProgram(b *bench) string { return filepath.Join(b.out, "staged", "libpq_pipeline") }

func buildPipeline(ctx context.Context, b *bench) error {
	if err := os.MkdirAll(filepath.Dir(pipelineProgram(b)), 0o755); err != nil {
		return err
	}
	args := []string{"-O1", "-I", filepath.Join(b.headers, "usr/include/postgresql", b.major, "server"), "-o", pipelineProgram(b),
		filepath.Join(b.source, "src/test/modules/libpq_pipeline/libpq_pipeline.c")}
	if b.major == packaged {
		return tool(ctx, b.out, "gcc", append(args, "-I", "/usr/include/postgresql", "-L", filepath.Join(b.headers, b.libdir), "-lpgcommon", "-lpgport", "-lpq")...)
	}
	// The newer libraries want a newer libc than the compiler's. What it lacks is found when the program runs, which is
	// with theirs.
	return tool(ctx, b.out, "gcc", append(args, "-I", filepath.Join(b.source, "src/interfaces/libpq"), "-I", filepath.Join(b.source, "src/include"),
		"-L", b.libdir, "-lpgcommon", "-lpgport", "-L", filepath.Dir(b.loader), "-l:libpq.so.5", "-Wl,--unresolved-symbols=ignore-all")...)
}

// pipelineCommand runs the program.
func pipelineCommand(b *bench, args ...string) []string {
	if b.major == packaged {
		return append([]string{pipelineProgram(b)}, args...)
	}
	return append([]string{b.loader, "--library-path", filepath.Dir(b.loader), pipelineProgram(b)}, args...)
}

func runPipeline(ctx context.Context, b *bench, s *side) ([]result, error) {
	// The traces were made in an empty database: in another, notices come otherwise.
	const database = "conformance_pipeline"
	if _, err := b.do(ctx, s, command{as: s.superuser, log: "log", args: []string{"createdb", database}}); err != nil {
		return nil, err
	}
	as := s.superuser.with("dbname", database)
	list, err := b.do(ctx, s, command{log: "log", args: pipelineCommand(b, "tests")})
	if err != nil {
		return nil, err
	}
	traces := filepath.Join(b.source, "src/test/modules/libpq_pipeline/traces")
	var results []result
	for test := range strings.FieldsSeq(list) {
		trace := filepath.Join(s.dir, test+".trace")
		_, err := b.do(ctx, s, command{as: as, log: test + ".log", args: pipelineCommand(b, "-r", "700", "-t", trace, test)})
		results = append(results, verdict(test, err))
		want, readErr := os.ReadFile(filepath.Join(traces, test+".trace"))
		if os.IsNotExist(readErr) {
			continue // this test ships no trace
		}
		got, gotErr := os.ReadFile(trace)
		switch {
		case readErr != nil:
			return nil, readErr
		case err != nil:
			results = append(results, result{test: test + "-trace", outcome: failed, why: "the test failed"})
		case gotErr != nil:
			results = append(results, verdict(test+"-trace", gotErr))
		case string(got) != string(want):
			results = append(results, result{test: test + "-trace", outcome: failed, why: fmt.Sprintf("%s differs from the one in the source", trace)})
		default:
			results = append(results, result{test: test + "-trace", outcome: passed})
		}
	}
	return results, nil
}
