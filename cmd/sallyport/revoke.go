package main

import (
	"net/url"

	"github.com/spf13/cobra"
)

func newRevokeCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:     "revoke ID",
		Short:   "End a grant and its sessions at once",
		Example: "  sallyport revoke g-7k3mq2 --reason \"left the team\"",
		Args:    exactly("ID"),
		RunE: func(command *cobra.Command, args []string) error {
			return transition(command, "/v1/grants/"+url.PathEscape(args[0])+"/revoke", reason)
		},
	}
	command.Flags().StringVar(&reason, "reason", "", "`WHY`, for the one who holds it and for the record")
	return command
}
