// Command postgres measures PostgreSQL through the gateway side by side with what people would otherwise put there: nothing
// (straight over TLS), PgBouncer, HAProxy, and a Go proxy that only ends TLS.
//
// It promises that what it compares was measured in the same run, in turns, on the same server: each round visits every
// endpoint once, the order is reversed in every other round, and a cell is the median of its rounds. On a shared machine
// absolute numbers say little; the ratios are the result. It starts all that it needs and ends it. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/test/bench/run"
)

// options are the flags.
type options struct {
	binary    string
	rounds    int
	seconds   int
	clients   []int
	copyMB    int
	idle      int
	parts     []string
	endpoints []string
	out       string
	keep      bool
	// everything adds ways through the gateway with all that an auditor may ask for.
	everything bool
}

// The parts of a run, in their order.
var parts = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"select", (*bench).selects},
	{"rows", (*bench).rows},
	{"copy", (*bench).copies},
	{"connect", (*bench).connects},
	{"calls", (*bench).calls},
	{"idle", (*bench).idle},
}

func main() { run.Main(measure, map[string]func([]string) error{"blind": blind}) }

func measure(ctx context.Context, arguments []string) (err error) {
	o, err := readOptions(arguments)
	if err != nil {
		return err
	}
	b, err := start(ctx, o)
	if b != nil {
		defer func() { err = errors.Join(err, b.close()) }()
	}
	if err != nil {
		return err
	}
	b.head()
	for _, part := range parts {
		if !slices.Contains(o.parts, part.name) {
			continue
		}
		if err := part.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if o.out != "" {
		return os.WriteFile(o.out, []byte(b.report.String()), 0o644)
	}
	return nil
}

func readOptions(arguments []string) (options, error) {
	var o options
	var clients, chosen, endpoints string
	all := make([]string, len(parts))
	for i, part := range parts {
		all[i] = part.name
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.binary, "sallyport", "bin/sallyport", "the `binary` that is measured")
	flags.IntVar(&o.rounds, "rounds", 5, "how often each cell is measured")
	flags.IntVar(&o.seconds, "seconds", 3, "how long each pgbench run lasts")
	flags.StringVar(&clients, "clients", "1,8,32", "numbers of `clients`")
	flags.IntVar(&o.copyMB, "copy", 500, "`megabytes` that COPY moves each way")
	flags.IntVar(&o.idle, "idle", 1000, "idle `connections` of which memory is measured")
	flags.StringVar(&chosen, "parts", strings.Join(all, ","), "what is measured")
	flags.StringVar(&endpoints, "endpoints", "", "only these, comma-separated by the beginnings of their `names` (default: all); the first is what others are compared with")
	flags.StringVar(&o.out, "out", "", "write the report to this `file` too")
	flags.BoolVar(&o.everything, "everything", false, "also through targets whose recordings are locked to a recipient, and to a stricter one for parameters, with card numbers masked")
	flags.BoolVar(&o.keep, "keep", false, "keep the directory with the logs of all that ran")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	for c := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 {
			return o, fmt.Errorf("-clients: %q is not a number of clients", c)
		}
		o.clients = append(o.clients, n)
	}
	for p := range strings.SplitSeq(chosen, ",") {
		if !slices.Contains(all, p) {
			return o, fmt.Errorf("-parts: there is no %q; there are %s", p, strings.Join(all, ", "))
		}
		o.parts = append(o.parts, p)
	}
	if endpoints != "" {
		o.endpoints = strings.Split(endpoints, ",")
	}
	return o, nil
}

// head begins the report.
func (b *bench) head() {
	b.say("# PostgreSQL through the gateway, side by side\n\n")
	b.say("%s, %s; %d rounds, %d s each, order reversed every other round; median (min-max); ratios are of the same round, medians of them.\n",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), b.machine(), b.options.rounds, b.options.seconds)
	b.say("The gateway has TLS on the client's side and records. Nobody has TLS on the server's side but \"direct TLS\" and HAProxy, which passes TLS through.\n")
}

// say prints a piece of the report and keeps it.
func (b *bench) say(format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	fmt.Print(text)
	b.report.WriteString(text)
}
