// Command ssh runs stock SSH clients and what is built on them, straight at a server and through the gateway, and
// compares what each saw. It promises: a scenario that shows one thing straight shows the same through, or the run fails
// and names it; a scenario that was not run, on any side, stands in expected.txt with a reason, or the run fails too.
//
// It wants the rig's variables in its environment (docs/rig.md):
//
//	test/tools/with-rig -- go run -C test/conformance ./ssh
//
// The gateway is reached in two ways: as the jump host of the ssh_config that `sallyport login` writes, and by the address
// ACCOUNT@TARGET@GATEWAY.
package main

import (
	"bufio"
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

// scenario is something that a client does, and what was seen of it as text. The texts of all sides must be the same.
type scenario struct {
	name    string
	timeout time.Duration // default: 2 minutes
	run     func(context.Context, *side) (string, error)
}

// errSkipped is a scenario that can't be run here.
type errSkipped struct{ why string }

func (e errSkipped) Error() string { return e.why }

func main() {
	if filepath.Base(os.Args[0]) == "sshd" {
		os.Exit(shim(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := conformance(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ssh conformance:", err)
		stop()
		os.Exit(1)
	}
}

func conformance(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("ssh", flag.ContinueOnError)
	only := flags.String("only", "", "run the scenarios whose name has one of these words in it, comma-separated")
	size := flags.Int64("size", 1<<30, "`bytes` of the large transfers")
	install := flags.Bool("install", true, "install the clients that are missing (Debian, as root)")
	expectedFile := flags.String("expected", "ssh/expected.txt", "`file` of scenarios that may be skipped, with reasons")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	expected, err := readExpected(*expectedFile)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sallyport-ssh-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *install {
		if err := installClients(ctx); err != nil {
			return err
		}
	}
	b, err := newBench(dir, *size)
	if err != nil {
		return err
	}
	if err := allowEverything(ctx); err != nil {
		return err
	}
	var rows []row
	for _, s := range slices.Concat(openssh, terminals, copying, programs, libraries, forwards, suite) {
		if !chosen(s.name, *only) {
			continue
		}
		r := row{scenario: s.name}
		for _, side := range b.sides {
			o := run(ctx, s, side)
			o.side = side.name
			r.outcomes = append(r.outcomes, o)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rows = append(rows, r)
		fmt.Fprintf(os.Stderr, "%-34s %s\n", s.name, r.verdict(expected))
	}
	text, err := judge(b.sides, rows, expected)
	fmt.Print(text)
	return err
}

func chosen(name, only string) bool {
	if only == "" {
		return true
	}
	for word := range strings.SplitSeq(only, ",") {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// outcome is what became of a scenario on one side.
type outcome struct {
	side    string
	seen    string
	err     error
	skipped bool
	took    time.Duration
}

// run runs one scenario on one side, in a directory of its own whose name is not in what was seen.
func run(ctx context.Context, s scenario, on *side) outcome {
	timeout := s.timeout
	if timeout == 0 {
		timeout = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dir, err := os.MkdirTemp(on.dir, "run-*")
	if err != nil {
		return outcome{err: err}
	}
	defer os.RemoveAll(dir)
	here := *on
	here.work = dir
	start := time.Now()
	seen, err := s.run(ctx, &here)
	if ctx.Err() != nil {
		err = fmt.Errorf("not over after %s: %w", timeout, errors.Join(err, ctx.Err()))
	}
	return outcome{
		seen: strings.ReplaceAll(seen, dir, "DIR"), err: err, skipped: errors.As(err, new(errSkipped)), took: time.Since(start),
	}
}

// row is one scenario on all sides; the first is straight.
type row struct {
	scenario string
	outcomes []outcome
}

// verdict is "same", or how the sides differ.
func (r row) verdict(expected map[string]string) string {
	straight := r.outcomes[0]
	skipped := 0
	for _, o := range r.outcomes {
		if !o.skipped {
			continue
		}
		if skipped++; !expects(expected, r.scenario, o.side) {
			return "SKIPPED " + o.side + ", and not expected to be: " + o.err.Error()
		}
	}
	if skipped > 0 && (straight.skipped || skipped == len(r.outcomes)-1) {
		return "skipped"
	}
	if straight.err != nil {
		return "FAILS straight: " + straight.err.Error() + "\n" + straight.seen
	}
	var differences []string
	for _, o := range r.outcomes[1:] {
		switch {
		case o.skipped:
		case o.err != nil:
			differences = append(differences, "DIFFERENT: "+o.err.Error()+"\n"+o.seen)
		case o.seen != straight.seen:
			differences = append(differences, "DIFFERENT: "+firstDifference(straight.seen, o.seen))
		}
	}
	if len(differences) > 0 {
		return strings.Join(differences, "; ")
	}
	return "same"
}

// expects reports whether a run may be left out. A scenario of expected.txt may end in /* for all that begin like it.
func expects(expected map[string]string, scenario, side string) bool {
	group, _, _ := strings.Cut(scenario, "/")
	return expected[scenario+"@"+side] != "" || expected[group+"/*@"+side] != ""
}

// firstDifference shows the first lines that differ.
func firstDifference(a, b string) string {
	left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range max(len(left), len(right)) {
		var l, r string
		if i < len(left) {
			l = left[i]
		}
		if i < len(right) {
			r = right[i]
		}
		if l != r {
			return fmt.Sprintf("line %d: straight %.300q, through %.300q", i+1, l, r)
		}
	}
	return "none"
}

// judge makes the table and the verdict.
func judge(sides []*side, rows []row, expected map[string]string) (string, error) {
	var table, notes strings.Builder
	table.WriteString("\n| scenario |")
	for _, s := range sides {
		table.WriteString(" " + s.name + " |")
	}
	table.WriteString(" difference |\n|---|" + strings.Repeat("---|", len(sides)+1) + "\n")
	bad, skipped := 0, 0
	for _, r := range rows {
		verdict := r.verdict(expected)
		fmt.Fprintf(&table, "| %s |", r.scenario)
		for _, o := range r.outcomes {
			word := "ok"
			if o.skipped {
				skipped++
			}
			switch {
			case o.skipped:
				word = "skipped"
			case o.err != nil:
				word = "failed"
			}
			fmt.Fprintf(&table, " %s %.1fs |", word, o.took.Seconds())
		}
		switch verdict {
		case "same":
			table.WriteString(" none |\n")
		case "skipped":
			table.WriteString(" skipped |\n")
		default:
			bad++
			table.WriteString(" YES |\n")
			fmt.Fprintf(&notes, "%s: %s\n", r.scenario, verdict)
		}
	}
	fmt.Fprintf(&table, "\n%d scenarios, %d differences, %d runs skipped as expected (expected.txt has the reasons)\n", len(rows), bad, skipped)
	if bad > 0 {
		return table.String() + "\n" + notes.String(), fmt.Errorf("%d scenarios differ, fail or were skipped", bad)
	}
	return table.String(), nil
}

// readExpected reads lines of the form "SCENARIO@SIDE reason in words"; empty lines and lines that begin with # are nothing.
func readExpected(name string) (map[string]string, error) {
	file, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	expected := map[string]string{}
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		scenario, reason, _ := strings.Cut(line, " ")
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s:%d: expected SCENARIO@SIDE and a reason, found %q", name, number, line)
		}
		expected[scenario] = strings.TrimSpace(reason)
	}
	return expected, lines.Err()
}
