package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newApproveCommand() *cobra.Command {
	var comment string
	command := &cobra.Command{
		Use:   "approve ID",
		Short: "Approve somebody's request",
		Args:  exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			return transition(command, "/v1/requests/"+url.PathEscape(args[0])+"/approve", comment)
		},
	}
	command.Flags().StringVar(&comment, "comment", "", "a `WORD` for the record")
	return command
}

// transition asks for one change of a grant and prints what it is now.
func transition(command *cobra.Command, path, comment string) error {
	c, err := open()
	if err != nil {
		return err
	}
	var g api.Grant
	if err := c.Do(command.Context(), http.MethodPost, path, api.Decision{Comment: comment}, &g); err != nil {
		return err
	}
	if asJSON(command) {
		return printJSON(command.OutOrStdout(), g)
	}
	_, err = fmt.Fprintf(command.OutOrStdout(), "%s (%s@%s for %s) is now %s.\n", g.ID, g.Account, g.Target, visible(g.Identity.Label()), g.State)
	return err
}
