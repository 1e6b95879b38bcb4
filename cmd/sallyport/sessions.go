package main

import (
	"github.com/spf13/cobra"

	"sallyport/client"
	"sallyport/web/api"
)

func newSessionsCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "sessions",
		Short: "Sessions: yours, and with the permission everybody's",
		Args:  noArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			c, err := open()
			if err != nil {
				return err
			}
			path := "/v1/sessions"
			if all {
				path += "?all=true"
			}
			sessions, err := client.List[api.Session](command.Context(), c, path)
			if err != nil {
				return err
			}
			return show(command, sessions, func(t *table) {
				t.row("ID", "WHO", "ACCOUNT@TARGET", "GRANT", "STARTED", "ENDED", "WHY", "REASON")
				for _, s := range sessions {
					ended := ""
					if s.Ended != nil {
						ended = local(*s.Ended)
					}
					t.row(s.ID, s.Identity.Label(), s.Account+"@"+s.Target, s.Grant, local(s.Started), ended, s.EndReason, s.Reason)
				}
			})
		},
	}
	command.Flags().BoolVar(&all, "all", false, "those that have ended too")
	return command
}
