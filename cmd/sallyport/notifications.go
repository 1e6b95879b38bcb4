package main

import (
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"sallyport/web/api"
)

func newNotificationsCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "notifications",
		Short: "What waits to be told to Slack, webhooks and so on, and what was given up",
		Args:  noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			path := "/v1/notifications"
			if all {
				path += "?all=true"
			}
			list := []api.Notification{}
			if err := c.Do(command.Context(), http.MethodGet, path, nil, &list); err != nil {
				return err
			}
			return show(command, list, func(t *table) {
				t.row("ID", "CHANNEL", "KIND", "STATE", "ATTEMPTS", "CREATED", "NEXT TRY", "ERROR")
				for _, n := range list {
					t.row(n.ID, n.Channel, n.Kind, n.State, strconv.Itoa(n.Attempts), local(n.Created), local(n.NextTry), n.Error)
				}
			})
		},
	}
	command.Flags().BoolVar(&all, "all", false, "those that were delivered too")
	return command
}
