// Package run is how the benches begin and end.
package run

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main runs a bench until it has measured or Ctrl-C or SIGTERM ends it, and ends the process: 1 if it failed. A bench that measures
// itself beside programs of its own starts itself again with one of those names as first argument, and helpers do that instead.
func Main(measure func(ctx context.Context, arguments []string) error, helpers map[string]func(arguments []string) error) {
	if len(os.Args) > 1 {
		if help, known := helpers[os.Args[1]]; known {
			exit(os.Args[1], help(os.Args[2:]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measure(ctx, os.Args[1:])
	stop()
	exit("bench", err)
}

func exit(who string, err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", who, err)
	os.Exit(1)
}
