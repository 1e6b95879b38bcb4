// Command recorder measures the session log: how long a command waits for its record, beside a bare loop of write and
// fdatasync and beside a recorder that syncs a file a session; how long a session's opening waits; how small recordings are; how soon any second of a large one
// is shown; how long a search over a million statements takes.
//
// It promises that what it compares was measured in the same run on the same disk: the bare loop runs before and after each
// cell, and the ratios are to the mean of both. On a shared machine absolute numbers say little. `make bench` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type options struct {
	dir    string
	parts  string
	each   time.Duration
	gib    float64
	search int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func measure(ctx context.Context, arguments []string, w io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "measure the disk of this `directory` (default: that of temporary files)")
	flags.StringVar(&o.parts, "parts", "append,open,hot,size,seek,search", "what is measured")
	flags.DurationVar(&o.each, "each", 5*time.Second, "how long each cell of append is measured")
	flags.Float64Var(&o.gib, "gib", 5, "size of the recording that is opened in its middle")
	flags.IntVar(&o.search, "statements", 1_000_000, "how many statements are searched")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "sallyport-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.dir = dir
	fmt.Fprintf(w, "%s, %d processors, %s\n", runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.RFC3339))
	for _, part := range []struct {
		name string
		run  func(context.Context, options, io.Writer) error
	}{{"append", appends}, {"open", opens}, {"hot", hotPath}, {"size", sizes}, {"seek", seeks}, {"search", searches}} {
		if !strings.Contains(","+o.parts+",", ","+part.name+",") {
			continue
		}
		fmt.Fprintln(w)
		if err := part.run(ctx, o, w); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}
