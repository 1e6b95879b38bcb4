package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newApproveCommand() *cobra.Command {
	var comment string
	var back bool
	command := &cobra.Command{
		Use:   "approve ID",
		Short: "Approve somebody's request, or take that back",
		Example: `  sallyport approve g-7k3mq2 --comment "go ahead"
  sallyport approve g-7k3mq2 --withdraw --comment "wrong target"`,
		Args: exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			verb := "/approve"
			if back {
				verb = "/withdraw"
			}
			return transition(command, "/v1/requests/"+url.PathEscape(args[0])+verb, comment)
		},
	}
	command.Flags().StringVar(&comment, "comment", "", "a `WORD` for the record")
	command.Flags().BoolVar(&back, "withdraw", false, "take your approval back: what was given by it ends")
	return command
}

// transition asks for one change of a grant and prints what it is now.
func transition(command *cobra.Command, path, comment string) error {
	g, err := post[api.Grant](command, path, api.Decision{Comment: comment})
	if err != nil {
		return err
	}
	if asJSON(command) {
		return printJSON(command.OutOrStdout(), g)
	}
	if _, err = fmt.Fprintf(command.OutOrStdout(), "%s (%s@%s for %s) is now %s.\n", g.ID, g.Account, g.Target, visible(g.Identity.Label()), g.State); err != nil || g.StageLabel() == "" {
		return err
	}
	_, err = fmt.Fprintf(command.OutOrStdout(), "  It waits for approval by %s.\n", visible(g.WaitsFor()))
	return err
}
