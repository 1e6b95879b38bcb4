package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// sample is what one run of one endpoint gave.
type sample struct {
	value float64 // more is better
	units float64 // of work done: transactions, or megabytes
	cpu   float64 // seconds of the process between
}

// kind is one thing to measure at every endpoint.
type kind struct {
	title   string
	unit    string
	perUnit float64 // the work that CPU time is told for
	cpuUnit string
	before  func(context.Context) error
	run     func(context.Context, endpoint) (sample, error)
}

func (b *bench) selects(ctx context.Context) error {
	for _, clients := range b.options.clients {
		for _, mode := range []string{"simple", "prepared"} {
			title := fmt.Sprintf("pgbench -S -M %s, %d clients", mode, clients)
			if err := b.compare(ctx, b.pgbench(title, "-S", "-M", mode, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) rows(ctx context.Context) error {
	script := filepath.Join(b.dir, "rows.sql")
	if err := os.WriteFile(script, []byte("select * from bench_rows;\n"), 0o644); err != nil {
		return err
	}
	return b.compare(ctx, b.pgbench("select of 10,000 rows, 1 client", "-f", script, "-c", "1"))
}

func (b *bench) connects(ctx context.Context) error {
	for _, clients := range []string{"1", "4"} {
		k := b.pgbench("a connection for each select (-C), "+clients+" clients; PgBouncer gives out connections that it has", "-C", "-S", "-c", clients, "-j", "1")
		k.perUnit, k.cpuUnit = 1000, "CPU s / 1k"
		if err := b.compare(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

var (
	tps       = regexp.MustCompile(`tps = ([0-9.]+)`)
	processed = regexp.MustCompile(`actually processed: ([0-9]+)`)
)

func (b *bench) pgbench(title string, arguments ...string) kind {
	return kind{title: title, unit: "tps", perUnit: 100_000, cpuUnit: "CPU s / 100k", run: func(ctx context.Context, e endpoint) (sample, error) {
		cmd := exec.CommandContext(ctx, "pgbench", slices.Concat([]string{"-n", "-T", strconv.Itoa(b.options.seconds)}, arguments, []string{"-d", e.conn})...)
		out, err := cmd.CombinedOutput()
		rate, count := tps.FindSubmatch(out), processed.FindSubmatch(out)
		if err != nil || rate == nil || count == nil {
			return sample{}, fmt.Errorf("pgbench: %w: %s", err, out)
		}
		var s sample
		s.value, err = strconv.ParseFloat(string(rate[1]), 64)
		units, err2 := strconv.ParseFloat(string(count[1]), 64)
		s.units = units
		return s, errors.Join(err, err2)
	}}
}

// copies moves a table out and in. What comes out of the first way is what goes in.
func (b *bench) copies(ctx context.Context) error {
	file := filepath.Join(b.dir, "copy.data")
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	dump := exec.CommandContext(ctx, "psql", "-X", "-q", "-d", b.exports["SALLYPORT_PG_DIRECT"], "-c", "copy bench_out to stdout")
	dump.Stdout = out
	if err := dump.Run(); err != nil {
		return fmt.Errorf("psql: %w", err)
	}
	info, err := out.Stat()
	if err != nil {
		return err
	}
	megabytes := float64(info.Size()) / 1e6
	copying := func(title, sql string, before func(context.Context) error) kind {
		return kind{title: title, unit: "MB/s", perUnit: 1000, cpuUnit: "CPU s / GB", before: before, run: func(ctx context.Context, e endpoint) (sample, error) {
			cmd := exec.CommandContext(ctx, "psql", "-X", "-q", "-d", e.conn, "-c", sql)
			in, err := os.Open(file)
			if err != nil {
				return sample{}, err
			}
			defer in.Close()
			var errs bytes.Buffer
			var got counter
			cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &got, &errs
			began := time.Now()
			if err := cmd.Run(); err != nil {
				return sample{}, fmt.Errorf("psql: %w: %s", err, &errs)
			}
			if strings.Contains(sql, "to stdout") && int64(got) != info.Size() {
				return sample{}, fmt.Errorf("%d bytes came out, not %d", got, info.Size())
			}
			return sample{value: megabytes / time.Since(began).Seconds(), units: megabytes}, nil
		}}
	}
	if err := b.compare(ctx, copying(fmt.Sprintf("COPY out, %.0f MB", megabytes), "copy bench_out to stdout", nil)); err != nil {
		return err
	}
	admin, err := pgx.Connect(ctx, b.exports["SALLYPORT_PG_SUPERUSER_DIRECT"])
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	return b.compare(ctx, copying(fmt.Sprintf("COPY in, %.0f MB", megabytes), "copy bench_in from stdin", func(ctx context.Context) error {
		_, err := admin.Exec(ctx, "truncate bench_in")
		return err
	}))
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// compare measures one kind at every endpoint, in turns, and reports it.
func (b *bench) compare(ctx context.Context, k kind) error {
	samples := make([][]sample, len(b.endpoints))
	for round := range b.options.rounds {
		for i := range b.endpoints {
			if round%2 == 1 {
				i = len(b.endpoints) - 1 - i
			}
			e := b.endpoints[i]
			if k.before != nil {
				if err := k.before(ctx); err != nil {
					return err
				}
			}
			before := cpuOf(e.pid)
			s, err := k.run(ctx, e)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			s.cpu = cpuOf(e.pid) - before
			samples[i] = append(samples[i], s)
		}
	}
	b.tell(k, samples)
	return nil
}

// tell is the table of one kind.
func (b *bench) tell(k kind, samples [][]sample) {
	against := []int{0}
	for i, e := range b.endpoints {
		if i > 0 && (e.name == "PgBouncer" || strings.HasPrefix(e.name, "blind")) {
			against = append(against, i)
		}
	}
	b.say("\n## %s\n\n| | %s |", k.title, k.unit)
	for _, a := range against {
		b.say(" of %s |", b.endpoints[a].name)
	}
	b.say(" %s |\n|---|---|%s---|\n", k.cpuUnit, strings.Repeat("---|", len(against)))
	for i, e := range b.endpoints {
		values := pick(samples[i], func(s sample) float64 { return s.value })
		b.say("| %s | %s |", e.name, spread(values, "%.0f"))
		for _, a := range against {
			ratios := make([]float64, len(values))
			for r := range values {
				ratios[r] = values[r] / samples[a][r].value
			}
			b.say(" **%.2f** (%.2f-%.2f) |", median(ratios), slices.Min(ratios), slices.Max(ratios))
		}
		if e.pid == 0 {
			b.say(" |\n")
			continue
		}
		b.say(" %.2f |\n", median(pick(samples[i], func(s sample) float64 { return s.cpu / s.units * k.perUnit })))
	}
}

func pick(samples []sample, what func(sample) float64) []float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = what(s)
	}
	return values
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

func spread(values []float64, format string) string {
	return fmt.Sprintf(format+" ("+format+"-"+format+")", median(values), slices.Min(values), slices.Max(values))
}

// cpuOf is the CPU time of a process so far, in seconds; 0 if there is none.
func cpuOf(pid int) float64 {
	if pid == 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64) // numbers, says proc(5)
	system, _ := strconv.ParseFloat(fields[12], 64)
	const ticks = 100 // a second, on every Linux that Go runs on
	return (user + system) / ticks
}
