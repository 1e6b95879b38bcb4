package main

import (
	"net/url"

	"github.com/spf13/cobra"
)

func newDenyCommand() *cobra.Command {
	var comment string
	command := &cobra.Command{
		Use:     "deny ID",
		Short:   "Deny somebody's request",
		Example: "  sallyport deny g-7k3mq2 --comment \"wait until the backup is done\"",
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			return transition(command, "/v1/requests/"+url.PathEscape(args[0])+"/deny", comment)
		},
	}
	command.Flags().StringVar(&comment, "comment", "", "`WHY`, for the one who asked and for the record")
	return command
}
