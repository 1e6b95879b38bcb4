package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newKillCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:     "kill ID",
		Short:   "Cut a live session; the grant goes on",
		Example: "  sallyport kill s-0abc --reason \"locks the orders table\"",
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			s, err := post[api.Session](command, "/v1/sessions/"+url.PathEscape(args[0])+"/kill", api.Decision{Comment: reason})
			if err != nil {
				return err
			}
			if asJSON(command) {
				return printJSON(command.OutOrStdout(), s)
			}
			_, err = fmt.Fprintf(command.OutOrStdout(), "Session %s is cut. Its grant lives on: sallyport revoke %s ends that too.\n", s.ID, s.Grant)
			return err
		},
	}
	command.Flags().StringVar(&reason, "reason", "", "`WHY`, for the record and the one who is cut")
	return command
}
