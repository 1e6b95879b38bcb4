package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/internal/refusal"
)

// The exit codes; docs/cli.md promises them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitNotSignedIn = 4
	exitInterrupted = 130 // as a shell reports Ctrl-C
)

// usageError is a command line that makes no sense.
type usageError struct {
	message string
	command string
}

func (e *usageError) Error() string { return e.message }

// usage makes a usageError about a command.
func usage(command *cobra.Command, format string, args ...any) error {
	return &usageError{message: fmt.Sprintf(format, args...), command: command.CommandPath()}
}

// quiet is an error whose message has been printed as the command's result.
type quiet struct{ error }

// report prints what went wrong, why, and what to do next, and returns the exit code.
func report(w io.Writer, err error) int {
	if own, ok := errors.AsType[*exitStatus](err); ok {
		if code := report(w, own.err); code != exitInterrupted {
			return own.code
		}
		return exitInterrupted
	}
	var wrong *usageError
	var said quiet
	switch r := refusal.Of(err); {
	case err == nil:
		return exitDone
	case errors.As(err, &said):
		return exitFailed
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "sallyport: interrupted")
		return exitInterrupted
	case errors.As(err, &wrong):
		fmt.Fprintf(w, "sallyport: %s\n  See %s --help.\n", visible(wrong.message), wrong.command)
		return exitUsage
	case r != nil:
		fmt.Fprintf(w, "sallyport: %s\n", visible(r.Message))
		if r.Detail != "" {
			fmt.Fprintf(w, "  Why:  %s\n", visible(r.Detail))
		}
		if r.Hint != "" {
			fmt.Fprintf(w, "  Next: %s\n", visible(r.Hint))
		}
		return exitOf(r.Code)
	default:
		// An error of several, one a line.
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(w, "sallyport: %s\n", visible(line))
		}
		return exitFailed
	}
}

// exitOf is the exit code of a refusal.
func exitOf(code refusal.Code) int {
	switch code {
	case refusal.NotAuthenticated, refusal.CredentialExpired:
		return exitNotSignedIn
	case refusal.NotPermitted, refusal.NoGrant, refusal.IdentityDisabled, refusal.UnknownTarget, refusal.UnknownAccount:
		return exitRefused
	case refusal.Invalid:
		return exitUsage
	}
	return exitFailed
}

// noArguments and exactly are cobra's checks as usage errors.
func noArguments(command *cobra.Command, args []string) error {
	if len(args) > 0 {
		if command.HasSubCommands() {
			no := fmt.Sprintf("there is no command %q", args[0])
			if command.SuggestionsMinimumDistance <= 0 {
				command.SuggestionsMinimumDistance = 2 // letters that are other
			}
			if like := command.SuggestionsFor(args[0]); len(like) > 0 {
				no += "; did you mean " + strings.Join(like, " or ") + "?"
			}
			return usage(command, "%s", no)
		}
		return usage(command, "%q is one argument too many", args[0])
	}
	return nil
}

func exactly(what ...string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		switch {
		case len(args) < len(what):
			return usage(command, "%s is missing", what[len(args)])
		case len(args) > len(what):
			return usage(command, "%q is one argument too many", args[len(what)])
		}
		return nil
	}
}

func atLeast(what string) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(command, "%s is missing", what)
		}
		return nil
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(command, "%q is one argument too many", args[n])
		}
		return nil
	}
}
