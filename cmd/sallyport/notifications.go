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
			path := "/v1/notifications"
			if all {
				path += "?all=true"
			}
			list, err := get[[]api.Notification](command, path)
			if err != nil {
				return err
			}
			return showNotifications(command, list)
		},
		Example: "  sallyport notifications\n  sallyport notifications retry g-7k3mq2-57\n  sallyport notifications retry --given-up --channel slack/ops",
	}
	command.Flags().BoolVar(&all, "all", false, "those that were delivered too")
	command.AddCommand(newNotificationsRetryCommand())
	return command
}

func newNotificationsRetryCommand() *cobra.Command {
	var again api.NotificationRetry
	command := &cobra.Command{
		Use:   "retry ID… | --given-up",
		Short: "Have what waits, or was given up, be told at once",
		Long: `Have notifications be tried at once and for another day: those with these IDs, or all that were given up. What was given up on the
same grant after one of them is tried after it, so that its story is told in order. Receivers know what comes again by its id.
It takes the permission notifications.retry.`,
		Example: "  sallyport notifications retry g-7k3mq2-57\n  sallyport notifications retry --given-up --channel slack/ops",
		Args: func(command *cobra.Command, args []string) error {
			if len(args) > 0 == again.GivenUp {
				return usage(command, "name notifications by their IDs, or say --given-up for all that were")
			}
			return nil
		},
		RunE: func(command *cobra.Command, args []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			again.IDs = args
			list := []api.Notification{}
			if err := c.Do(command.Context(), http.MethodPost, "/v1/notifications/retry", again, &list); err != nil {
				return err
			}
			return showNotifications(command, list)
		},
	}
	command.Flags().BoolVar(&again.GivenUp, "given-up", false, "all that were given up")
	command.Flags().StringVar(&again.Channel, "channel", "", "only those to the channel of this `NAME`: slack/ops")
	return command
}

func showNotifications(command *cobra.Command, list []api.Notification) error {
	return show(command, list, func(t *table) {
		t.row("ID", "CHANNEL", "KIND", "STATE", "ATTEMPTS", "CREATED", "NEXT TRY", "ERROR")
		for _, n := range list {
			t.row(n.ID, n.Channel, n.Kind, n.State, strconv.Itoa(n.Attempts), local(n.Created), local(n.NextTry), n.Error)
		}
	})
}
