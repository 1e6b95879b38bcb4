package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newRenewCommand() *cobra.Command {
	var always, stay bool
	command := &cobra.Command{
		Use:   "renew",
		Short: "Renew your certificates while your sign-in lasts",
		Long: `Have fresh keys certified if your certificates are in their last quarter (their last hour, where they last longer), and your
sign-in goes on beyond them. Every other command does that in passing; this one is for a timer, or with --stay for a session's start.`,
		Example: "  sallyport renew --stay &",
		Args:    noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			tell := func(until time.Time) {
				fmt.Fprintf(command.ErrOrStderr(), "The certificates are good until %s.\n", local(until))
			}
			until, renewed, err := c.Renew(command.Context(), command.ErrOrStderr(), always)
			if err != nil {
				return err
			}
			if !stay {
				return show(command, map[string]any{"until": until, "renewed": renewed}, func(t *table) {
					t.row("UNTIL", "RENEWED")
					t.row(local(until), map[bool]string{true: "yes", false: "no"}[renewed])
				})
			}
			tell(until)
			if err := c.Stay(command.Context(), command.ErrOrStderr(), tell); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil // Ctrl-C is how it ends
		},
	}
	command.Flags().BoolVar(&always, "always", false, "also if they are good for long")
	command.Flags().BoolVar(&stay, "stay", false, "stay, and renew until the sign-in ends")
	return command
}
